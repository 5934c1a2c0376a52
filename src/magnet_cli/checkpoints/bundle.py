"""Bundles: our own format of a model on disk, made to be memory-mapped.

`config.json` holds the configurations and where the model comes from. `decoder.safetensors` and `codec.safetensors`
hold the weights under our own names, with weight normalization folded in. `text_encoder/` holds the encoder half of T5
and its tokenizer. There is no pickle, and nothing has to be converted when it is loaded.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from magnet_cli.checkpoints.parts import CodecCheckpoint, DecoderCheckpoint
from magnet_cli.errors import ModelError, OutputError, one_line
from magnet_cli.hub.folders import (
    BUNDLE,
    CODEC_FILE,
    CONFIG_FILE,
    DECODER_FILE,
    FORMAT,
    TEXT_FOLDER,
    new_folder,
)
from magnet_cli.hub.registry import ModelFacts
from magnet_cli.hub.store import VERSION, BundleInfo, is_bundle, magnet_facts, sha256
from magnet_cli.model.config import CodecConfig, DecoderConfig, TextConfig
from magnet_cli.model.text_encoder import encoder_half
from magnet_cli.model.weights import WEIGHT_FILES, Weights, read_safetensors, read_weights
from magnet_cli.options.sampling import SamplingConfig, default_sampling


@dataclass(frozen=True)
class Origin:
    """Where a model comes from. `repository` and `revision` are those on the Hub; None for a folder."""

    name: str
    repository: str | None
    revision: str | None
    licence: str


@dataclass(frozen=True)
class Model:
    """All parts of a model, read but not built: weights are memory-mapped.

    own_sampling: the sampling options that the user has set for the bundle, or that it names; None: those of its kind
        in its authors' library.
    """

    origin: Origin
    decoder: DecoderCheckpoint
    codec: CodecCheckpoint
    text_folder: Path
    own_sampling: SamplingConfig | None = None

    @property
    def name(self) -> str:
        """Its name."""
        return self.origin.name

    @property
    def is_musicgen(self) -> bool:
        """Whether it decodes frame after frame: a MAGNeT does not."""
        return False

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return self.decoder.path.parent

    @property
    def sampling(self) -> SamplingConfig:
        """Its default sampling options."""
        config = self.decoder.config
        return self.own_sampling or default_sampling(self.decoder.task, config.clip_seconds, config.codebooks)

    @cached_property
    def facts(self) -> ModelFacts:
        """What it can do and what it costs."""
        decoder, codec = self.decoder, self.codec
        return magnet_facts(
            decoder.config,
            codec.config,
            decoder.text,
            decoder.task,
            licence=self.origin.licence,
            sampling=self.sampling,
        )

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of its files of weights: as the bundle has them, else computed from every byte."""
        if is_bundle(self.folder):
            return BundleInfo.read(self.folder).hashes
        text, _ = read_weights(self.text_folder)
        return {path.name: sha256(path) for path in (self.decoder.path, self.codec.path, text)}


def read_bundle(folder: Path) -> Model:
    """Read a bundle; ModelError when a part is missing or damaged. Files are not hashed: see BundleInfo.problems."""
    info = BundleInfo.read(folder)
    source = info.config["source"]
    origin = Origin(info.name, source["repository"], source["revision"], info.licence)
    for name, (size, _) in info.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise ModelError(f"{path} is missing or cut short", "Download or convert the model again")
    decoder = DecoderCheckpoint(
        path=folder / DECODER_FILE,
        config=info.part(DecoderConfig, "decoder"),
        text=info.part(TextConfig, "text"),
        task=info.task,
        weights=read_safetensors(folder / DECODER_FILE),
    )
    codec = CodecCheckpoint(
        path=folder / CODEC_FILE,
        config=info.part(CodecConfig, "codec"),
        weights=read_safetensors(folder / CODEC_FILE),
    )
    return Model(origin, decoder, codec, folder / TEXT_FOLDER, info.own_sampling)


def write_bundle(model: Model, target: Path, *, dtype: torch.dtype | None = None, overwrite: bool = False) -> None:
    """Write a model as a bundle, completely or not at all. dtype: of the decoder's weights; None: as they are stored.

    Raises: OutputError when `target` exists (with `overwrite`: and is not a bundle) or cannot be written.
    """
    with new_folder(target, BUNDLE, overwrite=overwrite) as folder:
        save_weights(
            {name: one.to(dtype or one.dtype) for name, one in model.decoder.weights.items()}, folder / DECODER_FILE
        )
        save_weights(model.codec.weights, folder / CODEC_FILE)
        text = folder / TEXT_FOLDER
        text.mkdir()
        for name in ("config.json", "tokenizer.json"):
            shutil.copyfile(model.text_folder / name, text / name)
        _, weights = read_weights(model.text_folder)
        half = encoder_half(weights)
        half.pop("encoder.embed_tokens.weight", None)  # the same table under another name
        save_weights(half, text / WEIGHT_FILES[0])
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
            "sampling": None if model.own_sampling is None else asdict(model.own_sampling),
            "files": {
                path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
                for path in files
            },
        }
        _write_config(config, folder / CONFIG_FILE)


def _write_config(config: dict[str, Any], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def save_weights(weights: Weights, path: Path) -> None:
    """Write tensors as safetensors and wait until they are on the disk. Raises OutputError or OSError."""
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
