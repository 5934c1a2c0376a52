"""The functions of one decoding step, against the obvious formula and against exact probabilities."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy.stats import chi2

from magnet_cli.decoding.philox import uniforms
from magnet_cli.decoding.steps import (
    COLDEST,
    guidance_weight,
    highest_units,
    keep_top_k,
    keep_top_p,
    mask_rates,
    masked_units,
    overlapping_spans,
    propose,
    span_scores,
    step_place,
    step_temperature,
)
from magnet_cli.model.decoder import guide
from magnet_cli.options.sampling import SamplingConfig
from support.kernels import Kernels

# -- schedule ---------------------------------------------------------------------------------------------------------


def test_mask_rates_follow_the_cosine() -> None:
    rates = mask_rates(20)
    for step, rate in enumerate(rates):
        assert float(rate) == pytest.approx(math.cos(step / 19 * math.pi / 2), abs=1e-6)  # float32


def test_the_schedule_is_computed_in_float32() -> None:
    # The example of the reference: float64 would give 83 here.
    assert masked_units(mask_rates(10)[6], 166) == 82
    assert int(math.cos(6 / 9 * math.pi / 2) * 166) == 83


@pytest.mark.parametrize("steps", [1, 2, 7, 20, 60])
@pytest.mark.parametrize("units", [1, 2, 33, 166, 500])
def test_ever_fewer_units_are_masked_but_always_one(steps: int, units: int) -> None:
    counts = [masked_units(rate, units) for rate in mask_rates(steps)]
    assert counts[0] == units
    assert all(first >= second >= 1 for first, second in pairwise(counts))
    assert counts[-1] == (1 if steps > 1 else units)


def test_guidance_and_temperature_fall() -> None:
    sampling = SamplingConfig(guidance=10, min_guidance=1, temperature=3)
    assert guidance_weight(1.0, sampling, place=0) == 10
    assert guidance_weight(0.5, sampling, place=0.5) == 5.5
    assert guidance_weight(0.0, sampling, place=1) == 1
    assert step_temperature(0, 20, sampling) == pytest.approx(3 * 19 / 20)
    assert step_temperature(19, 20, sampling) == COLDEST
    assert step_temperature(19, 20, SamplingConfig(anneal=False, temperature=3)) == 3


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_guidance_over_the_steps_follows_its_formula(steps: int) -> None:
    for step in range(steps):
        place = step / (steps - 1) if steps > 1 else 0
        rate = math.cos(place * math.pi / 2)
        for schedule, wanted in (
            ("falling", 1 + 9 * rate),
            ("constant", 10),
            ("rising", 10 - 9 * rate),
        ):
            for start, end in ((0.0, 1.0), (0.25, 0.6), (0.0, 0.0)):
                sampling = SamplingConfig(
                    guidance_schedule=schedule,  # type: ignore[arg-type]
                    guidance_start=start,
                    guidance_end=end,
                )
                found = guidance_weight(float(mask_rates(steps)[step]), sampling, place=step_place(step, steps))
                inside = start <= place <= end
                assert found == (pytest.approx(wanted, abs=1e-5) if inside else 1)


def test_guidance_pushes_away_from_the_unconditional_rows() -> None:
    logits = torch.tensor([[[1.0, 2.0]], [[0.0, 4.0]]])
    assert guide(logits, 1).tolist() == [[[1.0, 2.0]]]
    assert guide(logits, 3).tolist() == [[[3.0, -2.0]]]
    assert guide(logits.half(), 3).dtype == torch.float32


# -- drawing ----------------------------------------------------------------------------------------------------------

DRAWS = 200_000


def test_top_p_keeps_codes_with_at_most_p_before_them() -> None:
    probs = torch.tensor([0.1, 0.5, 0.15, 0.25])
    # Powers of two would be exact; with these, stay clear of the boundaries by more than float32 rounding.
    assert keep_top_p(probs, 0.49).tolist() == pytest.approx([0, 0.5, 0, 0])
    assert keep_top_p(probs, 0.51).tolist() == pytest.approx([0, 0.5, 0, 0.25])
    assert keep_top_p(probs, 0.76).tolist() == pytest.approx([0, 0.5, 0.15, 0.25])
    assert keep_top_p(probs, 1.0).tolist() == pytest.approx(probs.tolist())
    exact = torch.tensor([0.5, 0.25, 0.25])
    assert keep_top_p(exact, 0.5).tolist() == [0.5, 0.25, 0]  # exactly p before it: still kept


def test_top_k_keeps_ties_and_renormalizes() -> None:
    probs = torch.tensor([0.4, 0.2, 0.2, 0.2])
    assert keep_top_k(probs, 1).tolist() == pytest.approx([1, 0, 0, 0])
    assert keep_top_k(probs, 2).tolist() == pytest.approx(probs.tolist())
    assert keep_top_k(probs, 99).tolist() == pytest.approx(probs.tolist())


def frequencies(sampling: SamplingConfig, logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """How often each code is drawn, as counts [V]."""
    vocabulary = len(logits)
    random = uniforms([11], codebook=1, step=2, frames=DRAWS, codes=vocabulary, device="cpu")
    proposed, _ = propose(logits.expand(1, DRAWS, vocabulary), temperature, sampling, random)
    return torch.bincount(proposed.flatten(), minlength=vocabulary).double()


def exact_probabilities(logits: torch.Tensor, temperature: float, sampling: SamplingConfig) -> torch.Tensor:
    """By sorting and adding up in float64."""
    probs = torch.softmax(logits.double() / temperature, dim=-1)
    order = sorted(range(len(probs)), key=lambda code: -float(probs[code]))
    kept, before = [], 0.0
    for rank, code in enumerate(order):
        if (sampling.top_p is not None and before > sampling.top_p) or (
            sampling.top_k is not None and rank >= sampling.top_k
        ):
            break
        kept.append(code)
        before += float(probs[code])
    exact = torch.zeros_like(probs)
    exact[kept] = probs[kept]
    return exact / exact.sum()


@pytest.mark.parametrize("temperature", [3.0, 0.7])
@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(top_p=0.9),
        SamplingConfig(top_p=0.35),
        SamplingConfig(top_p=None, top_k=7),
        SamplingConfig(top_p=None),
    ],
    ids=["top-p 0.9", "top-p 0.35", "top-k 7", "plain"],
)
def test_codes_are_drawn_with_their_probabilities(sampling: SamplingConfig, temperature: float) -> None:
    logits = torch.randn(64, generator=torch.Generator().manual_seed(5))
    exact = exact_probabilities(logits, temperature, sampling)
    counts = frequencies(sampling, logits, temperature)
    assert counts[exact == 0].sum() == 0
    expected = exact * DRAWS
    large = expected >= 10  # where the chi-square distribution holds; the rest is one class
    observed_classes = torch.cat([counts[large], counts[~large].sum().view(1)])
    expected_classes = torch.cat([expected[large], expected[~large].sum().view(1)])
    used = expected_classes > 0
    statistic = float((((observed_classes - expected_classes) ** 2)[used] / expected_classes[used]).sum())
    assert chi2.sf(statistic, int(used.sum()) - 1) > 1e-4  # one false alarm in ten thousand, and the seed is fixed


def test_greedy_takes_the_most_probable_code_and_reports_its_probability() -> None:
    logits = torch.tensor([[[0.0, 2.0, 1.0]]])
    proposed, probability = propose(logits, 0.5, SamplingConfig(greedy=True), None)
    assert proposed.item() == 1
    assert probability.item() == pytest.approx(torch.softmax(logits[0, 0] / 0.5, -1)[1].item())


def test_probabilities_are_reported_before_top_p_but_after_top_k() -> None:
    logits = torch.tensor([[[3.0, 1.0, 0.0, 0.0]]])
    random = torch.full((1, 1, 4), 0.5)
    probs = torch.softmax(logits, -1)[0, 0]
    _, with_top_p = propose(logits, 1.0, SamplingConfig(top_p=0.1), random)
    _, with_top_k = propose(logits, 1.0, SamplingConfig(top_p=None, top_k=1), random)
    assert with_top_p.item() == pytest.approx(probs[0].item())
    assert with_top_k.item() == pytest.approx(1.0)


# -- spans ------------------------------------------------------------------------------------------------------------


def test_span_scores_against_the_formula() -> None:
    probability = torch.rand(2, 12, generator=torch.Generator().manual_seed(1))
    for score in ("max", "prod"):
        found = span_scores(probability, 3, score)  # type: ignore[arg-type]
        for row in range(2):
            for span in range(4):
                of_span = [float(p) for p in probability[row, 3 * span : 3 * span + 3]]
                wanted = 1 - max(of_span) if score == "max" else -math.log(math.prod(of_span))
                assert float(found[row, span]) == pytest.approx(wanted, rel=1e-5)  # float32 logarithms


def test_highest_units_are_masked_per_item() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5], [3.0, 1.0, 2.0]])
    assert highest_units(scores, [1, 2]).tolist() == [[False, True, False], [True, False, True]]


def test_equal_numbers_of_units_are_chosen_for_all_items_in_one_call() -> None:
    scores = torch.rand(5, 40, generator=torch.Generator().manual_seed(1)).round(decimals=1)  # with many ties
    scores[2] = 0.0
    for count in (1, 7, 40):
        alone = torch.cat([highest_units(one[None], [count]) for one in scores])
        with Kernels() as kernels:
            together = highest_units(scores, [count] * 5)
        assert torch.equal(together, alone)
        assert kernels.names["topk"] == 1


def frames_of(starts: list[int], span: int) -> set[int]:
    return {start + offset for start in starts for offset in range(span)}


@pytest.mark.parametrize("frames", [3, 4, 7, 30])
@pytest.mark.parametrize("span", [2, 3])
def test_the_search_for_overlapping_spans_takes_the_turns_of_the_reference(frames: int, span: int) -> None:
    scores = torch.rand(frames, generator=torch.Generator().manual_seed(frames))
    ranked = scores.unfold(-1, span, 1).sum(dim=-1).argsort(descending=True).tolist()
    for target in range(1, frames + 1):
        low, high = max(target, span) // span, max(target, span) - span + 1
        middle = taken = round(0.5 * (low + high))
        while low < middle < high:
            taken = middle
            if len(frames_of(ranked[:middle], span)) > max(target, span):
                high = middle
            else:
                low = middle
            middle = round(0.5 * (low + high))
        found = overlapping_spans(scores, target, span).nonzero().flatten().tolist()
        assert set(found) == frames_of(ranked[:taken], span)


def test_overlapping_spans_on_a_circle() -> None:
    scores = torch.tensor([5.0, 0, 0, 0, 0, 0, 1, 5])
    assert overlapping_spans(scores, 3, 3, circular=True).nonzero().flatten().tolist() == [0, 6, 7]


@pytest.mark.parametrize("seed", range(20))
def test_overlapping_spans_are_the_highest_and_cover_about_the_target(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames, span = 200, 3
    scores = torch.rand(frames, generator=generator)
    for target in (3, 10, 57, 150, 200):
        mask = overlapping_spans(scores, target, span)
        ranked = sorted(range(frames - span + 1), key=lambda s: -float(scores[s : s + span].sum()))
        sizes = [len(frames_of(ranked[:count], span)) for count in range(1, len(ranked) + 1)]
        covered = int(mask.sum())
        assert covered in sizes  # some number of the highest-scoring spans
        # A span adds at most 3 frames, and the search ends next to the target on one side or the other.
        assert abs(covered - target) <= span
