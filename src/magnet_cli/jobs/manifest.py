"""The manifest of a batch: a file of JSON lines in its folder, to which lines are only ever appended.

A line reaches the disk before the files that it names get their names. So after a crash every named file is in the
manifest, and a file that the manifest names but that is missing is generated again.

The manifest itself may be damaged or deleted. Every line has a checksum, and a line with a wrong checksum is ignored.
The header, which is the first line, is repeated within some lines of items. The record beside a clip repeats what the
clip's line in the manifest says (see `note` and `recall`). So a batch resumes without its manifest, and only clips
without records are generated again. A file that may belong to an item, but of which nothing is known, is renamed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass, fields, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnet_cli.audio.formats import sidecar
from magnet_cli.disk.atomic import Content, write_together
from magnet_cli.disk.confine import Confinement, check_within
from magnet_cli.disk.small_files import MissingFileError, UnreadableFileError, read_bytes
from magnet_cli.disk.unfinished import sweep
from magnet_cli.errors import OutputError
from magnet_cli.jobs.seal import is_sealed, sealed
from magnet_cli.jobs.targets import Target
from magnet_cli.options.candidates import JudgeName
from magnet_cli.options.job import LARGEST_SEED, Job
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.sampling import LATER, MusicGenSampling, SamplingConfig

if TYPE_CHECKING:
    from magnet_cli.pipeline.inputs import InputFiles

MOST_BYTES = 1 << 31  # of a manifest, which takes about 500 bytes for each clip
MANIFEST_FILE, LOCK_FILE = "manifest.jsonl", ".magnet.lock"
FORMAT, VERSION = "magnet-batch", 1
START = b'{"format": "magnet-batch"'  # of the first line
# A damaged line is taken for a manifest's if it has two of these, or one while another line is an intact item.
TRACES = (START, b'"settings": {', b'"sum": "', b'{"item": "', b'"files": [[')
REPEAT = 50  # one in so many lines of items repeats the header, which adds about 1 % to the file
NOTE = "manifest"  # in the record beside a clip: what the manifest says of it
RECORD_BYTES = 1 << 20  # no record is larger
# Limits of the search for a record that has the header: the batch's folder may be a whole home folder.
MOST_NAMES, MOST_RECORDS = 10_000, 100


@dataclass(frozen=True)
class Made:
    """A file that was made: its path within the folder, its size, its time of change (ns) and its SHA-256."""

    path: str
    size: int
    time: int
    sha256: str


@dataclass(frozen=True)
class Measured:
    """What was measured of a clip: its length in seconds, its loudness in LUFS, its true peak in dBTP.

    None is unknown or, of silence, has no value.
    """

    seconds: float | None
    lufs: float | None
    true_peak: float | None


@dataclass(frozen=True)
class Entry:
    """An item that was generated; its audio file is the last of `files`.

    With `error`, the latest attempt failed, and `files` are those of an earlier attempt.
    """

    item: str
    files: tuple[Made, ...]
    error: str | None = None
    seconds: float = 0.0  # that its generation took
    measured: Measured | None = None  # missing in the manifests of earlier versions
    seed: int | None = None  # of the candidate that was kept, where there were several


@dataclass(frozen=True)
class Header:
    """What defines a batch: the seed that its rows derive theirs from, and the options that all rows share."""

    seed: int
    settings: dict[str, Any]


@dataclass(frozen=True)
class Rival:
    """Another candidate for a clip. target: its files; None: those of the clip, whichever candidate is kept."""

    job: Job
    target: Target | None = None


@dataclass(frozen=True)
class Item:
    """A clip to generate and its files. `key` identifies it in a manifest; see `item_key`.

    rivals: other candidates for the clip, of which only the best is written. judge: how they are compared; without
    rivals, what finds the score that the record has. None: nothing does.
    """

    job: Job
    target: Target
    key: str = ""
    rivals: tuple[Rival, ...] = ()
    judge: JudgeName | None = None

    @property
    def candidates(self) -> list[Item]:
        """The clip itself and its rivals, each as a clip that is generated."""
        own = replace(self, rivals=())
        return [own, *(replace(own, job=one.job, target=one.target or self.target) for one in self.rivals)]


def item_key(
    job: Job,
    output: OutputConfig,
    suffix: str,
    hashes: Mapping[str, str],
    inputs: InputFiles,
    candidates: Mapping[str, Any] | None = None,
) -> str:
    """The identity of a clip, 32 hexadecimal digits; it depends on all that determines the clip, not on its name.

    hashes: of the models' files. candidates: how it is chosen of several, of which `job` is the first.
    """
    facts = {
        "prompt": job.text,
        "seed": job.seed,
        "sampling": _sampled(job.sampling),
        "edit": _plain(job.edit),
        "input": None if job.edit.input is None else inputs.sha256(job.edit.input),
        "output": _written(inputs.output(output, job.edit.input, suffix)),
        "format": suffix.lower(),
        "model": dict(hashes),
        **({"candidates": dict(candidates)} if candidates else {}),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


@lru_cache(maxsize=64)
def _written(output: OutputConfig) -> dict[str, Any]:
    """The options of the output. Without a sample rate they are those of versions that knew none."""
    return {name: value for name, value in asdict(output).items() if (name, value) != ("sample_rate", None)}


@lru_cache(maxsize=64)
def _sampled(sampling: SamplingConfig | MusicGenSampling) -> dict[str, Any]:
    """The sampling options. Where later ones have their defaults, they are those of versions that knew none of them."""
    unset = {(one.name, one.default) for one in fields(sampling) if one.name in LATER}
    return {name: value for name, value in asdict(sampling).items() if (name, value) not in unset}


@lru_cache(maxsize=64)
def _plain(options: Any) -> dict[str, Any]:
    """asdict, computed once for the many items of a batch that share their options."""
    return asdict(options)


class Manifest:
    """The manifest of a folder: `read` only reads it; `opened` locks the folder, for writing."""

    def __init__(self, folder: Path, headers: list[Header], entries: dict[str, Entry]) -> None:
        self.folder = folder
        self.headers = headers
        self.entries = entries
        self.reports: dict[str, set[str]] = {}  # SHA-256 of the files about the batch, by name; see `publish`
        self.recalled: list[Entry] = []  # restored from records beside clips; `start` writes them to the file
        self._started: Header | None = None
        self._added = 0  # lines of items, since the file was opened or somebody deleted it
        self._identity: tuple[int, int] | None = None
        self._confinement = Confinement(folder)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a folder, which has no headers if there is none.

        Raises:
            OutputError: for a file that is no manifest, or one of another version.
        """
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
        reports: dict[str, set[str]] = {}
        whole, traces = False, 0
        for line in filter(None, lines):
            value = _parse(line)
            if value is None:  # cut off by a crash, and its files have no names; or damaged: `recall`, `clear_unknown`
                traces = max(traces, sum(trace in line for trace in TRACES))
                continue
            whole = whole or is_sealed(value) is True
            if "format" in value and (value["format"] != FORMAT or value.get("version") != VERSION):
                raise OutputError(f"{path} is not of this version of magnet", "Choose another folder")
            headers += filter(lambda one: one not in headers, _headers(value))
            if (entry := _entry(value)) is not None:
                entries[entry.item] = _after(entries.get(entry.item), entry)
            for name, sha in _reports(value):
                reports.setdefault(name, set()).add(sha)
        headers = headers or _headers_beside(folder)
        cut = len(lines) == 1 and (lines[0].startswith(START) or START.startswith(lines[0]))  # the disk was full
        if not headers and any(lines) and not (cut or whole or traces > 1 or (traces and entries)):
            raise OutputError(
                f"{path} is not the manifest of a batch, or is damaged beyond recognition",
                "Choose another folder; if a batch wrote it, rename it and run the same command again",
            )
        manifest = cls(folder, headers, entries)
        manifest.reports = reports
        return manifest

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Iterator[Manifest]:
        """The manifest, with the folder locked against other processes.

        Raises:
            OutputError: if another process has locked the folder, or it cannot be written.
        """
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
                f"cannot write into {folder}: {reason}", "Choose another folder, or repair this one"
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
        """Remove unfinished files of killed processes, in the folders of these files and of those in the manifest."""
        made = (self.folder / one.path for entry in self.entries.values() for one in entry.files)
        for folder in {path.parent for path in (*files, *made)}:
            check_within(self.folder, folder)
            with _changing(folder):
                sweep(folder)

    def path(self, made: Made) -> Path:
        """The path of a file.

        Raises:
            OutputError: if a link leads out of the manifest's folder, where this batch has written nothing.
        """
        path = self.folder / made.path
        self._confinement.check(path)
        return path

    def check_folder(self) -> None:
        """Check that the folder is still the one that was locked.

        Raises:
            OutputError: if it was moved, removed or unmounted.
        """
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
        """Write the header and the recalled items, unless the file has them already."""
        lines = [] if header in self.headers else [_header_value(header)]
        self._started = header
        self._append([*lines, *map(_entry_value, self.recalled)])
        self.recalled = []
        if header not in self.headers:
            self.headers.append(header)

    def says_as(self, other: Manifest) -> bool:
        """Whether another reading of the file, perhaps an earlier one, has the same content."""
        return (self.headers, self.entries) == (other.headers, other.entries)

    def seed(self, settings: dict[str, Any]) -> int | None:
        """The seed of the last batch with these settings."""
        return next((header.seed for header in reversed(self.headers) if header.settings == settings), None)

    def add(self, entry: Entry) -> None:
        """Write an item's line, which is on the disk when this returns."""
        self._append([_entry_value(entry)])
        self.entries[entry.item] = _after(self.entries.get(entry.item), entry)

    def note(self, item: str, files: Sequence[tuple[str, Content]], *, seed: int | None = None) -> dict[str, Any]:
        """What goes into the record beside a clip for `recall`: the item, its batch, and its other files.

        files: their names and contents. seed: of the candidate that was kept, where there were several.
        """
        batch = {} if self._started is None else {"batch": _plain_header(self._started)}
        kept = {} if seed is None else {"seed": seed}
        named = [[name, len(one), digest(one)] for name, one in files]
        return {NOTE: {"item": item, **batch, "files": named, **kept}}

    def measured(self, entry: Entry) -> Measured | None:
        """What was measured of a clip; of one that an earlier version generated, as its record says."""
        if entry.measured is not None or not entry.files:
            return entry.measured
        audio = self.path(entry.files[-1])
        self._confinement.check(sidecar(audio))
        record = _record_in(sidecar(audio))
        return None if record is None else _measured([record.get(one.name) for one in fields(Measured)])

    def publish(self, contents: Sequence[tuple[str, bytes]]) -> list[Path]:
        """Write files about the batch into its folder, in place of those that were written before.

        A file of that name that somebody has changed, or that was not written here, is renamed first. Returns the new
        names.

        Raises:
            OutputError: if they cannot be written.
        """
        self.check_folder()
        moved, changed = [], []
        for name, content in contents:
            path = self.folder / name
            self._confinement.check(path)
            with _changing(path):
                there = digest(path.read_bytes()) if path.is_file() else None
                if there is not None and there not in (*self.reports.get(name, ()), digest(content)):
                    moved.append(_move_aside(path))
                if there != digest(content):
                    changed.append((path, content))

        def note(stats: dict[Path, os.stat_result]) -> None:
            made = [
                Made(path.name, len(content), stats[path].st_mtime_ns, digest(content)) for path, content in changed
            ]
            self._append([{"reports": [_made_value(one) for one in made]}])
            for one in made:
                self.reports.setdefault(one.path, set()).add(one.sha256)

        if changed:
            write_together(changed, overwrite=True, within=self.folder, before_publishing=note)
        return moved

    def recall(self, item: str, audio: Path) -> Entry | None:
        """The entry of an item that the manifest has lost, from the record beside `audio`, if all files are intact."""
        if item in self.entries or (note := self._note_beside(audio)) is None or note.get("item") != item:
            return None
        made = []
        try:
            for name, size, sha in (*note["files"], (sidecar(audio).name, None, None)):
                path = audio.parent / str(name)
                if path.parent != audio.parent or path.name != name:
                    return None
                self._confinement.check(path)
                content, status = path.read_bytes(), path.stat()
                if size is not None and (len(content), digest(content)) != (size, sha):
                    return None
                relative = path.relative_to(self.folder).as_posix()
                made.append(Made(relative, len(content), status.st_mtime_ns, digest(content)))
        except (OSError, LookupError, TypeError, ValueError):
            return None
        if Path(made[-2].path).name != audio.name:  # the audio file is last in a note and in an entry
            return None
        entry = Entry(item, (*made[:-2], made[-1], made[-2]), seed=_seed(note.get("seed")))
        self.entries[item] = entry
        self.recalled.append(entry)
        return entry

    def _note_beside(self, audio: Path) -> dict[str, Any] | None:
        """What the record beside an audio file repeats of the manifest; None without an intact record that does."""
        self._confinement.check(sidecar(audio))
        return _note_in(sidecar(audio))

    def finished(self, item: str) -> Entry | None:
        """The entry of an item if all its files exist and are unchanged."""
        entry = self.entries.get(item)
        if entry is None or entry.error is not None or not entry.files or not all(map(self.is_intact, entry.files)):
            return None
        return entry

    def move(self, entry: Entry, name: str) -> list[Path]:
        """Move an item's files into a subfolder of this name, or a numbered one if they are there already.

        Returns the new paths.
        """
        files = [path for made in entry.files if (path := self.path(made)).is_file()]
        number = 1
        while True:
            subfolder = self.folder / (name if number == 1 else f"{name}-{number}")
            moved = [subfolder / path.relative_to(self.folder) for path in files]
            if not any(map(os.path.lexists, moved)):
                break
            number += 1
        for path, new in zip(files, moved, strict=True):
            self._confinement.check(new)
            with _changing(new):
                new.parent.mkdir(parents=True, exist_ok=True)
                path.rename(new)
        return moved

    def clear_way(self, entry: Entry) -> list[Path]:
        """Make room to generate an item again: remove its unchanged files, and rename the changed ones.

        A file that has changed may be damaged, or somebody's work. Returns the new names.
        """
        moved = []
        for made in entry.files:
            path = self.path(made)
            with _changing(path):
                if self.is_intact(made):
                    path.unlink()
                elif path.is_file():
                    moved.append(_move_aside(path))
        return moved

    def clear_unknown(self, items: Iterable[Item], header: Header) -> list[Path]:
        """Rename files that have the names of items, if the manifest may have lost these items.

        It may if the batch was begun here before. Files that belong to another item stay. Returns the new names.
        """
        if header not in self.headers:
            return []
        known = {self.folder / made.path for entry in self.entries.values() for made in entry.files}
        moved = []
        for item in items:
            note = self._note_beside(item.target.audio)
            if note is not None and note.get("item") != item.key:
                continue
            for path in item.target.files:
                self._confinement.check(path)
                with _changing(path):
                    if path not in known and path.is_file():
                        moved.append(_move_aside(path))
        return moved

    def is_intact(self, made: Made) -> bool:
        """Whether a file is unchanged. Its content is read only if its time of change differs."""
        path = self.path(made)
        try:
            status = path.stat()
            if status.st_size != made.size or not stat.S_ISREG(status.st_mode):
                return False
            return status.st_mtime_ns == made.time or digest(path.read_bytes()) == made.sha256
        except OSError:
            return False

    def _append(self, values: Sequence[dict[str, Any]]) -> None:
        """Write lines, all of which are on the disk when this returns."""
        path = self.folder / MANIFEST_FILE
        try:
            with path.open("ab+") as file:
                end = file.tell()
                if end:
                    file.seek(-1, os.SEEK_END)
                    cut = file.read(1) != b"\n"  # a crash has cut off the last line
                else:
                    cut, self._added = False, 0
                file.write(b"\n" * cut + b"".join(map(self._line, values)))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(
                f"cannot write {path}: {error.strerror}", "Free some space on that disk, or check the folder"
            ) from error

    def _line(self, value: dict[str, Any]) -> bytes:
        """A line as the file has it. The first two lines of items, and one in REPEAT after that, repeat the header."""
        if self._started is not None and "item" in value:
            # Two, because damage to the line end after the header also destroys the first line of an item.
            if self._added < 2 or self._added % REPEAT == 0:
                value = {**value, "batch": _plain_header(self._started)}
            self._added += 1
        return json.dumps(sealed(value), allow_nan=False).encode() + b"\n"


def digest(content: Content) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot change {path}: {error.strerror}", "Check the folder and its permissions") from error


def _after(before: Entry | None, entry: Entry) -> Entry:
    """An entry in view of the one before it: an item that fails now may have files of an earlier success."""
    return entry if before is None or entry.error is None else replace(entry, files=before.files)


def _move_aside(path: Path) -> Path:
    """Rename a file, and return its new name."""
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.stem}.changed-{number}{path.suffix}")):
        number += 1
    path.rename(aside)
    return aside


def _parse(line: bytes) -> dict[str, Any] | None:
    """The object on a line or in a record; None for one that is damaged."""
    try:
        value = json.loads(line)
        whole = isinstance(value, dict) and is_sealed(value) is not False
    except (ValueError, RecursionError):
        return None
    return value if whole else None


def _record_in(path: Path) -> dict[str, Any] | None:
    """A clip's record; None if there is none, or it is damaged."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # no link is followed
            return None
        return _parse(read_bytes(path, most=RECORD_BYTES))
    except (OSError, UnreadableFileError):
        return None


def _note_in(path: Path) -> dict[str, Any] | None:
    """What a clip's record says of the manifest; None if it is damaged, or of an earlier version."""
    record = _record_in(path)
    if record is None or not is_sealed(record):
        return None
    note = record.get(NOTE)
    return note if isinstance(note, dict) else None


def _headers_beside(folder: Path) -> list[Header]:
    """The headers of a folder's batches, from the records beside clips, the latest last."""
    found: list[tuple[int, Header]] = []
    with suppress(OSError):
        for path in islice(_records(folder), MOST_RECORDS):
            note = _note_in(path)
            header = None if note is None else _header(note.get("batch"))
            if header is not None:
                found.append((path.lstat().st_mtime_ns, header))
    headers: list[Header] = []
    for _, header in sorted(found, key=lambda one: one[0], reverse=True):
        if header not in headers:
            headers.insert(0, header)
    return headers


def _records(folder: Path) -> Iterator[Path]:
    """The JSON files in a folder and those below it, no links followed and hidden ones left out."""
    seen = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        seen += len(names) + 1
        if seen > MOST_NAMES and place != os.fspath(folder):
            return
        yield from (Path(place) / name for name in sorted(names) if name.endswith(".json"))


def _headers(value: Mapping[str, Any]) -> list[Header]:
    """The header that a line is or repeats, as a list."""
    header = _header(value if "format" in value else value.get("batch"))
    return [] if header is None else [header]


def _header(value: Any) -> Header | None:
    seed, settings = (value.get("seed"), value.get("settings")) if isinstance(value, dict) else (None, None)
    if type(seed) is not int or not isinstance(settings, dict):
        return None
    # Version 0.1.0 wrote options that were not given as empty lists; now they are left out.
    return Header(seed, {name: setting for name, setting in settings.items() if setting != []})


def _plain_header(header: Header) -> dict[str, Any]:
    return {"seed": header.seed, "settings": header.settings}


def _header_value(header: Header) -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION, **_plain_header(header)}


def _entry_value(entry: Entry) -> dict[str, Any]:
    value: dict[str, Any] = {"item": entry.item, "seconds": round(entry.seconds, 3)}
    if entry.error is not None:
        value["error"] = entry.error
    value["files"] = [_made_value(one) for one in entry.files]
    if entry.measured is not None:
        value["measured"] = list(astuple(entry.measured))
    if entry.seed is not None:
        value["seed"] = entry.seed
    return value


def _made_value(made: Made) -> list[Any]:
    return [made.path, made.size, made.time, made.sha256]


def _reports(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The names and hashes of the files about the batch that a line names."""
    found = value.get("reports")
    for one in found if isinstance(found, list) else ():
        if isinstance(one, list) and len(one) == 4 and isinstance(one[0], str) and isinstance(one[3], str):
            yield one[0], one[3]


def _measured(values: Any) -> Measured | None:
    """What was measured, as a line or a record has it; None if that is missing or damaged."""
    if not isinstance(values, list) or len(values) != len(fields(Measured)):
        return None
    if not all(value is None or (type(value) in (int, float) and abs(value) < 1e9) for value in values):
        return None
    return Measured(*values)


def _entry(value: dict[str, Any]) -> Entry | None:
    """The entry on a line; None for a damaged line, whose item is then generated again."""
    try:
        item, error, seconds = value["item"], value.get("error"), float(value["seconds"])
        files = tuple(Made(str(path), int(size), int(time), str(sha)) for path, size, time, sha in value["files"])
    except (LookupError, TypeError, ValueError, OverflowError):
        return None
    if not 0 <= seconds < math.inf or not isinstance(item, str) or not (error is None or isinstance(error, str)):
        return None
    if not all(_is_relative(made.path) for made in files):
        return None
    return Entry(item, files, error, seconds, _measured(value.get("measured")), _seed(value.get("seed")))


def _seed(value: Any) -> int | None:
    """The seed of the candidate that was kept, as a line or a note has it; None for any other value."""
    return value if type(value) is int and 0 <= value <= LARGEST_SEED else None


def _is_relative(path: str) -> bool:
    """Whether a path in a manifest is valid, names a file, and stays in the folder."""
    try:
        os.fsencode(path)
    except ValueError:
        return False
    one = Path(path)
    # Not is_absolute: on Windows C:x and \\x are not absolute, and yet lead elsewhere.
    return bool(one.name) and "\0" not in path and ".." not in one.parts and not one.anchor
