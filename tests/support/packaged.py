"""What belongs into a wheel and an image."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def packaged() -> dict[str, bytes]:
    """The files of the package in this repository, by their paths in a wheel."""
    package = ROOT / "src" / "magnet_cli"
    return {
        path.relative_to(package.parent).as_posix(): path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
