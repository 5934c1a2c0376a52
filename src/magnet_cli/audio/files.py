"""Audio files: waveforms in and out."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from magnet_cli.audio import blocks
from magnet_cli.audio.atomic import write_atomic
from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.formats import check_format
from magnet_cli.audio.reading import opened
from magnet_cli.audio.riff_info import add_riff_tags
from magnet_cli.errors import NumericsError, OutputError, UsageError
from magnet_cli.options.output import Subtype

CHUNK = 1 << 16  # samples handed to libsndfile at a time: it overflows the stack on a Vorbis clip of 2 minutes at once


def encode_audio(
    path: Path,
    waveform: NDArray[np.float32],
    sample_rate: int,
    subtype: Subtype,
    *,
    tags: Mapping[str, str] | None = None,
) -> bytes:
    """The content of an audio file: a waveform, float32 [C, L] with full scale at 1, as the extension of `path` says.

    What exceeds full scale is clipped, except in float32 files, which keep it. Nothing is random, so the same waveform
    gives the same bytes, except for .ogg, whose stream number libsndfile draws.
    tags: what to embed, by soundfile's names, see `riff_info.TAGS`.
    Raises UsageError for a format that cannot be (see `check_format`), NumericsError for values that are not finite.
    """
    check_format(path, subtype)
    if waveform.ndim != 2 or waveform.size == 0:
        raise ValueError(f"a waveform is [C, L] and not empty, not {waveform.shape}")
    if not np.isfinite(waveform).all():
        raise NumericsError(
            "the waveform holds samples that are not finite, nothing was written",
            "Try another seed; if every clip fails, fetch the model again",
        )
    # Encoded in memory: from inside libsndfile's callbacks an error of the disk, or Ctrl-C, would be printed and lost.
    try:
        return _encode(waveform.T, sample_rate, path.suffix.lower(), subtype, tags or {})
    except soundfile.SoundFileError as error:
        raise OutputError(
            f"cannot encode {path}: {getattr(error, 'error_string', error)}",
            "Try a .wav file; if that fails too, report the message",
        ) from error


def write_audio(
    path: Path, waveform: NDArray[np.float32], sample_rate: int, subtype: Subtype, *, overwrite: bool = False
) -> None:
    """Write an audio file; see `encode_audio`. OutputError for one that exists (unless `overwrite`) or cannot be."""
    encoded = encode_audio(path, waveform, sample_rate, subtype)
    write_atomic(path, lambda file: file.write(encoded), overwrite=overwrite)


def read_audio(path: Path) -> tuple[Waveform, int]:
    """Read an audio file: float32 [C, L], full scale at 1, and its sample rate in Hz.

    Reads the containers of `reading.CONTAINERS`, at most an hour. It is read twice, since nothing but reading says how
    long a file is; a long one lies in a temporary file. Raises UsageError for a file that is missing, is not audio,
    holds no samples, or holds values that are not finite.
    """
    channels, frames, sample_rate = measure_audio(path)
    waveform, position = blocks.empty((channels, frames)), 0
    with opened(path) as file:
        for block in file.blocks_of(path):
            part = waveform[:, position : position + len(block)]
            if part.shape != block.T.shape:
                break
            part[:] = block.T
            position += len(block)
    if position != frames:
        raise UsageError(f"{path} has changed while it was read", "Try again when it is complete")
    return waveform, sample_rate


def measure_audio(path: Path) -> tuple[int, int, int]:
    """Channels, samples in each and sample rate (Hz) of an audio file, all of which is read; see `read_audio`."""
    with opened(path) as file:
        frames = sum(len(block) for block in file.blocks_of(path))
        if frames == 0:
            raise UsageError(f"{path} holds no samples", "Give a file with audio in it")
        return file.channels, frames, int(file.samplerate)


def _encode(
    frames: NDArray[np.float32], sample_rate: int, extension: str, subtype: Subtype, tags: Mapping[str, str]
) -> bytes:
    """Samples [L, C] -> the bytes of a file."""
    buffer = io.BytesIO()
    if extension == ".wav" and subtype == "float32":
        from scipy.io import wavfile  # takes longer to import than to write

        # libsndfile would put the time of day into the file (its PEAK chunk).
        wavfile.write(buffer, sample_rate, np.ascontiguousarray(frames, dtype=np.float32))
        return add_riff_tags(buffer.getvalue(), tags)
    if extension == ".ogg":
        container, coding = "OGG", "VORBIS"
        data: NDArray[Any] = np.clip(frames, -1.0, 1.0).astype(np.float32)
    else:
        container, coding = extension[1:].upper(), "PCM_16" if subtype == "pcm16" else "PCM_24"
        data = _quantize(frames, 16 if subtype == "pcm16" else 24)
    data = np.ascontiguousarray(data)
    with soundfile.SoundFile(
        buffer, "w", samplerate=sample_rate, channels=data.shape[1], format=container, subtype=coding
    ) as file:
        if extension != ".wav":
            for name, text in tags.items():
                setattr(file, name, text)
        for start in range(0, len(data), CHUNK):
            file.write(data[start : start + CHUNK])
    return add_riff_tags(buffer.getvalue(), tags) if extension == ".wav" else buffer.getvalue()


def _quantize(waveform: NDArray[np.float32], bits: int) -> NDArray[Any]:
    """Nearest whole numbers of 16 or 24 bits, clipped; in the upper bits of int16 or int32, as libsndfile wants them.

    Done here because libsndfile truncates. Without dither: it would have to be random, and the codec's own noise lies
    well above -98 dBFS, where 16 bits put theirs.
    """
    scale = 2 ** (bits - 1)
    # float64: float32 holds 24 bits, so that rounding and the bound scale - 1 would be lost on it
    whole: NDArray[np.float64] = np.clip(np.rint(waveform.astype(np.float64) * scale), -scale, scale - 1)
    if bits == 16:
        return whole.astype(np.int16)
    return whole.astype(np.int32) << (32 - bits)
