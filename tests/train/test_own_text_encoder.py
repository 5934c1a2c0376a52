"""The tokenizer and the text encoder of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from magnet_cli.model.text_encoder import TextEncoder
from magnet_cli.train.options import TextShape
from magnet_cli.train.own_text_encoder import (
    known_words,
    learn_tokenizer,
    new_text_encoder,
    number_features,
    write_text_encoder,
)

TEXTS = ["Disco beat, 125 bpm", "solo piano, tempo 75", "at 100 BPM, techno", "150 beats per minute"]


@pytest.mark.parametrize("step", [5, 10, 25])
def test_numbers_that_can_be_a_tempo_are_read_as_the_nearest_multiple(step: int) -> None:
    tokenizer = learn_tokenizer(TEXTS, 400, step)
    for number in range(50, 290):
        read = int(tokenizer.normalizer.normalize_str(f"{number} bpm").split()[0])
        assert read % step == 0
        assert abs(read - number) <= step / 2
    for other in ("7", "1999", "808s", "a4"):
        assert tokenizer.normalizer.normalize_str(other) == other


def test_any_text_has_tokens_and_upper_case_the_same() -> None:
    tokenizer = learn_tokenizer(TEXTS, 400, 0)
    assert tokenizer.encode("DISCO BEAT").ids == tokenizer.encode("disco beat").ids
    unknown = tokenizer.token_to_id("<unk>")
    assert unknown not in tokenizer.encode("Ночь, 夜 and 🎵").ids


def test_words_stay_apart_in_a_new_encoder() -> None:
    torch.manual_seed(0)
    encoder = new_text_encoder(TextShape(width=32, heads=2, layers=2, feed_forward=64), learn_tokenizer(TEXTS, 400, 0))
    with torch.inference_mode():
        found = encoder.encode(["tempo 75", "tempo 150"]).states[:, 1]
    # Independent ones would be sqrt(2) of their length apart; what two words have in common is little.
    assert float((found[0] - found[1]).norm() / found[0].norm()) > 0.7


@pytest.mark.parametrize("text", ["120bpm", "120-bpm", "120 BPM", "121 bpm", "121bpm", "  120   bpm"])
def test_a_tempo_is_read_alike_however_it_is_written(text: str) -> None:
    tokenizer = learn_tokenizer(TEXTS, 400, 2)
    assert tokenizer.encode(text).ids == tokenizer.encode("120 bpm").ids


@pytest.mark.parametrize("step", [0, 2])
def test_every_tempo_is_one_token_of_its_own(step: int) -> None:
    tokenizer = learn_tokenizer(TEXTS, 400, step)
    tokens = {tuple(tokenizer.encode(str(number)).ids[:-1]) for number in range(30, 301, step or 1)}
    assert {len(one) for one in tokens} == {1}
    assert len(tokens) == len(range(30, 301, step or 1))
    for text in ("(97", "97,", "tempo:97", "at 97"):
        assert tokenizer.encode("96" if step else "97").ids[0] in tokenizer.encode(text).ids
    assert tokenizer.encode("98").ids[0] not in tokenizer.encode("98s").ids  # a decade is no tempo


def test_embeddings_of_numbers_are_alike_for_like_magnitudes() -> None:
    encoder = new_text_encoder(TextShape(), learn_tokenizer(TEXTS, 400, 0))
    weights = encoder.model.shared.weight.detach()

    def embedding(number: int) -> torch.Tensor:
        return weights[encoder.tokenize(str(number))[0]]

    def similarity(one: int, other: int) -> float:
        return float(torch.cosine_similarity(embedding(one), embedding(other), dim=0))

    for number in range(50, 290):
        assert abs(float(embedding(number).square().mean()) - 1) < 0.1
        assert similarity(number, int(number * 1.02)) > 0.9
        assert similarity(number, round(number * 1.1)) < 0.6
        if number <= 150:
            assert abs(similarity(number, 2 * number)) < 0.25
    words = weights[3:300]
    assert float(torch.cosine_similarity(words, embedding(120), dim=1).abs().max()) < 0.4
    assert torch.equal(number_features(torch.tensor([120]), 192)[0], embedding(120))


def test_known_words_are_written_and_read(tmp_path: Path) -> None:
    known = known_words(TEXTS)
    assert {"disco", "piano", "per", "30", "300", "119"} <= known
    assert not {"kazoo", "Disco", "29", "301"} & known
    shape = TextShape(width=32, heads=2, layers=1, feed_forward=64)
    write_text_encoder(new_text_encoder(shape, learn_tokenizer(TEXTS, 400, 0), known), tmp_path, torch.float32)
    assert TextEncoder.load(tmp_path, "cpu").known_words == known
