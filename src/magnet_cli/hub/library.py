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
from typing import Any, TypeVar

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
from magnet_cli.hub.registry import BUNDLED, ModelFacts, registered
from magnet_cli.model.config import CodecConfig, DecoderConfig, TextConfig
from magnet_cli.options.sampling import SamplingConfig, Task, check_steps, default_sampling
from magnet_cli.options.strict_json import from_plain

VERSION = 1  # of a bundle
BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled"  # of the small model inside this package
BLOCK = 1 << 20

Part = TypeVar("Part", DecoderConfig, CodecConfig, TextConfig, SamplingConfig)


@dataclass(frozen=True)
class BundleInfo:
    """What a bundle's `config.json` says.

    `files` maps each file to its size in bytes and its SHA-256; `config` is the whole of it, unchecked beyond its
    format; the properties raise ModelError for a part that is missing or wrong.
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

    def part(self, kind: Callable[..., Part], key: str) -> Part:
        """A configuration from its part of `config.json`; ModelError unless every field is there and of its type."""
        try:
            return from_plain(kind, self.config.get(key))
        except ValueError as error:
            raise ModelError(
                f"{key}.{error} in {self.folder / CONFIG_FILE} is missing or wrong",
                "Download or convert the model again",
            ) from error

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of the files that hold weights, as noted."""
        return {name: digest for name, (_, digest) in sorted(self.files.items()) if name.endswith(".safetensors")}

    @property
    def task(self) -> Task:
        """What the model makes."""
        task = self.config.get("task")
        if task not in ("music", "sound"):
            raise ModelError(f"{self.folder / CONFIG_FILE} names the task {task!r}", "Convert the model again")
        return task

    @property
    def licence(self) -> str:
        """Of the weights."""
        return str(self.config.get("licence"))

    @property
    def own_sampling(self) -> SamplingConfig | None:
        """The sampling options that the bundle names, if it does."""
        if self.config.get("sampling") is None:
            return None
        try:
            sampling = self.part(SamplingConfig, "sampling")
            check_steps(sampling, codebooks=self.part(DecoderConfig, "decoder").codebooks)
        except UsageError as error:
            raise ModelError(
                f"sampling in {self.folder / CONFIG_FILE}: {error.message}", "Set it again with magnet models defaults"
            ) from error
        return sampling

    @property
    def facts(self) -> ModelFacts:
        """What is known of the model without its weights."""
        decoder, codec = self.part(DecoderConfig, "decoder"), self.part(CodecConfig, "codec")
        if not 0 < codec.hop <= codec.sample_rate:
            raise ModelError(
                f"{self.folder / CONFIG_FILE} has frames of {codec.hop} samples at {codec.sample_rate} Hz",
                "Download or convert the model again",
            )
        return magnet_facts(
            decoder,
            codec,
            self.part(TextConfig, "text"),
            self.task,
            licence=self.licence,
            sampling=self.own_sampling or default_sampling(self.task, decoder.clip_seconds, decoder.codebooks),
        )

    def problems(self) -> list[str]:
        """What is wrong with the bundle's files, one line each; empty when all are whole. Reads every byte."""
        found = []
        for name, (size, digest) in self.files.items():
            path = self.folder / name
            if not path.is_file():
                found.append(f"{name} is missing")
            elif path.stat().st_size != size:
                found.append(f"{name} has {path.stat().st_size} bytes instead of {size}")
            elif sha256(path) != digest:
                found.append(f"{name} has other content than when it was written")
        return found


def magnet_facts(
    decoder: DecoderConfig,
    codec: CodecConfig,
    text: TextConfig,
    task: Task,
    *,
    licence: str,
    sampling: SamplingConfig,
) -> ModelFacts:
    """What the configurations of a MAGNeT say."""
    return ModelFacts(
        family="magnet",
        task=task,
        seconds=decoder.clip_seconds,
        frame_rate=codec.frame_rate,
        sample_rate=codec.sample_rate,
        codebooks=decoder.codebooks,
        parameters=decoder.parameters,
        text_encoder=text.name,
        licence=licence,
        sampling=sampling,
    )


def is_bundle(folder: Path) -> bool:
    """Whether a folder claims to be a bundle."""
    try:
        text = (folder / CONFIG_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return f'"{FORMAT}"' in text


def is_musicgen(folder: Path) -> bool:
    """Whether a folder holds a model of MusicGen's kind in the format of transformers."""
    try:
        settings = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and str(settings.get("model_type")).startswith("musicgen")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
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
        """Where the bundle of a model is or would be. `name` is a short name, a Hub id, or the folder's own name."""
        if name == BUNDLED:
            return BUNDLED_FOLDER
        spec = registered(name)
        safe = (name if spec is None else spec.name).replace("/", "--")
        if not safe or safe.startswith(".") or not all(c.isalnum() or c in "-_." for c in safe):
            raise UsageError(f"{name!r} is no name of a model", "See magnet models list")
        return self.root / safe

    def find(self, name: str) -> BundleInfo | None:
        """The bundle of a model, if there is one; ModelError if it is damaged."""
        folder = self.folder(name)
        return BundleInfo.read(folder) if is_bundle(folder) else None

    def folders(self) -> list[Path]:
        """The folders of all bundles, by name; damaged ones are among them."""
        found = sorted(self.root.iterdir()) if self.root.is_dir() else []
        # Those that begin with a dot are unfinished.
        return [folder for folder in found if is_bundle(folder) and not folder.name.startswith(".")]

    def bundles(self) -> list[BundleInfo]:
        """All bundles, by name; damaged ones are left out."""
        found = []
        for folder in self.folders():
            with suppress(ModelError):
                found.append(BundleInfo.read(folder))
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
        threading.Thread(target=_read_ahead, args=(paths,), daemon=True).start()  # nothing waits for it


def _read_ahead(paths: list[Path]) -> None:
    with suppress(OSError):  # reported by whoever reads the file
        for path in paths:
            with path.open("rb") as file:
                for start in range(0, path.stat().st_size, BLOCK):  # Linux reads little of a longer stretch
                    os.posix_fadvise(file.fileno(), start, BLOCK, os.POSIX_FADV_WILLNEED)
