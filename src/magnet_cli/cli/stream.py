"""`magnet stream`: music without an end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from magnet_cli.hub.registry import DEFAULT_MODEL
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling_overrides import Overrides
from magnet_cli.options.stream import StreamOptions
from magnet_cli.terminal import options
from magnet_cli.terminal.options import FileOptions, Speech
from magnet_cli.terminal.signature import only, option_of, without


def stream(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="Text that describes the music.", show_default=False)
    ] = None,
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar=options.MODEL_METAVAR,
            help=options.MODEL_HELP,
            show_default=f"{DEFAULT_MODEL}, or the model of the --replay record",
            rich_help_panel="Clips",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            help="Seed of the stream, 0 to 2^64 - 1.",
            show_default="drawn at random, and reported",
            rich_help_panel="Clips",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder to write files of --minutes into, or - for standard output.",
            show_default="none: the music is played",
            rich_help_panel="Files",
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            "--record",
            metavar="FILE.json",
            help="File for the record with which --replay plays the stream again.",
            show_default="a new file in the folder, or in the current one",
            rich_help_panel="Files",
        ),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            "--replay",
            metavar="FILE.json",
            help="Play the stream of a record again, with its prompts, steps, seed and length.",
            rich_help_panel="Clips",
        ),
    ] = None,
    files: Annotated[FileOptions, only("force")],
    wanted: StreamOptions,
    live: Annotated[
        bool | None,
        typer.Option(
            "--live/--no-live",
            help="Lower the number of decoding steps when the music would otherwise break off. --no-live: never lower "
            "it.",
            show_default="live, but not for files",
            rich_help_panel="Stream",
        ),
    ] = None,
    overrides: Overrides,
    negative: Annotated[str | None, option_of(EditConfig, "negative")] = None,
    finish: Annotated[OutputConfig, only("lufs", "true_peak")],
    runtime: Annotated[RuntimeConfig, without("batch_size")],
    places: PlacesConfig,
    speech: Annotated[Speech, without("json")],
) -> None:
    """Play music without an end.

    The music is generated window by window, ahead of what is heard. A line on standard input is the new prompt from the
    next window on. Ctrl-C ends the stream and writes its record.

    Example: magnet stream "calm piano" --model bundled

    Example: magnet stream "techno" -o - --format raw | ffmpeg -f s16le -ar 32000 -ac 1 -i - stream.mp3
    """
    console = speech.console
    with console.reporting():
        from magnet_cli.cli.stream_run import StreamCommand, run

        run(
            console,
            StreamCommand(
                prompt=prompt,
                model=model,
                seed=seed,
                output=output,
                record=record,
                replay=replay,
                force=files.force,
                wanted=wanted,
                live=live,
                overrides=overrides,
                negative=negative,
                finish=finish,
                runtime=runtime,
                places=places,
            ),
        )
