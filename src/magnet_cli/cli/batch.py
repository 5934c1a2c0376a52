"""`magnet batch`: a file of prompts in, a folder of audio files out, however often it is interrupted."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.batch import Plan, Request, check_same, clear_way, plan_batch, plan_rows
from magnet_cli.cli import options
from magnet_cli.cli.making import (
    RELEASED_RATE,
    Opened,
    draft_sampling,
    early_check,
    helper_names,
    load,
    make,
    open_parts,
    result,
    short_name,
    shortened,
)
from magnet_cli.cli.options import chosen, given, human
from magnet_cli.composition import EditConfig
from magnet_cli.config import OutputConfig, PlacesConfig, RuntimeConfig, SamplingConfig
from magnet_cli.console import Console
from magnet_cli.errors import BatchError, MagnetError, MagnetWarning, one_line
from magnet_cli.manifest import MANIFEST_FILE, Header, Item, Manifest
from magnet_cli.overrides import Overrides
from magnet_cli.promptfile import Row, read_rows
from magnet_cli.prompts import draw_seed
from magnet_cli.registry import DEFAULT_BEGINNER, DEFAULT_MODEL, MODELS, RESCORERS, musicgen_name
from magnet_cli.store import Store, is_bundle

if TYPE_CHECKING:
    from magnet_cli.production import Production

SAMPLE_BYTES = {"pcm16": 2, "pcm24": 3, "float32": 4}
RECORD_BYTES = 2500  # of a clip's record, which is in the audio file and beside it


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
    model_dir: options.ModelDir = None,
    cache_dir: options.CacheDir = None,
    offline: options.Offline = False,
    json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Generate a clip for every row of a file.

    Every clip is written as soon as it is done. The same command goes on where it stopped.

    Columns of .csv and .jsonl: prompt, and any of seed, variations, output and the sampling options, by their names.

    Example: magnet batch prompts.txt -o clips/
    """
    console = Console(quiet=quiet, verbose=verbose)
    with console.reporting():
        request = Request(
            file=file,
            output=output,
            model=model,
            short_name=short_name(model),
            seed=seed,
            variations=variations,
            overrides=chosen(Overrides, context),
            edits=given(EditConfig, context),
            helpers={},
            finish=chosen(OutputConfig, context),
            codes=save_codes,
            metadata=not no_metadata,
            force=force,
        )
        runtime, places = chosen(RuntimeConfig, context), chosen(PlacesConfig, context)
        rows = read_rows(file, format)
        wanted = hybrid is not None or any(row.edits.get("hybrid") is not None for row in rows)
        request = replace(request, helpers=helper_names(rescorer, hybrid_model, hybrid=wanted))
        # What is wrong without looking at the model is found before it is downloaded or opened.
        check = early_check(model, request.helpers)
        plan_rows(rows, request, draft_sampling(model), seed=seed, check=check)
        request.folder  # noqa: B018, raises
        if dry_run:
            opened = open_parts(console, model, request.helpers, places) if are_here(request, places) else None
            plan = plan_all(rows, request, opened, Manifest.read(request.folder), resume=resume)
            show(console, plan, request, opened, runtime, as_json=json)
            return
        opened = open_parts(console, model, request.helpers, places)
        with Manifest.opened(request.folder) as manifest:
            plan = plan_all(rows, request, opened, manifest, resume=resume)
            if resume and not mix:
                check_same(plan, manifest)
            plan, moved = clear_way(plan, manifest, mix=mix) if resume else (plan, [])
            for path in moved:
                console.warning(f"a file had changed since it was made; it is {path} now")
            check_room(console, plan, request, opened)
            if plan.done:
                console.message(f"{len(plan.done)} of {len(plan.items)} clips are there already")
            if not plan.todo:
                console.message("nothing is left to do")
                return
            from magnet_cli.production import Production

            pipeline = load(console, model, opened, runtime)
            manifest.start(plan.header)
            production = Production(
                pipeline,
                model,
                request.finish,
                overwrite=request.force,
                metadata=request.metadata,
                manifest=manifest,
                helpers=request.helpers,
            )
            work(console, production, plan, fail_fast=fail_fast, as_json=json)


def plan_all(rows: Sequence[Row], request: Request, opened: Opened | None, manifest: Manifest, *, resume: bool) -> Plan:
    """The whole plan; without the models' parts, by what is known of them."""
    hashes = opened.hashes() if opened else {}
    settings = request.settings(hashes)
    seed = request.seed
    if seed is None and resume:
        seed = manifest.seed(settings)
    if seed is None:
        seed = draw_seed()
    defaults = opened.source.sampling if opened else draft_sampling(request.model)
    check = opened.check() if opened else early_check(request.model, request.helpers)
    planned = plan_rows(rows, request, defaults, seed=seed, check=check)
    before = manifest if resume else Manifest(manifest.folder, [], {})
    return plan_batch(planned, request, before, Header(seed, settings), hashes)


def are_here(request: Request, places: PlacesConfig) -> bool:
    """Whether all models can be opened without a download."""
    from magnet_cli.cache import RESCORER, cached
    from magnet_cli.hub import store_name

    store = Store.at(places.model_dir)
    for model in (request.model, *request.helpers.values()):
        name, musicgen = store_name(model), musicgen_name(model)
        if musicgen is not None:
            if cached(RESCORERS[musicgen].repository, RESCORER, places.cache_dir) is None:
                return False
        elif not os.path.isdir(model) and (name is None or not is_bundle(store.folder(name))):
            return False
    return True


def check_room(console: Console, plan: Plan, request: Request, opened: Opened) -> None:
    """Raise for files that are in the way, and warn if the disk is too small."""
    from magnet_cli.audio import check_targets

    check_targets([item.target for item in plan.todo], request.finish.subtype, overwrite=request.force)
    needed = sum(clip_size(item, request, opened) for item in plan.todo)
    free = shutil.disk_usage(request.folder).free
    if needed > free:
        console.warning(f"the clips need about {human(needed)}, but {request.folder} has {human(free)} free")


def work(console: Console, production: Production, plan: Plan, *, fail_fast: bool, as_json: bool) -> None:
    """Make what is to be made; BatchError at the end if some of it failed."""
    started = time.monotonic()
    total, failed = len(plan.items), 0

    def numbers(done: int) -> str:
        left = (time.monotonic() - started) / done * (len(plan.todo) - done)
        return f"[{len(plan.done) + done}/{total}, {duration_word(left)} left] "

    def fail(item: Item, error: Exception) -> None:
        nonlocal failed
        if fail_fast:
            raise error
        failed += 1
        text = str(error) if isinstance(error, MagnetError) else f"{type(error).__name__}: {one_line(error)}."
        console.warning(f"line {plan.rows[item.key].line}, {shortened(item.job.prompt)!r}, failed: {text}")

    with console.stoppable() as stop_if_asked:
        products = make(console, production, plan.todo, numbers=numbers, on_step=stop_if_asked, on_failure=fail)
        for product in products:
            console.result(result(product, as_json=as_json))
            stop_if_asked()
    made, seconds = len(plan.todo) - failed, time.monotonic() - started
    if made:
        rate = f"{60 * made / seconds:.1f} a minute"
        console.message(f"made {made} clips in {duration_word(seconds)}, {rate}; {MANIFEST_FILE} lists them")
    if failed:
        raise BatchError(f"{failed} of {total} clips failed", "Run the same command to try them again")


# -- the plan, told ---------------------------------------------------------------------------------------------------


def show(
    console: Console, plan: Plan, request: Request, opened: Opened | None, runtime: RuntimeConfig, *, as_json: bool
) -> None:
    """A line or a JSON object for every clip; then what it all takes."""
    there = {item.key for item, _ in plan.done}
    for item in plan.items:
        state = "there" if item.key in there else "to make"
        if as_json:
            job = {"prompt": item.job.prompt, "seed": item.job.seed, "sampling": asdict(item.job.sampling)}
            console.result({"path": str(item.target.audio), "state": state, "line": plan.rows[item.key].line, **job})
        else:
            console.result(f"{item.target.audio}  {state}  seed {item.job.seed}  {shortened(item.job.prompt)}")
    console.message(f"{len(plan.items)} clips, {len(plan.done)} of them there already, {len(plan.todo)} to make")
    if plan.todo:
        size = sum(clip_size(item, request, opened) for item in plan.todo)
        seconds, basis = estimate(plan, request, opened, runtime)
        console.message(f"about {human(size)} of disk; about {duration_word(seconds)} ({basis})")


def estimate(plan: Plan, request: Request, opened: Opened | None, runtime: RuntimeConfig) -> tuple[float, str]:
    """Seconds for what is to be made, and what they rest on."""
    if plan.done:
        each = sum(entry.seconds for _, entry in plan.done) / len(plan.done)
        return each * len(plan.todo), "as long as those that are there took"
    from magnet_cli.device import matmul_rate, resolve_device, resolve_dtype

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MagnetWarning)
        device = resolve_device(runtime)
        rate = matmul_rate(device, resolve_dtype(runtime, device))
    weights, clip, frame_rate, _ = model_facts(request, opened)
    passes = 0.0
    for item in plan.todo:
        # Frames that go through the network: every step sees the window, MusicGen each frame once.
        length = item.job.edit.length(clip, frame_rate)
        steps = sum(item.job.sampling.steps) if isinstance(item.job.sampling, SamplingConfig) else 1
        passes += steps * length.frames
    # Every weight is multiplied and added once for each frame, in both halves of guidance.
    return 4.0 * weights * passes / rate, f"at {rate / 1e9:,.0f} GFLOP/s, as measured now on {device}"


def model_facts(request: Request, opened: Opened | None) -> tuple[int, float, int, int]:
    """A model's number of weights, seconds of a clip, frames and samples in a second, as far as they are known."""
    musicgen = musicgen_name(request.model)
    if opened is None:
        if musicgen is not None:
            return RESCORERS[musicgen].parameters, RESCORERS[musicgen].seconds, RELEASED_RATE, 32_000
        spec = MODELS.get(request.model, MODELS[DEFAULT_MODEL])
        return spec.parameters, spec.seconds, RELEASED_RATE, spec.sample_rate
    from magnet_cli.assembly import codec_of, decoder_size, vocabulary

    config = codec_of(opened.source).config
    return decoder_size(opened.source), vocabulary(opened.source).seconds, config.frame_rate, config.sample_rate


def clip_size(item: Item, request: Request, opened: Opened | None) -> int:
    """About the bytes that a clip's files take."""
    _, clip, frame_rate, sample_rate = model_facts(request, opened)
    edit = item.job.edit
    if edit.input is not None and (edit.keeps_samples or edit.inpaint is not None):
        samples = os.path.getsize(edit.input) / 2  # as long as the input at least, which is PCM mostly
    else:
        length = edit.length(clip, frame_rate)
        samples = (edit.duration or length.frames / frame_rate) * sample_rate
    # FLAC of music takes 0.5 to 0.7 of PCM; Vorbis at its usual quality about 2 bits a sample.
    sample = 0.25 if item.target.audio.suffix.lower() == ".ogg" else SAMPLE_BYTES[request.finish.subtype]
    return int(samples * sample) + (2 * RECORD_BYTES if request.metadata else 0)


def duration_word(seconds: float) -> str:
    """3 h 12 min, 4 min 10 s, 9 s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
