"""Texts inside audio files: RIFF INFO in WAV files, Vorbis comments in FLAC and Ogg files.

libsndfile, through soundfile, handles Vorbis comments. It cuts INFO texts at a few kilobytes, so this file writes and
reads that chunk. The names of texts are soundfile's; `TAGS` has those that are used.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from magnet_cli.audio.reading import opened
from magnet_cli.errors import UsageError

# soundfile's name -> RIFF INFO's. Multimedia Programming Interface and Data Specifications 1.0 (1991), INFO list.
TAGS = {"title": b"INAM", "comment": b"ICMT", "software": b"ISFT", "copyright": b"ICOP"}
MOST_CHUNKS = 1000  # that are looked at
MOST_BYTES = 1 << 26  # of an INFO list; magnet writes no larger one


def add_riff_tags(file: BinaryIO, tags: Mapping[str, str]) -> None:
    """Add an INFO list to a WAV file, after its samples, where players expect it. Texts are UTF-8."""
    entries = b"".join(_chunk(TAGS[name], text.encode() + b"\0") for name, text in tags.items())
    if not entries:
        return
    file.seek(0, os.SEEK_END)
    file.write(_chunk(b"LIST", b"INFO" + entries))
    size = file.tell()
    file.seek(4)
    file.write(struct.pack("<I", size - 8))


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def read_tags(path: Path) -> dict[str, str]:
    """The texts in an audio file, by soundfile's names; empty when there are none or the file is damaged.

    Raises: UsageError for a file that cannot be read at all.
    """
    try:
        with path.open("rb") as file:
            riff = file.read(4) == b"RIFF"
        if riff:
            return _read_riff_tags(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "Check the path and its permissions") from error
    try:
        with opened(path) as sound:
            return {name: text for name, text in sound.copy_metadata().items() if name in TAGS}
    except (UsageError, UnicodeDecodeError):
        return {}


def _read_riff_tags(path: Path) -> dict[str, str]:
    names = {riff: name for name, riff in TAGS.items()}
    found: dict[str, str] = {}
    with path.open("rb") as file:
        file.seek(12)  # RIFF, size, WAVE
        for _ in range(MOST_CHUNKS):
            header = _header(file.read(8))
            if header is None:
                break
            name, size = header
            if name == b"LIST" and 4 <= size <= MOST_BYTES:
                content = file.read(size)
                if content.startswith(b"INFO"):
                    found |= {
                        names[key]: text.split(b"\0", 1)[0].decode("utf-8", "replace")
                        for key, text in _entries(content[4:])
                        if key in names
                    }
                file.seek(size % 2, 1)
            else:
                file.seek(size + size % 2, 1)
    return found


def _entries(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while header := _header(content[position : position + 8]):
        name, size = header
        yield name, content[position + 8 : position + 8 + size]
        position += 8 + size + size % 2


def _header(content: bytes) -> tuple[bytes, int] | None:
    return (content[:4], struct.unpack("<I", content[4:])[0]) if len(content) == 8 else None
