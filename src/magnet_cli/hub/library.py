"""The folder of converted models on this machine: what is there, whether it is whole, and where.

A bundle is a folder with `config.json`, `decoder.safetensors`, `codec.safetensors` and `text_encoder/`. This module
knows its files and `config.json`, but no tensors: it never imports torch, so that listing models is immediate.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magnet_cli.errors import ModelError, UsageError
from magnet_cli.hub.folders import (
    BUNDLE,
    CODEC_FILE,
    CONFIG_FILE,
    DECODER_FILE,
    FORMAT,
    TEXT_FOLDER,
    check_own,
    clear_leftovers,
    remove_folder,
)
from magnet_cli.hub.registry import BUNDLED

VERSION = 1  # of a bundle
BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled"  # of the small model inside this package
BLOCK = 1 << 20


@dataclass(frozen=True)
class BundleInfo:
    """What a bundle's `config.json` says, unchecked beyond its format.

    `files` maps each file to its size in bytes and its SHA-256; `config` is the whole of it.
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
            config = json.loads(path.read_text(encoding="utf-8"))
            files = {str(name): (int(one["size"]), str(one["sha256"])) for name, one in config["files"].items()}
            name, version, kind = str(config["name"]), config["version"], config["format"]
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise ModelError(f"{path} is damaged", "Download or convert the model again") from error
        if kind != FORMAT:
            raise ModelError(f"{path} is of the format {kind!r}, not {FORMAT!r}", "Convert the model again")
        if version != VERSION:
            raise ModelError(
                f"{folder} is a bundle of version {version}, but this magnet reads version {VERSION}",
                "Update magnet, or convert the model again",
            )
        return cls(name, folder, config, files)

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


def is_bundle(folder: Path) -> bool:
    """Whether a folder claims to be a bundle."""
    try:
        text = (folder / CONFIG_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError):
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

    def bundles(self) -> list[BundleInfo]:
        """All bundles, by name; damaged ones are left out."""
        found = []
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else []:
            if is_bundle(folder) and not folder.name.startswith("."):  # those are unfinished
                try:
                    found.append(BundleInfo.read(folder))
                except ModelError:
                    continue
        return found

    def removable(self, name: str) -> Path:
        """The folder of a bundle that may be removed. UsageError when there is none, OutputError when it is not ours.

        Ours is what `folders.check_own` takes for a bundle: without any other file, and no link.
        """
        folder = self.folder(name)
        if name == BUNDLED:
            raise UsageError(f"{name} is part of this package", "Remove another, or uninstall magnet")
        if not os.path.lexists(folder):
            clear_leftovers(self.root)
            raise UsageError(f"{name} is not in {self.root}", "See magnet models list")
        check_own(folder, BUNDLE)
        return folder

    def remove(self, name: str) -> int:
        """Delete the bundle of a model; returns the bytes it took. Raises what `removable` does."""
        return remove_folder(self.removable(name), BUNDLE)


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
