"""Read codes from `.npz` files, which are archives of arrays, in bounded memory and without numpy's own reader.

A file of 0.2 MB can hold 8 GB of zeros or claim any size, and numpy allocates what the file claims. Codes are small: an
hour of any known codec is below the limit here.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from magnet_cli.disk.small_files import UnreadableFileError, open_regular
from magnet_cli.errors import UsageError

NAME = "codes.npy"
MOST_BYTES = 1 << 27  # an hour at 75 frames a second and 32 codebooks is 17 MB of int16, 69 MB of int64
MOST_ARRAYS = 1000
LONGEST_HEADER = 10_000  # bytes; numpy writes 128
MAGIC = b"\x93NUMPY"
# As numpy writes it: {'descr': '<i2', 'fortran_order': False, 'shape': (4, 500), }
HEADER = re.compile(
    r"\{'descr': '(?P<type>[<>|=][iu][1248])', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<codebooks>\d{1,9}), (?P<frames>\d{1,9})\),? ?\}\s*"
)
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, OSError, RuntimeError, ValueError)
HINT = "Give a file that magnet encode or --save-codes has written"


def read_codes(path: Path) -> NDArray[Any]:
    """The codes [K, T] in an .npz file; UsageError for anything else."""
    try:
        file = open_regular(path)
    except UnreadableFileError as error:
        raise UsageError(f"cannot read {path}: {error}", HINT) from error
    try:
        with file, zipfile.ZipFile(file) as archive:
            return _codes(archive)
    except UnreadableFileError as error:
        raise UsageError(f"{path} holds no codes: {error}", HINT) from error
    except DAMAGED as error:
        raise UsageError(f"{path} holds no codes: it is damaged or not an .npz file", HINT) from error


def _codes(archive: zipfile.ZipFile) -> NDArray[Any]:
    names = archive.namelist()
    if NAME not in names or len(names) > MOST_ARRAYS:
        raise UnreadableFileError("it has no array named codes")
    part = archive.getinfo(NAME)
    if part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or part.flag_bits & 1:
        raise UnreadableFileError("it is encrypted, or compressed in a way that numpy cannot read")
    with archive.open(part) as stream:
        kind, order, shape = _header(stream)
        size = kind.itemsize * shape[0] * shape[1]
        if size == 0:
            raise UnreadableFileError(
                f"codes are whole numbers [K, T], not an empty array of {shape[0]:,} x {shape[1]:,}"
            )
        if size > MOST_BYTES:
            raise UnreadableFileError(f"an array of {shape[0]:,} codebooks of {shape[1]:,} frames is too large")
        content = stream.read(size + 1)
    if len(content) != size:
        raise UnreadableFileError("its size differs from what its header says")
    return np.frombuffer(content, kind).reshape(shape, order=order)


def _header(stream: IO[bytes]) -> tuple[np.dtype[Any], Any, tuple[int, int]]:
    """The type, the order (C or F) and the shape that the header of an .npy file states."""
    start = stream.read(8)
    width = 2 if start[6:7] == b"\x01" else 4  # bytes of the header's length: version 1, and those after it
    length = int.from_bytes(stream.read(width), "little")
    if start[:6] != MAGIC or length > LONGEST_HEADER:
        raise UnreadableFileError("its array has no numpy header")
    found = HEADER.fullmatch(stream.read(length).decode("latin-1"))
    if found is None:
        raise UnreadableFileError("its codes are not whole numbers [K, T]")
    shape = (int(found["codebooks"]), int(found["frames"]))
    return np.dtype(found["type"]), "F" if found["fortran"] == "True" else "C", shape
