"""Random numbers that depend only on the seed and on the place where they are used.

Every number is a pure function of (seed, codebook, step, frame, code), so a clip draws the same numbers alone, in any
batch, in any order and on any device. The function is Philox4x32-10 of Salmon et al., "Parallel Random Numbers: As
Easy as 1, 2, 3" (SC 2011), written in int64 tensor operations and tested against the vectors its authors publish.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from magnet_cli.options.job import LARGEST_SEED

ROUNDS = 10
SMALL_ROUNDS = 2  # after which each word depends on the whole counter
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF

Words = tuple[Tensor, ...]
Word = Tensor | int


def _multiply(word: Word, multiplier: int) -> tuple[Word, Word]:
    """High and low 32 bits of the 64-bit product; int64 wraps around, which leaves all 64 bits right."""
    product = word * multiplier
    return (product >> 32) & WORD, product & WORD


def philox(counter: Words, key: Words) -> Words:
    """Philox4x32-10.

    counter: four, key: two int64 tensors that hold 32-bit words and broadcast against each other.
    Returns four int64 tensors of random 32-bit words.
    """
    even, odd = Keys.of(key).rounds(counter)
    return even[0], odd[0], even[1], odd[1]


@dataclass(frozen=True)
class Keys:
    """The keys of all rounds, and the multipliers: what does not depend on the counter.

    small: the two words of a key for each of the first rounds; lanes: both words [2, ...] for each of the others, in
    the order of the lanes, as are the factors [2, ...] of a round and of the next.
    """

    small: list[tuple[Tensor, Tensor]]
    lanes: list[Tensor]
    factors: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, key: Words) -> Keys:
        """Those of a key, whose two words are of any shape."""
        words = [
            [(word + turn * step) & WORD for turn in range(ROUNDS)]
            for word, step in zip(key, KEY_INCREMENTS, strict=True)
        ]
        pairs = list(zip(*words, strict=True))
        lanes = [
            torch.stack(pairs[number] if _is_swapped(number) else pairs[number][::-1])
            for number in range(SMALL_ROUNDS, ROUNDS)
        ]
        first, second = (torch.full((1,), factor, device=key[0].device) for factor in MULTIPLIERS)
        return cls(pairs[:SMALL_ROUNDS], lanes, (torch.stack([first, second]), torch.stack([second, first])))

    def rows(self, rows: Tensor) -> Keys:
        """Those of some of the keys, int64 [M]."""
        small = [(k0[rows], k1[rows]) for k0, k1 in self.small]
        return Keys(small, [lanes[:, rows] for lanes in self.lanes], self.factors)

    def rounds(self, counter: Sequence[Word]) -> tuple[Tensor, Tensor]:
        """All rounds for a counter of four words. Returns words 0 and 2 of the result, and words 1 and 3: [2, ...].

        A round multiplies two words, and what each product gives goes to the other. In the first rounds the words are
        small: each depends on few words of the counter. In the others both are in one tensor, as two lanes. On a GPU
        that is half the kernels.
        """
        c0, c1, c2, c3 = counter
        for k0, k1 in self.small:
            high0, low0 = _multiply(c0, MULTIPLIERS[0])
            high1, low1 = _multiply(c2, MULTIPLIERS[1])
            c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        lanes = torch.stack(torch.broadcast_tensors(c0, c2))  # then words 2 and 0, then 0 and 2 again, and so on
        lower: Sequence[Word] | Tensor = (c1, c3)
        for number, keys in enumerate(self.lanes, SMALL_ROUNDS):
            factors = self.factors[_is_swapped(number)]
            product = lanes * factors.view(-1, *[1] * (lanes.dim() - 1))
            # The shift copies the sign into the upper half, which is cut off last; so is that of `lower`.
            torch.bitwise_right_shift(product, 32, out=lanes)
            lanes[0].bitwise_xor_(lower[1])
            lanes[1].bitwise_xor_(lower[0])
            lanes.bitwise_xor_(keys).bitwise_and_(WORD)
            lower = product
        return lanes, product.bitwise_and_(WORD)


def _is_swapped(number: int) -> bool:
    """Whether the first lane of this round has word 2 of the counter."""
    return (number - SMALL_ROUNDS) % 2 == 1


@dataclass(frozen=True)
class Numbers:
    """The random numbers of a batch of clips, on a device."""

    keys: Keys
    device: torch.device

    @classmethod
    def of(cls, seeds: Sequence[int], device: torch.device | str) -> Numbers:
        """Those of a seed for each clip, 0 to 2**64 - 1."""
        for seed in seeds:
            if not 0 <= seed <= LARGEST_SEED:
                raise ValueError(f"a seed is between 0 and 2**64 - 1, not {seed}")

        def words(values: list[int]) -> Tensor:
            # Filled on the device: copying values to a GPU would wait until it has nothing else to do.
            return torch.stack([torch.full((1, 1), value, device=device) for value in values])

        key = words([seed & WORD for seed in seeds]), words([seed >> 32 for seed in seeds])  # [B, 1, 1]
        return cls(Keys.of(key), torch.device(device))

    def uniforms(self, *, codebook: int, step: int, frames: int, codes: int, first_frame: int = 0) -> Tensor:
        """Uniform random numbers in (0, 1) for every clip, frame and code of one decoding step.

        first_frame: number of the first of the `frames` frames. Returns float32 [B, T, V], the same on every device.
        """
        frame = torch.arange(first_frame, first_frame + frames, device=self.device).view(-1, 1)
        return self._uniforms(self.keys, frame, codebook=codebook, step=step, codes=codes)

    def uniforms_at(self, places: tuple[Tensor, Tensor], *, codebook: int, step: int, codes: int) -> Tensor:
        """The same at M places alone, which are in these clips and frames, int64 [M]. Returns float32 [M, V]."""
        clip, frame = places
        return self._uniforms(self.keys.rows(clip), frame.view(-1, 1, 1), codebook=codebook, step=step, codes=codes)[
            :, 0
        ]

    def _uniforms(self, keys: Keys, frame: Tensor, *, codebook: int, step: int, codes: int) -> Tensor:
        blocks = -(-codes // 4)  # one Philox call gives the words of four neighbouring codes
        block = torch.arange(blocks, device=self.device)
        even, odd = keys.rounds((block, frame, step, codebook))  # each [2, B, T, V/4]
        numbers = torch.empty(*even.shape[1:], 2, 2, device=self.device)  # [B, T, V/4, 2, 2]
        numbers[..., 0] = even.movedim(0, -1)
        numbers[..., 1] = odd.movedim(0, -1)
        # float32 keeps the small numbers fine-grained, which rare codes need; the few largest would round to 1.
        numbers.add_(0.5).mul_(2.0**-32).clamp_(max=1 - 2.0**-24)
        return numbers.flatten(2)[..., :codes]


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
    """The numbers of one step alone: see `Numbers`. Returns float32 [B, T, V]."""
    numbers = Numbers.of(seeds, device)
    return numbers.uniforms(codebook=codebook, step=step, frames=frames, codes=codes, first_frame=first_frame)
