"""The limits of what a network can be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from magnet_cli.model.config import RELEASED_CODEC, ShapeError, TextConfig
from magnet_cli.model.t5 import T5Config
from support.networks import CONFIG

T5 = T5Config(d_model=24, d_ff=32, num_layers=2, num_heads=2)
NOT_NUMBERS: list[Any] = [None, "7", [7], True, float("nan"), float("inf"), -float("inf"), 10**400]


def test_the_shapes_of_real_models_pass() -> None:
    CONFIG.check()
    RELEASED_CODEC.check()
    T5.check()
    TextConfig("google/flan-t5-xl").check()
    large = {"width": 2048, "heads": 32, "layers": 48, "feed_forward": 8192, "codes": 2048}
    replace(CONFIG, **large, clip_seconds=30).check()
    replace(RELEASED_CODEC, codebooks=32, causal=True, trim_right_ratio=0.5, pad_mode="reflect").check()


@pytest.mark.parametrize(
    "changes",
    [
        *({"layers": value} for value in (0, -1, 2.0, 1_000_000, *NOT_NUMBERS)),
        *({"clip_seconds": value} for value in (0, -1.0, 1e6, *NOT_NUMBERS)),
        *({"feed_forward": value} for value in (0, 2**40)),
        *({"codes": value} for value in (0, 2**16)),
        *({"codebooks": value} for value in (0, 10**6)),
        *({"context": value} for value in (-2, 0.5)),
        {"width": 2**30},
        {"width": 2},
        {"width": CONFIG.width + 1},
        {"heads": CONFIG.width - 1},
        {"span_length": 0},
        {"max_period": 0.0},
        {"position_scale": -1.0},
    ],
)
def test_an_impossible_decoder_is_named(changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(ShapeError, match=name):
        replace(CONFIG, **changes).check()


@pytest.mark.parametrize(
    "changes",
    [
        *({"lstm": value} for value in (-1, 1_000_000, *NOT_NUMBERS)),
        *({"pad_mode": value} for value in ("nope", "", None, ["constant"])),
        *({"activation": value} for value in ("Transformer", "Module", "__class__", None, 7)),
        *({"final_activation": value} for value in ("Linear", 7)),
        *({"activation_params": value} for value in ([], {"alpha": "x"}, {"alpha": 1e300}, {"alpha": {}})),
        *({"ratios": value} for value in ((), (0,), (8, 10**6), (2,) * 17, ("8",), (8, True), (1000, 1000))),
        *({"causal": value} for value in (0, None, "yes")),
        {"n_residual_layers": 10_000},
        {"dilation_base": 1000, "n_residual_layers": 3},
        {"trim_right_ratio": 0.5},
        {"sample_rate": 0},
        {"codes": 10**9},
        {"compress": 0},
    ],
)
def test_an_impossible_codec_is_named(changes: dict[str, Any]) -> None:
    with pytest.raises(ShapeError, match=next(iter(changes))):
        replace(RELEASED_CODEC, **changes).check()


@pytest.mark.parametrize(
    "changes",
    [
        *({"num_layers": value} for value in (0, -1, 1_000_000, *NOT_NUMBERS)),
        *({"feed_forward_proj": value} for value in ("swish", None, ["relu"])),
        {"vocab_size": 2**40},
        {"relative_attention_num_buckets": 1},
        {"relative_attention_max_distance": 8},
        {"layer_norm_epsilon": -1.0},
    ],
)
def test_an_impossible_text_encoder_is_named(changes: dict[str, Any]) -> None:
    with pytest.raises(ShapeError, match=next(iter(changes))):
        replace(T5, **changes).check()


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "\x1b[2J", "x" * 300, None, 7])
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    with pytest.raises(ShapeError, match="name"):
        TextConfig(name).check()
