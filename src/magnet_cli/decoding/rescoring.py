"""Rescoring: another model's probability for the codes that MAGNeT proposes.

Ziv et al., "Masked Audio Generation using a Single Non-Autoregressive Transformer" (ICLR 2024), section on rescoring:
which of the proposed codes are kept is decided by a convex combination of both models' probabilities. The other model
looks at each step's proposals in one pass; it generates nothing. `masked.decode` calls a `Rescorer`, defined there.

Its probability is the plain one, conditional on the text: neither guided nor at MAGNeT's temperature. Guidance and
annealing steer what is drawn; a rescorer draws nothing, it judges, and only its plain probability is calibrated. It
also costs half of a guided one.

Letters: B batch, K codebooks, T frames, V codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from magnet_cli.decoding.masked import Network
from magnet_cli.decoding.musicgen import MusicGen, TextCondition, delay, not_finite
from magnet_cli.model.decoder import TextMemory


class MusicGenRescorer:
    """MusicGen's probability for the codes of one codebook, given the text and what it would have generated before.

    In its delay pattern, frame t of codebook k follows the frames up to t-1 of codebook k, a few more of the codebooks
    below, and a few less of those above. MAGNeT has not decoded the codebooks above yet. They hold its mask token, V,
    which is MusicGen's padding token: MusicGen learned to see it where a codebook has no code yet. It has seen that
    only at the start of clips, but any code in its place would be invented.
    """

    def __init__(self, model: MusicGen, text: TextCondition) -> None:
        self.model = model
        self.text = text

    @torch.inference_mode()
    def __call__(self, codes: Tensor, proposed: Tensor, codebook: int) -> Tensor:
        """Probabilities, float32 [B, T]; see `masked.Rescorer`."""
        frames = codes.shape[-1]
        self.model.check_frames(frames)
        seen = codes.clone()
        seen[:, codebook] = proposed
        # The output at a column predicts the next one, where frame 0 of this codebook stands in column 1 + codebook.
        grid = delay(seen.to(self.model.device), self.model.codes)[..., : codebook + frames]
        states = self.model.states(grid, self.text)
        return probability(self.model.decoder.lm_heads[codebook](states[:, codebook:]), proposed)


class MagnetRescorer:
    """Another MAGNeT's probability for the codes of one codebook.

    It sees what the proposing model saw, the masks and not the proposals: a masked model learned to predict hidden
    codes, and its output at a visible code is meaningless. (So are these probabilities where nothing was masked, and
    nothing reads them.)
    """

    def __init__(self, model: Network, memory: TextMemory | None) -> None:
        self.model = model
        self.memory = memory

    @torch.inference_mode()
    def __call__(self, codes: Tensor, proposed: Tensor, codebook: int) -> Tensor:
        """Probabilities, float32 [B, T]; see `masked.Rescorer`."""
        codes = codes.to(self.model.device)
        return probability(self.model.guided(codes, codebook, self.memory, 1.0), proposed)


def probability(logits: Tensor, codes: Tensor) -> Tensor:
    """Probability of these codes [B, T] under logits [B, T, V]: float32 [B, T], on the device of the codes."""
    if not torch.isfinite(logits).all():
        raise not_finite(logits.dtype)
    probs = logits.float().softmax(dim=-1)
    return probs.gather(-1, codes.to(probs.device).unsqueeze(-1)).squeeze(-1).to(codes.device)
