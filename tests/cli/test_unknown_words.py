"""What the command says of words that a model with a text encoder of its own does not know."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from magnet_cli import Pipeline
from magnet_cli.checkpoints.bundle import read_bundle, write_bundle
from magnet_cli.train.options import TextShape
from magnet_cli.train.own_text_encoder import known_words, learn_tokenizer, new_text_encoder, write_text_encoder
from magnet_cli.train.synonyms import Synonyms
from support.command import Magnet

CAPTIONS = ["solo flute, 90 bpm", "disco beat", "a sad piano"]
SYNONYMS = [Synonyms(("sad",), ("gloomy",), 1), Synonyms((), ("please",), 2)]
QUICK = ("--steps", "2,1,1,1", "--device", "cpu", "--seed", "1")


@pytest.fixture
def own(tiny: str, tmp_path: Path) -> str:
    """A bundle with a text encoder of its own."""
    model = read_bundle(Path(tiny))
    shape = TextShape(width=model.decoder.config.text_width, heads=2, layers=1, feed_forward=32)
    encoder = new_text_encoder(shape, learn_tokenizer(CAPTIONS, 300, 2, SYNONYMS), known_words(CAPTIONS))
    write_text_encoder(encoder, tmp_path / "text", torch.float32)
    write_bundle(replace(model, text_folder=tmp_path / "text"), tmp_path / "own")
    return "own"


def test_unknown_words_are_named_with_the_nearest_known_one(magnet: Magnet, own: str) -> None:
    result = magnet(
        "generate", "Gloomy kazoo and flutte, 91bpm please", "--model", own, "-o", "a.wav", "--json", *QUICK
    )
    assert result.code == 0, result.err
    (note,) = [line for line in result.err.splitlines() if line.startswith("note: ")]
    assert f'{own} does not know "kazoo", "and" and "flutte" (did you mean flute?)' in note
    assert f"magnet models show {own} --words lists" in note
    assert result.records[0]["unknown_words"] == ["kazoo", "and", "flutte"]
    assert json.loads(Path("a.json").read_text())["unknown_words"] == ["kazoo", "and", "flutte"]


def test_nothing_is_said_of_known_words_and_when_quiet(magnet: Magnet, own: str) -> None:
    result = magnet("generate", "gloomy piano", "--model", own, "-o", "a.wav", *QUICK)
    assert (result.code, "does not know" in result.err) == (0, False)
    assert json.loads(Path("a.json").read_text())["unknown_words"] == []
    assert "kazoo" not in magnet("generate", "kazoo", "--model", own, "-o", "b.wav", "-q", *QUICK).err


def test_a_text_encoder_that_lists_no_words_knows_all(magnet: Magnet, tiny: str) -> None:
    result = magnet("generate", "xylorimba", "--model", tiny, "-o", "a.wav", "--json", *QUICK)
    assert (result.code, "does not know" in result.err) == (0, False)
    assert result.records[0]["unknown_words"] == []


def test_a_batch_names_them_once_with_counts(magnet: Magnet, own: str) -> None:
    Path("p.txt").write_text("kazoo disco\nkazoo piano\ntuba piano\n" + "\n".join(f"x{n}y piano" for n in range(9)))
    result = magnet("batch", "p.txt", "-o", "clips", "--model", own, *QUICK)
    assert result.code == 0, result.err
    (note,) = [line for line in result.err.splitlines() if line.startswith("note: ")]
    assert 'does not know "kazoo" (in 2 prompts), "tuba" (in 1 prompt), "x0y" (in 1 prompt)' in note
    assert " and 3 more; " in note


def test_the_negative_prompt_counts(magnet: Magnet, own: str) -> None:
    result = magnet("generate", "piano", "--negative", "kazoo", "--model", own, "-o", "a.wav", *QUICK)
    assert 'does not know "kazoo"' in result.err


def test_the_known_words_are_listed(magnet: Magnet, own: str, tiny: str) -> None:
    words = ["a", "beat", "bpm", "disco", "flute", "piano", "sad", "solo", "30-300"]
    assert magnet("models", "show", own, "--words").out.splitlines() == words
    listed = json.loads(magnet("models", "show", own, "--words", "--json").out)
    assert (listed["name"], set(listed["known_words"])) == ("own", known_words(CAPTIONS))
    without = magnet("models", "show", tiny, "--words")
    assert (without.code, without.out, "lists no words" in without.err) == (0, "", True)


@pytest.mark.filterwarnings("ignore:no GPU found")
def test_python_has_them_too(own: str, tmp_path: Path) -> None:
    pipeline = Pipeline.load(str(tmp_path / own), device="cpu")
    assert pipeline.known_words == known_words(CAPTIONS)
    assert pipeline.unknown_words("a gloomy KAZOO, kazoo!") == ["kazoo"]
    clip = pipeline.generate_one("a gloomy kazoo", steps=(2, 1, 1, 1))
    assert clip.unknown_words == ("kazoo",)
    assert pickle.loads(pickle.dumps(clip)).unknown_words == ("kazoo",)
