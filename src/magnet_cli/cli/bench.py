"""`magnet bench`: the speed of a model on this machine."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.cli.run_jobs import load, open_parts
from magnet_cli.errors import UsageError
from magnet_cli.hub.registry import DEFAULT_MODEL
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling import SamplingConfig, check_steps, default_sampling
from magnet_cli.options.sampling_overrides import Overrides
from magnet_cli.terminal import options
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.options import Speech
from magnet_cli.terminal.signature import only, without

if TYPE_CHECKING:
    from magnet_cli.bench.speed import BenchParts


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
    overrides: Annotated[Overrides, only("preset", "steps", "spans")],
    runtime: Annotated[RuntimeConfig, without("batch_size")],
    places: PlacesConfig,
    speech: Annotated[Speech, only("json", "quiet", "log_file")],
) -> None:
    """Measure the speed, memory and precision of a model.

    Prints latency, throughput, the time of every stage, and the arithmetic as a share of the device's peak. All are
    medians, but for the first run, which is reported as cold. A plain matrix product is measured between the runs, so
    that the share is meaningful on a busy machine, too. The last line states how much the logits differ from those of
    the plain decoder in float32.

    Example: magnet bench --random-weights small-10secs
    """
    console = speech.console
    with console.reporting():
        if batch_size < 1 or runs < 1:
            raise UsageError(f"cannot measure {runs} runs of {batch_size} clips", "Give at least 1 of each")

        defaults = None
        if random_weights is None:
            defaults, parts = model_parts(console, model, runtime, places, plain=plain)
        else:
            parts = shape_parts(random_weights, runtime, plain=plain)

        from magnet_cli.bench.speed import benchmark
        from magnet_cli.engines.cuda import GraphTransformer

        config = parts.model.config
        sampling = overrides.apply(defaults or default_sampling("music", config.clip_seconds, config.codebooks))
        check_steps(sampling, codebooks=config.codebooks)
        console.message(
            f"measuring {runs} runs of batch size {batch_size}, after a first one, which is reported as cold"
        )
        report = benchmark(parts, sampling, batch=batch_size, runs=runs)
        if runtime.eight_bits and not plain:
            report = replace(report, dtype=runtime.dtype)
        if isinstance(parts.network, GraphTransformer) and parts.network.compiled:
            report = replace(report, network=f"{report.network}, compiled,")
        if speech.json:
            console.result(asdict(report))
        else:
            for name, value in report.rows:
                console.result(f"{name:<12} {value}")


def shape_parts(shape: str, runtime: RuntimeConfig, *, plain: bool) -> BenchParts:
    """A released shape with random weights."""
    from magnet_cli.bench.speed import random_parts
    from magnet_cli.engines.choose import fastest
    from magnet_cli.engines.device import resolve_device, resolve_dtype

    device = resolve_device(runtime)
    return random_parts(
        shape,
        device,
        resolve_dtype(runtime, device),
        lambda decoder: decoder if plain else fastest(decoder, runtime),
    )


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
    )
