"""The codes that an edit keeps: the mask `keep` of `masked.Known` for regions and variations, True for kept codes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from magnet_cli.decoding.philox import uniforms
from magnet_cli.errors import UsageError
from magnet_cli.options.regions import Region

# Codebook and step for the random numbers of a variation's choice: beyond those of any decoding step
# (`sampling.MOST_STEPS`), so that the choice is independent of the codes that the same seed draws.
VARY_STREAM = 0xFFFF


def region_mask(regions: Sequence[Region], *, frame_rate: float, frames: int, codebooks: int) -> Tensor:
    """`keep`, bool [1, K, T]: all but the frames that a region touches."""
    keep = torch.ones(1, codebooks, frames, dtype=torch.bool)
    for region in regions:
        # A region's end often lies a rounding error beyond a frame's.
        first, end = math.floor(region.start * frame_rate + 1e-6), math.ceil(region.end * frame_rate - 1e-6)
        keep[..., min(first, frames - 1) : max(end, first + 1)] = False
    return keep


def vary_mask(share: float, seeds: Sequence[int], *, frames: int, span: int, codebooks: int) -> Tensor:
    """`keep`, bool [B, K, T]: all but a random `share` of the spans, the same in all codebooks.

    Each seed draws other spans. The number of spans is the nearest to `share`, and at least one.
    Raises: UsageError unless 0 < share <= 1.
    """
    if not 0 < share <= 1:
        raise UsageError(f"the share to vary must be above 0 and at most 1, not {share:g}", "Give e.g. --vary 0.3")
    spans = -(-frames // span)
    random = uniforms(seeds, codebook=VARY_STREAM, step=VARY_STREAM, frames=spans, codes=1, device="cpu")[..., 0]
    chosen = random.topk(max(round(share * spans), 1), dim=-1).indices  # [B, n]
    vary = torch.zeros(len(seeds), spans, dtype=torch.bool).scatter_(1, chosen, value=True)
    keep = ~vary.repeat_interleave(span, dim=-1)[:, :frames]
    return keep.unsqueeze(1).expand(-1, codebooks, -1).contiguous()
