"""A stream in files of some minutes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from magnet_cli.audio import blocks
from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.files import encode_audio
from magnet_cli.disk.atomic import check_writable, write_together

DIGITS = 4  # of the number of a file


class StreamFiles:
    """Gathers pieces, and writes a file whenever there are enough; each appears when it is complete.

    written: called with the path of each file and its length in seconds.
    """

    def __init__(
        self,
        folder: Path,
        stem: str,
        suffix: str,
        *,
        samples: int,
        sample_rate: int,
        tags: dict[str, str],
        overwrite: bool,
        written: Callable[[Path, float], None],
    ) -> None:
        self._folder, self._stem, self._suffix = folder, stem, suffix
        self._samples, self._rate, self._tags = samples, sample_rate, tags
        self._overwrite, self._written = overwrite, written
        self._number, self._filled = 1, 0
        self._buffer: Waveform | None = None

    def path(self, number: int) -> Path:
        """The file of this number, from 1 on."""
        return self._folder / f"{self._stem}-{number:0{DIGITS}}{self._suffix}"

    def check(self) -> None:
        """Raise OutputError if the first file cannot be written. The others are checked when it is their turn."""
        check_writable([self.path(1)], overwrite=self._overwrite)

    def write(self, piece: Waveform) -> None:
        """Take a piece [C, L]. OutputError for a file that cannot be written."""
        while piece.shape[1]:
            if self._buffer is None:
                self._buffer, self._filled = blocks.empty((piece.shape[0], self._samples)), 0
            part = piece[:, : self._samples - self._filled]
            self._buffer[:, self._filled : self._filled + part.shape[1]] = part
            self._filled += part.shape[1]
            piece = piece[:, part.shape[1] :]
            if self._filled == self._samples:
                self.finish()

    def finish(self) -> None:
        """Write what there is."""
        if self._buffer is None or not self._filled:
            return
        waveform, self._buffer = np.asarray(self._buffer[:, : self._filled]), None
        path = self.path(self._number)
        content = encode_audio(path, waveform, self._rate, "pcm16", tags={**self._tags, "title": path.stem})
        write_together([(path, content)], overwrite=self._overwrite, within=self._folder)
        self._number += 1
        self._written(path, waveform.shape[1] / self._rate)
