"""Music of machines: house, techno, drum and bass, and their kin."""

from __future__ import annotations

from music import Score
from styles.patterns import bass, broken, chords, drums, melody
from styles.style import DARK, Style

FOUR = "X...X...X...X..."
CLUB_FILLS = (
    {"clap": "........ x.x.xxXX"},
    {"snare": "........ ....xxxx"},
    {"clap": "........x..x..x."},
    {"open": "........ ..x...x."},
)


def disco(score: Score) -> None:
    rng = score.rng
    hats = rng.choice(({"open": "..x...x...x...x."}, {"hat": "x.x.x.x.x.x.x.x.", "open": "..x...x...x...x."}))
    if score.density:
        hats = {"hat": "xoxoxoxoxoxoxoxo", "open": "..x...x...x...x."}
    pattern = {"kick": FOUR, "snare": "....X.......X...", **hats}
    if rng.random() < 0.3:
        pattern["tambourine"] = "..x...x...x...x."
    drums(score, rng.choice(("standard kit", "room kit")), pattern)
    line = rng.choice(("R.8.R.8.R.8.R.8.", "R.8.R.8.R.8.5.8.", "R-8-R-8-R-8-R.R8", "R.8.R.88R.8.R.88"))
    bass(score, rng.choice(("fingered bass", "picked bass")), line)
    comp = rng.choice(("..x...x...x...x.", "..x...xx..x...xx", "..x..xx...x..xx.", ".xx..xx..xx..xx."))
    chords(score, rng.choice(("clean guitar", "electric piano", "muted guitar")), comp, 60, hold=0.6)
    if rng.random() < 0.75:
        line = rng.choice(("x-------x-------", "x---------------", "x--x--x-x-------", "X.......x-x-x-x-"))
        chords(score, rng.choice(("strings", "strings", "brass")), line, 67, velocity=72)


def house(score: Score) -> None:
    rng = score.rng
    pattern = {"kick": FOUR, "clap": "....X.......X...", "open": "..x...x...x...x."}
    if score.density:
        pattern["hat"] = rng.choice(("x.x.x.x.x.x.x.x.", "xx.xxx.xxx.xxx.x"))
    if rng.random() < 0.4:
        pattern["shaker"] = "xoxoxoxoxoxoxoxo"
    drums(score, "club kit", pattern, fills=CLUB_FILLS, crash=0.3)
    line = rng.choice(("..R...R...R...R.", "R.R.R.R.R.R.R.R.", "R...R.R.R...R.R.", "..RR..R8..RR..R8"))
    bass(score, rng.choice(("saw bass", "sub bass", "saw bass")), line, 33)
    comp = rng.choice(("..x...x...x...x.", "X...x...x...x.x.", "x.x...x.x.x...x.", "..xx..x...xx..x."))
    sound = rng.choice(("stab synth", "piano", "electric piano", "bright piano"))
    chords(score, sound, comp, 58, count=rng.choice((3, 4)), hold=0.7, velocity=88)
    if rng.random() < 0.3:
        chords(score, "analog pad", "x---------------", 60, velocity=64)


def techno(score: Score) -> None:
    rng = score.rng
    pattern = {"kick": FOUR, "open": "..x...x...x...x."}
    if score.density:
        pattern["hat"] = rng.choice(("oxoxoxoxoxoxoxox", "x.xxx.xxx.xxx.xx"))
    if rng.random() < 0.6:
        pattern[rng.choice(("clap", "rim"))] = rng.choice(("....x.......x...", "....x.......x.x."))
    drums(score, "club kit", pattern, fills=CLUB_FILLS[1:], crash=0.2)
    line = rng.choice((".RRR.RRR.RRR.RRR", "R.RR.RR.R.RR.RR.", "..R...R...R...R.", "RR8R.R8RRR8R.R8R"))
    bass(score, rng.choice(("acid bass", "saw bass", "acid bass")), line, 33)
    if rng.random() < 0.8:
        line = rng.choice(("0.2.1.3.0.2.1.3.", "0.1.0.2.0.1.0.3.", "0.0.3.0.0.0.4.0.", "..0...1...0...2."))
        broken(score, rng.choice(("pluck synth", "saw lead")), line, 60, velocity=72)
    else:
        chords(
            score, "stab synth", rng.choice(("..x.......x.....", "x.x.............", "..x.......x...x.")), 57, hold=0.6
        )


def trance(score: Score) -> None:
    rng = score.rng
    drums(score, "club kit", {"kick": FOUR, "clap": "....X.......X...", "open": "..x...x...x...x."}, fills=CLUB_FILLS)
    bass(score, "saw bass", rng.choice(("..R...R...R...R.", ".RRR.RRR.RRR.RRR", ".R.R.R.R.R.R.R.R")), 33)
    line = rng.choice(("0123012301230123", "0.3.1.3.2.3.1.3.", "0213021302130213", "0120312031203120"))
    broken(score, "pluck synth", line, 64, velocity=86)
    if rng.random() < 0.6:
        chords(score, rng.choice(("analog pad", "stab synth")), "x---------------", 60, velocity=70)
    if not score.density:
        return
    melody(score, "saw lead", 72, busy=1, velocity=84)


def drum_and_bass(score: Score) -> None:
    rng = score.rng
    breaks = (
        {"kick": "X.........X.....", "snare": "....X.......X..."},
        {"kick": "X.X.......X.....", "snare": "....X..o.o..X..o"},
        {"kick": "X.........X.....", "snare": "....X.....o.X.o."},
        {"kick": "X.......X.x.....", "snare": "....X..o....X..."},
    )
    hats = (
        {"hat": "x.x.x.x.x.x.x.x."},
        {"hat": "xoxoxoxoxoxoxoxo"},
        {"ride": "x.x.x.x.x.x.x.x.", "hat": "..x...x...x...x."},
    )
    pattern = {**rng.choice(breaks), **(hats[score.density] if rng.random() < 0.8 else hats[2])}
    drums(score, rng.choice(("club kit", "power kit", "electronic kit")), pattern, crash=0.4)
    line = rng.choice(("R-------R-R-----", "R---R-------8---", "R-R-R-------R-5-", "R---------R-R---|R-------8---5---"))
    bass(score, rng.choice(("sub bass", "reese bass", "reese bass")), line, 31, velocity=104)
    if rng.random() < 0.7:
        sound = rng.choice(("analog pad", "warm pad", "electric piano"))
        chords(score, sound, rng.choice(("x---------------", "x-------x-------")), 60, count=4, velocity=70)
    else:
        broken(score, "pluck synth", rng.choice(("0...1...2...3.1.", "0.......2...1...")), 65, velocity=74)


def synthwave(score: Score) -> None:
    rng = score.rng
    pattern = {"kick": rng.choice((FOUR, "X.......X.X.....", "X.......X.......")), "snare": "....X.......X..."}
    pattern["hat"] = "xoxoxoxoxoxoxoxo" if score.density else "x.x.x.x.x.x.x.x."
    drums(score, rng.choice(("electronic kit", "club kit", "power kit")), pattern)
    bass(
        score,
        "saw bass",
        rng.choice(("RRRRRRRRRRRRRRRR", "R.RRR.RRR.RRR.RR", "R8R8R8R8R8R8R8R8", "R.R.R.R.R.R.R.R.")),
        33,
    )
    chords(score, "analog pad", "x---------------", 57, velocity=80)
    if rng.random() < 0.7:
        melody(score, "saw lead", 69, busy=rng.choice((0, 1)), velocity=92)
    else:
        broken(score, "pluck synth", rng.choice(("0.1.2.3.2.1.0.1.", "0123210101232101")), 64, velocity=80)


def trap(score: Score) -> None:
    rng = score.rng
    hats = rng.choice(("x.x.x.x.x.x.xxxx", "x.x.xxx.x.x.x.x.", "x.x.x.xxx.x.x.xx"))
    pattern = {"kick": rng.choice(("X.....X...X.....", "X.......X.X.....", "X..X....X.......")), "hat": hats}
    pattern["clap"] = "........X......."
    drums(score, rng.choice(("club kit", "808 kit")), pattern, fills=(), crash=0.2)
    held = pattern["kick"].replace("X", "R").replace(".", "-")
    bass(score, "sub bass", f"{held[:-2]}..", 31, 100)
    sound = rng.choice(("bells", "pluck synth", "piano", "flute", "choir pad"))
    broken(score, sound, rng.choice(("0...2...1...2...", "0.1.2...0.1.2...", "0.......2...1...")), 66, velocity=68)


def ambient(score: Score) -> None:
    """Chords that change every second bar, without a beat."""
    rng = score.rng
    sound = rng.choice(("warm pad", "analog pad", "halo pad", "sweep pad", "new age pad", "bowed pad"))
    beats = 5 * score.bpm / 60  # five seconds a chord, whatever the tempo is
    for number in range(2):
        keys = score.chord_keys(number, 55, 4 if score.density else 3)
        score.tones(sound, number * beats, beats * 0.98, keys, 80)
        score.play(sound, number * beats, beats * 0.98, score.bass_key(number, 38), 84)
        if score.density:
            bell = rng.choice(keys) + 12
            score.play("piano", (number + rng.choice((0.2, 0.4))) * beats, beats * 0.4, bell, 62)


def chiptune(score: Score) -> None:
    rng = score.rng
    pattern = {"kick": rng.choice((FOUR, "X.......X.......", "X.....X.X.......")), "snare": "....X.......X..."}
    pattern["hat"] = "x.x.x.x.x.x.x.x." if score.density else "x...x...x...x..."
    with_drums = rng.random() < 0.75
    if with_drums:
        drums(score, "chip kit", pattern, crash=0.0, fills=({"snare": "........ x.xxxxxx"},))
    bass(
        score,
        "triangle bass",
        rng.choice(("R.R.8.R.R.R.8.R.", "R.8.R.8.R.8.R.8.", "R...R...5...R...", "R-R-5-R-8-R-5-R-")),
        36,
    )
    if rng.random() < 0.6:
        melody(score, "pulse lead", 72, busy=1 + score.density, velocity=100, legato=0.85)
        if score.density:
            broken(score, "pulse arpeggio", "0120120120120120", 67, velocity=74)
    else:
        broken(score, "pulse lead", rng.choice(("0.1.2.3.2.1.2.1.", "0121032101210321")), 67, velocity=92)


def drums_only(score: Score) -> None:
    """A drum kit and nobody else: of a rock, funk, jazz, hip hop, latin or machine kind."""
    rng = score.rng
    kinds: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("rock", ("standard kit", "room kit", "power kit")),
        ("funk", ("standard kit", "room kit")),
        ("hip hop", ("standard kit", "808 kit", "electronic kit")),
        ("latin", ("standard kit",)),
        ("machine", ("club kit", "808 kit", "electronic kit")),
        ("toms", ("room kit", "power kit", "standard kit")),
    )
    kind, kits = rng.choice(kinds)
    hat = "x.x.x.x.x.x.x.x." if score.density else "x...x...x...x..."
    patterns: dict[str, tuple[dict[str, str], ...]] = {
        "rock": (
            {"kick": "X.......X.......", "snare": "....X.......X...", "hat": hat},
            {"kick": "X.....X.X.......", "snare": "....X.......X...", "hat": hat},
            {"kick": "X.......X.X.....", "snare": "....X.......X...", "ride": hat},
        ),
        "funk": (
            {"kick": "X..x....X..x....", "snare": "....X..o.o..X..o", "hat": "xxxxxxxxxxxxxxxx"},
            {"kick": "X.x...x.X.x.....", "snare": "....X..o.o..X...", "hat": "x.x.x.x.x.x.x.x."},
        ),
        "hip hop": (
            {"kick": "X......x..x.....", "snare": "....X.......X...", "hat": hat},
            {"kick": "X..x......x..x..", "snare": "....X.......X...", "hat": hat},
        ),
        "latin": (
            {"kick": "x.....x.x.....x.", "rim": "o..o..o...o.o...", "conga": "..x...xx..x...xx", "hat": hat},
            {"kick": "x...x...x...x...", "cowbell": "x...x.x.x...x.x.", "conga": "..xx..x...xx..x."},
        ),
        "machine": (
            {"kick": FOUR, "clap": "....X.......X...", "open": "..x...x...x...x."},
            {"kick": FOUR, "hat": "oxoxoxoxoxoxoxox", "clap": "....X.......X..x"},
        ),
        "toms": (
            {"kick": "X...X...X...X...", "low tom": "X.x.x.x.X.x.x.xx", "snare": "....x.......x..."},
            {"low tom": "X.x.....X.x.....", "mid tom": "....x.x.....x.xx", "kick": "X.......X......."},
        ),
    }
    drums(score, rng.choice(kits), rng.choice(patterns[kind]))


STYLES = {
    "disco": Style(disco, (100, 132), looseness=0.004),
    "house": Style(house, (116, 130), looseness=0.001, sidechain=0.7),
    "techno": Style(techno, (120, 145), DARK, looseness=0.001, energies=(1, 2, 2), sidechain=0.6),
    "trance": Style(
        trance, (128, 145), ("minor", "minor", "major"), looseness=0.001, energies=(1, 2, 2), sidechain=0.75
    ),
    "drum and bass": Style(
        drum_and_bass, (160, 180), ("minor", "minor", "dorian"), looseness=0.001, energies=(1, 2, 2)
    ),
    "synthwave": Style(
        synthwave, (80, 120), ("minor", "minor", "major"), looseness=0.001, rooms=(0.6, 1.8), sidechain=0.4
    ),
    "trap": Style(trap, (65, 80), DARK, looseness=0.001),
    "ambient": Style(ambient, (60, 90), looseness=0.02, energies=(0, 0, 1), pulse=False, rooms=(1.5, 3.0)),
    "chiptune": Style(chiptune, (100, 170), looseness=0.0, rooms=(0.1, 0.3)),
    "drums": Style(drums_only, (70, 160), energies=(1, 2), looseness=0.005, rooms=(0.2, 0.9)),
}
