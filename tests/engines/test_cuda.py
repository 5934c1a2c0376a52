"""The network with static shapes against the plain one. Recorded as graphs, it runs on a GPU only."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend

from magnet_cli.decoding.masked import decode
from magnet_cli.engines import cuda as graphs
from magnet_cli.engines.cuda import GraphTransformer, Stages
from magnet_cli.engines.device import computes_float8
from magnet_cli.errors import MagnetWarning
from magnet_cli.model.decoder import MaskedTransformer
from magnet_cli.options.runtime import RuntimeConfig
from magnet_cli.options.sampling import SamplingConfig
from magnet_cli.pipeline.pipeline import Pipeline
from support.networks import CONFIG, FRAMES, build, noise, random_codes, text
from support.networks import NARROW as EIGHTS
from support.samplers import SAMPLERS

# Guidance is in float32, whose rounding the weight of 3 enlarges.
CLOSE = {"rtol": 1e-5, "atol": 1e-4}


@pytest.mark.parametrize("context", [2, 0, -1])
@pytest.mark.parametrize("text_rows", [0, 1, 2])
def test_logits_are_those_of_the_plain_network(context: int, text_rows: int) -> None:
    model, batch = build(replace(CONFIG, context=context)), 2
    network, plain = GraphTransformer(model), model
    memory = text(model, text_rows * batch) if text_rows else None
    for codebook in range(CONFIG.codebooks):
        for weight in (3.0, 1.0):
            codes = random_codes(batch, FRAMES, seed=codebook)
            wanted = plain.guided(codes, codebook, memory, weight)
            torch.testing.assert_close(network.guided(codes, codebook, memory, weight), wanted, **CLOSE)


def test_another_text_is_heard_and_old_shapes_are_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_SHAPES", 2)
    model = build()
    network, plain = GraphTransformer(model), model
    memories = [model.text_memory(noise(1, n, CONFIG.text_width, seed=n), [n]) for n in (3, 40, 5)]
    for memory in (*memories, *memories):
        for frames in (20, 30):
            codes = random_codes(1, frames)
            wanted = plain.guided(codes, 1, memory, 3.0)
            torch.testing.assert_close(network.guided(codes, 1, memory, 3.0), wanted, **CLOSE)
            assert len(network._networks) <= 2


def test_codes_are_those_of_the_plain_network() -> None:
    model = build(dtype=torch.float32)
    memory = text(model, 3)
    sampling = SamplingConfig(steps=(4, 3, 3, 1))
    wanted = decode(model, memory, [1, 2, 3], sampling, frames=FRAMES)
    assert torch.equal(decode(GraphTransformer(model), memory, [1, 2, 3], sampling, frames=FRAMES), wanted)


# -- compiled ---------------------------------------------------------------------------------------------------------

Backend = Callable[..., Any]


def compiling(backend: Backend, **options: Any) -> GraphTransformer:
    torch._dynamo.reset()  # what other tests have compiled
    return GraphTransformer(build(EIGHTS, dtype=torch.float32), stages=Stages.compiled(backend), **options)


@pytest.mark.parametrize("float8", [False, True])
def test_compiled_stages_are_shared_by_all_layers_and_compute_the_same(float8: bool) -> None:
    # All of torch.compile but the last step, which would take a C++ compiler here: what is in place is made functional.
    counter = CompileCounterWithBackend("aot_eager")
    network = compiling(counter, float8=float8)
    plain = GraphTransformer(network.model, float8=float8)
    memory, codes = text(network.model, 2), random_codes(2, FRAMES)
    for _ in range(2):
        for codebook in (0, 1, 2):
            for weight in (3.0, 1.0):
                wanted = plain.guided(codes, codebook, memory, weight)
                found = network.guided(codes, codebook, memory, weight)
                # The same float32 operations, of which two that add may be one or not: an 8-bit number in 100,000
                # rounds otherwise, see test_quantize.
                assert (found - wanted).norm() / wanted.norm() < (1e-3 if float8 else 1e-6)
    assert network.compiled
    # Two kinds of attention and the feed-forward block, each before and after the halves part; cross-attention once.
    # Not one for each layer, codebook or step.
    assert counter.frame_count == 7


def test_a_new_shape_compiles_anew_until_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_COMPILED", 2)
    counter = CompileCounter()
    network, compiled = compiling(counter), []
    for frames in (20, 30, 40, 20):
        codes = random_codes(1, frames)
        torch.testing.assert_close(
            network.guided(codes, 0, None, 1.0), network.model.guided(codes, 0, None, 1.0), **CLOSE
        )
        compiled.append(counter.frame_count)
    assert compiled == [2, 4, 4, 4]


def no_compiler(*_: object) -> Backend:
    raise RuntimeError("Cannot find a working triton installation")


def miscompiled(graph: torch.fx.GraphModule, _: object) -> Backend:
    def run(*inputs: Tensor) -> list[Tensor]:
        before = [one.clone() for one in inputs]
        found = list(graph(*inputs))
        for one, old in zip(inputs, before, strict=True):
            one.copy_(old)  # nothing is added
        return found

    return run


@pytest.mark.parametrize(
    ("backend", "why"), [(no_compiler, "Cannot find a working triton"), (miscompiled, r"logits are [\d.]+% off")]
)
def test_where_nothing_can_be_compiled_it_goes_on_without(backend: Backend, why: str) -> None:
    network, codes = compiling(backend), random_codes(1, FRAMES)
    wanted = network.model.guided(codes, 0, None, 1.0)
    with pytest.warns(MagnetWarning, match=f"torch.compile fails here.*{why}"):
        found = network.guided(codes, 0, None, 1.0)
    assert not network.compiled
    for again in (found, network.guided(codes, 0, None, 1.0)):  # and says so once
        torch.testing.assert_close(again, wanted, **CLOSE)


def test_compiling_is_for_gpus(tiny: str) -> None:
    with pytest.warns(MagnetWarning, match="only decoders on GPUs are compiled"):
        pipeline = Pipeline.load(tiny, RuntimeConfig(device="cpu", compile=True))
    assert not pipeline.info.compiled


# -- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu_model() -> MaskedTransformer:
    return build(dtype=torch.float32).to("cuda")


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """The host may not wait for the GPU."""
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_replayed_logits_are_those_of_the_plain_network(gpu_model: MaskedTransformer) -> None:
    network, plain = GraphTransformer(gpu_model), gpu_model
    for seed in (1, 2):
        memory = gpu_model.text_memory(noise(2, 5, CONFIG.text_width, seed=seed), [3, 5])
        for codebook in (0, 1, 0, 3):
            for weight in (3.0, 5.0, 1.0):
                codes = random_codes(2, FRAMES, seed=codebook + seed).cuda()
                wanted = plain.guided(codes, codebook, memory, weight)
                found = network.guided(codes, codebook, memory, weight)
                torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-2)  # other kernels; TF32 is off by default


@pytest.mark.gpu
@pytest.mark.parametrize("float8", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_other_forms_replay_what_they_compute_on_the_cpu(float8: bool, compiled: bool) -> None:
    if float8 and not computes_float8(torch.device("cuda")):
        pytest.skip("no 8-bit floats on this GPU")
    model = build(EIGHTS, dtype=torch.float32)
    memory, plain = text(model, 2), GraphTransformer(model, float8=float8)
    pairs = [(codebook, weight) for codebook in (0, 1, 3) for weight in (3.0, 1.0)]
    wanted = [plain.guided(random_codes(2, FRAMES), codebook, memory, weight) for codebook, weight in pairs]
    model = copy.deepcopy(model).to("cuda")
    memory = text(model, 2)
    stages = Stages.compiled() if compiled else graphs.EAGER
    network = GraphTransformer(model, float8=float8, stages=stages)
    for _ in range(2):
        for (codebook, weight), near in zip(pairs, wanted, strict=True):
            found = network.guided(random_codes(2, FRAMES).cuda(), codebook, memory, weight).cpu()
            # Fast accumulation has some 14 bits, and numbers of 8 bits round otherwise where sums differ by as much.
            assert (found - near).norm() / near.norm() < (0.02 if float8 else 1e-4)
    assert network.compiled == compiled


@pytest.mark.gpu
@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(steps=(4, 3, 3, 1)),
        SamplingConfig(steps=(4, 3, 3, 1), spans="stride1"),
        *(one for one in SAMPLERS.values() if not one.entropy_bound),  # which must look whether anything is left
    ],
)
def test_the_host_never_waits_inside_a_clip(
    gpu_model: MaskedTransformer, no_waiting: None, sampling: SamplingConfig
) -> None:
    network, memory = GraphTransformer(gpu_model), text(gpu_model, 2)
    first = decode(network, memory, [1, 2], sampling, frames=FRAMES)  # records
    waits: list[int] = []

    def watch(_: object) -> None:
        waits.append(1)
        # From the first step's end to the last's; what comes after may wait: it looks whether all was finite.
        torch.cuda.set_sync_debug_mode("default" if len(waits) == sum(sampling.steps) else "error")

    second = decode(network, memory, [1, 2], sampling, frames=FRAMES, on_step=watch)
    assert torch.equal(first, second)
