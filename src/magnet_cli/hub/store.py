"""The folder of converted models on this machine: which there are, where, and whether they are complete.

A bundle is a folder with `config.json`, `decoder.safetensors`, `codec.safetensors` and `text_encoder/`. This module
reads `config.json` but no tensors: it never imports torch, so that models are listed at once.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, get_args

from magnet_cli.disk.small_files import UnreadableFileError, read_object, read_text
from magnet_cli.errors import ModelError, UsageError, shown
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
from magnet_cli.hub.registry import ALIASES, BUNDLED, ModelFacts, registered
from magnet_cli.hub.user_sampling import SAMPLING_FILE, read_user_sampling, write_user_sampling
from magnet_cli.model.config import CodecConfig, DecoderConfig, ShapeError, TextConfig
from magnet_cli.options.sampling import LATER, SamplingConfig, Task, check_steps, default_sampling
from magnet_cli.options.strict_json import from_plain

VERSION = 1  # of a bundle
BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled"  # of the small model inside this package
BLOCK = 1 << 20
LONGEST_NAME = 200  # of a file; the longest there is has 30
# The keys of every bundle's `config.json`, with their types; the shapes of the networks are checked elsewhere.
KEYS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "task", "licence"), (str,)),
    **dict.fromkeys(("source.repository", "source.revision"), (str, type(None))),
    **dict.fromkeys(("decoder", "codec", "text", "files"), (dict,)),
}

Part = TypeVar("Part", DecoderConfig, CodecConfig, TextConfig, SamplingConfig)


@dataclass(frozen=True)
class BundleInfo:
    """What a bundle's `config.json` says.

    files: the size in bytes and the SHA-256 of each file. config: the whole file, of which KEYS have been checked. The
    properties raise ModelError for a part that is missing or wrong.
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

    def part(self, kind: Callable[..., Part], key: str) -> Part:
        """A configuration from its part of `config.json`; ModelError if a field is missing or its value impossible."""
        try:
            part = from_plain(kind, self.config.get(key))
            if not isinstance(part, SamplingConfig):
                part.check()
            return part
        except ShapeError as error:
            raise ModelError(
                f"{key}.{error}, in {self.folder / CONFIG_FILE}", "Download or convert the model again"
            ) from error
        except ValueError as error:
            raise ModelError(
                f"{key}.{error} in {self.folder / CONFIG_FILE} is missing or wrong",
                "Download or convert the model again",
            ) from error

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of the files of weights, as `config.json` has them."""
        return {name: digest for name, (_, digest) in sorted(self.files.items()) if name.endswith(".safetensors")}

    @property
    def task(self) -> Task:
        """What the model generates: music or sound."""
        task: Task = self.config["task"]
        return task

    @property
    def licence(self) -> str:
        """The licence of the weights."""
        return str(self.config["licence"])

    @property
    def own_sampling(self) -> SamplingConfig | None:
        """The sampling options that the user has set for the bundle, else those that it names; None for neither."""
        models = Store.at().root
        path, values = models / SAMPLING_FILE, read_user_sampling(models).get(self.key)
        hint = "Correct it, or delete that file"
        if values is None:
            path, values = self.folder / CONFIG_FILE, self.config.get("sampling")
            hint = "Download or convert the model again"
        if values is None:
            return None
        try:
            sampling = from_plain(SamplingConfig, values, later=LATER)
            check_steps(sampling, codebooks=self.part(DecoderConfig, "decoder").codebooks)
        except UsageError as error:
            raise ModelError(f"sampling in {path}: {error.message}", hint) from error
        except ValueError as error:
            raise ModelError(f"sampling.{error} in {path} is missing or wrong", hint) from error
        return sampling

    @property
    def key(self) -> str:
        """What the user's settings call it: the same wherever the package is installed, else its folder."""
        return BUNDLED if self.folder == BUNDLED_FOLDER else str(self.folder.resolve())

    def set_sampling(self, sampling: SamplingConfig | None) -> None:
        """Set how it is sampled unless told otherwise, in the user's settings; None: as it was written.

        Raises:
            UsageError: the options do not fit the model.
            OutputError: the settings cannot be written.
        """
        if sampling is not None:
            check_steps(sampling, codebooks=self.part(DecoderConfig, "decoder").codebooks)
        write_user_sampling(Store.at().root, self.key, None if sampling is None else asdict(sampling))

    @property
    def facts(self) -> ModelFacts:
        """What is known of the model without its weights."""
        decoder, codec = self.part(DecoderConfig, "decoder"), self.part(CodecConfig, "codec")
        return magnet_facts(
            decoder,
            codec,
            self.part(TextConfig, "text"),
            self.task,
            licence=self.licence,
            sampling=self.own_sampling or default_sampling(self.task, decoder.clip_seconds, decoder.codebooks),
        )

    def problems(self) -> list[str]:
        """What is wrong with the bundle's files, one line each; empty if all are intact. Reads every byte."""
        found = []
        for name, (size, digest) in self.files.items():
            path = self.folder / name
            if not path.is_file():
                found.append(f"{name} is missing")
            elif path.stat().st_size != size:
                found.append(f"{name} has {path.stat().st_size} bytes instead of {size}")
            elif sha256(path) != digest:
                found.append(f"{name} has changed since it was written")
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
    if config["task"] not in get_args(Task):
        raise UnreadableFileError(f"task is {shown(config['task'])}")
    if not isinstance(config.get("sampling"), (dict, type(None))):
        raise UnreadableFileError(f"sampling is {shown(config['sampling'])}")


def _files(files: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, str]]]:
    """The size and SHA-256 of each file of a bundle; UnreadableFileError for a path that leads out of it."""
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
            raise UnreadableFileError(f"{shown(name)} is no name of a file in a bundle")
        yield name, (size, digest)


def is_bundle(folder: Path) -> bool:
    """Whether a folder has the marker of a bundle."""
    try:
        text = read_text(folder / CONFIG_FILE)
    except UnreadableFileError:
        return False
    return f'"{FORMAT}"' in text


def is_musicgen(folder: Path) -> bool:
    """Whether a folder holds a MusicGen in the format of transformers."""
    try:
        settings = read_object(folder / CONFIG_FILE)
    except UnreadableFileError:
        return False
    return str(settings.get("model_type")).startswith("musicgen")


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
        """The store in this folder, else in `MAGNET_MODEL_DIR`, else in the platform's cache folder of the user."""
        from platformdirs import user_cache_path

        named = folder or os.environ.get("MAGNET_MODEL_DIR")
        return cls(Path(os.path.expanduser(named)) if named else user_cache_path("magnet") / "models")

    def folder(self, name: str) -> Path:
        """Where the bundle of a model is or would be. `name` is a short name, a Hub id, or the folder's own name.

        An alias means the released model, unless a bundle here has that name.
        """
        if name == BUNDLED:
            return BUNDLED_FOLDER
        if name in ALIASES and not is_bundle(self.root / name):
            name = ALIASES[name]
        spec = registered(name)
        safe = (name if spec is None else spec.name).replace("/", "--")
        if not safe or safe.startswith(".") or not all(c.isalnum() or c in "-_." for c in safe):
            raise UsageError(f"{name!r} cannot be the name of a model", "See magnet models list")
        return self.root / safe

    def find(self, name: str) -> BundleInfo | None:
        """The bundle of a model, if there is one; ModelError if it is damaged."""
        folder = self.folder(name)
        return BundleInfo.read(folder) if is_bundle(folder) else None

    def folders(self) -> list[Path]:
        """The folders of all bundles, by name; damaged ones are among them."""
        found = sorted(self.root.iterdir()) if self.root.is_dir() else []
        # Folders whose name begins with a dot are unfinished.
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
            raise UsageError(f"{name} is part of this package", "Choose another model, or uninstall magnet")
        if not os.path.lexists(folder):
            clear_leftovers(self.root)
            raise UsageError(f"{name} is not in {self.root}", "See magnet models list")
        check_own(folder, BUNDLE)
        return folder

    def remove(self, name: str) -> int:
        """Delete the bundle of a model and what the user has set for it; returns the bytes it took.

        Raises what `removable` does.
        """
        folder = self.removable(name)
        key, models = str(folder.resolve()), Store.at().root
        size = remove_folder(folder, BUNDLE)
        if key in read_user_sampling(models):
            write_user_sampling(models, key, None)
        return size


def read_ahead(folder: Path) -> None:
    """Let the system read a bundle's weights from the disk in the background; returns at once.

    Weights that are already in memory cost nothing. On other systems than Linux this does nothing.
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
