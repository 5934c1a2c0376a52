"""A stand-in for CUDA graphs that needs no GPU, and is stricter than they are about what may be recorded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

aten = torch.ops.aten
# What waits for the device: reading a value, or sizes that depend on values. CUDA refuses these while it records.
FORBIDDEN = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.unique_consecutive.default,
    aten._unique2.default,
    aten.repeat_interleave.Tensor,
    aten.is_nonzero.default,
}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


class TapeError(RuntimeError):
    """An operation that a CUDA graph cannot have."""


@dataclass(frozen=True)
class Played:
    """An operation with the very tensors that it had."""

    function: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    made: list[Tensor]  # results in memory of their own, and not views


@dataclass
class Tape(TorchDispatchMode):
    """Notes every operation below it, and refuses those that wait for the device."""

    operations: list[Played] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        given = [one for one in tree_flatten((args, keywords))[0] if isinstance(one, Tensor)]
        if function in FORBIDDEN:
            raise TapeError(f"{function} waits for the device")
        if function in INDEXING and any(one is not None and one.dtype == torch.bool for one in args[1]):
            raise TapeError(f"{function} by a mask has a size that depends on values")
        result = function(*args, **keywords)
        memory = {one.untyped_storage().data_ptr() for one in given}
        found = [one for one in tree_flatten(result)[0] if isinstance(one, Tensor)]
        made = [one for one in found if one.untyped_storage().data_ptr() not in memory]
        self.operations.append(Played(function, args, keywords, made))
        return result


@dataclass(frozen=True)
class TapeRecording:
    """A recorded function."""

    operations: list[Played]
    result: Tensor

    def replay(self) -> Tensor:
        """Spoil all that was allocated while it was recorded, then do every operation again, in the same memory."""
        for one in self.operations:
            for tensor in one.made:
                spoil(tensor)
        for one in self.operations:
            again = tree_flatten(one.function(*one.arguments, **one.keywords))[0]
            fresh = [found for found in again if isinstance(found, Tensor)]
            if one.made:
                for old, new in zip(one.made, fresh[-len(one.made) :], strict=True):
                    old.copy_(new)
        return self.result


def spoil(tensor: Tensor) -> None:
    """Fill a tensor with what no computation survives unnoticed."""
    if tensor.is_floating_point():
        tensor.fill_(float("nan"))
    elif tensor.dtype == torch.bool:
        tensor.fill_(True)
    else:
        tensor.fill_(-(2**30))


class TapeRecorder:
    """Records tapes. fails: raised instead, by as many recordings."""

    def __init__(self, *, fails: list[Exception] | None = None) -> None:
        self.recordings: list[TapeRecording] = []
        self.released = 0
        self._fails = fails or []

    def device(self) -> AbstractContextManager[object]:
        """See Recorder."""
        return contextlib.nullcontext()

    def record(self, function: Callable[[], Tensor]) -> TapeRecording:
        """See Recorder."""
        if self._fails:
            raise self._fails.pop(0)
        with Tape() as tape:
            result = function()
        self.recordings.append(TapeRecording(tape.operations, result))
        return self.recordings[-1]

    def release(self) -> None:
        """See Recorder."""
        self.released += 1
