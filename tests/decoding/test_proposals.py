"""On a CPU, codes are proposed only where they are used: the same codes as everywhere."""

from __future__ import annotations

import pytest
import torch

from magnet_cli.decoding import masked
from magnet_cli.decoding.masked import decode
from magnet_cli.decoding.philox import Numbers
from magnet_cli.decoding.steps import propose, step_temperature
from magnet_cli.options.sampling import SamplingConfig
from support.networks import CONFIG, FRAMES, build, text


@pytest.mark.parametrize(
    "sampling",
    [SamplingConfig(), SamplingConfig(top_k=5, top_p=None), SamplingConfig(top_p=None), SamplingConfig(greedy=True)],
)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_codes_and_probabilities_are_those_of_the_whole(sampling: SamplingConfig, share: float) -> None:
    generator, seeds, first = torch.Generator().manual_seed(1), [3, 2**63 + 5], 7
    logits = 3 * torch.randn(2, 30, 62, generator=generator)
    wanted = torch.rand(2, 30, generator=generator) < share
    numbers = Numbers.of(seeds, "cpu")
    run = masked._Decoding(None, None, seeds, numbers, sampling, None, None, None, first, None, None, [])  # type: ignore[arg-type]
    found = masked._propose(run, 1, 2, logits, wanted=wanted)
    uniform = numbers.uniforms(codebook=1, step=2, frames=30, codes=62, first_frame=first)
    temperature = step_temperature(2, sampling.steps[1], sampling)
    whole = propose(logits, temperature, sampling, None if sampling.greedy else uniform)
    for ours, theirs in zip(found, whole, strict=True):
        assert ours.shape == theirs.shape
        assert torch.equal(ours[wanted], theirs[wanted])
        assert ours.isfinite().all()


def test_steps_compute_ever_fewer_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only is it the same: it is less."""
    model, seen = build(dtype=torch.float32), []

    def watch(logits: torch.Tensor, *rest: object) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(logits))
        return propose(logits, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(masked, "propose", watch)
    decode(model, text(model, 1), [1], SamplingConfig(steps=(6, 1, 1, 1)), frames=FRAMES)
    first = seen[:6]
    assert first == sorted(first, reverse=True)
    assert first[0] == FRAMES - FRAMES % CONFIG.span_length
    assert first[-1] == CONFIG.span_length
