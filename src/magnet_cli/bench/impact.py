"""The work for which a paper has published seconds of the released sound models: an anchor outside this project.

IMPACT (ICML 2025) reports how long MAGNeT's sound models take for batches of clips of 10 s on an NVIDIA V100. Which
stages these seconds include is not known; a report here has all of them, from the prompts to the files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch

from magnet_cli.bench.speed import BenchParts, Report, parts_of, shapes
from magnet_cli.decoding.masked import Network
from magnet_cli.model.config import RELEASED_CODEC
from magnet_cli.model.decoder import MaskedTransformer

ImpactSize = Literal["small", "medium"]

# Seconds on a V100, by size and number of clips in the batch.
PUBLISHED: dict[ImpactSize, dict[int, float]] = {
    "small": {1: 1.6, 8: 6.9, 64: 52.0},
    "medium": {1: 3.9, 8: 24.8, 64: 195.9},
}
TEXT_WIDTH = 1024  # of T5-large
# The codec of the sound models: 16 kHz, 50 frames a second.
SOUND_CODEC = replace(RELEASED_CODEC, sample_rate=16_000, ratios=(8, 5, 4, 2))


def sound_parts(
    size: ImpactSize, device: torch.device, dtype: torch.dtype, network: Callable[[MaskedTransformer], Network]
) -> BenchParts:
    """A released sound model's shape with random weights. network: what decodes, made from the model."""
    config = replace(shapes()[f"{size}-10secs"], text_width=TEXT_WIDTH)
    return parts_of(f"audio-{size}", config, SOUND_CODEC, device=device, dtype=dtype, network=network)


def beside(size: ImpactSize, report: Report) -> list[tuple[str, str]]:
    """A report as a table, with the published seconds for the same batch."""
    published = PUBLISHED[size][report.batch]
    times = published / report.latency
    return [*report.rows, ("published", f"{published:.1f} s on a V100 (IMPACT): {times:.2g} times as fast here")]
