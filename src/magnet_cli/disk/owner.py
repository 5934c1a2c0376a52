"""Whose an unfinished file or folder is: a mark in its name, and whether the process that made it is gone.

A mark names the machine, the process and when that started, so that nobody removes what another process still needs.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from contextlib import suppress
from pathlib import Path

MARK = r"[0-9a-f]{8}-\d+-\d+"  # machine, process, its start; for regular expressions
_PARTS = re.compile(r"([0-9a-f]{8})-(\d+)-(\d+)")
_START_FIELD = 22 - 3  # of /proc/PID/stat after the process's name; see proc(5)


def own_mark() -> str:
    """The mark of this process."""
    process = os.getpid()
    return f"{_machine()}-{process}-{_start(process) or 0}"


def is_abandoned(mark: str) -> bool:
    """Whether the process of a mark has surely ended. False wherever that cannot be known, as for other machines."""
    found = _PARTS.fullmatch(mark)
    if found is None or found[1] != _machine() or os.name == "nt":  # there, os.kill would stop the process
        return False
    process, start = int(found[2]), int(found[3])
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it is another user's, or no number of a process
        pass
    now = _start(process)
    return bool(start and now and now != start)


def _machine() -> str:
    """A word for where process numbers mean the same: the host and, in a container, its processes' namespace."""
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()}/{namespace}".encode()).hexdigest()[:8]


def _start(process: int) -> int | None:
    """When a process started, in ticks since the system did; None where the system does not show it (Linux does)."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return int(status.rpartition(")")[2].split()[_START_FIELD])
    except (OSError, ValueError, LookupError):
        return None
