"""Reading small files that strangers may have written: settings, indexes, records, tokenizers.

They come with models and clips, and a few hundred bytes of them can ask for gigabytes, or for hours. So a file is
opened only if it is a regular one, and read only if it is as small as its kind is; what is parsed from it must be of
a depth and of numbers that files of its kind have. There is one error for all of it, and whoever reads a file turns
that error into one that says what to do.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO

# Of settings and indexes: the largest that is known, the index of a model in hundreds of shards, has 0.2 MB.
MOST_BYTES = 1 << 20
# transformers' settings nest 4 deep, tokenizers 8.
DEEPEST = 32
# Seeds reach 2^64 - 1, and no size or time of a file is larger.
LARGEST_INTEGER = 2**64
# Half of a character, which cannot be written anywhere. Those from DC80 on stand for bytes of file names; see PEP 383.
UNWRITABLE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class UnreadableFileError(ValueError):
    """Why a file was not read, in words that follow "cannot read FILE: "."""


class MissingFileError(UnreadableFileError):
    """There is no such file."""


def open_regular(path: Path) -> BinaryIO:
    """A file opened for reading, if it is a regular one: others may never end, or never begin.

    Raises UnreadableFileError.
    """
    try:
        _check_kind(path.stat().st_mode)  # before it is opened, which can be an act of its own for a device
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError("there is no such file") from error
    except OSError as error:
        raise UnreadableFileError(error.strerror or "the system refuses it") from error
    except UnreadableFileError:
        raise
    except ValueError as error:
        raise UnreadableFileError("its name holds a NUL") from error
    try:
        _check_kind(os.fstat(file.fileno()).st_mode)  # it may have changed meanwhile
    except UnreadableFileError:
        file.close()
        raise
    return file


def read_bytes(path: Path, *, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file of at most `most` bytes; UnreadableFileError for any other."""
    with open_regular(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            content = file.read(most + 1) if size <= most else b""
        except OSError as error:
            raise UnreadableFileError(error.strerror or "the system refuses it") from error
    if max(size, len(content)) > most:
        raise UnreadableFileError(f"it has {max(size, len(content)):,} bytes; at most {most:,} make sense")
    return content


def read_text(path: Path, *, most: int = MOST_BYTES) -> str:
    """The content of a regular file of at most `most` bytes of UTF-8; UnreadableFileError for any other."""
    try:
        return read_bytes(path, most=most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"it is not valid UTF-8 (byte {error.start})") from error


def read_json(path: Path, *, most: int = MOST_BYTES) -> Any:
    """The value in a small JSON file; see `parse_json`."""
    return parse_json(read_text(path, most=most))


def read_object(path: Path, *, most: int = MOST_BYTES) -> dict[str, Any]:
    """The object in a small JSON file; see `parse_json`."""
    value = read_json(path, most=most)
    if not isinstance(value, dict):
        raise UnreadableFileError(f"it holds {_kind_of(value)}, not a JSON object")
    return value


def parse_json(text: str | bytes) -> Any:
    """The value that a JSON text stands for; UnreadableFileError for what is no JSON, and for what `check` refuses."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise UnreadableFileError(f"it nests more than {DEEPEST} deep") from error
    except ValueError as error:
        raise UnreadableFileError(f"it is no JSON: {error}") from error
    check(value)
    return value


def check(value: Any) -> None:
    """Raise UnreadableFileError for parsed values that no file has a reason to hold.

    Those are more than DEEPEST containers in each other, numbers that are not finite, whole numbers beyond 64 bits,
    and text that cannot be written.
    """
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise UnreadableFileError(f"it nests more than {DEEPEST} deep")
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.keys()
                inner += one.values()
            elif isinstance(one, (list, tuple, set)):
                inner += one
            else:
                _check_scalar(one)
        level, depth = inner, depth + 1


def _check_scalar(value: Any) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UnreadableFileError(f"it holds the number {value}")
    elif isinstance(value, int):
        if abs(value) > LARGEST_INTEGER:
            raise UnreadableFileError("it holds a whole number of more than 64 bits")
    elif isinstance(value, str) and not value.isascii() and UNWRITABLE.search(value):
        raise UnreadableFileError("it holds text that is not valid Unicode")


def _kind_of(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _check_kind(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise UnreadableFileError("it is a folder" if stat.S_ISDIR(mode) else "it is no regular file")


def _open_without_waiting(path: str, flags: int) -> int:
    """As `open` does, but a pipe that nobody writes to is opened at once."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
