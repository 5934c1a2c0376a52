"""Standard streams of every kind (a terminal, a file, a full disk, closed), and text that is safe to show."""

from __future__ import annotations

import os
import sys
import unicodedata
from contextlib import suppress
from typing import TextIO

# Control characters, formatting (which includes the marks that change the direction of text), halves of surrogate
# pairs, and the separators of lines and paragraphs.
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
JOINERS = "\u200c\u200d"  # Persian, Indic scripts and emoji are written with them


def visible(text: str) -> str:
    """A text on one line in which nothing acts on a terminal or hides: what would is shown as an escape, \\x1b."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in UNSEEN and character not in JOINERS
        else character
        for character in text
    )


def open_closed_streams() -> None:
    """Open the null device in place of standard streams that are closed.

    Otherwise, a file of ours would get their number, and the output of a library would end up in that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def silence(stream: TextIO) -> None:
    """Discard the buffered and all further output of a stream that cannot be written to.

    Otherwise, Python tries to write it again when it ends, and ends with exit code 120.
    """
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class ErrorStream:
    """Standard error, as it is at the time; where it cannot be written to, messages are lost and the work continues."""

    @property
    def _stream(self) -> TextIO | None:
        # While a bar is shown, rich puts a stream of its own in place, which prints above the bar and ends up here.
        stream: TextIO | None = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
        return stream

    @property
    def encoding(self) -> str:
        """How text becomes bytes."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write a text, if that is possible."""
        if (stream := self._stream) is not None:
            try:
                stream.write(text)
            except UnicodeEncodeError:  # a ValueError, too
                raise
            except (OSError, ValueError):
                silence(stream)
        return len(text)

    def flush(self) -> None:
        """Write what is in the buffer, if that is possible."""
        if (stream := self._stream) is not None:
            try:
                stream.flush()
            except (OSError, ValueError):
                silence(stream)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return (stream := self._stream) is not None and not stream.closed and stream.isatty()

    def fileno(self) -> int:
        """The number of its file."""
        return 2 if (stream := self._stream) is None else stream.fileno()
