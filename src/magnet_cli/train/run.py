"""The loop that every training runs: steps, progress, log, saved states, samples, Ctrl-C and resuming.

The random numbers of a step depend only on the seed and the number of the step, so a saved state holds weights and
averages: a training that was killed resumes exactly as if it had not been. accelerate handles processes, devices and
precision.
"""

from __future__ import annotations

import csv
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import torch
from torch import Tensor, nn

from magnet_cli.disk.atomic import write_atomic
from magnet_cli.disk.small_files import UnreadableFileError, read_object
from magnet_cli.disk.unfinished import sweep
from magnet_cli.errors import MagnetError, NumericsError, OutputError, UsageError, one_line, shown
from magnet_cli.hub.folders import CONFIG_FILE, TEXT_FOLDER, TOKENS_FOLDER
from magnet_cli.model.weights import read_package
from magnet_cli.train.options import Optimization, Places, Precision, RunOptions

if TYPE_CHECKING:
    from accelerate import Accelerator

LOG = "log.csv"
SETTINGS = "settings.json"
SAMPLES = "samples"
RESTART = "Give --restart to start again from step 0, or choose another output"
SMOOTHING = 0.98  # of the rates shown while training


class Trainer(Protocol):
    """The model that is trained. Every process has one; only the first process calls `publish` and `sample`."""

    def step(self, number: int) -> dict[str, float]:
        """Train on batch `number`. Returns figures for the log, including `loss`."""

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to resume from here."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state."""

    def publish(self, output: Path) -> None:
        """Write the model as it is now."""

    def sample(self, folder: Path, number: int) -> None:
        """Write audio that shows what the model can do."""


@dataclass(frozen=True)
class Progress:
    """How far a training is: steps done, steps in all, figures of the last step, steps per second, seconds left."""

    step: int
    steps: int
    figures: dict[str, float]
    rate: float
    left: float


OnProgress = Callable[[Progress], None]


def open_accelerator(options: RunOptions, precision: Precision = "float32") -> Accelerator:
    """The accelerator for the processes, devices and precision that the environment and `accelerate launch` set."""
    try:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs
    except ImportError as error:
        raise MagnetError(
            "training needs the package accelerate, which is not installed", "Run pip install magnet-cli[train]"
        ) from error
    mixed = {"float32": "no", "float16": "fp16", "bfloat16": "bf16"}[precision]
    try:
        return Accelerator(
            mixed_precision=mixed,
            cpu=options.device == "cpu",
            # Every step leaves some weights out: the heads of other codebooks, cross-attention where texts are dropped.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
    except ValueError as error:
        raise UsageError(f"{precision} does not work here: {error}", "Give --precision float32") from error


def train(
    trainer: Trainer,
    accelerator: Accelerator,
    options: RunOptions,
    places: Places,
    settings: Mapping[str, Any],
    on_progress: OnProgress | None = None,
) -> None:
    """Run a training to its last step, from its last saved state if there is one.

    `settings` are what the training depends on.

    Raises: UsageError for settings that differ from those of the saved state; KeyboardInterrupt after Ctrl-C, once the
    state is saved; NumericsError when the loss is not finite.
    """
    main = accelerator.is_main_process
    first = resume(trainer, options, places, settings)
    accelerator.wait_for_everyone()
    if main:
        start_folder(places, settings, first)
        with writing(places):
            if options.steps == 0:
                save(trainer, places, 0)
            elif first > 0 and not is_published(places):
                trainer.publish(places.output)
    clock = Clock(first)
    with (
        writing(places),
        Log(places.run, first, tensorboard=options.tensorboard and main) as log,
        stop_requests() as stopped,
    ):
        for number in range(first, options.steps):
            figures = trainer.step(number)
            if not math.isfinite(figures["loss"]):
                raise NumericsError(
                    f"the loss at step {number} is {figures['loss']}",
                    "Give a lower --learning-rate, or --precision bfloat16",
                )
            done = number + 1
            progress = clock.tick(done, options.steps, figures)
            stop = any_process(accelerator, stopped.is_set())
            if main:
                if done % options.log_every == 0 or done == options.steps:
                    log.write(progress)
                if on_progress is not None:
                    on_progress(progress)
                if done % options.save_every == 0 or done == options.steps or stop:
                    save(trainer, places, done)
                if options.sample_every and done % options.sample_every == 0:
                    trainer.sample(places.run / SAMPLES, done)
            if stop:
                raise KeyboardInterrupt
    accelerator.wait_for_everyone()


def resume(trainer: Trainer, options: RunOptions, places: Places, settings: Mapping[str, Any]) -> int:
    """Load the last saved state. Returns the number of steps done before it, 0 without a saved state."""
    if options.restart or not places.state.is_file():
        return 0
    try:
        before = read_object(places.run / SETTINGS)
    except UnreadableFileError as error:
        raise OutputError(f"{places.run / SETTINGS} is damaged: {error}", RESTART) from error
    now = json.loads(json.dumps(settings))
    changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if changed:
        key = changed[0]
        raise UsageError(
            f"the training in {places.run} has {key} {shown(before.get(key))}, not {shown(now.get(key))}",
            "Give the same options to resume it, or --restart to start again from step 0",
        )
    try:
        package = read_package(places.state)
        step = package["step"]
        if type(step) is not int or step < 0:
            raise ValueError(f"its step is {shown(step)}")
        trainer.load(package["trainer"])
    except MagnetError as error:
        raise OutputError(error.message, RESTART) from error
    except Exception as error:  # PyTorch's own checks of a state fail in as many ways as there are parts of it
        raise OutputError(f"{places.state} is damaged: {one_line(error, 100)}", RESTART) from error
    return step


def start_folder(places: Places, settings: Mapping[str, Any], first: int) -> None:
    """Create the folder of a run. A run that starts at step 0 deletes the state of an earlier run."""
    text = json.dumps(settings, indent=2).encode()
    try:
        if first == 0:
            places.state.unlink(missing_ok=True)
        # Written first: a later training recognizes the folder of a training by its settings.
        write_atomic(places.run / SETTINGS, lambda file: file.write(text), overwrite=True)
        (places.run / SAMPLES).mkdir(parents=True, exist_ok=True)
        for folder in (places.run, *(places.run / name for name in (SAMPLES, TOKENS_FOLDER, TEXT_FOLDER))):
            sweep(folder)  # removes a state that was being saved when its training was killed
    except OSError as error:
        raise OutputError(f"cannot write {places.run}: {error.strerror}", "Choose another output") from error


@contextmanager
def writing(places: Places) -> Iterator[None]:
    """Turn what the system refuses while a training writes into an OutputError; the last saved state stays."""
    try:
        yield
    except OSError as error:
        hint = "Free some space, or check the folder's permissions; then run the same command to resume"
        raise OutputError(f"cannot write {error.filename or places.run}: {error.strerror or error}", hint) from error


def save(trainer: Trainer, places: Places, step: int) -> None:
    """Save the state, whole or not at all, then the model."""
    state = {"step": step, "trainer": trainer.state()}

    def write(file: BinaryIO) -> None:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch tries to complete its archive after a failed write, and reports that
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise

    write_atomic(places.state, write, overwrite=True)
    trainer.publish(places.output)


def is_published(places: Places) -> bool:
    """Whether the model was written after the last state: a training may have been killed between the two."""
    try:
        return (places.output / CONFIG_FILE).stat().st_mtime_ns >= places.state.stat().st_mtime_ns
    except OSError:
        return False


def any_process(accelerator: Accelerator, flag: bool) -> bool:
    """Whether the flag is set in any process, so that all stop after the same step."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device)) > 0)


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets, to stop after the current step. The second stops at once."""
    asked = threading.Event()

    def ask(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Clock:
    """The number of steps per second, smoothed."""

    def __init__(self, first: int) -> None:
        self._then = time.monotonic()
        self._seconds = 0.0
        self._weight = 0.0

    def tick(self, done: int, steps: int, figures: dict[str, float]) -> Progress:
        """Count one more step. Returns the progress after it."""
        now = time.monotonic()
        self._seconds = SMOOTHING * self._seconds + (1 - SMOOTHING) * (now - self._then)
        self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        self._then = now
        seconds = self._seconds / self._weight
        return Progress(done, steps, figures, 1 / max(seconds, 1e-9), seconds * (steps - done))


class Log:
    """`log.csv`, cut at the step that the training resumes from, and TensorBoard's files if `tensorboard` is set."""

    def __init__(self, folder: Path, first: int, *, tensorboard: bool) -> None:
        self._path = folder / LOG
        self._first = first
        self._columns: list[str] = []
        self._board: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise MagnetError(
                    "the package tensorboard is not installed", "Run pip install magnet-cli[train]"
                ) from error
            self._board = SummaryWriter(folder / "tensorboard", purge_step=first)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._board is not None:
            with suppress(OSError) if kind else nullcontext():  # a failed write fails here again
                self._board.close()

    def write(self, progress: Progress) -> None:
        """Append the line of a step."""
        row = {"step": progress.step, "rate": round(progress.rate, 4), **progress.figures}
        if not row.keys() <= set(self._columns):
            self._columns = self._begin(row)
        text = StringIO()
        csv.DictWriter(text, self._columns, restval="", extrasaction="ignore", lineterminator="\n").writerow(row)
        self._append(text.getvalue().encode())
        if self._board is not None:
            for name, value in progress.figures.items():
                self._board.add_scalar(name, value, progress.step)

    def _append(self, line: bytes) -> None:
        """Append a line, whole or not at all: part of a line would be read as the figures of another step."""
        with self._path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                written = file.write(line)
                if written != len(line):
                    file.write(line[written:])  # raises what stopped the first write
            except OSError:
                file.truncate(before)
                raise

    def _begin(self, row: Mapping[str, Any]) -> list[str]:
        """Rewrite the file with a column for every figure of a line, keeping earlier lines. Returns the columns."""
        kept: list[dict[str, str]] = []
        if (self._first or self._columns) and self._path.is_file():
            with self._path.open(encoding="utf-8", newline="") as file:
                kept = [one for one in csv.DictReader(file) if (one.get("step") or "").isdigit()]
        if not self._columns:
            kept = [one for one in kept if int(one["step"]) <= self._first]
        columns = list(dict.fromkeys([*(kept[0] if kept else ()), *row]))
        text = StringIO()
        writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        write_atomic(self._path, lambda file: file.write(text.getvalue().encode()), overwrite=True)
        return columns


# -- optimization -----------------------------------------------------------------------------------------------------


def rate_at(step: int, steps: int, options: Optimization) -> float:
    """The learning rate of a step: linear warm-up, then half a cosine from 1 to `last_rate`."""
    if step < options.warmup:
        return options.learning_rate * (step + 1) / options.warmup
    done = (step - options.warmup) / max(1, steps - options.warmup)
    share = options.last_rate + (1 - options.last_rate) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return options.learning_rate * share


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use this learning rate from now on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class Average:
    """The exponential moving average of a network's weights, which is what is published.

    Its decay is `min(decay, (1 + n) / (10 + n))` after n updates: an early average forgets faster, so that after a
    short training it is not dominated by the initial weights.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {name: one.detach().clone() for name, one in self._floats(module)}

    @staticmethod
    def _floats(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                yield name, tensor

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Add the current weights of the network to the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, tensor in self._floats(module):
            self.weights[name].lerp_(tensor.to(self.weights[name].device), 1 - decay)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Give the network the averaged weights while the block runs."""
        own = {name: tensor.detach().clone() for name, tensor in self._floats(module)}
        module.load_state_dict(self.weights, strict=False)
        try:
            yield
        finally:
            module.load_state_dict(own, strict=False)

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs."""
        return {"updates": self.updates, "weights": self.weights}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state."""
        self.updates = int(state["updates"])
        for name, tensor in state["weights"].items():
            self.weights[name].copy_(tensor)
