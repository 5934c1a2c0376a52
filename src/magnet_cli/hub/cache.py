"""The Hub cache on this machine: what is in it, and whether it is whole. Never touches the network.

It is laid out as huggingface_hub lays it out, so that other programs share it: `blobs/HASH` holds a file's content,
`snapshots/COMMIT/NAME` is a link to it, and `refs/main` names the commit.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants  # the rest of the library takes 0.3 s to import

from magnet_cli.disk.small_files import UnreadableFileError, read_object, read_text

SAFETENSORS, SHARDS, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
HASH = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")  # git's SHA-1, or SHA-256 for files in large file storage


@dataclass(frozen=True)
class Wanted:
    """What is needed of a repository: required files, optional files, and weights in the best format that it has."""

    files: tuple[str, ...]
    optional: tuple[str, ...] = ()
    weights: bool = False

    def missing(self, folder: Path) -> list[str]:
        """The names of the required files that a folder lacks."""
        lacking = [name for name in self.files if not (folder / name).is_file()]
        if self.weights and not (_has_weights(folder) or (folder / PICKLE).is_file()):
            lacking.append(SAFETENSORS)
        return lacking


MODEL_FILES = ("state_dict.bin", "compression_state_dict.bin")
MODEL = Wanted(MODEL_FILES)
TEXT_ENCODER = Wanted(
    ("config.json", "tokenizer.json"), ("tokenizer_config.json", "special_tokens_map.json"), weights=True
)
CODEC = Wanted(("config.json",), weights=True)
RESCORER = Wanted(
    ("config.json", "tokenizer.json"),
    ("generation_config.json", "preprocessor_config.json", "tokenizer_config.json", "special_tokens_map.json"),
    weights=True,
)


def storage_folder(repository: str, cache_dir: Path | None = None) -> Path:
    """Where the cache keeps a repository."""
    return Path(cache_dir or constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def cached(repository: str, wanted: Wanted, cache_dir: Path | None = None) -> Path | None:
    """The cached snapshot, if it has all files that are wanted. Never touches the network."""
    folder = snapshot(repository, cache_dir)
    return None if folder is None or wanted.missing(folder) else folder


def damaged(folder: Path) -> list[str]:
    """The files of a cached snapshot whose content is missing or does not match its hash. Reads every byte."""
    links = [path for path in sorted(folder.rglob("*")) if path.is_symlink()]
    return [str(path.relative_to(folder)) for path in links if not is_intact(path, Path(os.readlink(path)).name)]


def discard(folder: Path, names: Sequence[str]) -> None:
    """Delete files of a cached snapshot, both link and content, so that the next download fetches them again.

    Where a link leads out of the cache, as one that a user made may do, only the link is deleted.
    """
    blobs = Path(os.path.realpath(folder)).parents[1] / "blobs"
    for name in names:
        path = folder / name
        if path.is_symlink():
            content = Path(os.path.normpath(os.path.realpath(path.parent) / Path(os.readlink(path))))
            if content.parent == blobs and HASH.fullmatch(content.name):
                content.unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def discard_snapshot(storage: Path, revision: str, names: Sequence[str]) -> None:
    """Delete these files of a cached snapshot, and the folders around them that are then empty."""
    folder = storage / "snapshots" / revision
    discard(folder, names)
    reference = storage / "refs" / "main"
    inner = {parent for name in names for parent in (folder / name).parents if folder in parent.parents}
    with suppress(OSError, UnreadableFileError):  # stops at the first folder that holds other files
        for path in (*sorted(inner, reverse=True), folder):
            path.rmdir()
        if read_text(reference).strip() == revision:
            reference.unlink()
        for path in (reference.parent, folder.parent, storage / "blobs", storage):
            path.rmdir()


def snapshot(repository: str, cache_dir: Path | None) -> Path | None:
    storage = storage_folder(repository, cache_dir)
    try:
        name = read_text(storage / "refs" / "main").strip()
    except UnreadableFileError:
        return None
    folder = storage / "snapshots" / name
    return folder if name.isprintable() and os.path.isdir(folder) else None  # not Path: for any length


def _has_weights(folder: Path) -> bool:
    """Whether a folder has weights in safetensors: one file, or every shard."""
    if (folder / SAFETENSORS).is_file():
        return True
    try:
        shards = set(read_object(folder / SHARDS)["weight_map"].values())
        return bool(shards) and all((folder / shard).is_file() for shard in shards)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def is_intact(path: Path, expected: str) -> bool:
    """Whether a file has this hash: SHA-256, or git's SHA-1 if it has 40 digits."""
    if not path.is_file() or not HASH.fullmatch(expected):
        return False
    digest = hashlib.sha256() if len(expected) == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == expected
