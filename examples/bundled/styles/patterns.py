"""What several styles share: drums and basses out of lines of signs, fills, and melodies that come back."""

from __future__ import annotations

import random
from collections.abc import Sequence

from music import BAR, Score, phrase

DRUMS = {
    "kick": 36,
    "snare": 38,
    "rim": 37,
    "clap": 39,
    "hat": 42,
    "pedal": 44,
    "open": 46,
    "ride": 51,
    "bell": 53,
    "crash": 49,
    "low tom": 45,
    "mid tom": 47,
    "high tom": 50,
    "tambourine": 54,
    "shaker": 70,
    "cowbell": 56,
    "low conga": 64,
    "conga": 63,
    "bongo": 60,
    "brush": 38,
}
FORCE = {"X": 112, "x": 92, "o": 62, ".": 0}  # accent, stroke, ghost
FILLS: tuple[dict[str, str], ...] = (
    {"snare": "........ x.x.xxXX"},
    {"snare": "........ x.x.....", "high tom": "............x...", "low tom": "..............xx"},
    {"snare": "........ ....xxxx"},
    {"high tom": "........xx......", "mid tom": "..........xx....", "low tom": "............xxXX"},
    {"snare": "........X..X..X."},
)
Pattern = dict[str, str]


def drum_bar(score: Score, kit: str, bar: int, pattern: Pattern) -> None:
    """One bar of drums: a line of signs for each drum."""
    for drum, line in pattern.items():
        for beat, _, sign in phrase(line):
            score.play(kit, bar * BAR + beat, 0.2, DRUMS[drum], FORCE[sign])


def drums(score: Score, kit: str, pattern: Pattern, *, fills: Sequence[Pattern] = FILLS, crash: float = 0.5) -> None:
    """The same bar again and again, a fill at the end of every fourth, perhaps a cymbal after it and at the start."""
    fill = score.rng.choice(list(fills)) if fills else None
    opens = score.rng.random() < crash
    for bar in range(score.bars):
        if fill and bar % 4 == 3:
            drum_bar(score, kit, bar, {drum: _first_half(line) for drum, line in pattern.items()})
            drum_bar(score, kit, bar, fill)
        else:
            drum_bar(score, kit, bar, pattern)
        if opens and bar % 4 == 0:
            score.play(kit, bar * BAR, 1, DRUMS["crash"], 96)


def _first_half(line: str) -> str:
    signs = line.replace(" ", "")
    return signs[: len(signs) // 2] + "." * (len(signs) // 2)


def bass(score: Score, instrument: str, line: str, low: int = 33, velocity: float = 98) -> None:
    """A bass that plays the tones of each bar's chord: R root, 8 octave, 3, 5, 7; a line may be of several bars."""
    bars = line.split("|")
    for bar in range(score.bars):
        for beat, beats, sign in phrase(bars[bar % len(bars)]):
            score.play(instrument, bar * BAR + beat, beats * 0.92, score.bass_key(bar, low, sign), velocity)


def chords(
    score: Score, instrument: str, line: str, low: int = 57, *, count: int = 3, velocity: float = 78, hold: float = 0.95
) -> None:
    """Chords in a rhythm: X and x are strokes, o soft ones. hold: share of a stroke's length that sounds."""
    for bar in range(score.bars):
        keys = score.chord_keys(bar, low, count)
        for beat, beats, sign in phrase(line):
            score.tones(instrument, bar * BAR + beat, beats * hold, keys, velocity * FORCE[sign] / 92)


def broken(score: Score, instrument: str, line: str, low: int = 57, *, count: int = 3, velocity: float = 80) -> None:
    """A broken chord: digits are the tones of the chord from below, and go on in the next octave."""
    for bar in range(score.bars):
        keys = score.chord_keys(bar, low, count)
        for beat, beats, sign in phrase(line):
            place = int(sign)
            key = keys[place % count] + 12 * (place // count)
            score.play(instrument, bar * BAR + beat, beats * 1.05, key, velocity)


RHYTHMS = (
    ("x---x---x-------", "x-------x---x---", "x---x-x-x-------", "x-------x-------", "x---x-------x---"),
    ("x-x-x---x-x-x---", "x---x-x-x---x-x-", "x---x---x-x-x---", "x-x-x-x-x-------", "x-x-x-x-x-x-x---"),
    ("x-xxx-x-x-xxx-x-", "x-x-x-x-x-x-x-x-", "x-xxx---x-xxx---", "xxx-x-x-x-x-xxx-", "x-x-xxx-x-x-x---"),
)
Tune = list[tuple[float, float, int]]


def tune_bar(rng: random.Random, rhythm: str, start: int = 2) -> Tune:
    """A bar of melody: beat, beats, and steps above the root of the chord; tones of the chord on the beats."""
    found: Tune = []
    step = start
    for beat, beats, _ in phrase(rhythm):
        step += rng.choice((-2, -1, -1, 1, 1, 2))
        step = max(-2, min(8, step))
        if beat % 1 == 0 and step not in (-3, 0, 2, 4, 7):
            step += rng.choice((-1, 1))
            step = min((0, 2, 4, 7), key=lambda tone: abs(tone - step))
        found.append((beat, beats, step))
    return found


def melody(
    score: Score, instrument: str, low: int = 67, *, busy: int | None = None, velocity: float = 96, legato: float = 0.95
) -> None:
    """A tune of the form A B A C in bars, which follows the chords. busy: 0 to 2, how many notes."""
    kind = score.density if busy is None else busy
    rng = score.rng
    first, other = rng.choice(RHYTHMS[kind]), rng.choice(RHYTHMS[kind])
    theme = tune_bar(rng, first, rng.choice((0, 2, 4)))
    answer = tune_bar(rng, other, theme[-1][2])
    close = [*tune_bar(rng, rng.choice(RHYTHMS[max(0, kind - 1)]), 4)[:-1], (3.0, 1.0, 0)]
    close = [one for one in close if one[0] < 3 or one[1:] == (1.0, 0)]
    for bar in range(score.bars):
        part = (theme, answer, theme, close)[bar % 4]
        for beat, beats, step in part:
            score.play(instrument, bar * BAR + beat, beats * legato, score.scale_key(bar, low, step), velocity)
