"""From a model's name to its parts: a bundle, a folder in the released format, or a download that becomes a bundle."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock

from magnet_cli.checkpoints.bundle import Model, Origin, read_bundle, write_bundle
from magnet_cli.checkpoints.hugging_face_codec import read_hugging_face_codec
from magnet_cli.checkpoints.musicgen import MusicGenModel, is_musicgen, read_musicgen
from magnet_cli.checkpoints.parts import CodecPointer
from magnet_cli.checkpoints.released import read_codec, read_decoder
from magnet_cli.hub import cache
from magnet_cli.hub import locate as hub
from magnet_cli.hub.cache import RESCORER
from magnet_cli.hub.download import Access, Plan
from magnet_cli.hub.library import BUNDLED_FOLDER, BundleInfo, Store, is_bundle
from magnet_cli.hub.registry import BUNDLED, MODELS, RESCORERS, UNKNOWN_LICENCE, musicgen_name
from magnet_cli.model.weights import check_memory
from magnet_cli.options.runtime import PlacesConfig

OnDownload = Callable[[Plan, int], None]


def open_model(name: str, places: PlacesConfig | None = None, *, on_download: OnDownload | None = None) -> Model:
    """The parts of a model, by short name, folder, Hub id or the name of a bundle in the store.

    A model of the Hub is downloaded unless it is here, and converted into a bundle once. `on_download` is told what is
    fetched and how many bytes are done. Raises UsageError for a name that means nothing, ModelError for a damaged
    model, HubError when a download is needed and fails, OutputError when there is no room.
    """
    places = places or PlacesConfig()
    known = hub.store_name(name)
    folder = Path(os.path.expanduser(name))
    if known is not None and (name in MODELS or not folder.is_dir()):
        return read_bundle(_in_store(known, Store.at(places.model_dir), _access(places, on_download)))
    if name == BUNDLED or (name and is_bundle(folder)):
        return read_bundle(BUNDLED_FOLDER if name == BUNDLED else folder)
    if not folder.exists():
        for bundle in Store.at(places.model_dir).bundles():  # whatever else was put there, by the name of its folder
            if bundle.folder.name == name:
                return read_bundle(bundle.folder)
    access = _access(places, on_download)
    return read_released(hub.locate_model(name, access), access)


def read_released(source: hub.ModelSource, access: Access) -> Model:
    """The parts of a model in the released format, its text encoder and, where it only points to one, its codec."""
    decoder = read_decoder(source.folder)
    check_memory(decoder.weights, decoder.path)
    codec = read_codec(source.folder)
    if isinstance(codec, CodecPointer):
        codec = read_hugging_face_codec(hub.locate_codec(source.folder, codec.name, access, model=source.name))
    text_folder = hub.locate_text_encoder(source.folder, decoder.text.name, access, model=source.name)
    origin = Origin(source.name, source.repository, source.revision, source.licence)
    return Model(origin, decoder, codec, text_folder)


def open_any(
    name: str, places: PlacesConfig | None = None, *, on_download: OnDownload | None = None
) -> Model | MusicGenModel:
    """The parts of a MAGNeT as `open_model` finds it, or of a MusicGen by short name, Hub id or folder."""
    places = places or PlacesConfig()
    known, folder = musicgen_name(name), Path(os.path.expanduser(name))
    if folder.is_dir() and known != name:
        if not is_musicgen(folder):
            return open_model(name, places, on_download=on_download)
        origin = Origin(folder.resolve().name, None, None, UNKNOWN_LICENCE)
        return MusicGenModel(origin, read_musicgen(folder))
    if known is None:
        return open_model(name, places, on_download=on_download)
    spec = RESCORERS[known]
    folder = hub.obtain(spec.repository, RESCORER, _access(places, on_download), model=known)
    return MusicGenModel(Origin(known, spec.repository, folder.name, spec.licence), read_musicgen(folder))


def convert(
    name: str, target: Path, places: PlacesConfig | None = None, *, dtype: torch.dtype | None, overwrite: bool = False
) -> None:
    """Write a model, by short name, folder or Hub id, as a bundle."""
    write_bundle(open_model(name, places), target, dtype=dtype, overwrite=overwrite)


def _access(places: PlacesConfig, on_download: OnDownload | None) -> Access:
    return Access(places.cache_dir, places.offline, on_download)


def _in_store(name: str, store: Store, access: Access) -> Path:
    """The folder of a model's bundle, made of what the Hub has if it is not there yet. Parallel runs make it once."""
    folder = store.folder(name)
    if not is_bundle(folder):
        model = read_released(hub.locate_model(name, access), access)
        store.root.mkdir(parents=True, exist_ok=True)
        with FileLock(store.root / f".{folder.name}.lock"):
            if not is_bundle(folder):
                write_bundle(model, folder)
    return folder


def mend(name: str, places: PlacesConfig) -> list[str]:
    """Delete a model's bundle if a byte of it has changed, so that `open_model` makes it again; returns what was wrong.

    Downloads it would be made from are checked, too, and what is damaged is taken out of the cache.
    """
    store = Store.at(places.model_dir)
    known = hub.store_name(name)
    if known is None or not is_bundle(store.folder(known)):
        return []
    problems = BundleInfo.read(store.folder(known)).problems()
    if problems:
        store.remove(known)
        repository = MODELS[known].repository if known in MODELS else known
        originals = cache.cached(repository, cache.MODEL, places.cache_dir)
        if originals is not None:
            cache.discard(originals, cache.damaged(originals))
    return problems
