"""`magnet batch`: a file of prompts in, a folder of audio files out, however often it is interrupted."""

from __future__ import annotations

from typing import Annotated

import typer

from magnet_cli.cli import options
from magnet_cli.cli.console import Console
from magnet_cli.cli.options import chosen, given
from magnet_cli.cli.run_jobs import helper_names
from magnet_cli.hub.registry import DEFAULT_BEGINNER, DEFAULT_MODEL
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling_overrides import Overrides


def batch(
    context: typer.Context,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Prompts: .txt (one a line, # comments), .csv, .jsonl, or - for standard input."
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="A folder, or a template with {index} {slug} {seed} {model}."
        ),
    ],
    format: Annotated[
        str | None, typer.Option("--format", metavar="txt|csv|jsonl", help="What FILE is. [default: its extension]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, and make nothing.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Skip what the folder holds already, or make all of it again.")
    ] = True,
    mix: Annotated[bool, typer.Option("--mix", help="Add to a folder that holds another batch.")] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast/--keep-going", help="Stop at the first clip that fails, or go on without it.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(help="Clips to decode together. [default: by memory]", show_default=False)
    ] = None,
    model: options.Model = DEFAULT_MODEL,
    seed: options.Seed = None,
    variations: options.Variations = 1,
    preset: options.PresetName = None,
    steps: options.Steps = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    greedy: options.Greedy = False,
    guidance: options.Guidance = None,
    min_guidance: options.MinGuidance = None,
    spans: options.SpansName = None,
    span_score: options.SpanScoreName = None,
    no_anneal: options.NoAnneal = False,
    duration: options.Duration = None,
    overlap: options.Overlap = None,
    continue_from: options.Continue = None,
    keep: options.Keep = None,
    join: options.Join = False,
    inpaint: options.Inpaint = None,
    regions: options.Regions = None,
    vary: options.Vary = None,
    blend: options.Blend = False,
    loop: options.LoopFlag = False,
    bpm: options.Bpm = None,
    bars: options.Bars = None,
    hybrid: options.Hybrid = None,
    hybrid_model: options.HybridModel = DEFAULT_BEGINNER,
    negative: options.Negative = None,
    unconditional: options.Unconditional = False,
    rescorer: options.RescorerName = None,
    rescore_weight: options.RescoreWeight = None,
    normalize: options.NormalizeName = OutputConfig.normalize,
    lufs: options.Lufs = OutputConfig.lufs,
    true_peak: options.TruePeak = OutputConfig.true_peak,
    subtype: options.SubtypeName = OutputConfig.subtype,
    save_codes: options.SaveCodes = False,
    no_metadata: options.NoMetadata = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite files that are in the way.")] = False,
    device: options.Device = RuntimeConfig.device,
    dtype: options.DType = RuntimeConfig.dtype,
    compile: options.Compile = False,
    model_dir: options.ModelDir = None,
    cache_dir: options.CacheDir = None,
    offline: options.Offline = False,
    json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Generate a clip for every row of a file.

    Every clip is written as soon as it is done. The same command goes on where it stopped.

    Columns of .csv and .jsonl: prompt, and any of seed, variations, output, and the options for sampling and edits, by
    their names.

    Example: magnet batch prompts.txt -o clips/
    """
    console = Console(quiet=quiet, verbose=verbose)
    with console.reporting():
        from magnet_cli.cli.batch_run import Command, run, show
        from magnet_cli.hub.locate import resolve
        from magnet_cli.jobs.plan import Request

        wanted = resolve(model, chosen(PlacesConfig, context))
        request = Request(
            file=file,
            output=output,
            model=wanted.file_name,
            seed=seed,
            variations=variations,
            overrides=chosen(Overrides, context),
            edits=given(EditConfig, context),
            helpers=helper_names(rescorer, hybrid_model),
            finish=chosen(OutputConfig, context),
            codes=save_codes,
            metadata=not no_metadata,
            resume=resume,
            mix=mix,
            force=force,
        )
        command = Command(request, wanted, format, chosen(RuntimeConfig, context), fail_fast, json)
        if dry_run:
            show(console, command)
        else:
            run(console, command)
