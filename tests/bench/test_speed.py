"""The benchmark: its sums, its shapes, and that its random models are what they stand for."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch

from magnet_cli.bench.flops import minimum_flops
from magnet_cli.bench.impact import PUBLISHED, ImpactSize, sound_parts
from magnet_cli.bench.speed import BenchParts, benchmark, parts_of, random_parts, shapes
from magnet_cli.engines.cpu import FastTransformer
from magnet_cli.engines.device import matmul_rate, peak_memory
from magnet_cli.engines.linear import eight_bit_rate
from magnet_cli.errors import UsageError
from magnet_cli.model.config import RELEASED_CODEC
from magnet_cli.model.decoder import MaskedTransformer
from magnet_cli.options.runtime import EightBits
from magnet_cli.options.sampling import SamplingConfig
from support.golden import CPU

SAMPLING = SamplingConfig(steps=(2, 1, 1, 1))


@pytest.fixture(scope="module")
def tiny() -> BenchParts:
    config = replace(shapes()["small-10secs"], width=64, heads=2, layers=2, feed_forward=128, text_width=64, codes=64)
    codec = replace(RELEASED_CODEC, n_filters=4, dimension=16, codes=64)
    config = replace(config, clip_seconds=1.0)
    return parts_of("tiny", config, codec, device=CPU, dtype=torch.float32, network=FastTransformer)


def test_a_report_adds_up(tiny: BenchParts) -> None:
    report = benchmark(tiny, SAMPLING, batch=2, runs=3)
    names = ["text", *(f"codebook {k}" for k in (1, 2, 3, 4)), "codec", "loudness", "write"]
    assert list(report.stages) == names
    assert all(seconds > 0 for seconds in report.stages.values())
    # The median of sums lies between nothing and the slowest sum.
    assert max(report.stages.values()) <= report.latency <= report.slowest
    assert report.throughput == pytest.approx(2 * 1.0 / report.latency)
    tokens = len(tiny.text.tokenize("80s electronic track with melodic synthesizers, catchy beat and groovy bass"))
    assert tokens == 12  # the comma is one
    assert report.flops == 2 * minimum_flops(tiny.model.config, SAMPLING, frames=50, tokens=tokens)
    decoding = sum(seconds for stage, seconds in report.stages.items() if "codebook" in stage)
    assert report.flops_per_second == pytest.approx(report.flops / decoding)
    assert json.loads(json.dumps(asdict(report)))["steps"] == [2, 1, 1, 1]
    assert dict(report.rows)["clips"] == "2 of 1 s, steps 2,1,1,1"
    assert report.logits is not None
    assert report.logits.error < 1e-5  # float32 sums in another order, amplified by guidance
    assert report.logits.agreement == 1


@pytest.fixture
def quick_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a large product of bfloat16, which takes minutes on a CPU that has no instruction for it."""
    monkeypatch.setattr("magnet_cli.bench.speed.matmul_rate", lambda device, dtype: 1e9)


@pytest.mark.usefixtures("quick_peak")
def test_logits_are_compared_with_the_weights_before_they_were_rounded(tiny: BenchParts) -> None:
    rounded = parts_of(
        "tiny", tiny.model.config, tiny.codec.config, device=CPU, dtype=torch.bfloat16, network=FastTransformer
    )
    for weight, stored in zip(rounded.model.parameters(), rounded.in_float32().parameters(), strict=True):
        assert stored.dtype == torch.float32
        assert torch.equal(stored.bfloat16(), weight)
    report = benchmark(rounded, SAMPLING, runs=1)
    assert report.logits is not None
    assert 2**-9 < report.logits.error < 0.2  # a rounding to 8 bits; twenty of them, guided with a weight of 5.5
    assert report.logits.words in dict(report.rows)["logits"]


@pytest.mark.usefixtures("quick_peak")
def test_without_memory_for_float32_the_rest_is_reported(tiny: BenchParts) -> None:
    def none() -> MaskedTransformer:
        raise MemoryError("x")

    bfloat16 = replace(tiny, model=tiny.model.bfloat16(), in_float32=none)
    try:
        report = benchmark(replace(bfloat16, network=bfloat16.model), SAMPLING, runs=1)
    finally:
        tiny.model.float()
    assert report.logits is None
    assert "too little memory" in dict(report.rows)["logits"]


def test_8_bits_are_compared_with_a_peak_of_8_bits(tiny: BenchParts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magnet_cli.bench.speed.matmul_rate", lambda device, dtype: 1e9)
    monkeypatch.setattr(
        "magnet_cli.bench.speed.eight_bit_rate", lambda device, kind: {"int8": 4e9, "float8": 2e9}[kind]
    )
    for kind, peak in ((None, 1e9), ("int8", 4e9), ("float8", 2e9)):
        report = benchmark(replace(tiny, eight_bits=kind), SAMPLING, runs=1, compare_logits=False)
        assert (report.peak, report.dtype) == (peak, kind or "float32")


@pytest.mark.parametrize("kind", ["int8", "float8"])
def test_products_of_8_bits_run(kind: EightBits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magnet_cli.engines.linear.peak_size", lambda device: 64)
    assert eight_bit_rate(CPU, kind) > 0


def test_the_logits_need_not_be_compared(tiny: BenchParts) -> None:
    def never() -> MaskedTransformer:
        raise AssertionError

    parts = replace(tiny, in_float32=never)
    report = benchmark(parts, SAMPLING, runs=1, compare_logits=False)
    assert (report.compared, report.logits) == (False, None)
    assert "logits" not in dict(report.rows)


def test_memory_of_a_gpu_is_what_is_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 3)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2)
    assert peak_memory(torch.device("cuda:1")) == 3


@pytest.mark.parametrize(("size", "millions"), [("small", 420), ("medium", 1841)])
def test_the_anchor_has_the_shape_of_the_sound_models(
    size: ImpactSize, millions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magnet_cli.bench.speed.random_decoder", lambda config, device, dtype: config)
    monkeypatch.setattr("magnet_cli.bench.speed.random_text_encoder", lambda width, device: width)
    parts = sound_parts(size, torch.device("meta"), torch.float32, lambda model: model)
    assert parts.codec.config.sample_rate == 16_000
    assert parts.codec.config.frame_rate == 50
    assert list(PUBLISHED[size]) == [1, 8, 64]
    assert parts.text == 1024  # type: ignore[comparison-overlap]  # T5-large
    with torch.device("meta"):
        model = MaskedTransformer(parts.model)  # type: ignore[arg-type]
    assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(millions * 1e6, rel=0.01)


def test_the_peak_is_above_what_a_tiny_model_reaches(tiny: BenchParts) -> None:
    assert matmul_rate(CPU, torch.float32) > benchmark(tiny, SAMPLING, runs=1).flops_per_second


def test_shapes_have_the_released_numbers_of_parameters() -> None:
    for name, millions in (("small-10secs", 419), ("medium-30secs", 1840)):
        with torch.device("meta"):
            model = MaskedTransformer(shapes()[name])
        found = sum(weight.numel() for weight in model.parameters())
        assert found == pytest.approx(millions * 1e6, rel=0.01)  # facts.md gives three digits


def test_impossible_requests_are_refused(tiny: BenchParts) -> None:
    with pytest.raises(UsageError, match="unknown shape"):
        random_parts("huge", CPU, torch.float32, FastTransformer)
    with pytest.raises(UsageError, match="0 runs"):
        benchmark(tiny, SAMPLING, runs=0)
