"""Files that are being written, under hidden names of their own, and the removal of those that were abandoned.

A writer holds a lock of the operating system (flock) on its file, which ends with the process, however that ends. So
the system itself says whether a file still has a writer. A process id cannot: it is used again, and means nothing in
another container. Locks may not reach other hosts that share a disk. That is why the name says on which host the
writer runs.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Names of earlier versions lack the host.
UNFINISHED_NAME = re.compile(r"\.magnet-(?:(?P<host>[0-9a-f]{8})-)?[0-9a-f]{16}(\.\w+)?")
# Seconds without a change after which a file is abandoned, where no lock can say so: on another host, on Windows, on
# disks without locks. Writing a file takes seconds, and copying a large model to a slow disk an hour.
LONGEST_WRITE = 24 * 3600.0


def unfinished_path(folder: Path, suffix: str) -> Path:
    """A new name in a folder for a file that will get another name when it is complete."""
    # Not made from the file's own name, which may have the greatest length already; nor by tempfile, whose files only
    # their owner may read.
    return folder / f".magnet-{_host()}-{secrets.token_hex(8)}{suffix}"


def create_unfinished(path: Path) -> BinaryIO:
    """Create a file that is this process's until it is closed; see `sweep`. Raises OSError."""
    while True:
        file = path.open("xb")
        if fcntl is not None:
            with suppress(OSError):  # not every disk has locks
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        if os.path.lexists(path):
            return file
        file.close()  # swept before it was locked


def sweep(folder: Path) -> None:
    """Remove the unfinished files of a folder whose writers have ended. Raises OSError."""
    for path in folder.glob(".magnet-*"):
        if name := UNFINISHED_NAME.fullmatch(path.name):
            with suppress(FileNotFoundError):  # its writer has finished meanwhile
                _remove_abandoned(path, here=name["host"] == _host())


def _remove_abandoned(path: Path, *, here: bool) -> None:
    """Remove an unfinished file unless it has a writer; here: that would run on this host."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        return
    old = time.time() - status.st_mtime > LONGEST_WRITE
    if not here or fcntl is None:
        if old:
            path.unlink()
        return
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)  # some disks lock only what is open for writing
    except PermissionError:  # another user's
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError) or not old:
                return
        path.unlink()  # before the lock ends: a writer that waits for it must not find the name
    finally:
        os.close(file)


def _host() -> str:
    """This host, in 8 hexadecimal digits."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]
