"""Read audio files block by block, and never trust the length that a file states."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from magnet_cli.audio.blocks import temporary_folder
from magnet_cli.audio.resampling import check_rate
from magnet_cli.disk.atomic import reason
from magnet_cli.errors import UsageError
from magnet_cli.options.edit import MOST_SECONDS

# libsndfile's names. The other formats that it reads are those of old samplers and of science; some have no header. And
# it prints remarks on SDS files to stdout, which must carry nothing but results.
CONTAINERS = frozenset({"WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF"})
MOST_CHANNELS = 64  # an array with more is likely [L, C]
LARGEST_STREAM = 1 << 32  # bytes read from a pipe: as large as a WAV file can be
FRAMES = 1 << 16  # read at a time
UNKNOWN_FRAMES = (1 << 63) - 1  # the length that libsndfile gives a FLAC file that states none
KIND_HINT = "Give a WAV, FLAC, Ogg, MP3 or AIFF file"


class AudioFile(soundfile.SoundFile):  # type: ignore[misc]  # it carries no types
    """An audio file that is open for reading from its beginning to its end.

    A streamed FLAC file states 2**63 - 1 frames, and a damaged file states anything. So `frames` is ignored here, and
    reading never seeks: libsndfile would look for positions that do not exist.
    """

    def seekable(self) -> bool:
        """False, so that soundfile leaves the position after a read to libsndfile."""
        return False

    def blocks_of(self, path: Path, seconds: float = MOST_SECONDS) -> Iterator[NDArray[np.float32]]:
        """All its samples, in blocks of float32 [n, C]. Messages name `path`.

        Raises: UsageError for samples that are not finite or cannot be decoded, and for more than `seconds` of them, by
            default an hour, the longest clip there is.
        """
        left = seconds * self.samplerate
        while len(block := self._decoded(path, FRAMES)):
            left -= len(block)
            if left < 0:
                raise UsageError(f"{path} is longer than {seconds:,.0f} s", "Cut it to the part that is needed")
            yield block

    def part(self, path: Path, first: int, count: int) -> NDArray[np.float32]:
        """`count` samples from `first` on, float32 [n, C]; fewer if the file ends before. See `blocks_of`."""
        try:
            self.seek(first)
        except soundfile.SoundFileError:  # beyond its end, or its length is unknown
            skipped = 0
            while skipped < first and (block := self._decoded(path, min(FRAMES, first - skipped))).size:
                skipped += len(block)
        blocks = [np.empty((0, self.channels), dtype=np.float32)]
        while count > 0 and (block := self._decoded(path, min(FRAMES, count))).size:
            blocks.append(block)
            count -= len(block)
        return np.concatenate(blocks)

    def _decoded(self, path: Path, frames: int) -> NDArray[np.float32]:
        try:
            block: NDArray[np.float32] = self.read(frames, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise not_audio(path) from error
        if not np.isfinite(block).all():
            raise UsageError(f"{path} has samples that are not finite", "Export it again, as pcm16 or pcm24")
        return block


@contextmanager
def opened(path: Path) -> Iterator[AudioFile]:
    """Open an audio file of one of CONTAINERS, whatever its name. UsageError for a missing or other file."""
    descriptor = -1
    try:
        descriptor = _descriptor(path)
        # Not a name, because soundfile reads any content under a name that ends in .raw. And not a file object, because
        # libsndfile's callbacks would print its errors.
        with AudioFile(descriptor, closefd=False) as file:
            if file.format not in CONTAINERS:
                raise UsageError(f"{path} is a {file.format} file, which magnet does not read", KIND_HINT)
            if file.channels > MOST_CHANNELS:
                raise UsageError(f"{path} has {file.channels} channels", f"Give at most {MOST_CHANNELS}")
            check_rate(file.samplerate)
            yield file
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason(error)}", "Check the path and its permissions") from error
    except soundfile.SoundFileError as error:
        raise not_audio(path) from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def not_audio(path: Path) -> UsageError:
    """The error for a file that libsndfile cannot read."""
    return UsageError(f"{path} is not an audio file that can be read", KIND_HINT)


def _descriptor(path: Path) -> int:
    """A descriptor to read a file from. A pipe is copied first, because it cannot be read twice."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return descriptor
    with os.fdopen(descriptor, "rb") as stream, tempfile.TemporaryFile(dir=temporary_folder()) as copy:
        left = LARGEST_STREAM
        while left > 0 and (content := stream.read(min(left, 1 << 20))):
            copy.write(content)
            left -= len(content)
        if left == 0:
            raise UsageError(f"{path} gives more than {LARGEST_STREAM >> 30} GiB", "Give a shorter file")
        copy.seek(0)
        return os.dup(copy.fileno())
