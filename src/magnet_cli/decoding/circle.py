"""Loops: a clip whose end meets its beginning, decoded as a circle.

The network was trained on lines as long as its clips. So it sees the circle unrolled into such a line: the frames to be
predicted in the middle, and as much of the rest of the circle as fits before and after them, repeated if need be. This
is the method of "LoopGen: Training-Free Loopable Music Generation" (arXiv 2504.04466). LoopGen keeps the same frame in
the middle at every step, which leaves little context around a loop nearly as long as a clip, and none around one as
long. Here the middle moves at every step, and where there is little context, half of the circle is predicted at a time:
no frame is ever far from the middle, and no frame is the seam. The beginning of the loop on the circle is drawn at
random, so its seam has the same distribution as any other place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from magnet_cli.decoding.philox import uniforms
from magnet_cli.errors import UsageError

# Steps of this share of the circle stay as far from all earlier places as possible.
GOLDEN = (math.sqrt(5) - 1) / 2
# A predicted frame sees at least this share of the window on either side of it. For 10-second models 1/8 is 1.25 s.
LEAST_ROOM = 1 / 8
# Codebook and step for the random numbers of beginnings: no decoding step (`sampling.MOST_STEPS`) and not
# `masks.VARY_STREAM` has them.
START_STREAM = 0xFFFE


@dataclass(frozen=True)
class View:
    """The circle as the network sees it in one pass.

    frames: int64 [W], the loop's frame at each place of the window; predicted: the places whose predictions are used.
    """

    frames: Tensor
    predicted: slice


@dataclass(frozen=True)
class Loop:
    """Decode a circle. window: frames of a clip as the model was trained."""

    window: int

    def check(self, frames: int) -> None:
        """Raise UsageError for a loop that is longer than the model's clips."""
        if frames > self.window:
            raise UsageError(
                f"a loop of {frames} frames is longer than the model's clips of {self.window}",
                "Ask for fewer bars, or choose a model with longer clips, such as magnet-small-30secs",
            )

    def starts(self, seeds: Sequence[int], frames: int, device: torch.device) -> Tensor:
        """The first frame of each loop on its circle, int64 [B], uniformly distributed."""
        random = uniforms(seeds, codebook=START_STREAM, step=START_STREAM, frames=1, codes=1, device=device)
        return (random[:, 0, 0] * frames).long()

    def origin(self, frames: int, step: int) -> int:
        """The frame that predictions begin with at this step, counted over all codebooks."""
        return int(step * GOLDEN % 1 * frames)

    def views(self, frames: int, origin: int, device: torch.device) -> list[View]:
        """Views that together predict every frame of a loop once, in the order of the circle from `origin` on."""
        count = 1 if self.window - frames >= 2 * int(LEAST_ROOM * self.window) else 2
        views = []
        for number in range(count):
            first, end = number * frames // count, (number + 1) * frames // count
            before = (self.window - (end - first)) // 2
            places = torch.arange(self.window, device=device) + (origin + first - before)
            views.append(View(places % frames, slice(before, before + end - first)))
        return views


def turn(x: Tensor, by: Tensor) -> Tensor:
    """Begin each circle x[b] `by[b]` frames later. x: [B, K, T], by: int64 [B]. Returns [B, K, T]."""
    frames = (torch.arange(x.shape[-1], device=x.device) + by.view(-1, 1, 1)) % x.shape[-1]
    return x.gather(-1, frames.expand(-1, x.shape[1], -1))
