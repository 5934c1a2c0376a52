"""The folders that this package writes: their kinds, how each is recognized, and which files belong to it.

A folder is only replaced or removed if it is wholly our own earlier output of the same kind, and then file by file. A
folder with a foreign file or a symbolic link in it is refused. A new folder is filled under a hidden name and renamed
when it is complete. Hidden names carry the mark of their process (see `owner`). What a dead process left behind is
removed by the next process that writes beside it.
"""

from __future__ import annotations

import os
import re
import secrets
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Literal

from magnet_cli.disk.owner import MARK, is_abandoned, own_mark
from magnet_cli.disk.small_files import UnreadableFileError, read_object
from magnet_cli.errors import MagnetWarning, OutputError

FORMAT = "magnet-bundle"
CONFIG_FILE = "config.json"
DECODER_FILE = "decoder.safetensors"
CODEC_FILE = "codec.safetensors"
ANALYSIS_FILE = "analysis.safetensors"  # of a codec with phase-free codes
TEXT_FOLDER = "text_encoder"
EXPORT_FILE = "magnet-export.json"

UNFINISHED, REPLACED = ".unfinished-", ".replaced-"
LEFTOVER = re.compile(rf"(\.unfinished-|\.replaced-)({MARK})-(.+)", re.DOTALL)
TEMPORARY = ".magnet-"  # prefix of files that `disk.atomic.write_atomic` has not finished
LONGEST_NAME = 200  # bytes: of the 255 that file systems allow, a hidden name needs up to 50 for the rest
LONGEST_MARKER = 1 << 24  # bytes; the markers that this package writes have a few thousand

TrainingKind = Literal["decoder", "codec"]


@dataclass(frozen=True)
class FolderKind:
    """A kind of folder that this package writes.

    name     as messages name it, with its article
    marker   the JSON file by which it is recognized
    content  the keys of the marker and their values; None: any value
    files    patterns of all its files, relative, with `/` between folder and file
    """

    name: str
    marker: str
    content: Mapping[str, str | None]
    files: tuple[str, ...]

    def is_marked(self, folder: Path) -> bool:
        """Whether a folder has the marker of this kind, as a regular file."""
        path = folder / self.marker
        try:
            if path.is_symlink():
                return False
            found = read_object(path, most=LONGEST_MARKER)
        except (OSError, UnreadableFileError):
            return False
        return all(key in found and value in (None, found[key]) for key, value in self.content.items())


_SAFETENSORS_TEMPORARY = ".tmp??????"  # what safetensors leaves behind when it is killed
BUNDLE = FolderKind(
    "a bundle",
    CONFIG_FILE,
    {"format": FORMAT},
    (
        CONFIG_FILE,
        f"{UNFINISHED}{CONFIG_FILE}",
        DECODER_FILE,
        CODEC_FILE,
        *(f"{TEXT_FOLDER}/{name}" for name in ("config.json", "tokenizer.json", "model.safetensors")),
    ),
)
CODEC_FOLDER = FolderKind("a codec", CONFIG_FILE, {"format": "magnet-codec"}, (CONFIG_FILE, CODEC_FILE, ANALYSIS_FILE))
# Of a text encoder, what transformers reads; its other files are not exported.
TEXT_FILES = (
    *("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.model"),
    *("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors", "pytorch_model.bin"),
)
EXPORT = FolderKind(
    "an exported checkpoint",
    EXPORT_FILE,
    {"format": "magnet-export"},
    (
        *(EXPORT_FILE, "state_dict.bin", "compression_state_dict.bin"),
        *(f"{TEXT_FOLDER}/{name}" for name in TEXT_FILES),
    ),
)
KINDS = (BUNDLE, CODEC_FOLDER, EXPORT)
ANY_FILES = (
    *(pattern for kind in KINDS for pattern in kind.files),
    *(_SAFETENSORS_TEMPORARY, f"{TEXT_FOLDER}/{_SAFETENSORS_TEMPORARY}"),
)
TOKENS_FOLDER = "tokens"  # in a run; a training that ended before its first step has written nothing else
BEST_FOLDER = "best"  # in a run: the model with the lowest loss on held-out files, a folder like the output
# The state that a training keeps beside its output. It is never removed. Every training's settings have these keys.
RUNS: Mapping[TrainingKind, FolderKind] = {
    kind: FolderKind(
        f"the run of a training of a {kind}",
        "settings.json",
        {"kind": kind, "steps": None, "batch_size": None, "seed": None, "optimization": None},
        (
            *("settings.json", "state.pt", "log.csv", "samples/*.wav", "tensorboard/*"),
            *(f"{TOKENS_FOLDER}/*.safetensors", f"{TEXT_FOLDER}/*"),
        ),
    )
    for kind in ("decoder", "codec")
}


# -- what may be written where ----------------------------------------------------------------------------------------


def check_target(target: Path, kind: FolderKind, *, overwrite: bool) -> None:
    """Raise OutputError if something at `target` prevents that a folder of this kind is written there.

    Allowed are: nothing and, with `overwrite`, an empty folder or one that is wholly an earlier output of that kind.
    """
    if target.name in ("", ".."):
        raise OutputError(f"{target} names no folder of its own", "Give the folder to write by its name")
    if len(os.fsencode(target.name)) > LONGEST_NAME:
        raise OutputError(f"cannot write {target}: its name is too long", "Choose a shorter name")
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise OutputError(f"{target} already exists", "Remove it first, or choose another folder")
    check_own(target, kind)


def check_own(target: Path, kind: FolderKind) -> list[str]:
    """The names of the files in a folder that is wholly of a kind, or empty; OutputError for any other."""
    if target.is_symlink():
        raise OutputError(f"{target} is a symbolic link", "Give the folder that it leads to, or choose another")
    if not target.is_dir():
        raise OutputError(f"{target} is not a folder", "Choose another folder")
    try:
        own, foreign = _sort(target, kind.files)
    except OSError as error:
        raise OutputError(f"cannot read {target}: {error.strerror}", "Choose another folder") from error
    marked = kind.is_marked(target)
    if foreign and marked:
        raise OutputError(
            f"{target} holds {foreign[0]}, which magnet did not write",
            f"Move {foreign[0]} elsewhere, or choose another folder",
        )
    if (own or foreign) and not marked:
        raise OutputError(
            f"{target} is not {kind.name} that magnet wrote: it holds {[*foreign, *own][0]}",
            "Choose another folder, or move this one away",
        )
    return own


def check_apart(target: Path, inputs: Sequence[Path]) -> None:
    """Raise OutputError if `target` is one of the inputs or the working directory, or a folder above or in an input."""
    outer = Path(os.path.realpath(target))
    if _is_in(Path.cwd(), outer):
        raise OutputError(f"{target} is the working directory or a folder above it", "Choose another folder")
    for path in inputs:
        inner = Path(os.path.realpath(path))
        if _is_in(inner, outer) or _is_in(outer, inner):
            relation = "is" if _is_same(inner, outer) else "is above" if _is_in(inner, outer) else "is inside"
            raise OutputError(f"{target} {relation} {path}, which is read", "Choose a folder apart from it")


def check_run(run: Path, kind: TrainingKind) -> bool:
    """Whether a folder is the run of an earlier training of this kind.

    Other files in such a folder stay, but they must not have the names of files that the training writes.

    Raises: OutputError if it is not, and a new training cannot begin there, because it holds more than tokens.
    """
    if not os.path.lexists(run):
        return False
    if run.is_symlink() or not run.is_dir():
        raise OutputError(f"{run}, where the training keeps its state, is not a folder", "Choose another output")
    files = RUNS[kind].files
    try:
        own, foreign = _sort(run, files)
    except OSError as error:
        raise OutputError(f"cannot read {run}: {error.strerror}", "Choose another output") from error
    if RUNS[kind].is_marked(run):
        blocking = [name for name in foreign if name in _folders(files) or _matches(name, files)]
        if blocking:
            raise OutputError(
                f"{run} holds {blocking[0]}, which magnet did not write",
                f"Move {blocking[0]} elsewhere, or choose another output",
            )
        return True
    unknown = [name for name in foreign if not name.startswith(TEMPORARY)]
    unknown += [name for name in own if not name.startswith(f"{TOKENS_FOLDER}/")]
    if unknown:
        raise OutputError(
            f"{run} is not {RUNS[kind].name}: it holds {unknown[0]}",
            "Choose another output, or move that folder away",
        )
    return False


def _is_in(inner: Path, outer: Path) -> bool:
    return any(_is_same(one, outer) for one in (inner, *inner.parents))


def _is_same(one: Path, other: Path) -> bool:
    if one == other:
        return True
    try:
        return os.path.samefile(one, other)  # also where upper and lower case are the same
    except OSError:
        return False


# -- writing and removing ---------------------------------------------------------------------------------------------


@contextmanager
def new_folder(target: Path, kind: FolderKind, *, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder that takes the name `target` when the block ends well, and is removed otherwise.

    If the process is killed, the old folder or the new one is complete: under its own name, or under a hidden one
    beside it, from which the next `new_folder` or `clear_leftovers` there restores it.

    Raises: OutputError for what `check_target` refuses, and if `target` cannot be written.
    """
    check_target(target, kind, overwrite=overwrite)
    unfinished = _hidden(target, UNFINISHED, secrets.token_hex(4))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(target.parent)
        unfinished.mkdir()
        yield unfinished
        check_target(target, kind, overwrite=overwrite)  # something may have come there meanwhile
        _give_name(unfinished, target)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}", "Check the space and permissions there"
        ) from error
    finally:
        with suppress(OSError):
            _remove(unfinished, ANY_FILES)


def remove_folder(folder: Path, kind: FolderKind) -> int:
    """Remove a folder of a kind; returns its size in bytes. OutputError if it is not one, or cannot be removed."""
    own = check_own(folder, kind)
    # Renamed first, in one step, so that no other process sees half of it.
    doomed = _hidden(folder, UNFINISHED, secrets.token_hex(4))
    try:
        size = sum((folder / name).stat().st_size for name in own)
        clear_leftovers(folder.parent)
        folder.rename(doomed)
        _remove(doomed, kind.files)
    except OSError as error:
        raise OutputError(f"cannot remove {folder}: {error.strerror}", "Check the folder's permissions") from error
    return size


def clear_leftovers(parent: Path) -> None:
    """Remove what dead processes left unfinished in a folder, and restore what they were replacing."""
    with suppress(OSError):
        for path in parent.iterdir():
            found = LEFTOVER.fullmatch(path.name)
            if found is None or path.is_symlink() or not is_abandoned(found[2]):
                continue
            with suppress(OSError):  # another process may be doing the same
                if found[1] == REPLACED:
                    _settle(path, parent / found[3])
                else:
                    _remove(path, ANY_FILES)


def _hidden(target: Path, prefix: str, name: str) -> Path:
    return target.parent / f"{prefix}{own_mark()}-{name}"


def _give_name(unfinished: Path, target: Path) -> None:
    """Rename a complete folder to `target`, in place of what is there."""
    if not os.path.lexists(target):
        unfinished.rename(target)
        return
    aside = _hidden(target, REPLACED, target.name)
    try:
        target.rename(aside)
        unfinished.rename(target)
    finally:
        _settle(aside, target)


def _settle(aside: Path, target: Path) -> None:
    """End a replacement: restore the old folder's name, or remove the old folder if a complete one has the name."""
    if not os.path.lexists(aside):
        return
    if not os.path.lexists(target):
        aside.rename(target)
    elif any(kind.is_marked(target) for kind in KINDS):
        doomed = _hidden(aside, UNFINISHED, secrets.token_hex(4))
        aside.rename(doomed)  # so that a partly removed folder is never restored
        _remove(doomed, ANY_FILES)
        if os.path.lexists(doomed):
            warnings.warn(f"{doomed} holds files that magnet did not write, so it stays", MagnetWarning, stacklevel=2)


def _remove(folder: Path, files: Sequence[str]) -> None:
    """Remove the files of these patterns from a folder, and the folder if nothing else is in it."""
    if not folder.is_dir() or folder.is_symlink():
        return
    own, _ = _sort(folder, files)
    for name in own:
        (folder / name).unlink(missing_ok=True)
    for part in (*(folder / name for name in _folders(files)), folder):
        with suppress(OSError):  # it is not there, or holds something else
            part.rmdir()


def _sort(folder: Path, files: Sequence[str]) -> tuple[list[str], list[str]]:
    """The regular files in a folder that match the patterns, and all others: links, folders, other files."""
    own: list[str] = []
    foreign: list[str] = []
    inner = _folders(files)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name in inner and entry.is_dir(follow_symlinks=False):
            for one in sorted(os.scandir(entry.path), key=lambda one: one.name):
                _sort_entry(one, f"{entry.name}/{one.name}", files, own, foreign)
        else:
            _sort_entry(entry, entry.name, files, own, foreign)
    return own, foreign


def _sort_entry(entry: os.DirEntry[str], name: str, files: Sequence[str], own: list[str], foreign: list[str]) -> None:
    (own if entry.is_file(follow_symlinks=False) and _matches(name, files) else foreign).append(name)


def _matches(name: str, files: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) and name.count("/") == pattern.count("/") for pattern in files)


def _folders(files: Sequence[str]) -> set[str]:
    """The folders in which the patterns have files."""
    return {str(PurePosixPath(pattern).parent) for pattern in files} - {"."}
