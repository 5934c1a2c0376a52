"""`magnet train`: trains a decoder, or a codec."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from magnet_cli.errors import UsageError
from magnet_cli.hub.registry import UNKNOWN_LICENCE
from magnet_cli.options.runtime import PlacesConfig
from magnet_cli.options.sampling import Task
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.help import HelpGroup
from magnet_cli.terminal.options import Speech, human
from magnet_cli.terminal.signature import command, given_of, only
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
    cls=HelpGroup,
    help="Train or fine-tune a decoder, or train a codec.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="For several GPUs or machines, use accelerate launch -m magnet_cli train .... Training needs more packages: "
    "pip install '.[train]' in a clone of the repository.",
)

OWN = "own"
DTYPES = ("float16", "bfloat16", "float32")
CODEC_RUN = RunOptions(steps=500_000, batch_size=64)
DECODER_RUN = RunOptions(steps=100_000, batch_size=16)
LINES = 20  # log entries between lines where stderr is not a terminal

Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="Folder of audio files, with their texts in metadata.jsonl or metadata.csv, or in a .json or .txt file "
        "beside each.",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder to write. The state, log and samples of the training go to DIR.run beside it.",
        rich_help_panel="Training",
    ),
]
OnCpu = Annotated[
    bool,
    typer.Option("--cpu", help="Train on the CPU, whatever devices accelerate finds.", rich_help_panel="Run"),
]


@command(app)
def codec(
    data: Data,
    *,
    output: Output,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Codec to continue from: a folder that magnet train codec wrote, or a bundle.",
            show_default="none: a new codec",
            rich_help_panel="Training",
        ),
    ] = None,
    run: RunOptions = CODEC_RUN,
    options: CodecTraining,
    optimization: Annotated[Optimization, only("learning_rate", "warmup", "last_rate")] = CODEC_OPTIMIZATION,
    shape: CodecShape,
    cpu: OnCpu = False,
    speech: Annotated[Speech, only("quiet")],
) -> None:
    """Train an EnCodec codec on audio.

    Writes a folder for magnet train decoder --codec. A training that was stopped resumes with the same command. Sizes
    and schedule default to those of the published codecs.
    """
    console = _console(speech)
    with console.reporting():
        run = replace(run, device="cpu" if cpu else "auto")
        if options.begin not in get_args(Begin):
            raise UsageError(f"unknown value for --begin: {options.begin!r}", "Give random or transform")
        Places(output).check("codec", [data, *([start] if start else [])])
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


@command(app)
def decoder(
    data: Data,
    *,
    output: Output,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Model to continue from: a name, a repository on the Hugging Face Hub, or a folder. Give either this "
            "or --codec.",
            rich_help_panel="Training",
        ),
    ] = None,
    codec_folder: Annotated[
        Path | None,
        typer.Option(
            "--codec",
            metavar="DIR",
            help="Codec for a new decoder: a folder that magnet train codec wrote, or a bundle. Give either this or "
            "--from.",
            rich_help_panel="Training",
        ),
    ] = None,
    text_encoder: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"Text encoder of a new decoder: the name or folder of a T5, or {OWN} for a new text encoder that is "
            "trained with the decoder.",
            rich_help_panel="Training",
        ),
    ] = "t5-base",
    lora: Annotated[Mapping[str, Any], given_of(LoraOptions)],
    run: RunOptions = DECODER_RUN,
    text_dropout: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the clips that are trained without their text, 0 to 1, which makes guidance possible.",
            show_default="0.3 for music, 0.1 for sound",
            rich_help_panel="Training",
        ),
    ] = None,
    training: DecoderTraining,
    optimization: Optimization,
    shape: DecoderShape,
    text: TextShape,
    task: Annotated[
        str,
        typer.Option(metavar="|".join(get_args(Task)), help="What a new decoder generates.", rich_help_panel="Bundle"),
    ] = "music",
    licence: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Licence of the trained model.",
            show_default=f"that of --from, otherwise {UNKNOWN_LICENCE}",
            rich_help_panel="Bundle",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Name of the trained model.",
            show_default="that of the output folder",
            rich_help_panel="Bundle",
        ),
    ] = None,
    dtype: Annotated[
        str,
        typer.Option(
            metavar="|".join(DTYPES), help="Precision of the weights that are written.", rich_help_panel="Bundle"
        ),
    ] = "float16",
    cpu: OnCpu = False,
    places: PlacesConfig,
    speech: Annotated[Speech, only("quiet")],
) -> None:
    """Train MAGNeT's decoder on audio and texts.

    Continues from any model, or trains a new decoder, and writes a bundle that every command accepts as --model. A
    training that was stopped resumes with the same command. Sizes and schedule default to those of the small released
    model.
    """
    console = _console(speech)
    with console.reporting():
        if task not in get_args(Task):
            raise UsageError(f"unknown task {task!r}", "Give music or sound")
        if dtype not in DTYPES or training.precision not in get_args(Precision):
            raise UsageError(
                f"unknown --dtype {dtype!r} or --precision {training.precision!r}", f"Give one of {', '.join(DTYPES)}"
            )
        if (start is None) == (codec_folder is None):
            raise UsageError(
                "training needs either a model to continue from, or a codec for a new one", "Give --from or --codec"
            )
        run = replace(run, device="cpu" if cpu else "auto")
        from magnet_cli.hub.download import Access
        from magnet_cli.hub.locate import fetch_first, resolve

        named = [Path(one) for one in (start, codec_folder, text_encoder) if one is not None]
        _check_output(output, [data, *named])  # before a name is looked up
        base = None if start is None else resolve(start, places)
        if base is not None and base.own_folder is not None:
            _check_output(output, [base.own_folder])
        with console.transfers(human) as transfers:
            if base is not None:
                fetch_first(base, Access(places.cache_dir, places.offline, transfers.hear))
            with console.busy("loading"):
                import torch

                from magnet_cli.checkpoints.open import open_magnet
                from magnet_cli.train.decoder import Publication, start_from, train_decoder

                model = None if base is None else open_magnet(base, listener=transfers.hear)
        if model is not None:
            parts, kind = start_from(model), model.decoder.task
            licence = licence or model.origin.licence
        else:
            text = replace(text, feed_forward=4 * text.width)
            parts, kind = _new_parts(data, codec_folder, shape, text_encoder, text, run.seed, places), task  # type: ignore[assignment]
        options = replace(
            training,
            text_dropout=TEXT_DROPOUT[kind] if text_dropout is None else text_dropout,
            lora=LoraOptions(**lora) if "rank" in lora else None,
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


def _check_output(output: Path, inputs: Sequence[Path]) -> None:
    """Check that a decoder's training may write to its output, and that it reads from none of the same folders.

    Raises: OutputError if it may not.
    """
    Places(output).check("decoder", [path for path in inputs if path.exists()])


def _new_parts(
    data: Path,
    codec_folder: Path | None,
    shape: DecoderShape,
    text_encoder: str,
    text: TextShape,
    seed: int,
    places: PlacesConfig,
) -> Parts:
    """The parts of a new model."""
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


def _console(speech: Speech) -> Console:
    """The console, which only the first process of a launcher prints to."""
    return Console(quiet=speech.quiet or os.environ.get("RANK", "0") != "0")


@contextmanager
def _watching(console: Console, run: RunOptions, output: Path) -> Iterator[OnProgress]:
    """Loss, speed and remaining time, as a bar; where stderr is not a terminal, as a line now and then."""
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
                console.message(f"the state is in {Places(output).run}: run the same command to resume the training")
            raise


def describe(progress: Progress) -> str:
    """A step in words."""
    minutes = progress.left / 60
    left = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
    return f"loss {progress.figures['loss']:.3f}, {progress.rate:.2g} steps/s, {left} left"


def _done(console: Console, output: Path) -> None:
    if os.environ.get("RANK", "0") == "0":
        console.result(output)
