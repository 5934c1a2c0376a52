"""Matrices of 8 bits for CPUs: smaller and faster than float32, and approximate.

Weights are rounded for each output, activations for each frame, so that no clip depends on what it is batched with.
The products run in PyTorch's own int8 kernels (FBGEMM, or oneDNN where the CPU has VNNI instructions).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from magnet_cli.transformer import Layer

WEIGHT_LEVELS = 127  # to either side of zero


def activation_levels() -> int:
    """Steps to either side of zero. Without VNNI, pairs of 8-bit products overflow 16 bits unless one side has 7."""
    return 127 if torch.cpu._is_vnni_supported() else 63


class Int8Linear:
    """y = x W^T for a linear layer without bias, with W [out, in] and every row of x in 8 bits."""

    def __init__(self, linear: nn.Linear) -> None:
        if linear.bias is not None:
            raise ValueError("a linear layer with bias cannot be quantized")
        weight = linear.weight.detach().float()
        scales = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / WEIGHT_LEVELS
        zeros = torch.zeros(len(scales), dtype=torch.long)
        quantized = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
        self._packed: Any = torch.ops.quantized.linear_prepack(quantized, None)
        self._levels: int = activation_levels()

    def __call__(self, x: Tensor) -> Tensor:
        """x: float32 [M, in]. Returns float32 [M, out]."""
        largest = x.abs().amax(dim=-1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny)
        multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        return multiply(x / largest, 1 / self._levels, self._levels + 1, self._packed).mul_(largest)


def int8_layers(layer: Layer) -> tuple[nn.Linear, ...]:
    """The matrices of a layer that are worth it: all but those of the text, which are used once per prompt."""
    own, cross = layer.self_attention, layer.cross_attention
    return own.qkv, own.out, cross.query, cross.out, layer.up, layer.down
