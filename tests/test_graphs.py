"""The network with static shapes against the plain one. Recorded as graphs, it runs on a GPU only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from magnet_cli import graphs
from magnet_cli.config import SamplingConfig
from magnet_cli.decode import Plain, decode
from magnet_cli.errors import MagnetWarning
from magnet_cli.graphs import GraphTransformer
from magnet_cli.transformer import MaskedTransformer
from test_engine import FRAMES, text
from test_transformer import CONFIG, build, noise, random_codes

# Guidance is in float32, whose rounding the weight of 3 enlarges.
CLOSE = {"rtol": 1e-5, "atol": 1e-4}


@pytest.mark.parametrize("context", [2, 0, -1])
@pytest.mark.parametrize("text_rows", [0, 1, 2])
def test_logits_are_those_of_the_plain_network(context: int, text_rows: int) -> None:
    model, batch = build(replace(CONFIG, context=context)), 2
    network, plain = GraphTransformer(model), Plain(model)
    memory = text(model, text_rows * batch) if text_rows else None
    for codebook in range(CONFIG.codebooks):
        for weight in (3.0, 1.0):
            codes = random_codes(batch, FRAMES, seed=codebook)
            wanted = plain.guided(codes, codebook, memory, weight)
            torch.testing.assert_close(network.guided(codes, codebook, memory, weight), wanted, **CLOSE)


def test_another_text_is_heard_and_old_shapes_are_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_SHAPES", 2)
    model = build()
    network, plain = GraphTransformer(model), Plain(model)
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


def test_where_graphs_cannot_be_recorded_it_goes_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "_record", refuse)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(GraphTransformer, "device", torch.device("cuda"))
    model = build()
    network, codes = GraphTransformer(model), random_codes(1, FRAMES)
    wanted = Plain(model).guided(codes, 0, None, 1.0)
    with pytest.warns(MagnetWarning, match="no CUDA graphs here"):
        found = network.guided(codes, 0, None, 1.0)
    torch.testing.assert_close(found, wanted, **CLOSE)
    torch.testing.assert_close(network.guided(codes, 0, None, 1.0), wanted, **CLOSE)  # and says so once


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
    network, plain = GraphTransformer(gpu_model), Plain(gpu_model)
    for seed in (1, 2):
        memory = gpu_model.text_memory(noise(2, 5, CONFIG.text_width, seed=seed), [3, 5])
        for codebook in (0, 1, 0, 3):
            for weight in (3.0, 5.0, 1.0):
                codes = random_codes(2, FRAMES, seed=codebook + seed).cuda()
                wanted = plain.guided(codes, codebook, memory, weight)
                found = network.guided(codes, codebook, memory, weight)
                torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-2)  # other kernels; TF32 is off by default


@pytest.mark.gpu
@pytest.mark.parametrize("spans", ["nonoverlap", "stride1"])
def test_the_host_never_waits_inside_a_clip(gpu_model: MaskedTransformer, no_waiting: None, spans: str) -> None:
    network, memory = GraphTransformer(gpu_model), text(gpu_model, 2)
    sampling = SamplingConfig(steps=(4, 3, 3, 1), spans="stride1" if spans == "stride1" else "nonoverlap")
    first = decode(network, memory, [1, 2], sampling, frames=FRAMES)  # records
    waits: list[int] = []

    def watch(_: object) -> None:
        waits.append(1)
        # From the first step's end to the last's; what comes after may wait: it looks whether all was finite.
        torch.cuda.set_sync_debug_mode("default" if len(waits) == sum(sampling.steps) else "error")

    second = decode(network, memory, [1, 2], sampling, frames=FRAMES, on_step=watch)
    assert torch.equal(first, second)
