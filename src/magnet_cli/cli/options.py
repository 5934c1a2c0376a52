"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.config import PlacesConfig
from magnet_cli.registry import NON_COMMERCIAL, UNKNOWN_LICENCE
from magnet_cli.store import Store, is_bundle

if TYPE_CHECKING:
    from magnet_cli.transfer import Plan

ModelDir = Annotated[
    Path | None,
    typer.Option(
        "--model-dir",
        envvar="MAGNET_MODEL_DIR",
        metavar="DIR",
        help="The folder of converted models. [default: in the user's cache folder]",
        show_default=False,
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        envvar="MAGNET_CACHE_DIR",
        metavar="DIR",
        help="The folder of downloads. [default: the Hub cache]",
        show_default=False,
    ),
]
Offline = Annotated[bool, typer.Option("--offline", envvar="MAGNET_OFFLINE", help="Make no request to the Hub.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and results only.")]


def licence_note(licence: str) -> str:
    """What the weights allow, in words."""
    if licence == UNKNOWN_LICENCE:
        return "weights of unknown licence"
    return f"weights {licence}, non-commercial use only" if licence == NON_COMMERCIAL else f"weights {licence}"


def download_first(model: str, places: PlacesConfig, report: Callable[[Plan, int], None]) -> None:
    """Download a model of the Hub that is not here, before seconds go into importing PyTorch: failing must be quick."""
    from magnet_cli.hub import locate_model, store_name
    from magnet_cli.transfer import Access

    name = store_name(model)
    if name is None or os.path.isdir(model) or is_bundle(Store.at(places.model_dir).folder(name)):
        return
    locate_model(model, Access(places.cache_dir, places.offline, report))


def human(size: float) -> str:
    """Bytes in words: 1.9 GB."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
