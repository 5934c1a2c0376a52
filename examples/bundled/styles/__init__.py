"""The styles, and pieces in them."""

from __future__ import annotations

import random

from music import LOOPS, PITCHES, Piece, Score
from styles import acoustic, bands, dance
from styles.style import Style

SLOWEST, FASTEST = 60, 180  # bpm
NATURAL = 0.7  # share of the pieces at a tempo that is natural for their style; the others have any

STYLES: dict[str, Style] = dance.STYLES | bands.STYLES | acoustic.STYLES


def draw_tempo(style: Style, rng: random.Random) -> int:
    """A tempo in bpm: any at all, since any may be asked for, but mostly one that is natural for the style."""
    low, high = style.tempi if rng.random() < NATURAL else (SLOWEST, FASTEST)
    return rng.randint(low, high)


def compose(name: str, rng: random.Random) -> Piece:
    """A piece in this style."""
    style = STYLES[name]
    scale = rng.choice(style.scales)
    score = Score(
        rng=rng,
        bpm=draw_tempo(style, rng),
        root=rng.randrange(12),
        scale=scale,
        loop=rng.choice(LOOPS[scale]),
        density=rng.randrange(2),
        energy=rng.choice(style.energies),
        swing=rng.choice(style.swings),
        swing_unit=style.swing_unit,
        looseness=style.looseness,
    )
    style.write(score)
    return Piece(
        style=name,
        bpm=score.bpm,
        pulse=style.pulse,
        root=PITCHES[score.root],
        scale=scale,
        density=score.density,
        energy=score.energy,
        instruments=tuple(dict.fromkeys(note.instrument for note in score.notes)),
        fingerprint=score.fingerprint(),
        notes=tuple(score.notes),
    )
