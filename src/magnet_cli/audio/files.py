"""Write and read audio files."""

from __future__ import annotations

import io
import os
import struct
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from magnet_cli.audio import blocks
from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.formats import check_format
from magnet_cli.audio.reading import opened
from magnet_cli.audio.riff_info import LoopMarks, add_riff_chunks, loop_chunks
from magnet_cli.disk.atomic import Content, write_atomic
from magnet_cli.errors import NumericsError, OutputError, UsageError
from magnet_cli.options.output import Subtype

SAMPLE_BYTES = {"pcm16": 2, "pcm24": 3, "float32": 4}
LOSSY = {".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", "MPEG_LAYER_III")}  # libsndfile's container and coding
BEST_MP3 = {"compression_level": 0.0, "bitrate_mode": "VARIABLE"}  # LAME's V0; by default libsndfile takes V5
LARGEST_WAV = (1 << 32) - (1 << 20)  # bytes of samples; sizes have 32 bits, and tags need some space
CHUNK = 1 << 16  # samples handed to libsndfile at a time: it overflows the stack on a Vorbis clip of 2 minutes at once


def encode_audio(
    path: Path,
    waveform: NDArray[np.float32],
    sample_rate: int,
    subtype: Subtype,
    *,
    tags: Mapping[str, str] | None = None,
    marks: LoopMarks | None = None,
) -> Content:
    """Encode a waveform, float32 [C, L] with full scale at 1, in the format that the extension of `path` names.

    Samples beyond full scale are clipped, except in float32 files. The same waveform gives the same bytes, except in
    .ogg files, whose stream number libsndfile draws. A large content is in a temporary file, which is mapped.
    tags: texts to embed, by soundfile's names, see `riff_info.TAGS`. marks: of a loop, for WAV files.
    Raises: UsageError for a format that cannot be written (see `check_format`), NumericsError for values that are not
        finite, OutputError for a waveform that is too long for the format or for the disk.
    """
    check_format(path, subtype, sample_rate)
    if waveform.ndim != 2 or waveform.size == 0:
        raise ValueError(f"a waveform is [C, L] and not empty, not {waveform.shape}")
    if not blocks.is_finite(waveform):
        raise NumericsError(
            "the waveform has samples that are not finite; nothing was written",
            "Try another seed; if every clip fails, fetch the model again",
        )
    extension = path.suffix.lower()
    size = waveform.size * (4 if extension != ".wav" else SAMPLE_BYTES[subtype])
    if extension == ".wav" and size > LARGEST_WAV:
        raise OutputError(
            f"{path} would have {size / 2**30:.1f} GiB, more than a WAV file can hold", "Choose a .flac file, or pcm16"
        )
    # Encode first and write later: inside libsndfile, a disk error or Ctrl-C would be printed and then lost.
    try:
        with blocks.scratch(size) as file:
            _encode(file, waveform, sample_rate, extension, subtype, tags or {})
            if extension == ".wav":
                add_riff_chunks(file, tags or {}, loop_chunks(marks, waveform.shape[1], sample_rate))
            return blocks.content(file)
    except soundfile.SoundFileError as error:
        raise OutputError(
            f"cannot encode {path}: {getattr(error, 'error_string', error)}",
            "Try a .wav file; if that fails too, report the message",
        ) from error


def write_audio(
    path: Path,
    waveform: NDArray[np.float32],
    sample_rate: int,
    subtype: Subtype,
    *,
    overwrite: bool = False,
    marks: LoopMarks | None = None,
) -> None:
    """Write an audio file; see `encode_audio`.

    Raises: OutputError for a file that exists (unless `overwrite`) or cannot be written.
    """
    encoded = encode_audio(path, waveform, sample_rate, subtype, marks=marks)
    write_atomic(path, lambda file: file.write(encoded), overwrite=overwrite)


def read_audio(path: Path) -> tuple[Waveform, int]:
    """Read an audio file: float32 [C, L], full scale at 1, and its sample rate in Hz.

    Reads the containers of `reading.CONTAINERS`, at most an hour. The file is read twice, because only reading shows
    how long it is. A long waveform is in a temporary file.
    Raises: UsageError for a file that is missing, is not audio, has no samples, or has values that are not finite.
    """
    channels, frames, sample_rate, _ = measure_audio(path)
    waveform, position = blocks.empty((channels, frames)), 0
    with opened(path) as file:
        for block in file.blocks_of(path):
            part = waveform[:, position : position + len(block)]
            if part.shape != block.T.shape:
                break
            part[:] = block.T
            position += len(block)
    if position != frames:
        raise UsageError(f"{path} changed while it was read", "Try again when it is complete")
    return waveform, sample_rate


class AudioForm(NamedTuple):
    """The form of an audio file. samples: in each channel; sample_rate: Hz; subtype: libsndfile's sample format."""

    channels: int
    samples: int
    sample_rate: int
    subtype: str


def measure_audio(path: Path) -> AudioForm:
    """The form of an audio file. Reads all of it; see `read_audio`."""
    with opened(path) as file:
        frames = sum(len(block) for block in file.blocks_of(path))
        if frames == 0:
            raise UsageError(f"{path} has no samples", "Give a file that contains audio")
        return AudioForm(file.channels, frames, int(file.samplerate), str(file.subtype))


def _encode(
    sink: BinaryIO,
    waveform: NDArray[np.float32],
    sample_rate: int,
    extension: str,
    subtype: Subtype,
    tags: Mapping[str, str],
) -> None:
    """Write a whole audio file into an empty one, in memory or temporary."""
    channels, samples = waveform.shape
    bits = 16 if subtype == "pcm16" else 24
    if extension == ".wav" and subtype == "float32":
        # libsndfile would put the time of day into the file (its PEAK chunk).
        sink.write(_float_header(channels, samples, sample_rate))
        for part in _chunks(samples):
            sink.write(np.ascontiguousarray(waveform[:, part].T, dtype="<f4").tobytes())
    else:
        container, coding = LOSSY.get(extension, (extension[1:].upper(), f"PCM_{bits}"))
        target = sink if isinstance(sink, io.BytesIO) else os.dup(sink.fileno())
        with soundfile.SoundFile(
            target,
            "w",
            samplerate=sample_rate,
            channels=channels,
            format=container,
            subtype=coding,
            **(BEST_MP3 if extension == ".mp3" else {}),
        ) as file:
            if extension != ".wav":
                for name, text in tags.items():
                    setattr(file, name, latin(text) if extension == ".mp3" else text)
            for part in _chunks(samples):
                frames = np.ascontiguousarray(waveform[:, part].T)
                file.write(np.clip(frames, -1.0, 1.0) if extension in LOSSY else quantize(frames, bits))


def latin(text: str) -> str:
    """A text in ASCII, without accents: libsndfile writes others wrongly into the ID3 tags of MP3 files."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _chunks(samples: int) -> Iterator[slice]:
    for start in range(0, samples, CHUNK):
        yield slice(start, min(start + CHUNK, samples))


def _float_header(channels: int, samples: int, sample_rate: int) -> bytes:
    """The header of a WAV file of 32-bit floats. Source: RFC 2361, WAVE_FORMAT_IEEE_FLOAT (3)."""
    frame = 4 * channels
    form = struct.pack("<HHIIHHH", 3, channels, sample_rate, frame * sample_rate, frame, 32, 0)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"fact" + struct.pack("<II", 4, samples)
    size = frame * samples
    return (
        b"RIFF" + struct.pack("<I", 4 + len(chunks) + 8 + size) + b"WAVE" + chunks + b"data" + struct.pack("<I", size)
    )


def quantize(waveform: NDArray[np.float32], bits: int) -> NDArray[Any]:
    """Nearest whole numbers of 16 or 24 bits, clipped; in the upper bits of int16 or int32, as libsndfile expects.

    libsndfile would truncate. There is no dither: it would have to be random, and the codec's own noise is well above
    -98 dBFS, the noise of 16 bits.
    """
    scale = 2 ** (bits - 1)
    # float64: float32 has 24 bits, too few for the rounding and for the bound scale - 1
    whole: NDArray[np.float64] = np.clip(np.rint(waveform.astype(np.float64) * scale), -scale, scale - 1)
    if bits == 16:
        return whole.astype(np.int16)
    return whole.astype(np.int32) << (32 - bits)
