"""The work of `magnet stream`: a stream, what hears it, and the lines that steer it.

Apart from the command itself, so that its help imports nothing slow.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.formats import AUDIO_EXTENSIONS, check_format
from magnet_cli.cli.info import check_download
from magnet_cli.cli.prompt_lines import lines_of_input
from magnet_cli.cli.run_jobs import load, open_parts, shortened
from magnet_cli.disk.atomic import check_writable, write_together
from magnet_cli.errors import DeviceError, MagnetError, ReplayError, UsageError
from magnet_cli.hub.locate import ResolvedModel, resolve
from magnet_cli.hub.registry import DEFAULT_MODEL
from magnet_cli.jobs.naming import slug
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import Job, check_prompt, draw_seed
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling import SamplingConfig
from magnet_cli.options.sampling_overrides import Overrides, apply_all
from magnet_cli.options.stream import StreamOptions
from magnet_cli.pipeline.pipeline import Pipeline
from magnet_cli.pipeline.rules import check_job
from magnet_cli.playing.pcm import endless_wav_header, pcm16
from magnet_cli.playing.player import INSTALL, Playback, PlayerError, check_players, start_stream
from magnet_cli.streaming.ahead import HearingClock, made_ahead
from magnet_cli.streaming.files import StreamFiles
from magnet_cli.streaming.record import StreamRecipe, as_json, read_stream_record, record_of
from magnet_cli.streaming.stream import Stream, StreamPlan, Turning
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.stopping import Stopping

STDOUT = "-"
LINE_EVERY = 30.0  # seconds between two lines about how the stream does


@dataclass(frozen=True, kw_only=True)
class StreamCommand:
    """A stream as the command line asks for it."""

    prompt: str | None
    model: str | None
    seed: int | None
    output: str | None
    record: Path | None
    replay: Path | None
    force: bool
    wanted: StreamOptions
    live: bool | None
    overrides: Overrides
    negative: str | None
    finish: OutputConfig
    runtime: RuntimeConfig
    places: PlacesConfig

    @property
    def folder(self) -> Path | None:
        """Where files are written; None if the stream is played, or goes to standard output."""
        return None if self.output in (None, STDOUT) else Path(os.path.expanduser(str(self.output)))

    @property
    def is_live(self) -> bool:
        """Whether somebody hears it while it is made."""
        return self.folder is None if self.live is None else self.live

    def recipe(self) -> StreamRecipe | None:
        """What is to be played again, if it is; UsageError for what does not go together."""
        if self.replay is None:
            if self.prompt is None:
                raise UsageError("there is no prompt", 'Describe the music, e.g. magnet stream "calm piano"')
            check_prompt(self.prompt)
            return None
        fixed = {
            "a prompt": self.prompt,
            "--seed": self.seed,
            "--negative": self.negative,
            "--overlap": self.wanted.overlap,
            "sampling options": None if self.overrides == Overrides() else self.overrides,
            "--live": self.live,
        }
        for name, value in fixed.items():
            if value is not None:
                raise UsageError(f"--replay has its own prompts, seed and options, not {name}", f"Leave {name} out")
        return read_stream_record(self.replay)

    def check_destination(self) -> None:
        """Raise UsageError or DeviceError, before any work, for a stream that cannot go where it is to go."""
        format, folder = self.wanted.format or "wav", self.folder
        if self.output is None:
            if self.wanted.format is not None:
                raise UsageError("--format is for -o, but the stream is played", "Give -o too, or leave it out")
            check_players()
        elif folder is None:
            if format not in ("wav", "raw"):
                raise UsageError(f"standard output is wav or raw, not {format}", "Give --format wav or raw")
            if sys.stdout is not None and sys.stdout.isatty():
                raise UsageError("audio is not written to a terminal", "Pipe it into a program, or leave -o out")
        else:
            if not str(self.output).strip() or folder.suffix.lower() in AUDIO_EXTENSIONS:
                raise UsageError(f"{folder} is no folder", f"Name one, e.g. -o {folder.with_suffix('')}/ --format wav")
            check_format(Path(f"x.{format}"), None)


AT_ONCE = 1024  # samples: 4096 bytes in stereo, which a pipe takes as a whole or not at all


class Sink(Protocol):
    """Where a stream goes."""

    def write(self, piece: Waveform, count: Callable[[int], None]) -> None:
        """Take the next piece [C, L]; may wait. count: called with the number of samples that have gone out."""

    def finish(self) -> None:
        """The stream is over."""


@dataclass(frozen=True)
class _PlayedLive:
    """A player, which is stopped at once."""

    playback: Playback

    def write(self, piece: Waveform, count: Callable[[int], None]) -> None:
        try:
            self.playback.write(piece)
        except PlayerError as error:
            raise DeviceError(f"the player ended: {error}", INSTALL) from error
        count(piece.shape[1])

    def finish(self) -> None:
        with suppress(PlayerError):
            self.playback.finish()


@dataclass(frozen=True)
class _Piped:
    """Standard output."""

    console: Console

    def write(self, piece: Waveform, count: Callable[[int], None]) -> None:
        # A full pipe takes such a part as a whole or waits. One that Ctrl-C interrupts stays in Python's buffer, which
        # is written when the command ends: it counts before it is written.
        for start in range(0, piece.shape[1], AT_ONCE):
            part = piece[:, start : start + AT_ONCE]
            count(part.shape[1])
            self.console.pieces([pcm16(part)])

    def finish(self) -> None:
        pass


@dataclass(frozen=True)
class _Filed:
    """Files of some minutes each."""

    files: StreamFiles

    def write(self, piece: Waveform, count: Callable[[int], None]) -> None:
        self.files.write(piece)
        count(piece.shape[1])

    def finish(self) -> None:
        self.files.finish()


def run(console: Console, command: StreamCommand) -> None:
    """Play, write or replay a stream."""
    recipe = command.recipe()
    command.check_destination()
    seed = recipe.plan.seed if recipe is not None else draw_seed() if command.seed is None else command.seed
    prompt = recipe.plan.prompt if recipe is not None else str(command.prompt)
    Job(prompt or "x", seed, SamplingConfig())  # which checks both
    stem = f"{slug(prompt)}-{seed}"
    record = record_path(command, stem, recipe)
    if record is not None:
        check_writable([record], overwrite=command.force)
    model = resolve(command.model or (DEFAULT_MODEL if recipe is None else recipe.model), command.places)
    if recipe is not None and command.model is None:
        check_download(console, model)
    plan, pipeline = open_plan(console, command, recipe, model, prompt=prompt, seed=seed)
    if recipe is None and command.seed is None:
        console.essential(f"seed {seed}")
    _play(console, command, recipe, _Session(plan, pipeline, stem, record))


def record_path(command: StreamCommand, stem: str, recipe: StreamRecipe | None) -> Path | None:
    """The file of the record; None for a replay, which has one, unless it is asked for."""
    if command.record is not None or recipe is not None:
        return command.record
    return (command.folder or Path()) / f"{stem}-stream.json"


def open_plan(
    console: Console,
    command: StreamCommand,
    recipe: StreamRecipe | None,
    model: ResolvedModel,
    *,
    prompt: str,
    seed: int,
) -> tuple[StreamPlan, Pipeline]:
    """The plan of the stream and its model, ready; UsageError for what the model cannot do."""
    if model.is_musicgen:
        raise UsageError("MusicGen cannot stream: it decodes frame after frame", "Choose a MAGNeT model")
    opened = open_parts(console, model, {})
    sampling = apply_all(command.overrides, opened.source.facts.sampling) if recipe is None else recipe.plan.sampling
    edit = EditConfig(negative=command.negative) if recipe is None else recipe.plan.edit
    if not isinstance(sampling, SamplingConfig):
        raise UsageError("MusicGen cannot stream: it decodes frame after frame", "Choose a MAGNeT model")
    check_job(Job(prompt or "x", seed, sampling, edit), opened.source, {})
    facts = opened.source.facts
    window = int(facts.seconds * facts.frame_rate)
    overlap = command.wanted.overlap_frames(window, facts.frame_rate) if recipe is None else recipe.plan.overlap
    runtime = command.runtime
    if recipe is not None and runtime == RuntimeConfig():
        runtime = as_recorded(recipe)
    pipeline = load(console, opened, runtime)
    pipeline = replace(pipeline, given={**pipeline.given, "model": model.given})
    output = command.finish if recipe is None else recipe.plan.output
    plan = StreamPlan(prompt=prompt, seed=seed, sampling=sampling, edit=edit, overlap=overlap, output=output)
    return (plan if recipe is None else replace(plan, script=recipe.plan.script)), pipeline


def as_recorded(recipe: StreamRecipe) -> RuntimeConfig:
    """The device and precision of a record, if they are possible here."""
    from magnet_cli.engines.device import is_available

    try:
        then = RuntimeConfig(recipe.device, recipe.dtype)  # type: ignore[arg-type]
    except UsageError:
        return RuntimeConfig()
    return then if is_available(then.device) else RuntimeConfig(dtype=then.dtype)


@dataclass(frozen=True)
class _Session:
    plan: StreamPlan
    pipeline: Pipeline
    stem: str
    record: Path | None


def _play(console: Console, command: StreamCommand, recipe: StreamRecipe | None, session: _Session) -> None:
    clock = HearingClock()
    stream = Stream(
        session.pipeline,
        session.plan,
        ahead=clock.ahead if command.is_live else lambda: None,
        turned=lambda turning: console.message(said_of(turning, stream)),
    )
    limit = recipe.seconds if recipe is not None else command.wanted.duration
    most = None if limit is None else round(limit * stream.sample_rate)
    report = StreamReport(console, stream, clock, live=command.is_live)
    written = _Written(console, session, stream)
    ahead = command.wanted.ahead or session.pipeline.info.clip_seconds
    with (
        _steered(console, stream, listens=recipe is None),
        _destination(console, command, session, stream, written) as sink,
        made_ahead(stream, ahead, clock) as pieces,
    ):
        try:
            for piece in pieces:
                part = piece if most is None else piece[:, : most - written.samples]
                sink.write(part, written.count)
                clock.heard(part.shape[1] / stream.sample_rate)
                report.tell(written.seconds)
                if most is not None and written.samples >= most:
                    break
            sink.finish()
        except BaseException as error:
            written.save(overwrite=command.force, stopped=isinstance(error, KeyboardInterrupt))
            raise
        written.save(overwrite=command.force, stopped=False)
    report.end(written.seconds)
    if recipe is not None and stream.codes_hash(stream.window_at(written.seconds)) != recipe.codes_sha256:
        raise ReplayError(
            f"the codes are not those of {command.replay}",
            "Rounding differs between devices and versions: replay on the machine and versions that generated it",
        )


class _Written:
    """How much went out, and the record of it."""

    def __init__(self, console: Console, session: _Session, stream: Stream) -> None:
        self._console, self._session, self._stream = console, session, stream
        self.samples = 0
        self._saved = False

    @property
    def seconds(self) -> float:
        """How much went out."""
        return self.samples / self._stream.sample_rate

    def count(self, samples: int) -> None:
        """So many samples have gone out."""
        self.samples += samples

    def save(self, *, overwrite: bool, stopped: bool) -> None:
        """Write the record of what went out so far. stopped: by Ctrl-C, after which one line is shown."""
        path = self._session.record
        if path is None or not self.samples:
            return
        provenance = self._session.pipeline.provenance
        record = record_of(self._stream, self._session.plan, provenance, seconds=self.seconds)
        write_together([(path, as_json(record))], overwrite=overwrite or self._saved)
        self._saved = True
        told = f"magnet stream --replay {path} plays it again"
        stopping = Stopping.current()
        if stopped and stopping is not None:
            stopping.farewell = f"interrupted after {clock_word(self.seconds)}: {told}."
        else:
            self._console.detail(f"{clock_word(self.seconds)}: {told}")


@contextmanager
def _destination(
    console: Console, command: StreamCommand, session: _Session, stream: Stream, written: _Written
) -> Iterator[Sink]:
    """Where the stream goes; whatever was begun there is ended properly."""
    folder = command.folder
    if command.output is None:
        playback, name = start_stream(stream.channels, stream.sample_rate)
        console.message(f"playing through {name}; a line is a new prompt, Ctrl-C ends")
        try:
            yield _PlayedLive(playback)
        finally:
            playback.stop()
    elif folder is None:
        if (command.wanted.format or "wav") == "wav":
            console.pieces([endless_wav_header(stream.channels, stream.sample_rate)])
        yield _Piped(console)
    else:

        def tell(path: Path, seconds: float) -> None:
            console.message(f"{path}: {clock_word(seconds)}")
            console.result(path, announced=True)

        info = session.pipeline.info
        files = StreamFiles(
            folder,
            session.stem,
            f".{command.wanted.format or 'wav'}",
            samples=round(command.wanted.minutes * 60 * stream.sample_rate),
            sample_rate=stream.sample_rate,
            tags={"software": "magnet", "copyright": f"Model weights: {info.licence}"},
            overwrite=command.force,
            written=tell,
        )
        files.check()
        try:
            yield _Filed(files)
        except BaseException:
            files.finish()  # what there is of the last file
            raise


@contextmanager
def _steered(console: Console, stream: Stream, *, listens: bool) -> Iterator[None]:
    """Take the lines of standard input as prompts."""

    def take(line: str) -> None:
        try:
            stream.prompt = line
        except MagnetError as error:
            console.warning(f"{error.message}. {error.hint}.")
        else:
            console.message(f"the next window plays {shortened(line)!r}")

    if listens:
        lines_of_input(take)
    yield


def said_of(turning: Turning, stream: Stream) -> str:
    """The line about a window whose prompt or steps are others than before."""
    steps = ",".join(map(str, turning.steps))
    where = clock_word(stream.seconds_at(turning.window))
    return f"from {where} on: {shortened(turning.prompt)!r} with steps {steps}"


class StreamReport:
    """Says now and then how the stream does."""

    def __init__(self, console: Console, stream: Stream, clock: HearingClock, *, live: bool) -> None:
        self._console, self._stream, self._clock, self._live = console, stream, clock, live
        self._said = time.monotonic()
        self._breaks = 0

    def tell(self, seconds: float) -> None:
        """A line, if it is time for one."""
        if self._live and self._clock.breaks > self._breaks:
            self._breaks = self._clock.breaks
            self._console.warning(f"the music broke off at {clock_word(seconds)}: this machine is too slow for it")
        if time.monotonic() - self._said >= LINE_EVERY:
            self._said = time.monotonic()
            self._console.message(self._words(seconds))

    def end(self, seconds: float) -> None:
        """The last line."""
        self._console.message(self._words(seconds))

    def _words(self, seconds: float) -> str:
        ahead, steps = self._clock.ahead(), self._stream.turnings[-1].steps
        words = [clock_word(seconds), f"steps {','.join(map(str, steps))}"]
        if ahead is not None and self._live:
            words.insert(1, f"{ahead:.1f} s ahead")
        return " · ".join(words)


def clock_word(seconds: float) -> str:
    """1:05, 1:02:03."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
