"""The likelihood of the text: how much more probable a text makes the codes of a clip than no text does.

Some spans of a codebook are hidden, as in training: the codebooks below are visible, those above are hidden. The
network predicts the hidden codes with the text and without it. The mean of log p(code | text) - log p(code) over the
hidden codes, in nats, is above 0 where the text explains what is heard. The choice of spans depends on the seed and on
the number of frames alone, so that clips of one length are compared at the same places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from magnet_cli.decoding.masked import Network
from magnet_cli.decoding.philox import uniforms
from magnet_cli.decoding.steps import Grid, highest_units, masked_units
from magnet_cli.errors import NumericsError, UsageError, not_finite_remedy
from magnet_cli.model.decoder import TextMemory

# Step of the random numbers that choose what is hidden: beyond those of any decoding step (`sampling.MOST_STEPS`), so
# that the choice is independent of the codes that the same seed draws.
HIDE_STREAM = 0xFFFE


@dataclass(frozen=True)
class Hiding:
    """What is hidden of a clip, one pass after the other.

    rates: shares of the spans, above 0 and at most 1. seeds: each hides other spans. codebooks: how many of them are
    scored, from the first on; None: all.
    """

    rates: tuple[float, ...] = (0.5, 0.75, 1.0)
    seeds: tuple[int, ...] = (0, 1)
    codebooks: int | None = 1

    def __post_init__(self) -> None:
        if not self.rates or not self.seeds or not all(0 < rate <= 1 for rate in self.rates):
            raise UsageError(
                f"the likelihood needs seeds, and rates above 0 and at most 1, not {self.rates}", "Give e.g. (0.5, 1)"
            )

    def masks(self, codebooks: int, frames: int, span: int) -> Iterator[tuple[int, Tensor]]:
        """A codebook, and what is hidden of it, bool [T]: every pass, without those that would repeat one."""
        grid = Grid.build(frames, span, circular=False, device=torch.device("cpu"))
        spans = grid.members.shape[0]
        for codebook in range(min(self.codebooks or codebooks, codebooks)):
            for rate in self.rates:
                count = masked_units(torch.tensor(rate), spans)
                for seed in self.seeds if count < spans else self.seeds[:1]:
                    random = uniforms([seed], codebook=codebook, step=HIDE_STREAM, frames=spans, codes=1, device="cpu")
                    yield codebook, grid.spread(highest_units(random[..., 0], [count]))[0]


@torch.inference_mode()
def text_likelihood(network: Network, memory: TextMemory, codes: Tensor, hiding: Hiding | None = None) -> float:
    """The mean of log p(code | text) - log p(code) over the hidden codes, in nats for each code.

    memory: of one text. codes: int64 [1, K, T], all of them known, at least one span long.
    Raises: UsageError for a clip of less than a span, NumericsError when the network computes a value that is not
        finite.
    """
    hiding, config = hiding or Hiding(), network.config
    codes = codes.to(network.device)
    frames = codes.shape[-1]
    if frames < config.span_length:
        raise UsageError(
            f"{frames} frames are less than one span of {config.span_length}", "Give a longer clip for the likelihood"
        )
    found = []
    try:
        for codebook, hidden in hiding.masks(config.codebooks, frames, config.span_length):
            wanted = hidden.to(network.device)[None]
            seen = codes.clone()
            seen[:, codebook].masked_fill_(wanted, config.mask_code)
            seen[:, codebook + 1 :] = config.mask_code
            with_text, without = (
                _log_probability(network.guided(seen, codebook, text, 1.0, wanted), codes[:, codebook])
                for text in (memory, None)
            )
            found.append((with_text - without)[wanted].mean())
    finally:
        network.forget()
    value = float(torch.stack(found).mean())
    if not torch.tensor(value).isfinite():
        dtype = str(network.dtype).removeprefix("torch.")
        raise NumericsError(f"the likelihood of the text is not finite in {dtype}", not_finite_remedy(dtype))
    return value


def _log_probability(logits: Tensor, codes: Tensor) -> Tensor:
    """log p of these codes [B, T] under logits [B, T, V]: float32 [B, T]."""
    return logits.float().log_softmax(dim=-1).gather(-1, codes.unsqueeze(-1)).squeeze(-1)
