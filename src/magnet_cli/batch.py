"""A batch, planned: which clips a prompt file asks for, what each is called, and which of them are there already."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from magnet_cli.composition import EditConfig
from magnet_cli.config import MusicGenSampling, OutputConfig, SamplingConfig
from magnet_cli.errors import MagnetError, OutputError
from magnet_cli.manifest import Entry, Header, Item, Manifest, digest, item_key
from magnet_cli.naming import AUDIO_EXTENSIONS, Target, check_name, plan_folder
from magnet_cli.naming import Item as Name
from magnet_cli.overrides import Overrides, apply_all
from magnet_cli.promptfile import Problems, Row
from magnet_cli.prompts import Job, Planner


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a command asks for beside the rows.

    model: as the user names it; short_name: what files call it; edits: those of EditConfig that are given; helpers: the
    names of models that help, by what they do.
    """

    file: str
    output: str
    model: str
    short_name: str
    seed: int | None
    variations: int
    overrides: Overrides
    edits: Mapping[str, Any]
    helpers: Mapping[str, str]
    finish: OutputConfig
    codes: bool
    metadata: bool
    force: bool

    @property
    def folder(self) -> Path:
        """Where the batch goes; UsageError for what is no folder or template."""
        return plan_folder(self.output, [], model=self.short_name, extensions=AUDIO_EXTENSIONS)[0]

    def settings(self, hashes: dict[str, str]) -> dict[str, Any]:
        """What must be equal for two runs to be the same batch, as a manifest holds it."""
        given = {name: value for name, value in asdict(self.overrides).items() if value not in (None, False)}
        settings = {
            "model": self.model,
            "weights": digest(json.dumps(hashes, sort_keys=True).encode())[:16],
            "seed": self.seed,
            "variations": self.variations,
            **given,
            **self.edits,
            **self.helpers,
            **asdict(self.finish),
        }
        return dict(json.loads(json.dumps(settings)))  # as it will be read again


@dataclass(frozen=True)
class PlannedRow:
    """A clip that a row asks for."""

    row: Row
    job: Job


@dataclass(frozen=True)
class Plan:
    """What is to be made, and what need not be; `header` is what the manifest says of all of it."""

    header: Header
    todo: list[Item]
    done: list[tuple[Item, Entry]]
    rows: dict[str, Row]  # by an item's key

    @property
    def items(self) -> list[Item]:
        """All items, in the order of the rows."""
        found = {item.key: item for item in [*(item for item, _ in self.done), *self.todo]}
        return [found[key] for key in self.rows]


def plan_rows(
    rows: Sequence[Row],
    request: Request,
    defaults: SamplingConfig | MusicGenSampling,
    *,
    seed: int | None,
    check: Callable[[Job], None],
) -> list[PlannedRow]:
    """The clips that the rows ask for, in order; UsageError lists every problem of every row.

    defaults: the model's sampling options; check: raises for a job that the model cannot do.
    """
    problems = Problems("standard input" if request.file == "-" else request.file)
    planner = Planner(seed)
    common = apply_all(request.overrides, defaults)  # raises before any row is blamed
    planned = []
    for row in rows:
        try:
            sampling = apply_all(row.overrides, common)
            edit = EditConfig(**{**request.edits, **row.edits})
            if row.output is not None:
                check_name(row.output, AUDIO_EXTENSIONS)
            variations = request.variations if row.variations is None else row.variations
            jobs = planner.jobs(row.prompt, sampling, seed=row.seed, variations=variations, edit=edit)
            check(jobs[0])
            planned += [PlannedRow(row, job) for job in jobs]
        except MagnetError as error:
            problems.add(row.line, error)
    problems.check()
    return planned


def plan_batch(
    planned: Sequence[PlannedRow], request: Request, manifest: Manifest, header: Header, hashes: dict[str, str]
) -> Plan:
    """Give every clip its files and its key, and find those that are there. UsageError for a clip that comes twice."""
    names = [Name(one.job.prompt, one.job.seed, one.row.output) for one in planned]
    _, paths = plan_folder(request.output, names, model=request.short_name, extensions=AUDIO_EXTENSIONS)
    problems = Problems("standard input" if request.file == "-" else request.file)
    plan = Plan(header, [], [], {})
    digests: dict[str, str] = {}
    for one, path in zip(planned, paths, strict=True):
        key = item_key(one.job, request.finish, path.suffix, hashes, digests)
        item = Item(one.job, Target.beside(path, metadata=request.metadata, codes=request.codes), key)
        if key in plan.rows:
            problems.add(one.row.line, f"the same clip as on line {plan.rows[key].line}: give it another seed")
            continue
        plan.rows[key] = one.row
        entry = manifest.finished(key)
        if entry is None:
            plan.todo.append(item)
        else:
            plan.done.append((item, entry))
    problems.check()
    return plan


def check_same(plan: Plan, manifest: Manifest) -> None:
    """Raise OutputError if the folder holds another batch: other options, or none of this one's clips."""
    made = {entry.item for entry in manifest.entries.values() if entry.error is None}
    if not made or (plan.header in manifest.headers and made & plan.rows.keys()):
        return
    hint = "Choose another folder, or add to it with --mix"
    if plan.header in manifest.headers:
        raise OutputError(f"{manifest.folder} holds a batch of other prompts ({len(made)} clips)", hint)
    theirs, ours = manifest.headers[-1].settings, plan.header.settings
    differing = [name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name)]
    told = ", ".join(f"{name.replace('_', '-')} {_word(theirs, name)}, not {_word(ours, name)}" for name in differing)
    raise OutputError(f"{manifest.folder} holds another batch ({told or 'other seeds'})", hint)


def _word(settings: dict[str, Any], name: str) -> str:
    value = settings.get(name)
    return "by default" if value is None else str(value)


def clear_way(plan: Plan, manifest: Manifest, *, mix: bool) -> tuple[Plan, list[Path]]:
    """Make room for what is to be made again; returns the plan and the names that changed files have now.

    mix: names that another batch has taken are numbered.
    """
    moved: list[Path] = []
    todo = []
    for item in plan.todo:
        entry = manifest.entries.get(item.key)
        if entry is not None:
            moved += manifest.clear_way(entry)
        todo.append(Item(item.job, _free(item.target), item.key) if mix else item)
    return Plan(plan.header, todo, plan.done, plan.rows), moved


def _free(target: Target) -> Target:
    """The target, under the next number if its names are taken."""
    number, free = 2, target
    while any(path.exists() for path in free.files):
        audio = target.audio.with_name(f"{target.audio.stem}-{number}{target.audio.suffix}")
        free = Target.beside(audio, metadata=target.metadata is not None, codes=target.codes is not None)
        number += 1
    return free
