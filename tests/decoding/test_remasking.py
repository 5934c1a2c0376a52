"""Remasking: the chances against their formula, and what it leaves as it is."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from magnet_cli.decoding.masked import Known, decode
from magnet_cli.decoding.ordering import order_noise
from magnet_cli.decoding.philox import uniforms
from magnet_cli.decoding.remasking import hide_again, most_chance, remask_chances, remask_numbers
from magnet_cli.decoding.steps import DECIDED, highest_units, mask_rates, masked_units
from magnet_cli.options.sampling import SamplingConfig
from support.golden import CPU, Golden
from support.tape import Tape

FRAMES, SPAN = 60, 3
SAMPLING = SamplingConfig((12, 1, 1, 1), remask=1.0)


def test_the_largest_chance_is_that_of_the_paper() -> None:
    # min(1, (1 - alpha_s) / alpha_t) of the shares that are decided before and after.
    assert most_chance(0.25, 0.15) == pytest.approx((1 - 0.85) / 0.75)
    assert most_chance(0.9, 0.8) == 1
    assert most_chance(1.0, 0.99) == 1
    assert most_chance(0.2, float(mask_rates(10)[-1])) == 0  # which is a little below 0


@pytest.mark.parametrize("share", [1 / 5, 0.3, 1.0])
def test_chances_against_the_formula(share: float) -> None:
    confidence = torch.rand(2, 8, generator=torch.Generator().manual_seed(0))
    decided = torch.tensor([[True, True, False, True, False, False, True, True], [False] * 8])
    found = remask_chances(confidence, decided, 0.4, share)
    total = sum(math.exp(-float(confidence[0, unit])) for unit in decided[0].nonzero().flatten())
    for unit in range(8):
        weight = math.exp(-float(confidence[0, unit])) / total
        if share == 1 / 5:  # five are decided: ReMDM-conf itself, eta * sigma_max
            assert float(found[0, unit]) == pytest.approx(0.4 * weight * decided[0, unit].item(), rel=1e-5)
        wanted = min(share * 0.4 * 5 * weight, 0.4) if decided[0, unit] else 0
        assert float(found[0, unit]) == pytest.approx(wanted, rel=1e-5)
    assert not found[1].any()


def test_what_is_drawn_is_hidden_first_and_nothing_is_read_from_the_device() -> None:
    scores = torch.tensor([[0.5, 300.0, DECIDED, DECIDED]])
    chances, uniform = torch.tensor([[0.0, 0.0, 0.4, 0.4]]), torch.tensor([[0.1, 0.1, 0.3, 0.5]])
    with Tape():
        found = hide_again(scores, chances, uniform)
        remask_chances(scores, scores > 0, 0.5, 0.5)
        remask_numbers([1], codebook=0, step=1, frames=4, device=CPU)
    assert found.argsort(descending=True)[0].tolist()[:3] == [2, 1, 0]
    assert highest_units(found, [1]).tolist() == [[False, False, True, False]]


def test_its_random_numbers_are_its_own() -> None:
    found = remask_numbers([7], codebook=0, step=3, frames=50, device=CPU)
    part = remask_numbers([3, 7], codebook=0, step=3, frames=20, device=CPU, first_frame=30)
    assert torch.equal(part[1], found[0, 30:])
    codes = uniforms([7], codebook=0, step=3, frames=50, codes=1, device=CPU)[..., 0]
    assert not torch.equal(found, codes)
    assert not torch.equal(-torch.log(-torch.log(found)), order_noise([7], codebook=0, step=3, frames=50, device=CPU))


def hidden_spans(golden: Golden, sampling: SamplingConfig, known: Known | None = None) -> tuple[list[set[int]], Tensor]:
    """The spans of the first codebook that are hidden at each of its steps, and the codes."""
    hidden: list[set[int]] = []

    def see(_: object, arguments: tuple[Tensor, int]) -> None:
        codes, codebook = arguments[0], arguments[1]
        if codebook == 0:
            hidden.append({int(frame) // SPAN for frame in (codes[0, 0] == golden.decoder.config.mask_code).nonzero()})

    hook = golden.decoder.register_forward_pre_hook(see)
    try:
        codes = decode(golden.decoder, golden.memory("x"), [4], sampling, frames=FRAMES, known=known)
    finally:
        hook.remove()
    return hidden, codes


def test_spans_are_hidden_again_and_the_schedule_stays(music: Golden) -> None:
    hidden, _ = hidden_spans(music, SAMPLING)
    assert [len(one) for one in hidden] == [masked_units(rate, FRAMES // SPAN) for rate in mask_rates(12)]
    again = [after - before for before, after in pairwise(hidden)]
    assert sum(map(len, again)) >= 5
    assert not again[-1]  # what the last step draws is what was left
    plain, _ = hidden_spans(music, replace(SAMPLING, remask=0.0))
    assert all(after <= before for before, after in pairwise(plain))


def test_given_spans_are_never_hidden(music: Golden) -> None:
    codes = torch.randint(64, (1, 4, FRAMES), generator=torch.Generator().manual_seed(0))
    keep = torch.zeros(1, 4, FRAMES, dtype=torch.bool)
    keep[..., :30] = True
    keep[..., 40] = True
    hidden, found = hidden_spans(music, SAMPLING, Known(codes, keep))
    assert set().union(*hidden) == set(range(10, 20))
    assert torch.equal(found[keep], codes[keep])


def test_a_critic_decides_what_is_hidden_again(music: Golden) -> None:
    """The spans that the rescorer finds improbable are hidden again more often."""
    counts = torch.zeros(FRAMES // SPAN)
    probability = torch.where(torch.arange(FRAMES) < FRAMES // 2, 0.999, 0.001).expand(1, -1)
    previous: list[Tensor] = []

    class Critic:
        def __call__(self, codes: Tensor, proposed: Tensor, codebook: int) -> Tensor:
            masked = (codes[:, 0] == music.decoder.config.mask_code).view(len(codes), -1, SPAN).any(dim=-1)
            if previous and codebook == 0:
                counts.add_((masked & ~previous[-1]).sum(dim=0))
            previous.append(masked)
            return probability.expand(len(codes), -1)

        def check_finite(self) -> None:
            pass

    seeds = range(8)
    sampling = replace(SAMPLING, rescore_weight=0.0, order_noise=50.0)  # so that the order is nearly random
    decode(music.decoder, music.memory(*["x"] * 8), seeds, sampling, frames=FRAMES, rescorer=Critic())
    sure, unsure = counts.view(2, -1).sum(dim=1).tolist()
    assert unsure > sure
