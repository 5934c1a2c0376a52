"""`magnet generate`: prompts in, audio files out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer

from magnet_cli.cli import options
from magnet_cli.cli.making import describe_sampling, load, make, result, short_name
from magnet_cli.cli.options import chosen
from magnet_cli.config import OutputConfig, PlacesConfig, RuntimeConfig, SamplingConfig, check_duration, check_steps
from magnet_cli.console import Console
from magnet_cli.errors import UsageError
from magnet_cli.naming import AUDIO_EXTENSIONS, Target, plan_paths
from magnet_cli.naming import Item as Name
from magnet_cli.overrides import Overrides
from magnet_cli.prompts import Job, check_prompt, plan
from magnet_cli.registry import DEFAULT_MODEL, MODELS


def generate(
    context: typer.Context,
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT...", help="What it should sound like; - reads standard input.")
    ],
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
    normalize: options.NormalizeName = OutputConfig.normalize,
    lufs: options.Lufs = OutputConfig.lufs,
    true_peak: options.TruePeak = OutputConfig.true_peak,
    subtype: options.SubtypeName = OutputConfig.subtype,
    save_codes: options.SaveCodes = False,
    no_metadata: options.NoMetadata = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite existing files.")] = False,
    device: options.Device = RuntimeConfig.device,
    dtype: options.DType = RuntimeConfig.dtype,
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
        runtime, places = chosen(RuntimeConfig, context), chosen(PlacesConfig, context)
        drafts = plan(read_prompts(prompts), draft_sampling(model, overrides), seed=seed, variations=variations)
        if model in MODELS:
            check_duration(finish.duration, MODELS[model].seconds, model)
        targets = plan_targets(output, drafts, model, codes=save_codes, metadata=not no_metadata)
        from magnet_cli.audio import check_targets

        check_targets(targets, finish.subtype, overwrite=force)
        if seed is None and quiet and not json:
            console.essential(f"seed {drafts[0].seed}")
        pipeline = load(console, model, runtime, places)
        sampling = overrides.apply(pipeline.info.sampling)
        console.detail(f"sampling: {describe_sampling(sampling)}")

        from magnet_cli.manifest import Item
        from magnet_cli.production import Production

        production = Production(pipeline, model, finish, overwrite=force, metadata=not no_metadata)
        items = [Item(replace(draft, sampling=sampling), target) for draft, target in zip(drafts, targets, strict=True)]
        for product in make(console, production, items):
            console.result(result(product, as_json=json))


def draft_sampling(model: str, overrides: Overrides) -> SamplingConfig:
    """The sampling options, checked as far as they can be before the model is loaded: only it knows its defaults."""
    if model not in MODELS:
        return overrides.apply(SamplingConfig())
    sampling = overrides.apply(MODELS[model].sampling)
    check_steps(sampling, codebooks=len(MODELS[model].sampling.steps))
    return sampling


def plan_targets(output: str | None, jobs: Sequence[Job], model: str, *, codes: bool, metadata: bool) -> list[Target]:
    """Files for every job."""
    items = [Name(job.prompt, job.seed) for job in jobs]
    paths = plan_paths(output, items, model=short_name(model), extensions=AUDIO_EXTENSIONS)
    return [Target.beside(path, metadata=metadata, codes=codes) for path in paths]


def read_prompts(prompts: Sequence[str]) -> list[str]:
    """Check the prompts, and read the one that is given as `-` from standard input."""
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
