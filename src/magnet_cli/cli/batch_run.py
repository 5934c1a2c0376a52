"""What `magnet batch` does: plan, open the model, make what is missing. Apart from the command: help must be quick."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from magnet_cli.cli.run_jobs import (
    Opened,
    load,
    make,
    open_parts,
    resolve_helpers,
    result,
    shortened,
)
from magnet_cli.errors import BatchError, MagnetError, MagnetWarning, one_line
from magnet_cli.hub.locate import ResolvedModel
from magnet_cli.hub.registry import DEFAULT_MODEL, MODELS, ModelFacts
from magnet_cli.jobs.manifest import MANIFEST_FILE, Header, Item, Manifest
from magnet_cli.jobs.plan import BatchPlan, Request, check_same, clear_way, counted, plan_batch, plan_rows
from magnet_cli.jobs.prompt_file import Problems, Row, read_rows
from magnet_cli.options.job import draw_seed
from magnet_cli.options.runtime import RuntimeConfig
from magnet_cli.options.sampling import SamplingConfig
from magnet_cli.pipeline.inputs import InputFiles
from magnet_cli.pipeline.rules import ModelGroup, default_seconds, loop_bars, usual_sampling
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.options import human

if TYPE_CHECKING:
    from magnet_cli.jobs.writer import ItemFailed, Production
    from magnet_cli.pipeline.events import StepDone, TextEncoded

SAMPLE_BYTES = {"pcm16": 2, "pcm24": 3, "float32": 4}
RECORD_BYTES = 2500  # of a clip's record, which is in the audio file and beside it


@dataclass(frozen=True)
class Command:
    """A batch as it is asked for on the command line. format: what the file is; None takes its extension."""

    request: Request
    model: ResolvedModel
    format: str | None
    runtime: RuntimeConfig
    fail_fast: bool
    as_json: bool

    @cached_property
    def helpers(self) -> dict[str, ResolvedModel]:
        """The models that help, by what they do."""
        return resolve_helpers(self.request.helpers, self.model.places)


def run(console: Console, command: Command) -> None:
    """Make what a batch lacks."""
    batch = PromptBatch.read(command)
    command, request = batch.command, batch.command.request
    before = Manifest.read(request.folder)
    plan = batch.plan(batch.known, before)  # of a model that is not here, what is wrong with it is told at once, too
    opened = open_parts(console, command.model, command.helpers)
    if batch.known.hashes is None:
        plan = batch.plan(opened.group, before)
    with Manifest.opened(request.folder) as manifest:
        if not manifest.says_as(before):
            plan = batch.plan(opened.group, manifest)
        manifest.sweep(item.target.audio for item in plan.todo)
        if manifest.recalled:
            count = counted(len(manifest.recalled))
            console.message(f"{MANIFEST_FILE} was damaged: {count} restored from the records beside the audio files")
            manifest.start(plan.header)
        if request.resume:
            for path in clear_way(plan, manifest):
                console.warning(f"a file had changed since it was made; it is {path} now")
        check_room(console, plan, command, opened)
        if plan.done:
            console.message(f"{len(plan.done):,} of {counted(len(plan.items))} are there already")
        if not plan.todo:
            console.message("nothing is left to do")
            return
        if request.seed is None and console.quiet and not command.as_json:
            console.essential(f"seed {plan.header.seed}")
        from magnet_cli.jobs.writer import Production

        pipeline = load(console, opened, command.runtime, batch.inputs)
        manifest.start(plan.header)
        production = Production(
            pipeline,
            command.model.given,
            request.finish,
            overwrite=request.force,
            metadata=request.metadata,
            manifest=manifest,
            helpers=request.helpers,
        )
        work(console, production, plan, fail_fast=command.fail_fast, as_json=command.as_json)


@dataclass(frozen=True)
class PromptBatch:
    """The rows of a file, and what they start from. command: with only those helpers that the rows need."""

    command: Command
    rows: list[Row]
    problems: Problems
    inputs: InputFiles

    @classmethod
    def read(cls, command: Command) -> PromptBatch:
        """Read the rows; what is wrong with them is told with the plan."""
        problems = Problems(command.request.file)
        rows = read_rows(command.request.file, command.format, problems)
        hybrid = "hybrid" in command.request.edits or any(row.edits.get("hybrid") is not None for row in rows)
        helpers = {role: name for role, name in command.request.helpers.items() if role != "hybrid" or hybrid}
        command = replace(command, request=replace(command.request, helpers=helpers))
        return cls(command, rows, problems, InputFiles())

    @property
    def known(self) -> ModelGroup:
        """The models, as far as they are known without opening them."""
        return ModelGroup(self.command.model, self.command.helpers)

    def plan(self, models: ModelGroup, manifest: Manifest) -> BatchPlan:
        """The whole plan, by what is known of the models. OutputError if the folder is another batch's.

        A seed that is not given is that of the batch when it began, so that it goes on with the same clips.
        """
        request, hashes = self.command.request, models.hashes or {}
        settings = request.settings(hashes)
        seed = manifest.seed(settings) if request.seed is None else request.seed
        if seed is None:
            seed = draw_seed()
        defaults, check, problems = usual_sampling(models.model), models.checker(self.inputs), self.problems
        planned = plan_rows(self.rows, request, defaults, seed=seed, check=check, problems=problems)
        plan = plan_batch(
            planned,
            request,
            manifest,
            header=Header(seed, settings),
            hashes=hashes,
            inputs=self.inputs,
            problems=problems,
            bars=lambda edit: loop_bars(edit, models.model),
        )
        problems.check()
        if models.hashes is not None and not request.mix:
            check_same(plan, manifest, drawn=request.seed is None)
        return plan


def are_here(command: Command) -> bool:
    """Whether all models can be opened without a download."""
    return all(model.folder is not None for model in (command.model, *command.helpers.values()))


def check_room(console: Console, plan: BatchPlan, command: Command, opened: Opened) -> None:
    """Raise for files that are in the way, and warn if the disk is too small."""
    from magnet_cli.jobs.targets import check_targets

    request = command.request
    check_targets([item.target for item in plan.todo], request.finish.subtype, overwrite=request.force)
    needed = sum(clip_size(item, command, opened) for item in plan.todo)
    free = shutil.disk_usage(request.folder).free
    if needed > free:
        console.warning(f"the clips need about {human(needed)}, but {request.folder} has {human(free)} free")


def work(console: Console, production: Production, plan: BatchPlan, *, fail_fast: bool, as_json: bool) -> None:
    """Make what is to be made; BatchError at the end if some of it failed."""
    started = time.monotonic()
    total, failed = len(plan.items), 0

    def numbers(done: int) -> str:
        each = (time.monotonic() - started) / done
        left = f"{rate(each)}, {duration_word(each * (len(plan.todo) - done))} left"
        return f"[{len(plan.done) + done}/{total}, {left}] "

    def fail(item: Item, error: Exception) -> None:
        nonlocal failed
        if fail_fast:
            raise error
        failed += 1
        text = str(error) if isinstance(error, MagnetError) else f"{type(error).__name__}: {one_line(error)}."
        console.warning(f"line {plan.rows[item.key].line}, {shortened(item.job.prompt)!r}, failed: {text}")

    from magnet_cli.jobs.writer import ItemFailed

    with console.stoppable() as stop_if_asked:

        def hear(event: TextEncoded | StepDone | ItemFailed) -> None:
            if isinstance(event, ItemFailed):
                fail(event.item, event.error)
            else:
                stop_if_asked()

        for product in make(console, production, plan.todo, numbers=numbers, listener=hear):
            console.result(result(product, as_json=as_json))
        stop_if_asked()
    made, seconds = len(plan.todo) - failed, time.monotonic() - started
    if made:
        each = rate(seconds / made)
        console.message(f"made {counted(made)} in {duration_word(seconds)}, {each}; {MANIFEST_FILE} lists them")
    if failed:
        raise BatchError(f"{failed:,} of {counted(total)} failed", "Run the same command to try again")


# -- the plan, told ---------------------------------------------------------------------------------------------------


def show(console: Console, command: Command) -> None:
    """Say what would be made: a line or a JSON object for every clip; then what it all takes."""
    batch = PromptBatch.read(command)
    command, request = batch.command, batch.command.request
    manifest = Manifest.read(request.folder)
    plan, opened = batch.plan(batch.known, manifest), None
    if are_here(command) and (batch.known.hashes is None or command.helpers):  # nothing else says whether it can work
        opened = open_parts(console, command.model, command.helpers)
        plan = batch.plan(opened.group, manifest)
    there = {item.key for item, _ in plan.done}
    for item in plan.items:
        state = "there" if item.key in there else "to make"
        if command.as_json:
            job = {"prompt": item.job.prompt, "seed": item.job.seed, "sampling": asdict(item.job.sampling)}
            console.result({"path": str(item.target.audio), "state": state, "line": plan.rows[item.key].line, **job})
        else:
            console.result(f"{item.target.audio}  {state}  seed {item.job.seed}  {shortened(item.job.prompt)}")
    console.message(f"{counted(len(plan.items))}: {len(plan.done):,} there already, {len(plan.todo):,} to make")
    if not are_here(command):
        missing = " and ".join(one.given for one in (command.model, *command.helpers.values()) if one.folder is None)
        basis = f"on {DEFAULT_MODEL}" if command.model.facts is None else "on what is known of it"
        console.message(f"{missing} is not here yet: this rests {basis}")
    if request.seed is None and plan.header not in manifest.headers:
        console.message(f"the seed was drawn just now; --seed {plan.header.seed} makes exactly these")
    if plan.todo:
        size = sum(clip_size(item, command, opened) for item in plan.todo)
        seconds, basis = estimate(plan, command, opened)
        console.message(f"about {human(size)} of disk; about {duration_word(seconds)} ({basis})")


def estimate(plan: BatchPlan, command: Command, opened: Opened | None) -> tuple[float, str]:
    """Seconds for what is to be made, and what they rest on."""
    if plan.done:
        each = sum(entry.seconds for _, entry in plan.done) / len(plan.done)
        return each * len(plan.todo), "as long as those that are there took"
    from magnet_cli.engines.device import matmul_rate, resolve_device, resolve_dtype

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MagnetWarning)
        device = resolve_device(command.runtime)
        rate = matmul_rate(device, resolve_dtype(command.runtime, device))
    facts = model_facts(command, opened)
    passes = 0.0
    for item in plan.todo:
        # Frames that go through the network: every step sees the window, MusicGen each frame once.
        steps = sum(item.job.sampling.steps) if isinstance(item.job.sampling, SamplingConfig) else 1
        passes += steps * frames_of(item, command, facts)
    # Every weight is multiplied and added once for each frame, in both halves of guidance.
    return 4.0 * facts.parameters * passes / rate, f"at {rate / 1e9:,.0f} GFLOP/s, as measured now on {device}"


def model_facts(command: Command, opened: Opened | None) -> ModelFacts:
    """What is known of the model; of one that nothing is known of, that it is as the default one is."""
    known = opened.source.facts if opened else command.model.facts
    return known or MODELS[DEFAULT_MODEL].facts


def frames_of(item: Item, command: Command, facts: ModelFacts) -> int:
    """Frames of a clip."""
    return item.job.edit.length(facts.seconds, facts.frame_rate, default_seconds=default_seconds(command.model)).frames


def clip_size(item: Item, command: Command, opened: Opened | None) -> int:
    """About the bytes that a clip's files take."""
    facts, edit = model_facts(command, opened), item.job.edit
    if edit.input is not None and (edit.keeps_samples or edit.inpaint is not None):
        samples = os.path.getsize(edit.input) / 2  # as long as the input at least, which is PCM mostly
    else:
        samples = (edit.duration or frames_of(item, command, facts) / facts.frame_rate) * facts.sample_rate
    # FLAC of music takes 0.5 to 0.7 of PCM; Vorbis at its usual quality about 2 bits a sample.
    sample = 0.25 if item.target.audio.suffix.lower() == ".ogg" else SAMPLE_BYTES[command.request.finish.subtype]
    return int(samples * sample) + (2 * RECORD_BYTES if command.request.metadata else 0)


def rate(seconds: float) -> str:
    """How many a minute, when each takes this long."""
    return f"{60 / max(seconds, 1e-3):.1f} a minute"


def duration_word(seconds: float) -> str:
    """3 h 12 min, 4 min 10 s, 15 s, 0.3 s."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
