"""Bands: rock, metal, blues, funk, reggae, hip hop, jazz, and others that have a rhythm section."""

from __future__ import annotations

from music import BAR, Score, phrase
from styles.patterns import bass, broken, chords, drums, melody
from styles.style import Style

BACK = "....X.......X..."


def _power(score: Score, line: str, velocity: float = 88, instrument: str = "distorted guitar") -> None:
    """Root and fifth on a guitar; o is muted with the palm."""
    for bar in range(score.bars):
        root = score.bass_key(bar, 40)
        for beat, beats, sign in phrase(line):
            short = sign == "o"
            keys = [root, root + 7] if short else [root, root + 7, root + 12]
            score.tones(instrument, bar * BAR + beat, beats * (0.5 if short else 0.95), keys, velocity - 14 * short)


def rock(score: Score) -> None:
    rng = score.rng
    kick = rng.choice(("X.......X.......", "X.......X.X.....", "X.....X.X.......", "X...x...X.x....."))
    top = rng.choice(("hat", "hat", "ride", "open"))
    pattern = {"kick": kick, "snare": BACK, top: "x.x.x.x.x.x.x.x." if score.density else "x...x...x...x..."}
    drums(score, rng.choice(("standard kit", "power kit", "room kit")), pattern, crash=0.8)
    riff = rng.choice(
        ("x-x-x-x-x-x-x-x-", "x---x-x-x---....", "x-x-x---x-x-x---", "x-------x-------", "xoxox---xoxox---")
    )
    _power(score, riff, instrument=rng.choice(("overdriven guitar", "distorted guitar")))
    bass(score, rng.choice(("picked bass", "fingered bass")), rng.choice(("R.R.R.R.R.R.R.R.", "R---R---R---R-5-")), 28)
    if rng.random() < 0.3:
        melody(score, "overdriven guitar", 64, velocity=96)


def metal(score: Score) -> None:
    rng = score.rng
    kick = rng.choice(("X.x.X.x.X.x.X.x.", "X.xxX.xxX.xxX.xx", "X...X...X...X.x."))
    pattern = {
        "kick": kick,
        "snare": rng.choice((BACK, "....X.......X..x", "..X...X...X...X.")),
        "crash": "x...x...x...x...",
    }
    if rng.random() < 0.4:
        pattern = {"kick": kick, "snare": BACK, "ride": "x.x.x.x.x.x.x.x."}
    drums(score, "power kit", pattern)
    riff = rng.choice(
        ("x-------x-------", "x---o-o-x---o-o-", "o-o-x---o-o-x---", "x---oox-x---oox-", "x-------x-x-x-x-")
    )
    _power(score, riff, velocity=116)
    _power(score, riff, velocity=104, instrument="overdriven guitar")
    bass(score, "picked bass", rng.choice(("R.R.R.R.R.R.R.R.", "R.RRR.RRR.RRR.RR")), 28)
    if rng.random() < 0.35:
        melody(score, "distorted guitar", 69, busy=2, velocity=94)


def pop(score: Score) -> None:
    rng = score.rng
    pattern = {"kick": rng.choice(("X.......X.......", "X......xX.......", "X.......X.x.....")), "snare": BACK}
    pattern["hat"] = "x.x.x.x.x.x.x.x." if score.density else "x...x...x...x..."
    drums(score, rng.choice(("standard kit", "electronic kit", "room kit")), pattern)
    bass(score, "fingered bass", rng.choice(("R-------R-------", "R---R-R-R---R-R-", "R.R.R.R.R.R.R.R.")), 33)
    sound = rng.choice(("piano", "steel guitar", "clean guitar", "electric piano"))
    chords(score, sound, rng.choice(("x---x---x---x---", "x-x-x-x-x-x-x-x-", "x-------x-----x-")), 57)
    if rng.random() < 0.6:
        melody(score, rng.choice(("saw lead", "clean guitar", "bright piano", "strings")), 70, velocity=92)


def blues(score: Score) -> None:
    rng = score.rng
    pattern = {"kick": "x.....x.....", "snare": "...X.....X..", rng.choice(("ride", "hat")): "x.xx.xx.xx.x"}
    drums(score, rng.choice(("standard kit", "room kit", "brush kit")), pattern, fills=({"snare": "......x.xxxx"},))
    bass(
        score,
        rng.choice(("fingered bass", "double bass")),
        rng.choice(("R..3..5..7..", "R.RR.R5.55.5", "R..R..5..7..")),
        33,
    )
    comp = rng.choice(("x--x--x--x--", "..x..x..x..x", "x-----x-----"))
    chords(score, rng.choice(("organ", "piano", "clean guitar")), comp, 55, count=4, velocity=72)
    lead = rng.choice(("overdriven guitar", "clean guitar", "harmonica", "tenor sax"))
    melody(score, lead, 64, velocity=100)


def funk(score: Score) -> None:
    rng = score.rng
    pattern = rng.choice(
        (
            {"kick": "X..x....X.x.....", "snare": "....X..o.o..X..o"},
            {"kick": "X.x...x.X.......", "snare": "....X..o.o..X..."},
            {"kick": "X.....x.X.x.....", "snare": "....X..o....X..o"},
        )
    )
    pattern["hat"] = "xoxoxoxoxoxoxoxo" if score.density else "x.x.x.x.x.x.x.x."
    drums(score, rng.choice(("standard kit", "room kit")), pattern)
    line = rng.choice(("R..8R.7.R...5.7.", "R.R...8.R...5.7.", "R..RR.8.R...7.8.", "RR.8R...R..7R.8."))
    bass(score, rng.choice(("slap bass", "slap bass", "fingered bass")), line, 31, 106)
    comp = rng.choice(("..xx..xx..xx..xx", "x.xxx...x.xxx...", "..x.x.xx..x.x.xx", "....x.......x.x."))
    chords(score, rng.choice(("muted guitar", "clavinet", "clean guitar")), comp, 60, count=4, hold=0.45)
    if rng.random() < 0.6:
        line = rng.choice(("X.x.............", "........X.x.....", "X...........X...", "............x.X."))
        chords(score, "brass", line, 65, hold=0.7, velocity=92)


def reggae(score: Score) -> None:
    rng = score.rng
    pattern = rng.choice(
        (
            {"kick": "........X.......", "rim": "........X.......", "hat": "x.x.x.x.x.x.x.x."},
            {"kick": "X...X...X...X...", "rim": "........X.......", "hat": "x.x.x.x.x.x.x.x."},
            {"kick": "X.......X.......", "snare": "........X.......", "hat": "xoxoxoxoxoxoxoxo"},
        )
    )
    drums(score, "standard kit", pattern, fills=({"snare": "........x.xx....", "high tom": "............xxx."},))
    line = rng.choice(("R-----3-5---....", "R---R-R-3-5-....", "R-R-5---....5-3-", "R---..R-5---3---"))
    bass(score, "fingered bass", line, 31, 110)
    comp = rng.choice(("....x.......x...", "..x...x...x...x.", "....x.x.....x.x."))
    chords(score, rng.choice(("muted guitar", "clean guitar", "piano")), comp, 60, hold=0.35, velocity=92)
    if rng.random() < 0.7:
        chords(score, "organ", "..xx..xx..xx..xx" if score.density else "..x...x...x...x.", 62, hold=0.5, velocity=74)
    if rng.random() < 0.25:
        melody(score, rng.choice(("trombone", "brass", "harmonica")), 62, busy=0)


def hip_hop(score: Score) -> None:
    rng = score.rng
    kick = rng.choice(("X......xX.......", "X.......X.x.....", "X.....x.X.......", "X.x.....X.X....."))
    pattern = {"kick": kick, "snare": BACK, "hat": "x.x.x.x.x.x.x.x." if score.density else "x...x...x...x..."}
    drums(score, rng.choice(("standard kit", "808 kit", "electronic kit", "power kit")), pattern, crash=0.1)
    line = rng.choice(("R------RR-------", "R---....R-5-....", "R-....R-8---....", "R-R-....R---7-5-"))
    bass(score, rng.choice(("sub bass", "fingered bass", "sub bass")), line, 31, 108)
    kind = rng.random()
    if kind < 0.45:
        chords(
            score,
            rng.choice(("electric piano", "piano")),
            rng.choice(("x-------x-------", "x---....x---x---")),
            58,
            count=4,
            velocity=64,
        )
    elif kind < 0.75:
        broken(
            score,
            rng.choice(("piano", "nylon guitar", "vibraphone")),
            rng.choice(("0.1.2.1.3.2.1.2.", "0...2...1...2...")),
            60,
            velocity=66,
        )
    else:
        chords(
            score,
            rng.choice(("strings", "brass")),
            rng.choice(("X---x---........", "X.......x.x.....")),
            62,
            velocity=70,
        )


def lofi(score: Score) -> None:
    rng = score.rng
    kick = rng.choice(("X......xX.......", "X.......x.x.....", "X.......X......x"))
    hat = "x.x.x.x.x.x.x.x." if score.density else "x...x.x.x...x.x."
    drums(
        score,
        rng.choice(("standard kit", "jazz kit", "808 kit")),
        {"kick": kick, rng.choice(("snare", "rim")): BACK, "hat": hat.replace("x", "o")},
        fills=(),
        crash=0.0,
    )
    bass(
        score,
        rng.choice(("double bass", "fingered bass", "fretless bass")),
        rng.choice(("R------.R---5---", "R---....8---5---")),
        31,
        88,
    )
    sound = rng.choice(("electric piano", "electric piano", "piano", "jazz guitar"))
    chords(
        score, sound, rng.choice(("x---------------", "x-------x-------", "x-------..x-----")), 57, count=5, velocity=72
    )
    if rng.random() < 0.5:
        melody(score, rng.choice(("vibraphone", "nylon guitar", "piano", "muted trumpet")), 70, busy=0, velocity=74)


def bossa_nova(score: Score) -> None:
    rng = score.rng
    rim = rng.choice(("o..o..o...o..o..", "o..o..o...o.o..."))
    pattern = {
        "kick": "x...x..xx...x..x" if score.density else "x...x...x...x...",
        "rim": rim,
        "shaker": "xoxoxoxoxoxoxoxo",
    }
    drums(score, rng.choice(("standard kit", "brush kit", "jazz kit")), pattern, fills=(), crash=0.0)
    bass(score, "double bass", rng.choice(("R-----5-5-----5-", "R---5---R---5---", "R---..R-5---..5-")), 33)
    comp = rng.choice(("x.x.x..xx.x.x..x", "x-x-..x-x-x-..x-", "x-..x-x-..x-x-..", "x---x-x---x-x---"))
    chords(score, "nylon guitar", comp, 57, count=4, velocity=84)
    if rng.random() < 0.6:
        melody(score, rng.choice(("flute", "alto sax", "piano", "vibraphone")), 69, velocity=84)


def latin(score: Score) -> None:
    """Salsa: clave, congas, tumbao and a montuno on the piano."""
    rng = score.rng
    pattern = {"rim": rng.choice(("o..o..o...o.o...", "..o.o...o..o..o.")), "conga": "..xx..x...xx..xx"}
    pattern["cowbell"] = "X.x.X.x.X.x.X.x." if score.density else "X...X...X...X..."
    drums(score, "standard kit", pattern, fills=({"high tom": "........x.xxx.xx"},), crash=0.2)
    bass(score, "double bass", rng.choice(("R-....5-....8---", "R-....5-R-..5-..")), 31, 104)
    broken(
        score,
        rng.choice(("piano", "bright piano")),
        rng.choice(("0.323.0.2.303.2.", "0323.03.2.303.2.")),
        60,
        velocity=92,
    )
    if rng.random() < 0.6:
        chords(score, "brass", rng.choice(("X.x...x.........", "....x..X....x..X")), 65, hold=0.7)


def jazz(score: Score) -> None:
    rng = score.rng
    pattern = {"ride": "X--x-xX--x-x", "pedal": "...x.....x.."}
    if score.density:
        pattern["kick"] = "x..o..x..o.."
        pattern["snare"] = rng.choice((".....o......", "..o.....o...", "........o..o"))
    drums(score, rng.choice(("jazz kit", "brush kit")), pattern, fills=({"snare": "......x.xx.x"},), crash=0.1)
    walks = ("R---3---5---7---", "R---5---3---5---", "R---3---5---3---|8---7---5---3---", "R---5---8---5---")
    bass(score, "double bass", rng.choice(walks), 33, 104)
    comp = rng.choice(("x----x------", "..x-----x---", "x-..x-......", "...x-x......", "x-----..x---"))
    chords(score, "piano", comp, 57, count=5 if rng.random() < 0.5 else 4, velocity=76, hold=0.8)
    lead = rng.choice(("", "piano", "tenor sax", "muted trumpet", "jazz guitar", "alto sax"))
    if lead:
        melody(score, lead, 65, busy=1, velocity=92)


def country(score: Score) -> None:
    rng = score.rng
    pattern = {"kick": "X...x...X...x...", "snare": "..o.X.o...o.X.o.", "hat": "x.x.x.x.x.x.x.x."}
    drums(score, rng.choice(("standard kit", "brush kit")), pattern, crash=0.2)
    bass(score, "picked bass", rng.choice(("R---....5---....", "R---5---R---5---")), 33)
    chords(
        score, "steel guitar", rng.choice(("..x.x.x...x.x.x.", "x...x.xxx...x.xx", "....x.......x...")), 55, hold=0.8
    )
    melody(score, rng.choice(("clean guitar", "fiddle", "harmonica", "banjo")), 67, velocity=90)


def bluegrass(score: Score) -> None:
    rng = score.rng
    roll = rng.choice(("0241024102410241", "2041204120412041", "0214021402140214", "1024102410241024"))
    broken(score, "banjo", roll, 59, velocity=92)
    bass(score, "double bass", "R---....5---....", 33, 104)
    chords(
        score,
        "steel guitar",
        "....x.......x..." if not score.density else "..x.x.x...x.x.x.",
        52,
        hold=0.5,
        velocity=84,
    )
    if rng.random() < 0.75:
        melody(score, "fiddle", 69, busy=1 + score.density, velocity=96)


SEVENTHS = ("major", "minor", "dorian", "mixolydian")
STYLES = {
    "rock": Style(rock, (100, 150), ("minor", "major", "mixolydian", "dorian"), (1, 2, 2)),
    "metal": Style(metal, (110, 180), ("minor", "phrygian", "phrygian", "harmonic minor"), (2,), rooms=(0.2, 0.8)),
    "pop": Style(pop, (90, 130), ("major", "major", "minor")),
    "blues": Style(blues, (65, 130), ("blues",), (0, 1, 1, 2), swings=(1.0,)),
    "funk": Style(funk, (90, 120), ("dorian", "mixolydian", "minor"), (1, 2), swings=(0.0, 0.3), swing_unit=0.25),
    "reggae": Style(reggae, (65, 95), ("major", "minor", "dorian"), (0, 1, 1), swings=(0.0, 0.5), swing_unit=0.25),
    "hip hop": Style(
        hip_hop, (75, 105), ("minor", "minor", "dorian", "major"), swings=(0.0, 0.4, 0.6), swing_unit=0.25
    ),
    "lo-fi": Style(lofi, (65, 92), SEVENTHS, (0, 0, 1), swings=(0.4, 0.6), swing_unit=0.25, looseness=0.008),
    "bossa nova": Style(bossa_nova, (100, 150), SEVENTHS, (0, 1), rooms=(0.3, 0.9)),
    "salsa": Style(latin, (90, 130), ("minor", "major", "dorian"), (1, 2)),
    "jazz": Style(
        jazz, (90, 180), ("major", "dorian", "minor", "mixolydian"), (0, 1, 1), swings=(1.0,), looseness=0.007
    ),
    "country": Style(country, (90, 140), ("major", "major", "mixolydian"), (1, 1, 2)),
    "bluegrass": Style(bluegrass, (120, 180), ("major", "major", "mixolydian"), (1, 2), looseness=0.006),
}
