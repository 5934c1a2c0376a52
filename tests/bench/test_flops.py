"""How many operations the networks take, counted as PyTorch runs them, against the least that is needed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from magnet_cli.bench.flops import attended_pairs, minimum_flops, step_flops
from magnet_cli.decoding.masked import Network, decode
from magnet_cli.engines.cpu import FastTransformer
from magnet_cli.engines.cuda import Dense, GraphTransformer, Shape
from magnet_cli.model.config import DecoderConfig
from magnet_cli.model.decoder import MaskedTransformer, neighbourhood_mask
from magnet_cli.options.sampling import SamplingConfig
from support.golden import CPU
from support.networks import noise

# The small model's proportions at a sixteenth of its width: attention weighs more in it, and so does its waste.
CONFIG = DecoderConfig(
    width=64,
    heads=4,
    layers=24,
    feed_forward=256,
    codebooks=4,
    codes=128,
    text_width=48,
    span_length=3,
    context=5,
    clip_seconds=10.0,
    max_period=10_000.0,
    position_scale=1.0,
)
FRAMES, TOKENS = 500, 10
SAMPLING = SamplingConfig(steps=(3, 4, 2, 2))


class Counter(TorchDispatchMode):
    """Adds up the operations of matrix products. PyTorch's own counter misses in-place ones and attention on CPUs."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm", "addmm_", "bmm"):
            left, right = args[-2:]
            self.total += 2 * left.numel() * right.shape[-1]
        elif name == "_scaled_dot_product_flash_attention_for_cpu":
            query, key = args[:2]
            self.total += 4 * query.numel() * key.shape[-2]
        else:
            assert not any(word in name for word in ("matmul", "linear", "attention", "addbmm", "baddbmm")), name
        return func(*args, **(kwargs or {}))


def operations(network: Network, model: MaskedTransformer, monkeypatch: pytest.MonkeyPatch) -> int:
    # Inference mode hides linear layers from the counter.
    monkeypatch.setattr(network, "guided", partial(type(network).guided.__wrapped__, network))  # type: ignore[attr-defined]
    with Counter() as counter, torch.no_grad():
        memory = model.text_memory(noise(1, TOKENS, CONFIG.text_width).float(), [TOKENS])
        decode.__wrapped__(network, memory, [0], SAMPLING, frames=FRAMES)  # type: ignore[attr-defined]
    return counter.total


@pytest.fixture(scope="module")
def model() -> MaskedTransformer:
    torch.manual_seed(0)
    return MaskedTransformer(CONFIG).eval().requires_grad_(False)


def test_static_shapes_waste_nothing(model: MaskedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    found = operations(GraphTransformer(model), model, monkeypatch)
    least = minimum_flops(CONFIG, SAMPLING, frames=FRAMES, tokens=TOKENS)
    # Frames that are multiplied only to be masked, padded tokens, and the head's unmasked frames, all of which weigh
    # several times more at this width than at the real one.
    assert least <= found <= 1.10 * least


def test_on_the_cpu_what_is_known_is_not_computed_again(
    model: MaskedTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = operations(FastTransformer(model), model, monkeypatch)
    least = minimum_flops(CONFIG, SAMPLING, frames=FRAMES, tokens=TOKENS)
    assert 0 < found <= 0.97 * least


def test_the_count_is_the_networks(model: MaskedTransformer) -> None:
    """The formula against a count, where the network does no more than it must: all frames, full attention, no text."""
    codes = torch.full((1, CONFIG.codebooks, 498), CONFIG.mask_code)
    with Counter() as counter, torch.no_grad():
        model(codes, 0, None)
    assert counter.total == step_flops(CONFIG, 0, frames=498, masked=498, tokens=0, guided=False)
    memory = model.text_memory(noise(1, TOKENS, CONFIG.text_width).float(), [TOKENS])
    with Counter() as counter, torch.no_grad():
        model(codes, 0, memory)
    assert counter.total == step_flops(CONFIG, 0, frames=498, masked=498, tokens=TOKENS, guided=False)


@pytest.mark.parametrize("context", [-1, 0, 1, 4, 5, 100])
@pytest.mark.parametrize("frames", [1, 5, 30])
def test_pairs_are_counted_as_the_mask_allows(frames: int, context: int) -> None:
    reach = frames if context < 0 else context
    assert attended_pairs(frames, context) == int(neighbourhood_mask(frames, reach, CPU).sum())


def test_the_small_model_at_its_real_size() -> None:
    """A pass of each kind, counted without being computed."""
    config = replace(CONFIG, width=1024, heads=16, feed_forward=4096, codes=2048, text_width=768)
    with torch.device("meta"):
        model = MaskedTransformer(config)
        network = Dense(model, Shape(batch=1, frames=498, text_rows=1, tokens=32))
        for codebook in (0, 1):
            for guided in (True, False):
                with Counter() as counter, torch.no_grad():
                    network.logits(codebook, guided)
                least = step_flops(config, codebook, frames=498, masked=498, tokens=TOKENS, guided=guided)
                # 53 of the 64 keys of a block are masked for each frame, 22 of the 32 tokens are padding: 0.8 and 0.3%.
                assert least <= counter.total <= 1.015 * least
    # 50 steps over 498 frames with 14 and 12 square matrices in 24 layers, and full attention in 20 of the steps.
    whole = minimum_flops(config, SamplingConfig(), frames=500, tokens=TOKENS)
    assert whole == pytest.approx(32.5e12, rel=0.02)
