"""The data of the bundled model, as notes and captions: what a caption says is what is played."""

from __future__ import annotations

import itertools
import random
import re

import pytest

import captions
import music
import wording
from music import PITCHES
from sound.instruments import INSTRUMENTS, is_kit
from styles import STYLES

MANY = 12 * len(STYLES)


def test_every_piece_is_ten_seconds_of_what_its_captions_say() -> None:
    for index in range(4 * len(STYLES)):
        piece, texts = captions.piece_of(index, 1)
        assert piece.style == list(STYLES)[index % len(STYLES)]
        assert len(set(texts)) == len(texts) >= 6
        assert all(0 <= note.start < music.SECONDS and note.length > 0 for note in piece.notes)
        assert all(0 < note.key < 128 and 0 < note.velocity < 128 for note in piece.notes)
        assert min(note.start for note in piece.notes) < 4 * 60 / piece.bpm  # something in the first bar
        assert max(note.start + note.length for note in piece.notes) > 8
        numbers = {int(word) for text in texts for word in re.findall(r"\b(\d{2,3}) ?(?:bpm|BPM|beats)", text)}
        assert numbers <= ({piece.bpm} if piece.pulse else set())
        assert all(is_kit(name) for name in piece.instruments) == (piece.style == "drums")
        for text in texts:
            if any(words in text for words in captions.NO_DRUMS):
                assert not any(is_kit(name) for name in piece.instruments)
            if any(f" {words}" in f" {text}" for words in captions.DRUM_WORDS if words.startswith("with")):
                assert any(is_kit(name) for name in piece.instruments)


def test_a_caption_names_no_key_and_no_mode_but_the_pieces_own() -> None:
    for index in range(4 * len(STYLES)):
        piece, texts = captions.piece_of(index, 2)
        for text in texts:
            named = re.search(r"\b([A-G](?: sharp| flat)?) (major|minor|dorian|mixolydian|lydian|phrygian)\b", text)
            if named:
                assert named[1] == piece.root
                assert named[2] in piece.scale
                assert named[1] in PITCHES
            elif re.search(r"\bmajor\b", text):
                assert not piece.minor
            elif re.search(r"\bminor\b", text):
                assert piece.minor


def test_pieces_and_captions_follow_from_seed_and_number() -> None:
    assert captions.piece_of(5, 1) == captions.piece_of(5, 1)
    assert captions.piece_of(5, 1) != captions.piece_of(5, 2)


def test_styles_have_words_and_any_tempo_and_key() -> None:
    assert set(STYLES) == set(wording.STYLES)
    pieces = [captions.piece_of(index, 1)[0] for index in range(MANY)]
    assert {piece.root for piece in pieces} == set(PITCHES)
    assert {piece.scale for piece in pieces} == set(music.SCALES)
    tempi = sorted(piece.bpm for piece in pieces)
    assert tempi[0] < 65
    assert tempi[-1] > 175
    assert max(after - before for before, after in itertools.pairwise(tempi)) <= 5
    assert {name for piece in pieces for name in piece.instruments} > {"standard kit", "club kit", "piano", "violin"}
    assert all(name in INSTRUMENTS for piece in pieces for name in piece.instruments)


def test_bars_come_back() -> None:
    for index in range(len(STYLES)):
        piece, _ = captions.piece_of(index, 3)
        if not piece.pulse or piece.bpm < 100:
            continue
        bar = 4 * 60 / piece.bpm
        starts = [
            {round((note.start - at) * 16 / bar) for note in piece.notes if at <= note.start < at + bar}
            for at in (0, 2 * bar)
        ]
        assert len(starts[0] & starts[1]) >= 0.5 * len(starts[0] | starts[1]), piece.style


def test_no_held_out_piece_is_in_the_training_data() -> None:
    known = {captions.piece_of(index, 1)[0].fingerprint for index in range(MANY)}
    assert len(known) == MANY
    prompts = captions.held_out(known, count=2 * len(STYLES), seed=1)
    assert [piece.style for _, piece in prompts] == 2 * list(STYLES)
    assert not known & {piece.fingerprint for _, piece in prompts}
    assert all(str(piece.bpm) in text for text, piece in prompts if piece.pulse)
    skipped = captions.held_out({prompts[0][1].fingerprint}, count=1, seed=1)
    assert skipped[0][1].fingerprint != prompts[0][1].fingerprint


def test_known_words_are_all_that_captions_contain() -> None:
    known = set(captions.known_words())
    for index in range(MANY):
        piece, texts = captions.piece_of(index, 4)
        texts.append(captions.prompt(piece, random.Random(index)))
        for text in texts:
            words = re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*", text.lower())
            assert {word for word in words if not word.isdigit() and not re.fullmatch(r"\d+bpm", word)} <= known, text


def test_a_line_of_signs_is_a_bar() -> None:
    assert list(music.phrase("X--- .... x... ..o-")) == [(0, 1, "X"), (2, 0.25, "x"), (3.5, 0.5, "o")]
    assert [beat for beat, _, _ in music.phrase("xxx xxx xxx xxx")][:4] == [0, 0.25, 0.5, 1]  # triplets, once swung
    with pytest.raises(ValueError, match="signs"):
        list(music.phrase("x..x."))
