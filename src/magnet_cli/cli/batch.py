"""`magnet batch`: generates a clip for every row of a file, and resumes after any interruption."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from magnet_cli.hub.registry import DEFAULT_MODEL
from magnet_cli.options.candidates import CandidateOptions
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling_overrides import Overrides
from magnet_cli.terminal import options
from magnet_cli.terminal.options import ClipOptions, FileOptions, HelperOptions, Speech
from magnet_cli.terminal.signature import given_of


def batch(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="File of prompts: .txt with one prompt on each line and # before comments, .csv, .tsv, .jsonl, or - "
            "for standard input.",
        ),
    ],
    *,
    model: options.Model = DEFAULT_MODEL,
    clips: ClipOptions,
    candidates: CandidateOptions,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder to write, or template of a folder and a file name with {index}, {slug}, {seed}, {model} and, "
            "for loops with a tempo, {bpm} and {bars}.",
            rich_help_panel="Files",
        ),
    ],
    files: FileOptions,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="txt|csv|tsv|jsonl",
            help="Format of FILE.",
            show_default="by its extension",
            rich_help_panel="Batch",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the clips that would be generated, and estimates of time and disk space. Generate nothing.",
            rich_help_panel="Batch",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Skip the clips that the folder already holds, or regenerate them.",
            rich_help_panel="Batch",
        ),
    ] = True,
    mix: Annotated[
        bool, typer.Option("--mix", help="Add to a folder that holds another batch.", rich_help_panel="Batch")
    ] = False,
    same_seed: Annotated[
        bool,
        typer.Option(
            "--same-seed",
            help="Use --seed itself for every row that has no seed of its own. Otherwise, each prompt gets a seed of "
            "its own, derived from --seed and its text.",
            rich_help_panel="Clips",
        ),
    ] = False,
    failed: Annotated[
        bool,
        typer.Option(
            "--failed",
            help="Generate only the clips whose latest attempt failed. With --dry-run, list them with their errors.",
            rich_help_panel="Batch",
        ),
    ] = False,
    move_stale: Annotated[
        bool,
        typer.Option(
            "--move-stale",
            help="Move clips of rows that were changed or removed into the subfolder stale. Otherwise, they stay.",
            rich_help_panel="Batch",
        ),
    ] = False,
    fail_fast: Annotated[
        bool,
        typer.Option(
            "--fail-fast/--keep-going",
            help="Stop at the first clip that fails, or continue with the next one.",
            rich_help_panel="Batch",
        ),
    ] = False,
    overrides: Overrides,
    edits: Annotated[Mapping[str, Any], given_of(EditConfig)],
    helpers: HelperOptions,
    finish: OutputConfig,
    runtime: RuntimeConfig,
    places: PlacesConfig,
    speech: Speech,
) -> None:
    """Generate a clip for every row of a file.

    Every clip is written as soon as it is finished. A batch that was stopped resumes with the same command.

    The columns of .csv, .tsv and .jsonl files are prompt and any of seed, variations, output, and the options of
    sampling, length and editing by their names. Other columns are copied to results.csv.

    Example: magnet batch prompts.txt -o clips/
    """
    console = speech.console
    with console.reporting():
        from magnet_cli.cli.batch_run import Command, run, show
        from magnet_cli.hub.locate import resolve
        from magnet_cli.jobs.plan import Request

        wanted = resolve(model, places)
        request = Request(
            file=file,
            output=output,
            model=wanted.file_name,
            seed=clips.seed,
            variations=clips.variations,
            overrides=overrides,
            edits=edits,
            helpers=helpers.names(hybrid=True),  # a row may ask for one
            finish=finish,
            codes=files.save_codes,
            metadata=not files.no_metadata,
            resume=resume,
            mix=mix,
            force=files.force,
            same_seed=same_seed,
            candidates=candidates,
        )
        command = Command(request, wanted, format, runtime, fail_fast, speech.json, failed, move_stale)
        if dry_run:
            show(console, command)
        else:
            run(console, command)
