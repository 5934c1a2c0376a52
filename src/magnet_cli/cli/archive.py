"""`magnet models export-archive` and `import-archive`: one file that carries a model to a machine without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.cli.models import Name
from magnet_cli.errors import UsageError
from magnet_cli.hub.store import BundleInfo, Store
from magnet_cli.options.runtime import PlacesConfig
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.options import Quiet, human, licence_note
from magnet_cli.terminal.signature import only

if TYPE_CHECKING:
    from magnet_cli.hub.locate import ResolvedModel


def export_archive(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Archive to write, e.g. small.tar.")],
    *,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite an existing file.")] = False,
    quiet: Quiet = False,
    places: Annotated[PlacesConfig, only("model_dir")],
) -> None:
    """Write a model into one file, to carry it to a machine without a network.

    The file is an uncompressed tar archive of the model's bundle, with the SHA-256 of each file in it. magnet models
    import-archive unpacks it.

    Example: magnet models export-archive magnet-small-10secs small.tar
    """
    console = Console(quiet=quiet)
    with console.reporting():
        from magnet_cli.hub.archive import export_archive as write_archive
        from magnet_cli.hub.locate import resolve

        model = resolve(name, places)
        info = BundleInfo.read(bundle_of(model))
        with console.busy(f"writing {file}"):
            size = write_archive(info, model.name, file, overwrite=force)
        console.message(f"{file}: {model.name} ({licence_note(info.licence)}), {human(size)}")
        console.result(file)


def import_archive(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Archive that magnet models export-archive wrote.")],
    *,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace another bundle of the same name.")] = False,
    quiet: Quiet = False,
    places: Annotated[PlacesConfig, only("model_dir")],
) -> None:
    """Unpack a model that magnet models export-archive wrote.

    Compares every byte with the SHA-256 in the archive, and needs no network. Prints the folder of the bundle.

    Example: magnet models import-archive small.tar
    """
    console = Console(quiet=quiet)
    with console.reporting():
        from magnet_cli.hub.archive import import_archive as read_archive

        with console.busy(f"reading {file}"):
            imported = read_archive(file, Store.at(places.model_dir), overwrite=force)
        info = imported.info
        state = "is ready" if imported.new else "is here already, with the same content"
        console.message(f"{info.folder.name} ({licence_note(info.licence)}) {state}")
        console.result(info.folder)


def bundle_of(model: ResolvedModel) -> Path:
    """The folder of a model's bundle; UsageError with what to do instead where there is none."""
    if model.kind == "bundled":
        raise UsageError(f"{model.name} is a part of this package, on every machine", "Choose another model")
    if model.bundle is not None:
        return model.bundle
    if model.is_musicgen and model.repository is not None:
        from magnet_cli.hub.cache import storage_folder

        raise UsageError(
            f"{model.name} is a MusicGen, which stays in the Hub cache",
            f"Copy the folder {storage_folder(model.repository, model.places.cache_dir)} to the Hub cache there",
        )
    if model.kind == "hub":
        raise UsageError(f"{model.name} is not on this machine", f"First run magnet models download {model.given}")
    raise UsageError(f"{model.given} is not a bundle", "First run magnet models convert")
