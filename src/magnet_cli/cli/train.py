"""`magnet train`: the decoder, and the codec it writes for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from magnet_cli.cli.console import Console
from magnet_cli.cli.options import CacheDir, ModelDir, Offline, Quiet, chosen, download_first, given, human
from magnet_cli.cli.train_options import (
    BatchSize,
    Data,
    LastRate,
    LogEvery,
    OnCpu,
    Output,
    Rate,
    Restart,
    SampleEvery,
    SaveEvery,
    Seed,
    Steps,
    Tensorboard,
    Warmup,
)
from magnet_cli.errors import UsageError
from magnet_cli.hub.registry import UNKNOWN_LICENCE
from magnet_cli.options.runtime import PlacesConfig
from magnet_cli.options.sampling import Task
from magnet_cli.train.options import (
    CODEC_OPTIMIZATION,
    TEXT_DROPOUT,
    Begin,
    CodecShape,
    CodecTraining,
    DecoderShape,
    DecoderTraining,
    LoraOptions,
    Optimization,
    Places,
    Precision,
    RunOptions,
    TextShape,
)

if TYPE_CHECKING:
    from magnet_cli.train.decoder import Parts
    from magnet_cli.train.run import OnProgress, Progress

app = typer.Typer(
    name="train",
    help="Train or fine-tune the decoder, and train a codec.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="Several GPUs or machines: accelerate launch -m magnet_cli train ... (needs pip install magnet-cli[train]).",
)

OWN = "own"
DTYPES = ("float16", "bfloat16", "float32")
LINES = 20  # log entries between lines on a stderr that is no terminal


@app.command()
def codec(
    context: typer.Context,
    data: Data,
    output: Output,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="Go on from this codec or bundle.", show_default=False)
    ] = None,
    steps: Steps = 500_000,
    batch_size: BatchSize = 64,
    sample_rate: Annotated[int, typer.Option(help="Hz.")] = CodecShape.sample_rate,
    channels: Annotated[int, typer.Option(help="1: mono, 2: stereo.")] = CodecShape.channels,
    ratios: Annotated[
        str, typer.Option(metavar="N,N,...", help="Strides of its decoder; their product is the samples in a frame.")
    ] = ",".join(map(str, CodecShape.ratios)),
    filters: Annotated[int, typer.Option(help="Channels next to the waveform.")] = CodecShape.filters,
    dimension: Annotated[int, typer.Option(help="Of what is quantized.")] = CodecShape.dimension,
    lstm: Annotated[int, typer.Option(help="LSTM layers.")] = CodecShape.lstm,
    codebooks: Annotated[int, typer.Option(help="Codes in a frame.")] = CodecShape.codebooks,
    codes: Annotated[int, typer.Option(help="Codes in a codebook.")] = CodecShape.codes,
    begin: Annotated[
        str, typer.Option(metavar="|".join(get_args(Begin)), help="A new codec's weights: see the documentation.")
    ] = CodecTraining.begin,
    decoder_only: Annotated[bool, typer.Option("--decoder-only", help="Keep the codes that it gives.")] = False,
    seconds: Annotated[float, typer.Option(help="Length of the crops.")] = CodecTraining.seconds,
    adversarial_from: Annotated[
        int, typer.Option(help="First step with a discriminator; beyond the last one: none.")
    ] = CodecTraining.adversarial_from,
    adversarial_every: Annotated[
        int, typer.Option(help="Steps between those with it.")
    ] = CodecTraining.adversarial_every,
    discriminator_filters: Annotated[int, typer.Option(help="Its width.")] = CodecTraining.discriminator_filters,
    discriminator_windows: Annotated[
        str, typer.Option(metavar="N,N,...", help="Its STFT windows, in samples.")
    ] = ",".join(map(str, CodecTraining.discriminator_windows)),
    learning_rate: Rate = CODEC_OPTIMIZATION.learning_rate,
    warmup: Warmup = CODEC_OPTIMIZATION.warmup,
    last_rate: LastRate = CODEC_OPTIMIZATION.last_rate,
    seed: Seed = RunOptions.seed,
    save_every: SaveEvery = RunOptions.save_every,
    sample_every: SampleEvery = RunOptions.sample_every,
    log_every: LogEvery = RunOptions.log_every,
    tensorboard: Tensorboard = RunOptions.tensorboard,
    restart: Restart = RunOptions.restart,
    cpu: OnCpu = False,
    quiet: Quiet = False,
) -> None:
    """Train an EnCodec codec on audio, with its adversarial losses; what is written goes into magnet train decoder.

    The same command goes on where it was stopped. Sizes and schedule default to those of the published codecs.
    """
    console = _console(quiet)
    with console.reporting():
        run = RunOptions(**given(RunOptions, context), device="cpu" if cpu else "auto")
        shape = CodecShape(
            sample_rate=sample_rate,
            channels=channels,
            ratios=_numbers(ratios, "--ratios"),
            filters=filters,
            dimension=dimension,
            lstm=lstm,
            codebooks=codebooks,
            codes=codes,
        )
        if begin not in get_args(Begin):
            raise UsageError(f"unknown beginning {begin!r}", "Give random or transform")
        options = CodecTraining(
            begin=begin,  # type: ignore[arg-type]
            decoder_only=decoder_only,
            seconds=seconds,
            adversarial_from=adversarial_from,
            adversarial_every=adversarial_every,
            discriminator_filters=discriminator_filters,
            discriminator_windows=_numbers(discriminator_windows, "--discriminator-windows"),
        )
        Places(output).check("codec", [data, *([start] if start else [])])
        optimization = replace(CODEC_OPTIMIZATION, learning_rate=learning_rate, warmup=warmup, last_rate=last_rate)
        with console.busy("loading"):
            from magnet_cli.train.codec import train_codec
            from magnet_cli.train.codec_folder import read_codec_folder

            before = read_codec_folder(start) if start else None
        with _watching(console, run, output) as on_progress:
            train_codec(
                data,
                output,
                shape=shape,
                start=before,
                run=run,
                options=options,
                optimization=optimization,
                on_progress=on_progress,
            )
        _done(console, output)


@app.command()
def decoder(
    context: typer.Context,
    data: Data,
    output: Output,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="MODEL", help="Go on from this model: a name, a Hub id or a folder."),
    ] = None,
    codec_folder: Annotated[
        Path | None,
        typer.Option("--codec", metavar="DIR", help="For a new decoder: the codec, or a bundle that has one."),
    ] = None,
    text_encoder: Annotated[
        str,
        typer.Option(metavar="NAME", help=f"For a new decoder: a T5 by name or folder, or {OWN}: one trained along."),
    ] = "t5-base",
    lora: Annotated[
        int | None, typer.Option(metavar="RANK", help="Train low-rank adapters instead of all weights.")
    ] = None,
    lora_alpha: Annotated[int, typer.Option(help="Their scale, over the rank.")] = LoraOptions.alpha,
    steps: Steps = 100_000,
    batch_size: BatchSize = 16,
    width: Annotated[int, typer.Option(help="Of a new decoder.")] = DecoderShape.width,
    heads: Annotated[int, typer.Option(help="Of a new decoder.")] = DecoderShape.heads,
    layers: Annotated[int, typer.Option(help="Of a new decoder.")] = DecoderShape.layers,
    feed_forward: Annotated[int, typer.Option(help="Of a new decoder.")] = DecoderShape.feed_forward,
    clip_seconds: Annotated[float, typer.Option(help="Length of the clips of a new decoder.")] = (
        DecoderShape.clip_seconds
    ),
    max_period: Annotated[
        float, typer.Option(help="Of a new decoder's positions: the longest period, in frames over 2 pi.")
    ] = DecoderShape.max_period,
    text_width: Annotated[int, typer.Option(help="Of a text encoder trained along.")] = TextShape.width,
    text_layers: Annotated[int, typer.Option(help="Of a text encoder trained along.")] = TextShape.layers,
    text_heads: Annotated[int, typer.Option(help="Of a text encoder trained along.")] = TextShape.heads,
    vocabulary: Annotated[int, typer.Option(help="Of its tokenizer.")] = TextShape.vocabulary,
    round_numbers: Annotated[
        int, typer.Option(help="Let its tokenizer read tempi as multiples of this; 0: as they are.")
    ] = TextShape.round_numbers,
    task: Annotated[str, typer.Option(metavar="music|sound", help="What a new model makes.")] = "music",
    licence: Annotated[str | None, typer.Option(help="Of the result. [default: that of --from, else unknown]")] = None,
    name: Annotated[str | None, typer.Option(help="Of the result. [default: the folder's]")] = None,
    dtype: Annotated[str, typer.Option(metavar="|".join(DTYPES), help="Of the weights in the bundle.")] = "float16",
    text_dropout: Annotated[
        float | None,
        typer.Option(help="Share of clips trained without their text. [default: 0.3 for music, 0.1 for sound]"),
    ] = None,
    codebook_shares: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="How often each codebook is trained. [default: all alike]")
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="|".join(get_args(Precision)), help="Of the arithmetic.")
    ] = DecoderTraining.precision,
    learning_rate: Rate = Optimization.learning_rate,
    warmup: Warmup = Optimization.warmup,
    last_rate: LastRate = Optimization.last_rate,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = Optimization.weight_decay,
    max_norm: Annotated[float, typer.Option(help="Longer gradients are cut; 0: never.")] = Optimization.max_norm,
    ema: Annotated[float, typer.Option(help="Decay of the average of the weights.")] = Optimization.ema,
    ema_every: Annotated[int, typer.Option(help="Steps between its updates.")] = Optimization.ema_every,
    seed: Seed = RunOptions.seed,
    save_every: SaveEvery = RunOptions.save_every,
    sample_every: SampleEvery = RunOptions.sample_every,
    log_every: LogEvery = RunOptions.log_every,
    tensorboard: Tensorboard = RunOptions.tensorboard,
    restart: Restart = RunOptions.restart,
    cpu: OnCpu = False,
    quiet: Quiet = False,
    model_dir: ModelDir = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
) -> None:
    """Train MAGNeT's decoder on audio and texts, from nothing or from any model; writes a bundle.

    The same command goes on where it was stopped. Size and schedule default to those of the small released model.
    """
    console = _console(quiet)
    with console.reporting():
        if task not in get_args(Task):
            raise UsageError(f"unknown task {task!r}", "Give music or sound")
        if dtype not in DTYPES or precision not in get_args(Precision):
            raise UsageError(f"unknown type {dtype!r} or {precision!r}", f"Give one of {', '.join(DTYPES)}")
        if (start is None) == (codec_folder is None):
            raise UsageError(
                "training needs either a model to go on from, or a codec for a new one", "Give --from or --codec"
            )
        run = RunOptions(**given(RunOptions, context), device="cpu" if cpu else "auto")
        shares = None if codebook_shares is None else _numbers(codebook_shares, "--codebook-shares")
        adapters = None if lora is None else LoraOptions(rank=lora, alpha=lora_alpha)
        optimization = chosen(Optimization, context)
        places = PlacesConfig(model_dir, cache_dir, offline)
        _check_places(output, data, places, start=start, others=[codec_folder, Path(text_encoder)])
        with console.transfers(human) as transfers:
            if start is not None:
                download_first(start, places, transfers.report)
            with console.busy("loading"):
                import torch

                from magnet_cli.checkpoints.open import open_model
                from magnet_cli.train.decoder import Publication, start_from, train_decoder

                model = open_model(start, places, on_download=transfers.report) if start is not None else None
        if model is not None:
            parts, kind = start_from(model), model.decoder.task
            licence = licence or model.origin.licence
        else:
            shape = chosen(DecoderShape, context)
            text = TextShape(
                width=text_width,
                layers=text_layers,
                heads=text_heads,
                feed_forward=4 * text_width,
                vocabulary=vocabulary,
                round_numbers=round_numbers,
            )
            parts, kind = _new_parts(data, codec_folder, shape, text_encoder, text, seed, places), task  # type: ignore[assignment]
        options = DecoderTraining(
            text_dropout=TEXT_DROPOUT[kind] if text_dropout is None else text_dropout,
            codebook_shares=shares,
            precision=precision,  # type: ignore[arg-type]
            lora=adapters,
        )
        publication = Publication(
            name=name or output.name, task=kind, licence=licence or UNKNOWN_LICENCE, dtype=getattr(torch, dtype)
        )
        with _watching(console, run, output) as on_progress:
            train_decoder(
                data,
                output,
                parts,
                run=run,
                publication=publication,
                options=options,
                optimization=optimization,
                on_progress=on_progress,
                on_tokens=lambda done, all_: console.message(f"tokenized {done} of {all_} clips"),
            )
        _done(console, output)


def _check_places(
    output: Path, data: Path, places: PlacesConfig, *, start: str | None, others: Sequence[Path | None]
) -> None:
    """OutputError unless a decoder's training may write to its output, which is none of the folders that it reads."""
    from magnet_cli.hub.locate import model_folder

    before = None if start is None else model_folder(start, places)
    inputs = [path for path in (before, *others) if path is not None and path.exists()]
    Places(output).check("decoder", [data, *inputs])


def _new_parts(
    data: Path,
    codec_folder: Path | None,
    shape: DecoderShape,
    text_encoder: str,
    text: TextShape,
    seed: int,
    places: PlacesConfig,
) -> Parts:
    """The parts of a model that is trained from nothing."""
    from magnet_cli.hub.download import Access
    from magnet_cli.hub.locate import locate_text_encoder
    from magnet_cli.train.codec_folder import read_codec_folder
    from magnet_cli.train.data import find_examples
    from magnet_cli.train.decoder import start_new

    if codec_folder is None:
        raise UsageError("a new decoder needs a codec", "Give --codec")
    codec = read_codec_folder(codec_folder)
    if text_encoder == OWN:
        texts = [one for example in find_examples(data, texts=True) for one in example.texts]
        return start_new(shape, codec, seed=seed, text=text, texts=texts)
    folder = Path(text_encoder)
    if not folder.is_dir():
        folder = locate_text_encoder(codec_folder, text_encoder, Access(places.cache_dir, places.offline))
    return start_new(shape, codec, seed=seed, text=folder, text_name=text_encoder)


def _console(quiet: bool) -> Console:
    """Under a launcher, only the first process speaks."""
    return Console(quiet=quiet or os.environ.get("RANK", "0") != "0")


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{option} must be whole numbers with commas between, not {text!r}", "Give e.g. 8,5,4,2"
        ) from error


@contextmanager
def _watching(console: Console, run: RunOptions, output: Path) -> Iterator[OnProgress]:
    """Loss, speed and time left, as a bar, or a line now and then where there is no terminal."""
    seen = 0
    with console.progress(run.steps) as bar:

        def show(progress: Progress) -> None:
            nonlocal seen
            words = describe(progress)
            bar.advance(words, progress.step - seen)
            if not console.draws and (progress.step % (LINES * run.log_every) == 0 or not seen):
                console.message(f"step {progress.step} of {progress.steps}: {words}")
            seen = progress.step

        try:
            yield show
        except KeyboardInterrupt:
            if Places(output).state.is_file():
                console.message(f"the state is in {Places(output).run}: the same command goes on from there")
            raise


def describe(progress: Progress) -> str:
    """A step in words."""
    minutes = progress.left / 60
    left = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    return f"loss {progress.figures['loss']:.3f}, {progress.rate:.2g} steps/s, {left} left"


def _done(console: Console, output: Path) -> None:
    value: Any = str(output)
    if os.environ.get("RANK", "0") == "0":
        console.result(value)
