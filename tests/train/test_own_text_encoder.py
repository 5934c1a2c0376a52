"""The tokenizer and the text encoder of one's own."""

from __future__ import annotations

import pytest
import torch

from magnet_cli.train.options import TextShape
from magnet_cli.train.own_text_encoder import learn_tokenizer, new_text_encoder

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
