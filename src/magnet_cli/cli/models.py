"""`magnet models`: what there is, what is here, and how to get it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from magnet_cli.cli import options
from magnet_cli.cli.console import Console
from magnet_cli.cli.options import AsJson, CacheDir, ModelDir, Offline, Quiet, download_first, human, licence_note
from magnet_cli.errors import MagnetError, ModelError, UsageError
from magnet_cli.hub.library import BundleInfo, Store, is_bundle
from magnet_cli.hub.registry import BUNDLED, MODELS, RESCORERS, ModelSpec, RescorerSpec, musicgen_name
from magnet_cli.options.runtime import PlacesConfig
from magnet_cli.options.sampling_overrides import Overrides

app = typer.Typer(
    name="models",
    help="List, download, inspect, check, convert and remove models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

MUSICGEN_USES = ("to generate", "to rescore", "to begin hybrids")
DTYPES = ("float16", "bfloat16", "float32")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A model's name, as magnet models list shows it.")]


@app.command("list")
def list_models(as_json: AsJson = False, model_dir: ModelDir = None) -> None:
    """List the released models, and the bundles on this machine."""
    console = Console()
    with console.reporting():
        store = Store.at(model_dir)
        records = list(described(console, store))
        if as_json:
            for record in records:
                console.result(record)
            return
        for line in table([list_row(record) for record in records]):
            console.result(line)


@app.command()
def show(name: Name, as_json: AsJson = False, model_dir: ModelDir = None) -> None:
    """Show everything known about a model."""
    console = Console()
    with console.reporting():
        record = describe(name, Store.at(model_dir))
        if as_json:
            console.result(record)
            return
        for key, value in flatten(record):
            console.result(f"{key:24} {value}")


@app.command()
def download(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Names of models, or Hub ids.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All six released MAGNeTs.")] = False,
    delete_originals: Annotated[
        bool, typer.Option("--delete-originals", help="Delete what was downloaded once it is converted.")
    ] = False,
    quiet: Quiet = False,
    model_dir: ModelDir = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
) -> None:
    """Download models with all they need, and convert them once into bundles that load at once.

    Prints the folder of each bundle. Running it again goes on where it stopped, and mends what is damaged.
    """
    console = Console(quiet=quiet)
    with console.reporting():
        wanted = [*MODELS] if everything else names or []
        if not wanted:
            raise UsageError("there is nothing to download", "Name a model, or give --all")
        places = PlacesConfig(model_dir, cache_dir, offline)
        for name in wanted:
            console.result(str(fetch(name, places, console, delete_originals=delete_originals)))


def fetch(name: str, places: PlacesConfig, console: Console, *, delete_originals: bool) -> Path:
    """Bring one model here, telling what it costs; returns the folder of its bundle, of a MusicGen as it came."""
    from magnet_cli.hub.locate import obtain, store_name

    musicgen = musicgen_name(name)
    if musicgen is not None:
        from magnet_cli.hub.cache import RESCORER
        from magnet_cli.hub.download import Access

        with console.transfers(human) as transfers:
            access = Access(places.cache_dir, places.offline, transfers.report)
            folder = obtain(RESCORERS[musicgen].repository, RESCORER, access, model=musicgen)
        console.message(f"{musicgen} ({licence_note(RESCORERS[musicgen].licence)}) is ready")
        return folder
    if store_name(name) is None:
        raise UsageError(f"{name!r} is no model of the Hub", f"Choose one of {', '.join(MODELS)}, or a Hub id")
    with console.transfers(human) as transfers:
        download_first(name, places, transfers.report)
        with console.busy(f"checking {name}"):
            from magnet_cli.checkpoints.open import mend, open_model

            for problem in mend(name, places):
                console.warning(f"{name}: {problem}; it is made again")
        model = open_model(name, places, on_download=transfers.report)
    console.message(f"{name} ({licence_note(model.origin.licence)}) is ready")
    if delete_originals:
        for storage in transfers.storages:
            shutil.rmtree(storage, ignore_errors=True)
            console.message(f"deleted {storage}")
    return model.decoder.path.parent


@app.command()
def path(name: Name, model_dir: ModelDir = None) -> None:
    """Print the folder of a model's bundle."""
    console = Console()
    with console.reporting():
        console.result(str(require(name, Store.at(model_dir)).folder))


@app.command()
def verify(name: Name, quiet: Quiet = False, model_dir: ModelDir = None) -> None:
    """Check every byte of a bundle against the hashes written with it."""
    console = Console(quiet=quiet)
    with console.reporting():
        info = require(name, Store.at(model_dir))
        with console.busy(f"reading {human(info.size)}"):
            problems = info.problems()
        if problems:
            raise ModelError(
                f"{info.folder} is damaged: {'; '.join(problems)}", "Run magnet models download, or convert it again"
            )
        console.message(f"{name}: {len(info.files)} files, {human(info.size)}, all as they were written")


@app.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    quiet: Quiet = False,
    model_dir: ModelDir = None,
) -> None:
    """Delete a model's bundle from this machine."""
    console = Console(quiet=quiet)
    with console.reporting():
        store = Store.at(model_dir)
        folder = store.folder(name)
        if not yes and folder.is_dir():
            typer.confirm(f"Delete {folder}?", abort=True, err=True)
        size = store.remove(name)
        console.message(f"removed {folder}, {human(size)}")


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A model's name, a Hub id, or a folder.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write the bundle to.")],
    dtype: Annotated[
        str | None, typer.Option(metavar="|".join(DTYPES), help="Of the decoder's weights. [default: as stored]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing bundle.")] = False,
    quiet: Quiet = False,
    model_dir: ModelDir = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
) -> None:
    """Convert a checkpoint in the released format into a bundle, which loads faster and needs no pickle."""
    console = Console(quiet=quiet)
    with console.reporting():
        if dtype is not None and dtype not in DTYPES:
            raise UsageError(f"unknown dtype {dtype!r}", f"Give one of {', '.join(DTYPES)}")
        with console.busy(f"converting {source}"):
            import torch

            from magnet_cli.checkpoints.open import convert as convert_model

            wanted = getattr(torch, dtype) if dtype else None
            convert_model(source, target, PlacesConfig(model_dir, cache_dir, offline), dtype=wanted, overwrite=force)
        info = BundleInfo.read(target)
        console.message(f"{target}: {len(info.files)} files, {human(info.size)}")
        console.result(str(target))


@app.command()
def export(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A model's name, a Hub id, or a folder.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write the checkpoint to.")],
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing folder.")] = False,
    quiet: Quiet = False,
    model_dir: ModelDir = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
) -> None:
    """Write a model, such as a trained one, in the released format, which audiocraft loads, too."""
    console = Console(quiet=quiet)
    with console.reporting():
        with console.busy(f"exporting {source}"):
            from magnet_cli.checkpoints.export import export as export_model
            from magnet_cli.checkpoints.open import open_model

            model = open_model(source, PlacesConfig(model_dir, cache_dir, offline))
            export_model(model, target, overwrite=force)
        console.result(str(target))


@app.command()
def defaults(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="A model's name, or the folder of a bundle.")],
    preset: options.PresetName = None,
    steps: options.Steps = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    guidance: options.Guidance = None,
    min_guidance: options.MinGuidance = None,
    spans: options.SpansName = None,
    span_score: options.SpanScoreName = None,
    no_anneal: options.NoAnneal = False,
    rescore_weight: options.RescoreWeight = None,
    reset: Annotated[bool, typer.Option("--reset", help="Back to what models of its kind have.")] = False,
    model_dir: options.ModelDir = None,
) -> None:
    """Show how a bundle is sampled unless told otherwise; with options: write that into the bundle."""
    console = Console()
    with console.reporting():
        overrides = options.chosen(Overrides, context)
        changed = overrides != Overrides()
        if reset and changed:
            raise UsageError("--reset takes no other options", "Reset first, then set")
        folder = Path(name) if is_bundle(Path(name)) else require(name, Store.at(model_dir)).folder
        from magnet_cli.checkpoints.bundle import read_bundle, set_sampling

        if reset or changed:
            set_sampling(folder, None if reset else overrides.apply(read_bundle(folder).sampling))
        for key, value in flatten(asdict(read_bundle(folder).sampling)):
            console.result(f"{key:24} {value}")


# -- what is known ----------------------------------------------------------------------------------------------------


def known_names(store: Store) -> list[str]:
    """Names of the released MAGNeTs and MusicGens, and of the bundles in the store beyond them, damaged or not."""
    here = [folder.name for folder in store.folders()]
    bundled = [BUNDLED] if store.find(BUNDLED) else []
    return [*MODELS, *RESCORERS, *bundled, *(name for name in here if name not in MODELS)]


def described(console: Console, store: Store) -> Iterator[dict[str, Any]]:
    """Everything known about every model; a bundle that cannot be read is a warning, and not here."""
    for name in known_names(store):
        try:
            yield describe(name, store)
        except MagnetError as error:
            console.warning(str(error))
            if name in MODELS:
                yield {"name": name, **from_spec(MODELS[name]), **from_bundle(None)}


def require(name: str, store: Store) -> BundleInfo:
    """The bundle of a model, which must be here."""
    info = store.find(name)
    if info is None:
        raise UsageError(f"{name} has no bundle in {store.root}", "See magnet models list")
    return info


def describe(name: str, store: Store) -> dict[str, Any]:
    """Everything known about a model, released or here."""
    musicgen = musicgen_name(name)
    if musicgen is not None:
        return from_musicgen(RESCORERS[musicgen])
    spec = MODELS.get(name)
    info = store.find(name)
    if spec is None and info is None:
        raise UsageError(f"unknown model {name!r}", "See magnet models list")
    return {"name": name, **(from_spec(spec) if spec else {}), **from_bundle(info)}


def from_spec(spec: ModelSpec) -> dict[str, Any]:
    """What is known of a released model before it is here."""
    return {
        "repository": spec.repository,
        "task": spec.task,
        "seconds": spec.seconds,
        "parameters": spec.parameters,
        "download_bytes": spec.download_bytes,
        "sample_rate": spec.sample_rate,
        "text_encoder": spec.text_encoder,
        "licence": spec.licence,
        "commercial_use": False,
        "sampling": asdict(spec.sampling),
    }


def from_musicgen(spec: RescorerSpec) -> dict[str, Any]:
    """What is known of a MusicGen, which stays in the Hub cache as it came."""
    from magnet_cli.hub.cache import RESCORER, cached

    folder = cached(spec.repository, RESCORER)
    here = {"here": False} if folder is None else {"here": True, "folder": str(folder), "revision": folder.name}
    return {**asdict(spec), "use": MUSICGEN_USES, "commercial_use": False, **here}


def from_bundle(info: BundleInfo | None) -> dict[str, Any]:
    """What a bundle tells of itself."""
    if info is None:
        return {"here": False}
    config = info.config
    return {
        "here": True,
        "folder": str(info.folder),
        "bytes": info.size,
        "task": config["task"],
        "seconds": config["decoder"]["clip_seconds"],
        "sample_rate": config["codec"]["sample_rate"],
        "text_encoder": config["text"]["name"],
        "licence": config["licence"],
        "revision": config["source"]["revision"],
        **({"sampling": config["sampling"]} if config.get("sampling") else {}),
        "decoder": config["decoder"],
        "codec": config["codec"],
        "files": {name: {"bytes": size, "sha256": digest} for name, (size, digest) in info.files.items()},
    }


# -- words ------------------------------------------------------------------------------------------------------------


def list_row(record: dict[str, Any]) -> tuple[str, ...]:
    """A line of the list."""
    parameters = record.get("parameters")
    disk = human(record["bytes"]) if "bytes" in record else ""
    if not disk and "download_bytes" in record:
        disk = f"about {human(record['download_bytes'])}"
    return (
        record["name"],
        record["task"],
        f"{record['seconds']:g} s",
        f"{parameters / 1e6:.0f}M" if parameters else "",
        disk,
        "here" if record["here"] else "",
        record["licence"],
    )


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines with aligned columns, under a heading."""
    lines = [("NAME", "MAKES", "CLIP", "SIZE", "DISK", "", "LICENCE"), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def flatten(record: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested keys as dotted ones."""
    flat: list[tuple[str, Any]] = []
    for key, value in record.items():
        if isinstance(value, dict):
            flat += flatten(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)):
            flat.append((f"{prefix}{key}", ",".join(map(str, value))))
        else:
            flat.append((f"{prefix}{key}", value))
    return flat
