"""The plan of a batch: which clips a prompt file asks for, their names, and which of them exist already."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnet_cli.audio.formats import AUDIO_EXTENSIONS, check_format
from magnet_cli.errors import OutputError
from magnet_cli.jobs.manifest import MANIFEST_FILE, Entry, Header, Item, Made, Manifest, Rival, digest, item_key
from magnet_cli.jobs.naming import ClipName, check_name, plan_folder
from magnet_cli.jobs.prompt_file import Problems, Row
from magnet_cli.jobs.targets import Target
from magnet_cli.options.candidates import CandidateOptions
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import Job, Planner
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig
from magnet_cli.options.sampling_overrides import Overrides, apply_all

if TYPE_CHECKING:
    from magnet_cli.pipeline.inputs import InputFiles

NO_EDIT, ONE_CANDIDATE = EditConfig(), CandidateOptions()
# The rule for rows without a seed, in a batch's settings. Missing, as in those of earlier versions: all have the same.
SEEDS, DERIVED = "seeds", "derived"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a command asks for in addition to the rows.

    model: its name in file names. edits: the fields of EditConfig that are given. helpers: names of the helping models,
    by role. resume: skip clips that exist. mix: add to another batch's folder. force: overwrite. same_seed: give rows
    without a seed the batch's own. candidates: for each clip.
    """

    file: str
    output: str
    model: str
    seed: int | None
    variations: int
    overrides: Overrides
    edits: Mapping[str, Any]
    helpers: Mapping[str, str]
    finish: OutputConfig
    codes: bool
    metadata: bool
    resume: bool
    mix: bool
    force: bool
    same_seed: bool = False
    candidates: CandidateOptions = ONE_CANDIDATE

    @property
    def folder(self) -> Path:
        """The folder of the batch.

        Raises:
            UsageError: for an output that is neither folder nor template, or a format that cannot be written.
        """
        folder, (path,) = self.paths([ClipName("x", 0, bpm=120, bars=4)])
        check_format(path, self.finish.subtype, self.finish.sample_rate)
        return folder

    def paths(self, names: Sequence[ClipName]) -> tuple[Path, list[Path]]:
        """The folder, and a path in it for each clip."""
        return plan_folder(self.output, names, model=self.model, extensions=AUDIO_EXTENSIONS)

    def settings(self, hashes: dict[str, str]) -> dict[str, Any]:
        """The options that two runs of the same batch share, as a manifest holds them."""
        given = {
            name: value
            for name, value in asdict(self.overrides).items()
            if value is not None and value is not False  # not `in`: 0.0 equals False
        }
        # As versions wrote it that had fewer of these.
        finish = {**asdict(self.finish), "subtype": self.finish.samples}
        settings = {
            "model": self.model,
            "weights": digest(json.dumps(hashes, sort_keys=True).encode())[:16],
            "variations": self.variations,
            **given,
            **self.edits,
            **self.helpers,
            **self.candidates.settings,
            **{name: value for name, value in finish.items() if (name, value) != ("sample_rate", None)},
        }
        return dict(json.loads(json.dumps(settings)))  # as a manifest gives it back


@dataclass(frozen=True)
class PlannedRow:
    """A clip that a row asks for. rivals: other candidates for it. candidates: how they are compared."""

    row: Row
    job: Job
    rivals: tuple[Job, ...] = ()
    candidates: CandidateOptions = ONE_CANDIDATE


@dataclass(frozen=True)
class BatchPlan:
    """The clips of a batch: those to generate, and those that exist. `header` is the batch's in the manifest.

    rows: by the keys of items. failed: why the latest attempt failed, by the keys of items to generate.
    later: items that this run leaves out.
    """

    header: Header
    todo: list[Item]
    done: list[tuple[Item, Entry]]
    rows: dict[str, Row]
    failed: dict[str, str] = field(default_factory=dict)
    later: list[Item] = field(default_factory=list)

    @property
    def items(self) -> list[Item]:
        """All items, in the order of the rows."""
        found = {item.key: item for item in [*(item for item, _ in self.done), *self.todo, *self.later]}
        return [found[key] for key in self.rows]

    def only_failed(self) -> BatchPlan:
        """The plan of a run that generates only what failed before."""
        chosen = [item for item in self.todo if item.key in self.failed]
        return replace(self, todo=chosen, later=[item for item in self.todo if item.key not in self.failed])


def plan_rows(
    rows: Sequence[Row],
    request: Request,
    defaults: SamplingConfig | MusicGenSampling,
    *,
    seed: int | None,
    check: Callable[[Job], None],
    problems: Problems,
    derive: bool = False,
    is_musicgen: bool = False,
) -> list[PlannedRow]:
    """The clips that the rows ask for, in order.

    seed, derive: as for Planner. is_musicgen: whether the model is one.
    defaults: the model's sampling options. check: raises for a job that the model cannot do.
    problems: collects what is wrong with rows.

    Raises:
        UsageError: for options of the command that cannot work.
    """
    request.candidates.check_number(request.variations)
    common = apply_all(request.overrides, defaults)
    (probe, *_) = Planner(seed).jobs("any", common, variations=request.variations)
    check(probe)  # an error in the command is reported once, and not for each row
    planner = Planner(seed, derive=derive)
    planned = []
    for row in rows:
        found = len(problems)
        sampling, edit = common, NO_EDIT
        with problems.of(row.line):
            sampling = apply_all(row.overrides, common)
        with problems.of(row.line):
            edit = _edit({**request.edits, **row.edits})
            check(Job("any", 0, sampling, edit))
        candidates = request.candidates
        with problems.of(row.line):
            if row.best_of is not None:
                candidates = replace(candidates, best_of=row.best_of)
            candidates.check(edit, is_musicgen=is_musicgen)
        with problems.of(row.line):
            if row.output is not None:
                finish = request.finish
                check_format(Path(check_name(row.output, AUDIO_EXTENSIONS)), finish.subtype, finish.sample_rate)
        with problems.of(row.line):
            variations = request.variations if row.variations is None else row.variations
            candidates.check_number(variations)
            number = variations * candidates.best_of
            jobs = planner.jobs(row.prompt, sampling, seed=row.seed, variations=number, edit=edit)
            if len(problems) == found:
                each = candidates.rivals
                parts = [jobs[first : first + each] for first in range(0, len(jobs), each)]
                planned += [PlannedRow(row, part[0], tuple(part[1:]), candidates) for part in parts]
    return planned


def _edit(given: Mapping[str, Any]) -> EditConfig:
    return EditConfig(**given) if given else NO_EDIT


def plan_batch(
    planned: Sequence[PlannedRow],
    request: Request,
    manifest: Manifest,
    *,
    header: Header,
    hashes: dict[str, str],
    inputs: InputFiles,
    problems: Problems,
    bars: Callable[[EditConfig], int | None] = lambda edit: edit.bars,
) -> BatchPlan:
    """Give every clip its files and its key, and find the clips that exist.

    hashes: of the model's files. problems: collects clips that occur twice. bars: those of a loop, for its name.
    """
    names = []
    for one in planned:
        job = one.job
        names.append(ClipName(job.prompt, job.seed, one.row.output, bpm=job.edit.bpm, bars=bars(job.edit)))
    _, paths = request.paths(names)
    plan = BatchPlan(header, [], [], {})

    def target_at(audio: Path) -> Target:
        return Target.beside(audio, metadata=request.metadata, codes=request.codes, folder=manifest.folder)

    for one, path in zip(planned, paths, strict=True):
        chosen = one.candidates.settings if one.rivals else None
        key = item_key(one.job, request.finish, path.suffix, hashes, inputs, chosen)
        item = Item(one.job, target_at(path), key, tuple(map(Rival, one.rivals)), one.candidates.judging)
        if key in plan.rows:
            problems.add(one.row.line, f"the same clip as on line {plan.rows[key].line}: give it another seed")
            continue
        plan.rows[key] = one.row
        entry = (manifest.finished(key) or manifest.recall(key, path)) if request.resume else None
        if entry is None or not _kinds(item.target.files) <= _kinds(Path(made.path) for made in entry.files):
            plan.todo.append(item)
            before = manifest.entries.get(key)
            if before is not None and before.error is not None:
                plan.failed[key] = before.error
        else:
            audio = manifest.path(entry.files[-1])  # it keeps its name when rows before it are added or removed
            plan.done.append((replace(item, target=target_at(audio)), entry))
    return replace(plan, todo=list(_under_free_names(plan, manifest, mix=request.mix)))


def _kinds(files: Iterable[Path]) -> set[str]:
    """`.wav`, `.json` and `.npz`: an existing clip may lack one of them that is wanted now."""
    return {path.suffix for path in files}


def _under_free_names(plan: BatchPlan, manifest: Manifest, *, mix: bool) -> Iterator[Item]:
    """Items, with numbered names where other clips of the folder, or with `mix` any files, have their names."""
    owners = {manifest.folder / made.path: key for key, entry in manifest.entries.items() for made in entry.files}
    planned = {path for item in plan.todo for path in item.target.files}

    def is_taken(path: Path, key: str) -> bool:
        if path not in owners:
            return mix and path.exists()
        # A clip that belongs to no row may have been moved away, and is not generated again.
        return owners[path] != key and (owners[path] in plan.rows or os.path.lexists(path))

    for item in plan.todo:
        target, number = item.target, 2
        while any(is_taken(path, item.key) or (target != item.target and path in planned) for path in target.files):
            audio = item.target.audio
            audio = audio.with_name(f"{audio.stem}-{number}{audio.suffix}")
            metadata, codes = target.metadata is not None, target.codes is not None
            target = Target.beside(audio, metadata=metadata, codes=codes, folder=target.folder)
            number += 1
        planned.update(target.files)
        yield replace(item, target=target)


def derives_seeds(request: Request, manifest: Manifest, settings: Mapping[str, Any]) -> bool | None:
    """Whether rows without a seed have one derived from the batch's and their prompt, and not the batch's itself.

    A batch that was begun keeps the rule that it began with: earlier versions had only the other one. None if that is
    not known, because the manifest has lost its header.

    settings: of the request, without the rule.
    """
    if request.same_seed:
        return False
    for header in reversed(manifest.headers):
        if {name: value for name, value in header.settings.items() if name != SEEDS} == settings:
            return SEEDS in header.settings
    if request.mix or not manifest.entries:
        return True
    return SEEDS in manifest.headers[-1].settings if manifest.headers else None


def check_same(plan: BatchPlan, manifest: Manifest, *, drawn: bool) -> None:
    """Check that the folder does not hold another batch, which has other options or none of this one's clips.

    drawn: the seed was not given, and so is not compared.

    Raises:
        OutputError: that names the options that differ.
    """
    made = {entry.item for entry in manifest.entries.values() if entry.error is None}
    known = plan.header in manifest.headers or not manifest.headers
    if not made or (known and made & plan.rows.keys()):
        return
    hint = "Choose another folder, or add to it with --mix"
    if not manifest.headers:
        raise OutputError(
            f"the first line of {manifest.folder / MANIFEST_FILE} is damaged, so the batch's seed is lost",
            "Give the seed with --seed; a clip's record and its file name usually contain it",
        )
    if plan.header in manifest.headers:
        raise OutputError(f"{manifest.folder} holds a batch of other prompts ({counted(len(made))})", hint)
    theirs, ours = (dict(one.settings) for one in (manifest.headers[-1], plan.header))
    if not drawn:
        theirs["seed"], ours["seed"] = manifest.headers[-1].seed, plan.header.seed
    if SEEDS in theirs or SEEDS in ours:
        theirs, ours = {SEEDS: "all the same", **theirs}, {SEEDS: "all the same", **ours}
    differing = [name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name)]
    told = ", ".join(f"{name.replace('_', '-')} {_word(theirs, name)}, not {_word(ours, name)}" for name in differing)
    raise OutputError(f"{manifest.folder} holds another batch ({told})", hint)


def _word(facts: dict[str, Any], name: str) -> str:
    value = facts.get(name)
    return "by default" if value is None else str(value)


def counted(clips: int) -> str:
    """1 clip, 2 clips."""
    return f"{clips:,} clip" if clips == 1 else f"{clips:,} clips"


def stale_clips(plan: BatchPlan, manifest: Manifest) -> list[Entry]:
    """The clips in the folder that belong to no row of the plan, because rows have changed or were removed.

    None in a folder that holds another batch, too: its clips belong to other rows.
    """
    if manifest.headers != [plan.header]:
        return []
    others = [entry for key, entry in manifest.entries.items() if key not in plan.rows and entry.files]
    return [entry for entry in others if manifest.is_intact(entry.files[-1])]  # its place may be another's by now


def clear_way(plan: BatchPlan, manifest: Manifest) -> list[Path]:
    """Make room for what will be generated again; returns the new names of changed files."""
    entries = [manifest.entries[item.key] for item in plan.todo if item.key in manifest.entries]
    owners: dict[str, list[tuple[str, Made]]] = {}
    for entry in manifest.entries.values():
        for made in entry.files:
            owners.setdefault(made.path, []).append((entry.item, made))

    def is_anothers(path: str, item: str) -> bool:
        """Whether a clip that was generated later has the name of one that was moved away."""
        return any(other != item and manifest.is_intact(made) for other, made in owners[path])

    moved = []
    for entry in entries:
        own = tuple(made for made in entry.files if not is_anothers(made.path, entry.item))
        moved += manifest.clear_way(replace(entry, files=own))
    return [*moved, *manifest.clear_unknown(plan.todo, plan.header)]
