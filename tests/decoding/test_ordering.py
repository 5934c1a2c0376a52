"""The order in which units are decided, against the definitions of the sequences."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from magnet_cli.decoding.masked import decode
from magnet_cli.decoding.ordering import (
    corput_order,
    corput_places,
    explored,
    first_places,
    gumbel,
    last_places,
    noisy_scores,
    order_noise,
)
from magnet_cli.decoding.philox import uniforms
from magnet_cli.decoding.steps import Grid, mask_rates, masked_units
from magnet_cli.options.sampling import SamplingConfig
from support.golden import CPU, Golden
from support.samplers import STEPS
from support.tape import Tape


def van_der_corput(number: int) -> Fraction:
    """Its digits in base 2, mirrored at the point."""
    digits = f"{number:b}"[::-1]
    return sum((Fraction(int(digit), 2 ** (place + 1)) for place, digit in enumerate(digits)), Fraction(0))


@pytest.mark.parametrize("units", [1, 2, 3, 5, 8, 33, 166])
def test_the_order_is_that_of_the_sequence(units: int) -> None:
    wanted: list[int] = []
    number = 0
    while len(wanted) < units:
        unit = int(van_der_corput(number) * units)
        wanted += [unit] if unit not in wanted else []
        number += 1
    assert corput_order(units) == wanted


def test_what_comes_first_is_spread_over_the_clip() -> None:
    units = 166
    for first in (4, 16, 50):
        chosen = sorted(corput_order(units)[:first])
        gaps = [(after - before) % units for before, after in zip(chosen, chosen[1:] + chosen[:1], strict=True)]
        # The sequence's own: its first n numbers leave gaps of less than 2 / n.
        assert max(gaps) <= 2 * units / first + 1


def test_places_count_only_what_is_to_be_decoded() -> None:
    undecided = torch.tensor([[True, True, True, True, True], [False, True, False, True, True], [False] * 5])
    assert corput_order(5) == [0, 2, 1, 3, 4]
    assert corput_places(undecided).tolist() == [[0, 2, 1, 3, 4], [-1, 0, -1, 1, 2], [-1] * 5]


def test_the_last_places_are_hidden() -> None:
    places = torch.tensor([[0, 2, 1, 3, 4], [-1, 0, -1, 1, 2]])
    assert last_places(places, [5, 3], [2, 1]).tolist() == [[False] * 3 + [True] * 2, [False] * 4 + [True]]
    assert last_places(places, [5, 3], [5, 3]).tolist() == [[True] * 5, [False, True, False, True, True]]


def test_half_of_what_a_step_decides_comes_first_in_the_sequence() -> None:
    assert explored([10, 10, 10, 1], [9, 8, 5, 1]) == [1, 1, 3, 0]
    places = torch.tensor([[0, 4, 2, 1, 3], [-1, 0, -1, 1, 2]])
    masked = torch.tensor([[False, True, True, False, True], [False, True, False, True, True]])
    assert first_places(places, masked, [1, 2]).nonzero().tolist() == [[0, 2], [1, 1], [1, 3]]
    assert not first_places(places, masked, [0, 0]).any()


def test_hybrid_decides_half_by_the_sequence_and_half_by_the_confidence(music: Golden) -> None:
    """Against the definition, in plain Python, from the probabilities that a rescorer with all weight gives."""
    frames, span, steps = 60, 3, 5
    spans = frames // span
    probability = torch.rand(1, frames, generator=torch.Generator().manual_seed(0))
    hidden: list[set[int]] = []

    class GivenRescorer:
        def __call__(self, codes: torch.Tensor, proposed: torch.Tensor, codebook: int) -> torch.Tensor:
            masked = codes[0, codebook] == music.decoder.config.mask_code
            hidden.append({int(frame) // span for frame in masked.nonzero()})
            return probability

        def check_finite(self) -> None:
            pass

    sampling = SamplingConfig((steps, 1, 1, 1), span_order="hybrid", rescore_weight=0.0)
    decode(music.decoder, music.memory("x"), [4], sampling, frames=frames, rescorer=GivenRescorer())
    score = [1 - float(probability[0, span * unit : span * unit + span].max()) for unit in range(spans)]
    order, left, wanted = corput_order(spans), set(range(spans)), []
    for rate in mask_rates(steps)[1:]:
        wanted.append(set(left))
        count = len(left) - masked_units(rate, spans)
        first = [unit for unit in order if unit in left][: -(-count // 2)]
        rest = sorted(left - set(first), key=lambda unit: score[unit])[: count - len(first)]
        left -= {*first, *rest}
    assert hidden == wanted


def test_gumbel_numbers_have_the_distribution() -> None:
    uniform = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    assert gumbel(uniform).tolist() == pytest.approx([-math.log(-math.log(u)) for u in (0.1, 0.5, 0.9)])
    numbers = order_noise(range(4), codebook=1, step=2, frames=20_000, device=CPU)
    assert numbers.isfinite().all()
    # Euler's constant and pi squared over 6; the mean's error is about 1.28 / sqrt(80,000).
    assert float(numbers.mean()) == pytest.approx(0.5772, abs=0.02)
    assert float(numbers.var()) == pytest.approx(math.pi**2 / 6, rel=0.03)


def test_noise_is_added_to_the_logarithm_of_the_confidence() -> None:
    probability = torch.rand(1, 12, generator=torch.Generator().manual_seed(0))
    noise = torch.tensor([[0.5, -1.0, 2.0, 0.0]])
    grid = Grid.build(12, 3, circular=False, device=CPU)
    groups = [[float(one) for one in probability[0, 3 * unit : 3 * unit + 3]] for unit in range(4)]
    for score, confidence in (("max", max), ("prod", math.prod)):
        found = noisy_scores(grid.log_confidence(probability, score), noise, 0.7)  # type: ignore[arg-type]
        wanted = [-(math.log(confidence(group)) + 0.7 * float(g)) for group, g in zip(groups, noise[0], strict=True)]
        assert found[0].tolist() == pytest.approx(wanted, rel=1e-5)  # float32 logarithms


def test_noise_depends_on_the_place_alone_and_on_no_drawn_number() -> None:
    whole = order_noise([7], codebook=1, step=2, frames=50, device=CPU)
    part = order_noise([3, 7], codebook=1, step=2, frames=20, device=CPU, first_frame=30)
    assert torch.equal(part[1], whole[0, 30:])
    streams = [uniforms([7], codebook=book, step=2, frames=50, codes=1, device=CPU) for book in (0, 1, 2, 3)]
    assert not any(torch.equal(gumbel(stream[..., 0]), whole) for stream in streams)


def test_noise_changes_the_order_and_no_drawn_number(music: Golden) -> None:
    sampling = SamplingConfig((2, 1, 1, 1), order_noise=50.0)
    plain, noisy = (
        decode(music.decoder, music.memory("x"), [1], one, frames=60)
        for one in (SamplingConfig((2, 1, 1, 1)), sampling)
    )
    # Of two steps, the first decides all spans but one. Another one is left, and only that is drawn again.
    changed = (plain[0, 0] != noisy[0, 0]).view(-1, 3).any(dim=1)
    assert 1 <= int(changed.sum()) <= 2


def test_the_order_is_read_from_nothing_on_the_device() -> None:
    places = torch.tensor([[0, 2, 1, 3, 4]])
    with Tape():  # which refuses what waits for the device
        last_places(places, [5], [2])
        first_places(places, places > 1, [1])


def test_spans_are_decided_in_the_order_of_the_sequence(music: Golden) -> None:
    """Whatever the model says: what is hidden at a step is known beforehand."""
    hidden: list[torch.Tensor] = []
    mask = music.decoder.config.mask_code
    hook = music.decoder.register_forward_pre_hook(
        lambda _, arguments: hidden.append(arguments[0][0, arguments[1]] == mask)
    )
    frames, span = 60, 3
    try:
        decode(music.decoder, music.memory("x"), [4], SamplingConfig(STEPS, span_order="corput"), frames=frames)
    finally:
        hook.remove()
    order = corput_order(frames // span)
    wanted = []
    for steps in STEPS:
        for rate in mask_rates(steps):
            last = set(order[-masked_units(rate, frames // span) :])
            wanted.append([frame // span in last for frame in range(frames)])
    assert [row.tolist() for row in hidden] == wanted
