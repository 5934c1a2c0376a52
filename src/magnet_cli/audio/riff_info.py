"""Texts inside audio files: RIFF INFO in WAV files, Vorbis comments in FLAC and Ogg files.

libsndfile, through soundfile, handles Vorbis comments. It cuts INFO texts at a few kilobytes, so this file writes and
reads that chunk. The names of texts are soundfile's; `TAGS` has those that are used.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from magnet_cli.audio.reading import opened
from magnet_cli.errors import UsageError

# soundfile's name -> RIFF INFO's. Multimedia Programming Interface and Data Specifications 1.0 (1991), INFO list.
TAGS = {"title": b"INAM", "comment": b"ICMT", "software": b"ISFT", "copyright": b"ICOP"}
FORWARD, WITHOUT_END = 0, 0  # of a loop in `smpl`: its direction, and how often it is played
MIDDLE_C = 60  # the MIDI note at which a sampler plays the sound as it is; the root of a loop is not known
STRETCH = 0x04  # of `acid`: not 0x01, one-shot, and not 0x02, root note is set
MOST_CHUNKS = 1000  # that are looked at
MOST_BYTES = 1 << 26  # of an INFO list; magnet writes no larger one


@dataclass(frozen=True)
class LoopMarks:
    """What a WAV file says of a loop. beats, bpm: its length and tempo; None: no tempo is known."""

    beats: int | None = None
    bpm: float | None = None


def add_riff_chunks(file: BinaryIO, tags: Mapping[str, str], chunks: Iterable[bytes] = ()) -> None:
    """Add chunks and an INFO list of texts (UTF-8) to a WAV file, after its samples, where players expect them."""
    entries = b"".join(_chunk(TAGS[name], text.encode() + b"\0") for name, text in tags.items())
    added = b"".join([*chunks, *([_chunk(b"LIST", b"INFO" + entries)] if entries else [])])
    if not added:
        return
    file.seek(0, os.SEEK_END)
    file.write(added)
    size = file.tell()
    file.seek(4)
    file.write(struct.pack("<I", size - 8))


def loop_chunks(marks: LoopMarks | None, samples: int, sample_rate: int) -> list[bytes]:
    """The chunks by which samplers and DAWs know a loop of so many samples: `smpl` and, with a tempo, `acid`.

    Sources: RIFF MCI (1994) for `smpl`: 9 numbers and a loop of 6. `acid` has no public specification; it is written as
    libsndfile reads it (src/wav.c): flags, root note, 0x8000, 0.0, beats, denominator and numerator of the meter, bpm.
    """
    if marks is None:
        return []
    period = round(1e9 / sample_rate)  # nanoseconds
    loop = (0, FORWARD, 0, samples - 1, 0, WITHOUT_END)
    chunks = [_chunk(b"smpl", struct.pack("<15I", 0, 0, period, MIDDLE_C, 0, 0, 0, 1, 0, *loop))]
    if marks.beats is not None and marks.bpm is not None:
        values = (STRETCH, MIDDLE_C, 0x8000, 0.0, marks.beats, 4, 4, marks.bpm)
        chunks.append(_chunk(b"acid", struct.pack("<IHHfIHHf", *values)))
    return chunks


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
