"""Synthetic rhythms whose tempo and downbeat are known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from magnet_cli.audio.blocks import Waveform

RATE = 32_000
# Beats within a bar of four at which each instrument plays.
Pattern = Mapping[str, tuple[float, ...]]
FOUR_ON_THE_FLOOR: Pattern = {
    "kick": (0, 1, 2, 3),
    "snare": (1, 3),
    "hat": (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5),
    "bass": (0,),
}
ROCK: Pattern = {"kick": (0, 2, 2.5), "snare": (1, 3), "hat": (0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5), "bass": (0,)}
BALLAD: Pattern = {"kick": (0,), "snare": (2,), "hat": (0, 1, 2, 3), "bass": (0,)}
CLICKS: Pattern = {"click": (0, 1, 2, 3)}


def instrument(name: str, rng: np.random.Generator, *, note: int = 0, rate: int = RATE) -> NDArray[np.float64]:
    """One hit."""
    time = np.arange(round(0.4 * rate)) / rate
    if name == "kick":
        return np.asarray(np.sin(2 * np.pi * (50 * time + 6 * (1 - np.exp(-time / 0.02)))) * np.exp(-time / 0.1))
    if name == "bass":
        return np.asarray(0.4 * np.sin(2 * np.pi * 55 * 2 ** (note / 12) * time) * np.exp(-time / 0.3))
    if name == "click":
        return np.asarray(np.sin(2 * np.pi * 1500 * time) * np.exp(-time / 0.01))
    fall, level = {"snare": (0.06, 0.5), "hat": (0.02, 0.15)}[name]
    noise = rng.standard_normal(len(time))
    return np.asarray(level * (np.diff(noise, prepend=0) if name == "hat" else noise) * np.exp(-time / fall))


def rhythm(
    pattern: Pattern, bpm: float, *, bars: int = 4, seed: int = 0, jitter: float = 0.0, rate: int = RATE
) -> Waveform:
    """Whole bars of four beats, as a loop: float32 [1, L]. jitter: seconds by which hits are early or late."""
    rng = np.random.default_rng(seed)
    beat = 60 / bpm * rate
    sound = np.zeros(round(bars * 4 * beat))
    notes = rng.integers(0, 12, bars)
    for bar in range(bars):
        for name, beats in pattern.items():
            for place in beats:
                hit = instrument(name, rng, note=int(notes[bar]), rate=rate)
                start = (bar * 4 + place) * beat + rng.uniform(-jitter, jitter) * rate
                np.add.at(sound, (round(start) + np.arange(len(hit))) % len(sound), hit)
    return (sound / np.abs(sound).max())[None].astype(np.float32)
