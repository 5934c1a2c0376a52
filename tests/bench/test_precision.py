"""What low precision costs: measured, bounded, and exceeded by a network that is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from magnet_cli.bench.precision import Deviation, deviation
from magnet_cli.bench.speed import random_decoder, shapes
from magnet_cli.decoding.masked import Network
from magnet_cli.engines.cpu import FastTransformer
from magnet_cli.engines.linear import activation_levels
from magnet_cli.model.decoder import MaskedTransformer, TextMemory
from magnet_cli.model.text_encoder import TextStates
from magnet_cli.options.sampling import SamplingConfig
from support.golden import CPU

LAYERS, WIDTH, FRAMES = 4, 256, 60
CONFIG = replace(
    shapes()["small-10secs"], width=WIDTH, heads=4, layers=LAYERS, feed_forward=4 * WIDTH, text_width=64, codes=256
)
# Half-way the weight is 2: guided logits are 2c - u, whose errors, independent at worst, add up to sqrt(5) of one's.
GUIDED = SamplingConfig(guidance=3.0, min_guidance=1.0)
AMPLIFIED = math.sqrt(5)

# Errors of rounding are independent, so n of them are sqrt(n) as large as one. A layer rounds some 15 times what a
# branch adds or the sum it is added to: three norms, three pairs of matrices, two attentions, GELU, three sums; each of
# these is less than the whole. Weights are rounded once more. With p bits the error is 2**-p at most and half of that
# in RMS.
ROUNDINGS = math.sqrt(16 * LAYERS) / 2
# A number in n levels errs by 1 / n / sqrt(12) of its row's largest in RMS, and that is about 4 RMS of hundreds of
# numbers. A layer has 6 products, of activations and of weights in 127 levels.
INT8 = 4 * math.hypot(1 / activation_levels(), 1 / 127) / math.sqrt(12) * math.sqrt(6 * LAYERS)
BOUNDS = {"float32": 2.0**-24 * ROUNDINGS, "float16": 2.0**-11 * ROUNDINGS, "bfloat16": 2.0**-8 * ROUNDINGS}
BOUNDS = {name: AMPLIFIED * bound for name, bound in {**BOUNDS, "int8": INT8}.items()}
# Between the two largest of 256 normal numbers the gap is below a small x with probability 3.3 x. A difference of two
# errors of RMS e bridges it, if it has the right sign, in 2 e of the frames; these are few, so take twice that and two.
BRIDGED, FEW = 4.0, 2 / FRAMES


def model(dtype: torch.dtype = torch.float32) -> MaskedTransformer:
    made = random_decoder(CONFIG, CPU, dtype)
    with torch.no_grad():
        for layer in made.layers:  # as much is added in each layer as there is, in all three branches
            for weight in layer.parameters():
                if weight.dim() == 2:
                    weight.mul_(3)
    return made


def measured(network: Network, tested: MaskedTransformer, frames: int = FRAMES) -> Deviation:
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(CONFIG.codes, (1, CONFIG.codebooks, frames), generator=generator)
    text = TextStates(torch.randn(1, 7, CONFIG.text_width, generator=generator), [7])
    return deviation(network, tested, model(), text=text, codes=codes, sampling=GUIDED)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
def test_each_precision_errs_as_its_rounding_does(dtype: str) -> None:
    tested = model(torch.float32 if dtype == "int8" else getattr(torch, dtype))
    found = measured(FastTransformer(tested, int8=dtype == "int8"), tested)
    assert BOUNDS[dtype] / 10 < found.error < BOUNDS[dtype]  # not far below either: the bound means something
    assert found.agreement >= 1 - BRIDGED * found.error - FEW


def test_the_plain_decoder_does_not_differ_from_itself() -> None:
    tested = model()
    assert measured(tested, tested) == Deviation(0.0, 1.0)


class Deaf(FastTransformer):
    """Hears no text."""

    def guided(
        self,
        codes: torch.Tensor,
        codebook: int,
        memory: TextMemory | None,
        weight: float,
        wanted: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return super().guided(codes, codebook, None, weight, wanted)


def without_a_layer(tested: MaskedTransformer) -> Network:
    with torch.no_grad():
        tested.layers[1].get_submodule("self_attention.out").get_parameter("weight").zero_()
    return FastTransformer(tested, int8=True)


def with_a_narrow_neighbourhood(tested: MaskedTransformer) -> Network:
    tested.config = replace(CONFIG, context=CONFIG.context - 1)
    return FastTransformer(tested)


def with_a_wrong_scale(tested: MaskedTransformer) -> Network:
    with torch.no_grad():
        tested.layers[2].get_submodule("down").get_parameter("weight")[: WIDTH // 4].mul_(0.5)
    return FastTransformer(tested)


@pytest.mark.parametrize(
    ("broken", "dtype"),
    [
        (Deaf, "bfloat16"),
        (without_a_layer, "int8"),
        (with_a_narrow_neighbourhood, "bfloat16"),
        (with_a_wrong_scale, "bfloat16"),
    ],
)
def test_a_network_that_is_wrong_exceeds_the_bound(broken: Callable[[MaskedTransformer], Network], dtype: str) -> None:
    tested = model()
    found = measured(broken(tested), tested)
    assert found.error > BOUNDS[dtype]


def test_only_a_short_part_of_a_clip_is_computed() -> None:
    tested = model(torch.float16)
    seen = []

    class Watched(FastTransformer):
        def guided(self, codes: torch.Tensor, *rest: object) -> torch.Tensor:  # type: ignore[override]
            seen.append(codes.shape[-1])
            return super().guided(codes, *rest)  # type: ignore[arg-type]

    measured(Watched(tested), tested, 300)
    assert seen == [100, 100]
