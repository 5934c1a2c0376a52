"""The loop that every training runs: steps, log, saved states, samples, Ctrl-C and resuming.

The random numbers of a step depend only on the seed and the number of the step, so a saved state holds weights and
averages: a training that was killed resumes exactly as if it had not been. accelerate handles processes, devices and
precision.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import torch

from magnet_cli.disk.atomic import write_atomic
from magnet_cli.disk.small_files import UnreadableFileError, read_object
from magnet_cli.disk.unfinished import sweep
from magnet_cli.engines.device import peak_memory
from magnet_cli.errors import MagnetError, NumericsError, OutputError, UsageError, one_line, shown
from magnet_cli.hub.folders import BEST_FOLDER, CONFIG_FILE, TEXT_FOLDER, TOKENS_FOLDER
from magnet_cli.model.weights import read_package
from magnet_cli.train.loop.events import Context, HeldOut, Listener, Outcome, Progress, Started, ignore
from magnet_cli.train.loop.log import Log
from magnet_cli.train.loop.schedule import Schedule, new_schedule, schedule_of, settings_with
from magnet_cli.train.options import Optimization, Places, Precision, RunOptions, check_packages

if TYPE_CHECKING:
    from accelerate import Accelerator

SETTINGS = "settings.json"
SAMPLES = "samples"
RESTART = "Give --restart to start again from step 0, or choose another output"
SMOOTHING = 0.98  # of the rates and losses shown while training
# Of the settings that may differ when a training resumes: `schedule_of` compares the steps.
SCHEDULED = frozenset({"steps", "schedule"})
WARMUP = "optimization.warmup"


class Trainer(Protocol):
    """The model that is trained. Every process has one; only the first process calls the methods after `load`."""

    def step(self, number: int, rate: float) -> dict[str, float]:
        """Train on batch `number` with this learning rate. Returns figures for the log, including `loss`."""

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to resume from here."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state."""

    def publish(self, output: Path) -> None:
        """Write the model as it is now."""

    def sample(self, folder: Path, number: int) -> None:
        """Write audio that shows what the model can do."""

    def held_out(self) -> dict[str, float]:
        """Losses of the model as it would be written, and `held_out`, that on the held-out files, if there are any."""


def never() -> bool:
    """Do not stop."""
    return False


@dataclass
class Best:
    """The lowest loss on the held-out files so far."""

    loss: float | None = None
    step: int | None = None

    def take(self, loss: float, step: int) -> bool:
        """Whether this is lower than all before."""
        if self.loss is not None and loss >= self.loss:
            return False
        self.loss, self.step = loss, step
        return True


def open_accelerator(options: RunOptions, precision: Precision = "float32") -> Accelerator:
    """The accelerator for the processes, devices and precision that the environment and `accelerate launch` set.

    Raises: MagnetError without the package; UsageError for a precision that the device does not have.
    """
    check_packages(tensorboard=options.tensorboard)
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

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
    *,
    optimization: Optimization,
    listener: Listener = ignore,
    stopped: Callable[[], bool] = never,
) -> Outcome:
    """Run a training to its last step, from its last saved state if there is one.

    settings: what the training depends on beside the optimization, batch size, seed and number of steps. stopped:
    asked after every step whether to save the state and stop.

    Raises: UsageError for settings that differ from those of the saved state; KeyboardInterrupt when it was stopped,
    once the state is saved; NumericsError when the loss is not finite.
    """
    main = accelerator.is_main_process
    settings = recorded(settings, options, optimization)
    resumed = resume(trainer, options, places, settings, optimization)
    first, schedule, best = resumed.step, resumed.schedule, resumed.best
    if main:
        with writing(places):
            sweep_run(places)
    if resumed.is_saved and first >= options.steps and is_published(places):
        return Outcome(first, options.steps, best.loss, best.step)
    accelerator.wait_for_everyone()
    listener(Started(first, schedule))
    if main:
        start_folder(places, settings_with(settings, schedule), first)
        with writing(places):
            if options.steps == 0:
                save(trainer, places, 0, best)
            elif first > 0 and not is_published(places):
                trainer.publish(places.output)
    clock = Clock(first, best.loss)
    with writing(places), Log(places.run, first, tensorboard=options.tensorboard and main) as log:
        if main and first == 0 and options.steps > 0:
            log.write_if(0, measure(trainer, places, 0, best, listener))
        for number in range(first, options.steps):
            figures = trainer.step(number, schedule.rate(number))
            if not math.isfinite(figures["loss"]):
                raise NumericsError(
                    f"the loss at step {number} is {figures['loss']}",
                    "Give a lower --learning-rate, or --precision bfloat16",
                )
            done = number + 1
            progress = clock.tick(done, options.steps, figures, peak_memory(accelerator.device))
            stop = any_process(accelerator, stopped())
            if main:
                last = done == options.steps
                held = measure(trainer, places, done, best, listener) if last or done % options.validation == 0 else {}
                clock.held_out = held.get("held_out", clock.held_out)
                if last or held or done % options.log_every == 0:
                    log.write(done, {"rate": round(progress.rate, 4), **figures, **held})
                listener(progress)
                if last or stop or done % options.save_every == 0:
                    save(trainer, places, done, best)
                if options.sampling and done % options.sampling == 0:
                    trainer.sample(places.run / SAMPLES, done)
            if stop:
                raise KeyboardInterrupt
    accelerator.wait_for_everyone()
    return Outcome(first, options.steps, best.loss, best.step)


def recorded(settings: Mapping[str, Any], options: RunOptions, optimization: Optimization) -> dict[str, Any]:
    """All settings that a training depends on."""
    names = ("steps", "batch_size", "seed", "held_out")
    return {**settings, "optimization": asdict(optimization), **{name: getattr(options, name) for name in names}}


def measure(trainer: Trainer, places: Places, done: int, best: Best, listener: Listener) -> dict[str, float]:
    """Measure the use of context and the losses on held-out files, and keep the model if it is the best so far."""
    figures = trainer.held_out()
    if "half_hidden" in figures:
        listener(Context(done, figures["all_hidden"], figures["half_hidden"]))
    if "held_out" in figures:
        loss = figures["held_out"]
        is_best = best.take(loss, done)
        if is_best:
            trainer.publish(places.run / BEST_FOLDER)
        listener(HeldOut(done, loss, is_best))
    return figures


@dataclass(frozen=True)
class Resumed:
    """Where a training begins: steps done, the schedule, the best held-out loss, and whether there is a saved state."""

    step: int
    schedule: Schedule
    best: Best
    is_saved: bool


def resume(
    trainer: Trainer,
    options: RunOptions,
    places: Places,
    settings: Mapping[str, Any],
    optimization: Optimization,
) -> Resumed:
    """Load the last saved state, if there is one and `restart` is not set.

    Raises: UsageError for settings that differ from those of the saved state; OutputError for a damaged one.
    """
    if options.restart or not places.state.is_file():
        return Resumed(0, new_schedule(options.steps, optimization), Best(), False)
    try:
        before = read_object(places.run / SETTINGS)
    except UnreadableFileError as error:
        raise OutputError(f"{places.run / SETTINGS} is damaged: {error}", RESTART) from error
    check_same(places, before, settings)
    step, best = load_state(trainer, places)
    try:
        return Resumed(step, schedule_of(before, step, options.steps, optimization), best, True)
    except ValueError as error:
        raise OutputError(f"{places.run / SETTINGS} is damaged: {error}", RESTART) from error


def check_same(places: Places, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Check that a training resumes with the settings that it began with, but for its schedule.

    Raises: UsageError with the first that differs.
    """
    old, new = flat(before), flat(json.loads(json.dumps(settings)))
    left_out = set(SCHEDULED)
    if new.get(WARMUP) is None or old.get("steps") != new.get("steps"):
        left_out.add(WARMUP)  # it follows from the number of steps, or belongs to the steps that are added
    changed = sorted(key for key in {*old, *new} - left_out if old.get(key) != new.get(key))
    if changed:
        key = changed[0]
        raise UsageError(
            f"the training in {places.run} has {key} {shown(old.get(key))}, not {shown(new.get(key))}",
            "Give the same options to resume it, or --restart to start again from step 0",
        )


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Settings in settings as one mapping, with keys such as optimization.warmup."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, dict) and value else {f"{above}{key}": value}
    return found


def load_state(trainer: Trainer, places: Places) -> tuple[int, Best]:
    """Restore the saved state. Returns the number of steps done before it, and the best held-out loss among them.

    Raises: OutputError for a damaged one.
    """
    try:
        package = read_package(places.state)
        step, best = package["step"], Best(*package.get("best", (None, None)))
        if type(step) is not int or step < 0:
            raise ValueError(f"its step is {shown(step)}")
        trainer.load(package["trainer"])
    except MagnetError as error:
        raise OutputError(error.message, RESTART) from error
    except Exception as error:  # PyTorch's own checks of a state fail in as many ways as there are parts of it
        raise OutputError(f"{places.state} is damaged: {one_line(error, 100)}", RESTART) from error
    return step, best


def sweep_run(places: Places) -> None:
    """Remove files that were being written when an earlier run of the training was killed."""
    for folder in (places.run, *(places.run / name for name in (SAMPLES, TOKENS_FOLDER, TEXT_FOLDER))):
        sweep(folder)


def start_folder(places: Places, settings: Mapping[str, Any], first: int) -> None:
    """Create the folder of a run. A run that starts at step 0 deletes the state of an earlier run."""
    text = json.dumps(settings, indent=2).encode()
    try:
        if first == 0:
            places.state.unlink(missing_ok=True)
        # Written first: a later training recognizes the folder of a training by its settings.
        write_atomic(places.run / SETTINGS, lambda file: file.write(text), overwrite=True)
        (places.run / SAMPLES).mkdir(parents=True, exist_ok=True)
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


def save(trainer: Trainer, places: Places, step: int, best: Best) -> None:
    """Save the state, whole or not at all, then the model."""
    state = {"step": step, "trainer": trainer.state(), "best": (best.loss, best.step)}

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


class Clock:
    """Steps per second and losses, smoothed."""

    def __init__(self, first: int, held_out: float | None) -> None:
        self.held_out = held_out
        self._then = time.monotonic()
        self._seconds = Smoothed()
        self._losses: dict[str, Smoothed] = {}

    def tick(self, done: int, steps: int, figures: dict[str, float], memory: int) -> Progress:
        """Count one more step. Returns the progress after it."""
        now = time.monotonic()
        seconds = max(self._seconds.take(now - self._then), 1e-9)
        self._then = now
        for name, value in figures.items():
            if name.startswith("loss"):
                self._losses.setdefault(name, Smoothed()).take(value)
        smoothed = {name: one.value for name, one in sorted(self._losses.items())}
        return Progress(done, steps, figures, smoothed, self.held_out, 1 / seconds, seconds * (steps - done), memory)


class Smoothed:
    """A moving average that is right from the first value on."""

    def __init__(self) -> None:
        self._sum, self._weight = 0.0, 0.0

    def take(self, value: float) -> float:
        """Add a value. Returns the average."""
        self._sum = SMOOTHING * self._sum + (1 - SMOOTHING) * value
        self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        return self.value

    @property
    def value(self) -> float:
        """The average."""
        return self._sum / self._weight
