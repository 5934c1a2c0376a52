"""Self-attention of every frame to its neighbourhood, in time and memory proportional to the frames."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from magnet_cli.model.decoder import merge_heads, split_heads

# GPU kernels require the rows of a mask to begin at multiples of this many elements.
ALIGNED = 8


@dataclass(frozen=True)
class Band:
    """Which frames attend to which, for R rows of T frames that lie one after the other, M = R * T.

    A block of frames attends to itself and a margin to either side, masked to |i - j| <= context and to its own row.
    mask: [blocks, 1, block, block + 2 * margin], bool, or what is added to the products (`addend`); frames: M.
    """

    mask: Tensor
    block: int
    margin: int
    frames: int

    @classmethod
    def build(cls, rows: int, frames: int, context: int, block: int, device: torch.device) -> Band:
        """For rows of T `frames`; block: how many frames attend together."""
        margin = -(-context // ALIGNED) * ALIGNED
        blocks = -(-rows * frames // block)
        query = torch.arange(blocks * block, device=device).view(blocks, block, 1)
        key = query[:, :1] - margin + torch.arange(block + 2 * margin, device=device)
        same_row = query.div(frames, rounding_mode="floor") == key.div(frames, rounding_mode="floor")
        mask = ((query - key).abs() <= context) & same_row
        return cls(mask.unsqueeze(1), block, margin, rows * frames)

    def adding(self, dtype: torch.dtype) -> Band:
        """The same, with a mask of numbers that are added."""
        return replace(self, mask=addend(self.mask, dtype))

    def buffer(self, width: int, like: Tensor) -> Tensor:
        """Room for queries, keys and values [M, 3D], with margins, in the dtype and on the device of `like`.

        Masked values must be finite, so the buffer starts with zeros.
        """
        return like.new_zeros(len(self.mask) * self.block + 2 * self.margin, 3 * width)

    def inside(self, buffer: Tensor) -> Tensor:
        """A view of the part of a buffer that holds frames, [M, 3D]."""
        return buffer[self.margin : self.margin + self.frames]

    def attend(self, buffer: Tensor, heads: int, frames: int) -> Tensor:
        """Attention of the first `frames` of M. Nothing is copied: the blocks of keys overlap in place.

        buffer: as made by `buffer`. Returns [frames, D].
        """
        block, width = self.block, buffer.shape[1] // 3
        blocks = -(-frames // block)
        own = buffer[self.margin : self.margin + blocks * block, :width]
        # Not as_strided: inductor compiled it without the offset of the view that it was given.
        near = buffer[:, width:].unfold(0, block + 2 * self.margin, block)[:blocks].transpose(1, 2)
        key, value = (split_heads(part, heads) for part in near.chunk(2, dim=-1))
        query = split_heads(own.unflatten(0, (blocks, block)), heads)
        return merge_heads(F.scaled_dot_product_attention(query, key, value, self.mask[:blocks])).flatten(0, 1)[:frames]


def addend(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A bool mask as numbers to add: 0 where a frame may attend, elsewhere -inf."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -math.inf)
