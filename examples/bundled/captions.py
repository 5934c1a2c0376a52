"""Captions for pieces, worded in many ways, from "disco beat" to a sentence. Nothing that is not true of the piece."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

import wording
from music import Piece
from sound.instruments import INSTRUMENTS, is_kit
from styles import STYLES, compose

CAPTIONS = 8  # for each clip
DRUM_WORDS = ("with drums", "drums", "with a drum beat", "with a beat")
NO_DRUMS = ("no drums", "without drums", "no percussion", "beatless")


class Teller:
    """What is true of a piece, as words to draw from."""

    def __init__(self, piece: Piece, rng: random.Random) -> None:
        self.piece, self.rng = piece, rng
        self.words = wording.STYLES[piece.style]
        self.pitched = [name for name in piece.instruments if not is_kit(name)]
        self.kits = [name for name in piece.instruments if is_kit(name)]
        self.moods = _moods(piece) + self.words.moods
        self.several = len({_family(name) for name in piece.instruments}) > 1
        self.uses = _uses(piece) + self.words.uses
        if piece.minor:
            self.uses = tuple(use for use in self.uses if "wedding" not in use)

    def name(self) -> str:
        """The style: half the time by its plainest name."""
        return self.words.names[0] if self.rng.random() < 0.4 else self.rng.choice(self.names())

    def names(self) -> tuple[str, ...]:
        """All names; a single instrument is also called solo, three of jazz are a trio."""
        names = tuple(name for name in self.words.names if _fits(name, self.piece))
        kinds = {_family(name) for name in self.piece.instruments}
        if len(kinds) == 1 and self.pitched and self.piece.style not in ("choir", "strings", "ambient", "chiptune"):
            word = INSTRUMENTS[self.pitched[0]].words[0]
            names += (f"solo {word}", f"{word} solo", f"unaccompanied {word}", f"{word} alone")
        if self.piece.style == "jazz" and kinds == {"piano", "bass", "drums"}:
            names += ("jazz trio", "piano trio", "a jazz trio", "jazz piano trio")
        return names

    def noun(self) -> str:
        return self.rng.choice([noun for noun in self.words.nouns if _fits(noun, self.piece)])

    def tempo(self) -> str:
        """A word for the tempo, for a piece that has a pulse."""
        words = next(words for limit, words in wording.TEMPI if self.piece.bpm < limit)
        return self.rng.choice(words)

    def number(self) -> str:
        return self.rng.choice(wording.NUMBERS).format(self.piece.bpm)

    def mood(self) -> str:
        if self.rng.random() < 0.3:
            return self.rng.choice(wording.TEXTURES[self.piece.density] + wording.FORCES[self.piece.energy])
        return self.rng.choice(self.moods)

    def key(self) -> str:
        if self.rng.random() < 0.4:
            return self.rng.choice(wording.MODES[self.piece.scale])
        kind = {"blues": "", "harmonic minor": " minor"}.get(self.piece.scale, f" {self.piece.scale}")
        return self.rng.choice(("in {}{}", "key of {}{}", "{}{}")[: 2 if not kind else 3]).format(self.piece.root, kind)

    def use(self) -> str:
        return f"for {self.rng.choice(self.uses)}"

    def instruments(self) -> str:
        """Some or all of what plays, in any order."""
        chosen = list({_family(name): name for name in reversed(self.piece.instruments)}.values())
        self.rng.shuffle(chosen)
        chosen = chosen[: self.rng.choice((1, 2, 3, 4))]
        words = list(dict.fromkeys(_plain(self.rng.choice(INSTRUMENTS[name].words)) for name in chosen))
        if len(words) == 1:
            return words[0]
        return ", ".join(words[:-1]) + self.rng.choice((" and ", ", ", " and ")) + words[-1]


def _plain(word: str) -> str:
    return re.sub(r"^an? ", "", word)


def _family(instrument: str) -> str:
    """The word that two kinds of one instrument share: two strokes on strings are one section."""
    if is_kit(instrument):
        return "drums"
    words = INSTRUMENTS[instrument].words
    for shared in ("bass", "strings", "guitar", "organ", "pad", "piano", "saxophone", "choir"):
        if shared in words or any(shared in word.split() for word in words):
            return shared
    return words[0]


def _fits(name: str, piece: Piece) -> bool:
    """Whether a name that says more than the style is true of the piece."""
    kinds = {_family(instrument) for instrument in piece.instruments}
    words = name.split()
    if "slow" in words and piece.bpm >= 92:
        return False
    if "acid" in words and "acid bass" not in piece.instruments:
        return False
    if "ballad" in words and (piece.bpm >= 92 or piece.energy == 2):
        return False
    if "solo" in words or "alone" in words or "only" in words:
        return len(kinds) == 1
    if name in ("808 beat",):
        return "808 kit" in piece.instruments
    if "anthem" in words or "fanfare" in words or "hard" in words:
        return piece.energy == 2
    if "uplifting" in words:
        return not piece.minor
    return not ("lullaby" in words and (piece.minor or piece.bpm >= 112))


def _moods(piece: Piece) -> tuple[str, ...]:
    if all(is_kit(name) for name in piece.instruments):
        return wording.FORCES[piece.energy] + wording.TEXTURES[piece.density]
    moods = wording.MOODS[piece.minor, piece.bpm < 100 or not piece.pulse, piece.energy == 0]
    if piece.style in ("metal", "techno", "trap", "church organ") and not piece.minor:
        moods = ("bright", "hopeful")
    moods += wording.SPOOKY if _spooky(piece) else ()
    return moods + (wording.EPIC if _epic(piece) else ())


def _spooky(piece: Piece) -> bool:
    styles = (
        "film score",
        "music box",
        "choir",
        "church organ",
        "ambient",
        "harpsichord",
        "strings",
        "celesta",
        "piano",
    )
    return piece.style in styles and piece.scale in ("harmonic minor", "phrygian", "minor") and piece.bpm < 120


def _epic(piece: Piece) -> bool:
    return piece.style in ("film score", "choir", "strings", "metal", "church organ") and piece.energy == 2


def _uses(piece: Piece) -> tuple[str, ...]:
    drums = any(is_kit(name) for name in piece.instruments)
    uses: tuple[str, ...] = ()
    if any(not is_kit(name) for name in piece.instruments):
        if piece.minor and piece.bpm < 100 and not drums:
            uses += wording.USES_SAD
        if _spooky(piece):
            uses += wording.USES_SPOOKY
        if not piece.minor and piece.bpm >= 100 and piece.energy > 0:
            uses += wording.USES_BRIGHT
        if piece.energy == 0 and piece.bpm < 110 and (not drums or piece.style == "lo-fi"):
            uses += wording.USES_SOFT
        if not piece.minor and piece.bpm < 110 and piece.energy < 2 and not drums:
            uses += wording.USES_LOVE
    if _epic(piece):
        uses += wording.USES_EPIC
    if drums and piece.bpm >= 115 and piece.energy == 2:
        uses += wording.USES_HARD
    return uses


def _short(teller: Teller) -> str:
    """A few words, as people type them."""
    rng = teller.rng
    kind = rng.random()
    if kind < 0.3:
        return teller.name()
    if kind < 0.55:
        return f"{teller.mood()} {teller.name()}"
    if kind < 0.75 and teller.piece.pulse:
        return f"{teller.name()}{rng.choice((' ', ', '))}{teller.number()}"
    if kind < 0.85 and teller.several:
        return f"{teller.name()} with {teller.instruments()}"
    return f"{teller.name()} {teller.use()}"


def _list(teller: Teller) -> str:
    """Parts between commas, the style in any place."""
    rng, piece = teller.rng, teller.piece
    parts = []
    if rng.random() < 0.6:
        parts.append(teller.mood())
    if piece.pulse and rng.random() < 0.35:
        parts.append(teller.tempo())
    if piece.pulse and rng.random() < 0.85:
        parts.append(teller.number())
    if teller.several and rng.random() < 0.45:
        parts.append(rng.choice(("", "", "with ")) + teller.instruments())
    if teller.pitched and rng.random() < 0.2:
        parts.append(teller.key())
    if rng.random() < 0.2:
        parts.append(teller.use())
    if teller.pitched and rng.random() < 0.12:
        parts.append(rng.choice(DRUM_WORDS if teller.kits else NO_DRUMS[: 3 if piece.pulse else 4]))
    rng.shuffle(parts)
    place = 0 if rng.random() < 0.6 else rng.randrange(len(parts) + 1)
    return ", ".join([*parts[:place], teller.name(), *parts[place:]])


def _sentence(teller: Teller) -> str:
    """One sentence."""
    rng, piece = teller.rng, teller.piece
    words = [teller.mood()]
    if rng.random() < 0.3:
        words.append(teller.mood())
    if piece.pulse and rng.random() < 0.35:
        tempo = teller.tempo()
        if not tempo.startswith("at ") and " " not in tempo:
            words.append(tempo)
    words = list(dict.fromkeys(words))
    text = _article(", ".join(words) + " " + teller.noun())
    if teller.several and rng.random() < 0.6:
        text += rng.choice((" with ", " featuring ", " played on ", " with ")) + teller.instruments()
    if teller.pitched and rng.random() < 0.2:
        text += " " + rng.choice(("in {}", "in the key of {}")).format(_key_name(piece))
    if piece.pulse and rng.random() < 0.75:
        text += rng.choice((" at {} bpm", " at {} BPM", " at a tempo of {} bpm", " at {} beats per minute")).format(
            piece.bpm
        )
    if rng.random() < 0.35:
        text += rng.choice((", ", " ")) + teller.use()
    return text


def _key_name(piece: Piece) -> str:
    kind = {"blues": "", "harmonic minor": " minor"}.get(piece.scale, f" {piece.scale}")
    return piece.root + kind


def _article(text: str) -> str:
    vowel = text[0] in "aeiou8" and not text.startswith(("one", "eu", "uni"))
    return f"{'an' if vowel else 'a'} {text}"


def describe(piece: Piece, rng: random.Random) -> list[str]:
    """The captions of a piece, all different: the plain name of the style, short ones, lists and sentences."""
    teller = Teller(piece, rng)
    kinds: list[Callable[[Teller], str]] = [_short, _short, _list, _list, _list, _sentence, _sentence]
    found = [teller.words.names[0] if rng.random() < 0.5 else teller.name()]
    for kind in kinds:
        for _ in range(20):
            text = kind(teller)
            if text not in found:
                found.append(text)
                break
    return found


def prompt(piece: Piece, rng: random.Random) -> str:
    """One caption, which names the tempo if there is a pulse, and the style by a name of its own."""
    teller = Teller(piece, rng)
    while True:
        text = rng.choice((_list, _list, _sentence))(teller)
        if not piece.pulse or str(piece.bpm) in text:
            return text


def piece_of(index: int, seed: int) -> tuple[Piece, list[str]]:
    """The training piece of this number and its captions; styles take turns."""
    rng = random.Random(f"{seed}/{index}")
    piece = compose(list(STYLES)[index % len(STYLES)], rng)
    return piece, describe(piece, rng)


def held_out(known: set[str], *, count: int, seed: int) -> list[tuple[str, Piece]]:
    """Prompts with pieces of their own, styles in turn, none with a fingerprint that is known."""
    found: list[tuple[str, Piece]] = []
    for index in _numbers():
        if len(found) == count:
            break
        rng = random.Random(f"held-out/{seed}/{index}")
        piece = compose(list(STYLES)[len(found) % len(STYLES)], rng)
        if piece.fingerprint not in known:
            found.append((prompt(piece, rng), piece))
    return found


def _numbers() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def known_words() -> list[str]:
    """Every word that captions can contain, in lower case, in order of the alphabet; numbers are left out."""
    texts: list[str] = [*DRUM_WORDS, *NO_DRUMS, *wording.NUMBERS, *wording.SPOOKY, *wording.EPIC]
    for style in wording.STYLES.values():
        texts += [*style.names, *style.nouns, *style.moods, *style.uses]
    for group in (*wording.TEXTURES, *wording.FORCES, *wording.MOODS.values(), *wording.MODES.values()):
        texts += group
    texts += [word for _, words in wording.TEMPI for word in words]
    for uses in (wording.USES_SAD, wording.USES_SPOOKY, wording.USES_EPIC, wording.USES_HARD):
        texts += uses
    texts += [*wording.USES_BRIGHT, *wording.USES_SOFT, *wording.USES_LOVE]
    texts += [word for instrument in INSTRUMENTS.values() for word in instrument.words]
    texts += ["C D E F G A B flat sharp major minor lydian mixolydian dorian phrygian key of in the at a an tempo for"]
    texts += ["featuring played on with and trio piano jazz alone solo unaccompanied only bright hopeful"]
    words = {word for text in texts for word in re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*", text.lower())}
    return sorted(word for word in words if not word.isdigit())
