"""A file of everything that a command has to say, with the time of each line; secrets are hidden."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from magnet_cli.errors import OutputError
from magnet_cli.terminal.streams import visible

SECRET_NAME = re.compile(r"TOKEN|KEY|SECRET|PASS")  # of an environment variable
# User and password in an address, up to the last @, since a password may have one; a token of the Hub.
SECRET_TEXT = re.compile(r"(?<=//)\S+(?=@)|\bhf_\w{6,}")
HIDDEN = "(hidden)"
SHORTEST_SECRET = 6  # characters; hiding shorter values would hide ordinary words


def without_secrets(text: str, environment: Mapping[str, str] | None = None) -> str:
    """A text without tokens, passwords in addresses, and the values of secret environment variables."""
    for name, value in (os.environ if environment is None else environment).items():
        if SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET:
            text = text.replace(value, HIDDEN)
    return SECRET_TEXT.sub(HIDDEN, text)


class LogFile:
    """A file that lines are appended to. It is opened for each, so that it may be moved away in between.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ended = False
        try:
            self._append("")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}", "Choose another --log-file") from error

    def write(self, kind: str, text: str) -> str | None:
        """Append a line. Returns why that failed, the first time; later lines are then lost."""
        if self._ended:
            return None
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        try:
            self._append(f"{now} {kind:<7} {visible(without_secrets(text))}\n")
        except OSError as error:
            self._ended = True
            return f"cannot write {self.path}: {error.strerror}; the log ends here"
        return None

    def _append(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
