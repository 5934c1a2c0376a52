"""The input files of clips: each is measured, hashed and decoded once, however many clips use it.

Imports no torch: a batch is planned before anything is loaded.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.files import AudioForm, measure_audio, read_audio
from magnet_cli.errors import UsageError
from magnet_cli.hub.store import sha256
from magnet_cli.options.output import OutputConfig, Subtype

# Waveforms that are cached: a batch may have thousands, and a minute of stereo takes 20 MB.
MOST_WAVEFORMS = 4

# By libsndfile's names; of the others, such as those of Ogg and MP3, 16 bits keep what there is.
KEPT: dict[str, Subtype] = {"PCM_24": "pcm24", "PCM_32": "pcm24", "FLOAT": "float32", "DOUBLE": "float32"}

Signature = tuple[int, ...]


class InputFiles:
    """Cached facts of input files. A file that changes is read again. Threads may share it."""

    def __init__(self) -> None:
        self._measured = lru_cache(None)(lambda path, signature: measure_audio(Path(path)))
        self._hashed = lru_cache(None)(lambda path, signature: _hash(path))
        self._decoded = lru_cache(MOST_WAVEFORMS)(lambda path, signature: read_audio(Path(path)))

    def measure(self, path: str) -> tuple[int, float]:
        """Channels and seconds of a file. Reads all of it; UsageError for a file that cannot be used."""
        form = self.form(path)
        return form.channels, form.samples / form.sample_rate

    def form(self, path: str) -> AudioForm:
        """The form of a file; see `measure`."""
        return self._measured(path, signature(path))

    def output(self, output: OutputConfig, path: str | None, suffix: str) -> OutputConfig:
        """The output of a clip that starts from this file, or from none, in a file of this suffix."""
        return output.as_input(None if path is None else KEPT.get(self.form(path).subtype, "pcm16"), suffix=suffix)

    def sha256(self, path: str) -> str:
        """The file's SHA-256; UsageError for one that cannot be read."""
        return self._hashed(path, signature(path))

    def read(self, path: str | Path) -> tuple[Waveform, int]:
        """The file's waveform and sample rate (Hz); see `read_audio`, whose errors it raises."""
        return self._decoded(str(path), signature(path))


def signature(path: str | Path) -> Signature:
    """Facts that change with a file's content; empty for a file that does not exist."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _hash(path: str) -> str:
    try:
        return sha256(Path(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "Check the path") from error
