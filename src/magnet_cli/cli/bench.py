"""`magnet bench`: the speed of a model on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.cli.run_jobs import load, open_parts
from magnet_cli.errors import UsageError
from magnet_cli.hub.registry import DEFAULT_MODEL
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling import SamplingConfig, Task, check_steps, default_sampling
from magnet_cli.options.sampling_overrides import Overrides
from magnet_cli.terminal import options
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.options import Speech
from magnet_cli.terminal.signature import only, without

if TYPE_CHECKING:
    import torch

    from magnet_cli.bench.speed import BenchParts, Report
    from magnet_cli.decoding.masked import Network
    from magnet_cli.model.decoder import MaskedTransformer


def bench(
    *,
    model: options.Model = DEFAULT_MODEL,
    random_weights: Annotated[
        str | None,
        typer.Option(
            metavar="small-10secs|small-30secs|medium-10secs|medium-30secs",
            help="Measure a network of this released size with random weights instead of --model. It needs no "
            "download, takes the same time, and generates noise.",
            rich_help_panel="Measurement",
        ),
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch",
            "-b",
            metavar="N",
            help="Number of clips to decode together, at least 1.",
            rich_help_panel="Measurement",
        ),
    ] = 1,
    runs: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Number of runs to measure, at least 1, after one run that is not counted.",
            rich_help_panel="Measurement",
        ),
    ] = 3,
    plain: Annotated[
        bool,
        typer.Option(
            "--plain", help="Measure the readable decoder instead of the fast one.", rich_help_panel="Measurement"
        ),
    ] = False,
    no_precision: Annotated[
        bool,
        typer.Option(
            "--no-precision",
            help="Do not compare the logits with float32. The comparison takes memory for the model in float32, and "
            "a large model takes a CPU a minute.",
            rich_help_panel="Measurement",
        ),
    ] = False,
    impact: Annotated[
        str | None,
        typer.Option(
            metavar="small|medium",
            help="Measure the work of a published benchmark, IMPACT: batches of 1, 8 and 64 clips of 10 s by a sound "
            "model of this size with random weights. Its seconds on a V100 are shown beside.",
            rich_help_panel="Measurement",
        ),
    ] = None,
    overrides: Annotated[Overrides, only("preset", "steps", "spans")],
    runtime: Annotated[RuntimeConfig, without("batch_size")],
    places: PlacesConfig,
    speech: Annotated[Speech, only("json", "quiet", "log_file")],
) -> None:
    """Measure the speed, memory and precision of a model.

    Prints latency, throughput, the time of every stage, and the arithmetic as a share of the device's peak. All are
    medians, but for the first run, which is reported as cold. The peak is a plain matrix product in the same precision,
    measured between the runs, so that the share is meaningful on a busy machine, too. Memory is what is reserved on a
    GPU, or what the process has taken on a CPU. The last line states how much the logits differ from those of the plain
    decoder in float32.

    Example: magnet bench --random-weights small-10secs
    """
    console = speech.console
    with console.reporting():
        if batch_size < 1 or runs < 1:
            raise UsageError(f"cannot measure {runs} runs of {batch_size} clips", "Give at least 1 of each")

        if impact is not None:
            if random_weights is not None or batch_size != 1 or model != DEFAULT_MODEL:
                raise UsageError(
                    "--impact sets the model and the batches", "Leave out --model, --random-weights and -b"
                )
            measure_impact(speech, impact, overrides, runtime, plain=plain, runs=runs, precision=not no_precision)
            return
        defaults = None
        if random_weights is None:
            defaults, parts = model_parts(console, model, runtime, places, plain=plain)
        else:
            parts = shape_parts(random_weights, runtime, plain=plain)
        report = measure(
            console,
            parts,
            overrides.apply(defaults or usual(parts, "music")),
            batch=batch_size,
            runs=runs,
            precision=not no_precision,
        )
        if speech.json:
            console.result(asdict(report))
        else:
            print_rows(console, report.rows)


def usual(parts: BenchParts, task: Task) -> SamplingConfig:
    """The sampling options of released models of this length."""
    config = parts.model.config
    return default_sampling(task, config.clip_seconds, config.codebooks)


def measure(
    console: Console, parts: BenchParts, sampling: SamplingConfig, *, batch: int, runs: int, precision: bool
) -> Report:
    """Measure clips of these parts. precision: compare the logits with float32."""
    from magnet_cli.bench.speed import benchmark
    from magnet_cli.engines.cuda import GraphTransformer

    check_steps(sampling, codebooks=parts.model.config.codebooks)
    console.message(f"measuring {runs} runs of batch size {batch}, after a first one, which is reported as cold")
    report = benchmark(parts, sampling, batch=batch, runs=runs, compare_logits=precision)
    if isinstance(parts.network, GraphTransformer) and parts.network.compiled:
        report = replace(report, network=f"{report.network}, compiled,")
    return report


def measure_impact(
    speech: Speech,
    size: str,
    overrides: Overrides,
    runtime: RuntimeConfig,
    *,
    plain: bool,
    runs: int,
    precision: bool,
) -> None:
    """Measure each batch of the published benchmark; the logits once."""
    console = speech.console
    from magnet_cli.bench.impact import PUBLISHED, beside, sound_parts

    known = next((one for one in PUBLISHED if one == size), None)
    if known is None:
        raise UsageError(f"unknown size {size!r}", "Give --impact small or --impact medium")
    parts = built(lambda *form: sound_parts(known, *form), runtime, plain=plain)
    sampling = overrides.apply(usual(parts, "sound"))
    for batch, seconds in PUBLISHED[known].items():
        report = measure(console, parts, sampling, batch=batch, runs=runs, precision=precision and batch == 1)
        if speech.json:
            console.result({**asdict(report), "published": {"seconds": seconds, "device": "V100", "source": "IMPACT"}})
        else:
            print_rows(console, beside(known, report))


def print_rows(console: Console, rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values as a table."""
    for name, value in rows:
        console.result(f"{name:<12} {value}")


def shape_parts(shape: str, runtime: RuntimeConfig, *, plain: bool) -> BenchParts:
    """A released shape with random weights."""
    from magnet_cli.bench.speed import random_parts

    return built(lambda *form: random_parts(shape, *form), runtime, plain=plain)


def built(
    build: Callable[[torch.device, torch.dtype, Callable[[MaskedTransformer], Network]], BenchParts],
    runtime: RuntimeConfig,
    *,
    plain: bool,
) -> BenchParts:
    """What `build` makes for a device, a dtype and a network: those of the runtime, or the plain network."""
    from magnet_cli.engines.choose import fastest
    from magnet_cli.engines.device import resolve_device, resolve_dtype

    device = resolve_device(runtime)
    parts = build(
        device, resolve_dtype(runtime, device), lambda decoder: decoder if plain else fastest(decoder, runtime)
    )
    return parts if plain else replace(parts, eight_bits=runtime.eight_bits)


def model_parts(
    console: Console, model: str, runtime: RuntimeConfig, places: PlacesConfig, *, plain: bool
) -> tuple[SamplingConfig, BenchParts]:
    """A model's sampling options and its parts; UsageError for one that is no MAGNeT."""
    from magnet_cli.hub.locate import resolve

    opened = open_parts(console, resolve(model, places), {})

    import torch

    from magnet_cli.bench.speed import BenchParts
    from magnet_cli.checkpoints.bundle import Model
    from magnet_cli.checkpoints.parts import build_decoder
    from magnet_cli.pipeline.generators import MaskedGenerator

    pipeline = load(console, opened, runtime)
    sampling, source = pipeline.info.sampling, opened.source
    if (
        not isinstance(source, Model)
        or not isinstance(pipeline.generator, MaskedGenerator)
        or not isinstance(sampling, SamplingConfig)
    ):
        raise UsageError(f"{model} is not a MAGNeT model, and bench measures no others", "Choose another --model")
    reader = pipeline.generator.reader
    network = reader.decoder if plain else reader.network
    stored = source.decoder
    return sampling, BenchParts(
        pipeline.info.name,
        reader.text_encoder,
        reader.decoder,
        network,
        pipeline.codec,
        lambda: build_decoder(stored, torch.device("cpu"), torch.float32),
        None if plain else runtime.eight_bits,
    )
