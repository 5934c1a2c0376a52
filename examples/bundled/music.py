"""Ten seconds of music as notes: twelve styles, each a few patterns over a chord progression, drawn at random.

No sound in here, and no text: `render.py` plays the notes, `captions.py` describes them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

SECONDS = 10.0
TEMPI = (75, 100, 125, 150)  # bpm: beats of 20, 15, 12 and 10 frames of the codec
DRUMS = -1  # in place of a program: General MIDI's percussion
KICK, SNARE, RIM, CLAP, CLOSED, OPEN, RIDE, CRASH, SHAKER = 36, 38, 37, 39, 42, 46, 51, 49, 70
ROOTS = {"C": 60, "D": 62, "F": 65, "A": 57}
GRID = 0.04  # seconds: where notes of simple music begin and end

MAJOR = ((0, 7, 9, 5), (0, 5, 7, 0), (0, 9, 5, 7), (9, 5, 0, 7))
MINOR = ((0, 8, 3, 10), (0, 5, 7, 0), (0, 10, 8, 10), (0, 3, 10, 5))
MAJOR_SCALE, MINOR_SCALE = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)


@dataclass(frozen=True)
class Note:
    """One note: seconds from the start, seconds it lasts, General MIDI program (or DRUMS), key, velocity."""

    start: float
    length: float
    program: int
    key: int
    velocity: int


@dataclass(frozen=True)
class Piece:
    """What is played. `density` is 0 (sparse) or 1 (busy); `bpm` is what the beat of the notes has."""

    style: str
    bpm: int
    root: str
    minor: bool
    density: int
    notes: tuple[Note, ...]


@dataclass
class Score:
    """Notes being written, at positions in beats.

    simple: notes keep to GRID and are struck alike. A frame of the codec is as long as GRID, so that a note then has
    the same codes wherever it stands, which is much less to learn; the beat is right on average, at most 20 ms off.
    """

    rng: random.Random
    bpm: int
    root: int
    minor: bool
    density: int
    progression: tuple[int, ...]
    simple: bool
    notes: list[Note]

    @property
    def beats(self) -> int:
        """Beats that begin within the clip."""
        return int(SECONDS * self.bpm / 60) + 1

    def chord(self, bar: int) -> tuple[int, int, int]:
        """The triad of a bar, as keys."""
        scale = MINOR_SCALE if self.minor else MAJOR_SCALE
        degree = scale.index(self.progression[bar % 4])
        steps = [degree, degree + 2, degree + 4]
        low, middle, high = (self.root + scale[step % 7] + 12 * (step // 7) for step in steps)
        return low, middle, high

    def add(self, beat: float, beats: float, program: int, key: int, velocity: int) -> None:
        """A note at a beat. Velocities vary a little, as hands do; times do not."""
        start, end = beat * 60 / self.bpm, (beat + beats) * 60 / self.bpm
        loud = max(1, min(127, velocity + self.rng.randint(-6, 6)))
        if self.simple:
            start, loud = round(start / GRID) * GRID, velocity
            end = max(start + GRID, round(end / GRID) * GRID)
        if start < SECONDS - 0.05:
            self.notes.append(Note(start, end - start, program, key, loud))

    def hit(self, beat: float, key: int, velocity: int) -> None:
        """A stroke on the drums."""
        self.add(beat, 0.25, DRUMS, key, velocity)

    def tones(self, start: float, beats: float, program: int, keys: tuple[int, ...], velocity: int) -> None:
        """Several notes at once."""
        for key in keys:
            self.add(start, beats, program, key, velocity)


def _piano(score: Score) -> None:
    broken = score.rng.random() < 0.5
    for bar in range(score.beats // 4 + 1):
        low, middle, high = score.chord(bar)
        at = 4 * bar
        score.add(at, 2, 0, low - 24, 78)
        score.add(at + 2, 2, 0, low - 12, 70)
        if score.density and broken:
            for step, key in enumerate((low, middle, high, middle, low + 12, high, middle, high)):
                score.add(at + step / 2, 0.6, 0, key, 80 if step % 2 == 0 else 66)
        else:
            for beat in range(4):
                score.tones(at + beat, 0.9, 0, (low, middle, high), 82 if beat == 0 else 68)
                if score.density:
                    score.add(at + beat + 0.5, 0.4, 0, score.rng.choice((low, middle, high)) + 12, 72)


def _guitar(score: Score) -> None:
    picked = score.rng.random() < 0.5
    for bar in range(score.beats // 4 + 1):
        low, middle, high = (key - 12 for key in score.chord(bar))
        at = 4 * bar
        if picked:
            order = (low, high, middle + 12, high, low + 12, high, middle + 12, high)
            for step, key in enumerate(order if score.density else order[::2]):
                score.add(at + step * (0.5 if score.density else 1), 1.2, 24, key, 88 if step == 0 else 74)
        else:
            for beat in range(4):
                score.tones(at + beat, 0.9, 24, (low, middle, high, low + 12), 86 if beat % 2 == 0 else 72)
                if score.density:
                    score.tones(at + beat + 0.5, 0.4, 24, (middle, high, low + 12), 60)


def _beat(score: Score, kicks: tuple[float, ...], snares: tuple[float, ...], hats: float, snare: int = SNARE) -> None:
    """A bar of drums, over and over: `hats` beats between strokes on the hi-hat."""
    for bar in range(score.beats // 4 + 1):
        at = 4 * bar
        for kick in kicks:
            score.hit(at + kick, KICK, 112)
        for stroke in snares:
            score.hit(at + stroke, snare, 104)
        for step in range(int(4 / hats)):
            score.hit(at + step * hats, CLOSED, 84 if step * hats % 1 == 0 else 62)


ROCK_KICKS: tuple[tuple[float, ...], ...] = ((0.0, 2.0), (0.0, 2.0, 2.5), (0.0, 1.5, 2.0))


def _drums(score: Score) -> None:
    _beat(score, score.rng.choice(ROCK_KICKS), (1, 3), 0.5 if score.density else 1)
    if score.rng.random() < 0.5:
        score.hit(0, CRASH, 96)


def _pad(score: Score) -> None:
    program = score.rng.choice((89, 91))
    for number in range(int(SECONDS / 5)):
        low, middle, high = score.chord(number)
        length = 5 * score.bpm / 60
        keys = (low - 12, low, middle, high) if score.density else (low - 12, low, high)
        score.tones(number * length, length * 0.98, program, keys, 84)


def _disco(score: Score) -> None:
    _beat(score, (0, 1, 2, 3), (1, 3), 1)
    for beat in range(score.beats):
        score.hit(beat + 0.5, OPEN, 88)
        low, middle, high = score.chord(beat // 4)
        score.add(beat, 0.4, 33, low - 24, 104)
        score.add(beat + 0.5, 0.4, 33, low - 12, 96)
        score.tones(beat + 0.5, 0.35, 4 if not score.density else 48, (low, middle, high), 88)


def _rock(score: Score) -> None:
    _beat(score, score.rng.choice(ROCK_KICKS), (1, 3), 0.5)
    step = 0.5 if score.density else 1.0
    for number in range(int(score.beats / step)):
        at = number * step
        low = score.chord(int(at) // 4)[0] - 24
        score.tones(at, step * 0.9, 30, (low + 12, low + 19), 92 if at % 1 == 0 else 80)
        score.add(at, step * 0.9, 33, low, 100)


def _jazz(score: Score) -> None:
    for beat in range(score.beats):
        low, middle, high = score.chord(beat // 4)
        score.hit(beat, RIDE, 84 if beat % 2 else 74)
        if beat % 2:
            score.hit(beat + 2 / 3, RIDE, 66)
            score.hit(beat, 44, 76)
        walk = (low, middle, high, middle)[beat % 4] - 24
        score.add(beat, 0.9, 32, walk, 104)
        seventh = low + (10 if score.minor else 11)
        if beat % 4 == 0 or (score.density and beat % 4 == 2):
            score.tones(beat + 2 / 3, 0.8, 0, (middle, high, seventh), 76)


def _techno(score: Score) -> None:
    _beat(score, (0, 1, 2, 3), (), 1)
    for beat in range(score.beats):
        score.hit(beat + 0.5, OPEN, 92)
        if beat % 2:
            score.hit(beat, CLAP, 96)
        low, middle, high = score.chord(beat // 4)
        for quarter in (0.25, 0.5, 0.75):
            score.add(beat + quarter, 0.2, 38, low - 24, 100)
        lead = (low, high, middle + 12, high)[beat % 4] + 12
        score.add(beat, 0.25, 81, lead, 74)
        if score.density:
            score.add(beat + 0.5, 0.25, 81, middle + 12, 70)


def _hiphop(score: Score) -> None:
    kicks: tuple[tuple[float, ...], ...] = ((0, 0.75, 2.5), (0, 1.5, 2.5), (0, 2.5, 3.5))
    chosen = score.rng.choice(kicks)
    _beat(score, chosen, (1, 3), 0.5 if score.density else 1)
    for bar in range(score.beats // 4 + 1):
        low, middle, high = score.chord(bar)
        for kick in chosen:
            score.add(4 * bar + kick, 0.7, 38, low - 24, 108)
        score.tones(4 * bar, 1.8, 4, (low, middle, high), 84)
        score.tones(4 * bar + 2, 1.8, 4, (middle, high, low + 12), 76)


def _strings(score: Score) -> None:
    plucked = bool(score.density)
    for bar in range(score.beats // 4 + 1):
        low, middle, high = score.chord(bar)
        for beat in range(4):
            if plucked:
                score.tones(4 * bar + beat, 0.4, 45, (low - 12, (low, middle, high, middle)[beat]), 104)
                score.add(4 * bar + beat + 0.5, 0.4, 45, high, 84)
            elif beat % 2 == 0:
                score.tones(4 * bar + beat, 1.9, 48, (low - 12, low, middle, high), 96)


def _bells(score: Score) -> None:
    step = 0.5 if score.density else 1.0
    for number in range(int(score.beats / step)):
        low, middle, high = (key + 12 for key in score.chord(int(number * step) // 4))
        order = (low, middle, high, low + 12, high, middle, high, middle)
        score.add(number * step, 1, 10, order[number % 8], 100 if number % 2 == 0 else 84)


def _flute(score: Score) -> None:
    scale = MINOR_SCALE if score.minor else MAJOR_SCALE
    position, beat = 4, 0.0
    while beat < score.beats:
        length = score.rng.choice((0.5, 1.0) if score.density else (1.0, 2.0))
        position = max(0, min(10, position + score.rng.choice((-2, -1, 1, 2))))
        key = score.root + 12 + scale[position % 7] + 12 * (position // 7)
        score.add(beat, length * 0.85, 73, key, 96)
        beat += length


STYLES: dict[str, Callable[[Score], None]] = {
    "piano": _piano,
    "guitar": _guitar,
    "drums": _drums,
    "pad": _pad,
    "disco": _disco,
    "rock": _rock,
    "jazz": _jazz,
    "techno": _techno,
    "hiphop": _hiphop,
    "strings": _strings,
    "bells": _bells,
    "flute": _flute,
}
# What people would call a style's tempo; the rest take any.
USUAL = {"disco": (95, 140), "techno": (110, 150), "hiphop": (60, 110), "jazz": (80, 180), "pad": (60, 90)}


def compose(style: str, rng: random.Random, *, simple: bool) -> Piece:
    """A piece in this style. simple: on a grid (see Score), and always on the same root."""
    slowest, fastest = USUAL.get(style, (60, 180))
    bpm = rng.choice([tempo for tempo in TEMPI if slowest <= tempo <= fastest])
    root = next(iter(ROOTS)) if simple else rng.choice(list(ROOTS))
    minor, density = rng.random() < 0.5, rng.randrange(2)
    progression = rng.choice(MINOR if minor else MAJOR)
    score = Score(rng, bpm, ROOTS[root], minor, density, progression, simple, [])
    STYLES[style](score)
    return Piece(style, bpm, root, minor, density, tuple(score.notes))
