"""`magnet generate`: prompts in, audio files out."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magnet_cli import __version__
from magnet_cli.config import PRESETS, OutputConfig, RuntimeConfig, SamplingConfig
from magnet_cli.console import Console
from magnet_cli.errors import UsageError
from magnet_cli.naming import Item, plan_paths
from magnet_cli.prompts import Job, check_prompt, plan
from magnet_cli.registry import DEFAULT_MODEL

if TYPE_CHECKING:
    from magnet_cli.decode import Step
    from magnet_cli.pipeline import Clip, ModelInfo

SAMPLING, OUTPUT, RUNTIME = "Sampling", "Output", "Where it runs"


@dataclass(frozen=True)
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
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise UsageError(f"steps {text!r} are not whole numbers with commas between", "Give e.g. 20,10,10,10") from None


def generate(
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT...", help="What it should sound like; - reads standard input.")
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="A .wav, .flac or .ogg file, a folder, or a template with {index} {slug} {seed} {model}. "
            "[default: a new file here]",
            rich_help_panel=OUTPUT,
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
        str | None, typer.Option(metavar="|".join(PRESETS), help="Trade time for quality.", rich_help_panel=SAMPLING)
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(metavar="N,N,N,N", help="Decoding steps for each codebook.", rich_help_panel=SAMPLING),
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Softmax temperature.", rich_help_panel=SAMPLING)] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the codes that hold this probability.", rich_help_panel=SAMPLING)
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Draw from the K most probable codes instead.", rich_help_panel=SAMPLING)
    ] = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Take the most probable code.", rich_help_panel=SAMPLING)
    ] = False,
    guidance: Annotated[
        float | None, typer.Option(help="How strongly the text guides, at first.", rich_help_panel=SAMPLING)
    ] = None,
    min_guidance: Annotated[float | None, typer.Option(help="... and at last.", rich_help_panel=SAMPLING)] = None,
    spans: Annotated[
        str | None, typer.Option(metavar="nonoverlap|stride1", help="Where spans lie.", rich_help_panel=SAMPLING)
    ] = None,
    span_score: Annotated[
        str | None, typer.Option(metavar="max|prod", help="How spans are ranked.", rich_help_panel=SAMPLING)
    ] = None,
    no_anneal: Annotated[
        bool, typer.Option("--no-anneal", help="Keep the temperature constant.", rich_help_panel=SAMPLING)
    ] = False,
    duration: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Keep only the beginning.", rich_help_panel=OUTPUT)
    ] = None,
    normalize: Annotated[
        str, typer.Option(metavar="loudness|peak|none", help="What to normalize.", rich_help_panel=OUTPUT)
    ] = OutputConfig.normalize,
    lufs: Annotated[float, typer.Option(help="Target loudness, LUFS.", rich_help_panel=OUTPUT)] = OutputConfig.lufs,
    true_peak: Annotated[
        float, typer.Option(help="Ceiling for the true peak, dBTP.", rich_help_panel=OUTPUT)
    ] = OutputConfig.true_peak,
    subtype: Annotated[
        str, typer.Option(metavar="pcm16|pcm24|float32", help="Sample format.", rich_help_panel=OUTPUT)
    ] = OutputConfig.subtype,
    save_codes: Annotated[
        bool, typer.Option("--save-codes", help="Write <name>.codes.npz, too.", rich_help_panel=OUTPUT)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Overwrite existing files.", rich_help_panel=OUTPUT)
    ] = False,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda[:N]|mps", help="Which device.", rich_help_panel=RUNTIME)
    ] = RuntimeConfig.device,
    dtype: Annotated[
        str,
        typer.Option(
            metavar="auto|float32|bfloat16|float16", help="Precision of the decoder.", rich_help_panel=RUNTIME
        ),
    ] = RuntimeConfig.dtype,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each clip.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and results only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
) -> None:
    """Generate audio from text.

    Prints the path of each file it writes.

    Example: magnet generate "disco beat" -o out.wav
    """
    console = Console(quiet=quiet, verbose=verbose)
    overrides = Overrides(
        preset, steps, temperature, top_p, top_k, greedy, guidance, min_guidance, spans, span_score, no_anneal
    )
    with console.reporting():
        output = OutputConfig(duration, normalize, lufs, true_peak, subtype)  # type: ignore[arg-type]
        runtime = RuntimeConfig(device, dtype)  # type: ignore[arg-type]
        texts = [_read_prompt(prompt) for prompt in prompts]
        # Everything that can be wrong is found before the model is loaded; only it knows its sampling defaults.
        drafts = plan(texts, overrides.apply(SamplingConfig()), seed=seed, variations=variations)
        targets = plan_targets(out, drafts, model, output, save_codes=save_codes, force=force)
        _run(console, Request(model, runtime, overrides, output, drafts, targets, force, as_json))


@dataclass(frozen=True)
class Target:
    """The files of one clip."""

    audio: Path
    codes: Path | None


@dataclass(frozen=True)
class Request:
    """A checked command: `drafts` are jobs whose sampling options await the model's defaults."""

    model: str
    runtime: RuntimeConfig
    overrides: Overrides
    output: OutputConfig
    drafts: Sequence[Job]
    targets: Sequence[Target]
    force: bool
    as_json: bool


def plan_targets(
    out: str | None, jobs: Sequence[Job], model: str, output: OutputConfig, *, save_codes: bool, force: bool
) -> list[Target]:
    """Files for every job; OutputError when one exists or cannot be written."""
    from magnet_cli.audio import AUDIO_EXTENSIONS, check_format, check_writable

    items = [Item(job.prompt, job.seed) for job in jobs]
    paths = plan_paths(out, items, model=Path(model).name, extensions=AUDIO_EXTENSIONS)
    targets = [Target(path, path.with_name(f"{path.stem}.codes.npz") if save_codes else None) for path in paths]
    for target in targets:
        check_format(target.audio, output.subtype)
        check_writable(target.audio, overwrite=force)
        if target.codes is not None:
            check_writable(target.codes, overwrite=force)
    return targets


def _read_prompt(prompt: str) -> str:
    if prompt == "-":
        prompt = sys.stdin.read().strip()
    check_prompt(prompt)
    return prompt


def _run(console: Console, request: Request) -> None:
    """Load the model, then make and write the clips one after the other."""
    started = time.perf_counter()
    with console.busy(f"loading {request.model}"):
        from magnet_cli.pipeline import Pipeline

        pipeline = Pipeline.load(request.model, request.runtime)
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

    clip.save(target.audio, subtype=request.output.subtype, overwrite=request.force)
    if target.codes is not None:
        write_atomic(target.codes, lambda file: np.savez(file, codes=clip.codes), overwrite=request.force)


# -- words ------------------------------------------------------------------------------------------------------------


def describe(info: ModelInfo) -> str:
    """The line that says what runs where, and under which licence."""
    licence = "weights of unknown licence" if info.licence == "unknown" else f"weights {info.licence}"
    if "NC" in info.licence:
        licence += ", non-commercial use only"
    return f"model {info.name} ({licence}) · device {info.device} · dtype {info.dtype}"


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
    loudness = "silence" if after.lufs is None else f"{after.lufs:.1f} LUFS"
    if output.normalize == "loudness" and after.lufs is not None and not clip.audio.reached:
        loudness += f" (not {output.lufs:g}: the peak ceiling came first)"
    peak = "" if after.true_peak is None else f", {after.true_peak:.1f} dBTP"
    return f"{target.audio.name}: {clip.seconds:.2f} s, seed {clip.job.seed}, {loudness}{peak}"


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
