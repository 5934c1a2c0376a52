"""Small decoders with random weights, and what goes into them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from magnet_cli.model.config import DecoderConfig
from magnet_cli.model.decoder import MaskedTransformer, TextMemory

CONFIG = DecoderConfig(
    width=24,
    heads=3,
    layers=3,
    feed_forward=60,
    codebooks=4,
    codes=31,
    text_width=10,
    span_length=3,
    context=2,
    clip_seconds=1.0,
    max_period=10_000.0,
    position_scale=1.0,
)
# Sizes are multiples of 16, as cuBLAS wants them.
NARROW = replace(CONFIG, width=32, heads=2, feed_forward=64)
FRAMES = 48


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomize(module: nn.Module, seed: int = 0) -> None:
    """Weights large enough that attention is far from uniform; norms with gains and biases."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    module.eval().requires_grad_(False)


def build(config: DecoderConfig = CONFIG, dtype: torch.dtype = torch.float64) -> MaskedTransformer:
    model = MaskedTransformer(config).to(dtype)
    randomize(model)
    return model


def random_codes(batch: int, frames: int, config: DecoderConfig = CONFIG, seed: int = 3) -> Tensor:
    shape = (batch, config.codebooks, frames)
    return torch.randint(config.codes + 1, shape, generator=torch.Generator().manual_seed(seed))


def text(model: MaskedTransformer, batch: int) -> TextMemory:
    lengths = [3, 5, 2, 4][:batch]
    return model.text_memory(noise(batch, max(lengths), CONFIG.text_width), lengths)
