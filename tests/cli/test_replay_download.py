"""Replaying a clip that somebody else sent contacts the Hub for no repository but those that the user agrees to."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.command import Magnet
from support.golden import GOLDEN

SAID = "the clip's record names somebody/something, which is neither a released model nor on this machine."


@pytest.fixture
def record(magnet: Magnet, tmp_path: Path) -> dict[str, Any]:
    """The record of a clip."""
    quick = ("--model", str(GOLDEN / "music"), "--steps", "1,1,1,1", "--device", "cpu", "--duration", "0.3")
    assert magnet("generate", "x", *quick, "-o", "clip.wav").code == 0
    found: dict[str, Any] = json.loads((tmp_path / "clip.json").read_text())
    return found


def test_a_repository_that_only_the_record_names_needs_a_flag(
    magnet: Magnet, record: dict[str, Any], tmp_path: Path
) -> None:
    def replay(*arguments: str, model: str, **helpers: str) -> Any:
        named = {role: {"given": name} for role, name in helpers.items()}
        content = record | {"model": record["model"] | {"given": model}, "helpers": named}
        (tmp_path / "clip.json").write_text(json.dumps(content))
        return magnet("replay", "clip.json", "--check", *arguments)

    done = replay(model="somebody/something")
    assert done.code == 2
    assert done.err.startswith(f"error: {SAID} Check that you trust it and give --download, ")
    assert replay(model=str(GOLDEN / "music"), rescorer="somebody/something").code == 2
    # These go on to ask the Hub, which the tests have off.
    assert replay("--download", model="somebody/something").code == 4
    assert replay(model="magnet-small-10secs").code == 4
    assert replay("--model", "somebody/something", model="somebody/else").code == 4
    # A model that is here needs nothing.
    assert replay(model=str(GOLDEN / "music")).code == 0


@pytest.mark.parametrize(("answer", "code", "last"), [(b"n\n", 1, b"Aborted!"), (b"y\n", 4, b"offline")])
def test_on_a_terminal_it_asks(record: dict[str, Any], tmp_path: Path, answer: bytes, code: int, last: bytes) -> None:
    (tmp_path / "clip.json").write_text(json.dumps(record | {"model": {"given": "somebody/something"}}))
    master, slave = pty.openpty()
    arguments = [sys.executable, "-m", "magnet_cli", "replay", "clip.json", "--check"]
    environment = {**os.environ, "COLUMNS": "300"}
    with subprocess.Popen(arguments, stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path, env=environment) as process:
        os.close(slave)
        shown = b""
        with suppress(OSError):  # which Linux raises at the end
            while chunk := os.read(master, 65536):
                shown += chunk
                if shown.endswith(b"[y/N]: "):
                    os.write(master, answer)
    os.close(master)
    assert SAID.encode() + b" Download it? [y/N]: " in shown
    assert last in shown.splitlines()[-1]
    assert process.returncode == code
