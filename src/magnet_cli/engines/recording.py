"""CUDA graphs: a function's kernels recorded once, and started all at once when they are replayed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

WARM_UPS = 1  # runs on the recording stream, for which libraries allocate a workspace of its own


class Recording(Protocol):
    """A function that was recorded."""

    def replay(self) -> Tensor:
        """Run it again on what its inputs hold now. The next replay of any recording writes over the result."""


class Recorder(Protocol):
    """What records functions. Nothing but `CudaRecorder` is needed; tests have another one, for the CPU."""

    def device(self) -> AbstractContextManager[object]:
        """A context in which the device is the current one, for recording, replaying and running."""

    def record(self, function: Callable[[], Tensor]) -> Recording:
        """Record a function that has run before. Raises what the function or the driver raises."""

    def release(self) -> None:
        """Give up the memory that recordings share; the caller has given up the recordings."""


@dataclass(frozen=True)
class CudaRecording:
    """A CUDA graph, and the tensor that it writes."""

    graph: torch.cuda.CUDAGraph
    result: Tensor

    def replay(self) -> Tensor:
        """See Recording."""
        self.graph.replay()
        return self.result


class CudaRecorder:
    """Records on one CUDA device. All recordings share one pool of memory and one stream.

    A new stream for each recording would cost a cuBLAS workspace each.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any | None = None

    def device(self) -> AbstractContextManager[object]:
        """See Recorder. Streams, pools and graphs belong to the device that is current when they are made."""
        return torch.cuda.device(self._device)

    def record(self, function: Callable[[], Tensor]) -> CudaRecording:
        """See Recorder. A failure leaves the current stream as it was, and no allocation goes to the pool any more."""
        stream = self._stream = self._stream or torch.cuda.Stream(self._device)
        pool = self._pool = self._pool or torch.cuda.graph_pool_handle()
        stream.wait_stream(torch.cuda.current_stream(self._device))
        graph = torch.cuda.CUDAGraph()
        # Not `torch.cuda.graph`: when recording fails, it raises while it ends, so it hides the cause, leaves its
        # stream the current one, and has the allocator serve everything from the pool from then on.
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                function()
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()  # the pool takes none of the memory that is cached outside of it
            graph.capture_begin(pool=pool)
            try:
                result = function()
                graph.capture_end()
            except BaseException:
                self._abandon(graph, pool)
                raise
        torch.cuda.current_stream(self._device).wait_stream(stream)
        return CudaRecording(graph, result)

    def release(self) -> None:
        """See Recorder. The stream and its workspace stay."""
        self._pool = None

    def _abandon(self, graph: torch.cuda.CUDAGraph, pool: Any) -> None:
        """End a recording that has failed. Where ending fails, too, the allocator is still to be set right."""
        try:
            graph.capture_end()
        except RuntimeError:
            index = torch.cuda.current_device()
            for end in (torch._C._cuda_endAllocateToPool, torch._C._cuda_releasePool):
                with suppress(RuntimeError):  # the allocator was set right before the failure
                    end(index, pool)
        self._pool = None  # nothing else goes where the failed recording may have left memory in use
