"""From a model's name to its parts: a bundle, a folder in the released format, or a download that becomes a bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from filelock import FileLock

from magnet_cli.checkpoints.bundle import Model, Origin, read_bundle, write_bundle
from magnet_cli.checkpoints.hugging_face_codec import read_hugging_face_codec
from magnet_cli.checkpoints.musicgen import MusicGenModel, read_musicgen
from magnet_cli.checkpoints.parts import CodecPointer
from magnet_cli.checkpoints.released import read_codec, read_decoder
from magnet_cli.errors import UsageError
from magnet_cli.hub import cache
from magnet_cli.hub import locate as hub
from magnet_cli.hub.download import Access, Downloading
from magnet_cli.hub.folders import BUNDLE, FolderKind, check_apart, check_target
from magnet_cli.hub.locate import ResolvedModel, resolve
from magnet_cli.hub.store import BundleInfo, Store, is_bundle
from magnet_cli.model.weights import check_memory
from magnet_cli.options.runtime import PlacesConfig

DownloadListener = Callable[[Downloading], None]


def open_resolved(model: ResolvedModel, *, listener: DownloadListener | None = None) -> Model | MusicGenModel:
    """The parts of a model.

    A model of the Hub is downloaded unless it is here, and a MAGNeT is then converted into a bundle, once.
    listener: called with the progress of downloads.

    Raises: ModelError for a damaged model, HubError when a download is needed and fails, OutputError when the disk is
    full.
    """
    if model.bundle is not None:
        return read_bundle(model.bundle)
    access = Access(model.places.cache_dir, model.places.offline, listener)
    if model.kind == "hub":
        return read_bundle(_in_store(model, access))
    source = hub.locate_model(model, access)
    if model.is_musicgen:
        origin = Origin(model.name, source.repository, source.revision, source.licence)
        return MusicGenModel(origin, read_musicgen(source.folder))
    return read_released(source, access)


def open_any(
    name: str, places: PlacesConfig | None = None, *, listener: DownloadListener | None = None
) -> Model | MusicGenModel:
    """The parts of a model by its name; see `resolve` and `open_resolved`, whose errors it raises."""
    return open_resolved(resolve(name, places), listener=listener)


def open_model(name: str, places: PlacesConfig | None = None, *, listener: DownloadListener | None = None) -> Model:
    """The parts of a MAGNeT as `open_any` finds it; UsageError for a MusicGen."""
    return open_magnet(resolve(name, places), listener=listener)


def open_magnet(model: ResolvedModel, *, listener: DownloadListener | None = None) -> Model:
    """The parts of a MAGNeT; UsageError for a MusicGen, which is not downloaded for that."""
    opened = None if model.is_musicgen else open_resolved(model, listener=listener)
    if not isinstance(opened, Model):
        raise UsageError(f"{model.given} is a MusicGen, whose format is not converted", "Choose a MAGNeT model")
    return opened


def read_released(source: hub.ModelSource, access: Access) -> Model:
    """The parts of a model in the released format, with its text encoder and, where it refers to one, its codec."""
    decoder = read_decoder(source.folder)
    check_memory(decoder.weights, decoder.path)
    codec = read_codec(source.folder)
    if isinstance(codec, CodecPointer):
        codec = read_hugging_face_codec(hub.locate_codec(source.folder, codec.name, access, model=source.name))
    text_folder = hub.locate_text_encoder(source.folder, decoder.text.name, access, model=source.name)
    origin = Origin(source.name, source.repository, source.revision, source.licence)
    return Model(origin, decoder, codec, text_folder)


def convert(
    name: str, target: Path, places: PlacesConfig | None = None, *, dtype: torch.dtype | None, overwrite: bool = False
) -> None:
    """Write a model, by short name, folder or Hub id, as a bundle.

    Raises: OutputError, before any work, when `target` exists (with `overwrite`: and is not a bundle), cannot be
    written, or is the model's folder or a folder above or inside it.
    """
    model = resolve(name, places)
    check_written(model, target, BUNDLE, overwrite=overwrite)
    write_bundle(open_magnet(model), target, dtype=dtype, overwrite=overwrite)


def check_written(model: ResolvedModel, target: Path, kind: FolderKind, *, overwrite: bool) -> None:
    """Raise OutputError unless a model can be written to `target` as a folder of this kind."""
    check_target(target, kind, overwrite=overwrite)
    check_apart(target, [] if model.own_folder is None else [model.own_folder])


def _in_store(model: ResolvedModel, access: Access) -> Path:
    """The folder of a model's bundle, downloaded and converted if need be. Parallel runs do this once."""
    store = Store.at(model.places.model_dir)
    folder = store.folder(model.name)
    if not is_bundle(folder):
        parts = read_released(replace(hub.locate_model(model, access), name=model.name), access)
        store.root.mkdir(parents=True, exist_ok=True)
        with FileLock(store.root / f".{folder.name}.lock"):
            if not is_bundle(folder):
                write_bundle(parts, folder)
    return folder


def mend(model: ResolvedModel) -> list[str]:
    """Delete a model's bundle if a byte of it has changed, so that it is converted again; returns what was wrong.

    The downloads that it is converted from are checked, too, and damaged ones are deleted from the cache. A model that
    is not on the Hub is left alone.
    """
    if model.bundle is None or model.repository is None:
        return []
    problems = BundleInfo.read(model.bundle).problems()
    if problems:
        Store.at(model.places.model_dir).remove(model.name)
        originals = cache.cached(model.repository, cache.MODEL, model.places.cache_dir)
        if originals is not None:
            cache.discard(originals, cache.damaged(originals))
    return problems
