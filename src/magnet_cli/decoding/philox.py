"""Random numbers that depend only on the seed and on the place where they are used.

Every number is a pure function of (seed, codebook, step, frame, code), so a clip draws the same numbers alone, in any
batch, in any order and on any device. The function is Philox4x32-10 of Salmon et al., "Parallel Random Numbers: As
Easy as 1, 2, 3" (SC 2011), written in int64 tensor operations and tested against the vectors its authors publish.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from magnet_cli.options.job import LARGEST_SEED

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF

Words = tuple[Tensor, ...]


def _multiply(word: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of the 64-bit product; int64 wraps around, which leaves all 64 bits right."""
    product = word * multiplier
    return (product >> 32) & WORD, product & WORD


def _turned(key: Tensor, increment: int, turns: Tensor) -> Tensor:
    """A key's word in each of R rounds: [...] -> [R, ...]."""
    return (key + (turns * increment).view(-1, *[1] * key.dim())) & WORD


def philox(counter: Words, key: Words) -> Words:
    """Philox4x32-10.

    counter: four, key: two int64 tensors that hold 32-bit words and broadcast against each other.
    Returns four int64 tensors of random 32-bit words.
    """
    c0, c1, c2, c3 = counter
    turns = torch.arange(ROUNDS, device=c0.device)
    # All rounds' keys at once: on a GPU two small kernels for each round would be a quarter of all.
    keys = (_turned(word, increment, turns) for word, increment in zip(key, KEY_INCREMENTS, strict=True))
    for k0, k1 in zip(*keys, strict=True):
        high0, low0 = _multiply(c0, MULTIPLIERS[0])
        high1, low1 = _multiply(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
    return c0, c1, c2, c3


def uniforms(
    seeds: Sequence[int],
    *,
    codebook: int,
    step: int,
    frames: int,
    codes: int,
    device: torch.device | str,
    first_frame: int = 0,
) -> Tensor:
    """Uniform random numbers in (0, 1) for every item, frame and code of one decoding step.

    seeds: one for each item, 0 to 2**64 - 1; first_frame: number of the first of the `frames` frames.
    Returns float32 [B, T, V], the same on every device.
    """
    for seed in seeds:
        if not 0 <= seed <= LARGEST_SEED:
            raise ValueError(f"a seed is between 0 and 2**64 - 1, not {seed}")

    def words(values: list[int], shape: tuple[int, ...]) -> Tensor:
        # Filled on the device: copying values to a GPU would wait until it has nothing else to do.
        return torch.stack([torch.full((), value, device=device) for value in values]).view(shape)

    per_item = (-1, 1, 1)
    key = (words([s & WORD for s in seeds], per_item), words([s >> 32 for s in seeds], per_item))
    blocks = -(-codes // 4)  # one Philox call gives the words of four neighbouring codes
    counter = (
        torch.arange(blocks, device=device).view(1, 1, -1),
        torch.arange(first_frame, first_frame + frames, device=device).view(1, -1, 1),
        words([step], (1, 1, 1)),
        words([codebook], (1, 1, 1)),
    )
    random = torch.stack(philox(counter, key), dim=-1)  # [B, T, V/4, 4]
    random = random.flatten(2)[..., :codes]
    # float32 keeps the small numbers fine-grained, which rare codes need; the few largest would round to 1.
    return ((random.float() + 0.5) * 2.0**-32).clamp_(max=1 - 2.0**-24)
