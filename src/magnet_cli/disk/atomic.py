"""Files that appear under their names only when they are complete."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from magnet_cli.disk.confine import check_within
from magnet_cli.disk.unfinished import create_unfinished, unfinished_path
from magnet_cli.errors import OutputError

Content = bytes | mmap.mmap  # of a file: in memory, or in a temporary file

LONGEST_PART = 255  # bytes that file systems allow a name

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
OVERWRITE_HINT = "Pass --force to overwrite it, or choose another name"


def check_writable(paths: Sequence[Path], *, overwrite: bool = False) -> None:
    """Check, before any work, that these paths can be written. Leaves nothing behind.

    A path must not exist, or with `overwrite` be a regular file. Its nearest existing parent must be a folder in which
    a file can be created. This creates one there, because os.access ignores the access control lists of Windows.

    Raises:
        OutputError: if a path cannot be written.
    """
    tried: set[Path] = set()
    for path in paths:
        for part in path.parts:
            if len(os.fsencode(part)) > LONGEST_PART:
                raise OutputError(f"cannot write {path}: a name in it is too long", "Choose a shorter name")
        try:
            _check_target(path, overwrite=overwrite)
            parent = path.absolute().parent
        except OSError as error:  # such as a working directory that was removed
            raise _output_error(path, error) from error
        while not _exists(parent) and parent != parent.parent:
            parent = parent.parent
        if parent not in tried:
            _try_folder(parent, path)
            tried.add(parent)


def _try_folder(folder: Path, path: Path) -> None:
    """Create and remove a file in this folder, in which `path` will be written.

    Raises:
        OutputError: if that fails.
    """
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: {folder} is not a folder", "Choose another folder")
    probe = unfinished_path(folder, "")
    try:
        probe.touch(exist_ok=False)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        with suppress(OSError):
            probe.unlink()


def write_atomic(path: Path, write: Callable[[BinaryIO], object], *, overwrite: bool = False) -> None:
    """Create a file and its folders, completely or not at all, from what `write` writes into the file that it is given.

    `write` fills a hidden file beside `path`, which is flushed to the disk and only then renamed to `path`. After any
    failure, including Ctrl-C, the hidden file is removed, and an earlier file at `path` is unchanged. Without
    `overwrite` an existing file is never replaced, even if it appeared during the work. A symbolic link stays one: its
    target is replaced.

    Raises:
        OutputError: if the file exists or cannot be written; also in place of an OSError of `write`, whose other
            exceptions pass through.
    """
    with _Unpublished(overwrite=overwrite) as files:
        files.add(path, write)
        files.publish()


def write_together(
    contents: Sequence[tuple[Path, Content]],
    *,
    overwrite: bool = False,
    within: Path | None = None,
    before_publishing: Callable[[dict[Path, os.stat_result]], object] | None = None,
) -> None:
    """Create several files as `write_atomic` does one: all of them, or none.

    They get their names in order, so the last exists only if all do. within: their folder, out of which no link is
    followed. before_publishing: called when all are complete on the disk and none has its name yet, with the size and
    time that each will have.
    """
    with _Unpublished(overwrite=overwrite) as files:
        for path, content in contents:
            if within is not None:
                check_within(within, path)
            files.add(path, lambda file, content=content: file.write(content))  # type: ignore[misc]
        if before_publishing is not None:
            before_publishing(files.stats())
        files.publish()


class _Unpublished:
    """Complete files that do not have their names yet. At the end, those still without a name are removed."""

    def __init__(self, *, overwrite: bool) -> None:
        self._overwrite = overwrite
        self._files: list[tuple[Path, Path, Path]] = []  # the name given, the path after links, the temporary file
        self._open: list[BinaryIO] = []

    def __enter__(self) -> _Unpublished:
        return self

    def __exit__(self, *exception: object) -> None:
        with _signals_wait():
            self._remove()

    def _remove(self) -> None:
        while self._open:
            with suppress(OSError):  # writing its buffer fails again
                self._open.pop().close()
        while self._files:
            with suppress(OSError):  # it was renamed
                self._files.pop()[2].unlink()

    def add(self, name: Path, write: Callable[[BinaryIO], object]) -> None:
        """Fill a hidden file beside the final one, and flush it to the disk.

        It stays open until it has its name, which shows other processes that it has a writer.
        """
        path = Path(os.path.realpath(name)) if self._overwrite and name.is_symlink() else name
        _check_target(path, overwrite=self._overwrite)
        temporary = unfinished_path(path.parent, path.suffix)
        self._files.append((name, path, temporary))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = create_unfinished(temporary)
            self._open.append(file)
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":
                file.close()  # Windows does not rename open files
        except OSError as error:
            raise _output_error(path, error) from error

    def stats(self) -> dict[Path, os.stat_result]:
        """The status of each file."""
        try:
            return {name: temporary.stat() for name, _, temporary in self._files}
        except OSError as error:
            raise _output_error(self._files[-1][1], error) from error

    def publish(self) -> None:
        """Give every file its name, in order. If one fails, the new names of the others are removed again.

        Signals wait meanwhile, so that no signal stops the program between two files.
        """
        folders = {path.parent for _, path, _ in self._files}
        with _signals_wait():
            self._name_all()
            self._remove()
        for folder in folders:
            _sync_folder(folder)

    def _name_all(self) -> None:
        published: list[Path] = []
        try:
            for _, path, temporary in self._files:
                existed = _exists(path)
                try:
                    _publish(temporary, path, overwrite=self._overwrite)
                except OSError as error:
                    raise _output_error(path, error) from error
                if not existed:
                    published.append(path)
        except BaseException:
            for path in published:
                with suppress(OSError):
                    path.unlink()
            raise


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Delay signals that stop the program until the end of this, which must take only milliseconds."""
    if threading.current_thread() is not threading.main_thread():  # signals interrupt only that thread
        yield
        return
    came: list[int] = []
    before: dict[int, Any] = {}
    try:
        for number in STOPPING:
            handler = signal.getsignal(number)
            if handler is not None:  # None: not set by Python, which could not restore it
                before[number] = handler
                signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Give the finished file its name.

    Raises:
        OutputError: if the name is taken and `overwrite` is not set.
    """
    if overwrite:
        os.replace(temporary, path)
        return
    try:
        if os.name == "nt":
            os.rename(temporary, path)  # only on Windows does this refuse a name that is taken
        else:
            os.link(temporary, path)
    except FileExistsError as error:
        raise OutputError(f"{path} already exists", OVERWRITE_HINT) from error
    except OSError:
        if os.name == "nt":
            raise
        _claim(temporary, path)


def _claim(temporary: Path, path: Path) -> None:
    """`_publish` for file systems without hard links, such as FAT: first reserve the name with an empty file."""
    try:
        path.open("xb").close()
    except FileExistsError as error:
        raise OutputError(f"{path} already exists", OVERWRITE_HINT) from error
    try:
        os.replace(temporary, path)
    except BaseException:
        path.unlink()
        raise


def _check_target(path: Path, *, overwrite: bool) -> None:
    if not _exists(path):
        return
    if path.is_dir():
        raise OutputError(f"{path} is a folder", "Give the name of a file")
    if not overwrite:
        raise OutputError(f"{path} already exists", OVERWRITE_HINT)
    if not stat.S_ISREG(path.lstat().st_mode) and not path.is_symlink():  # replacing /dev/null would damage the system
        raise OutputError(f"{path} is not a regular file", "Choose another name")


def _exists(path: Path) -> bool:
    return os.path.lexists(path)  # a broken link takes the name, too


def _sync_folder(folder: Path) -> None:
    """Make new names survive a loss of power, where the system opens folders; Windows does not."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _output_error(path: Path, error: OSError) -> OutputError:
    hints = {
        "ENOSPC": "Free some space, or choose a folder on another disk",
        "EDQUOT": "Free some space, or choose a folder on another disk",
        "EROFS": "Choose a folder that is not read-only",
        "ENAMETOOLONG": "Choose a shorter name",
    }
    hint = hints.get(
        errno.errorcode.get(error.errno or 0, ""), "Check the folder and its permissions, or choose another"
    )
    return OutputError(f"cannot write {path}: {reason(error)}", hint)


def reason(error: OSError) -> str:
    return error.strerror or str(error)
