"""`magnet generate`: prompts in, audio files out."""

from __future__ import annotations

from typing import Annotated

import typer

from magnet_cli.cli.new_clips import Order, SweepOption, make_new_clips
from magnet_cli.cli.prompts import read_prompts
from magnet_cli.hub.registry import BUNDLED, DEFAULT_MODEL
from magnet_cli.jobs.sweep import combinations
from magnet_cli.options.candidates import CandidateOptions
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling_overrides import Overrides
from magnet_cli.terminal import options
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
            show_default=DEFAULT_MODEL,
            rich_help_panel="Clips",
        ),
    ] = None,
    clips: ClipOptions,
    sweep: SweepOption = None,
    candidates: CandidateOptions,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes",
            "-y",
            help="Ask nothing: take many prompts, and prompts that are names of files.",
            rich_help_panel="Clips",
        ),
    ] = False,
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
    fallback: Annotated[
        bool | None,
        typer.Option(
            "--fallback/--no-fallback",
            help=f"Use the small model {BUNDLED} if the default model is not on this machine and cannot be downloaded.",
            show_default="only on a terminal, where you see it",
            rich_help_panel="Model files",
        ),
    ] = None,
    speech: Speech,
) -> None:
    """Generate audio from text.

    Prints the path of each file it writes.

    Example: magnet generate "disco beat" -o out.wav

    Example: magnet generate "rain on a roof" "door bell" -n 4 -o sounds/ --model audio
    """
    console = speech.console
    with console.reporting():
        from magnet_cli.hub.locate import resolve

        order = Order(
            texts=read_prompts(console, prompts or [], unconditional=edit.unconditional, sure=yes),
            clips=clips,
            model=resolve(model or DEFAULT_MODEL, places),
            helpers=helpers.names(hybrid=edit.hybrid is not None),
            overrides=overrides,
            edit=edit,
            combinations=combinations(sweep or []),
            finish=finish,
            output=output,
            files=files,
            candidates=candidates,
            fallback=None if model is not None else console.is_watched if fallback is None else fallback,
        )
        make_new_clips(console, order, runtime, speech)
