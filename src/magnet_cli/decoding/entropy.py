"""How many units a step decides, chosen by the entropy of what the model predicts.

Units that are decided at once are drawn independently of each other. What that can lose is bounded by the sum of their
entropies less the largest of them. So a step decides the largest set of units, in the order of rising entropy, that
keeps below a bound: many where the model is sure, few where it is not. A codebook then ends as soon as nothing is
hidden. Ben-Hamu et al., "Accelerated Sampling from Masked Diffusion Models via Entropy Bounded Unmasking"
(arXiv 2505.24857), with spans in place of tokens.

Letters: B batch, T frames, S units, V codes. Entropies are in nats.
"""

from __future__ import annotations

import torch
from torch import Tensor

from magnet_cli.decoding.steps import Grid


def frame_entropies(logits: Tensor, temperature: float) -> Tensor:
    """Entropy of the codes of each frame at this temperature. [B, T, V] -> [B, T]."""
    log_probs = torch.log_softmax(logits / temperature, dim=-1)
    return -(log_probs.exp() * log_probs).sum(dim=-1)


def unit_entropies(entropies: Tensor, predicted: Tensor, grid: Grid) -> Tensor:
    """Sum over the predicted frames of each unit, which are drawn independently. [B, T] -> [B, S]."""
    return grid.group(entropies.masked_fill(~predicted, 0.0), 0.0).sum(dim=-1)


def within_bound(entropies: Tensor, masked: Tensor, bound: float) -> Tensor:
    """Mask of the masked units that a step decides: the most, by rising entropy, with sum H - max H <= bound.

    entropies: float32 [B, S]. Returns bool [B, S]: at least one unit of each item that has any.
    """
    ordered, order = entropies.masked_fill(~masked, torch.inf).sort(dim=-1, stable=True)
    before = ordered.cumsum(dim=-1) - ordered  # the last of a rising order is its largest; inf - inf is no number
    return torch.zeros_like(masked).scatter_(-1, order, before <= bound) & masked
