"""What of a clip is kept and what is decoded: regions, variations, and windows over what is longer than a clip.

All of them are ways to make one thing, the mask `keep` [B, K, T] of `decode.Known`: True where a code stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from magnet_cli.errors import UsageError
from magnet_cli.noise import uniforms
from magnet_cli.options.regions import Region

# Codebook and step under which a variation's choice is drawn: beyond those of any decoding step (config.MOST_STEPS), so
# it has nothing to do with the codes that the same seed draws.
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
    """`keep`, bool [B, K, T]: all but a random `share` of the spans, others for each seed, the same in all codebooks.

    The number of spans is exact, to the nearest, but at least one. Raises UsageError unless 0 < share <= 1.
    """
    if not 0 < share <= 1:
        raise UsageError(f"the share to vary must be above 0 and at most 1, not {share:g}", "Give e.g. --vary 0.3")
    spans = -(-frames // span)
    random = uniforms(seeds, codebook=VARY_STREAM, step=VARY_STREAM, frames=spans, codes=1, device="cpu")[..., 0]
    chosen = random.topk(max(round(share * spans), 1), dim=-1).indices  # [B, n]
    vary = torch.zeros(len(seeds), spans, dtype=torch.bool).scatter_(1, chosen, value=True)
    keep = ~vary.repeat_interleave(span, dim=-1)[:, :frames]
    return keep.unsqueeze(1).expand(-1, codebooks, -1).contiguous()


# -- longer than a clip -----------------------------------------------------------------------------------------------


def plan_windows(needed: Sequence[bool], window: int, overlap: int) -> list[int]:
    """First frames of windows of `window` frames, in which all `needed` frames of something longer are decoded in turn.

    Each window holds at least `overlap` frames that are there already before what it decodes, unless the beginning is
    nearer, and has what it decodes in its middle where there is something to keep on both sides.
    Raises UsageError unless 0 < overlap < window.
    """
    if not 0 < overlap < window:
        raise UsageError(
            f"an overlap of {overlap} frames does not fit windows of {window}",
            "Give a duration above 0 and below the model's own",
        )
    total, position, starts = len(needed), 0, []
    last = max(total - window, 0)
    while position < total:
        if not needed[position]:
            position += 1
            continue
        run = 1
        while run < window - overlap and position + run < total and needed[position + run]:
            run += 1
        start = min(max(position - max(overlap, (window - run) // 2), 0), last)
        starts.append(start)
        position = start + window
    return starts


def decode_windows(
    codes: Tensor, keep: Tensor, decode: Callable[[Tensor, Tensor, int], Tensor], *, window: int, overlap: int
) -> Tensor:
    """Decode something longer than the model's clips, window by window, each with what is there already as known.

    codes: int64, keep: bool [B, K, T], T of any length. decode: given known codes and keep [B, K, at most `window`]
    and the number of their first frame, returns all codes of them. Returns int64 codes [B, K, T].
    The limits: a window knows nothing of what lies before it but through the overlap, so the music may drift, and there
    is no form beyond a window's length.
    """
    codes, keep = codes.clone(), keep.clone()
    needed = (~keep).any(dim=0).any(dim=0).tolist()
    for start in plan_windows(needed, window, overlap):
        part = slice(start, start + window)
        codes[..., part] = decode(codes[..., part], keep[..., part], start)
        keep[..., part] = True
    return codes
