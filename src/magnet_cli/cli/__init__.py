"""The `magnet` command: one file for each subcommand."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer._click.exceptions import ClickException
from typer.main import get_command

from magnet_cli._version import __version__
from magnet_cli.cli.about import about
from magnet_cli.cli.again import again
from magnet_cli.cli.archive import export_archive, import_archive
from magnet_cli.cli.batch import batch
from magnet_cli.cli.bench import bench
from magnet_cli.cli.codec import decode, encode
from magnet_cli.cli.doctor import doctor
from magnet_cli.cli.evaluate import evaluate
from magnet_cli.cli.generate import generate
from magnet_cli.cli.info import info, replay
from magnet_cli.cli.models import app as models
from magnet_cli.cli.play import play
from magnet_cli.cli.stream import stream
from magnet_cli.cli.train import app as train
from magnet_cli.errors import INTERRUPTED, UsageError, did_you_mean
from magnet_cli.terminal.config_file import Section, config_path, read_defaults
from magnet_cli.terminal.console import Console, writing_results
from magnet_cli.terminal.help import HelpGroup
from magnet_cli.terminal.panels import TIED
from magnet_cli.terminal.signature import command
from magnet_cli.terminal.stopping import STOPPING, Stopping
from magnet_cli.terminal.streams import open_closed_streams

app = typer.Typer(
    name="magnet",
    cls=HelpGroup,
    help="""Text to music and sound effects with Meta's MAGNeT models.

    Example: magnet generate "disco beat, 125 bpm" -o disco.wav

    Example: magnet batch prompts.txt -o clips/

    Example: magnet help generate
    """,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # our own help takes 0.1 s; rich, which draws typer's panels, would take three times that
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "MAGNET"},
    epilog="Exit codes: "
    + ", ".join(
        code.replace(" ", TIED)
        for code in (
            *("0 done", "2 usage", "3 model", "4 Hub", "5 device or memory", "6 numerics", "7 output"),
            *("8 some of a batch failed", "9 a replay differs", "130 interrupted"),
        )
    )
    + ".",
)


def _show_version(context: typer.Context, wanted: bool) -> None:
    if wanted:
        console = Console()
        with console.reporting():
            console.result(about() if context.params["as_json"] else f"magnet {__version__}")
        raise typer.Exit


@app.callback()
def magnet(
    context: typer.Context,
    version: Annotated[
        bool,
        # Not eager: then --json, which is, has been read before, in whichever order they stand.
        typer.Option("--version", "-V", callback=_show_version, expose_value=False, help="Show the version and exit."),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            is_eager=True,
            help="With --version: show the versions of magnet, Python and the libraries, the platform and the usable "
            "devices as JSON.",
        ),
    ] = False,
) -> None:
    if as_json:
        with Console().reporting():
            raise UsageError("--json before a command goes with --version only", "Give it after the command")
    context.default_map = read_defaults(config_path(), sections(context.command).below)


def sections(command: Any) -> Section:
    """What the configuration file may set for a command: options such as `true-peak`, and the commands below it."""
    options = {
        option[2:]: str(parameter.name)
        for parameter in command.params
        if not parameter.is_eager and parameter.expose_value
        for option in parameter.opts
        if option.startswith("--")
    }
    return Section(options, {name: sections(one) for name, one in getattr(command, "commands", {}).items()})


def show_help(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND...", help="Command to explain, such as generate, or models download."),
    ] = None,
) -> None:
    """Show the help of magnet, or of a command.

    Example: magnet help generate
    """
    one: Any = context.find_root()
    with Console().reporting():
        for name in names or []:
            below: Mapping[str, Any] = getattr(one.command, "commands", {})
            if name not in below:
                raise UsageError(
                    f"there is no command {name!r}", did_you_mean(name, below, f"{one.command_path} --help lists all")
                )
            one = typer.Context(below[name], parent=one, info_name=name, **below[name].context_settings)
    with writing_results():
        typer.echo(one.get_help())


# What --help shows of the commands with many options.
EVERYDAY = {
    generate: (
        *("--model", "--seed", "--variations", "--output", "--force", "--play"),
        *("--preset", "--duration"),
        *("--sweep", "--loop", "--bpm", "--device", "--json", "--quiet"),
    ),
    again: (
        *("--prompt", "--model", "--seed", "--variations", "--sweep", "--output", "--force"),
        *("--guidance", "--duration", "--device", "--json", "--quiet"),
    ),
    replay: ("--check", "--output", "--force", "--model", "--download", "--device", "--dtype", "--json", "--quiet"),
    bench: ("--model", "--random-weights", "--batch", "--runs", "--preset", "--device", "--dtype", "--json", "--quiet"),
    stream: (
        *("--model", "--seed", "--output", "--format", "--minutes", "--duration", "--replay", "--force"),
        *("--preset", "--ahead", "--device", "--quiet"),
    ),
    batch: (
        *("--model", "--seed", "--variations", "--output", "--force", "--dry-run", "--failed"),
        *("--preset", "--duration", "--device", "--json", "--quiet"),
    ),
}
# The sections of `magnet --help`, in their order.
GENERATING, CLIPS, MODELS, HELP = "Generate", "Work with clips", "Work with models", "Help"
for title, functions in (
    (GENERATING, (generate, batch, again, stream)),
    (CLIPS, (play, info, replay, evaluate)),
    (MODELS, (encode, decode, bench)),
    (HELP, (doctor,)),
):
    for function in functions:
        command(app, everyday=EVERYDAY.get(function, ()), panel=title)(function)
command(app, "help", panel=HELP)(show_help)
command(models)(export_archive)
command(models)(import_archive)
app.add_typer(models, rich_help_panel=MODELS)
app.add_typer(train, rich_help_panel=MODELS)


def run() -> int:
    """Run the command that the arguments ask for, and return its exit code. Afterwards Ctrl-C is ignored."""
    stopping, code = Stopping(), 1
    try:
        stopping.listen()
        code = invoke()
        stopping.end()
    except BaseException:
        stopping.end()
        if not stopping.raised:
            raise
    if stopping.raised and stopping.code is not None:
        code = stopping.code
        if code == INTERRUPTED:
            Console().error(stopping.farewell)
    return code


def invoke() -> int:
    """Run the command that the arguments ask for; its exit code. Raises KeyboardInterrupt, or what a mistake raises."""
    open_closed_streams()
    try:
        with Console().reporting():
            code = parse()
            with writing_results():
                if sys.stdout is not None:
                    sys.stdout.flush()
    except typer.Exit as done:
        code = done.exit_code
    return code


def parse() -> int:
    """Read the arguments and run the command."""
    try:
        code = get_command(app).main(prog_name="magnet", standalone_mode=False)
    except ClickException as error:
        context = getattr(error, "ctx", None)
        where = "magnet" if context is None else context.command_path
        text = error.format_message()
        Console().error(f"{text[:1].lower()}{text[1:].rstrip('.')}. See {where} --help.")
        return error.exit_code
    except typer.Abort:
        Console().essential("Aborted!")
        return 1
    except OSError as error:
        if error.filename is not None:
            raise
        with writing_results():  # it was standard output that failed, as of --help
            raise
    return code if isinstance(code, int) else 0


def main() -> None:
    """Run the command within another program, which keeps its own handlers of signals."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    try:
        code = run()
    finally:
        for number, handler in before.items():
            if handler is not signal.getsignal(number):
                signal.signal(number, handler)
    sys.exit(code)
