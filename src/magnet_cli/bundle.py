"""Bundles: our own format of a model on disk, made to be memory-mapped.

`config.json` holds the configurations and where the model comes from; `decoder.safetensors` and `codec.safetensors`
the weights under our own names, weight normalization folded; `text_encoder/` the encoder half of T5 and its tokenizer.
No pickle, nothing that is not needed, nothing to convert at load.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from magnet_cli.checkpoint import CodecCheckpoint, DecoderCheckpoint
from magnet_cli.config import CodecConfig, DecoderConfig, SamplingConfig, TextConfig, default_sampling
from magnet_cli.errors import ModelError, OutputError, one_line
from magnet_cli.plain import from_plain
from magnet_cli.store import (
    CODEC_FILE,
    CONFIG_FILE,
    DECODER_FILE,
    FORMAT,
    TEXT_FOLDER,
    VERSION,
    BundleInfo,
    is_bundle,
    new_folder,
    sha256,
)
from magnet_cli.text import encoder_half
from magnet_cli.weights import WEIGHT_FILES, Weights, read_safetensors, read_weights

Config = TypeVar("Config", DecoderConfig, CodecConfig, TextConfig)


@dataclass(frozen=True)
class Origin:
    """Where a model comes from. `repository` and `revision` are those on the Hub; None for a folder."""

    name: str
    repository: str | None
    revision: str | None
    licence: str


@dataclass(frozen=True)
class Model:
    """All parts of a model, read but not built: weights are memory-mapped."""

    origin: Origin
    decoder: DecoderCheckpoint
    codec: CodecCheckpoint
    text_folder: Path

    @property
    def sampling(self) -> SamplingConfig:
        """The sampling options that suit it."""
        config = self.decoder.config
        return default_sampling(self.decoder.task, config.clip_seconds, config.codebooks)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of the files the weights are in: as the bundle has them noted, else of every byte."""
        folder = self.decoder.path.parent
        if is_bundle(folder):
            noted = BundleInfo.read(folder).files
            return {name: digest for name, (_, digest) in sorted(noted.items()) if name.endswith(".safetensors")}
        text, _ = read_weights(self.text_folder)
        return {path.name: sha256(path) for path in (self.decoder.path, self.codec.path, text)}


def read_bundle(folder: Path) -> Model:
    """Read a bundle; ModelError when a part is missing or damaged. Files are not hashed: see BundleInfo.problems."""
    info = BundleInfo.read(folder)
    source = info.config.get("source") or {}
    origin = Origin(
        name=info.name,
        repository=source.get("repository"),
        revision=source.get("revision"),
        licence=str(info.config.get("licence")),
    )
    for name, (size, _) in info.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise ModelError(f"{path} is missing or cut short", "Download or convert the model again")
    task = info.config.get("task")
    if task not in ("music", "sound"):
        raise ModelError(f"{folder / CONFIG_FILE} names the task {task!r}", "Convert the model again")
    decoder = DecoderCheckpoint(
        path=folder / DECODER_FILE,
        config=_from_json(DecoderConfig, info, "decoder"),
        text=_from_json(TextConfig, info, "text"),
        task=task,
        weights=read_safetensors(folder / DECODER_FILE),
    )
    codec = CodecCheckpoint(
        path=folder / CODEC_FILE,
        config=_from_json(CodecConfig, info, "codec"),
        weights=read_safetensors(folder / CODEC_FILE),
    )
    return Model(origin, decoder, codec, folder / TEXT_FOLDER)


def write_bundle(model: Model, target: Path, *, dtype: torch.dtype | None = None, overwrite: bool = False) -> None:
    """Write a model as a bundle, whole or not at all. dtype: of the decoder's weights; None keeps the stored one.

    Raises OutputError when `target` exists (unless `overwrite`) or cannot be written.
    """
    with new_folder(target, overwrite=overwrite) as folder:
        _save({name: one.to(dtype or one.dtype) for name, one in model.decoder.weights.items()}, folder / DECODER_FILE)
        _save(model.codec.weights, folder / CODEC_FILE)
        text = folder / TEXT_FOLDER
        text.mkdir()
        for name in ("config.json", "tokenizer.json"):
            shutil.copyfile(model.text_folder / name, text / name)
        _, weights = read_weights(model.text_folder)
        half = encoder_half(weights)
        half.pop("encoder.embed_tokens.weight", None)  # the same table under another name
        _save(half, text / WEIGHT_FILES[0])
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        config = {
            "format": FORMAT,
            "version": VERSION,
            "name": model.origin.name,
            "task": model.decoder.task,
            "licence": model.origin.licence,
            "source": {"repository": model.origin.repository, "revision": model.origin.revision},
            "decoder": asdict(model.decoder.config),
            "codec": asdict(model.codec.config),
            "text": asdict(model.decoder.text),
            "files": {
                path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
                for path in files
            },
        }
        with (folder / CONFIG_FILE).open("w", encoding="utf-8") as file:
            json.dump(config, file, indent=2)
            file.flush()
            os.fsync(file.fileno())


def _save(weights: Weights, path: Path) -> None:
    try:
        save_file({name: weight.contiguous() for name, weight in weights.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:  # how the library reports a full disk
        raise OutputError(f"cannot write {path.name}: {one_line(error)}", "Check the space on that disk") from error
    path.chmod(0o666 & ~_umask())  # safetensors writes files that only their owner may read
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _from_json(kind: Callable[..., Config], info: BundleInfo, key: str) -> Config:
    """A configuration from its part of `config.json`, every field present and of its type."""
    try:
        return from_plain(kind, info.config.get(key))
    except ValueError as error:
        raise ModelError(
            f"{key}.{error} in {info.folder / CONFIG_FILE} is missing or wrong", "Download or convert the model again"
        ) from error
