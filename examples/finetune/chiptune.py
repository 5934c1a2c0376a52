"""Write twenty short clips of a style that the bundled model does not know, with captions: chiptune.

    python examples/finetune/chiptune.py chiptune

writes `chiptune/*.flac`, 10 seconds each, and `chiptune/metadata.jsonl`, whose `text` is a list of captions for each
clip. The sound is computed with NumPy: square-wave arpeggios over a triangle bass, as on an early game console. The
same seed gives the same samples.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 16_000
SECONDS = 10.0
PEAK = 0.5
TEMPI = (100, 125)  # a sixteenth note is 0.15 or 0.12 s: whole frames of the bundled codec, 0.04 s each
# Steps above C of the chords of each bar.
PROGRESSIONS = {
    "happy": (((0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7)), ((0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14))),
    "dark": (((0, 3, 7), (8, 12, 15), (10, 14, 17), (0, 3, 7)), ((0, 3, 7), (5, 8, 12), (7, 10, 14), (0, 3, 7))),
}
PATTERNS = ((0, 1, 2, 1), (0, 1, 2, 3), (2, 1, 0, 1), (0, 2, 1, 2))  # notes of a chord in turn; 3 is an octave up
NAMES = (
    "chiptune",
    "8-bit chiptune",
    "a chiptune with square waves",
    "chiptune video game music",
    "chiptune arpeggios",
)
CAPTIONS = 4  # for each clip

Samples = NDArray[np.float64]


def frequency(steps: int) -> float:
    """Hz of a note, in half steps above middle C."""
    return 261.63 * 2.0 ** (steps / 12)


def note(hertz: float, seconds: float, *, duty: float | None) -> Samples:
    """A pulse wave of this duty cycle that fades out, or a triangle if that is None. Overtones end below RATE / 2."""
    times = np.arange(round(seconds * RATE)) / RATE
    wave = np.zeros_like(times)
    for harmonic in range(1, int(RATE / 2 / hertz)):
        if duty is not None:
            size = 2 / (np.pi * harmonic**2) * np.sin(np.pi * harmonic * duty)  # softer than a pulse: one more 1/n
        else:
            size = (harmonic % 2) * 0.8 / harmonic**2
        wave += size * np.cos(2 * np.pi * hertz * harmonic * times)
    return wave * np.exp(-times / seconds)


def clip(draw: random.Random, mood: str, bpm: int) -> Samples:
    """One clip, [L]."""
    sixteenth = 60 / bpm / 4
    chords, pattern = draw.choice(PROGRESSIONS[mood]), draw.choice(PATTERNS)
    duty, bass_every = draw.choice((0.5, 0.25)), draw.choice((2, 4))
    wave = np.zeros(round(SECONDS * RATE))

    def add(place: int, sound: Samples) -> None:
        start = round(place * sixteenth * RATE)
        part = wave[start : start + len(sound)]
        part += sound[: len(part)]

    for place in range(int(SECONDS / sixteenth)):
        chord = chords[place // 16 % len(chords)]
        steps = (*chord, chord[0] + 12)[pattern[place % 4]]
        add(place, note(frequency(steps), sixteenth, duty=duty))
        if place % bass_every == 0:
            add(place, 0.9 * note(frequency(chord[0] - 24), bass_every * sixteenth, duty=None))
    return wave * (PEAK / np.abs(wave).max())


def caption(draw: random.Random, mood: str, bpm: int) -> str:
    """One caption, which always names the style."""
    parts = [draw.choice(NAMES)]
    if draw.random() < 0.7:
        parts.append(mood)
    if draw.random() < 0.8:
        parts.append(f"{bpm} bpm")
    return ", ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Render the data of the fine-tuning recipe.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(options.clips):
        draw = random.Random(f"{options.seed}/{index}")
        mood, bpm = ("happy", "dark")[index % 2], TEMPI[index // 2 % len(TEMPI)]
        name = f"chiptune-{index:02d}.flac"
        soundfile.write(options.folder / name, clip(draw, mood, bpm), RATE, subtype="PCM_16")
        rows.append({"file_name": name, "text": [caption(draw, mood, bpm) for _ in range(CAPTIONS)]})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (options.folder / "metadata.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
