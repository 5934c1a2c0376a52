"""`magnet generate`: prompts in, audio files out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from magnet_cli.cli.new_clips import Order, SweepOption, make_new_clips
from magnet_cli.errors import UsageError
from magnet_cli.hub.registry import BUNDLED, DEFAULT_MODEL
from magnet_cli.jobs.sweep import combinations
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import check_prompt
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling_overrides import Overrides
from magnet_cli.terminal import options
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.options import ClipOptions, FileOptions, HelperOptions, Speech
from magnet_cli.terminal.signature import without


def generate(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT...",
            help="Text that describes the sound. - reads the text from standard input.",
            show_default=False,
        ),
    ] = None,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar=options.MODEL_METAVAR,
            help=options.MODEL_HELP,
            show_default=f"{DEFAULT_MODEL}, or {BUNDLED} where that is not here and cannot be downloaded",
            rich_help_panel="Clips",
        ),
    ] = None,
    clips: ClipOptions,
    sweep: SweepOption = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="File to write (.wav, .flac, .ogg, .mp3), folder, or template with {index}, {slug}, {seed}, {model} "
            "and, for loops with --bpm, {bpm} and {bars}.",
            show_default="a new .wav file in the current folder",
            rich_help_panel="Files",
        ),
    ] = None,
    files: FileOptions,
    overrides: Overrides,
    edit: EditConfig,
    helpers: HelperOptions,
    finish: OutputConfig,
    runtime: Annotated[RuntimeConfig, without("batch_size")],
    places: PlacesConfig,
    speech: Speech,
) -> None:
    """Generate audio from text.

    Prints the path of each file it writes.

    Example: magnet generate "disco beat" -o out.wav

    Example: magnet generate "rain on a roof" "door bell" -n 4 -o sounds/ --model audio
    """
    console = Console(quiet=speech.quiet, verbose=speech.verbose)
    with console.reporting():
        from magnet_cli.hub.locate import resolve

        order = Order(
            texts=read_prompts(prompts or [], unconditional=edit.unconditional),
            clips=clips,
            model=resolve(model or DEFAULT_MODEL, places),
            helpers=helpers.names(hybrid=edit.hybrid is not None),
            overrides=overrides,
            edit=edit,
            combinations=combinations(sweep or []),
            finish=finish,
            output=output,
            files=files,
            fallback=model is None,
        )
        make_new_clips(console, order, runtime, speech)


def read_prompts(prompts: Sequence[str], *, unconditional: bool) -> list[str]:
    """Check the prompts, and read the one that is given as `-` from standard input. None: one empty one."""
    if unconditional and not prompts:
        return [""]
    if not prompts:
        raise UsageError("there is no prompt", 'Describe the sound, e.g. magnet generate "disco beat"')
    if prompts.count("-") > 1:
        raise UsageError("standard input is named twice", "Give - once")
    texts = [_read_standard_input() if prompt == "-" else prompt for prompt in prompts]
    for text in texts:
        check_prompt(text)
    return texts


def _read_standard_input() -> str:
    if sys.stdin is None:
        raise UsageError("standard input is closed", "Pipe the prompt in, or give it as an argument")
    try:
        return sys.stdin.read().strip()
    except UnicodeDecodeError:
        raise UsageError(f"standard input is not valid {sys.stdin.encoding}", "Convert the text first") from None
