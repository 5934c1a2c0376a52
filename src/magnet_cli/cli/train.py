"""`magnet train`: trains a decoder, or a codec."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from magnet_cli.errors import HubError, UsageError
from magnet_cli.hub.folders import BEST_FOLDER
from magnet_cli.hub.registry import UNKNOWN_LICENCE
from magnet_cli.options.runtime import PlacesConfig
from magnet_cli.options.sampling import Task
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.help import HelpGroup
from magnet_cli.terminal.options import Speech, human
from magnet_cli.terminal.progress import ProgressBar
from magnet_cli.terminal.signature import command, given_of, only
from magnet_cli.terminal.stopping import Stopping
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
    check_packages,
)

if TYPE_CHECKING:
    from magnet_cli.train.decoder import Parts
    from magnet_cli.train.loop.events import Event, Outcome, Progress
    from magnet_cli.train.rehearsal import Rehearsal

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
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Print what the training would use and need: examples, schedule, memory, disk and time. Two steps are "
        "trained to measure it, and nothing is written.",
        rich_help_panel="Run",
    ),
]
OnCpu = Annotated[
    bool,
    typer.Option("--cpu", help="Train on the CPU, whatever devices accelerate finds.", rich_help_panel="Run"),
]


# What --help shows of the many options.
# A decoder that uses its context has a loss at least so much lower, in nats, with half of a clip given, after so many
# steps. One that does not draws every frame by itself.
DEAF_AFTER, HEARD = 1000, 0.3
CODEC_EVERYDAY = (
    *("--output", "--from", "--steps", "--batch-size", "--learning-rate", "--seed", "--held-out", "--dry-run"),
    *("--begin", "--sample-rate", "--ratios", "--restart", "--cpu", "--quiet"),
)
DECODER_EVERYDAY = (
    *("--output", "--from", "--codec", "--lora", "--steps", "--batch-size", "--learning-rate", "--seed", "--held-out"),
    *("--dry-run", "--sample-prompt", "--precision", "--restart", "--cpu", "--quiet"),
)


@command(app, everyday=CODEC_EVERYDAY)
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
    dry_run: DryRun = False,
    speech: Annotated[Speech, only("quiet", "log_file")],
) -> None:
    """Train an EnCodec codec on audio.

    Writes a folder for magnet train decoder --codec. A training that was stopped resumes with the same command. Sizes
    and schedule default to those of the published codecs.

    Example: magnet train codec data -o codec --begin transform --held-out 0.1
    """
    console = _console(speech)
    with console.reporting():
        _set_farewell()
        run = replace(run, device="cpu" if cpu else "auto")
        if options.begin not in get_args(Begin):
            raise UsageError(f"unknown value for --begin: {options.begin!r}", "Give random, transform or phase-free")
        check_packages(tensorboard=run.tensorboard)
        Places(output).check("codec", [data, *([start] if start else [])])
        with console.busy("loading"):
            from magnet_cli.train.codec import rehearse_codec, train_codec
            from magnet_cli.train.codec_folder import read_codec_folder

            before = read_codec_folder(start) if start else None
        if dry_run:
            with console.busy("measuring two steps"):
                rehearsal = rehearse_codec(
                    data, output, shape=shape, start=before, run=run, options=options, optimization=optimization
                )
            _show(console, rehearsal)
            return
        with _reporting(console, run, output) as report:
            outcome = train_codec(
                data,
                output,
                shape=shape,
                start=before,
                run=run,
                options=options,
                optimization=optimization,
                listener=report.hear,
                stopped=report.stopped,
            )
        following = ["magnet", "train", "decoder", str(data), "-o", f"{output}-decoder", "--codec", str(output)]
        _done(console, output, outcome, following)


@command(app, everyday=DECODER_EVERYDAY)
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
    sample_prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="Prompt of the audio samples, which are written to DIR.run/samples; may be given several times.",
            show_default="the texts of four files",
            rich_help_panel="Run",
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
    dry_run: DryRun = False,
    places: PlacesConfig,
    speech: Annotated[Speech, only("quiet", "log_file")],
) -> None:
    """Train MAGNeT's decoder on audio and texts.

    Continues from any model, or trains a new decoder, and writes a bundle that every command accepts as --model. A
    training that was stopped resumes with the same command, and more --steps extend one. Sizes default to those of the
    small released model.

    Example: magnet train decoder data -o mine --from magnet-small-10secs --learning-rate 1e-5 --steps 5000 --dry-run

    Example: magnet generate "disco beat" --model mine
    """
    console = _console(speech)
    with console.reporting():
        _set_farewell()
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
        if text.synonyms is not None and (start is not None or text_encoder != OWN):
            raise UsageError(
                "--synonyms becomes part of a new text encoder, and this training has an existing one",
                f"Leave it out, or train a new decoder with --text-encoder {OWN}",
            )
        check_packages(lora="rank" in lora, tensorboard=run.tensorboard)
        run = replace(run, device="cpu" if cpu else "auto")
        from magnet_cli.hub.download import Access
        from magnet_cli.hub.locate import fetch_first, resolve

        named = [Path(one) for one in (start, codec_folder, text_encoder) if one is not None]
        _check_output(output, [data, *named])  # before a name is looked up
        base = None if start is None else resolve(start, places)
        if dry_run and base is not None and base.folder is None:
            raise HubError(
                f"{base.name} is not on this machine, and a dry run downloads nothing",
                f"Run magnet models download {base.name} first",
            )
        if base is not None and base.own_folder is not None:
            _check_output(output, [base.own_folder])
        with console.transfers(human) as transfers:
            if base is not None:
                fetch_first(base, Access(places.cache_dir, places.offline, transfers.hear))
            with console.busy("loading"):
                import torch

                from magnet_cli.checkpoints.open import open_magnet
                from magnet_cli.train.data import find_examples
                from magnet_cli.train.decoder import Publication, rehearse_decoder, start_from, train_decoder

                model = None if base is None else open_magnet(base, listener=transfers.hear)
        if model is not None:
            parts, kind = start_from(model), model.decoder.task
            licence = licence or model.origin.licence
        else:
            text = replace(text, feed_forward=4 * text.width)
            places = replace(places, offline=places.offline or dry_run)
            parts, kind = _new_parts(data, codec_folder, shape, text_encoder, text, run.seed, places), task  # type: ignore[assignment]
        options = replace(
            training,
            text_dropout=TEXT_DROPOUT[kind] if text_dropout is None else text_dropout,
            lora=LoraOptions(**lora) if "rank" in lora else None,
        )
        publication = Publication(
            name=name or output.name, task=kind, licence=licence or UNKNOWN_LICENCE, dtype=getattr(torch, dtype)
        )
        if dry_run:
            with console.busy("measuring two steps"):
                rehearsal = rehearse_decoder(
                    data, output, parts, run=run, publication=publication, options=options, optimization=optimization
                )
            _show(console, rehearsal)
            return
        with _reporting(console, run, output) as report:
            outcome = train_decoder(
                data,
                output,
                parts,
                run=run,
                publication=publication,
                options=options,
                optimization=optimization,
                prompts=sample_prompt or (),
                listener=report.hear,
                stopped=report.stopped,
            )
        prompt = sample_prompt[0] if sample_prompt else find_examples(data, texts=True)[0].texts[0]
        _done(console, output, outcome, ["magnet", "generate", prompt, "--model", str(output), "-o", "clip.wav"])


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


def _show(console: Console, rehearsal: Rehearsal) -> None:
    """Print what a training would use and need."""
    for name, value in rehearsal.rows(human):
        console.result(f"{name:<9} {value}")
    if rehearsal.schedule.warning is not None:
        console.warning(f"{rehearsal.schedule.warning}.")
    console.message("dry run: nothing was written")


def _console(speech: Speech) -> Console:
    """The console, which only the first process of a launcher prints to."""
    first = os.environ.get("RANK", "0") == "0"
    return Console(quiet=speech.quiet or not first, log=speech.log_file if first else None)


class Reporter:
    """Prints what a training reports: a bar, or lines where stderr is not a terminal."""

    def __init__(self, console: Console, bar: ProgressBar, run: RunOptions, wait: Callable[[], None]) -> None:
        self._console, self._bar, self._wait = console, bar, wait
        self._every = LINES * run.log_every
        self._first = self._seen = 0  # steps done before, and the last one shown
        self._stopping = Stopping.current()

    def hear(self, event: Event) -> None:
        """Print an event."""
        from magnet_cli.train.loop.events import Context, Encoded, HeldOut, Progress, Started
        from magnet_cli.train.rehearsal import length

        match event:
            case Encoded(done, total):
                self._console.message(f"the codec has encoded {done} of {total} clips")
            case Started(first, schedule):
                self._wait()
                self._first = self._seen = first
                self._bar.resume(first)
                resumed = f"resuming after step {first}: " if first else ""
                self._console.message(f"{resumed}{schedule.words}")
                if schedule.warning is not None:
                    self._console.warning(f"{schedule.warning}.")
            case HeldOut(step, loss, best):
                note = ", the lowest so far" if best and step else ""
                self._console.message(f"step {step}: held-out loss {loss:.3f}{note}")
            case Context(step, all_hidden, half_hidden):
                self._console.message(
                    f"step {step}: loss of codebook 1 {all_hidden:.2f} with all hidden, {half_hidden:.2f} with half"
                )
                if step >= DEAF_AFTER and all_hidden - half_hidden < HEARD:
                    self._console.warning(
                        "the decoder hardly uses the codes that it is given. More training rarely changes that: begin "
                        "with context (--begin context), or use a codec whose codes repeat (--begin phase-free)."
                    )
            case Progress():
                is_first = self._seen == self._first
                self._bar.advance(describe(event), event.step - self._seen)
                if not self._console.draws and (event.step % self._every == 0 or is_first):
                    left = length(event.left)
                    self._console.message(f"step {event.step} of {event.steps}: {describe(event)}, {left} left")
                self._seen = event.step

    def stopped(self) -> bool:
        """Whether Ctrl-C or SIGTERM asks to stop after the present step."""
        return self._stopping is not None and self._stopping.code is not None


@contextmanager
def _reporting(console: Console, run: RunOptions, output: Path) -> Iterator[Reporter]:
    """Print the progress of a training. After the first Ctrl-C or SIGTERM the step ends and the state is saved."""
    stopping = Stopping.current()
    try:
        with console.progress(run.steps, lines=False) as bar, ExitStack() as stack:

            def wait() -> None:  # what precedes the first step stops at once
                if stopping is not None:
                    stack.enter_context(stopping.after_step((signal.SIGINT, signal.SIGTERM)))

            yield Reporter(console, bar, run, wait)
    except KeyboardInterrupt:
        places = Places(output)
        _set_farewell(places.run if places.state.is_file() else None)
        if stopping is not None:
            stopping.check()
        raise


def _set_farewell(run: Path | None = None) -> None:
    """Have the last line after Ctrl-C say how to resume. run: the folder of the saved state, if there is one."""
    stopping = Stopping.current()
    if stopping is not None and run is not None:
        stopping.farewell = f"interrupted. The state is in {run}; run the same command to resume the training."
    elif stopping is not None:
        stopping.farewell = "interrupted. No step was trained; run the same command again."


def describe(progress: Progress) -> str:
    """A step in words."""
    smoothed = [f"loss {progress.smoothed['loss']:.3f}"]
    codebooks = [f"{value:.2f}" for name, value in progress.smoothed.items() if name != "loss"]
    if codebooks:
        smoothed[0] += f" (codebooks {' '.join(codebooks)})"
    if progress.held_out is not None:
        smoothed.append(f"held-out {progress.held_out:.3f}")
    if progress.memory:
        smoothed.append(human(progress.memory))
    return ", ".join([*smoothed, f"{progress.rate:.2g} steps/s"])


def _done(console: Console, output: Path, outcome: Outcome, following: Sequence[str]) -> None:
    """Say how a training ended, and which command uses its result."""
    if os.environ.get("RANK", "0") != "0":
        return
    if not outcome.is_new:
        console.message(f"already finished: this training has done its {outcome.steps} steps. More --steps extend it.")
    if outcome.best is not None and outcome.best_step != outcome.steps:
        best = Places(output).run / BEST_FOLDER
        console.message(
            f"the held-out loss was lowest at step {outcome.best_step}: {outcome.best:.3f}. That model is {best}"
        )
    console.message(f"next: {shlex.join(following)}")
    console.result(output)
