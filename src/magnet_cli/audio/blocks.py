"""Waveforms of any length in little memory: where they lie, and the blocks in which they are worked on."""

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

# Samples of each channel that are worked on at once: more than three rounds of the longest loop of any released model
# have (90 s at 32 kHz), so that all ordinary clips are one block; and few enough that dozens of copies fit into memory.
BLOCK = 3 << 20
IN_MEMORY = 1 << 26  # bytes; what is larger lies in a temporary file. 17 minutes at 16 kHz
ZEROS = 1 << 20  # bytes written at a time to reserve room


def spans(length: int, *, multiple: int = 1) -> Iterator[slice]:
    """All of `length` samples, at most BLOCK at a time, a whole `multiple` of which each part has but for the last."""
    block = max(BLOCK // multiple, 1) * multiple
    for start in range(0, length, block):
        yield slice(start, min(start + block, length))


def empty(shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Room for a waveform [C, L], not filled: an array, and one in a temporary file where it would be large.

    The file has no name, so that nothing is left of it whatever happens. It lies in TMPDIR where that is set, else
    in the system's folder for large temporary files. Raises OutputError when there is not enough room for it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= IN_MEMORY:
        return np.empty(shape, dtype)
    with _temporary(size) as file:
        _reserve(file.fileno(), size)
        return np.memmap(file, dtype=dtype, mode="r+", shape=shape)


@contextmanager
def scratch(size: int) -> Iterator[BinaryIO]:
    """A file to put about `size` bytes into: in memory, or a temporary one as of `empty`. Afterwards it is closed."""
    with io.BytesIO() if size <= IN_MEMORY else _temporary(size) as file:
        yield file


def content(file: BinaryIO) -> Content:
    """All that is in a file from `scratch`; what is in a temporary one is mapped, and stays when that is closed."""
    if isinstance(file, io.BytesIO):
        return file.getvalue()
    file.flush()
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def check_room_for(waveforms: int, samples: int) -> None:
    """Raise OutputError unless there is room for so many waveforms, [C, L] of so many samples in all channels.

    Called before work that will need it; nothing is needed where they are short.
    """
    if (size := 4 * samples) > IN_MEMORY:
        _check_room(waveforms * size)


def _check_room(size: int) -> None:
    folder = temporary_folder()
    free = shutil.disk_usage(folder).free
    if size > free:
        raise _no_room(folder, size, f"there are {free / 1e9:.1f} GB")


@contextmanager
def _temporary(size: int) -> Iterator[BinaryIO]:
    """A file without a name for `size` bytes; OutputError for whatever the disk has against it."""
    folder = temporary_folder()
    try:
        _check_room(size)
        with tempfile.TemporaryFile(dir=folder) as file:
            yield file
    except OSError as error:
        raise _no_room(folder, size, reason(error)) from error


def _no_room(folder: Path, size: int, why: str) -> OutputError:
    return OutputError(
        f"a temporary file of {size / 1e9:.1f} GB cannot be in {folder}: {why}",
        "Free some space, or set TMPDIR to a folder on another disk",
    )


def gather(pieces: Iterable[Waveform], shape: tuple[int, int, int]) -> list[Waveform]:
    """The waveforms [C, L] of a batch of this shape [B, C, L], from pieces [B, C, n] of all of them."""
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
    """A waveform [C, L] again."""
    again = empty(waveform.shape, waveform.dtype)
    for part in spans(waveform.shape[1]):
        again[:, part] = waveform[:, part]
    return again


def temporary_folder() -> Path:
    """Where large temporary files go: not to /tmp unasked, which on many systems is memory."""
    given = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    lasting = Path("/var/tmp")
    return lasting if not given and os.access(lasting, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _reserve(descriptor: int, size: int) -> None:
    """Take room on the disk for all of a file now: writing to a mapped one on a full disk would end the process."""
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
