"""8-bit floats: products that err by their rounding and by nothing else, and who may ask for them."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from magnet_cli.engines import device
from magnet_cli.engines.cuda import GraphTransformer
from magnet_cli.engines.device import resolve_dtype
from magnet_cli.engines.linear import Float8Linear, PlainLinear, float8_or_plain
from magnet_cli.errors import DeviceError
from magnet_cli.model.config import DecoderConfig
from magnet_cli.model.decoder import MaskedTransformer
from magnet_cli.options.runtime import DTypeName, RuntimeConfig
from support.golden import CPU
from support.networks import CONFIG, FRAMES, NARROW, build, noise, random_codes, text

WIDE = replace(CONFIG, width=256, heads=4, feed_forward=1024, layers=6)

# e4m3 has 3 bits after the point: errors are uniform up to 1/16 of the power of two below a number, and numbers lie
# anywhere from that power to its double. Root mean square, relative to the number's: about 1/16 / sqrt(3) / 1.4.
ROUNDING = 1 / 16 / math.sqrt(3) / 1.4
PRODUCT = math.sqrt(2) * ROUNDING  # both sides are rounded, and errors of the terms of a sum are independent


def linear(inputs: int, outputs: int, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(inputs, outputs, bias=False, dtype=dtype).requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_err_by_their_rounding(dtype: torch.dtype) -> None:
    plain = linear(256, 96)
    plain.weight.mul_(torch.logspace(-5, 3, 96).unsqueeze(1))  # every output and every row by its own scale
    x = noise(50, 256).float() * torch.logspace(-6, 4, 50).unsqueeze(1)
    # A product of 256 independent numbers is as large as their norms, by the root of 256.
    wanted, size = plain(x), x.norm(dim=1, keepdim=True) * plain.weight.norm(dim=1) / math.sqrt(256)
    found = Float8Linear(plain.to(dtype))(x.to(dtype))
    assert found.dtype == dtype
    # Rounding to bfloat16, by 1/512 a few times, adds next to nothing.
    assert ((found - wanted) / size).square().mean().sqrt() == pytest.approx(PRODUCT, rel=0.1)


def test_a_row_does_not_depend_on_the_others() -> None:
    product, x = Float8Linear(linear(64, 32)), noise(9, 64).float()
    x[3] = 0
    x[4] *= 1e6
    together = product(x)
    assert not together[3].any()
    for row in range(len(x)):
        assert torch.equal(product(x[row : row + 1])[0], together[row])


def test_the_largest_number_is_kept_and_what_is_not_finite_stays_so() -> None:
    product = Float8Linear(linear(16, 16))
    for dtype in (torch.float32, torch.bfloat16):
        for largest in noise(200).abs().to(dtype):  # 1/448 of it rounds up for some and down for others
            x = torch.zeros(1, 16, dtype=dtype)
            x[0, 3] = largest
            wanted = x.float() @ (product._matrix.float() * product._scales)
            torch.testing.assert_close(product(x).float(), wanted, rtol=3 * 2.0**-8, atol=0.0)  # rounded three times
    for bad in (math.inf, math.nan):
        x[0, 5] = bad
        assert product(x).isnan().all()


def test_adding_and_writing_are_the_product() -> None:
    x, total, out = noise(5, 32).float(), noise(5, 48, seed=1).float(), torch.zeros(9, 48)
    for form in (Float8Linear, PlainLinear):
        product = form(linear(32, 48))
        added = total.clone()
        product.add(x, added)
        product(x, out=out[2:7])
        assert torch.equal(out[2:7], product(x))
        torch.testing.assert_close(added, total + product(x))  # in one kernel, which rounds once


def test_what_cannot_be_multiplied_stays_plain() -> None:
    assert isinstance(float8_or_plain(linear(32, 16)), Float8Linear)
    for sizes in ((24, 32), (32, 24)):
        assert isinstance(float8_or_plain(linear(*sizes)), PlainLinear)
        with pytest.raises(ValueError, match="multiples of 16"):
            Float8Linear(linear(*sizes))
    for form in (Float8Linear, PlainLinear):
        with pytest.raises(ValueError, match="bias"):
            form(nn.Linear(16, 16))


# -- logits -----------------------------------------------------------------------------------------------------------


class Rounded(nn.Module):
    """A linear layer of which weights and inputs are rounded to what 8-bit floats hold, and multiplied in float32."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.weight = rounded(plain.weight)

    def forward(self, x: Tensor) -> Tensor:
        return rounded(x) @ self.weight.t()


def rounded(x: Tensor) -> Tensor:
    """By the definition of the format: 4 significant bits, of exponents from -6 up, at a scale that makes 448 of 1."""
    scale = x.abs().amax(dim=-1, keepdim=True) / 448
    x = x / scale
    step = torch.exp2(x.abs().clamp(min=2.0**-6).log2().floor() - 3)
    return (x / step).round() * step * scale


def rounded_model(model: MaskedTransformer) -> MaskedTransformer:
    model = copy.deepcopy(model)
    for layer in model.layers:
        for owner, name in (
            (layer.self_attention, "qkv"),
            (layer.self_attention, "out"),
            (layer.cross_attention, "query"),
            (layer.cross_attention, "out"),
            (layer, "up"),
            (layer, "down"),
        ):
            setattr(owner, name, Rounded(getattr(owner, name)))
    return model


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_logits_are_those_of_rounded_numbers() -> None:
    model = build(NARROW, dtype=torch.float32)
    reference, network, memory = rounded_model(model), GraphTransformer(model, float8=True), text(model, 2)
    for codebook in (0, 1):
        codes = random_codes(2, FRAMES, seed=codebook)
        found, wanted = (one.guided(codes, codebook, memory, 3.0) for one in (network, reference))
        # Sums in another order differ by 1e-7, and where that moves a number past the middle between two that 8 bits
        # can hold, by 1/8 of it: one in 100,000, each of which reaches a few frames.
        assert relative(found, wanted) < 1e-3
        assert relative(found, model.guided(codes, codebook, memory, 3.0)) > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [NARROW, WIDE], ids=["narrow", "wide"])
def test_logits_are_near_those_of_float32(config: DecoderConfig, dtype: torch.dtype) -> None:
    model = build(config, dtype=torch.float32)
    for part in model.layers.modules():
        if isinstance(part, nn.Linear):  # outputs as large as inputs, as in models that are trained
            part.weight.mul_(1 / (0.4 * math.sqrt(part.in_features)))
    codes = random_codes(2, FRAMES)
    wanted = model.guided(codes, 1, text(model, 2), 1.0)
    model = model.to(dtype)
    found = GraphTransformer(model, float8=True).guided(codes, 1, text(model, 2), 1.0)
    # Each product errs by PRODUCT of itself, and one that is computed from others by what they err, too; but much of
    # the sum of all, which the logits come from, is the embeddings, which do not err. (Rounding to bfloat16 alone errs
    # by 0.006.)
    assert 0.5 * PRODUCT < relative(found, wanted) < 1.2 * PRODUCT


def test_a_clip_is_the_same_alone_and_in_a_batch() -> None:
    model, codes, states = build(WIDE, dtype=torch.bfloat16), random_codes(3, FRAMES), noise(3, 5, CONFIG.text_width)
    codes[1] = 0  # the clips' numbers are of other sizes
    network = GraphTransformer(model, float8=True)
    for codebook in (0, 1):
        together = network.guided(codes, codebook, model.text_memory(states, [5, 5, 5]), 3.0)
        for row in range(3):
            memory = model.text_memory(states[row : row + 1], [5])
            alone = network.guided(codes[row : row + 1], codebook, memory, 3.0)
            # Equal where products of any size are added up in the same order, as here. Where not, few of the sums
            # round otherwise, by 1/256.
            assert relative(together[row], alone[0]) < 0.01


# -- asked for --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "where", "message", "hint"),
    [
        ("float8", "cpu", "float8 runs on CUDA devices only, not on cpu", "int8"),
        ("float8", "mps", "float8 runs on CUDA devices only, not on mps", "float16"),
        ("float8", "cuda", "capability 8.9 or above (Ada, Hopper or later), which Old Card is not", "float16"),
        ("int8", "cuda", "int8 runs on CPUs only, not on cuda", "float16"),
    ],
)
def test_8_bits_are_refused_where_they_do_not_run(
    dtype: DTypeName, where: str, message: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Old Card")
    with pytest.raises(DeviceError) as caught:
        resolve_dtype(RuntimeConfig(dtype=dtype), torch.device(where))
    assert message in caught.value.message
    assert f"--dtype {hint}" in caught.value.hint


def test_around_8_bits_the_dtype_is_what_goes_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_dtype(RuntimeConfig(dtype="int8"), CPU) == torch.float32
    for capability in ((8, 9), (9, 0), (12, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        assert resolve_dtype(RuntimeConfig(dtype="float8"), torch.device("cuda")) == torch.bfloat16
    assert device.computes_float8(torch.device("cuda"))
