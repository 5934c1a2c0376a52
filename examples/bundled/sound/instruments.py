"""The instruments: what plays them, and what captions call them."""

from __future__ import annotations

from dataclasses import dataclass

KIT = 128  # General MIDI's bank of drum kits


@dataclass(frozen=True)
class Instrument:
    """One instrument.

    program: of General MIDI, or -1 where `synthesis.py` plays it. words: what captions call it, the plainest first.
    volume: factor beside the other instruments.
    """

    program: int
    words: tuple[str, ...]
    bank: int = 0
    volume: float = 1.0


def _kit(program: int, *words: str) -> Instrument:
    return Instrument(program, words or ("drums", "a drum kit", "drum kit"), KIT)


def _own(*words: str, volume: float = 1.0) -> Instrument:
    return Instrument(-1, words, 0, volume)


INSTRUMENTS: dict[str, Instrument] = {
    # Drum kits
    "standard kit": _kit(0),
    "room kit": _kit(8),
    "power kit": _kit(16),
    "electronic kit": _kit(24, "drums", "electronic drums", "a drum machine"),
    "808 kit": _kit(25, "drums", "an 808 drum machine", "808 drums", "electronic drums"),
    "jazz kit": _kit(32),
    "brush kit": _kit(40, "drums", "brushed drums", "drums with brushes"),
    "orchestra kit": _kit(48, "drums", "orchestral percussion", "orchestral drums"),
    "club kit": _own("drums", "electronic drums", "a drum machine", volume=1.0),
    "chip kit": _own("drums", "noise drums", "8-bit drums", volume=0.9),
    # Keys
    "piano": Instrument(0, ("piano", "grand piano", "acoustic piano")),
    "bright piano": Instrument(1, ("piano", "bright piano")),
    "honky-tonk": Instrument(3, ("piano", "honky-tonk piano")),
    "electric piano": Instrument(4, ("electric piano", "rhodes", "rhodes piano")),
    "dx piano": Instrument(5, ("electric piano", "fm electric piano")),
    "harpsichord": Instrument(6, ("harpsichord", "a harpsichord")),
    "clavinet": Instrument(7, ("clavinet", "clavi")),
    "celesta": Instrument(8, ("celesta",)),
    "music box": Instrument(10, ("music box", "a music box")),
    "vibraphone": Instrument(11, ("vibraphone", "vibes")),
    "marimba": Instrument(12, ("marimba", "a marimba")),
    "bells": Instrument(14, ("bells", "tubular bells")),
    "organ": Instrument(16, ("organ", "hammond organ", "electric organ")),
    "rock organ": Instrument(18, ("organ", "rock organ")),
    "church organ": Instrument(19, ("organ", "church organ", "pipe organ")),
    "accordion": Instrument(21, ("accordion", "an accordion")),
    "harmonica": Instrument(22, ("harmonica",)),
    # Guitars and basses
    "nylon guitar": Instrument(24, ("acoustic guitar", "nylon guitar", "classical guitar", "guitar")),
    "steel guitar": Instrument(25, ("acoustic guitar", "steel-string guitar", "guitar")),
    "jazz guitar": Instrument(26, ("electric guitar", "jazz guitar", "guitar")),
    "clean guitar": Instrument(27, ("electric guitar", "clean electric guitar", "guitar")),
    "muted guitar": Instrument(28, ("electric guitar", "muted guitar", "guitar")),
    "overdriven guitar": Instrument(29, ("electric guitar", "overdriven guitar", "guitar")),
    "distorted guitar": Instrument(30, ("distorted guitar", "electric guitar", "heavy guitars"), volume=1.3),
    "double bass": Instrument(32, ("double bass", "upright bass", "acoustic bass"), volume=1.2),
    "fingered bass": Instrument(33, ("electric bass", "bass guitar", "bass"), volume=1.1),
    "picked bass": Instrument(34, ("electric bass", "bass guitar", "bass"), volume=1.1),
    "fretless bass": Instrument(35, ("fretless bass", "electric bass", "bass"), volume=1.1),
    "slap bass": Instrument(36, ("slap bass", "bass guitar", "bass"), volume=1.1),
    # Orchestra
    "violin": Instrument(40, ("violin", "a violin")),
    "fiddle": Instrument(110, ("fiddle", "violin")),
    "cello": Instrument(42, ("cello", "a cello")),
    "tremolo strings": Instrument(44, ("strings", "tremolo strings")),
    "plucked strings": Instrument(45, ("plucked strings", "pizzicato strings", "strings")),
    "harp": Instrument(46, ("harp", "a harp")),
    "timpani": Instrument(47, ("timpani", "kettledrums")),
    "strings": Instrument(48, ("strings", "string section", "orchestral strings")),
    "slow strings": Instrument(49, ("strings", "string ensemble", "slow strings")),
    "choir": Instrument(52, ("choir", "voices", "a choir")),
    "voice oohs": Instrument(53, ("choir", "voices", "oohs")),
    "trumpet": Instrument(56, ("trumpet", "a trumpet")),
    "trombone": Instrument(57, ("trombone",)),
    "muted trumpet": Instrument(59, ("muted trumpet", "trumpet")),
    "horn": Instrument(60, ("french horn", "horns")),
    "brass": Instrument(61, ("brass", "brass section", "horn section")),
    "alto sax": Instrument(65, ("saxophone", "alto saxophone", "sax")),
    "tenor sax": Instrument(66, ("saxophone", "tenor saxophone", "sax")),
    "oboe": Instrument(68, ("oboe", "an oboe")),
    "clarinet": Instrument(71, ("clarinet", "a clarinet")),
    "flute": Instrument(73, ("flute", "a flute")),
    "sitar": Instrument(104, ("sitar", "a sitar")),
    "banjo": Instrument(105, ("banjo", "a banjo")),
    # Synthesizers of the soundfonts
    "new age pad": Instrument(88, ("synth pad", "pad", "pads")),
    "warm pad": Instrument(89, ("warm synth pad", "synth pad", "pad")),
    "choir pad": Instrument(91, ("choir pad", "voices", "pad")),
    "bowed pad": Instrument(92, ("synth pad", "pad", "bowed pad")),
    "halo pad": Instrument(94, ("synth pad", "airy pad", "pad")),
    "sweep pad": Instrument(95, ("synth pad", "sweeping pad", "pad")),
    # Our own synthesis
    "sub bass": _own("sub bass", "deep bass", "bass", volume=0.35),
    "reese bass": _own("reese bass", "synth bass", "bass", volume=0.6),
    "saw bass": _own("synth bass", "bass", "analog bass", volume=0.6),
    "acid bass": _own("acid bass", "synth bass", "bass", volume=0.55),
    "pluck synth": _own("synth", "plucked synth", "synthesizer", volume=0.6),
    "saw lead": _own("synth lead", "synth", "synthesizer", volume=0.5),
    "stab synth": _own("synth stabs", "synth chords", "synth", volume=0.5),
    "analog pad": _own("synth pad", "analog pad", "pad", "synthesizer", volume=0.35),
    "pulse lead": _own("square wave lead", "8-bit synth", "chip synth", volume=0.45),
    "pulse arpeggio": _own("8-bit arpeggios", "arpeggio", "chip synth", volume=0.32),
    "triangle bass": _own("triangle wave bass", "8-bit bass", "bass", volume=0.6),
}


def is_kit(instrument: str) -> bool:
    """Whether this is a drum kit."""
    return instrument.endswith(" kit")
