"""Finding a model's files: a folder, the Hub cache, or a download. The only module that talks to the Hub."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

from magnet_cli.errors import HubError, ModelError, UsageError, one_line
from magnet_cli.registry import MODELS
from magnet_cli.weights import WEIGHT_FILES

MODEL_FILES = ("state_dict.bin", "compression_state_dict.bin")
TEXT_FILES = ("config.json", "tokenizer.json")
CODEC_FILES = ("config.json",)

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files are. `repository` and `revision` are those on the Hub, None for a folder of the user's."""

    name: str
    folder: Path
    repository: str | None
    revision: str | None
    licence: str


def locate_model(model: str) -> ModelSource:
    """Find a model by its short name, folder or Hub id, downloading what is not in the cache.

    Raises UsageError for a name that means nothing, ModelError for a folder that is no model, HubError when a
    download is needed and fails.
    """
    if not model.strip():
        raise UsageError("the model has no name", f"Choose one of {', '.join(MODELS)}, a folder or a Hub id")
    if model in MODELS:
        spec = MODELS[model]
        folder = _snapshot(spec.repository, MODEL_FILES)
        return ModelSource(spec.name, folder, spec.repository, folder.name, spec.licence)
    path = Path(model).expanduser()
    if path.is_dir():
        return ModelSource(path.resolve().name, path, None, None, UNKNOWN_LICENCE)
    if path.exists():
        raise ModelError(f"{model} is a file, not a model", "Give the folder that holds state_dict.bin")
    if HUB_ID.fullmatch(model) and not model.startswith("."):
        folder = _snapshot(model, MODEL_FILES)
        known = next((spec for spec in MODELS.values() if spec.repository == model), None)
        return ModelSource(model, folder, model, folder.name, known.licence if known else UNKNOWN_LICENCE)
    if "/" in model or "\\" in model or model.startswith((".", "~")):
        raise ModelError(f"there is no folder {model}", "Check the path, or give a model's name or Hub id")
    longer = [name for name in MODELS if name.startswith(model)]
    close = longer or difflib.get_close_matches(model, MODELS, n=1, cutoff=0.4)
    raise UsageError(
        f"unknown model {model!r}",
        f"Did you mean {close[0]}?" if close else f"Choose one of {', '.join(MODELS)}, a folder or a Hub id",
    )


def locate_text_encoder(folder: Path, name: str) -> Path:
    """Folder of the text encoder: inside the model's folder under its own or its generic name, or from the Hub."""
    local = _inside(folder, ("text_encoder", name, name.rsplit("/", 1)[-1]))
    # The original T5 models have moved to an organisation of their own; old caches know them without it.
    repository = f"google-t5/{name}" if "/" not in name and name.startswith("t5-") else name
    return local or _snapshot(repository, TEXT_FILES, also_cached_as=name)


def locate_codec(folder: Path, name: str) -> Path:
    """Folder of a codec that a checkpoint only points to: inside the model's folder, or from the Hub."""
    return _inside(folder, ("codec", name.rsplit("/", 1)[-1])) or _snapshot(name, CODEC_FILES)


def _inside(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name / "config.json").is_file()), None)


def _snapshot(repository: str, files: Sequence[str], *, also_cached_as: str | None = None) -> Path:
    """Folder that holds these files of a repository, and weights if they are not among them; cached or downloaded."""
    for name in dict.fromkeys((repository, also_cached_as or repository)):
        cached = _cached(name, files)
        if cached is not None:
            return cached
    if files == MODEL_FILES:
        patterns = list(files)
    else:
        patterns = [*files, "tokenizer_config.json", "special_tokens_map.json", WEIGHT_FILES[0]]
    try:
        folder = Path(snapshot_download(repository, allow_patterns=patterns))
        if files != MODEL_FILES and not (folder / WEIGHT_FILES[0]).is_file():  # an old repository
            folder = Path(snapshot_download(repository, allow_patterns=[*patterns, WEIGHT_FILES[1]]))
    except GatedRepoError as error:
        raise HubError(
            f"access to {repository} is restricted", "Accept its terms on the Hub and set HF_TOKEN"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise HubError(
            f"the Hub has no repository {repository}", "Check the name; a private one needs HF_TOKEN to be set"
        ) from error
    except OSError as error:
        raise _unavailable(repository, one_line(error, 100)) from error
    if not _is_whole(folder, files):  # the library falls back to what is cached, whole or not
        raise _unavailable(repository, "some of its files")
    return folder


def _unavailable(repository: str, what: str) -> HubError:
    if constants.HF_HUB_OFFLINE:
        return HubError(f"{repository} is not whole in the cache, and HF_HUB_OFFLINE is set", "Unset it to download")
    return HubError(
        f"{repository} is not whole in the cache and could not be downloaded: {what}",
        "Check the name and the network connection, or give a folder with --model",
    )


def _cached(repository: str, files: Sequence[str]) -> Path | None:
    """The cached snapshot, if it is whole."""
    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except (OSError, HFValidationError):
        return None
    return folder if _is_whole(folder, files) else None


def _is_whole(folder: Path, files: Sequence[str]) -> bool:
    """Whether a folder has these files, and weights if they are not among them."""
    weights = files == MODEL_FILES or any((folder / name).is_file() for name in WEIGHT_FILES)
    return weights and all((folder / name).is_file() for name in files)
