"""The data of the bundled model, as notes and captions: what a caption says is what is played."""

from __future__ import annotations

import pytest

import captions
import music


@pytest.mark.parametrize("simple", [False, True])
def test_every_piece_is_ten_seconds_of_what_its_captions_say(simple: bool) -> None:
    for index in range(4 * len(music.STYLES)):
        piece, texts = captions.piece_of(index, 1, simple=simple)
        assert piece.style == list(music.STYLES)[index % len(music.STYLES)]
        assert all(any(name in text for name in captions.NAMES[piece.style]) for text in texts)
        numbers = {int(word) for text in texts for word in text.replace(",", "").split() if word.isdigit()}
        assert numbers <= {piece.bpm}
        assert all(0 <= note.start < music.SECONDS and note.length > 0 for note in piece.notes)
        assert all(0 < note.key < 128 and 0 < note.velocity < 128 for note in piece.notes)
        assert any(note.start < 0.1 for note in piece.notes)
        assert any(note.start + note.length > 8 for note in piece.notes)
        programs = {note.program for note in piece.notes}
        if piece.style == "drums":
            assert programs == {music.DRUMS}
        elif piece.style in ("piano", "guitar", "pad", "strings", "bells", "flute"):
            assert music.DRUMS not in programs
        if simple:
            ticks = [(note.start / music.GRID, (note.start + note.length) / music.GRID) for note in piece.notes]
            assert all(abs(tick - round(tick)) < 1e-6 for pair in ticks for tick in pair)


def test_pieces_and_captions_follow_from_seed_and_number() -> None:
    assert captions.piece_of(5, 1, simple=True) == captions.piece_of(5, 1, simple=True)
    assert captions.piece_of(5, 1, simple=True) != captions.piece_of(5, 2, simple=True)


def test_held_out_prompts_are_no_captions() -> None:
    known = {text for index in range(240) for text in captions.piece_of(index, 1, simple=True)[1]}
    prompts = captions.held_out(known, count=60, seed=1, simple=True)
    assert len(prompts) == 60
    assert not known & {text for text, _ in prompts}
    assert {piece.style for _, piece in prompts} == set(music.STYLES)
