"""Reading small files that strangers may have written: settings, indexes, records, tokenizers.

They come with models and clips, and a few hundred bytes in them can cost gigabytes or hours. So a file is opened only
if it is a regular file, and read only if it is no larger than files of its kind. Its parsed content must have the depth
and the numbers that such files have. All failures raise one kind of error, which callers turn into one with a remedy.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO

# Of settings and indexes. The largest known one, the index of a model in hundreds of shards, has 0.2 MB.
MOST_BYTES = 1 << 20
# transformers' settings nest 4 deep, tokenizers 8.
DEEPEST = 32
# Seeds reach 2^64 - 1, and no size or time of a file is larger.
LARGEST_INTEGER = 2**64
# Halves of characters, which no file can hold. Those from DC80 on stand for bytes of file names; see PEP 383.
UNWRITABLE = re.compile("[\ud800-\udc7f\udd00-\udfff]")


class UnreadableFileError(ValueError):
    """The reason why a file was not read, in words that follow "cannot read FILE: "."""


class MissingFileError(UnreadableFileError):
    """There is no such file."""


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened for reading; other kinds, such as pipes, may never end or never begin.

    Raises:
        UnreadableFileError: for any other kind, or a file that cannot be opened.
    """
    try:
        _check_kind(path.stat().st_mode)  # before opening, which alone can affect a device
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
    """The content of a regular file of at most `most` bytes.

    Raises:
        UnreadableFileError: for any other file.
    """
    with open_regular(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            content = file.read(most + 1) if size <= most else b""
        except OSError as error:
            raise UnreadableFileError(error.strerror or "the system refuses it") from error
    if max(size, len(content)) > most:
        raise UnreadableFileError(f"it has {max(size, len(content)):,} bytes; at most {most:,} are allowed")
    return content


def read_text(path: Path, *, most: int = MOST_BYTES) -> str:
    """The content of a regular file of at most `most` bytes of UTF-8.

    Raises:
        UnreadableFileError: for any other file.
    """
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
    """The value of a JSON text.

    Raises:
        UnreadableFileError: for text that is not JSON, and for values that `check` refuses.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise UnreadableFileError(f"it nests more than {DEEPEST} deep") from error
    except ValueError as error:
        raise UnreadableFileError(f"it is not valid JSON: {error}") from error
    check(value)
    return value


def check(value: Any) -> None:
    """Refuse parsed values that no valid file holds.

    Raises:
        UnreadableFileError: for more than DEEPEST nested containers, numbers that are not finite, whole numbers of more
            than 64 bits, and text that is not valid Unicode.
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
    """Open a file as `open` does, but do not wait for a pipe's writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
