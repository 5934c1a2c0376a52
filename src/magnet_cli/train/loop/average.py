"""The moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of a network's weights, which is what is published.

    Its decay is `min(decay, (1 + n) / (10 + n))` after n updates: an early average forgets faster, so that after a
    short training it is not dominated by the initial weights.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {name: one.detach().clone() for name, one in self._floats(module)}

    @staticmethod
    def _floats(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                yield name, tensor

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Add the current weights of the network to the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, tensor in self._floats(module):
            self.weights[name].lerp_(tensor.to(self.weights[name].device), 1 - decay)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Give the network the averaged weights while the block runs."""
        own = {name: tensor.detach().clone() for name, tensor in self._floats(module)}
        module.load_state_dict(self.weights, strict=False)
        try:
            yield
        finally:
            module.load_state_dict(own, strict=False)

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs."""
        return {"updates": self.updates, "weights": self.weights}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state."""
        self.updates = int(state["updates"])
        for name, tensor in state["weights"].items():
            self.weights[name].copy_(tensor)
