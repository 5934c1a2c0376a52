"""The `magnet` command: one file for each subcommand."""

from __future__ import annotations

from typing import Annotated

import typer

from magnet_cli import __version__
from magnet_cli.cli.generate import generate

app = typer.Typer(
    name="magnet",
    help="Text to music and sound effects with Meta's MAGNeT models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help in 0.1 s; typer's panels would take three times that
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 usage, 3 model, 4 Hub, 5 device or memory, 6 numerics, 7 output, 130 interrupted.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"magnet {__version__}")
        raise typer.Exit


@app.callback()
def magnet(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Text to music and sound effects with Meta's MAGNeT models."""


app.command()(generate)


def main() -> None:
    """Entry point of the `magnet` command."""
    app()
