"""`magnet models`: which models exist, which are on this machine, and how to get the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magnet_cli.errors import ModelError, UsageError
from magnet_cli.hub.registry import MODELS, ModelFacts, ModelSpec, RescorerSpec, registered
from magnet_cli.hub.store import BundleInfo, Store
from magnet_cli.options.runtime import PlacesConfig
from magnet_cli.options.sampling import SamplingConfig
from magnet_cli.options.sampling_overrides import Overrides
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.help import HelpGroup
from magnet_cli.terminal.options import AsJson, Log, Quiet, human, licence_note
from magnet_cli.terminal.panels import aligned
from magnet_cli.terminal.signature import command, only, without

if TYPE_CHECKING:
    from magnet_cli.hub.locate import ResolvedModel

app = typer.Typer(
    name="models",
    cls=HelpGroup,
    help="""List, download, inspect, convert and remove models.

    Example: magnet models list

    Example: magnet models download magnet-small-10secs
    """,
    rich_markup_mode=None,
)

MUSICGEN_USES = ("to generate", "to rescore", "to begin hybrids")
DTYPES = ("float16", "bfloat16", "float32")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a model, as magnet models list shows it.")]


@command(app, "list")
def list_models(*, as_json: AsJson = False, places: Annotated[PlacesConfig, without("offline")]) -> None:
    """List the released models and the bundles on this machine.

    Example: magnet models list
    """
    console = Console()
    with console.reporting():
        from magnet_cli.hub.locate import known_models

        records = [describe(model) for model in known_models(places)]
        if as_json:
            for record in records:
                console.result(record)
            return
        for line in table([*map(list_row, records), total_row(records)]):
            console.result(line)


@command(app)
def show(
    name: Name,
    *,
    words: Annotated[
        bool,
        typer.Option("--words", help="Print the words that the model knows, if its text encoder lists them."),
    ] = False,
    as_json: AsJson = False,
    places: Annotated[PlacesConfig, without("offline")],
) -> None:
    """Show everything that is known about a model.

    Example: magnet models show magnet-small-10secs

    Example: magnet models show mine --words
    """
    console = Console()
    with console.reporting():
        from magnet_cli.hub.locate import resolve

        model = resolve(name, places)
        if words:
            show_words(console, model, as_json=as_json)
            return
        record = describe(model)
        if as_json:
            console.result(record)
            return
        for key, value in flatten(record):
            console.result(f"{key:24} {value}")


def show_words(console: Console, model: ResolvedModel, *, as_json: bool) -> None:
    """Print the words that a model knows, one a line; a message if it lists none."""
    from magnet_cli.hub.folders import TEXT_FOLDER
    from magnet_cli.model.known_words import read_known_words, with_ranges

    known = None if model.bundle is None else read_known_words(model.bundle / TEXT_FOLDER)
    if as_json:
        console.result({"name": model.name, "known_words": known})
    elif known is None:
        is_known = model.bundle is not None or registered(model.repository or "") is not None
        reason = "its text encoder has no such list" if is_known else "it is not on this machine"
        console.message(f"{model.name} lists no words: {reason}")
    for word in with_ranges(known or []) if not as_json else ():
        console.result(word)


@command(app)
def download(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME...",
            help="Names of models from magnet models list, or repositories on the Hugging Face Hub.",
            show_default=False,
        ),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Download all six released MAGNeT models.")] = False,
    delete_originals: Annotated[
        bool,
        typer.Option(
            "--delete-originals", help="Delete the downloaded files of a model after they have been converted."
        ),
    ] = False,
    quiet: Quiet = False,
    log_file: Log = None,
    places: PlacesConfig,
) -> None:
    """Download models and convert them into bundles.

    Downloads everything that a model needs. A bundle needs no network and loads at once. Prints the folder of each
    bundle. A download that was stopped resumes with the same command, which also repairs damaged bundles.

    Example: magnet models download magnet-small-10secs
    """
    console = Console(quiet=quiet, log=log_file)
    with console.reporting():
        from magnet_cli.hub.locate import resolve

        wanted = [*MODELS] if everything else names or []
        if not wanted:
            raise UsageError("there is nothing to download", "Name a model, or give --all")
        for name in wanted:
            console.result(fetch(resolve(name, places), console, delete_originals=delete_originals))


def fetch(model: ResolvedModel, console: Console, *, delete_originals: bool) -> Path:
    """Download one model, and report its size; returns the folder of its bundle, or of the files of a MusicGen."""
    from magnet_cli.hub.download import Access
    from magnet_cli.hub.locate import fetch_first, locate_model, resolve

    if model.repository is None:
        raise UsageError(
            f"{model.given!r} is not a model on the Hub", f"Choose one of {', '.join(MODELS)}, or a Hub id"
        )
    with console.transfers(human) as transfers:
        access = Access(model.places.cache_dir, model.places.offline, transfers.hear)
        if model.is_musicgen:
            source = locate_model(model, access)
            console.message(f"{model.name} ({licence_note(source.licence)}) is ready")
            return source.folder
        fetch_first(model, access)
        with console.busy(f"checking {model.given}"):
            from magnet_cli.checkpoints.open import mend, open_magnet

            for problem in mend(model):
                console.warning(f"{model.given}: {problem}; repairing it")
        opened = open_magnet(resolve(model.given, model.places), listener=transfers.hear)
    console.message(f"{model.given} ({licence_note(opened.origin.licence)}) is ready")
    if delete_originals:
        from magnet_cli.hub.cache import discard_snapshot

        for plan in transfers.fetched:
            discard_snapshot(plan.storage, plan.revision, [file.name for file in plan.files])
            console.message(f"deleted the downloaded files in {plan.storage}")
    return opened.folder


@command(app)
def path(name: Name, *, places: Annotated[PlacesConfig, only("model_dir")]) -> None:
    """Print the folder of a model's bundle.

    Example: magnet models path bundled
    """
    console = Console()
    with console.reporting():
        console.result(require(name, Store.at(places.model_dir)).folder)


@command(app)
def verify(name: Name, *, quiet: Quiet = False, places: Annotated[PlacesConfig, only("model_dir")]) -> None:
    """Compare every byte of a bundle with the hashes in it.

    Example: magnet models verify bundled
    """
    console = Console(quiet=quiet)
    with console.reporting():
        info = require(name, Store.at(places.model_dir))
        with console.busy(f"reading {human(info.size)}"):
            problems = info.problems()
        if problems:
            raise ModelError(
                f"{info.folder} is damaged: {'; '.join(problems)}", "Run magnet models download, or convert it again"
            )
        console.message(f"{name}: {len(info.files)} files, {human(info.size)}, all as they were written")


@command(app)
def remove(
    name: Name,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking for confirmation.")] = False,
    quiet: Quiet = False,
    places: Annotated[PlacesConfig, only("model_dir")],
) -> None:
    """Delete a model's bundle from this machine.

    Example: magnet models remove magnet-small-10secs
    """
    console = Console(quiet=quiet)
    with console.reporting():
        store = Store.at(places.model_dir)
        folder = store.removable(name)
        if not yes:
            console.confirm(f"Delete {folder}?")
        size = store.remove(name)
        console.message(f"removed {folder}, {human(size)}")


@command(app)
def prune(
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking for confirmation.")] = False,
    quiet: Quiet = False,
    places: Annotated[PlacesConfig, without("offline")],
) -> None:
    """Delete what earlier commands have left and no model needs.

    That is unfinished bundles of processes that have ended, and revisions of MAGNeT models in the Hub cache that a
    newer download has replaced. Nothing that other programs wrote is deleted.

    Example: magnet models prune
    """
    console = Console(quiet=quiet)
    with console.reporting():
        from magnet_cli.hub.leftovers import leftovers, remove_leftover

        found = leftovers(Store.at(places.model_dir).root, places.cache_dir)
        size = human(sum(one.size for one in found))
        if not found:
            console.message("there is nothing to delete")
            return
        for one in found:
            console.message(f"{one.what}, {human(one.size)}: {one.folder}")
        if not yes:
            console.confirm(f"Delete {'this' if len(found) == 1 else f'these {len(found)}'}, {size}?")
        for one in found:
            remove_leftover(one)
        console.message(f"deleted {size}")


@command(app)
def convert(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Name of a model, repository on the Hugging Face Hub, or folder.")
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write the bundle to.")],
    *,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(DTYPES),
            help="Precision in which the weights of the decoder are written.",
            show_default="as in the checkpoint",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing bundle.")] = False,
    quiet: Quiet = False,
    places: PlacesConfig,
) -> None:
    """Convert a checkpoint in the released format into a bundle.

    A bundle loads faster, and no pickle is read.

    Example: magnet models convert released/ mine
    """
    console = Console(quiet=quiet)
    with console.reporting():
        if dtype is not None and dtype not in DTYPES:
            raise UsageError(f"unknown dtype {dtype!r}", f"Give one of {', '.join(DTYPES)}")
        with console.busy(f"converting {source}"):
            import torch

            from magnet_cli.checkpoints.open import convert as convert_model

            wanted = getattr(torch, dtype) if dtype else None
            convert_model(source, target, places, dtype=wanted, overwrite=force)
        info = BundleInfo.read(target)
        console.message(f"{target}: {len(info.files)} files, {human(info.size)}")
        console.result(target)


@command(app)
def export(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Name of a model, repository on the Hugging Face Hub, or folder.")
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to write the checkpoint to.")],
    *,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an earlier export.")] = False,
    quiet: Quiet = False,
    places: PlacesConfig,
) -> None:
    """Write a model in the released format.

    Audiocraft loads this format, too, e.g. to use a model that magnet train has trained.

    Example: magnet models export bundled released/
    """
    console = Console(quiet=quiet)
    with console.reporting():
        from magnet_cli.hub.locate import resolve

        model = resolve(source, places)
        with console.busy(f"exporting {source}"):
            from magnet_cli.checkpoints.export import export as export_model
            from magnet_cli.checkpoints.open import check_written, open_magnet
            from magnet_cli.hub.folders import EXPORT

            check_written(model, target, EXPORT, overwrite=force)
            export_model(open_magnet(model), target, overwrite=force)
        console.result(target)


@command(app)
def defaults(
    name: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="Name of a model, or folder of a bundle.")],
    *,
    overrides: Annotated[Overrides, without("greedy")],
    reset: Annotated[
        bool, typer.Option("--reset", help="Restore the defaults that the bundle was written with.")
    ] = False,
    places: Annotated[PlacesConfig, only("model_dir")],
) -> None:
    """Show or set the default sampling options of a bundle.

    With options, sets them for this user, in the folder of models; the bundle itself stays as it is. Always prints the
    defaults.

    Example: magnet models defaults bundled --guidance 5

    Example: magnet models defaults bundled --reset
    """
    console = Console()
    with console.reporting():
        from magnet_cli.hub.locate import resolve

        changed = overrides != Overrides()
        if reset and changed:
            raise UsageError("--reset takes no other options", "Reset first, then set options")
        store = Store.at(places.model_dir)
        info = BundleInfo.read(resolve(name, places).bundle or require(name, store).folder)
        if reset:
            info.set_sampling(None)
        own = info.facts.sampling
        if changed and isinstance(own, SamplingConfig):
            info.set_sampling(overrides.apply(own))
        for key, value in flatten(asdict(info.facts.sampling)):
            console.result(f"{key:24} {value}")


# -- facts about models -----------------------------------------------------------------------------------------------


def require(name: str, store: Store) -> BundleInfo:
    """The bundle of a model; UsageError if it is not on this machine."""
    info = store.find(name)
    if info is None:
        raise UsageError(f"{name} has no bundle in {store.root}", "See magnet models list")
    return info


def describe(model: ResolvedModel) -> dict[str, Any]:
    """Everything known about a model, released or on this machine."""
    spec = registered(model.repository or "")
    if isinstance(spec, RescorerSpec):
        return from_musicgen(spec, model.folder)
    record: dict[str, Any] = {"name": model.name}
    if spec is not None:
        record |= from_spec(spec)
    elif model.repository is not None:
        record |= {"repository": model.repository}
    if model.bundle is not None and model.facts is not None:
        return record | from_bundle(BundleInfo.read(model.bundle), model.facts)
    here = {} if model.folder is None else {"folder": str(model.folder)}
    return {**record, "licence": model.licence, "here": model.folder is not None, **here}


def from_spec(spec: ModelSpec) -> dict[str, Any]:
    """What is known of a released model before its download."""
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


def from_musicgen(spec: RescorerSpec, folder: Path | None) -> dict[str, Any]:
    """What is known of a MusicGen, which stays in the Hub cache as it was downloaded."""
    here: dict[str, Any] = {"here": False}
    if folder is not None:
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        here = {"here": True, "folder": str(folder), "bytes": size, "revision": folder.name}
    return {**asdict(spec), "use": MUSICGEN_USES, "commercial_use": False, **here}


def from_bundle(info: BundleInfo, facts: ModelFacts) -> dict[str, Any]:
    """What a bundle's own files say of it."""
    config, own = info.config, info.own_sampling
    return {
        "here": True,
        "folder": str(info.folder),
        "bytes": info.size,
        "task": facts.task,
        "seconds": facts.seconds,
        "parameters": facts.parameters,
        "sample_rate": facts.sample_rate,
        "text_encoder": facts.text_encoder,
        "licence": facts.licence,
        "revision": (config.get("source") or {}).get("revision"),
        **({} if own is None else {"sampling": asdict(own)}),
        "decoder": config["decoder"],
        "codec": config["codec"],
        "files": {name: {"bytes": size, "sha256": digest} for name, (size, digest) in info.files.items()},
    }


# -- formatting -------------------------------------------------------------------------------------------------------


def list_row(record: dict[str, Any]) -> tuple[str, ...]:
    """A line of the list."""
    return (
        record["name"],
        record["task"],
        f"{record['seconds']:g} s",
        parameters_word(record["parameters"]),
        f"about {human(record['download_bytes'])}" if "download_bytes" in record else "-",
        human(record["bytes"]) if record["here"] else "-",
        record["licence"],
    )


def parameters_word(count: int) -> str:
    """A number of parameters with its unit: 419M, 1.84B."""
    return f"{count / 1e9:.3g}B" if count >= 1e9 else f"{count / 1e6:.0f}M"


def total_row(records: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The last line of the list: what the models on this machine take together."""
    sizes = [record["bytes"] for record in records if record["here"]]
    return ("total on this machine", "", "", "", "", human(sum(sizes)), "")


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines with aligned columns, under a heading."""
    return aligned([("NAME", "MAKES", "CLIP", "PARAMETERS", "DOWNLOAD", "ON DISK", "LICENCE"), *rows])


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
