"""What a training step hides, against the formula and the reference's own procedure."""

from __future__ import annotations

import math

import numpy as np
import pytest

from magnet_cli.train.masking import draw_plan, expected_rate, hide, span_mask, span_starts


@pytest.mark.parametrize(("frames", "span"), [(500, 3), (250, 3), (40, 5)])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_the_expected_rate_is_that_of_the_paper(frames: int, span: int, share: float) -> None:
    starts = int(share * frames / span)
    wanted = 1 - math.comb(frames - span, starts) / math.comb(frames, starts)
    assert expected_rate(starts, frames, span) == pytest.approx(wanted, rel=1e-9)  # a product of some hundred floats


def test_span_starts_are_the_fewest_that_reach_the_rate() -> None:
    for percent in range(2, 99):
        starts = span_starts(percent / 100, 500, 3)
        assert expected_rate(starts, 500, 3) >= percent / 100 > expected_rate(starts - 1, 500, 3)
    assert span_starts(0.0, 500, 3) == 1


def test_rates_round_to_percents_as_float32_does_in_the_reference() -> None:
    # 100 * float32(0.125) is exactly 12.5, and torch.round, like numpy's, goes to the even neighbour.
    assert span_starts(0.125, 500, 3) == span_starts(0.12, 500, 3)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_masks_have_the_expected_rate(rate: float) -> None:
    random, frames, span, masks = np.random.default_rng(0), 100, 3, 2000
    found = np.mean([span_mask(rate, frames, span, random) for _ in range(masks)], axis=0)
    wanted = expected_rate(span_starts(rate, frames, span), frames, span)
    # A frame's share over 2000 masks has a deviation of at most 0.011; the mean over frames is far finer.
    assert np.abs(found[span - 1 :] - wanted).max() < 5 * 0.0112
    assert abs(found[span - 1 :].mean() - wanted) < 0.003
    assert (
        found[0] < wanted - 0.01
    )  # fewer spans reach the first frame: the formula's clip is a ring, the mask's is not


def test_masks_are_made_of_whole_spans() -> None:
    random = np.random.default_rng(1)
    for rate in (0.02, 0.3, 0.7):
        mask = span_mask(rate, 90, 3, random)
        edges = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(int)))
        runs = np.diff(edges)[::2]
        assert all(run >= 3 for run, end in zip(runs, edges[1::2], strict=True) if end < 90)


def test_single_frames_are_masked_at_the_very_rate() -> None:
    assert span_mask(0.25, 80, 1, np.random.default_rng(0)).sum() == 20


def test_a_plan_hides_one_codebook_in_spans_and_all_above() -> None:
    shape, span = (6, 4, 30), 3
    codes = np.arange(6 * 4 * 30).reshape(shape) % 50
    books = set()
    for step in range(40):
        plan = draw_plan(7, step, shape, span=span, text_dropout=0.3)
        seen = hide(codes, plan, 50)
        books.add(plan.codebook)
        for book in range(4):
            hidden = seen[:, book] == 50
            wanted = plan.mask if book == plan.codebook else np.full((6, 30), book > plan.codebook)
            assert np.array_equal(hidden, wanted)
            assert np.array_equal(seen[:, book][~hidden], codes[:, book][~hidden])
    assert books == {0, 1, 2, 3}


def test_plans_depend_on_seed_and_step_alone() -> None:
    first, again = (draw_plan(3, 5, (4, 2, 20), span=3, text_dropout=0.5) for _ in range(2))
    assert np.array_equal(first.mask, again.mask)
    assert np.array_equal(first.dropped, again.dropped)
    other = draw_plan(3, 6, (4, 2, 20), span=3, text_dropout=0.5)
    assert not np.array_equal(first.mask, other.mask)


def test_masking_rates_follow_the_cosine() -> None:
    # With u uniform, cos(u pi/2) has the mean 2/pi; 8000 rates have a deviation of 0.31 each, 0.0035 together.
    shares = [draw_plan(0, step, (80, 1, 60), span=1, text_dropout=0).mask.mean() for step in range(100)]
    assert np.mean(shares) == pytest.approx(2 / math.pi, abs=4 * 0.0035)


def test_shares_of_codebooks() -> None:
    books = [
        draw_plan(0, step, (1, 3, 9), span=3, text_dropout=0, codebook_shares=(2, 0, 2)).codebook for step in range(200)
    ]
    assert set(books) == {0, 2}
    assert 70 < books.count(0) < 130  # a fair coin thrown 200 times strays 4 deviations at most


def test_a_share_of_the_items_is_hidden_as_a_whole_and_all_else_stays() -> None:
    shape = (200, 2, 40)
    few, many = (draw_plan(0, 3, shape, span=3, text_dropout=0.3, all_hidden=share) for share in (0.0, 0.4))
    whole = many.mask.all(axis=1)
    assert 0.3 < whole.mean() < 0.5 < 1 - few.mask.all(axis=1).mean()
    assert (many.mask[~whole] == few.mask[~whole]).all()
    assert (many.dropped == few.dropped).all()
    assert (many.choices == few.choices).all()
