"""Captions for pieces, worded in many ways: style, instruments, tempo in words and in bpm, mood, texture."""

from __future__ import annotations

import random

from music import STYLES, Piece, compose

CAPTIONS = 6  # for each clip

NAMES = {
    "piano": ("solo piano", "a piano alone", "a piano piece", "unaccompanied piano", "a solo piano with chords"),
    "guitar": ("solo acoustic guitar", "an acoustic guitar alone", "a nylon guitar piece", "fingerstyle guitar"),
    "drums": ("drums only", "a drum beat", "a drum kit without other instruments", "just drums", "a drum solo groove"),
    "pad": ("ambient pad", "a warm synth pad", "an ambient drone of synthesizers", "slow ambient chords"),
    "disco": ("disco beat", "a disco groove with octave bass", "70s disco", "a disco track with open hi-hats"),
    "rock": ("rock band", "a rock riff with distorted guitar", "hard rock with drums and bass", "electric guitar rock"),
    "jazz": ("jazz trio", "swing jazz with walking bass", "a jazz trio of piano, bass and drums", "a jazz club band"),
    "techno": ("techno", "a techno track with synth lead", "electronic dance music", "four on the floor techno"),
    "hiphop": ("hip hop beat", "lo-fi hip hop", "a hip hop groove with electric piano", "boom bap hip hop"),
    "strings": ("string orchestra", "strings", "a string ensemble", "orchestral strings", "violins and cellos"),
    "bells": ("music box", "a music box melody", "tinkling bells", "a little music box alone"),
    "flute": ("solo flute", "a flute melody", "a flute alone", "an unaccompanied flute"),
}
SPEEDS = (
    (80, ("slow", "very slow", "at a slow tempo", "slow-moving")),
    (115, ("medium tempo", "moderate", "at a moderate tempo", "mid-tempo")),
    (145, ("fast", "upbeat", "at a fast tempo", "lively")),
    (999, ("very fast", "at a very fast tempo", "rapid", "racing")),
)
MOODS = {
    True: ("sad", "dark", "melancholic", "in a minor key", "moody", "tense"),
    False: ("happy", "bright", "cheerful", "in a major key", "joyful", "uplifting"),
}
TEXTURES = (("sparse", "simple", "calm", "minimal"), ("busy", "energetic", "dense", "driving"))
BEATS = ("{} bpm", "at {} bpm", "{} beats per minute", "tempo {}", "{} BPM")


def speed_words(bpm: int) -> tuple[str, ...]:
    """Words for a tempo."""
    return next(words for limit, words in SPEEDS if bpm < limit)


def describe(piece: Piece, rng: random.Random) -> str:
    """One caption. Every one names the style; the tempo's number is in most that have a beat."""
    name = rng.choice(NAMES[piece.style])
    parts = []
    if piece.style != "drums" and rng.random() < 0.6:
        parts.append(rng.choice(MOODS[piece.minor]))
    if rng.random() < 0.4:
        parts.append(rng.choice(TEXTURES[piece.density]))
    if piece.style != "pad":
        if rng.random() < 0.4:
            parts.append(rng.choice(speed_words(piece.bpm)))
        if rng.random() < 0.9:
            parts.append(rng.choice(BEATS).format(piece.bpm))
    rng.shuffle(parts)
    place = 0 if rng.random() < 0.6 else rng.randrange(len(parts) + 1)
    return ", ".join([*parts[:place], name, *parts[place:]])


def piece_of(index: int, seed: int, *, simple: bool) -> tuple[Piece, list[str]]:
    """The piece of this number and its captions; styles take turns."""
    rng = random.Random(f"{seed}/{index}")
    piece = compose(list(STYLES)[index % len(STYLES)], rng, simple=simple)
    return piece, [describe(piece, rng) for _ in range(CAPTIONS)]


def held_out(known: set[str], *, count: int, seed: int, simple: bool) -> list[tuple[str, Piece]]:
    """Prompts that are no caption of a clip, styles in turn, and a piece that is what each asks for."""
    found: list[tuple[str, Piece]] = []
    index = 0
    while len(found) < count:
        rng = random.Random(f"prompts/{seed}/{index}")
        piece = compose(list(STYLES)[len(found) % len(STYLES)], rng, simple=simple)
        text = describe(piece, rng)
        index += 1
        if text not in known and (piece.style == "pad" or str(piece.bpm) in text):
            found.append((text, piece))
    return found
