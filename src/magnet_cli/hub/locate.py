"""Finding a model's files: a folder, the Hub cache, or a download."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from magnet_cli.errors import ModelError, UsageError
from magnet_cli.hub.cache import CODEC, MODEL, TEXT_ENCODER, Wanted, cached
from magnet_cli.hub.download import DEFAULT_ACCESS, Access, download, plan_download
from magnet_cli.hub.library import BUNDLED_FOLDER, Store
from magnet_cli.hub.registry import BUNDLED, MODELS, UNKNOWN_LICENCE, musicgen_name
from magnet_cli.options.runtime import PlacesConfig

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files are. `repository` and `revision` are those on the Hub, None for a folder of the user's."""

    name: str
    folder: Path
    repository: str | None
    revision: str | None
    licence: str


# -- models, text encoders and codecs ---------------------------------------------------------------------------------


def locate_model(model: str, access: Access = DEFAULT_ACCESS) -> ModelSource:
    """Find a model by its short name, folder or Hub id, downloading what is not in the cache.

    Raises UsageError for a name that means nothing, ModelError for a folder that is no model, HubError when a
    download is needed and fails, OutputError when the disk is full.
    """
    if not model.strip():
        raise UsageError("the model has no name", f"Choose one of {', '.join(MODELS)}, a folder or a Hub id")
    if model in MODELS:
        spec = MODELS[model]
        folder = obtain(spec.repository, MODEL, access, model=model)
        return ModelSource(spec.name, folder, spec.repository, folder.name, spec.licence)
    if musicgen_name(model) is not None and not os.path.isdir(model):
        raise UsageError(f"{model} is a MusicGen, which stays in the format it came in", "Choose a MAGNeT model")
    path = Path(os.path.expanduser(model))
    if path.is_dir():
        return ModelSource(path.resolve().name, path, None, None, UNKNOWN_LICENCE)
    if path.exists():
        raise ModelError(f"{model} is a file, not a model", "Give the folder that holds state_dict.bin")
    if HUB_ID.fullmatch(model) and not model.startswith("."):
        folder = obtain(model, MODEL, access, model=model)
        known = MODELS.get(store_name(model) or model)
        return ModelSource(model, folder, model, folder.name, known.licence if known else UNKNOWN_LICENCE)
    if "/" in model or "\\" in model or model.startswith((".", "~")):
        raise ModelError(f"there is no folder {model}", "Check the path, or give a model's name or Hub id")
    longer = [name for name in MODELS if name.startswith(model)]
    close = longer or difflib.get_close_matches(model, MODELS, n=1, cutoff=0.4)
    raise UsageError(
        f"unknown model {model!r}",
        f"Did you mean {close[0]}?" if close else f"Choose one of {', '.join(MODELS)}, a folder or a Hub id",
    )


def model_folder(name: str, places: PlacesConfig) -> Path | None:
    """The folder on this machine that `models.open_model` reads or makes for a name, if there is one; no network."""
    known, folder, store = store_name(name), Path(os.path.expanduser(name)), Store.at(places.model_dir)
    if known is not None and (name in MODELS or not folder.is_dir()):
        return store.folder(known)
    if name == BUNDLED:
        return BUNDLED_FOLDER
    if name and folder.exists():
        return folder
    return next((bundle.folder for bundle in store.bundles() if bundle.folder.name == name), None)


def store_name(name: str) -> str | None:
    """The name a model of the Hub has in the store: its short name if it has one. None for what is no such name."""
    if name in MODELS:
        return name
    short = next((spec.name for spec in MODELS.values() if spec.repository == name), None)
    return short or (name if HUB_ID.fullmatch(name) and not name.startswith(".") else None)


def locate_text_encoder(folder: Path, name: str, access: Access = DEFAULT_ACCESS, *, model: str | None = None) -> Path:
    """Folder of the text encoder: inside the model's folder under its own or its generic name, or from the Hub.

    model: whose it is, for messages.
    """
    local = _inside(folder, ("text_encoder", name, name.rsplit("/", 1)[-1]))
    repository = text_encoder_repository(name)
    # Old caches know the original T5 models by their old name.
    old = None if local or name == repository else cached(name, TEXT_ENCODER, access.cache_dir)
    if old is not None and cached(repository, TEXT_ENCODER, access.cache_dir) is None:
        return old
    return local or obtain(repository, TEXT_ENCODER, access, model=model)


def text_encoder_repository(name: str) -> str:
    """The Hub id of a text encoder; the original T5 models have moved to an organisation of their own."""
    return f"google-t5/{name}" if name.startswith("t5-") and "/" not in name else name


def locate_codec(folder: Path, name: str, access: Access = DEFAULT_ACCESS, *, model: str | None = None) -> Path:
    """Folder of a codec that a checkpoint only points to: inside the model's folder, or from the Hub."""
    return _inside(folder, ("codec", name.rsplit("/", 1)[-1])) or obtain(name, CODEC, access, model=model)


def _inside(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name / "config.json").is_file()), None)


def obtain(repository: str, wanted: Wanted, access: Access = DEFAULT_ACCESS, *, model: str | None = None) -> Path:
    """Folder with the wanted files: from the cache as it is, else downloaded. `model` is named in messages."""
    found = cached(repository, wanted, access.cache_dir)
    if found is not None:
        return found
    plan = plan_download(repository, wanted, access, model=model)
    progress = access.progress
    return download(plan, progress=None if progress is None else lambda done: progress(plan, done)).folder
