"""How far a network's logits are from those of the plain decoder in float32, which measures the cost of low precision.

Both networks predict every other span of a clip, with the other spans known, as half-way through decoding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from magnet_cli.decoding.masked import Network
from magnet_cli.decoding.steps import guidance_weight
from magnet_cli.model.decoder import MaskedTransformer
from magnet_cli.model.text_encoder import TextStates
from magnet_cli.options.sampling import SamplingConfig

MOST_FRAMES = 100  # 2 s: enough for stable figures, and little work for a CPU
CODEBOOKS = 2  # attention in the first reaches the whole clip, in all above it a neighbourhood


@dataclass(frozen=True)
class Deviation:
    """How far guided logits are from float32, over the frames that are predicted.

    error       RMS of the difference over RMS of the float32 logits, both about their mean in each frame, which
                changes no probability
    agreement   share of the frames in which the same code is the most probable
    """

    error: float
    agreement: float

    @property
    def words(self) -> str:
        """For a table."""
        return f"{self.error:.2g} of their RMS from float32, the same code first in {self.agreement:.0%} of frames"


@torch.inference_mode()
def deviation(
    network: Network,
    model: MaskedTransformer,
    exact: MaskedTransformer,
    *,
    text: TextStates,
    codes: Tensor,
    sampling: SamplingConfig,
) -> Deviation:
    """Compare `network`, whose weights are those of `model`, with `exact`, the plain decoder in float32.

    text: of B clips; codes: theirs, int64 [B, K, T], of which at most MOST_FRAMES are used. Guidance is what `sampling`
    has with half of a codebook masked.
    """
    weight = guidance_weight(0.5, sampling, place=0.5)
    memories = [one.text_memory(text.states, text.lengths) for one in (model, exact)]
    codes = codes[..., :MOST_FRAMES]
    batch, codebooks, frames = codes.shape
    masked = torch.arange(frames, device=codes.device) // model.config.span_length % 2 == 0
    wanted = masked.expand(batch, frames)
    square, total, same = 0.0, 0.0, []
    for codebook in range(min(CODEBOOKS, codebooks)):
        given = codes.clone()
        given[:, codebook, masked] = model.config.mask_code
        given[:, codebook + 1 :] = model.config.mask_code
        found = network.guided(given.to(network.device), codebook, memories[0], weight, wanted.to(network.device))
        ideal = exact.guided(given.to(exact.device), codebook, memories[1], weight)[:, masked.to(exact.device)]
        found = found[:, masked.to(found.device)].to(exact.device)
        same.append(found.argmax(dim=-1) == ideal.argmax(dim=-1))
        ideal = ideal - ideal.mean(dim=-1, keepdim=True)
        square += float((found - found.mean(dim=-1, keepdim=True) - ideal).square().sum(dtype=torch.float64))
        total += float(ideal.square().sum(dtype=torch.float64))
    return Deviation((square / total) ** 0.5, float(torch.cat(same).double().mean()))
