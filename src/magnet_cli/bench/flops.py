"""The fewest floating-point operations that decoding a clip needs.

Measured speed is compared with it, and so is the number of operations that a decoder really executes. It counts the
matrix products, two operations for each multiplication with its addition; everything else is negligible. It is the
minimum for a decoder that computes each step independently: `cpu.FastTransformer` reuses results and may need fewer.
"""

from __future__ import annotations

from magnet_cli.decoding.steps import guidance_weight, mask_rates, masked_units, step_place
from magnet_cli.engines.cpu import UNGUIDED
from magnet_cli.model.config import DecoderConfig
from magnet_cli.options.sampling import SamplingConfig


def minimum_flops(
    config: DecoderConfig, sampling: SamplingConfig, *, frames: int, tokens: int, text: bool = True
) -> int:
    """Operations for one clip of T `frames` with a prompt of N `tokens`; text: False for no prompt at all."""
    if sampling.spans == "nonoverlap":
        frames -= frames % config.span_length
    total = 2 * tokens * config.width * (config.text_width + 2 * config.layers * config.width) if text else 0
    for codebook, steps in enumerate(sampling.steps):
        fewest = 1 if sampling.by_entropy(codebook) else steps
        for step, rate in enumerate(mask_rates(steps)[:fewest]):
            weight = guidance_weight(float(rate), sampling, place=step_place(step, steps))
            guided = text and abs(weight - 1) > UNGUIDED
            unit = config.span_length if sampling.spans == "nonoverlap" else 1
            masked = masked_units(rate, frames // unit) * unit
            total += step_flops(
                config, codebook, frames=frames, masked=masked, tokens=tokens if text else 0, guided=guided
            )
    return total


def step_flops(config: DecoderConfig, codebook: int, *, frames: int, masked: int, tokens: int, guided: bool) -> int:
    """Operations of one step that predicts `masked` frames; tokens: 0 for no text."""
    width, rows = config.width, 2 if guided else 1
    pairs = attended_pairs(frames, config.context if codebook > 0 else -1)
    own = frames * 4 * width * width + pairs * 2 * width  # projections; products with keys and with values
    feed_forward = frames * 2 * width * config.feed_forward
    heard = frames * (2 * width * width + tokens * 2 * width) if tokens else 0
    # Until the first cross-attention, the halves with and without text are the same: the first layer's self-attention
    # is needed once.
    layers = config.layers * (rows * (own + feed_forward) + heard) - (rows - 1) * own * bool(config.layers)
    return 2 * (layers + rows * masked * width * config.codes)


def attended_pairs(frames: int, context: int) -> int:
    """Pairs of frames of which one attends to the other; context: -1 for all."""
    if context < 0 or context >= frames:
        return frames * frames
    return frames * (2 * context + 1) - context * (context + 1)
