"""A style: who plays, and what is natural for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from music import Score

ANY = ("major", "minor", "major", "minor", "dorian", "mixolydian")
BRIGHT = ("major", "major", "major", "mixolydian", "lydian")
DARK = ("minor", "minor", "minor", "harmonic minor", "phrygian")


@dataclass(frozen=True)
class Style:
    """write: puts the notes into a score. tempi: bpm that are natural. scales: to draw from, with repetitions.

    energies: to draw from, 0 soft to 2 loud. swings: to draw from; swing_unit: beats that are bent. looseness: seconds.
    pulse: whether a beat can be heard. rooms: seconds of reverberation, to draw from. sidechain: most depth of it.
    """

    write: Callable[[Score], None]
    tempi: tuple[int, int]
    scales: tuple[str, ...] = ANY
    energies: tuple[int, ...] = (1, 1, 2)
    swings: tuple[float, ...] = (0.0,)
    swing_unit: float = 0.5
    looseness: float = 0.005
    pulse: bool = True
    rooms: tuple[float, float] = (0.3, 1.2)
    sidechain: float = 0.0
