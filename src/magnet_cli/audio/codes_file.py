"""Read codes from `.npz` files, which are archives of arrays, in bounded memory and without numpy's own reader.

A file of 0.2 MB can hold 8 GB of zeros or claim any size, and numpy allocates what the file claims. Codes are small: an
hour of any known codec is below the limit here.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from magnet_cli.disk.small_files import UnreadableFileError, open_regular
from magnet_cli.errors import UsageError

NAME = "codes.npy"
MODEL, CODEC = "model.npy", "codec.npy"
LONGEST_TEXT = 300  # characters
MOST_BYTES = 1 << 27  # an hour at 75 frames a second and 32 codebooks is 17 MB of int16, 69 MB of int64
MOST_ARRAYS = 1000
LONGEST_HEADER = 10_000  # bytes; numpy writes 128
MAGIC = b"\x93NUMPY"
# As numpy writes it: {'descr': '<i2', 'fortran_order': False, 'shape': (4, 500), }
HEADER = re.compile(
    r"\{'descr': '(?P<type>[<>|=][iu][1248])', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<codebooks>\d{1,9}), (?P<frames>\d{1,9})\),? ?\}\s*"
)
# Of an array of one text: {'descr': '<U7', 'fortran_order': False, 'shape': (), }
TEXT_HEADER = re.compile(r"\{'descr': '<U(?P<length>\d{1,4})', 'fortran_order': False, 'shape': \(\),? ?\}\s*")
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, OSError, RuntimeError, ValueError)
HINT = "Give a file that magnet encode or --save-codes has written"


@dataclass(frozen=True)
class CodesSource:
    """Whose codes a file has: the name of the model, and SHA-256 of its codec's codebooks."""

    model: str
    codec: str


def encode_codes(codes: NDArray[np.integer[Any]], source: CodesSource) -> bytes:
    """The content of a file of codes [K, T]: arrays `codes`, `model` and `codec`."""
    archive = io.BytesIO()
    np.savez(archive, codes=codes, model=np.array(source.model), codec=np.array(source.codec))
    return archive.getvalue()


def read_source(path: Path) -> CodesSource | None:
    """Whose codes an .npz file has; None for one of an earlier version. UsageError for anything else."""
    with _opened(path) as archive:
        if MODEL not in archive.namelist() or CODEC not in archive.namelist():
            return None
        return CodesSource(_text(archive, MODEL), _text(archive, CODEC))


def read_codes(path: Path) -> NDArray[Any]:
    """The codes [K, T] in an .npz file; UsageError for anything else."""
    with _opened(path) as archive:
        return _codes(archive)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive in a file; within the block, what is wrong with it is a UsageError."""
    try:
        file = open_regular(path)
    except UnreadableFileError as error:
        raise UsageError(f"cannot read {path}: {error}", HINT) from error
    try:
        with file, zipfile.ZipFile(file) as archive:
            yield archive
    except UnreadableFileError as error:
        raise UsageError(f"{path} holds no codes: {error}", HINT) from error
    except DAMAGED as error:
        raise UsageError(f"{path} holds no codes: it is damaged, or no .npz file", HINT) from error


def _codes(archive: zipfile.ZipFile) -> NDArray[Any]:
    names = archive.namelist()
    if NAME not in names or len(names) > MOST_ARRAYS:
        raise UnreadableFileError("it has no array named codes")
    part = _part(archive, NAME)
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


def _text(archive: zipfile.ZipFile, name: str) -> str:
    """The text in an array of one; UnreadableFileError for anything else."""
    with archive.open(_part(archive, name)) as stream:
        found = TEXT_HEADER.fullmatch(_header_text(stream))
        length = LONGEST_TEXT + 1 if found is None else int(found["length"])
        if length > LONGEST_TEXT:
            raise UnreadableFileError(f"its {name} is not a text of up to {LONGEST_TEXT} characters")
        text = stream.read(4 * length).decode("utf-32-le").rstrip("\0")
    if not text.isprintable():
        raise UnreadableFileError(f"its {name} is not a text that can be shown")
    return text


def _part(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    part = archive.getinfo(name)
    if part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or part.flag_bits & 1:
        raise UnreadableFileError("it is encrypted, or compressed in a way that numpy cannot read")
    return part


def _header(stream: IO[bytes]) -> tuple[np.dtype[Any], Any, tuple[int, int]]:
    """The type, the order (C or F) and the shape that the header of an .npy file states."""
    found = HEADER.fullmatch(_header_text(stream))
    if found is None:
        raise UnreadableFileError("its codes are not whole numbers [K, T]")
    shape = (int(found["codebooks"]), int(found["frames"]))
    return np.dtype(found["type"]), "F" if found["fortran"] == "True" else "C", shape


def _header_text(stream: IO[bytes]) -> str:
    """The text at the beginning of an .npy file that describes its array."""
    start = stream.read(8)
    width = 2 if start[6:7] == b"\x01" else 4  # bytes of the header's length: version 1, and those after it
    length = int.from_bytes(stream.read(width), "little")
    if start[:6] != MAGIC or length > LONGEST_HEADER:
        raise UnreadableFileError("its array is none of numpy's")
    return stream.read(length).decode("latin-1")
