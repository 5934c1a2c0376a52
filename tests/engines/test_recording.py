"""Recording and replaying, through a tape on the CPU, which is stricter than CUDA graphs, and around CUDA's calls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from magnet_cli.decoding.circle import Loop
from magnet_cli.decoding.masked import Known, decode
from magnet_cli.engines.cuda import GraphTransformer
from magnet_cli.engines.recording import CudaRecorder
from magnet_cli.errors import MagnetWarning
from magnet_cli.model.decoder import MaskedTransformer
from magnet_cli.options.sampling import SamplingConfig
from support.networks import CONFIG, FRAMES, build, noise, random_codes, text
from support.tape import Tape, TapeError, TapeRecorder

STEPS = SamplingConfig(steps=(4, 3, 3, 1))


@pytest.fixture
def model() -> MaskedTransformer:
    return build(dtype=torch.float32)


# -- replaying --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spans", ["nonoverlap", "stride1"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_clip_of_replays_is_the_plain_one(model: MaskedTransformer, spans: str, batch: int) -> None:
    sampling = SamplingConfig(steps=(4, 3, 3, 1), spans="stride1" if spans == "stride1" else "nonoverlap")
    memory, seeds, recorder = text(model, batch), list(range(batch)), TapeRecorder()
    network = GraphTransformer(model, recorder=recorder)
    wanted = decode(model, memory, seeds, sampling, frames=FRAMES)
    for clip in range(3):
        assert torch.equal(decode(network, memory, seeds, sampling, frames=FRAMES), wanted), clip
    # Each codebook's graph with guidance, and those without where guidance ends at 1.
    assert CONFIG.codebooks <= len(recorder.recordings) <= 2 * CONFIG.codebooks


def test_one_clip_records_nothing_and_later_ones_no_more(model: MaskedTransformer) -> None:
    memory, recorder = text(model, 1), TapeRecorder()
    network, counts = GraphTransformer(model, recorder=recorder), []
    for _ in range(3):
        decode(network, memory, [1], STEPS, frames=FRAMES)
        network.forget()
        counts.append(len(recorder.recordings))
    assert counts[0] == 0
    assert counts[1] == counts[2] > 0


def test_windows_of_one_clip_are_its_shape_again(model: MaskedTransformer) -> None:
    memory, recorder = text(model, 1), TapeRecorder()
    network = GraphTransformer(model, recorder=recorder)
    for first in (0, FRAMES):  # as windows are decoded: nothing is forgotten in between
        decode(network, memory, [1], STEPS, frames=FRAMES, first_frame=first)
    assert recorder.recordings


def test_loops_and_known_codes_replay_the_same(model: MaskedTransformer) -> None:
    memory, network = text(model, 2), GraphTransformer(model, recorder=TapeRecorder())
    keep = torch.zeros(2, CONFIG.codebooks, FRAMES, dtype=torch.bool)
    keep[:, :2, 5:15] = True
    known = Known(random_codes(2, FRAMES).clamp(max=CONFIG.codes - 1), keep)
    for options in ({"known": known}, {"loop": Loop(FRAMES)}):
        wanted = decode(model, memory, [1, 2], STEPS, frames=FRAMES, **options)  # type: ignore[arg-type]
        for _ in range(2):
            found = decode(network, memory, [1, 2], STEPS, frames=FRAMES, **options)  # type: ignore[arg-type]
            network.forget()
            assert torch.equal(found, wanted)


def test_the_tape_refuses_what_waits_for_the_device() -> None:
    values = torch.arange(4.0)
    for refused in (
        lambda: values.sum().item(),
        lambda: values.nonzero(),
        lambda: values[values > 1],
        lambda: bool(values.any()),
    ):
        with pytest.raises(TapeError), Tape():
            refused()


# -- values that are not finite ---------------------------------------------------------------------------------------


@contextmanager
def broken(model: MaskedTransformer) -> Iterator[None]:
    """Every query, key and value of the last layer is infinite or NaN."""
    weight = list(model.layers)[-1].self_attention.qkv.weight  # type: ignore[union-attr]
    with torch.no_grad():
        before = weight.clone()
        weight.fill_(math.inf)
        yield
        weight.copy_(before)


@pytest.mark.parametrize("codebook", [0, 1])
def test_what_is_not_finite_ends_with_its_clip(model: MaskedTransformer, codebook: int) -> None:
    network, memory, codes = GraphTransformer(model), text(model, 1), random_codes(1, FRAMES)
    wanted = model.guided(codes, codebook, memory, 3.0)
    with broken(model):
        assert not network.guided(codes, codebook, memory, 3.0).isfinite().all()
    found = network.guided(codes, codebook, memory, 3.0)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


def test_a_text_that_is_not_finite_ends_with_its_clip(model: MaskedTransformer) -> None:
    network, codes = GraphTransformer(model), random_codes(1, FRAMES)
    long, short = (model.text_memory(noise(1, n, CONFIG.text_width), [n]) for n in (9, 4))
    for kept in (*long.keys, *long.values):
        kept.fill_(math.nan)
    assert not network.guided(codes, 1, long, 3.0).isfinite().all()
    found, wanted = network.guided(codes, 1, short, 3.0), model.guided(codes, 1, short, 3.0)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


def test_releasing_frees_buffers_and_recordings(model: MaskedTransformer) -> None:
    memory, recorder = text(model, 1), TapeRecorder()
    network = GraphTransformer(model, recorder=recorder)
    wanted = decode(network, memory, [1], STEPS, frames=FRAMES)
    for _ in range(2):
        decode(network, memory, [1], STEPS, frames=FRAMES)
        network.release()
        assert not {**network._networks, **network._graphs, **network._heard}
    assert recorder.released == 2
    assert torch.equal(decode(network, memory, [1], STEPS, frames=FRAMES), wanted)


# -- when recording fails ---------------------------------------------------------------------------------------------


def twice(network: GraphTransformer, memory: Any) -> Tensor:
    decode(network, memory, [1], STEPS, frames=FRAMES)
    return decode(network, memory, [1], STEPS, frames=FRAMES)


def test_where_nothing_can_be_recorded_it_continues_without(model: MaskedTransformer) -> None:
    recorder = TapeRecorder(fails=[RuntimeError("CUDA error: operation not permitted when stream is capturing")])
    network, memory = GraphTransformer(model, recorder=recorder), text(model, 1)
    with pytest.warns(MagnetWarning, match="no CUDA graphs can be recorded"):
        found = twice(network, memory)
    assert torch.equal(found, decode(model, memory, [1], STEPS, frames=FRAMES))
    twice(network, memory)  # and says so once
    assert not recorder.recordings


@pytest.mark.parametrize("cause", [True, False])
def test_memory_that_runs_out_while_recording_is_raised_and_recording_stays(
    model: MaskedTransformer, cause: bool
) -> None:
    error: Exception = torch.OutOfMemoryError("CUDA out of memory")
    if cause:  # as where an operation fails because of an earlier failure
        try:
            raise RuntimeError("operation failed due to a previous error during capture") from error
        except RuntimeError as other:
            error = other
    recorder = TapeRecorder(fails=[error])
    network, memory = GraphTransformer(model, recorder=recorder), text(model, 1)
    with pytest.raises(type(error)):
        twice(network, memory)
    network.release()
    twice(network, memory)
    assert recorder.recordings


# -- around CUDA's own calls ------------------------------------------------------------------------------------------


class FakeGpu:
    """What CudaRecorder calls of torch.cuda, and in which state it leaves the process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.default, self.current, self.devices = object(), None, []  # type: ignore[var-annotated]
        self.current = self.default
        self.streams = 0
        self.capturing: Any = None
        self.pool_open = self.broken = False
        self.on_device: int | None = 0
        gpu = self

        class Graph:
            def capture_begin(self, pool: Any) -> None:
                assert gpu.current is not gpu.default
                gpu.capturing, gpu.pool_open = gpu.current, True

            def capture_end(self) -> None:
                stream, gpu.capturing = gpu.capturing, None
                if gpu.broken:
                    gpu.broken = False
                    raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
                assert stream is gpu.current
                gpu.pool_open = False

            def replay(self) -> None:
                pass

        class Stream:
            def __init__(self, device: Any = None) -> None:
                gpu.streams += 1
                gpu.devices.append(device)

            def wait_stream(self, other: object) -> None:
                pass

        @contextmanager
        def stream(one: Any) -> Iterator[None]:
            before, gpu.current = gpu.current, one
            try:
                yield
            finally:
                gpu.current = before

        def close(device: int, pool: Any) -> None:
            gpu.pool_open = False

        self.default = self.current = Stream()
        self.streams, self.devices = 0, []
        cuda = torch.cuda
        for name, value in {
            "CUDAGraph": Graph,
            "Stream": Stream,
            "stream": stream,
            "current_stream": lambda device=None: gpu.current,
            "current_device": lambda: 1,
            "graph_pool_handle": lambda: object(),
            "synchronize": lambda device=None: None,
            "empty_cache": lambda: None,
        }.items():
            monkeypatch.setattr(cuda, name, value)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", close, raising=False)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda device, pool: None, raising=False)


def test_streams_belong_to_the_device_and_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, device = FakeGpu(monkeypatch), torch.device("cuda:1")
    recorder = CudaRecorder(device)
    for value in (1.0, 2.0):
        assert recorder.record(lambda value=value: torch.tensor(value)).replay() == value  # type: ignore[misc]
    assert (gpu.streams, gpu.devices) == (1, [device])
    assert gpu.current is gpu.default


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("no kernel image")])
def test_a_failure_while_recording_leaves_all_as_it_was(
    monkeypatch: pytest.MonkeyPatch, error: Exception, broken: bool
) -> None:
    gpu, recorder, runs = FakeGpu(monkeypatch), CudaRecorder(torch.device("cuda:0")), []

    def fail() -> Tensor:
        runs.append(gpu.capturing)
        if gpu.capturing is not None:
            gpu.broken = broken
            raise error
        return torch.zeros(1)

    with pytest.raises(type(error), match=str(error)):  # the cause, and not what ending the recording raises
        recorder.record(fail)
    assert len(runs) == 2  # once to warm up
    assert gpu.current is gpu.default
    assert (gpu.capturing, gpu.pool_open) == (None, False)
    assert recorder.record(lambda: torch.ones(1)).replay() == 1


@pytest.mark.gpu
@pytest.mark.parametrize("device", range(8))
def test_each_device_records_on_its_own(device: int) -> None:
    if device >= torch.cuda.device_count():
        pytest.skip("no such device")
    model = build(dtype=torch.float32).to(f"cuda:{device}")
    network, memory = GraphTransformer(model), text(model, 1)
    wanted = decode(model, memory, [1], STEPS, frames=FRAMES)
    for _ in range(3):
        assert torch.equal(decode(network, memory, [1], STEPS, frames=FRAMES), wanted)
    assert network._graphs


@pytest.mark.gpu
def test_after_a_failure_while_recording_the_gpu_works(recwarn: pytest.WarningsRecorder) -> None:
    recorder, device = CudaRecorder(torch.device("cuda:0")), torch.device("cuda:0")
    values = torch.arange(4.0, device=device)
    before = torch.cuda.current_stream()
    for failing in (lambda: values[values > 1], lambda: torch.empty(1 << 60, device=device)):
        with pytest.raises(RuntimeError), recorder.device():
            recorder.record(failing)
        assert torch.cuda.current_stream() == before
        assert (values + torch.rand(4, device=device) >= values).all()
    with recorder.device():
        recording = recorder.record(lambda: values * 2)
    values.add_(1)
    assert recording.replay().tolist() == [2.0, 4.0, 6.0, 8.0]
