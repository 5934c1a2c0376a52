"""The order in which units are decided: a fixed one that spreads them over the clip, alone or with the confidence.

The reference decides first what the model is surest of (`steps.Grid.scores`). Those units often lie beside each other,
and units that are decided at once cannot know of each other. The van der Corput sequence spreads what is decided at
once over the whole clip. It is the one-dimensional case of Besnier et al., "Halton Scheduler for Masked Generative
Image Transformer" (arXiv 2503.17076).

Letters: B batch, S units. Masks are True where a unit is hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from magnet_cli.decoding.philox import uniforms
from magnet_cli.decoding.steps import highest_units

# Added to the number of a codebook for the random numbers of its order, which no drawn code has.
ORDER_STREAM = 0x10000


def corput_order(units: int) -> list[int]:
    """Units in the order of the van der Corput sequence in base 2: 0, 1/2, 1/4, 3/4, 1/8, ... of them.

    Each number of the sequence is the unit that it falls into, where that is new.
    """
    order: dict[int, None] = {}
    bits = max(units - 1, 0).bit_length()  # 2**bits numbers fall into every unit
    for number in range(2**bits):
        reversed_bits = sum((number >> bit & 1) << (bits - 1 - bit) for bit in range(bits))
        order.setdefault(reversed_bits * units >> bits)
    return list(order)


def corput_places(undecided: Tensor) -> Tensor:
    """Place of each undecided unit in the order of `corput_order`, from 0 on; -1 for the others.

    undecided: bool [..., S]. Returns int64 [..., S].
    """
    order = torch.tensor(corput_order(undecided.shape[-1]), dtype=torch.long, device=undecided.device)
    places = undecided[..., order].long().cumsum(dim=-1) - 1
    return torch.full_like(places, -1).scatter_(-1, order.expand_as(places), places).masked_fill_(~undecided, -1)


def last_places(places: Tensor, units: Sequence[int], counts: Sequence[int]) -> Tensor:
    """Mask of the last `counts[b]` of the `units[b]` units of each item that have a place. [B, S] -> bool [B, S].

    Nothing is sorted, and nothing that the model computed decides.
    """
    return torch.stack([row >= unit - count for row, unit, count in zip(places, units, counts, strict=True)])


def gumbel(uniform: Tensor) -> Tensor:
    """Numbers of the standard Gumbel distribution, from uniform ones in (0, 1)."""
    return -torch.log(-torch.log(uniform))


def order_noise(
    seeds: Sequence[int],
    *,
    codebook: int,
    step: int,
    frames: int,
    device: torch.device,
    first_frame: int = 0,
) -> Tensor:
    """Gumbel numbers for the frames of every item, float32 [B, T]; those of a unit are those of its first frame.

    They are drawn apart from the codes, so that the codes of a seed are drawn with the same numbers as without them.
    """
    uniform = uniforms(
        seeds,
        codebook=ORDER_STREAM + codebook,
        step=step,
        frames=frames,
        codes=1,
        device=device,
        first_frame=first_frame,
    )
    return gumbel(uniform[..., 0])


def noisy_scores(log_confidence: Tensor, noise: Tensor, amount: float) -> Tensor:
    """Scores of units, of which the highest stay hidden: -(log p + amount * g), [B, S].

    As in Chang et al., "MaskGIT: Masked Generative Image Transformer" (CVPR 2022), where the amount falls with the
    share of the steps that are left.
    """
    return -(log_confidence + amount * noise)


def explored(now: Sequence[int], next_step: Sequence[int]) -> list[int]:
    """How many of the units that a step decides are chosen by the fixed order: half of them, rounded up.

    now, next_step: hidden units of each item, at this step and at the next.
    """
    return [-(-(units - left) // 2) for units, left in zip(now, next_step, strict=True)]


def first_places(places: Tensor, masked: Tensor, counts: Sequence[int]) -> Tensor:
    """Mask of the `counts[b]` masked units of each item whose places come first. [B, S] -> bool [B, S].

    These explore, and what the confidence chooses among the rest exploits: the first of one order, then the first of
    the other, as Hayakawa et al., "Demystifying MaskGIT Sampler and Beyond" (arXiv 2510.04525), merge two orders.
    """
    beyond = places.shape[-1]
    return highest_units(-places.masked_fill(~masked, beyond), counts) & masked
