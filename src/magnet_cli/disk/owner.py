"""Marks in the names of unfinished folders, which show whether the process that created them has ended.

A mark names the machine, the process and its start, so that no process removes what another one still needs.
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
    """Whether the process of a mark has certainly ended. False where that cannot be known, as on other machines."""
    found = _PARTS.fullmatch(mark)
    if found is None or found[1] != _machine() or os.name == "nt":  # there, os.kill would stop the process
        return False
    process, start = int(found[2]), int(found[3])
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's process, or not a process number
        pass
    now = _start(process)
    return bool(start and now and now != start)


def _machine() -> str:
    """A name for the scope of process numbers: the host and, in a container, its process namespace."""
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()}/{namespace}".encode()).hexdigest()[:8]


def _start(process: int) -> int | None:
    """The start of a process, in ticks since the system's; None where the system does not show it (Linux does)."""
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return int(status.rpartition(")")[2].split()[_START_FIELD])
    except (OSError, ValueError, LookupError):
        return None
