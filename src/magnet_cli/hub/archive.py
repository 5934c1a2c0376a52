"""One file that carries a model to another machine: an uncompressed tar archive of a bundle, with an index.

An archive is exactly what `export_archive` writes: the index, then the files of a bundle in its order, without links,
times or owners. `import_archive` computes every header from the index and refuses an archive of which a byte differs.
So nothing else that a tar archive can hold (links, devices, paths out of the folder, extensions) is ever interpreted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from magnet_cli.disk.atomic import write_atomic
from magnet_cli.disk.small_files import MissingFileError, UnreadableFileError, open_regular, parse_json
from magnet_cli.errors import ModelError, OutputError, UsageError, shown
from magnet_cli.hub.folders import BUNDLE, CONFIG_FILE, UNFINISHED, check_target, new_folder
from magnet_cli.hub.store import BUNDLED_FOLDER, LONGEST_NAME, BundleInfo, Store, is_bundle, sha256

FORMAT, VERSION = "magnet-archive", 1
INDEX = "magnet-archive.json"
BLOCK, RECORD = 512, 10_240  # bytes: tar's units for a file, and for the whole archive
MOST_INDEX = 1 << 16  # bytes; it has about 1,000
PIECE = 1 << 20  # bytes that are copied at once
ALLOWED = frozenset(name for name in BUNDLE.files if not name.startswith(UNFINISHED))

Files = dict[str, tuple[int, str]]  # size in bytes and SHA-256 by name


@dataclass(frozen=True)
class Imported:
    """A bundle that an archive was imported to; new: or that was there already, with the same content."""

    info: BundleInfo
    new: bool


def export_archive(info: BundleInfo, name: str, path: Path, *, overwrite: bool = False) -> int:
    """Write a bundle as an archive; the same bundle gives the same bytes. Returns the archive's size in bytes.

    name: that of the model on the other machine. Every byte is compared with the hashes in the bundle.

    Raises:
        ModelError: for a damaged bundle. OutputError: for a file that exists (unless `overwrite`) or cannot be written.
    """
    config = info.folder / CONFIG_FILE
    files: Files = {CONFIG_FILE: (config.stat().st_size, sha256(config)), **dict(sorted(info.files.items()))}
    index = _index(name, files)

    def write(target: BinaryIO) -> None:
        target.write(_header(INDEX, len(index)) + _padded(index))
        for one, (size, digest) in files.items():
            target.write(_header(one, size))
            _copy_file(info.folder / one, target, size, digest)
        target.write(bytes(_size(len(index), files) - target.tell()))

    write_atomic(path, write, overwrite=overwrite)
    return _size(len(index), files)


def import_archive(path: Path, store: Store, *, overwrite: bool = False) -> Imported:
    """Unpack an archive into the store, completely or not at all.

    Raises:
        ModelError: for a file that is not an archive as `export_archive` writes it, or that is damaged.
        OutputError: for another bundle of that name (unless `overwrite`), or a full disk.
    """
    with _reading(path) as file:
        name, files, start = _read_index(file)
        _check_size(file, _size(start, files))
        try:
            folder = store.folder(name)
        except UsageError as error:
            raise UnreadableFileError(error.message) from error
        if folder == BUNDLED_FOLDER:
            raise UnreadableFileError(f"{name} is a part of this package")
        if is_bundle(folder) and sha256(folder / CONFIG_FILE) == files[CONFIG_FILE][1]:
            present = BundleInfo.read(folder)
            if not present.problems():
                return Imported(present, new=False)
        check_target(folder, BUNDLE, overwrite=overwrite)
        _check_space(store.root, files)
        with new_folder(folder, BUNDLE, overwrite=overwrite) as unfinished:
            for one, (size, digest) in files.items():
                _expect(file, _header(one, size))
                target = unfinished / one
                target.parent.mkdir(exist_ok=True)
                with target.open("xb") as copy:
                    _copy(file, copy, one, size, digest)
                    os.fsync(copy.fileno())
                _expect(file, bytes(-size % BLOCK))
            rest = file.read(RECORD + 2 * BLOCK)
            if rest.strip(b"\0"):
                raise UnreadableFileError("it holds more than its index names")
            _check_bundle(unfinished, files)
    return Imported(BundleInfo.read(folder), new=True)


# -- the format -------------------------------------------------------------------------------------------------------


def _index(name: str, files: Files) -> bytes:
    listed = {one: {"size": size, "sha256": digest} for one, (size, digest) in files.items()}
    index = {"format": FORMAT, "version": VERSION, "name": name, "files": listed}
    own = hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**index, "sha256": own}, indent=2) + "\n").encode()


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)  # of a regular file, without a time or an owner
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)  # which takes files of more than 8 GB


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def _size(index: int, files: Files) -> int:
    """Bytes of an archive: headers, contents in whole blocks, two blocks of zeros, in whole records."""
    blocks = sum(1 + -(-size // BLOCK) for size in (index, *(size for size, _ in files.values()))) + 2
    return -(-blocks * BLOCK // RECORD) * RECORD


# -- reading ----------------------------------------------------------------------------------------------------------


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    """The open archive; within the block, what is wrong with it is a ModelError."""
    try:
        with open_regular(path) as file:
            yield file
    except UnreadableFileError as error:
        again = "Copy the file again, or write it again with magnet models export-archive"
        hint = "Check the path" if isinstance(error, MissingFileError) else again
        raise ModelError(f"cannot import {path}: {error}", hint) from error


def _read_index(file: BinaryIO) -> tuple[str, Files, int]:
    """The model's name, its files and the size of the index."""
    header = file.read(BLOCK)
    try:
        size = tarfile.TarInfo.frombuf(header, "ascii", "strict").size
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise UnreadableFileError("it is not an archive of magnet") from error
    if not 0 < size <= MOST_INDEX or header != _header(INDEX, size):
        raise UnreadableFileError("it is not an archive of magnet")
    content = file.read(size)
    index = parse_json(content)
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise UnreadableFileError(f"{INDEX} in it is not an index")
    if index.get("version") != VERSION:
        raise UnreadableFileError(
            f"it is an archive of version {shown(index.get('version'))}, but this magnet reads version {VERSION}"
        )
    name, listed = index.get("name"), index.get("files")
    if not isinstance(name, str) or not name.isprintable() or len(name) > LONGEST_NAME:
        raise UnreadableFileError(f"its name is {shown(name)}")
    files = _files(listed)
    _expect(file, bytes(-size % BLOCK))
    if content != _index(name, files):
        raise UnreadableFileError(f"{INDEX} in it is damaged, or not as magnet writes it")
    return name, files, size


def _files(listed: object) -> Files:
    files: Files = {}
    for name, one in listed.items() if isinstance(listed, Mapping) else ():
        size, digest = (one.get("size"), one.get("sha256")) if isinstance(one, dict) else (None, None)
        if name not in ALLOWED or type(size) is not int or size < 0 or not isinstance(digest, str):
            raise UnreadableFileError(f"{shown(name)} cannot be a file of a bundle")
        files[name] = size, digest
    if CONFIG_FILE not in files:
        raise UnreadableFileError(f"it has no {CONFIG_FILE}")
    return files


def _check_size(file: BinaryIO, wanted: int) -> None:
    size = os.fstat(file.fileno()).st_size
    if size != wanted:
        relation = "cut short" if size < wanted else "too long"
        raise UnreadableFileError(f"it is {relation}: it has {size:,} bytes instead of {wanted:,}")


def _expect(file: BinaryIO, wanted: bytes) -> None:
    if file.read(len(wanted)) != wanted:
        raise UnreadableFileError("it is damaged, or was not written by magnet models export-archive")


def _check_space(root: Path, files: Files) -> None:
    needed = sum(size for size, _ in files.values())
    nearest = next(one for one in (root.absolute(), *root.absolute().parents) if one.is_dir())
    free = shutil.disk_usage(nearest).free
    if needed > free:
        raise OutputError(
            f"{root} has {free:,} bytes free, but the model needs {needed:,}",
            "Free some space, or choose another folder with --model-dir",
        )


def _check_bundle(folder: Path, files: Files) -> None:
    """Raise UnreadableFileError unless the files are a bundle that names all of them."""
    try:
        info = BundleInfo.read(folder)
        if info.files != {name: one for name, one in files.items() if name != CONFIG_FILE}:
            raise UnreadableFileError(f"{CONFIG_FILE} in it names other files than its index")
        _ = info.facts  # checks the shapes of the networks
    except ModelError as error:
        raise UnreadableFileError(error.message.replace(f"{folder}{os.sep}", "")) from error


# -- copying ----------------------------------------------------------------------------------------------------------


def _copy_file(source: Path, target: BinaryIO, size: int, digest: str) -> None:
    """Append a file of a bundle in whole blocks; ModelError if it is not as its hash says."""
    try:
        with open_regular(source) as file:
            _copy(file, target, source.name, size, digest)
            if file.read(1):
                raise UnreadableFileError(f"{source.name} has more than {size:,} bytes")
    except UnreadableFileError as error:
        raise ModelError(f"{source.parent} is damaged: {error}", "Download or convert the model again") from error
    target.write(bytes(-size % BLOCK))


def _copy(source: BinaryIO, target: BinaryIO, name: str, size: int, digest: str) -> None:
    found, left = hashlib.sha256(), size
    while left:
        piece = source.read(min(PIECE, left))
        if not piece:
            raise UnreadableFileError(f"{name} in it is cut short")
        found.update(piece)
        target.write(piece)
        left -= len(piece)
    if found.hexdigest() != digest:
        raise UnreadableFileError(f"{name} in it has changed since it was written")
