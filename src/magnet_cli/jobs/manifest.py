"""What a batch has made so far: a file of JSON lines in its folder, to which lines are only ever added.

A line is written, and on the disk, before the files it speaks of get their names. So after a crash whatever has its
name is in the manifest, and what the manifest names but is not there is made again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnet_cli.audio.confine import Confinement, check_within
from magnet_cli.audio.unfinished import sweep
from magnet_cli.errors import OutputError
from magnet_cli.jobs.targets import Target
from magnet_cli.options.job import Job
from magnet_cli.options.output import OutputConfig
from magnet_cli.small_files import MissingFileError, UnreadableFileError, parse_json, read_bytes

if TYPE_CHECKING:
    from magnet_cli.pipeline.inputs import InputFiles

MOST_BYTES = 1 << 31  # of a manifest, which has 500 bytes for a clip
MANIFEST_FILE, LOCK_FILE = "manifest.jsonl", ".magnet.lock"
FORMAT, VERSION = "magnet-batch", 1
START = b'{"format": "magnet-batch"'  # of the first line


@dataclass(frozen=True)
class Made:
    """A file that was made: its path within the folder, its size, its time of change (ns) and its SHA-256."""

    path: str
    size: int
    time: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """An item that was made: audio last among `files`. With `error`, it failed; files are then of an earlier time."""

    item: str
    files: tuple[Made, ...]
    error: str | None = None
    seconds: float = 0.0  # that making it took


@dataclass(frozen=True)
class Header:
    """What a batch is: the first seed of its rows, and the options that are the same for all of them."""

    seed: int
    settings: dict[str, Any]


@dataclass(frozen=True)
class Item:
    """A clip to make, and where it goes. `key` says what it is, for a manifest; see `item_key`."""

    job: Job
    target: Target
    key: str = ""


def item_key(job: Job, output: OutputConfig, suffix: str, hashes: Mapping[str, str], inputs: InputFiles) -> str:
    """What a clip is, in 32 hexadecimal digits: the same for the same clip, whatever it is called.

    hashes: of the models' files.
    """
    facts = {
        "prompt": job.prompt,
        "seed": job.seed,
        "sampling": _plain(job.sampling),
        "edit": _plain(job.edit),
        "input": None if job.edit.input is None else inputs.sha256(job.edit.input),
        "output": _plain(output),
        "format": suffix.lower(),
        "model": dict(hashes),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


@lru_cache(maxsize=64)
def _plain(options: Any) -> dict[str, Any]:
    """asdict, once for the many items of a batch that have the same."""
    return asdict(options)


class Manifest:
    """The manifest of a folder: `read` to look at it, `opened` to write to it."""

    def __init__(self, folder: Path, headers: list[Header], entries: dict[str, Entry]) -> None:
        self.folder = folder
        self.headers = headers
        self.entries = entries
        self._identity: tuple[int, int] | None = None
        self._confinement = Confinement(folder)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """What is there; without headers when there is nothing. OutputError for a manifest of another kind."""
        path = folder / MANIFEST_FILE
        check_within(folder, path)
        try:
            lines = read_bytes(path, most=MOST_BYTES).split(b"\n")
        except MissingFileError:
            lines = []
        except UnreadableFileError as error:
            raise OutputError(f"cannot read {path}: {error}", "Choose another folder") from error
        headers: list[Header] = []
        entries: dict[str, Entry] = {}
        for line in filter(None, lines):
            value = _parse(line)
            if value is None:  # a line that a crash has cut: what it spoke of has no name yet
                continue
            if "format" in value:
                if value["format"] != FORMAT or value.get("version") != VERSION:
                    raise OutputError(f"{path} is not of this version of magnet", "Choose another folder")
                headers += filter(None, [_header(value)])
            elif (entry := _entry(value)) is not None:
                entries[entry.item] = _after(entries.get(entry.item), entry)
        cut = len(lines) == 1 and (lines[0].startswith(START) or START.startswith(lines[0]))  # the disk was full
        if not headers and any(lines) and not cut:
            raise OutputError(f"{path} is not the manifest of a batch", "Choose another folder")
        return cls(folder, headers, entries)

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Iterator[Manifest]:
        """The manifest, with other processes kept out of the folder; OutputError if one is in it."""
        from filelock import FileLock, Timeout  # slow to import, and only batches need it

        path = folder / LOCK_FILE
        if path.is_symlink():  # FileLock empties what it opens, in some versions through a link
            raise OutputError(f"{path} is a link", "Remove the link, or choose another folder")
        lock = FileLock(path, timeout=0)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            hint = "Wait until it is done, or choose another folder"
            raise OutputError(f"another batch is writing into {folder}", hint) from None
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError(
                f"cannot write into {folder}: {reason}", "Choose another folder, or mend this one"
            ) from error
        try:
            manifest = cls.read(folder)
            with _changing(folder):
                status = folder.stat()
            manifest._identity = (status.st_dev, status.st_ino)
            yield manifest
        finally:
            lock.release()

    def sweep(self, files: Iterable[Path]) -> None:
        """Remove what killed processes have left unfinished beside these files and those that were made."""
        made = (self.folder / one.path for entry in self.entries.values() for one in entry.files)
        for folder in {path.parent for path in (*files, *made)}:
            check_within(self.folder, folder)
            with _changing(folder):
                sweep(folder)

    def path(self, made: Made) -> Path:
        """Where a file is. OutputError if a link leads out of the manifest's folder: nothing there was made here."""
        path = self.folder / made.path
        self._confinement.check(path)
        return path

    def check_folder(self) -> None:
        """Raise OutputError if the folder is not the one that was locked: moved, removed or unmounted."""
        try:
            status = self.folder.stat()
        except OSError:
            status = None
        if status is None or (status.st_dev, status.st_ino) != self._identity:
            raise OutputError(
                f"{self.folder} is gone, or another folder is in its place",
                "Put it back and run the same command again",
            )

    def start(self, header: Header) -> None:
        """Note what the batch is, unless that is noted already."""
        if header not in self.headers:
            self._append({"format": FORMAT, "version": VERSION, "seed": header.seed, "settings": header.settings})
            self.headers.append(header)

    def says_as(self, other: Manifest) -> bool:
        """Whether another reading of it, perhaps of an earlier time, says the same."""
        return (self.headers, self.entries) == (other.headers, other.entries)

    def seed(self, settings: dict[str, Any]) -> int | None:
        """The seed of the last batch with these settings."""
        return next((header.seed for header in reversed(self.headers) if header.settings == settings), None)

    def add(self, entry: Entry) -> None:
        """Note an item; on the disk when this returns."""
        value: dict[str, Any] = {"item": entry.item, "seconds": round(entry.seconds, 3)}
        if entry.error is not None:
            value["error"] = entry.error
        value["files"] = [[one.path, one.size, one.time, one.sha256] for one in entry.files]
        self._append(value)
        self.entries[entry.item] = _after(self.entries.get(entry.item), entry)

    def finished(self, item: str) -> Entry | None:
        """The entry of an item whose files are all there and as they were made."""
        entry = self.entries.get(item)
        if entry is None or entry.error is not None or not entry.files or not all(map(self.is_intact, entry.files)):
            return None
        return entry

    def clear_way(self, entry: Entry) -> list[Path]:
        """Make room for an item to be made again. What was left as it was made goes; anything else gets another name.

        Returns those names: a file that has changed may be damaged, or somebody's work.
        """
        moved = []
        for made in entry.files:
            path = self.path(made)
            with _changing(path):
                if self.is_intact(made):
                    path.unlink()
                elif path.is_file():
                    number = 1
                    while os.path.lexists(aside := path.with_name(f"{path.stem}.changed-{number}{path.suffix}")):
                        number += 1
                    path.rename(aside)
                    moved.append(aside)
        return moved

    def is_intact(self, made: Made) -> bool:
        """Whether a file is as it was made. Its content is read only if its time of change is another."""
        path = self.path(made)
        try:
            status = path.stat()
            if status.st_size != made.size or not stat.S_ISREG(status.st_mode):
                return False
            return status.st_mtime_ns == made.time or digest(path.read_bytes()) == made.sha256
        except OSError:
            return False

    def _append(self, value: Mapping[str, Any]) -> None:
        path = self.folder / MANIFEST_FILE
        line = json.dumps(value, allow_nan=False).encode() + b"\n"
        try:
            with path.open("ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":  # a line that a crash has cut
                        line = b"\n" + line
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"cannot write {path}: {error.strerror}", "Make room on that disk, or mend the folder"
            ) from error


def digest(content: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Turn what the system refuses into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot change {path}: {error.strerror}", "Check the folder and its permissions") from error


def _after(before: Entry | None, entry: Entry) -> Entry:
    """What an entry says when another came before: an item that fails now may have left files when it did not."""
    return entry if before is None or entry.error is None else replace(entry, files=before.files)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(line)
    except UnreadableFileError:
        return None
    return value if isinstance(value, dict) else None


def _header(value: dict[str, Any]) -> Header | None:
    seed, settings = value.get("seed"), value.get("settings")
    return Header(seed, settings) if type(seed) is int and isinstance(settings, dict) else None


def _entry(value: dict[str, Any]) -> Entry | None:
    """The entry on a line; None for a line that is damaged, whose item is then made again."""
    try:
        item, error, seconds = value["item"], value.get("error"), float(value["seconds"])
        files = tuple(Made(str(path), int(size), int(time), str(sha)) for path, size, time, sha in value["files"])
    except (LookupError, TypeError, ValueError, OverflowError):
        return None
    if not 0 <= seconds < math.inf or not isinstance(item, str) or not (error is None or isinstance(error, str)):
        return None
    if not all(_is_relative(made.path) for made in files):
        return None
    return Entry(item, files, error, seconds)


def _is_relative(path: str) -> bool:
    """Whether a path of a manifest can be one, has the name of a file, and names no place outside its folder."""
    try:
        os.fsencode(path)
    except ValueError:
        return False
    one = Path(path)
    # Not is_absolute: on Windows C:x and \\x are not absolute, and yet lead elsewhere.
    return bool(one.name) and "\0" not in path and ".." not in one.parts and not one.anchor
