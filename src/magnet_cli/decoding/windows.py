"""Decode something longer than the clips of a model, window by window."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from magnet_cli.errors import UsageError


def plan_windows(needed: Sequence[bool], window: int, overlap: int) -> list[int]:
    """First frames of windows of `window` frames, in which all `needed` frames of something longer are decoded in turn.

    Each window begins at least `overlap` frames before the frames it decodes, unless the beginning is nearer. Where
    frames are kept on both sides, it decodes frames in its middle.
    Raises: UsageError unless 0 < overlap < window.
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
    """Decode something longer than the model's clips, window by window, each with the frames before it as known codes.

    codes: int64, keep: bool [B, K, T], T of any length. decode: given known codes and keep [B, K, at most `window`]
    and the number of their first frame, returns all codes of them. Returns int64 codes [B, K, T].
    Limits: a window sees nothing before its overlap, so the music may drift, and there is no form beyond the length of
    a window.
    """
    codes, keep = codes.clone(), keep.clone()
    needed = (~keep).any(dim=0).any(dim=0).tolist()
    for start in plan_windows(needed, window, overlap):
        part = slice(start, start + window)
        codes[..., part] = decode(codes[..., part], keep[..., part], start)
        keep[..., part] = True
    return codes
