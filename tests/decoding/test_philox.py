"""Counter-based random numbers."""

from __future__ import annotations

import pytest
import torch

from magnet_cli.decoding.philox import Numbers, philox, uniforms
from magnet_cli.options.job import LARGEST_SEED
from support.kernels import Kernels

# Known answers of Random123, the authors' library (tests/kat_vectors, philox4x32 with 10 rounds).
KNOWN_ANSWERS = [
    (
        (0x00000000, 0x00000000, 0x00000000, 0x00000000),
        (0x00000000, 0x00000000),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(
    counter: tuple[int, ...], key: tuple[int, ...], answer: tuple[int, ...]
) -> None:
    words = philox(tuple(map(torch.tensor, counter)), tuple(map(torch.tensor, key)))
    assert tuple(int(word) for word in words) == answer


def test_a_number_is_what_philox_gives_for_its_counter() -> None:
    seed, codebook, step, frame, code = 0x0123456789ABCDEF, 3, 7, 11, 22
    found = uniforms([seed], codebook=codebook, step=step, frames=12, codes=64, device="cpu")[0, frame, code]
    counter = tuple(map(torch.tensor, (code // 4, frame, step, codebook)))
    key = tuple(map(torch.tensor, (seed & 0xFFFFFFFF, seed >> 32)))
    word = int(philox(counter, key)[code % 4])
    assert found == pytest.approx((word + 0.5) / 2**32, rel=2**-23)  # rounding to float32


def test_numbers_do_not_depend_on_batch_order_or_length() -> None:
    batch = uniforms([5, 2**63 + 1, 9], codebook=1, step=2, frames=30, codes=62, device="cpu")
    again = uniforms([9, 5], codebook=1, step=2, frames=10, codes=62, device="cpu")
    assert torch.equal(again[0], batch[2, :10])
    assert torch.equal(again[1], batch[0, :10])


def test_every_part_of_the_counter_matters() -> None:
    base = {"codebook": 0, "step": 0, "frames": 4, "codes": 8, "device": "cpu"}
    draws = [uniforms([seed], **base) for seed in (0, 1, 2**32, 2**63, LARGEST_SEED)]  # type: ignore[arg-type]
    draws += [uniforms([0], **{**base, name: 1}) for name in ("codebook", "step")]  # type: ignore[arg-type]
    numbers = torch.cat([draw.flatten() for draw in draws])
    assert len(numbers.unique()) == len(numbers)


@pytest.mark.parametrize("first_frame", [0, 100])
def test_numbers_at_places_are_those_of_the_whole(first_frame: int) -> None:
    numbers, options = Numbers.of([5, 2**63 + 1, 9], "cpu"), {"codebook": 1, "step": 2, "codes": 62}
    whole = numbers.uniforms(frames=30, first_frame=first_frame, **options)
    clip, frame = (torch.rand(3, 30) < 0.3).nonzero(as_tuple=True)
    assert torch.equal(numbers.uniforms_at((clip, frame + first_frame), **options), whole[clip, frame])


@pytest.mark.parametrize("batch", [1, 8])
def test_a_step_takes_few_kernels(batch: int) -> None:
    """On a GPU each takes as long as starting it; the plain formula takes 142."""
    numbers = Numbers.of(list(range(batch)), "cpu")
    with Kernels() as kernels:
        numbers.uniforms(codebook=0, step=1, frames=12, codes=64)
    assert kernels.count <= 78


def test_numbers_are_uniform_and_open_at_both_ends() -> None:
    numbers = uniforms([1, 2], codebook=0, step=0, frames=500, codes=2048, device="cpu").flatten()
    assert numbers.min() > 0
    assert numbers.max() < 1
    counts = torch.histc(numbers, bins=256, min=0, max=1)
    expected = len(numbers) / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 255 + 5 * (2 * 255) ** 0.5  # 5 standard deviations above the mean


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range_are_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="seed"):
        uniforms([seed], codebook=0, step=0, frames=1, codes=4, device="cpu")


@pytest.mark.gpu
def test_numbers_are_the_same_on_a_gpu() -> None:
    options = {"codebook": 2, "step": 5, "frames": 50, "codes": 2048}
    on_cpu = uniforms([7, 8], **options, device="cpu")  # type: ignore[arg-type]
    assert torch.equal(uniforms([7, 8], **options, device="cuda").cpu(), on_cpu)  # type: ignore[arg-type]
