"""The work of `magnet batch`: plan, open the model, generate what is missing.

Apart from the command itself, so that its help imports nothing slow.
"""

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
    note_unknown_words,
    open_parts,
    resolve_helpers,
    result,
    shortened,
)
from magnet_cli.errors import BatchError, MagnetError, MagnetWarning, OutputError, UsageError, one_line
from magnet_cli.hub.locate import ResolvedModel
from magnet_cli.hub.registry import DEFAULT_MODEL, MODELS, ModelFacts
from magnet_cli.jobs.contact_sheet import CONTACT_SHEET_FILE, contact_sheet
from magnet_cli.jobs.manifest import MANIFEST_FILE, Header, Item, Manifest
from magnet_cli.jobs.plan import (
    DERIVED,
    SEEDS,
    BatchPlan,
    Request,
    check_same,
    clear_way,
    counted,
    derives_seeds,
    plan_batch,
    plan_rows,
    stale_clips,
)
from magnet_cli.jobs.prompt_file import Problems, PromptFile, read_prompt_file
from magnet_cli.jobs.results import RESULTS_FILE, BatchReport, as_csv
from magnet_cli.options.job import draw_seed
from magnet_cli.options.runtime import RuntimeConfig
from magnet_cli.options.sampling import SamplingConfig
from magnet_cli.pipeline.inputs import InputFiles
from magnet_cli.pipeline.rules import ModelGroup, default_seconds, loop_bars, usual_sampling
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.options import human

if TYPE_CHECKING:
    from magnet_cli.jobs.writer import ItemFailed, Product, Production
    from magnet_cli.pipeline.events import StepDone, TextEncoded

STALE = "stale"  # the subfolder of clips that belong to no row
SHOWN_STALE = 10
LONGEST_ERROR = 80  # characters of an error in the dry run
SAMPLE_BYTES = {"pcm16": 2, "pcm24": 3, "float32": 4}
PAGES = {RESULTS_FILE: as_csv, CONTACT_SHEET_FILE: contact_sheet}
RECORD_BYTES = 2500  # of a clip's record, which is in the audio file and beside it
PICTURE_BYTES = 300_000


@dataclass(frozen=True)
class Command:
    """A batch as the command line gives it.

    format: of the file; None means by its extension. failed: generate only what failed before. move_stale: move clips
    that belong to no row.
    """

    request: Request
    model: ResolvedModel
    format: str | None
    runtime: RuntimeConfig
    fail_fast: bool
    as_json: bool
    failed: bool = False
    move_stale: bool = False

    @cached_property
    def helpers(self) -> dict[str, ResolvedModel]:
        """The helping models, by role."""
        return resolve_helpers(self.request.helpers, self.model.places)


def run(console: Console, command: Command) -> None:
    """Generate the clips that a batch lacks."""
    batch = PromptBatch.read(console, command)
    command, request = batch.command, batch.command.request
    before = Manifest.read(request.folder)
    plan = batch.plan(batch.known, before)  # before a download, so that problems are reported at once
    opened = open_parts(console, command.model, command.helpers)
    if batch.known.hashes is None:
        plan = batch.plan(opened.group, before)
    with Manifest.opened(request.folder) as manifest:
        if not manifest.says_as(before):
            plan = batch.plan(opened.group, manifest)
        if name_stale(console, command, plan, manifest):
            for entry in stale_clips(plan, manifest):
                manifest.move(entry, STALE)
            plan = batch.plan(opened.group, manifest)  # the names of the moved clips are free
        manifest.sweep(item.target.audio for item in plan.todo)
        if manifest.recalled:
            count = counted(len(manifest.recalled))
            console.message(f"{MANIFEST_FILE} was damaged: {count} restored from the records beside the audio files")
            manifest.start(plan.header)
        if request.resume:
            for path in clear_way(plan, manifest):
                console.warning(f"a file had changed since it was written; it was renamed to {path}")
        check_room(console, plan, command, opened)
        if plan.done:
            console.message(f"{len(plan.done):,} of {len(plan.items):,} clips already generated")
        report = BatchReport(plan, request, batch.file, manifest, PAGES)
        if not plan.todo:
            console.message("no clip has failed" if command.failed else "nothing to generate")
            write_report(console, report)
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
        note_unknown_words(console, production, [item.job for item in plan.todo])
        try:
            work(console, production, plan, report, fail_fast=command.fail_fast, as_json=command.as_json)
        finally:
            write_report(console, report)


def name_stale(console: Console, command: Command, plan: BatchPlan, manifest: Manifest) -> bool:
    """Name the clips that belong to no row; whether they are to be moved."""
    stale = stale_clips(plan, manifest)
    if not stale:
        return False
    names = [entry.files[-1].path for entry in stale]
    named = ", ".join(names[:SHOWN_STALE]) + (f" and {len(names) - SHOWN_STALE:,} more" if names[SHOWN_STALE:] else "")
    where = manifest.folder / STALE
    what = f"moved to {where}" if command.move_stale else f"left in place; --move-stale moves them to {where}"
    console.message(f"clips of rows that were changed or removed: {named} ({what})")
    return command.move_stale


def write_report(console: Console, report: BatchReport) -> None:
    """Rewrite the files that show the results. A failure is only a warning: the manifest has all that they show."""
    try:
        for path in report.write():
            console.warning(f"a results file had been changed, or was not written by magnet; it was renamed to {path}")
    except OutputError as error:
        console.warning(f"{' and '.join(PAGES)} are not up to date: {error.message}.")


@dataclass(frozen=True)
class PromptBatch:
    """The rows of a file and their inputs. command: with only the helpers that the rows need."""

    command: Command
    file: PromptFile
    problems: Problems
    inputs: InputFiles

    @classmethod
    def read(cls, console: Console, command: Command) -> PromptBatch:
        """Read the rows, and say how they were read. Their problems are reported with the plan."""
        problems = Problems(command.request.file)
        file = read_prompt_file(command.request.file, command.format, problems)
        if file.warning is not None:
            console.warning(f"{file.warning}.")
        for notice in file.notices:
            console.message(notice)
        hybrid = "hybrid" in command.request.edits or any(row.edits.get("hybrid") is not None for row in file.rows)
        helpers = {role: name for role, name in command.request.helpers.items() if role != "hybrid" or hybrid}
        command = replace(command, request=replace(command.request, helpers=helpers))
        return cls(command, file, problems, InputFiles())

    @property
    def known(self) -> ModelGroup:
        """What is known of the models without opening them."""
        return ModelGroup(self.command.model, self.command.helpers)

    def plan(self, models: ModelGroup, manifest: Manifest) -> BatchPlan:
        """The whole plan, by what is known of the models.

        Without a given seed, the batch keeps the seed that it began with, so that it resumes with the same clips.

        Raises:
            UsageError: with all problems of the rows.
            OutputError: if the folder holds another batch.
        """
        request, hashes = self.command.request, models.hashes or {}
        if self.command.failed and not manifest.entries:
            raise UsageError(f"{request.folder} holds no batch", "Name the folder of a batch, or omit --failed")
        derive = derives_seeds(request, manifest, request.settings(hashes))
        plan = self._plan(models, manifest, derive=derive is not False)
        if derive is None and not plan.rows.keys() & manifest.entries.keys():
            plan = self._plan(models, manifest, derive=False)
        if models.hashes is not None and not request.mix:
            check_same(plan, manifest, drawn=request.seed is None)
        return plan.only_failed() if self.command.failed else plan

    def _plan(self, models: ModelGroup, manifest: Manifest, *, derive: bool) -> BatchPlan:
        request, hashes, problems = self.command.request, models.hashes or {}, self.problems
        settings = {**request.settings(hashes), **({SEEDS: DERIVED} if derive else {})}
        seed = manifest.seed(settings) if request.seed is None else request.seed
        if seed is None:
            seed = draw_seed()
        defaults, check = usual_sampling(models.model), models.checker(self.inputs)
        is_musicgen = models.model.is_musicgen
        planned = plan_rows(
            self.file.rows,
            request,
            defaults,
            seed=seed,
            check=check,
            problems=problems,
            derive=derive,
            is_musicgen=is_musicgen,
        )
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
        return plan


def are_here(command: Command) -> bool:
    """Whether all models can be opened without a download."""
    return all(model.folder is not None for model in (command.model, *command.helpers.values()))


def check_room(console: Console, plan: BatchPlan, command: Command, opened: Opened) -> None:
    """Check that all files can be written, and warn if the disk has too little room.

    Raises:
        OutputError: for files that exist.
    """
    from magnet_cli.jobs.targets import check_targets

    request = command.request
    check_targets([item.target for item in plan.todo], request.finish, overwrite=request.force)
    needed = sum(clip_size(item, command, opened) for item in plan.todo)
    free = shutil.disk_usage(request.folder).free
    if needed > free:
        console.warning(f"the clips need about {human(needed)}, but {request.folder} has {human(free)} free")


def work(
    console: Console, production: Production, plan: BatchPlan, report: BatchReport, *, fail_fast: bool, as_json: bool
) -> None:
    """Generate the clips of the plan.

    Raises:
        BatchError: at the end, if clips failed.
    """
    started = time.monotonic()
    total, failed = len(plan.done) + len(plan.todo), 0

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

        def take(product: Product) -> None:
            report.add(product.item)
            console.result(result(product, as_json=as_json), announced=not as_json)
            if report.is_due():
                write_report(console, report)

        make(console, production, plan.todo, take=take, numbers=numbers, listener=hear)
        stop_if_asked()
    made, seconds = len(plan.todo) - failed, time.monotonic() - started
    if made:
        each = rate(seconds / made)
        console.message(f"generated {counted(made)} in {duration_word(seconds)}, {each}; {RESULTS_FILE} lists them")
    if failed:
        raise BatchError(f"{failed:,} of {counted(total)} failed", "Run the same command to try again")


# -- the dry run -------------------------------------------------------------------------------------------------------


def show(console: Console, command: Command) -> None:
    """Print a line or a JSON object for every clip of the plan, then estimates of disk space and time."""
    batch = PromptBatch.read(console, command)
    command, request = batch.command, batch.command.request
    manifest = Manifest.read(request.folder)
    plan, opened = batch.plan(batch.known, manifest), None
    if are_here(command) and (batch.known.hashes is None or command.helpers):  # only this shows whether they can work
        opened = open_parts(console, command.model, command.helpers)
        plan = batch.plan(opened.group, manifest)
    states = {item.key: "done" for item, _ in plan.done} | dict.fromkeys(plan.failed, "failed")
    for item in plan.todo if command.failed else plan.items:
        state, error = states.get(item.key, "waiting"), plan.failed.get(item.key)
        if command.as_json:
            job = {"prompt": item.job.prompt, "seed": item.job.seed, "sampling": asdict(item.job.sampling)}
            about = {"path": str(item.target.audio), "state": state, "line": plan.rows[item.key].line, **job}
            console.result(about if error is None else {**about, "error": error})
        else:
            text = f"{item.target.audio}  {state}  seed {item.job.seed}  {shortened(item.job.prompt)}"
            console.result(text if error is None else f"{text}  {shortened(error, LONGEST_ERROR)}")
    waiting = len(plan.items) - len(states)
    failed = f"{len(plan.failed):,} failed, " if plan.failed else ""
    console.message(f"{counted(len(plan.items))}: {len(plan.done):,} done, {failed}{waiting:,} waiting")
    name_stale(console, command, plan, manifest)
    if not are_here(command):
        missing = " and ".join(one.given for one in (command.model, *command.helpers.values()) if one.folder is None)
        basis = f"on {DEFAULT_MODEL}" if command.model.facts is None else "on what is known of it"
        console.message(f"{missing} is not downloaded yet: the estimates are based {basis}")
    if request.seed is None and plan.header not in manifest.headers:
        console.message(f"the seed was drawn for this run; --seed {plan.header.seed} gives exactly these clips")
    if plan.todo:
        size = sum(clip_size(item, command, opened) for item in plan.todo)
        seconds, basis = estimate(plan, command, opened)
        console.message(f"about {human(size)} of disk; about {duration_word(seconds)} ({basis})")


def estimate(plan: BatchPlan, command: Command, opened: Opened | None) -> tuple[float, str]:
    """Seconds for the clips to generate, and the basis of this estimate."""
    if plan.done:
        each = sum(entry.seconds for _, entry in plan.done) / len(plan.done)
        return each * len(plan.todo), "at the rate of the existing clips"
    from magnet_cli.engines.device import matmul_rate, resolve_device, resolve_dtype

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MagnetWarning)
        device = resolve_device(command.runtime)
        rate = matmul_rate(device, resolve_dtype(command.runtime, device))
    facts = model_facts(command, opened)
    passes = 0.0
    for item in plan.todo:
        # Frames that pass through the network: all of them at every step, but in MusicGen each frame once.
        steps = sum(item.job.sampling.steps) if isinstance(item.job.sampling, SamplingConfig) else 1
        passes += len(item.candidates) * steps * frames_of(item, command, facts)
    # Every weight takes a multiplication and an addition for each frame, with and without the text (guidance).
    basis = f"at {rate / 1e9:,.0f} GFLOP/s, just measured on {device}"
    if any(isinstance(one := item.job.sampling, SamplingConfig) and one.entropy_bound for item in plan.todo):
        basis += "; an entropy bound can save steps"
    return 4.0 * facts.parameters * passes / rate, basis


def model_facts(command: Command, opened: Opened | None) -> ModelFacts:
    """The facts of the model; for an unknown model, those of the default model."""
    known = opened.source.facts if opened else command.model.facts
    return known or MODELS[DEFAULT_MODEL].facts


def frames_of(item: Item, command: Command, facts: ModelFacts) -> int:
    """The number of frames of a clip."""
    return item.job.edit.length(facts.seconds, facts.frame_rate, default_seconds=default_seconds(command.model)).frames


def clip_size(item: Item, command: Command, opened: Opened | None) -> int:
    """The approximate number of bytes of a clip's files."""
    facts, edit = model_facts(command, opened), item.job.edit
    if edit.input is not None and (edit.keeps_samples or edit.inpaint is not None):
        samples = os.path.getsize(edit.input) / 2  # at least as long as the input, which is usually 16-bit PCM
    else:
        samples = (edit.duration or frames_of(item, command, facts) / facts.frame_rate) * facts.sample_rate
    # FLAC of music takes 0.5 to 0.7 of PCM; Vorbis at its usual quality about 2 bits a sample.
    finish = command.request.finish
    samples *= 1.0 if finish.sample_rate is None else finish.sample_rate / facts.sample_rate
    sample = 0.25 if item.target.audio.suffix.lower() in (".ogg", ".mp3") else SAMPLE_BYTES[finish.samples]
    beside = (2 * RECORD_BYTES if command.request.metadata else 0) + PICTURE_BYTES * command.request.picture
    return int(samples * sample) + beside


def rate(seconds: float) -> str:
    """The number of clips per minute, if each takes this many seconds."""
    return f"{60 / max(seconds, 1e-3):.1f} a minute"


def duration_word(seconds: float) -> str:
    """3 h 12 min, 4 min 10 s, 15 s, 0.3 s."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
