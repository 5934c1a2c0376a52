"""Steps that are chosen by entropy, against their formula."""

from __future__ import annotations

import math

import pytest
import torch

from magnet_cli.decoding.entropy import frame_entropies, unit_entropies, within_bound
from magnet_cli.decoding.masked import Step, decode
from magnet_cli.decoding.steps import Grid
from magnet_cli.options.sampling import SamplingConfig
from support.golden import CPU, Golden


def test_entropies_against_the_formula() -> None:
    logits = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0))
    predicted = torch.tensor([[True] * 6, [True, False, True, False, False, False]])
    found = unit_entropies(frame_entropies(logits, 0.7), predicted, Grid.build(6, 3, circular=False, device=CPU))
    for row in range(2):
        for unit in range(2):
            wanted = 0.0
            for frame in range(3 * unit, 3 * unit + 3):
                weights = [math.exp(float(logit) / 0.7) for logit in logits[row, frame]]
                probs = [weight / sum(weights) for weight in weights]
                wanted -= predicted[row, frame].item() * sum(p * math.log(p) for p in probs)
            assert float(found[row, unit]) == pytest.approx(wanted, rel=1e-5, abs=1e-6)  # float32


@pytest.mark.parametrize("bound", [1e-6, 0.5, 1.0, 3.0, 100.0])
def test_the_largest_set_within_the_bound_is_decided(bound: float) -> None:
    entropies = torch.rand(5, 12, generator=torch.Generator().manual_seed(1))
    masked = torch.rand(5, 12, generator=torch.Generator().manual_seed(2)) < 0.7
    masked[4] = False
    found = within_bound(entropies, masked, bound)
    for row in range(5):
        rising = sorted(masked[row].nonzero().flatten().tolist(), key=lambda unit: float(entropies[row, unit]))
        sets = [rising[:count] for count in range(1, len(rising) + 1)]
        values = [[float(entropies[row, unit]) for unit in one] for one in sets]
        within = [one for one, value in zip(sets, values, strict=True) if sum(value) - max(value) <= bound]
        assert found[row].nonzero().flatten().tolist() == sorted(within[-1] if within else [])


def steps_of(golden: Golden, sampling: SamplingConfig, seeds: list[int]) -> list[Step]:
    found: list[Step] = []
    memory = golden.memory(*["x"] * len(seeds))
    decode(golden.decoder, memory, seeds, sampling, frames=60, on_step=found.append)
    return found


def test_a_high_bound_ends_codebooks_early_and_a_low_one_takes_all_steps(music: Golden) -> None:
    for bound, wanted in ((100_000.0, [4, 1, 1, 1]), (1e-9, [4, 3, 3, 3])):
        found = steps_of(music, SamplingConfig((4, 3, 3, 3), entropy_bound=bound), [1])
        assert [sum(step.codebook == book for step in found) for book in range(4)] == wanted


def test_a_low_bound_decides_one_span_at_a_step(music: Golden) -> None:
    mask = music.decoder.config.mask_code
    hidden: list[int] = []
    hook = music.decoder.register_forward_pre_hook(
        lambda _, arguments: hidden.append(int((arguments[0][0, arguments[1]] == mask).sum()))
    )
    try:
        found = steps_of(music, SamplingConfig((1, 30, 1, 1), entropy_bound=1e-9), [1])
    finally:
        hook.remove()
    assert hidden[1:21] == list(range(60, 0, -3))  # 20 spans of 3 frames
    last = [step for step in found if step.codebook == 1][-1]
    assert (last.step, last.steps) == (19, 20)  # and not 30
    assert all(step.steps == 30 for step in found if step.codebook == 1 and step.step < 19)


def test_a_batch_ends_with_its_last_clip(music: Golden) -> None:
    sampling = SamplingConfig((2, 30, 1, 1), entropy_bound=6.0, temperature=1.0)
    alone = [len([step for step in steps_of(music, sampling, [seed]) if step.codebook == 1]) for seed in (1, 2, 3, 4)]
    together = len([step for step in steps_of(music, sampling, [1, 2, 3, 4]) if step.codebook == 1])
    assert together == max(alone)
    assert 1 < max(alone) < 20
