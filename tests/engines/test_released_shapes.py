"""The whole decoding of a clip at the released sizes on a GPU that computes nothing: shapes, dtypes and devices fit.

It shows what no tiny model on a CPU can: an operation on tensors of two devices, a size or a branch that depends on
values, for which the host would wait, and sizes that only the released models have.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from magnet_cli.bench.speed import shapes
from magnet_cli.decoding import masked
from magnet_cli.decoding.masked import decode
from magnet_cli.engines.cuda import GraphTransformer
from magnet_cli.model.decoder import MaskedTransformer, TextMemory
from magnet_cli.options.sampling import SamplingConfig
from support.fake_cuda import FakeCuda, FakeRecorder

BATCH, TOKENS, FRAMES = 8, 20, 500


def released(name: str, dtype: torch.dtype) -> MaskedTransformer:
    """A released model on the fake device, with two of its layers, which are all alike."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("cuda"):
            return MaskedTransformer(replace(shapes()[name], layers=2)).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(usual)


def text(model: MaskedTransformer, rows: int) -> TextMemory:
    states = torch.empty(rows, TOKENS, model.config.text_width, device="cuda")
    return model.text_memory(states, [TOKENS] * rows)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[masked.FiniteCheck]:
    """The steps whose logits would be looked at, once, at the end: only there may the host wait."""
    looked_at: list[masked.FiniteCheck] = []
    monkeypatch.setattr(masked, "_check_finite", lambda checks, model: looked_at.extend(checks))
    return looked_at


@pytest.mark.parametrize(
    ("name", "dtype", "spans"),
    [
        ("small-10secs", torch.float16, "nonoverlap"),
        ("small-10secs", torch.bfloat16, "stride1"),
        ("medium-10secs", torch.float16, "nonoverlap"),
    ],
)
def test_a_clip_of_a_released_size_decodes(
    name: str, dtype: torch.dtype, spans: Any, steps: list[masked.FiniteCheck]
) -> None:
    sampling = SamplingConfig(steps=(2, 1, 1, 1), spans=spans)
    frames = FRAMES if spans == "stride1" else FRAMES - 2
    with FakeCuda():
        model = released(name, dtype)
        network = GraphTransformer(model, recorder=FakeRecorder())
        memory = text(model, BATCH)
        for _ in range(2):
            codes = decode(network, memory, list(range(BATCH)), sampling, frames=FRAMES)
            network.forget()
    assert (codes.device.type, codes.dtype, tuple(codes.shape)) == ("cuda", torch.long, (BATCH, 4, frames))
    assert len(steps) == 2 * sum(sampling.steps)
    assert all(check.finite.device.type == "cuda" for check in steps)
