"""Waveforms of any length in little memory: where they lie, and the blocks in which they are worked on."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from magnet_cli.errors import OutputError, one_line

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
    folder = temporary_folder()
    try:
        if shutil.disk_usage(folder).free < size:
            raise OSError("there is not enough room")
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), size)
            return np.memmap(file, dtype=dtype, mode="r+", shape=shape)
    except OSError as error:
        raise OutputError(
            f"cannot hold {size / 1e9:.1f} GB of audio in a temporary file in {folder}: {one_line(error)}",
            "Free some space, or set TMPDIR to a folder on another disk",
        ) from error


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
