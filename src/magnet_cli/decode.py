"""Masked iterative decoding, readable: the definition that any faster version is tested against.

One codebook after the other. Each starts fully masked; every step predicts all masked codes at once, keeps the ones
the model is surest of and masks the rest again, until nothing is masked. audiocraft `models/lm_magnet.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from magnet_cli.config import SamplingConfig, check_steps
from magnet_cli.errors import NumericsError, UsageError
from magnet_cli.noise import uniforms
from magnet_cli.sampling import (
    DECIDED,
    combine,
    guidance_weight,
    guide,
    highest_units,
    mask_rates,
    masked_units,
    overlapping_units,
    propose,
    span_scores,
    step_temperature,
)
from magnet_cli.transformer import MaskedTransformer, TextMemory


@dataclass(frozen=True)
class Known:
    """Codes that are given. codes: int64 [B, K, T]; keep: bool [B, K, T], True where the code stays as it is."""

    codes: Tensor
    keep: Tensor

    @classmethod
    def prefix(cls, codes: Tensor, frames: int) -> Known:
        """Given codes [B, K, P] begin a clip of T `frames`; what follows them is to be decoded."""
        length = codes.shape[-1]
        if length >= frames:
            raise UsageError(
                f"{length} frames are given, but the clip has only {frames}", "Give less audio to continue from"
            )
        keep = torch.zeros(*codes.shape[:2], frames, dtype=torch.bool, device=codes.device)
        keep[..., :length] = True
        return cls(torch.nn.functional.pad(codes, (0, frames - length)), keep)

    def check(self, shape: tuple[int, int, int], codes: int) -> None:
        """Raise UsageError unless these codes can be part of a clip of this shape [B, K, T]."""
        if self.codes.shape != self.keep.shape or self.codes.dim() != 3:
            raise UsageError(
                f"known codes {list(self.codes.shape)} and keep {list(self.keep.shape)} differ in shape",
                "Give both as [B, K, T]",
            )
        batch, codebooks, frames = self.codes.shape
        if batch not in (1, shape[0]) or codebooks != shape[1] or frames < shape[2]:
            raise UsageError(
                f"known codes {list(self.codes.shape)} do not fit a clip of {list(shape)}", "Pad or cut them"
            )
        values = self.codes[self.keep]
        if values.numel() and (values.min() < 0 or values.max() >= codes):
            raise UsageError(f"known codes must be between 0 and {codes - 1}", "Encode them with the model's own codec")


@dataclass(frozen=True)
class Step:
    """One decoding step, reported when it is done. `codes` [B, K, T] holds the mask token where nothing is known."""

    codebook: int
    step: int
    steps: int
    codes: Tensor


class Rescorer(Protocol):
    """Another model's opinion of the codes that are proposed, which helps to rank them."""

    def __call__(self, codes: Tensor, proposed: Tensor, codebook: int) -> Tensor:
        """Probability of each code of a codebook, float32 [B, T].

        codes: int64 [B, K, T], what the proposing model saw: this codebook partly masked; those below it final; those
        above it masked but for codes that are given. Not to be changed. proposed: [B, T], this codebook with every
        masked code proposed. Where nothing was masked, the result does not matter.
        """


@torch.inference_mode()
def decode(
    model: MaskedTransformer,
    memory: TextMemory,
    seeds: Sequence[int],
    sampling: SamplingConfig,
    *,
    frames: int,
    known: Known | None = None,
    on_step: Callable[[Step], None] | None = None,
    rescorer: Rescorer | None = None,
) -> Tensor:
    """Decode a batch of clips: one for each prompt of the text memory, with its own seed.

    Returns int64 codes [B, K, T]. T is `frames`, cut to whole spans when spans do not overlap; codes that `known`
    keeps come back unchanged. The rescorer is asked at every step but a codebook's last, unless
    `sampling.rescore_weight` is 1. Raises NumericsError when a model computes a value that is not finite.
    """
    check_steps(sampling, codebooks=model.config.codebooks)
    if sampling.spans == "nonoverlap":
        frames -= frames % model.config.span_length
    shape = (memory.batch, model.config.codebooks, frames)
    codes = torch.full(shape, model.config.mask_code, device=model.device)
    keep = torch.zeros(shape, dtype=torch.bool, device=model.device)
    if known is not None:
        known.check(shape, model.config.codes)
        keep |= known.keep[..., :frames].to(model.device)
        # Kept codes are seen from the start, also those in codebooks above the one that is being decoded.
        codes = torch.where(keep, known.codes[..., :frames].to(model.device), codes)
    for codebook in range(model.config.codebooks):
        _decode_codebook(model, memory, seeds, sampling, codes, codebook, keep[:, codebook], on_step, rescorer)
    return codes


def _decode_codebook(
    model: MaskedTransformer,
    memory: TextMemory,
    seeds: Sequence[int],
    sampling: SamplingConfig,
    codes: Tensor,
    codebook: int,
    keep: Tensor,
    on_step: Callable[[Step], None] | None,
    rescorer: Rescorer | None,
) -> None:
    """Decode one codebook of `codes` [B, K, T] in place, where `keep` [B, T] is not set."""
    current = codes[:, codebook]  # a view: what is written to it is in `codes`
    span, mask_code = model.config.span_length, model.config.mask_code
    on_grid = sampling.spans == "nonoverlap" or span == 1
    unit = span if on_grid else 1

    decided = keep.unflatten(-1, (-1, unit)).all(dim=-1)
    scores = torch.zeros(decided.shape, device=codes.device).masked_fill(decided, DECIDED)  # [B, S]
    to_decode = (~decided).sum(dim=-1).tolist()
    steps = sampling.steps[codebook]
    for step, rate in enumerate(mask_rates(steps)):
        counts = [masked_units(rate, units) for units in to_decode]
        masked = highest_units(scores, counts) if on_grid else overlapping_units(scores, counts, span)
        # A span may be masked though some of its frames are kept.
        current.masked_fill_(masked.repeat_interleave(unit, dim=-1) & ~keep, mask_code)

        logits = guide(model(torch.cat([codes, codes]), codebook, memory), guidance_weight(float(rate), sampling))
        _check_finite(logits, codebook, step, model)
        random = None
        if not sampling.greedy:
            frames, vocabulary = logits.shape[1:]
            random = uniforms(seeds, codebook=codebook, step=step, frames=frames, codes=vocabulary, device=codes.device)
        proposed, probability = propose(logits, step_temperature(step, steps, sampling), sampling, random)

        predicted = current == mask_code
        proposed = torch.where(predicted, proposed, current)
        # What the last step decides is never ranked.
        if rescorer is not None and sampling.rescore_weight < 1 and step + 1 < steps:
            probability = combine(probability, rescorer(codes, proposed, codebook), sampling.rescore_weight)
        current.copy_(proposed)
        scores = span_scores(probability, unit, sampling.span_score if unit > 1 else "prod")
        scores.masked_fill_(~(masked if on_grid else predicted), DECIDED)
        if on_step is not None:
            on_step(Step(codebook, step, steps, codes))


def _check_finite(logits: Tensor, codebook: int, step: int, model: MaskedTransformer) -> None:
    if not torch.isfinite(logits).all():
        dtype = str(model.dtype).removeprefix("torch.")
        remedy = (
            "The weights are damaged; fetch them again" if dtype == "float32" else "Try --dtype float32 (or bfloat16)"
        )
        raise NumericsError(
            f"the model computed values that are not finite: codebook {codebook}, step {step}, {dtype}", remedy
        )
