"""Music of one or a few acoustic instruments: piano, guitar, strings, choir, film music, and solo instruments."""

from __future__ import annotations

from collections.abc import Callable

from music import BAR, Score, phrase
from styles.patterns import Pattern, bass, broken, chords, drum_bar, melody
from styles.style import ANY, BRIGHT, DARK, Style


def _left_hand(score: Score, instrument: str) -> None:
    """Roots and fifths below."""
    line = score.rng.choice(("R-------5-------", "R---5---8---5---", "R-5-8-5-R-5-8-5-", "R---------------"))
    bass(score, instrument, line, 36, velocity=76)


def piano(score: Score) -> None:
    rng = score.rng
    kind = rng.random()
    sound = rng.choice(("piano", "piano", "bright piano"))
    if kind < 0.4:  # broken chords
        line = rng.choice(("0.1.2.3.4.3.2.1.", "0.2.1.2.3.2.1.2.", "0.1.2.1.0.1.2.1."))
        broken(score, sound, "0123432101234321" if score.density else line, 57, velocity=78)
        bass(score, sound, rng.choice(("R-------R-------", "R---------------")), 36, velocity=80)
    elif kind < 0.75:  # a tune with accompaniment
        _left_hand(score, sound)
        melody(score, sound, 69, busy=1 + score.density, velocity=96)
    else:  # chords
        line = rng.choice(("x---x---x---x---", "x-x-x-x-x-x-x-x-", "x---x-x-x---x-x-"))
        chords(score, sound, line if score.density else "x---x---x---x---", 60, count=rng.choice((3, 4)))
        bass(score, sound, "R-------R---5---", 36, velocity=84)


def acoustic_guitar(score: Score) -> None:
    rng = score.rng
    sound = rng.choice(("nylon guitar", "steel guitar", "steel guitar"))
    if rng.random() < 0.65:
        line = rng.choice(("0.2.1.2.3.2.1.2.", "0.1.2.3.4.3.2.1.", "0...2.1.3...2.1.", "0.3.1.2.0.3.1.2."))
        busy = rng.choice(("0213021302130213", "0.231.230.231.23"))
        broken(score, sound, busy if score.density else line, 48, velocity=88)
        bass(score, sound, "R-------R-------", 40, velocity=92)
    else:
        line = rng.choice(("x---x-x---x-x-x-", "x---x-xox-xox-xo", "x-x-x-x-x-x-x-x-"))
        chords(score, sound, line if score.density else "x---x---x---x-x-", 48, count=4, velocity=88)
        bass(score, sound, "R-------R-------", 40, velocity=84)


def strings(score: Score) -> None:
    rng = score.rng
    kind = rng.random()
    if kind < 0.45:
        chords(
            score, "strings", rng.choice(("x-------x-------", "x---------------", "x---x---x-------")), 58, velocity=88
        )
        bass(score, "strings", "R-------R-------", 38, velocity=88)
        if score.density or rng.random() < 0.5:
            melody(score, rng.choice(("violin", "strings")), 74, velocity=98)
    elif kind < 0.75:  # short strokes
        line = "x.x.x.x.x.x.x.x." if score.density else "x...x...x...x..."
        chords(score, "strings", line, 60, hold=0.75, velocity=96)
        bass(score, "strings", rng.choice(("R...R...R...R...", "R.......5.......")), 38, velocity=96)
        melody(score, "violin", 74, busy=1, velocity=94)
    else:
        line = rng.choice(("0.1.2.3.2.1.2.1.", "0...1...2...1..."))
        broken(score, "plucked strings", line, 60, velocity=104)
        bass(score, "plucked strings", "R...5...R...5...", 40, velocity=104)
        if score.density:
            melody(score, "violin", 74, busy=0, velocity=88)


def film(score: Score) -> None:
    """Wide and grave: low strings, horns, choir and drums."""
    rng = score.rng
    chords(score, rng.choice(("slow strings", "tremolo strings", "strings")), "x---------------", 55, velocity=92)
    bass(score, rng.choice(("strings", "cello")), "R---------------", 33, velocity=92)
    if score.density or score.energy == 2:
        line = rng.choice(("R.RRR.RRR.RRR.RR", "R.R.RRR.R.R.RRR.", "R.R.R.R.R.R.R.R."))
        bass(score, "strings", line, 45, velocity=100)
        pattern: Pattern = rng.choice(
            (
                {"kick": "X.....X.X.......", "low tom": "X.x.x.x.X.x.x.xx"},
                {"kick": "X.......X.......", "low tom": "....x.......x.xx", "mid tom": "......x.......x."},
            )
        )
        for bar in range(score.bars):
            drum_bar(score, "orchestra kit", bar, pattern)
        if rng.random() < 0.7:
            for bar in range(score.bars):
                score.play("timpani", bar * BAR, 2, score.bass_key(bar, 36), 100)
    if rng.random() < 0.6:
        chords(score, "choir", "x---------------", 62, velocity=88)
    if rng.random() < 0.8:
        melody(score, rng.choice(("horn", "brass", "violin", "trumpet")), 60, busy=0, velocity=104)


def music_box(score: Score) -> None:
    line = score.rng.choice(("0.1.2.3.2.1.2.1.", "0.2.1.2.3.2.1.2.", "3.2.1.0.1.2.3.4."))
    if score.rng.random() < 0.5:
        broken(score, "music box", line if score.density else "0...1...2...1...", 72, velocity=98)
    else:
        melody(score, "music box", 79, busy=score.density, velocity=104)
        broken(score, "music box", "0...2...1...2...", 67, velocity=78)


def choir(score: Score) -> None:
    rng = score.rng
    line = rng.choice(("x---x---x---x---", "x-------x-------"))
    if score.density:
        line = rng.choice(("x---x---x-------", "x---x---x---x---", "x-x-x---x-x-x---"))
    chords(score, rng.choice(("choir", "voice oohs", "choir")), line, 60, count=rng.choice((3, 4)), velocity=100)
    bass(score, "choir", line.replace("x", "R"), 43, velocity=96)
    if rng.random() < 0.3:
        bass(score, "church organ", "R---------------", 36, velocity=70)


def church_organ(score: Score) -> None:
    rng = score.rng
    line = rng.choice(("x-------x-------", "x---x---x---x---", "x---------------"))
    chords(score, "church organ", line, 60, count=3, velocity=88)
    bass(score, "church organ", "R-------R-------", 36, velocity=88)
    if score.density:
        melody(score, "church organ", 72, busy=1, velocity=92)


def hammond_organ(score: Score) -> None:
    rng = score.rng
    chords(
        score,
        rng.choice(("organ", "rock organ")),
        rng.choice(("x---x---x---x---", "x-------x---x---", "x-x-x-x-x-x-x-x-")),
        62,
        count=4,
    )
    bass(score, "organ", rng.choice(("R---3---5---3---", "R-------5-------")), 36, velocity=84)
    if score.density:
        melody(score, "rock organ", 70, busy=2, velocity=92)


def harpsichord(score: Score) -> None:
    rng = score.rng
    line = rng.choice(("0121012101210121", "0123210101232101")) if score.density else "0.1.2.1.3.1.2.1."
    if rng.random() < 0.5:
        broken(score, "harpsichord", line, 62, velocity=96)
    else:
        melody(score, "harpsichord", 72, busy=1 + score.density, velocity=98)
    bass(score, "harpsichord", rng.choice(("R---5---R---3---", "R---R---5---5---")), 43, velocity=92)


def harp(score: Score) -> None:
    line = score.rng.choice(("0.1.2.3.4.5.4.3.", "0.1.2.3.4.3.2.1.", "0.2.4.3.5.4.2.1."))
    broken(score, "harp", "0123456765432101" if score.density else line, 55, velocity=94)
    bass(score, "harp", "R-------R-------", 38, velocity=90)


def marimba(score: Score) -> None:
    rng = score.rng
    line = rng.choice(("0.2.1.2.0.2.1.2.", "0.121.120.121.12", "0...2...1...2..."))
    if rng.random() < 0.5:
        broken(score, "marimba", "0212021202120212" if score.density else line, 60, velocity=100)
    else:
        melody(score, "marimba", 72, busy=1 + score.density, velocity=104)
        bass(score, "marimba", "R...5...R...5...", 48, velocity=92)


def accordion(score: Score) -> None:
    rng = score.rng
    melody(score, "accordion", 69, busy=1 + score.density, velocity=100)
    chords(score, "accordion", rng.choice(("....x.......x...", "..x...x...x...x.", "....x.x.....x.x.")), 55, hold=0.5)
    bass(score, "accordion", "R---....5---....", 43, velocity=92)


def sitar(score: Score) -> None:
    """A melody over a drone, in one harmony."""
    rng = score.rng
    drone = rng.choice(("x...x...x...x...", "x.x.x.x.x.x.x.x.", "x-------x-------"))
    for bar in range(score.bars):
        low = 48 + score.root % 12
        for beat, beats, _ in phrase(drone):
            score.tones("sitar", bar * BAR + beat, beats, [low, low + 7], 74)
    melody(score, "sitar", 60, busy=1 + score.density, velocity=104)


def electric_bass(score: Score) -> None:
    rng = score.rng
    sparse = ("R---R---5---3---", "R---5---8---5---", "R---3---5---8---")
    busy = ("R.R.8.5.R.R.7.5.", "R.RR..8.5.R.3.5.", "R.R.3.3.5.5.7.8.", "RR.8R.R.5.7.8.5.")
    line = rng.choice(busy if score.density else sparse)
    sound = rng.choice(("fingered bass", "slap bass", "picked bass", "fretless bass"))
    bass(score, sound, line, rng.choice((28, 33)), velocity=108)


def electric_guitar(score: Score) -> None:
    rng = score.rng
    sound = rng.choice(("clean guitar", "overdriven guitar", "distorted guitar", "jazz guitar"))
    if rng.random() < 0.5 or sound in ("overdriven guitar", "distorted guitar"):
        melody(score, sound, 60, busy=1 + score.density, velocity=104)
    else:
        broken(score, sound, rng.choice(("0.2.1.2.3.2.1.2.", "0...2.1.3...2.1.")), 52, velocity=92)


def solo(instrument: str, low: int, accompaniment: tuple[str, ...] = ()) -> Callable[[Score], None]:
    """A melody on one instrument, sometimes over soft chords on another."""

    def write(score: Score) -> None:
        melody(score, instrument, low, busy=score.rng.choice((0, 1)) if not score.density else 2, velocity=106)
        if accompaniment and score.rng.random() < 0.35:
            other = score.rng.choice(accompaniment)
            line = score.rng.choice(("x-------x-------", "x---------------"))
            chords(score, other, line, 53, velocity=54)

    return write


SLOW, ROOM, HALL = (60, 110), (0.3, 1.2), (0.8, 2.4)
SOLO: tuple[tuple[str, str, int, tuple[str, ...], tuple[float, float]], ...] = (
    ("flute", "flute", 74, ("harp",), HALL),
    ("violin", "violin", 69, ("piano",), HALL),
    ("cello", "cello", 48, ("piano",), HALL),
    ("trumpet", "trumpet", 62, (), ROOM),
    ("clarinet", "clarinet", 62, ("piano",), ROOM),
)


def saxophone(score: Score) -> None:
    sound = score.rng.choice(("alto sax", "tenor sax"))
    solo(sound, 60 if sound == "alto sax" else 54, ("electric piano",))(score)


STYLES = {
    "piano": Style(piano, (60, 130), ANY, (0, 1, 1, 2), looseness=0.007),
    "acoustic guitar": Style(acoustic_guitar, (70, 130), ANY, (0, 1, 1), looseness=0.007),
    "strings": Style(strings, (60, 130), ANY, (0, 1, 1, 2), looseness=0.007, rooms=HALL),
    "film score": Style(film, (60, 120), (*DARK, "major", "lydian"), (0, 1, 2, 2), rooms=(1.2, 2.8)),
    "music box": Style(music_box, (60, 120), ANY, (0, 1), looseness=0.004),
    "choir": Style(choir, SLOW, ANY, (0, 1, 1), looseness=0.008, rooms=(1.2, 2.8)),
    "church organ": Style(church_organ, SLOW, ANY, (1, 2), rooms=(1.2, 2.8)),
    "organ": Style(hammond_organ, (70, 140), ("dorian", "mixolydian", "minor", "major"), (0, 1, 2)),
    "harpsichord": Style(harpsichord, (70, 140), ("minor", "major", "harmonic minor"), (1,), looseness=0.004),
    "harp": Style(harp, (60, 120), (*BRIGHT, "minor"), (0, 1), looseness=0.007, rooms=HALL),
    "marimba": Style(marimba, (80, 150), ANY, (1,)),
    "accordion": Style(accordion, (80, 150), ("major", "minor", "harmonic minor"), (1, 2)),
    "sitar": Style(sitar, (60, 130), ("phrygian", "dorian", "mixolydian"), (1,), looseness=0.007),
    "saxophone": Style(saxophone, (60, 140), ("minor", "dorian", "major", "blues"), (0, 1), looseness=0.008),
    "bass": Style(electric_bass, (70, 130), ("minor", "dorian", "mixolydian", "blues"), (1, 2), rooms=(0.2, 0.6)),
    "electric guitar": Style(electric_guitar, (70, 140), ("minor", "blues", "mixolydian", "major"), (1, 2)),
    **{
        name: Style(solo(sound, low, others), (60, 140), ANY, (0, 1, 1), looseness=0.008, rooms=rooms)
        for name, sound, low, others, rooms in SOLO
    },
}
