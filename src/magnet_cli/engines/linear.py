"""The matrices of a layer in the form that is multiplied: plain, or in 8 bits, which is faster and approximate.

In 8 bits weights are rounded for each output, activations for each frame, so that no clip depends on what it is batched
with. On CPUs they are integers: the products run in PyTorch's own int8 kernels (FBGEMM, or oneDNN where the CPU has
VNNI instructions). On GPUs they are floats: the products run in cuBLAS, with tensor cores of the Ada generation or
later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from magnet_cli.engines.device import peak_size, product_rate
from magnet_cli.model.decoder import Layer
from magnet_cli.options.runtime import EightBits

WEIGHT_LEVELS = 127  # on either side of zero
FLOAT8 = torch.float8_e4m3fn
FLOAT8_LARGEST = 448.0  # the format has no infinity: larger numbers become NaN
FLOAT8_MULTIPLE = 16  # cuBLAS requires both sizes of a matrix to be multiples of this

L = TypeVar("L", bound=Callable[[Tensor], Tensor])


@dataclass(frozen=True)
class Projections(Generic[L]):
    """The matrices of one layer, in whatever form is fastest.

    All but the matrices for the text, which are used once per prompt.
    """

    qkv: L
    out: L
    cross_query: L
    cross_out: L
    up: L
    down: L

    @classmethod
    def of(cls, layer: Layer, form: Callable[[nn.Linear], L]) -> Projections[L]:
        """The matrices of a layer, each in this form."""
        own, cross = layer.self_attention, layer.cross_attention
        return cls(form(own.qkv), form(own.out), form(cross.query), form(cross.out), form(layer.up), form(layer.down))


class PlainLinear:
    """y = x W^T for a linear layer without bias, with W [out, in] unchanged. It shares the weight."""

    def __init__(self, linear: nn.Linear) -> None:
        _refuse_bias(linear)
        self._matrix = linear.weight.detach().t()

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """x: [M, in]. Returns [M, out], written to `out` where that is given."""
        return torch.mm(x, self._matrix) if out is None else torch.mm(x, self._matrix, out=out)

    def add(self, x: Tensor, total: Tensor) -> None:
        """total [M, out] += x W^T, in one kernel."""
        total.addmm_(x, self._matrix)


def activation_levels() -> int:
    """Levels on either side of zero. Without VNNI, pairs of 8-bit products overflow 16 bits unless one side has 7."""
    return 127 if torch.cpu._is_vnni_supported() else 63


class Int8Linear:
    """y = x W^T for a linear layer without bias, with W [out, in] and every row of x in 8-bit integers."""

    def __init__(self, linear: nn.Linear) -> None:
        _refuse_bias(linear)
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


class Float8Linear:
    """y = x W^T for a linear layer without bias, with W [out, in] and every row of x in 8-bit floats (e4m3).

    For bfloat16 and float32: the products of numbers up to 448, before they are scaled back, exceed float16. Rows are
    scaled outside of the product, so that each matrix has the one scale 1, which every CPU and GPU supports. Nothing
    waits for the device, so that it can be recorded in a graph.
    """

    def __init__(self, linear: nn.Linear) -> None:
        _refuse_bias(linear)
        if not fits_float8(linear):
            raise ValueError(f"a matrix in 8-bit floats has sizes that are multiples of {FLOAT8_MULTIPLE}")
        weight, scales = float8_rows(linear.weight.detach())
        self._matrix, self._scales = weight.t(), scales.squeeze(1)  # [in, out], column by column as cuBLAS wants it
        self._one = torch.ones((), device=weight.device)

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """x: [M, in]. Returns [M, out], written to `out` where that is given."""
        product, scales = self._product(x)
        product.mul_(scales)
        return product.mul_(self._scales) if out is None else torch.mul(product, self._scales, out=out)

    def add(self, x: Tensor, total: Tensor) -> None:
        """total [M, out] += x W^T."""
        product, scales = self._product(x)
        total.addcmul_(product.mul_(scales), self._scales)

    def _product(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The product [M, out] of the scaled rows, and their scales [M, 1]."""
        rows, scales = float8_rows(x)
        # Hopper's fast accumulation has some 14 bits, which is far more exact than the 4 bits of the factors.
        product = torch._scaled_mm(
            rows, self._matrix, scale_a=self._one, scale_b=self._one, out_dtype=x.dtype, use_fast_accum=True
        )
        return product, scales


Matrix = PlainLinear | Float8Linear


def float8_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in 8-bit floats, each scaled to their range, and the scales that undo this. [M, D] -> [M, D], [M, 1].

    The scale is rounded to the type of x first, so that the divisor and the later factor are exactly the same. The
    largest number may then exceed 448 by the half of a rounding step; up to 464 that is rounded to 448.
    """
    scales = x.abs().amax(dim=-1, keepdim=True).div_(FLOAT8_LARGEST).clamp_(min=torch.finfo(x.dtype).tiny)
    return (x / scales).to(FLOAT8), scales


def float8_or_plain(linear: nn.Linear) -> Matrix:
    """A linear layer in 8-bit floats; unchanged where cuBLAS does not support its sizes."""
    return Float8Linear(linear) if fits_float8(linear) else PlainLinear(linear)


def fits_float8(linear: nn.Linear) -> bool:
    """Whether cuBLAS multiplies matrices of a layer's sizes in 8-bit floats."""
    return not (linear.in_features % FLOAT8_MULTIPLE or linear.out_features % FLOAT8_MULTIPLE)


def _refuse_bias(linear: nn.Linear) -> None:
    if linear.bias is not None:
        raise ValueError("a linear layer with a bias is not supported here")


def eight_bit_rate(device: torch.device, kind: EightBits) -> float:
    """Operations per second of a plain product of matrices in 8 bits, the best of a few; compare `matmul_rate`."""
    size = peak_size(device)
    left, right = (torch.randn(size, size, device=device) for _ in range(2))
    if kind == "int8":
        # Activations of 7 bits where 8 would overflow, as in Int8Linear; the largest of the random numbers is about 6.
        numbers = torch.quantize_per_tensor(left, 6 / activation_levels(), activation_levels() + 1, torch.quint8)
        weight = torch.quantize_per_tensor(right, 6 / WEIGHT_LEVELS, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(weight, None)
        scale = 6.0 * size**0.5 / WEIGHT_LEVELS  # of the products
        return product_rate(lambda: torch.ops.quantized.linear(numbers, packed, scale, 128).int_repr(), size)
    one = torch.ones((), device=device)
    rows, columns = left.to(FLOAT8), right.to(FLOAT8).t()
    return product_rate(
        lambda: torch._scaled_mm(
            rows, columns, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
        ),
        size,
    )
