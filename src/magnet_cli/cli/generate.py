"""`magnet generate`: prompts in, audio files out."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magnet_cli import __version__
from magnet_cli.cli.options import AsJson, CacheDir, ModelDir, Offline, Quiet, download_first, human, licence_note
from magnet_cli.config import (
    PRESETS,
    OutputConfig,
    PlacesConfig,
    RuntimeConfig,
    SamplingConfig,
    check_duration,
    check_steps,
)
from magnet_cli.console import Console
from magnet_cli.errors import UsageError
from magnet_cli.naming import Item, plan_paths
from magnet_cli.prompts import Job, check_prompt, plan
from magnet_cli.registry import DEFAULT_MODEL, MODELS

if TYPE_CHECKING:
    from magnet_cli.decode import Step
    from magnet_cli.pipeline import Clip, ModelInfo

PRESET_HELP = "; ".join(f"{name}: {one.summary}" for name, one in PRESETS.items()) + "."


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Sampling options as given; None keeps what suits the model."""

    preset: str | None = None
    steps: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    greedy: bool = False
    guidance: float | None = None
    min_guidance: float | None = None
    spans: str | None = None
    span_score: str | None = None
    no_anneal: bool = False

    def apply(self, defaults: SamplingConfig) -> SamplingConfig:
        """The model's defaults, then the preset, then single options. UsageError for what cannot work."""
        sampling = defaults.with_preset(self.preset) if self.preset else defaults
        changes: dict[str, Any] = {
            name: value
            for name in ("temperature", "guidance", "min_guidance", "spans", "span_score")
            if (value := getattr(self, name)) is not None
        }
        if self.steps is not None:
            changes["steps"] = parse_steps(self.steps)
        if self.top_p is not None or self.top_k is not None:
            changes |= {"top_p": self.top_p, "top_k": self.top_k}
        if self.greedy:
            changes["greedy"] = True
        if self.no_anneal:
            changes["anneal"] = False
        return replace(sampling, **changes)


def parse_steps(text: str) -> tuple[int, ...]:
    """`20,10,10,10` -> (20, 10, 10, 10)."""
    numbers = text.split(",")
    if not all(re.fullmatch(r"\s*-?[0-9]{1,9}\s*", number) for number in numbers):
        raise UsageError(f"steps {text!r} are not whole numbers with commas between", "Give e.g. 20,10,10,10")
    return tuple(int(number) for number in numbers)


def generate(
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
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME|HUB_ID|FOLDER", help="Which checkpoint.")
    ] = DEFAULT_MODEL,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same clip. [default: drawn, and reported]", show_default=False)
    ] = None,
    variations: Annotated[
        int, typer.Option("--variations", "-n", help="Clips for each prompt, with seeds SEED, SEED+1, ...")
    ] = 1,
    preset: Annotated[
        str | None,
        typer.Option(metavar="|".join(PRESETS), help=PRESET_HELP),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(metavar="N,N,N,N", help="Decoding steps for each codebook."),
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Softmax temperature.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the codes that hold this probability.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the K most probable codes instead.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Take the most probable code.")] = False,
    guidance: Annotated[float | None, typer.Option(help="How strongly the text guides, at first.")] = None,
    min_guidance: Annotated[float | None, typer.Option(help="... and at last.")] = None,
    spans: Annotated[str | None, typer.Option(metavar="nonoverlap|stride1", help="Where spans lie.")] = None,
    span_score: Annotated[str | None, typer.Option(metavar="max|prod", help="How spans are ranked.")] = None,
    no_anneal: Annotated[bool, typer.Option("--no-anneal", help="Keep the temperature constant.")] = False,
    duration: Annotated[float | None, typer.Option(metavar="SECONDS", help="Keep only the beginning.")] = None,
    normalize: Annotated[
        str, typer.Option(metavar="loudness|peak|none", help="What to normalize.")
    ] = OutputConfig.normalize,
    lufs: Annotated[float, typer.Option(help="Target loudness, LUFS.")] = OutputConfig.lufs,
    true_peak: Annotated[float, typer.Option(help="Ceiling for the true peak, dBTP.")] = OutputConfig.true_peak,
    subtype: Annotated[str, typer.Option(metavar="pcm16|pcm24|float32", help="Sample format.")] = OutputConfig.subtype,
    save_codes: Annotated[bool, typer.Option("--save-codes", help="Write <name>.codes.npz, too.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite existing files.")] = False,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]|mps", help="Which device.")] = RuntimeConfig.device,
    dtype: Annotated[
        str,
        typer.Option(metavar="auto|float32|bfloat16|float16", help="Precision of the decoder."),
    ] = RuntimeConfig.dtype,
    model_dir: ModelDir = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    json: AsJson = False,
    quiet: Quiet = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
) -> None:
    """Generate audio from text.

    Prints the path of each file it writes.

    Example: magnet generate "disco beat" -o out.wav
    """
    console = Console(quiet=quiet, verbose=verbose)
    with console.reporting():
        overrides = Overrides(
            preset=preset,
            steps=steps,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            greedy=greedy,
            guidance=guidance,
            min_guidance=min_guidance,
            spans=spans,
            span_score=span_score,
            no_anneal=no_anneal,
        )
        finish = OutputConfig(
            duration=duration,
            normalize=normalize,  # type: ignore[arg-type]
            lufs=lufs,
            true_peak=true_peak,
            subtype=subtype,  # type: ignore[arg-type]
        )
        runtime = RuntimeConfig(device=device, dtype=dtype)  # type: ignore[arg-type]
        drafts = plan(read_prompts(prompts), draft_sampling(model, overrides), seed=seed, variations=variations)
        if model in MODELS:
            check_duration(finish.duration, MODELS[model].seconds, model)
        targets = plan_targets(output, drafts, model, finish, save_codes=save_codes, force=force)
        if seed is None and quiet and not json:
            console.essential(f"seed {drafts[0].seed}")
        request = Request(
            model=model,
            runtime=runtime,
            places=PlacesConfig(model_dir=model_dir, cache_dir=cache_dir, offline=offline),
            overrides=overrides,
            output=finish,
            drafts=drafts,
            targets=targets,
            force=force,
            as_json=json,
        )
        run(console, request)


def draft_sampling(model: str, overrides: Overrides) -> SamplingConfig:
    """The sampling options, checked as far as they can be before the model is loaded: only it knows its defaults."""
    if model not in MODELS:
        return overrides.apply(SamplingConfig())
    sampling = overrides.apply(MODELS[model].sampling)
    check_steps(sampling, codebooks=len(MODELS[model].sampling.steps))
    return sampling


@dataclass(frozen=True)
class Target:
    """The files of one clip."""

    audio: Path
    codes: Path | None


@dataclass(frozen=True, kw_only=True)
class Request:
    """A checked command: `drafts` are jobs whose sampling options await the model's defaults."""

    model: str
    runtime: RuntimeConfig
    places: PlacesConfig
    overrides: Overrides
    output: OutputConfig
    drafts: Sequence[Job]
    targets: Sequence[Target]
    force: bool
    as_json: bool


def plan_targets(
    output: str | None, jobs: Sequence[Job], model: str, finish: OutputConfig, *, save_codes: bool, force: bool
) -> list[Target]:
    """Files for every job; OutputError when one exists or cannot be written."""
    from magnet_cli.audio import AUDIO_EXTENSIONS, check_format, check_writable

    items = [Item(job.prompt, job.seed) for job in jobs]
    named = Path(os.path.realpath(model)).name if os.path.isdir(model) else model.rsplit("/", 1)[-1]
    paths = plan_paths(output, items, model=named, extensions=AUDIO_EXTENSIONS)
    targets = [Target(path, path.with_name(f"{path.stem}.codes.npz") if save_codes else None) for path in paths]
    for target in targets:
        check_format(target.audio, finish.subtype)
    files = [file for target in targets for file in (target.audio, target.codes) if file is not None]
    check_writable(files, overwrite=force)
    return targets


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


def run(console: Console, request: Request) -> None:
    """Load the model, then make and write the clips one after the other."""
    started = time.perf_counter()
    with console.transfers(human) as transfers:
        download_first(request.model, request.places, transfers.report)
    with console.busy(f"loading {request.model}"):
        from magnet_cli.pipeline import Pipeline
    with console.transfers(human) as transfers:
        pipeline = Pipeline.load(request.model, request.runtime, places=request.places, on_download=transfers.report)
    info = pipeline.info
    sampling = request.overrides.apply(info.sampling)
    jobs = [replace(draft, sampling=sampling) for draft in request.drafts]
    console.message(describe(info))
    console.detail(f"loaded in {time.perf_counter() - started:.1f} s from {info.folder}")
    console.detail(f"sampling: {describe_sampling(sampling)}")
    with console.progress(len(jobs) * sum(sampling.steps)) as bar:
        done = 0

        def on_step(step: Step, batch: Sequence[Job]) -> None:
            numbers = f"{done + 1}" if len(batch) == 1 else f"{done + 1}-{done + len(batch)}"
            position = f"clip {numbers}/{len(jobs)} · codebook {step.codebook + 1}/{info.codebooks}"
            bar.advance(position, len(batch))

        clips = pipeline.generate(jobs, output=request.output, on_step=on_step)
        for clip, target in zip(clips, request.targets, strict=True):
            _write(clip, target, request)
            done += 1
            console.message(describe_clip(clip, target, request.output))
            console.detail(", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in clip.timings.items()))
            console.result(as_record(clip, target, info) if request.as_json else str(target.audio))


def _write(clip: Clip, target: Target, request: Request) -> None:
    import numpy as np

    from magnet_cli.audio import write_atomic

    if target.codes is not None:
        write_atomic(target.codes, lambda file: np.savez(file, codes=clip.codes), overwrite=request.force)
    try:
        clip.save(target.audio, subtype=request.output.subtype, overwrite=request.force)
    except BaseException:
        if target.codes is not None:  # both, or neither
            target.codes.unlink(missing_ok=True)
        raise


# -- words ------------------------------------------------------------------------------------------------------------


def describe(info: ModelInfo) -> str:
    """The line that says what runs where, and under which licence."""
    return f"model {info.name} ({licence_note(info.licence)}) · device {info.device} · dtype {info.dtype}"


def describe_sampling(sampling: SamplingConfig) -> str:
    """The sampling options in effect."""
    return ", ".join(
        f"{name.replace('_', '-')} {','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in asdict(sampling).items()
        if value is not None
    )


def describe_clip(clip: Clip, target: Target, output: OutputConfig) -> str:
    """The line that says what was written."""
    after = clip.audio.after
    loudness = "silence" if after.lufs is None else f"{decibels(after.lufs)} LUFS"
    if output.normalize == "loudness" and after.lufs is not None and not clip.audio.reached:
        loudness += f" (not {output.lufs:g}: the peak ceiling came first)"
    peak = "" if after.true_peak is None else f", {decibels(after.true_peak)} dBTP"
    return f"{target.audio.name}: {clip.seconds:.2f} s, seed {clip.job.seed}, {loudness}{peak}"


def decibels(value: float) -> str:
    """One digit after the point, and never -0.0."""
    return f"{round(value, 1) + 0.0:.1f}"


def as_record(clip: Clip, target: Target, info: ModelInfo) -> dict[str, Any]:
    """Everything about a clip, for --json."""
    return {
        "path": str(target.audio),
        "codes": str(target.codes) if target.codes else None,
        "prompt": clip.job.prompt,
        "tokens": clip.tokens,
        "seed": clip.job.seed,
        "seconds": clip.seconds,
        "sample_rate": clip.sample_rate,
        "lufs": clip.audio.after.lufs,
        "true_peak": clip.audio.after.true_peak,
        "gain_db": clip.audio.gain_db,
        "limited": clip.audio.limited,
        "loudness_reached": clip.audio.reached,
        "sampling": asdict(clip.job.sampling),
        "model": {
            "name": info.name,
            "repository": info.repository,
            "revision": info.revision,
            "task": info.task,
            "licence": info.licence,
        },
        "device": info.device,
        "dtype": info.dtype,
        "timings": clip.timings,
        "version": __version__,
    }
