"""Units that are decided and hidden again, so that later steps can correct them.

Each decided unit has a chance at each step, which is the larger the less sure the model was when it decided the unit.
As many more units are decided as are hidden again, so the number of hidden units follows the same schedule as without.
Wang et al., "Remasking Discrete Diffusion Models with Inference-Time Scaling" (arXiv 2503.00307), ReMDM-conf.

Letters: B batch, S units.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from magnet_cli.decoding.philox import uniforms

# Added to the number of a codebook for the random numbers of remasking, which neither codes nor the order have.
REMASK_STREAM = 0x20000
# Score of a unit that is hidden again: above every real score, so it is chosen for masking first.
AGAIN = 1e4


def most_chance(rate: float, next_rate: float) -> float:
    """The largest chance with which decided units may be hidden again, between two steps that hide these shares of all.

    With a larger one, more units would be hidden again than the next step hides: min(1, (1 - alpha_s) / alpha_t).
    """
    decided, hidden = 1 - rate, max(next_rate, 0.0)
    return min(1.0, hidden / decided) if decided > 0 else 1.0


def remask_chances(confidence: Tensor, decided: Tensor, most: float, share: float) -> Tensor:
    """Chance of each decided unit to be hidden again, float32 [B, S].

    confidence: probability with which each was decided; decided: bool, those that may be hidden again. The chances of D
    decided units are `share * most * D * softmax(-confidence)`, at most `most`: `share * most` on average. ReMDM-conf
    itself is a share of 1/D, which hides less than one unit a step again; its steps are as many as its tokens.
    """
    weights = torch.softmax((-confidence).masked_fill(~decided, -torch.inf), dim=-1).nan_to_num(0.0)  # none: no number
    count = decided.sum(dim=-1, keepdim=True)
    return (share * most * count * weights).clamp(max=most)


def remask_numbers(
    seeds: Sequence[int],
    *,
    codebook: int,
    step: int,
    frames: int,
    device: torch.device,
    first_frame: int = 0,
) -> Tensor:
    """Uniform numbers for the frames of every item, float32 [B, T]; those of a unit are those of its first frame."""
    uniform = uniforms(
        seeds,
        codebook=REMASK_STREAM + codebook,
        step=step,
        frames=frames,
        codes=1,
        device=device,
        first_frame=first_frame,
    )
    return uniform[..., 0]


def hide_again(scores: Tensor, chances: Tensor, uniform: Tensor) -> Tensor:
    """Scores in which the units that are drawn to be hidden again are the highest, in a random order. [B, S]."""
    return torch.where(uniform < chances, AGAIN * (2 - uniform), scores)
