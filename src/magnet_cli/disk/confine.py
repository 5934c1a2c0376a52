"""Checks that no link leads out of a folder, whose content may be somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

from magnet_cli.errors import OutputError


def check_within(folder: Path, path: Path) -> None:
    """Check that no link below `folder` leads `path` out of it.

    path: begins with `folder`, and need not exist. The folder itself may be reached by links: the user named it.

    Raises:
        OutputError: that names the link.
    """
    if _is_within(folder, path):
        return
    below = [place for place in (*reversed(path.parents), path) if folder in place.parents]
    link = next((place for place in below if os.path.islink(place) and not _is_within(folder, place)), None)
    if link is None:
        raise OutputError(f"{path} is not in {folder}", "Choose a name within the folder")
    raise OutputError(
        f"{link} is a link that leads out of {folder} to {os.path.realpath(link)}",
        "Remove the link, or choose another folder",
    )


class Confinement:
    """Checks many paths as `check_within` does, but each folder below `folder` only once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._checked: set[Path] = set()

    def check(self, path: Path) -> None:
        """Check that no link leads this path out of the folder.

        Raises:
            OutputError: that names the link.
        """
        if path.parent not in self._checked:
            check_within(self._folder, path.parent)
            self._checked.add(path.parent)
        if os.path.islink(path):  # False, without an error, for a name that no file can have
            check_within(self._folder, path)


def _is_within(folder: Path, path: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
