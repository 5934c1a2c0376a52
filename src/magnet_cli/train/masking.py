"""Which codes a training step hides: one codebook, spans of it at a random rate, and all codebooks above.

Ziv et al., "Masked Audio Generation using a Single Non-Autoregressive Transformer" (ICLR 2024), section 3 and
appendix C; audiocraft's `solvers/magnet.py`. Everything drawn follows from the seed and the step alone, for the whole
batch: processes that share a batch draw it alike and take their part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Plan:
    """What one step hides. codebook: the one that is trained; mask: bool [B, T], True where a code of it is to be
    predicted; dropped: bool [B], True for items trained without their text; choices: uniform [B], to draw a text."""

    codebook: int
    mask: Bools
    dropped: Bools
    choices: NDArray[np.float64]


def expected_rate(starts: int, frames: int, span: int) -> float:
    """Share of the frames that spans beginning at `starts` different random frames cover, on average.

    1 - C(T-L, u) / C(T, u): a frame stays free when none of the L frames up to it is a start. (As in the paper, this
    takes the clip for a ring: the first L-1 frames, which fewer spans can reach, are covered a little less.)
    """
    free = 1.0
    for number in range(starts):
        free *= max(0, frames - span - number) / (frames - number)
    return 1 - free


@lru_cache(maxsize=8)
def _starts_by_percent(frames: int, span: int) -> tuple[int, ...]:
    rates = [expected_rate(starts, frames, span) for starts in range(frames)]
    return tuple(int(np.searchsorted(rates, percent / 100)) for percent in range(101))


def span_starts(rate: float, frames: int, span: int) -> int:
    """How many spans to place for a masking rate: the fewest that reach it, rounded to whole percents as in the
    reference, and at least one."""
    percent = int(np.round(100 * np.float32(rate)))
    return max(1, _starts_by_percent(frames, span)[percent])


def span_mask(rate: float, frames: int, span: int, random: np.random.Generator) -> Bools:
    """Mask [T] of spans that begin at random frames and may overlap; single frames when `span` is 1."""
    if span <= 1:
        count = max(1, round(frames * rate))
        return random.permutation(frames) < count
    starts = random.permutation(frames) < span_starts(rate, frames, span)
    mask = starts.copy()
    for offset in range(1, span):
        mask[offset:] |= starts[:-offset]
    return mask


def draw_plan(
    seed: int,
    step: int,
    shape: tuple[int, int, int],
    *,
    span: int,
    text_dropout: float,
    codebook_shares: Sequence[float] | None = None,
    all_hidden: float = 0.0,
) -> Plan:
    """What step `step` hides of a batch of this shape [B, K, T]. all_hidden: share of the items with no code given."""
    batch, codebooks, frames = shape
    random = np.random.default_rng((seed, step))
    shares = None if codebook_shares is None else np.asarray(codebook_shares) / sum(codebook_shares)
    codebook = int(random.choice(codebooks, p=shares))
    rates = np.cos(random.random(batch) * math.pi / 2)
    mask = np.stack([span_mask(float(rate), frames, span, random) for rate in rates])
    dropped, choices = random.random(batch) < text_dropout, random.random(batch)
    mask[random.random(batch) < all_hidden] = True
    return Plan(codebook, mask, dropped, choices)


def hide(codes: NDArray[np.integer], plan: Plan, mask_code: int) -> NDArray[np.int64]:
    """Codes [B, K, T] as the network sees them: those below the codebook are given, those above hidden."""
    seen = codes.astype(np.int64)
    seen[:, plan.codebook][plan.mask] = mask_code
    seen[:, plan.codebook + 1 :] = mask_code
    return seen
