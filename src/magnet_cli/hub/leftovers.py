"""What this package has left on the disk and no longer needs: unfinished bundles, and old revisions of MAGNeT models.

Nothing else is ever removed. A bundle is unfinished if its hidden name says so and the process in it has ended. A
revision is old if no reference of its repository names it, and ours if it holds only links to the files that a MAGNeT
model is downloaded with. The content of such a file goes unless another revision has it, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from magnet_cli.disk.owner import is_abandoned
from magnet_cli.disk.small_files import UnreadableFileError, read_text
from magnet_cli.errors import OutputError
from magnet_cli.hub.cache import HASH, MODEL_FILES, storage_folder
from magnet_cli.hub.folders import LEFTOVER, REPLACED, clear_leftovers
from magnet_cli.hub.registry import MODELS


@dataclass(frozen=True)
class Leftover:
    """A folder that may go. size: bytes that this frees. storage: of the repository that it is a revision of."""

    folder: Path
    what: str
    size: int
    storage: Path | None = None


def leftovers(models: Path, cache_dir: Path | None = None) -> list[Leftover]:
    """Everything that `remove_leftover` may remove, below the folder of models and in the Hub cache."""
    found = list(unfinished_bundles(models))
    for spec in MODELS.values():
        found += old_revisions(storage_folder(spec.repository, cache_dir), spec.repository)
    return found


def unfinished_bundles(models: Path) -> Iterator[Leftover]:
    """The hidden folders of processes that have ended, unless they hold the only copy of a bundle."""
    for folder in sorted(models.iterdir()) if models.is_dir() else ():
        name = LEFTOVER.fullmatch(folder.name)
        if name is None or folder.is_symlink() or not folder.is_dir() or not is_abandoned(name[2]):
            continue
        if name[1] == REPLACED and not (models / name[3]).exists():  # which gets its name back
            continue
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        yield Leftover(folder, "unfinished bundle", size)


def old_revisions(storage: Path, repository: str) -> Iterator[Leftover]:
    """The revisions of a MAGNeT repository that nothing refers to, where one is referred to."""
    current = references(storage)
    snapshots = storage / "snapshots"
    if not current or not snapshots.is_dir():
        return
    for folder in sorted(snapshots.iterdir()):
        if folder.name in current or folder.is_symlink() or not folder.is_dir():
            continue
        links = list(folder.iterdir())
        if links and all(link.name in MODEL_FILES and link.is_symlink() for link in links):
            size = sum(path.stat().st_size for path in own_contents(storage, folder))
            yield Leftover(folder, f"old revision of {repository}", size, storage)


def references(storage: Path) -> set[str]:
    """The revisions that a repository's references name."""
    found = set()
    for path in (storage / "refs").rglob("*"):
        with suppress(OSError, UnreadableFileError):
            if path.is_file():
                found.add(read_text(path).strip())
    return found


def own_contents(storage: Path, folder: Path) -> set[Path]:
    """The files that the links of a revision lead to and those of no other, in the cache's own folder of contents."""

    def contents(snapshot: Path) -> set[Path]:
        return {Path(os.path.realpath(link)) for link in snapshot.rglob("*") if link.is_symlink()}

    blobs = Path(os.path.realpath(storage / "blobs"))
    ours = {path for path in contents(folder) if path.parent == blobs and HASH.fullmatch(path.name) and path.is_file()}
    for other in (storage / "snapshots").iterdir():
        if other != folder:
            ours -= contents(other)
    return ours


def remove_leftover(leftover: Leftover) -> None:
    """Remove it. Raises OutputError if that fails."""
    folder = leftover.folder
    try:
        if leftover.storage is None:
            clear_leftovers(folder.parent)
            return
        contents = own_contents(leftover.storage, folder)
        for link in folder.iterdir():
            if link.name in MODEL_FILES and link.is_symlink():
                link.unlink()
        folder.rmdir()
        for path in contents:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {folder}: {error.strerror}", "Check the folder's permissions") from error
