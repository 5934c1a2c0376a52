"""The codec in pieces: what the network makes of the whole, whatever the length of the pieces, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from magnet_cli.model.codec import PIECE, Codec, window
from magnet_cli.model.config import RELEASED_CODEC, CodecConfig
from support.golden import Golden
from support.memory import run_within
from support.networks import randomize

# Kernels add up in another order for other lengths: a few units of the last place, of peaks around 1.
ROUNDING = {torch.float32: 2e-6, torch.float64: 1e-12}

SMALL = replace(RELEASED_CODEC, dimension=8, n_filters=2, ratios=(5, 4, 2), codes=16)
SHAPES: dict[str, CodecConfig] = {
    "as released": SMALL,
    "no LSTM": replace(SMALL, lstm=0),
    "one LSTM": replace(SMALL, lstm=1),
    "causal": replace(SMALL, causal=True),
    "causal, trimmed on both sides": replace(SMALL, causal=True, trim_right_ratio=0.5),
    "reflecting": replace(SMALL, pad_mode="reflect"),
    "wide and deep": replace(SMALL, n_residual_layers=3, dilation_base=3, kernel_size=11, last_kernel_size=9),
    "with shortcuts": replace(SMALL, true_skip=False),
    "stereo": replace(SMALL, channels=2),
    "odd strides": replace(SMALL, ratios=(3, 7)),
    "bounded": replace(SMALL, final_activation="Tanh"),
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def codec(request: pytest.FixtureRequest) -> Codec:
    codec = Codec(request.param).double()  # in which nothing but rounding can be as small as rounding
    randomize(codec)
    for layer in codec.quantizer.vq.layers:
        book = layer._codebook.embed
        book.copy_(torch.randn(book.shape, generator=torch.Generator().manual_seed(1), dtype=book.dtype))
    return codec


def codes_of(codec: Codec, batch: int, frames: int) -> Tensor:
    shape = (batch, codec.config.codebooks, frames)
    return torch.randint(codec.config.codes, shape, generator=torch.Generator().manual_seed(2))


def whole(codec: Codec, codes: Tensor) -> Tensor:
    with torch.inference_mode():
        return codec.decoder(codec.quantizer.vq.decode(codes.transpose(0, 1)))


def check(codec: Codec, codes: Tensor, piece: int) -> None:
    wanted = whole(codec, codes)
    found = codec.decode(codes, piece=piece)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= ROUNDING[found.dtype] * max(1.0, float(wanted.abs().max()))
    parts = list(codec.decode_pieces(codes, piece=piece))
    assert [part.shape[-1] for part in parts[:-1]] == [piece * codec.config.hop] * (len(parts) - 1)
    assert torch.equal(torch.cat(parts, dim=-1), found)


@pytest.mark.parametrize("piece", [1, 2, 7, 30, 59, 60, 61])
def test_pieces_are_parts_of_the_whole(codec: Codec, piece: int) -> None:
    check(codec, codes_of(codec, 1, 60), piece)


@pytest.mark.parametrize("piece", [5, 33, 99])
@pytest.mark.parametrize("batch", [1, 3])
def test_pieces_of_the_golden_codecs(golden: Golden, piece: int, batch: int) -> None:
    check(golden.codec, codes_of(golden.codec, batch, 100), piece)


@pytest.mark.parametrize("extra", [-3, 0, 7])
@pytest.mark.parametrize("piece", [1, 4, 13, 40])
def test_codes_of_pieces_are_those_of_the_whole(codec: Codec, piece: int, extra: int) -> None:
    """Also where the last frame is not whole: it is padded at the end of the sound, and nowhere else."""
    shape = (2, codec.config.channels, 40 * codec.config.hop + extra)
    waveform = 0.5 * torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.inference_mode():
        wanted = codec.quantizer.vq.encode(codec.encoder(waveform)).transpose(0, 1)
    found = codec.encode(waveform, piece=piece)
    assert torch.equal(found, wanted)


def test_a_clip_of_any_released_model_is_decoded_as_a_whole(golden: Golden) -> None:
    assert 30 * golden.codec.config.frame_rate <= PIECE
    codes = codes_of(golden.codec, 1, PIECE)
    assert torch.equal(golden.codec.decode(codes), whole(golden.codec, codes))


def test_the_beginning_does_not_depend_on_the_length(golden: Golden) -> None:
    """All windows have one length, so even rounding is the same: however much follows, and to the last bit."""
    codes, hop = codes_of(golden.codec, 1, 400), golden.codec.config.hop
    longest = golden.codec.decode(codes, piece=60)
    for frames in (200, 301, 399):
        shorter = golden.codec.decode(codes[..., :frames], piece=60)
        same = (frames // 60 - 1) * 60 * hop  # the last windows are moved, and the end is padded
        assert torch.equal(shorter[..., :same], longest[..., :same])


def test_a_loop_of_many_pieces_is_the_loop_of_one(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = codes_of(golden.codec, 2, 90)
    wanted = golden.codec.decode(codes, loop=True)
    plain = golden.codec.decode

    def in_pieces(codes: Tensor, **options: Any) -> Tensor:
        return plain(codes, piece=25, **options)

    monkeypatch.setattr(golden.codec, "decode", in_pieces)
    found = golden.codec._decode_loop(codes)
    assert (found - wanted).abs().max() <= ROUNDING[found.dtype]


def windows(frames: int, piece: int, margin: int) -> Iterator[tuple[int, int]]:
    for start in range(0, frames, piece):
        yield window(start, frames, length=piece + 2 * margin, margin=margin)


@pytest.mark.parametrize(
    ("frames", "piece", "margin"), [(100, 10, 3), (101, 10, 3), (11, 10, 3), (7, 10, 3), (30, 1, 9)]
)
def test_windows_hold_their_piece_and_have_one_length(frames: int, piece: int, margin: int) -> None:
    for start, (first, last) in zip(range(0, frames, piece), windows(frames, piece, margin), strict=True):
        assert last - first == min(piece + 2 * margin, frames)
        assert first <= max(start - margin, 0)
        assert last >= min(start + piece + margin, frames)


def test_memory_does_not_grow_with_the_length() -> None:
    """A minute at 32 kHz, of which each of the last layers' tensors takes 120 MB: less than two of them, in all."""
    done = run_within(
        200,
        """
        import torch
        from dataclasses import replace
        from magnet_cli.model.codec import Codec
        from magnet_cli.model.config import RELEASED_CODEC
        codec = Codec(replace(RELEASED_CODEC, n_filters=16, codes=64)).eval()
        codec.decode(torch.zeros(1, 4, 20, dtype=torch.long))
        """,
        """
        codes = torch.zeros(1, 4, 3000, dtype=torch.long)
        print(sum(part.shape[-1] for part in codec.decode_pieces(codes, piece=100)))
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(60 * 32_000)
