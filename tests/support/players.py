"""Programs with the names of players, which write what they are given into files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

SCRIPT = """#!{python}
import os, sys
sys.stderr.write({says!r})
if {code}:
    sys.exit({code})
with open({heard!r}, "ab") as file:
    while piece := os.read(0, 1 << 16):
        file.write(piece)
with open({arguments!r}, "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
"""


def install(folder: Path, name: str, *, code: int = 0, says: str = "") -> Path:
    """Put a player into a folder. It ends with this code at once, unless that is 0. Returns what it will have heard."""
    folder.mkdir(exist_ok=True)
    heard, arguments = folder / f"{name}.heard", folder / f"{name}.arguments"
    script = SCRIPT.format(python=sys.executable, says=says, code=code, heard=str(heard), arguments=str(arguments))
    program = folder / name
    program.write_text(script)
    program.chmod(0o755)
    return heard


def only_these(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Leave no other player."""
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("magnet_cli.playing.player.find_spec", lambda name: None)
