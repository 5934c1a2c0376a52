"""`magnet generate`: prompts in, audio files out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer

from magnet_cli.audio.formats import AUDIO_EXTENSIONS
from magnet_cli.cli import options
from magnet_cli.cli.console import Console
from magnet_cli.cli.options import chosen
from magnet_cli.cli.run_jobs import (
    describe_sampling,
    draft_sampling,
    early_check,
    helper_names,
    load,
    make,
    open_parts,
    result,
    short_name,
)
from magnet_cli.errors import HubError, UsageError
from magnet_cli.hub.library import BUNDLED_FOLDER, is_bundle
from magnet_cli.hub.registry import BUNDLED, DEFAULT_BEGINNER, DEFAULT_MODEL
from magnet_cli.jobs.naming import Item as Name
from magnet_cli.jobs.naming import plan_paths
from magnet_cli.jobs.targets import Target
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import Job, check_prompt, plan
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling_overrides import Overrides, apply_all


def generate(
    context: typer.Context,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT...", help="What it should sound like; - reads standard input.", show_default=False
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="A .wav, .flac or .ogg file, a folder, or a template with {index} {slug} {seed} {model}. "
            "[default: a new file here]",
        ),
    ] = None,
    model: options.OptionalModel = None,
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
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite existing files.")] = False,
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
    """Generate audio from text.

    Prints the path of each file it writes.

    Example: magnet generate "disco beat" -o out.wav
    """
    console = Console(quiet=quiet, verbose=verbose)
    with console.reporting():
        overrides, finish = chosen(Overrides, context), chosen(OutputConfig, context)
        edit, places = chosen(EditConfig, context), chosen(PlacesConfig, context)
        runtime = chosen(RuntimeConfig, context)
        helpers = helper_names(rescorer, None if hybrid is None else hybrid_model)
        wanted, fallback = model or DEFAULT_MODEL, None
        texts = read_prompts(prompts or [], unconditional=unconditional)
        drafts = plan(texts, apply_all(overrides, draft_sampling(wanted)), seed=seed, variations=variations, edit=edit)
        early_check(wanted, helpers)(drafts[0])
        if rescore_weight is not None and rescorer is None:
            console.warning("--rescore-weight counts for nothing without --rescorer")
        targets = plan_targets(output, drafts, wanted, codes=save_codes, metadata=not no_metadata)
        from magnet_cli.jobs.targets import check_targets

        check_targets(targets, finish.subtype, overwrite=force)
        if seed is None and quiet and not json:
            console.essential(f"seed {drafts[0].seed}")
        try:
            opened = open_parts(console, wanted, helpers, places)
        except HubError as error:
            if model is not None or not is_bundle(BUNDLED_FOLDER):
                raise
            console.essential(
                f"no {wanted}: {error.message}. {error.hint}. "
                f"This is the small {BUNDLED} model instead, no match for it."
            )
            wanted, fallback = BUNDLED, error.message
            targets = plan_targets(output, drafts, wanted, codes=save_codes, metadata=not no_metadata)
            check_targets(targets, finish.subtype, overwrite=force)
            opened = open_parts(console, wanted, helpers, places)
        sampling = apply_all(overrides, opened.source.sampling)
        jobs = [replace(draft, sampling=sampling) for draft in drafts]
        opened.check()(jobs[0])
        pipeline = load(console, wanted, opened, runtime)
        console.detail(f"sampling: {describe_sampling(sampling)}")

        from magnet_cli.jobs.manifest import Item
        from magnet_cli.jobs.writer import Production

        metadata = not no_metadata
        production = Production(
            pipeline, wanted, finish, overwrite=force, metadata=metadata, helpers=helpers, fallback=fallback
        )
        items = [Item(job, target) for job, target in zip(jobs, targets, strict=True)]
        for product in make(console, production, items):
            console.result(result(product, as_json=json))


def plan_targets(output: str | None, jobs: Sequence[Job], model: str, *, codes: bool, metadata: bool) -> list[Target]:
    """Files for every job."""
    items = [Name(job.prompt, job.seed) for job in jobs]
    folder, paths = plan_paths(output, items, model=short_name(model), extensions=AUDIO_EXTENSIONS)
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
