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

from magnet_cli.small_files import UnreadableFileError, read_object, read_text

SAFETENSORS, SHARDS, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
HASH = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")  # git's SHA-1, or SHA-256 for files in large file storage


@dataclass(frozen=True)
class Wanted:
    """What is needed of a repository: files by name, some only if it has them, and weights in their best format."""

    files: tuple[str, ...]
    optional: tuple[str, ...] = ()
    weights: bool = False

    def missing(self, folder: Path) -> list[str]:
        """What a folder lacks of it."""
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
    """The cached snapshot, if it has everything that is wanted. Never touches the network."""
    folder = snapshot(repository, cache_dir)
    return None if folder is None or wanted.missing(folder) else folder


def damaged(folder: Path) -> list[str]:
    """The files of a cached snapshot whose content is lost or does not have its hash. Reads all of it."""
    links = [path for path in sorted(folder.rglob("*")) if path.is_symlink()]
    return [str(path.relative_to(folder)) for path in links if not is_intact(path, Path(os.readlink(path)).name)]


def discard(folder: Path, names: Sequence[str]) -> None:
    """Take files out of a cached snapshot, link and content, so that the next download fetches them again.

    A link that leads out of the cache, as a user may have put it there, goes alone.
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
    """Delete these files of a cached snapshot, and what is then empty of the folders around them."""
    folder = storage / "snapshots" / revision
    discard(folder, names)
    reference = storage / "refs" / "main"
    inner = {parent for name in names for parent in (folder / name).parents if folder in parent.parents}
    with suppress(OSError):  # first of those that hold anything else
        for path in (*sorted(inner, reverse=True), folder):
            path.rmdir()
        if reference.read_text(encoding="ascii").strip() == revision:
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
    return folder if name.isprintable() and os.path.isdir(folder) else None  # which takes names of any length


def _has_weights(folder: Path) -> bool:
    """Whether a folder has weights in safetensors, in one file or in all of their shards."""
    if (folder / SAFETENSORS).is_file():
        return True
    try:
        shards = set(read_object(folder / SHARDS)["weight_map"].values())
        return bool(shards) and all((folder / shard).is_file() for shard in shards)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def is_intact(path: Path, expected: str) -> bool:
    """Whether a file has this hash: its SHA-256 or, for a shorter one, that of git."""
    if not path.is_file() or not HASH.fullmatch(expected):
        return False
    digest = hashlib.sha256() if len(expected) == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == expected
