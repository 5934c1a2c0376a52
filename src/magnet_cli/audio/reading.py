"""Audio files, read block after block: never more than is there, whatever a file says of its length."""

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

# As libsndfile calls them. The rest of what it reads are formats of old samplers and of science, some of which have no
# header; and it prints to stdout what it thinks of the content of SDS files, which belongs to --json.
CONTAINERS = frozenset({"WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF"})
MOST_CHANNELS = 64  # more, and an array is likely [L, C]
LARGEST_STREAM = 1 << 32  # bytes taken from what is no file: as large as a WAV file can be
FRAMES = 1 << 16  # read at a time
UNKNOWN_FRAMES = (1 << 63) - 1  # what libsndfile has for the length of a FLAC file that does not say it
KIND_HINT = "Give a WAV, FLAC, Ogg, MP3 or AIFF file"


class AudioFile(soundfile.SoundFile):  # type: ignore[misc]  # it carries no types
    """An audio file that is open for reading from its beginning to its end.

    A FLAC file of a stream says that it has 2**63 - 1 frames, a damaged file says anything. So `frames` counts for
    nothing here, and nothing is sought: libsndfile would look for positions that are not there.
    """

    def seekable(self) -> bool:
        """No: soundfile then leaves the position after a read to libsndfile."""
        return False

    def blocks_of(self, path: Path, seconds: float = MOST_SECONDS) -> Iterator[NDArray[np.float32]]:
        """All its samples, float32 [n, C] at a time, which `path` is named for.

        Raises UsageError where they are not finite or cannot be decoded, and after so many seconds of them: by default
        an hour, as nothing longer is ever made of them.
        """
        left = seconds * self.samplerate
        while len(block := self._decoded(path, FRAMES)):
            left -= len(block)
            if left < 0:
                raise UsageError(f"{path} is longer than {seconds:,.0f} s of audio", "Cut it to what is needed")
            yield block

    def part(self, path: Path, first: int, count: int) -> NDArray[np.float32]:
        """`count` samples from the `first` on, float32 [n, C]: fewer where the file has ended. See `blocks_of`."""
        try:
            self.seek(first)
        except soundfile.SoundFileError:  # beyond its end, or it does not say where that is
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
            raise UsageError(f"{path} holds samples that are not finite", "Export it again, as pcm16 or pcm24")
        return block


@contextmanager
def opened(path: Path) -> Iterator[AudioFile]:
    """An audio file of one of CONTAINERS, whatever its name. UsageError for one that is missing or of another kind."""
    descriptor = -1
    try:
        descriptor = _descriptor(path)
        # Without a name: soundfile would take one that ends in .raw for a request to read anything. And not through a
        # file object, whose errors would be printed from inside of libsndfile's callbacks.
        with AudioFile(descriptor, closefd=False) as file:
            if file.format not in CONTAINERS:
                raise UsageError(f"{path} is a {file.format} file, which is not read", KIND_HINT)
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
    """What is wrong with a file that libsndfile does not know, or knows no end of."""
    return UsageError(f"{path} is not an audio file that can be read", KIND_HINT)


def _descriptor(path: Path) -> int:
    """A descriptor to read a file from; of a copy of what comes through a pipe, which has no beginning to return to."""
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
            raise UsageError(f"{path} does not end", "Give a file")
        copy.seek(0)
        return os.dup(copy.fileno())
