"""Notes, chords and scales, and the score that styles write ten seconds of music into.

No sound in here, and no text: `sound/` plays the notes, `captions.py` describes them, `styles/` writes them.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

SECONDS = 10.0
BAR = 4  # beats

PITCHES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "harmonic minor": (0, 2, 3, 5, 7, 8, 11),
    "blues": (0, 3, 5, 6, 7, 10, 12),  # the melody's; chords are dominant sevenths
}
# Loops of chords, as steps of the scale from 0: one chord a bar, two or four bars.
LOOPS: dict[str, tuple[tuple[int, ...], ...]] = {
    "major": (
        *((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 3), (5, 3, 0, 4), (0, 3, 0, 4), (3, 4, 0, 0), (0, 2, 3, 4)),
        *((0, 3), (0, 4), (0, 5), (3, 0), (0, 1, 3, 0), (0, 3, 1, 4)),
    ),
    "lydian": ((0, 1), (0, 1, 0, 4), (0, 4, 1, 0), (0, 1, 5, 1)),
    "mixolydian": ((0, 6, 3, 0), (0, 6), (0, 3), (0, 6, 3, 3), (0, 0, 6, 3)),
    "minor": (
        *((0, 5, 2, 6), (0, 6, 5, 6), (0, 5, 6, 0), (0, 3, 5, 6), (0, 3, 0, 6), (0, 2, 5, 6), (5, 6, 0, 0)),
        *((0, 5), (0, 6), (0, 3), (0, 2, 6, 3), (0, 4, 5, 3)),
    ),
    "dorian": ((0, 3), (0, 3, 0, 6), (0, 6, 3, 0), (0, 2, 3, 0), (0, 0, 3, 3)),
    "phrygian": ((0, 1), (0, 0, 1, 0), (0, 1, 6, 0), (0, 5, 1, 0), (0, 0, 6, 1)),
    "harmonic minor": ((0, 4), (0, 3, 4, 0), (0, 5, 4, 0), (0, 3, 4, 4), (0, 0, 4, 0)),
    "blues": ((0, 3, 0, 4), (0, 0, 3, 0), (0, 3, 0, 0), (0, 3), (0, 0, 3, 4), (0, 3, 4, 0)),
}
BLUES_ROOTS = {0: 0, 3: 5, 4: 7}  # semitones of the three chords of the blues


@dataclass(frozen=True)
class Note:
    """One note: seconds from the start, seconds it lasts, the instrument (`sound/instruments.py`), key, velocity."""

    start: float
    length: float
    instrument: str
    key: int
    velocity: int


@dataclass(frozen=True)
class Piece:
    """What is played, with the facts that captions may state.

    density: 0 sparse, 1 busy. energy: 0 soft, 1 medium, 2 loud. pulse: whether a beat can be heard.
    instruments: in the order of their importance. fingerprint: of the notes as written, before anybody played them.
    """

    style: str
    bpm: int
    pulse: bool
    root: str
    scale: str
    density: int
    energy: int
    instruments: tuple[str, ...]
    fingerprint: str
    notes: tuple[Note, ...]

    @property
    def minor(self) -> bool:
        """Whether the third is minor. The blues is neither, and counts as minor."""
        return 3 in SCALES[self.scale]


@dataclass(frozen=True)
class Chord:
    """A chord of a scale: its root in steps of the scale, and its tones in semitones above the key note."""

    step: int
    tones: tuple[int, ...]

    def above(self, low: int, root: int, count: int) -> list[int]:
        """The nearest keys at or above `low` that form the first `count` tones, in rising order."""
        return sorted(low + (root + tone - low) % 12 for tone in self.tones[:count])


def phrase(line: str) -> Iterator[tuple[float, float, str]]:
    """The strokes of one bar that is written as a line: beat, beats, sign.

    The line divides the bar evenly: 16 signs are sixteenths. 12 signs are triplets, in music with a swing of 1, which
    bends a quarter and a half of a beat to its thirds. `.` is a rest, `-` holds what sounds, blanks are for the eye.

    Raises: ValueError for a line of another length.
    """
    signs = line.replace(" ", "")
    if len(signs) not in (3 * BAR, 4 * BAR):
        raise ValueError(f"{line!r} has {len(signs)} signs")
    triplets = len(signs) == 3 * BAR

    def place(index: int) -> float:
        return index // 3 + (0.0, 0.25, 0.5)[index % 3] if triplets else index * BAR / len(signs)

    for index, sign in enumerate(signs):
        if sign in ".-":
            continue
        held = 1
        while index + held < len(signs) and signs[index + held] == "-":
            held += 1
        yield place(index), place(index + held) - place(index), sign


@dataclass
class Score:
    """Notes being written, at positions in beats.

    root: the key note, 0 (C) to 11. loop: the chords. swing: 0 is straight, 1 is triplets, of the `swing_unit` (beats).
    looseness: deviation in seconds of when a note is struck.
    """

    rng: random.Random
    bpm: int
    root: int
    scale: str
    loop: tuple[int, ...]
    density: int
    energy: int
    swing: float
    swing_unit: float
    looseness: float
    notes: list[Note] = field(default_factory=list)
    written: list[tuple[float, float, str, int]] = field(default_factory=list)

    @property
    def bars(self) -> int:
        """Bars that begin within the clip."""
        return math.ceil(SECONDS * self.bpm / 60 / BAR)

    def chord(self, bar: int) -> Chord:
        """The chord of a bar, up to its ninth."""
        step = self.loop[bar % len(self.loop)]
        if self.scale == "blues":
            base = BLUES_ROOTS[step]
            return Chord(step, tuple(base + above for above in (0, 4, 7, 10, 14)))
        scale = SCALES[self.scale]
        steps = [step + third for third in (0, 2, 4, 6, 8)]
        return Chord(step, tuple(scale[one % 7] + 12 * (one // 7) for one in steps))

    def chord_keys(self, bar: int, low: int, count: int = 3) -> list[int]:
        """The keys of a bar's chord, in the closest position at or above `low`: successive chords move little."""
        return self.chord(bar).above(low, self.root, count)

    def bass_key(self, bar: int, low: int, sign: str = "R") -> int:
        """A tone of a bar's chord above its root, the lowest at or above `low`: R, 3, 5, 7, or 8 (the octave)."""
        tones = self.chord(bar).tones
        root = low + (self.root + tones[0] - low) % 12
        place = {"R": 0, "3": 1, "5": 2, "7": 3}.get(sign)
        return root + 12 if place is None else root + tones[place] - tones[0]

    def scale_key(self, bar: int, low: int, step: int) -> int:
        """A step of the scale, counted from the root of the bar's chord; the key note lies in the octave from `low`."""
        home = low + (self.root - low) % 12
        if self.scale == "blues":  # one scale over all three chords
            notes = SCALES["blues"][:6]
            return home + notes[step % 6] + 12 * (step // 6)
        chord = self.loop[bar % len(self.loop)]
        place = step + (chord - 7 if chord > 3 else chord)
        return home + SCALES[self.scale][place % 7] + 12 * (place // 7)

    def seconds(self, beat: float) -> float:
        """When a beat is, with swing."""
        unit = 2 * self.swing_unit
        whole, part = divmod(beat, unit)
        middle = 0.5 + self.swing / 6
        share = part / unit
        bent = share * 2 * middle if share < 0.5 else middle + (share - 0.5) * 2 * (1 - middle)
        return (whole + bent) * unit * 60 / self.bpm

    def play(self, instrument: str, beat: float, beats: float, key: int, velocity: float = 90) -> None:
        """A note. Hands are never quite in time, nor twice as strong."""
        start = self.seconds(beat)
        length = max(0.04, self.seconds(beat + beats) - start)
        start = max(0.0, start + self.rng.gauss(0, self.looseness))
        metre = 7 if beat % BAR == 0 else 5 if beat % 1 == 0 else -5  # what keeps syncopations from moving the beat
        strength = (velocity + metre) * (0.72, 0.92, 1.08)[self.energy] + self.rng.gauss(
            0, 4 if self.looseness > 0.002 else 1.5
        )
        if start > SECONDS - 0.06 or not 0 < key < 128:
            return
        self.written.append((round(beat, 3), round(beats, 3), instrument, key))
        self.notes.append(Note(start, length, instrument, key, max(8, min(127, round(strength)))))

    def tones(self, instrument: str, beat: float, beats: float, keys: list[int], velocity: float = 84) -> None:
        """Several notes at once."""
        for key in keys:
            self.play(instrument, beat, beats, key, velocity)

    def fingerprint(self) -> str:
        """The same for two pieces exactly when they have the same notes at the same tempo."""
        return hashlib.sha256(repr((self.bpm, sorted(self.written))).encode()).hexdigest()[:20]
