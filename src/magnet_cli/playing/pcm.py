"""Samples as players and pipes take them."""

from __future__ import annotations

import struct

import numpy as np

from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.files import quantize

UNKNOWN = 0xFFFFFFFF  # what ffmpeg, sox and arecord write for a length that is not known yet


def pcm16(waveform: Waveform) -> bytes:
    """A waveform [C, L] as signed 16-bit samples, little-endian, the channels in turn."""
    return np.ascontiguousarray(quantize(waveform.T, 16), dtype="<i2").tobytes()


def endless_wav_header(channels: int, sample_rate: int) -> bytes:
    """The header of a WAV stream of 16-bit samples whose length is not known."""
    frame = 2 * channels
    form = struct.pack("<HHIIHH", 1, channels, sample_rate, frame * sample_rate, frame, 16)
    head = b"RIFF" + struct.pack("<I", UNKNOWN) + b"WAVE" + b"fmt " + struct.pack("<I", len(form)) + form
    return head + b"data" + struct.pack("<I", UNKNOWN)
