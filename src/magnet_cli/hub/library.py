"""The folder of converted models on this machine: what is there, whether it is whole, and where.

A bundle is a folder with `config.json`, `decoder.safetensors`, `codec.safetensors` and `text_encoder/`. This module
knows its files and `config.json`, but no tensors: it never imports torch, so that listing models is immediate.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from magnet_cli.errors import ModelError, OutputError, UsageError, shown
from magnet_cli.hub.registry import BUNDLED
from magnet_cli.small_files import UnreadableFileError, read_object, read_text

FORMAT, VERSION = "magnet-bundle", 1
CONFIG_FILE = "config.json"
DECODER_FILE = "decoder.safetensors"
CODEC_FILE = "codec.safetensors"
TEXT_FOLDER = "text_encoder"
BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled"  # of the small model inside this package
LONGEST_NAME = 200  # of a file; the longest there is has 30
UNFINISHED = ".unfinished-"
TASKS = ("music", "sound")
# What every bundle's `config.json` has, and its type.
KEYS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "task", "licence", "text.name"), (str,)),
    **{key: (str, type(None)) for key in ("source.repository", "source.revision")},
    **dict.fromkeys(("decoder", "codec", "files"), (dict,)),
    **{"decoder.clip_seconds": (int, float), "codec.sample_rate": (int,)},
}
BLOCK = 1 << 20


@dataclass(frozen=True)
class BundleInfo:
    """What a bundle's `config.json` says.

    `files` maps each file to its size in bytes and its SHA-256; `config` is the whole of it, checked as far as lists of
    models show it: see KEYS.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    files: dict[str, tuple[int, str]]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(size for size, _ in self.files.values())

    @classmethod
    def read(cls, folder: Path) -> BundleInfo:
        """Read a bundle's `config.json`; ModelError when it is damaged or of a later version."""
        path = folder / CONFIG_FILE
        try:
            config = read_object(path)
            kind, version = config["format"], config["version"]
            if (kind, version) == (FORMAT, VERSION):
                _check_keys(config)
                return cls(config["name"], folder, config, dict(_files(config["files"])))
        except UnreadableFileError as error:
            raise ModelError(f"{path} is damaged: {error}", "Download or convert the model again") from error
        except KeyError as error:
            raise ModelError(
                f"{path} is damaged: it lacks {error.args[0]}", "Download or convert the model again"
            ) from error
        if kind != FORMAT:
            raise ModelError(f"{path} is of the format {shown(kind)}, not {FORMAT!r}", "Convert the model again")
        raise ModelError(
            f"{folder} is a bundle of version {shown(version)}, but this magnet reads version {VERSION}",
            "Update magnet, or convert the model again",
        )

    def problems(self, on_bytes: Callable[[int], None] | None = None) -> list[str]:
        """What is wrong with the bundle's files, one line each; empty when all are whole. Reads every byte."""
        found = []
        for name, (size, digest) in self.files.items():
            path = self.folder / name
            if not path.is_file():
                found.append(f"{name} is missing")
            elif path.stat().st_size != size:
                found.append(f"{name} has {path.stat().st_size} bytes instead of {size}")
            elif sha256(path, on_bytes) != digest:
                found.append(f"{name} has other content than when it was written")
        return found


def _check_keys(config: Mapping[str, Any]) -> None:
    """Raise UnreadableFileError for the first of KEYS that is missing, or of another type."""
    for key, kinds in KEYS.items():
        value: Any = config
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise UnreadableFileError(f"it lacks {key}")
            value = value[part]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise UnreadableFileError(f"{key} is {shown(value)}")
    if config["task"] not in TASKS:
        raise UnreadableFileError(f"task is {shown(config['task'])}")
    if not isinstance(config.get("sampling"), (dict, type(None))):
        raise UnreadableFileError(f"sampling is {shown(config['sampling'])}")


def _files(files: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, str]]]:
    """The size and the SHA-256 of each file of a bundle; UnreadableFileError for what leads out of it."""
    for name, one in files.items():
        size, digest = (one.get("size"), one.get("sha256")) if isinstance(one, dict) else (None, None)
        if type(size) is not int or size < 0 or not isinstance(digest, str):
            raise UnreadableFileError(f"files.{shown(name)} is {shown(one)}")
        path = PurePosixPath(name)
        if (
            not path.parts
            or path.is_absolute()
            or ".." in path.parts
            or not name.isprintable()
            or len(name) > LONGEST_NAME
        ):
            raise UnreadableFileError(f"{shown(name)} is no file of it")
        yield name, (size, digest)


def is_bundle(folder: Path) -> bool:
    """Whether a folder claims to be a bundle."""
    try:
        text = read_text(folder / CONFIG_FILE)
    except UnreadableFileError:
        return False
    return f'"{FORMAT}"' in text


def sha256(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file, in hexadecimal; `on_bytes` is told how many more bytes were read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            if on_bytes is not None:
                on_bytes(len(block))
    return digest.hexdigest()


@dataclass(frozen=True)
class Store:
    """The folder that holds bundles, each in a folder of its model's name."""

    root: Path

    @classmethod
    def at(cls, folder: Path | None = None) -> Store:
        """In this folder, else in `MAGNET_MODEL_DIR`, else in the user's cache folder as the platform has it."""
        from platformdirs import user_cache_path

        named = folder or os.environ.get("MAGNET_MODEL_DIR")
        return cls(Path(os.path.expanduser(named)) if named else user_cache_path("magnet") / "models")

    def folder(self, name: str) -> Path:
        """Where the bundle of a model is or would be. `name` is a short name or a Hub id."""
        if name == BUNDLED:
            return BUNDLED_FOLDER
        safe = name.replace("/", "--")
        if not safe or safe.startswith(".") or not all(c.isalnum() or c in "-_." for c in safe):
            raise UsageError(f"{name!r} is no name of a model", "See magnet models list")
        return self.root / safe

    def find(self, name: str) -> BundleInfo | None:
        """The bundle of a model, if there is one; ModelError if it is damaged."""
        folder = self.folder(name)
        return BundleInfo.read(folder) if is_bundle(folder) else None

    def folders(self) -> list[Path]:
        """The folders of all bundles, by name, those of damaged ones included."""
        folders = sorted(self.root.iterdir()) if self.root.is_dir() else []
        return [folder for folder in folders if is_bundle(folder) and not folder.name.startswith(UNFINISHED)]

    def bundles(self) -> list[BundleInfo]:
        """All bundles, by name; damaged ones are left out."""
        found = []
        for folder in self.folders():
            with suppress(ModelError):
                found.append(BundleInfo.read(folder))
        return found

    def remove(self, name: str) -> int:
        """Delete the bundle of a model; returns the bytes it took. UsageError when there is none."""
        folder = self.folder(name)
        if name == BUNDLED:
            raise UsageError(f"{name} is part of this package", "Remove another, or uninstall magnet")
        if not folder.is_dir():
            raise UsageError(f"{name} is not in {self.root}", "See magnet models list")
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        # Out of the way first, in one step: nobody ever sees half a bundle.
        doomed = self.root / f"{UNFINISHED}{secrets.token_hex(4)}"
        try:
            folder.rename(doomed)
            shutil.rmtree(doomed)
        except OSError as error:
            raise OutputError(f"cannot remove {folder}: {error.strerror}", "Check the folder's permissions") from error
        return size


def read_ahead(folder: Path) -> None:
    """Have the system read a bundle's weights from the disk while Python does something else; returns at once.

    Weights that are in memory already cost nothing. Linux only: elsewhere this does nothing.
    """
    if hasattr(os, "posix_fadvise"):
        paths = [folder / DECODER_FILE, *(folder / TEXT_FOLDER).glob("*.safetensors"), folder / CODEC_FILE]
        threading.Thread(target=_read_ahead, args=(paths,), daemon=True).start()  # nobody waits for it


def _read_ahead(paths: list[Path]) -> None:
    with suppress(OSError):  # told by whoever reads the file
        for path in paths:
            with path.open("rb") as file:
                for start in range(0, path.stat().st_size, BLOCK):  # Linux reads little of a longer stretch
                    os.posix_fadvise(file.fileno(), start, BLOCK, os.POSIX_FADV_WILLNEED)


@contextmanager
def new_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder that takes the name `target` when the block ends well, and is removed otherwise.

    OutputError when `target` exists (unless `overwrite`) or cannot be written.
    """
    if target.exists() and not overwrite:
        raise OutputError(f"{target} already exists", "Remove it first, or choose another folder")
    unfinished = target.parent / f"{UNFINISHED}{secrets.token_hex(4)}"
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        if target.exists():
            shutil.rmtree(target)
        unfinished.rename(target)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}", "Check the space and permissions there"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
