"""What a model's name means, and where its files are: a folder, the store, the Hub cache, or a download.

`resolve` decides what a name means, once for each name that a user gives. Everything else takes its result.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from magnet_cli.errors import MagnetWarning, ModelError, UsageError, did_you_mean, near
from magnet_cli.hub.cache import CODEC, MODEL, MODEL_FILES, RESCORER, TEXT_ENCODER, Wanted, cached
from magnet_cli.hub.download import DEFAULT_ACCESS, Access, download, plan_download
from magnet_cli.hub.registry import (
    ALIASES,
    BUNDLED,
    MODELS,
    RESCORERS,
    UNKNOWN_LICENCE,
    ModelFacts,
    RescorerSpec,
    registered,
)
from magnet_cli.hub.store import BundleInfo, Store, is_bundle, is_musicgen
from magnet_cli.options.runtime import PlacesConfig

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

# "bundled": the small model inside this package. "bundle": a bundle's folder. "stored": a bundle in the store.
# "hub": a MAGNeT of the Hub that is to become a bundle in the store. "released": a folder in the released format.
# "musicgen": a MusicGen of the Hub. "musicgen folder": one in a folder, in the format of transformers.
Kind = Literal["bundled", "bundle", "stored", "hub", "released", "musicgen", "musicgen folder"]


@dataclass(frozen=True)
class ResolvedModel:
    """What a model's name means here.

    given: the name as the user gave it. name: its short name, its Hub id, or the name of its folder. places: where it
    was looked for. folder: where its files are; None: it has to be downloaded. repository: its Hub id; None for a model
    that is not on the Hub, or that is in a folder of the user's. facts: what it can do; hashes: SHA-256 of its files of
    weights; None where that is not known before the model is opened.
    """

    given: str
    kind: Kind
    name: str
    places: PlacesConfig = field(repr=False)
    folder: Path | None = None
    repository: str | None = None
    facts: ModelFacts | None = None
    hashes: dict[str, str] | None = field(default=None, repr=False, compare=False)

    @property
    def is_musicgen(self) -> bool:
        """Whether it decodes frame after frame; else it is a MAGNeT."""
        return self.kind in ("musicgen", "musicgen folder")

    @property
    def bundle(self) -> Path | None:
        """The folder of its bundle, if it is one."""
        return self.folder if self.kind in ("bundled", "bundle", "stored") else None

    @property
    def own_folder(self) -> Path | None:
        """The folder of its files or, before a download, of its future bundle; None for a MusicGen that is not here."""
        return Store.at(self.places.model_dir).folder(self.name) if self.kind == "hub" else self.folder

    @property
    def file_name(self) -> str:
        """Its name in the names of files."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def licence(self) -> str:
        """The licence of its weights."""
        return UNKNOWN_LICENCE if self.facts is None else self.facts.licence


# -- what a name means ------------------------------------------------------------------------------------------------


def resolve(name: str, places: PlacesConfig | None = None) -> ResolvedModel:
    """What a model's name means: a short name, a folder, the name of a bundle in the store, or a Hub id.

    Short names go before folders, and folders before aliases and Hub ids. An alias such as `small` is resolved as the
    name that it stands for, so records hold that. Makes no request and imports no torch.

    Raises: UsageError for an unknown name, ModelError for a path without a model, or for a damaged bundle.
    """
    places = places or PlacesConfig()
    if not name.strip():
        raise UsageError("the model's name is empty", f"Choose one of {', '.join(MODELS)}, a folder or a Hub id")
    store, path = Store.at(places.model_dir), Path(os.path.expanduser(name))
    if name == BUNDLED:
        return _bundle(BUNDLED, "bundled", BUNDLED, places, store.folder(BUNDLED))
    if name in MODELS or name in RESCORERS:
        return _of_hub(name, places, store)
    if path.is_dir():
        # A folder that only has the name of a bundle in the store, or of an alias, does not hide it.
        return (None if _is_model(path) else _stored_or_alias(name, places, store)) or _in_folder(name, path, places)
    known = _stored_or_alias(name, places, store)
    if known is not None:
        return known
    if path.exists():
        raise ModelError(f"{name} is a file, not a model", "Give the folder that holds state_dict.bin")
    if HUB_ID.fullmatch(name) and not name.startswith("."):
        return _of_hub(name, places, store)
    if "/" in name or "\\" in name or name.startswith((".", "~")):
        raise ModelError(f"there is no folder {name}", "Check the path, or give a model's name or Hub id")
    names, hint = model_names(store), f"Choose one of {', '.join(MODELS)}, a folder or a Hub id"
    if near(name, names):  # a list of other kinds of models beside the suggestion would mislead
        hint = did_you_mean(name, names, "See magnet models list, or give a folder or a Hub id")
    raise UsageError(f"unknown model {name!r}", hint)


def model_names(store: Store) -> list[str]:
    """Every short name: of released models, their aliases, and the bundles on this machine."""
    return [*MODELS, *RESCORERS, BUNDLED, *ALIASES, *(folder.name for folder in store.folders())]


def bundled_model(places: PlacesConfig | None = None) -> ResolvedModel | None:
    """The small model inside this package, unless it was left out."""
    return resolve(BUNDLED, places) if is_bundle(Store.at().folder(BUNDLED)) else None


def known_models(places: PlacesConfig | None = None) -> list[ResolvedModel]:
    """The released MAGNeTs and MusicGens, and the bundles on this machine beyond them.

    Warns with MagnetWarning of a damaged bundle, whose model then counts as absent.
    """
    places = places or PlacesConfig()
    store = Store.at(places.model_dir)
    found = []
    for name in (*MODELS, *RESCORERS):
        try:
            found.append(_of_hub(name, places, store))
        except ModelError as error:
            _warn(error)
            found.append(_not_here(name, places))
    inside = bundled_model(places)
    found += [] if inside is None else [inside]
    for folder in store.folders():
        if registered(folder.name) is None:
            try:
                found.append(_bundle(folder.name, "stored", folder.name, places, folder))
            except ModelError as error:
                _warn(error)
    return found


def _warn(error: ModelError) -> None:
    warnings.warn(f"{error.message}. {error.hint}", MagnetWarning, stacklevel=3)


def _of_hub(given: str, places: PlacesConfig, store: Store) -> ResolvedModel:
    """A model of the Hub, by short name or Hub id."""
    spec = registered(given)
    name, repository = (given, given) if spec is None else (spec.name, spec.repository)
    facts = None if spec is None else spec.facts
    if isinstance(spec, RescorerSpec):
        folder = cached(repository, RESCORER, places.cache_dir)
        return ResolvedModel(given, "musicgen", name, places, folder, repository, facts)
    folder = store.folder(name)
    if is_bundle(folder):
        return _bundle(given, "stored", name, places, folder, repository)
    return _not_here(given, places)


def _not_here(given: str, places: PlacesConfig) -> ResolvedModel:
    """A MAGNeT of the Hub, by short name or Hub id, that is to become a bundle."""
    spec = registered(given)
    name, repository = (given, given) if spec is None else (spec.name, spec.repository)
    return ResolvedModel(given, "hub", name, places, None, repository, None if spec is None else spec.facts)


def _bundle(
    given: str, kind: Kind, name: str, places: PlacesConfig, folder: Path, repository: str | None = None
) -> ResolvedModel:
    return _of_info(BundleInfo.read(folder), given, kind, name, places, repository)


def _of_info(
    info: BundleInfo, given: str, kind: Kind, name: str, places: PlacesConfig, repository: str | None = None
) -> ResolvedModel:
    return ResolvedModel(given, kind, name, places, info.folder, repository, info.facts, info.hashes)


def _in_folder(given: str, folder: Path, places: PlacesConfig) -> ResolvedModel:
    """A model in a folder of the user's."""
    name = folder.resolve().name
    if is_bundle(folder):
        return _bundle(given, "bundle", name, places, folder)
    kind: Kind = "musicgen folder" if is_musicgen(folder) else "released"
    return ResolvedModel(given, kind, name, places, folder)


def _stored_or_alias(name: str, places: PlacesConfig, store: Store) -> ResolvedModel | None:
    """A bundle by the name of its folder in the store, else a released model by its alias."""
    known = next((folder for folder in store.folders() if folder.name == name), None)
    if known is not None:
        return _bundle(name, "stored", name, places, known)
    return _of_hub(ALIASES[name], places, store) if name in ALIASES else None


def _is_model(folder: Path) -> bool:
    return is_bundle(folder) or is_musicgen(folder) or (folder / MODEL_FILES[0]).is_file()


# -- the files of models, text encoders and codecs --------------------------------------------------------------------


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files are. `repository` and `revision` are those on the Hub, None for a folder of the user's."""

    name: str
    folder: Path
    repository: str | None
    revision: str | None
    licence: str


def locate_model(model: ResolvedModel, access: Access = DEFAULT_ACCESS) -> ModelSource:
    """The files of a model as its authors released it, downloaded where they are not in the cache.

    Raises: HubError when a download is needed and fails, OutputError when the disk is full.
    """
    if model.repository is None:
        if model.folder is None:
            raise ValueError(f"{model.given} has neither a repository nor a folder")
        return ModelSource(model.name, model.folder, None, None, model.licence)
    folder = obtain(model.repository, RESCORER if model.is_musicgen else MODEL, access, model=model.given)
    spec = registered(model.repository)
    return ModelSource(
        model.given, folder, model.repository, folder.name, UNKNOWN_LICENCE if spec is None else spec.licence
    )


def fetch_first(model: ResolvedModel, access: Access) -> None:
    """Download a model of the Hub that is not here, before importing PyTorch takes seconds: failures come at once."""
    if model.folder is None:
        locate_model(model, access)


def locate_text_encoder(folder: Path, name: str, access: Access = DEFAULT_ACCESS, *, model: str | None = None) -> Path:
    """Folder of the text encoder: in the model's folder, under its own name or as `text_encoder`, or from the Hub.

    model: the name of the model that needs it, for messages.
    """
    local = _inside(folder, ("text_encoder", name, name.rsplit("/", 1)[-1]))
    repository = text_encoder_repository(name)
    # Older caches have the original T5 models under their former name.
    old = None if local or name == repository else cached(name, TEXT_ENCODER, access.cache_dir)
    if old is not None and cached(repository, TEXT_ENCODER, access.cache_dir) is None:
        return old
    return local or obtain(repository, TEXT_ENCODER, access, model=model)


def text_encoder_repository(name: str) -> str:
    """The Hub id of a text encoder. The original T5 models have moved to the organisation google-t5."""
    return f"google-t5/{name}" if name.startswith("t5-") and "/" not in name else name


def locate_codec(folder: Path, name: str, access: Access = DEFAULT_ACCESS, *, model: str | None = None) -> Path:
    """Folder of a codec that a checkpoint refers to by name: in the model's folder, or from the Hub."""
    return _inside(folder, ("codec", name.rsplit("/", 1)[-1])) or obtain(name, CODEC, access, model=model)


def _inside(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name / "config.json").is_file()), None)


def obtain(repository: str, wanted: Wanted, access: Access = DEFAULT_ACCESS, *, model: str | None = None) -> Path:
    """Folder with the wanted files, from the cache if it has them all, else downloaded. model: for messages."""
    found = cached(repository, wanted, access.cache_dir)
    if found is not None:
        return found
    plan = plan_download(repository, wanted, access, model=model)
    return download(plan, listener=access.listener).folder
