"""Counts operations that are kernels on a GPU: all but those that only look at a tensor in another way."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

# Operations without a kernel: views, and memory that is not filled.
FREE = frozenset(
    {
        "alias",
        "as_strided",
        "detach",
        "empty",
        "empty_like",
        "empty_strided",
        "expand",
        "movedim",
        "new_empty",
        "permute",
        "select",
        "slice",
        "split",
        "squeeze",
        "t",
        "transpose",
        "unbind",
        "unfold",
        "unsqueeze",
        "view",
        "_unsafe_view",
    }
)


class Kernels(TorchDispatchMode):
    """Counts within a `with` block, by the name of the operation."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many there were."""
        return self.names.total()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name not in FREE:
            self.names[name] += 1
        return function(*args, **(kwargs or {}))
