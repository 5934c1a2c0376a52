"""Files that are being written, which have hidden names, and the removal of abandoned ones.

A writer holds a lock of the operating system (flock) on its file. The lock ends with the process, however that ends. So
the lock shows whether a file still has a writer. A process id cannot show it: ids are reused, and differ between
containers. Locks may not reach other hosts that share a disk, so the name also says on which host the writer runs.
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
# Where locks show nothing (on other hosts, on Windows, on disks without locks), a file is abandoned after this many
# seconds without a change. Writing a file takes seconds, and copying a large model to a slow disk an hour.
LONGEST_WRITE = 24 * 3600.0


def unfinished_path(folder: Path, suffix: str) -> Path:
    """A new name in a folder for a file that gets its final name when it is complete."""
    # Not derived from the file's own name, which may already have the greatest length. Not from tempfile, whose files
    # only their owner may read.
    return folder / f".magnet-{_host()}-{secrets.token_hex(8)}{suffix}"


def create_unfinished(path: Path) -> BinaryIO:
    """Create a file that belongs to this process until it is closed; see `sweep`.

    Raises:
        OSError: if it cannot be created.
    """
    while True:
        file = path.open("xb")
        if fcntl is not None:
            with suppress(OSError):  # not every disk has locks
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        if os.path.lexists(path):
            return file
        file.close()  # another process removed it before it was locked


def sweep(folder: Path) -> None:
    """Remove the unfinished files of a folder whose writers have ended.

    Raises:
        OSError: if a file cannot be removed.
    """
    for path in folder.glob(".magnet-*"):
        if name := UNFINISHED_NAME.fullmatch(path.name):
            with suppress(FileNotFoundError):  # its writer has finished in the meantime
                _remove_abandoned(path, here=name["host"] == _host())


def _remove_abandoned(path: Path, *, here: bool) -> None:
    """Remove an unfinished file unless it has a writer. here: its writer ran on this host."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        return
    old = time.time() - status.st_mtime > LONGEST_WRITE
    if not here or fcntl is None:
        if old:
            path.unlink()
        return
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW)  # some disks lock only files that are open for writing
    except PermissionError:  # another user's
        return
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError) or not old:
                return
        path.unlink()  # before the lock ends, so that a writer waiting for the lock does not find the name
    finally:
        os.close(file)


def _host() -> str:
    """This host, in 8 hexadecimal digits."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]
