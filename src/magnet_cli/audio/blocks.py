"""Waveforms of any length in bounded memory: where they are stored, and the blocks they are processed in."""

from __future__ import annotations

import io
import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from magnet_cli.disk.atomic import Content, reason
from magnet_cli.errors import OutputError

Waveform = NDArray[np.float32]  # [C, L], full scale at 1

# Samples of each channel that are processed at once. Three rounds of the longest loop of any released model (90 s at
# 32 kHz) have fewer, so that every ordinary clip is one block, and dozens of copies of a block fit into memory.
BLOCK = 3 << 20
IN_MEMORY = 1 << 26  # bytes; a larger waveform is in a temporary file. 17 minutes at 16 kHz
ZEROS = 1 << 20  # bytes written at a time to reserve disk space


def spans(length: int, *, multiple: int = 1) -> Iterator[slice]:
    """Slices that cover `length` samples, of at most BLOCK each; all but the last are a whole `multiple` long."""
    block = max(BLOCK // multiple, 1) * multiple
    for start in range(0, length, block):
        yield slice(start, min(start + block, length))


def empty(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """An array for a waveform [C, L], not filled; a large one is mapped to a temporary file.

    The file has no name, so that the system frees it however the process ends. It is in TMPDIR if that is set, and
    otherwise in the system's folder for large temporary files.
    Raises: OutputError when there is not enough space.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= IN_MEMORY:
        return np.empty(shape, dtype)
    with _temporary(size) as file:
        _reserve(file.fileno(), size)
        return np.memmap(file, dtype=dtype, mode="r+", shape=shape)


@contextmanager
def scratch(size: int) -> Iterator[BinaryIO]:
    """A file for about `size` bytes, in memory or, as in `empty`, a temporary one. It is closed afterwards."""
    with io.BytesIO() if size <= IN_MEMORY else _temporary(size) as file:
        yield file


def content(file: BinaryIO) -> Content:
    """The content of a file from `scratch`. That of a temporary file is mapped and outlives the file object."""
    if isinstance(file, io.BytesIO):
        return file.getvalue()
    file.flush()
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def check_room_for(waveforms: int, samples: int) -> None:
    """Raise OutputError unless there is disk space for this many waveforms of this many samples in all channels.

    Call it before the work that needs the space. Short waveforms stay in memory and need none.
    """
    if (size := 4 * samples) > IN_MEMORY:
        _check_room(waveforms * size)


def _check_room(size: int) -> None:
    folder = temporary_folder()
    free = shutil.disk_usage(folder).free
    if size > free:
        raise _no_room(folder, size, f"{free / 1e9:.1f} GB are free")


@contextmanager
def _temporary(size: int) -> Iterator[BinaryIO]:
    """A temporary file without a name for `size` bytes; OutputError if the disk cannot hold it."""
    folder = temporary_folder()
    try:
        _check_room(size)
        with tempfile.TemporaryFile(dir=folder) as file:
            yield file
    except OSError as error:
        raise _no_room(folder, size, reason(error)) from error


def _no_room(folder: Path, size: int, why: str) -> OutputError:
    return OutputError(
        f"a temporary file of {size / 1e9:.1f} GB does not fit into {folder}: {why}",
        "Free some space, or set TMPDIR to a folder on another disk",
    )


def gather(pieces: Iterable[Waveform], shape: tuple[int, int, int]) -> list[Waveform]:
    """The waveforms [C, L] of a batch of shape [B, C, L], from consecutive pieces [B, C, n] of the batch."""
    batch, channels, samples = shape
    waveforms = [empty((channels, samples)) for _ in range(batch)]
    position = 0
    for piece in pieces:
        end = position + piece.shape[-1]
        for waveform, part in zip(waveforms, piece, strict=True):
            waveform[:, position:end] = part
        position = end
    return waveforms


def copy(waveform: NDArray[Any]) -> NDArray[Any]:
    """A copy of a waveform [C, L]."""
    again = empty(waveform.shape, waveform.dtype)
    for part in spans(waveform.shape[1]):
        again[:, part] = waveform[:, part]
    return again


def temporary_folder() -> Path:
    """The folder of large temporary files: TMPDIR, or not /tmp, which on many systems is memory."""
    given = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    lasting = Path("/var/tmp")
    return lasting if not given and os.access(lasting, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _reserve(descriptor: int, size: int) -> None:
    """Reserve disk space for a whole file: a write to a mapped file on a full disk would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    zeros = bytes(ZEROS)
    for start in range(0, size, ZEROS):
        os.write(descriptor, zeros[: size - start])


def is_finite(waveform: NDArray[Any]) -> bool:
    """Whether all samples of a waveform [C, L] are finite."""
    return all(bool(np.isfinite(waveform[:, part]).all()) for part in spans(waveform.shape[1]))


def peak(waveform: NDArray[Any]) -> float:
    """The largest magnitude of a waveform [C, L]; 0 for an empty one."""
    return max((float(np.abs(waveform[:, part]).max(initial=0.0)) for part in spans(waveform.shape[1])), default=0.0)
