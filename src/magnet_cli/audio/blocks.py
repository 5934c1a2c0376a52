"""Waveforms of any length in little memory: where they lie, and the blocks in which they are worked on."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from magnet_cli.errors import OutputError, one_line

Waveform = NDArray[np.float32]  # [C, L], full scale at 1

# Samples of each channel that are worked on at once: more than the clips of any released model have, which so are
# handled as a whole, and little enough that a few dozen copies of them fit into memory.
BLOCK = 1 << 21
IN_MEMORY = 1 << 26  # bytes; what is larger lies in a temporary file. 17 minutes at 16 kHz
ZEROS = 1 << 20  # bytes written at a time to reserve room


def spans(length: int, block: int = BLOCK) -> Iterator[slice]:
    """All of `length` samples, at most `block` at a time."""
    for start in range(0, length, block):
        yield slice(start, min(start + block, length))


def empty(channels: int, samples: int) -> Waveform:
    """Room for a waveform [C, L], not filled: an array, and one in a temporary file where it would be large.

    The file has no name, so that nothing is left of it whatever happens. It lies in TMPDIR where that is set, else
    in the system's folder for large temporary files. Raises OutputError when there is not enough room for it.
    """
    size = channels * samples * np.dtype(np.float32).itemsize
    if size <= IN_MEMORY:
        return np.empty((channels, samples), dtype=np.float32)
    folder = temporary_folder()
    try:
        if shutil.disk_usage(folder).free < size:
            raise OSError("there is not enough room")
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), size)
            return np.memmap(file, dtype=np.float32, mode="r+", shape=(channels, samples))
    except OSError as error:
        raise OutputError(
            f"cannot hold {size / 1e9:.1f} GB of audio in a temporary file in {folder}: {one_line(error)}",
            "Free some space, or set TMPDIR to a folder on another disk",
        ) from error


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


def is_finite(waveform: NDArray[np.floating]) -> bool:
    """Whether all samples of a waveform [C, L] are finite."""
    return all(bool(np.isfinite(waveform[:, part]).all()) for part in spans(waveform.shape[1]))


def peak(waveform: NDArray[np.floating]) -> float:
    """The largest magnitude of a waveform [C, L]; 0 for an empty one."""
    return max((float(np.abs(waveform[:, part]).max(initial=0.0)) for part in spans(waveform.shape[1])), default=0.0)
