"""Whether pictures can be drawn here. Imports nothing heavy, so that commands can ask before any work."""

from __future__ import annotations

from importlib.util import find_spec

from magnet_cli.errors import UsageError

INSTALL = "Run pip install '.[pictures]' in a clone of the repository"


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def check_pictures() -> None:
    """Raise UsageError unless pictures can be drawn. Call it before any work."""
    if not can_draw():
        raise UsageError("a picture needs matplotlib, which is not installed", INSTALL)
