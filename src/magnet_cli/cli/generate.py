"""`magnet generate`: prompts in, audio files out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.audio.formats import AUDIO_EXTENSIONS
from magnet_cli.cli.run_jobs import (
    describe_sampling,
    load,
    make,
    open_parts,
    resolve_helpers,
    result,
)
from magnet_cli.errors import HubError, UsageError
from magnet_cli.hub.registry import BUNDLED, DEFAULT_MODEL
from magnet_cli.jobs.naming import ClipName, plan_paths
from magnet_cli.jobs.targets import Target
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import Job, check_prompt, plan
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling_overrides import Overrides, apply_all
from magnet_cli.pipeline.rules import ModelGroup, loop_bars, usual_sampling
from magnet_cli.terminal import options
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.options import ClipOptions, FileOptions, HelperOptions, Speech
from magnet_cli.terminal.signature import without

if TYPE_CHECKING:
    from magnet_cli.hub.locate import ResolvedModel


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
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="File to write (.wav, .flac or .ogg), folder, or template with {index}, {slug}, {seed}, {model} and, "
            "for loops with --bpm, {bpm} and {bars}.",
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
    """
    console = Console(quiet=speech.quiet, verbose=speech.verbose)
    with console.reporting():
        from magnet_cli.hub.locate import bundled_model, resolve
        from magnet_cli.pipeline.inputs import InputFiles

        names = helpers.names(hybrid=edit.hybrid is not None)
        wanted, helping, fallback = resolve(model or DEFAULT_MODEL, places), resolve_helpers(names, places), None
        texts = read_prompts(prompts or [], unconditional=edit.unconditional)
        draft = apply_all(overrides, usual_sampling(wanted))
        drafts = plan(texts, draft, seed=clips.seed, variations=clips.variations, edit=edit)
        inputs = InputFiles()
        ModelGroup(wanted, helping).checker(inputs)(drafts[0])
        if overrides.rescore_weight is not None and helpers.rescorer is None:
            console.warning("--rescore-weight counts for nothing without --rescorer")
        metadata = not files.no_metadata
        targets = plan_targets(output, drafts, wanted, codes=files.save_codes, metadata=metadata)
        from magnet_cli.jobs.targets import check_targets

        check_targets(targets, finish.subtype, overwrite=files.force)
        if clips.seed is None and speech.quiet and not speech.json:
            console.essential(f"seed {drafts[0].seed}")
        try:
            opened = open_parts(console, wanted, helping)
        except HubError as error:
            instead = bundled_model(places) if model is None else None
            if instead is None:
                raise
            console.essential(
                f"no {wanted.given}: {error.message}. {error.hint}. "
                f"This is the small {BUNDLED} model instead, no match for it."
            )
            wanted, fallback = instead, error.message
            targets = plan_targets(output, drafts, wanted, codes=files.save_codes, metadata=metadata)
            check_targets(targets, finish.subtype, overwrite=files.force)
            opened = open_parts(console, wanted, helping)
        sampling = apply_all(overrides, opened.source.facts.sampling)
        jobs = [replace(draft, sampling=sampling) for draft in drafts]
        opened.group.checker(inputs)(jobs[0])
        pipeline = load(console, opened, runtime, inputs)
        console.detail(f"sampling: {describe_sampling(sampling)}")

        from magnet_cli.jobs.manifest import Item
        from magnet_cli.jobs.writer import Production

        production = Production(
            pipeline, wanted.given, finish, overwrite=files.force, metadata=metadata, helpers=names, fallback=fallback
        )
        items = [Item(job, target) for job, target in zip(jobs, targets, strict=True)]
        for product in make(console, production, items):
            console.result(result(product, as_json=speech.json))


def plan_targets(
    output: str | None, jobs: Sequence[Job], model: ResolvedModel, *, codes: bool, metadata: bool
) -> list[Target]:
    """Files for every job."""
    items = [ClipName(job.prompt, job.seed, bpm=job.edit.bpm, bars=loop_bars(job.edit, model)) for job in jobs]
    folder, paths = plan_paths(output, items, model=model.file_name, extensions=AUDIO_EXTENSIONS)
    return [Target.beside(path, metadata=metadata, codes=codes, folder=folder) for path in paths]


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
