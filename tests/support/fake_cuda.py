"""A CUDA device that computes nothing: tensors with shapes, dtypes and a device, which PyTorch checks as on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map


class FakeCuda(TorchDispatchMode):
    """Tensors on CUDA are fakes, those on the CPU are real.

    An operation on both fails, except with a CPU's scalar, as does one whose result or size depends on values.
    """

    def __init__(self) -> None:
        super().__init__()
        self._fakes = FakeTensorMode(allow_non_fake_inputs=True)

    def __enter__(self) -> FakeCuda:
        self._fakes.__enter__()  # while it is active, PyTorch does not look for a driver
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._fakes.__exit__(*exception)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_flatten((args, kwargs or {}))[0]
        on_cuda = any(
            isinstance(one, FakeTensor) or (isinstance(one, torch.device) and one.type == "cuda") for one in given
        )
        if on_cuda:
            args, kwargs = tree_map(self._fake, (args, kwargs or {}))
            return function(*args, **kwargs)
        with _disable_current_modes():
            return function(*args, **(kwargs or {}))

    def _fake(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or isinstance(value, FakeTensor):
            return value
        with _disable_current_modes():
            return self._fakes.from_tensor(value)


@dataclass(frozen=True)
class FakeRecording:
    """A recorded function, which is called again."""

    function: Callable[[], Tensor]

    def replay(self) -> Tensor:
        """See Recording."""
        return self.function()


class FakeRecorder:
    """Records by calling."""

    def device(self) -> AbstractContextManager[object]:
        """See Recorder."""
        return nullcontext()

    def record(self, function: Callable[[], Tensor]) -> FakeRecording:
        """See Recorder."""
        function()
        return FakeRecording(function)

    def release(self) -> None:
        """See Recorder."""
