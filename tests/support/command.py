"""The `magnet` command as a shell runs it: what it printed, how it ended, how long it took."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Magnet = Callable[..., Result]


def clean_environment() -> dict[str, str]:
    """The environment without what steers the Hub's client; a proxy would stand between it and the server here."""
    unwanted = re.compile("(HF|MAGNET)_|.*_PROXY$", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if not unwanted.match(name)}


def processor_seconds(*arguments: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run Python as a process: the processor time it took, which a busy machine stretches less than the clock's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


IMPORTING_TYPER = 0.07  # seconds on an idle machine, Python's own start included


def seconds_when_idle(*arguments: str) -> tuple[float, list[subprocess.CompletedProcess[str]]]:
    """About the processor time that running Python would take on an idle machine.

    What shares a core, another process on its second thread above all, stretches processor time too. So the time it
    takes to import typer, which most of a start-up is, is measured in turn, and its stretch taken out.
    """
    pairs = [(processor_seconds(*arguments), processor_seconds("-c", "import typer")[0]) for _ in range(5)]
    stretch = max(min(base for _, base in pairs) / IMPORTING_TYPER, 1.0)
    return min(seconds for (seconds, _), _ in pairs) / stretch, [done for (_, done), _ in pairs]


def one_line_error(result: Result, code: int, *parts: str) -> None:
    """The last line on stderr is the error; nothing is on stdout; no traceback."""
    assert result.code == code, result.err
    assert result.out == ""
    last = result.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert last.endswith(".")
    assert [line.startswith("error: ") for line in result.err.splitlines()].count(True) == 1
    assert "Traceback" not in result.err
    for part in parts:
        assert part in last
