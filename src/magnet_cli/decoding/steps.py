"""The pure functions of one decoding step: schedule, drawing codes, scoring and choosing spans.

No network in here. "Units" are what is scored and masked: spans on a fixed grid, or single frames.
Letters: B batch, T frames, S spans, V codes. Masks are True where a code is to be predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from magnet_cli.options.sampling import SamplingConfig, SpanScore

# Score of a unit that is already decided: below every real score, so it is never chosen for masking again.
DECIDED = -1e4
# Lowest temperature, as in the reference; annealing would otherwise end at 0.
COLDEST = 1e-2


def mask_rates(steps: int) -> Tensor:
    """Share of the units that are masked at each step: a quarter cosine from 1 to 0. Returns float32 [steps].

    Float32 on purpose: with 10 steps over 166 spans, float64 gives 83 spans at step 6 where the reference has 82.
    """
    return torch.cos(torch.linspace(0, 1, steps) * math.pi * 0.5)


def masked_units(rate: Tensor, units: int) -> int:
    """Units to mask at this rate (a float32 scalar), at least one."""
    return max(int(rate * units), 1)


def step_place(step: int, steps: int) -> float:
    """Place of a step among those of a codebook, from 0 for the first to 1 for the last."""
    return step / max(steps - 1, 1)


def guidance_weight(rate: float, sampling: SamplingConfig, *, place: float) -> float:
    """Weight of the text at a step that masks this share of the units; `place` as `step_place` gives it.

    Falling, it is strong while little is known. Outside of the interval of guided steps it is 1, which is no guidance.
    """
    if not sampling.guidance_start <= place <= sampling.guidance_end:
        return 1.0
    if sampling.guidance_schedule == "constant":
        return sampling.guidance
    if sampling.guidance_schedule == "rising":
        return rate * sampling.min_guidance + (1 - rate) * sampling.guidance
    return rate * sampling.guidance + (1 - rate) * sampling.min_guidance


def steps_left(step: int, steps: int) -> float:
    """Share of a codebook's steps that follow this one."""
    return (steps - 1 - step) / steps


def step_temperature(step: int, steps: int, sampling: SamplingConfig) -> float:
    """Temperature of a step: annealed linearly towards 0, but never below COLDEST."""
    left = steps_left(step, steps)
    return max(sampling.temperature * left if sampling.anneal else sampling.temperature, COLDEST)


def keep_top_p(probs: Tensor, p: float) -> Tensor:
    """Zero all but the most probable codes that together hold p: those with at most p before them. [..., V]."""
    ordered, order = probs.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered
    return torch.zeros_like(probs).scatter_(-1, order, ordered.masked_fill(before > p, 0.0))


def keep_top_k(probs: Tensor, k: int) -> Tensor:
    """Zero all but the k most probable codes, ties included, and renormalize. [..., V]."""
    smallest = probs.topk(min(k, probs.shape[-1]), dim=-1).values[..., -1:]
    kept = probs.masked_fill(probs < smallest, 0.0)
    return kept / kept.sum(dim=-1, keepdim=True)


def draw(probs: Tensor, uniform: Tensor) -> Tensor:
    """Draw a code from probabilities that need not sum to 1.

    The code whose exponential waiting time, at a rate of its probability, is the shortest. probs, uniform: [..., V].
    A small change in the probabilities rarely changes the draw, unlike with one number on the cumulative scale.
    """
    waiting = -torch.log1p(-uniform)
    return (probs / waiting).argmax(dim=-1)


def propose(
    logits: Tensor, temperature: float, sampling: SamplingConfig, uniform: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Propose a code for every frame.

    logits: guided, float32 [B, T, V]; uniform: [B, T, V], None in greedy mode.
    Returns codes [B, T] and their probabilities [B, T]: at this temperature and, as in the reference, before top-p
    but after top-k.
    """
    probs = torch.softmax(logits / temperature, dim=-1)
    if uniform is None:
        proposed = logits.argmax(dim=-1)
    elif sampling.top_k is not None:
        probs = keep_top_k(probs, sampling.top_k)
        proposed = draw(probs, uniform)
    elif sampling.top_p is not None:
        proposed = draw(keep_top_p(probs, sampling.top_p), uniform)
    else:
        proposed = draw(probs, uniform)
    return proposed, probs.gather(-1, proposed.unsqueeze(-1)).squeeze(-1)


def combine(own: Tensor, other: Tensor, weight: float) -> Tensor:
    """Convex combination of two models' probabilities for the same codes; weight: share of the first. [B, T]."""
    return weight * own + (1 - weight) * other


def span_scores(probability: Tensor, span: int, score: SpanScore) -> Tensor:
    """Score the spans of a fixed grid; the highest scores are masked again. [B, T] -> [B, S].

    "max": the improbability of the span's most probable code; "prod": of all its codes together, -log.
    """
    return group_scores(probability.unflatten(-1, (-1, span)), score)


def group_scores(grouped: Tensor, score: SpanScore) -> Tensor:
    """`span_scores` of probabilities that are grouped already. [B, S, span] -> [B, S]."""
    if score == "max":
        return 1 - grouped.amax(dim=-1)
    return -log_confidence(grouped, score)


def log_confidence(grouped: Tensor, score: SpanScore) -> Tensor:
    """Logarithm of the probability that a unit is ranked by. [B, S, span] -> [B, S]."""
    return grouped.amax(dim=-1).log() if score == "max" else grouped.log().sum(dim=-1)


@dataclass(frozen=True)
class Grid:
    """Which frames form a unit. members: int64 [S, W], frames of each unit; T, which is none, where it has fewer."""

    members: Tensor
    frames: int

    @classmethod
    def build(cls, frames: int, unit: int, *, circular: bool, device: torch.device) -> Grid:
        """Units of `unit` frames that cover all T `frames`.

        What remains at the end is a shorter unit. A circle has no end: there, units are spread evenly, and where
        frames remain some units are a frame longer.
        """
        if circular:
            units = max(frames // unit, 1)
            bounds = torch.tensor([-(-i * frames // units) for i in range(units + 1)])
        else:
            bounds = torch.tensor([*range(0, frames, unit), frames])
        members = bounds[:-1, None] + torch.arange(int(bounds.diff().max()))
        members[members >= bounds[1:, None]] = frames
        return cls(members.to(device), frames)

    def to(self, device: torch.device) -> Grid:
        """The same on another device."""
        return Grid(self.members.to(device), self.frames)

    def group(self, x: Tensor, absent: float) -> Tensor:
        """Values of frames, by unit: [B, T] -> [B, S, W], with `absent` where a unit has fewer frames."""
        return F.pad(x, (0, 1), value=absent)[:, self.members]

    def kept_units(self, keep: Tensor) -> Tensor:
        """Units of which every frame is kept. bool [B, T] -> [B, S]."""
        return self.group(keep, absent=True).all(dim=-1)

    def spread(self, mask: Tensor) -> Tensor:
        """Mask of units -> mask of their frames. bool [B, S] -> [B, T]."""
        frames = torch.zeros(mask.shape[0], self.frames + 1, dtype=torch.bool, device=mask.device)
        frames[:, self.members] = mask.unsqueeze(-1)
        return frames[:, :-1]

    def scores(self, probability: Tensor, score: SpanScore) -> Tensor:
        """`span_scores` on this grid. [B, T] -> [B, S]."""
        return group_scores(self._ranked(probability, score), score)

    def log_confidence(self, probability: Tensor, score: SpanScore) -> Tensor:
        """`log_confidence` on this grid. [B, T] -> [B, S]."""
        return log_confidence(self._ranked(probability, score), score)

    def first(self, x: Tensor) -> Tensor:
        """The value of each unit's first frame. [B, T] -> [B, S]."""
        return x[:, self.members[:, 0]]

    def _ranked(self, probability: Tensor, score: SpanScore) -> Tensor:
        return self.group(probability, 0.0 if score == "max" else 1.0)


def highest_units(scores: Tensor, counts: Sequence[int]) -> Tensor:
    """Mask of the `counts[b]` highest scores of each item. [B, S] -> bool [B, S]."""
    mask = torch.zeros_like(scores, dtype=torch.bool)
    if len(set(counts)) == 1:  # one call for all: `scatter_`, unlike an assignment, waits for no GPU
        return mask.scatter_(-1, scores.topk(counts[0]).indices, True)
    for row, score, count in zip(mask, scores, counts, strict=True):
        row.scatter_(0, score.topk(count).indices, True)
    return mask


def first_cover(order: Tensor, span: int, *, circular: bool = False) -> Tensor:
    """For every frame the first span that covers it, of spans that begin in this order. int64 [starts] -> [T].

    The first n spans cover the frames where this is less than n. `circular`: the end continues at the beginning.
    """
    starts = order.shape[0]
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(starts, device=order.device))
    if circular:
        padded = torch.cat([rank[starts - (span - 1) :], rank])
    else:
        padded = torch.nn.functional.pad(rank, (span - 1, span - 1), value=starts)
    return padded.unfold(0, span, 1).amin(dim=-1)


def overlapping_spans(scores: Tensor, target: int, span: int, *, circular: bool = False) -> Tensor:
    """Mask of the highest-scoring spans that may start at any frame and overlap. [T] -> bool [T].

    A span scores the sum over its frames. How many spans to take, so that about `target` frames are covered, is found
    by the reference's own binary search: it ends on the last number tried, not on the nearest. It runs where the scores
    are, for as many rounds as it can take, so that the host waits for nothing. `circular`: a span may begin at the end
    and end at the beginning.
    """
    line = torch.cat([scores, scores[: span - 1]]) if circular else scores
    # Not a stable sort: where a saturated softmax makes scores equal, only the reference's own call orders them alike.
    order = line.unfold(-1, span, 1).sum(dim=-1).argsort(descending=True)
    first = first_cover(order, span, circular=circular)
    target = max(target, span)
    low = torch.full((), target // span, device=scores.device)
    high = torch.full((), target - span + 1, device=scores.device)
    middle = taken = _halfway(low, high)
    for _ in range((target - span + 1).bit_length() + 1):
        going = (low < middle) & (middle < high)
        taken = torch.where(going, middle, taken)
        above = (first < middle).sum() > target
        high = torch.where(going & above, middle, high)
        low = torch.where(going & ~above, middle, low)
        middle = _halfway(low, high)
    return first < taken


def _halfway(low: Tensor, high: Tensor) -> Tensor:
    """round(0.5 * (low + high)) as Python rounds: a half to the even number."""
    return (0.5 * (low + high)).round().long()


def overlapping_units(scores: Tensor, counts: Sequence[int], span: int, *, circular: bool = False) -> Tensor:
    """`overlapping_spans` for every item. [B, T] -> bool [B, T]."""
    masks = [
        overlapping_spans(score, count, span, circular=circular) for score, count in zip(scores, counts, strict=True)
    ]
    return torch.stack(masks)
