"""Decode codes into waveforms of any length."""

from __future__ import annotations

from torch import Tensor

from magnet_cli.audio.blocks import Waveform, check_room_for, gather
from magnet_cli.model.codec import Codec

# Waveforms of a long clip that are in temporary files at once: as decoded, cut to its length, and at its level.
COPIES = 3


def decode_waveforms(codec: Codec, codes: Tensor, *, loop: bool) -> list[Waveform]:
    """The waveforms [C, L] of codes int64 [B, K, T], decoded piece by piece; see `Codec.decode`."""
    batch, _, frames = codes.shape
    pieces = [codec.decode(codes, loop=True)] if loop else codec.decode_pieces(codes)
    shape = (batch, codec.config.channels, frames * codec.config.hop)
    return gather((piece.cpu().numpy() for piece in pieces), shape)


def check_room(codec: Codec, batch: int, frames: int) -> None:
    """Raise OutputError unless the disk has room for a batch of clips of T `frames`; called before they are made."""
    check_room_for(COPIES * batch, codec.config.channels * frames * codec.config.hop)
