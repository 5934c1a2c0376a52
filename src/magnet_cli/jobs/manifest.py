"""What a batch has made so far: a file of JSON lines in its folder, to which lines are only ever added.

A line is written, and on the disk, before the files it speaks of get their names. So after a crash whatever has its
name is in the manifest, and what the manifest names but is not there is made again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from magnet_cli.audio.atomic import Content
from magnet_cli.errors import OutputError, UsageError
from magnet_cli.jobs.targets import Target
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import Job
from magnet_cli.options.output import OutputConfig

MANIFEST_FILE, LOCK_FILE = "manifest.jsonl", ".magnet.lock"
FORMAT, VERSION = "magnet-batch", 1
START = b'{"format": "magnet-batch"'  # of the first line
TEMPORARY = re.compile(r"\.magnet-[0-9a-f]{16}(\.\w+)?")  # see `audio.atomic`


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


def item_key(job: Job, output: OutputConfig, suffix: str, hashes: Mapping[str, str], inputs: dict[str, str]) -> str:
    """What a clip is, in 32 hexadecimal digits: the same for the same clip, whatever it is called.

    hashes: of the models' files; inputs: those of inputs so far, which this adds to.
    """
    facts = {
        "prompt": job.prompt,
        "seed": job.seed,
        "sampling": _plain(job.sampling),
        "edit": _plain(job.edit),
        "input": input_hash(job.edit, inputs),
        "output": _plain(output),
        "format": suffix.lower(),
        "model": dict(hashes),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


@lru_cache(maxsize=64)
def _plain(options: Any) -> dict[str, Any]:
    """asdict, once for the many items of a batch that have the same."""
    return asdict(options)


def input_hash(edit: EditConfig, known: dict[str, str]) -> str | None:
    """SHA-256 of the audio file a clip starts from. known: those of other clips, which this adds to."""
    if edit.input is None:
        return None
    if edit.input not in known:
        try:
            known[edit.input] = digest(Path(edit.input).read_bytes())
        except OSError as error:
            raise UsageError(f"cannot read {edit.input}: {error.strerror}", "Check the path") from error
    return known[edit.input]


class Manifest:
    """The manifest of a folder: `read` to look at it, `opened` to write to it."""

    def __init__(self, folder: Path, headers: list[Header], entries: dict[str, Entry]) -> None:
        self.folder = folder
        self.headers = headers
        self.entries = entries
        self._identity: tuple[int, int] | None = None

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """What is there; without headers when there is nothing. OutputError for a manifest of another kind."""
        path = folder / MANIFEST_FILE
        try:
            lines = path.read_bytes().split(b"\n") if path.exists() else []
        except OSError as error:
            raise OutputError(f"cannot read {path}: {error.strerror}", "Choose another folder") from error
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

        lock = FileLock(folder / LOCK_FILE, timeout=0)
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
        """Remove what a killed process has left unfinished beside these files and those that were made."""
        made = (self.folder / one.path for entry in self.entries.values() for one in entry.files)
        for folder in {path.parent for path in (*files, *made)}:
            with _changing(folder):
                for path in folder.glob(".magnet-*"):
                    if TEMPORARY.fullmatch(path.name):
                        path.unlink()

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
            path = self.folder / made.path
            with _changing(path):
                if self.is_intact(made):
                    path.unlink()
                elif path.is_file():
                    number = 1
                    while (aside := path.with_name(f"{path.stem}.changed-{number}{path.suffix}")).exists():
                        number += 1
                    path.rename(aside)
                    moved.append(aside)
        return moved

    def is_intact(self, made: Made) -> bool:
        """Whether a file is as it was made. Its content is read only if its time of change is another."""
        path = self.folder / made.path
        try:
            status = path.stat()
            if status.st_size != made.size or not stat.S_ISREG(status.st_mode):
                return False
            return status.st_mtime_ns == made.time or digest(path.read_bytes()) == made.sha256
        except (OSError, ValueError):  # ValueError: a damaged manifest can hold what no path can
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


def digest(content: Content) -> str:
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
        value = json.loads(line)
    except (ValueError, RecursionError):
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
    if any(".." in Path(made.path).parts or Path(made.path).is_absolute() for made in files):
        return None
    return Entry(item, files, error, seconds)
