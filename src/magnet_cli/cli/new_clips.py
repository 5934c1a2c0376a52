"""What `magnet generate` and `magnet again` share: from what is asked for to new files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.audio.formats import AUDIO_EXTENSIONS
from magnet_cli.cli.hear import (
    STDOUT,
    STDOUT_TARGET,
    check_standard_output,
    play_files,
    warn_of_silence,
    write_standard_output,
)
from magnet_cli.cli.run_jobs import (
    decibels,
    describe_clip,
    describe_sampling,
    load,
    make,
    note_unknown_words,
    open_parts,
    resolve_helpers,
    result,
)
from magnet_cli.errors import HubError
from magnet_cli.hub.registry import BUNDLED
from magnet_cli.jobs.naming import ClipName, plan_paths
from magnet_cli.jobs.sweep import Combination
from magnet_cli.jobs.targets import Target
from magnet_cli.options.candidates import CandidateOptions
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import Job, draw_seed, plan
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import RuntimeConfig
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig
from magnet_cli.options.sampling_overrides import Overrides, apply_all
from magnet_cli.pipeline.rules import ModelGroup, loop_bars, usual_sampling
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.options import ClipOptions, FileOptions, Speech
from magnet_cli.terminal.panels import aligned

if TYPE_CHECKING:
    from magnet_cli.hub.locate import ResolvedModel
    from magnet_cli.jobs.writer import Product

SweepOption = Annotated[
    list[str] | None,
    typer.Option(
        "--sweep",
        metavar="OPTION=VALUE,VALUE,...",
        help="Generate every clip once with each of these values of an option, with the same seed. Repeat the option "
        "for all combinations. Separate values that have commas in them by slashes: steps=20,10,10,10/60,10,10,10.",
        rich_help_panel="Clips",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Order:
    """New clips, as a command asks for them.

    helpers       names of the models that help, by what they do
    sampling      what the overrides change, where the model is of the same kind; None: the model's own
    combinations  those of a sweep; without one, a single one that changes nothing
    fallback      whether the bundled model may replace one that cannot be downloaded; None: the user named that one
    candidates    for each clip, which are consecutive clips of the plan
    play          whether the clips are played when they are written
    """

    texts: Sequence[str]
    clips: ClipOptions
    model: ResolvedModel
    helpers: Mapping[str, str]
    sampling: SamplingConfig | MusicGenSampling | None = None
    overrides: Overrides
    edit: EditConfig
    combinations: Sequence[Combination]
    finish: OutputConfig
    output: str | None
    files: FileOptions
    fallback: bool | None
    candidates: CandidateOptions = field(default_factory=CandidateOptions)
    play: bool = False

    @property
    def to_stdout(self) -> bool:
        """Whether the clip goes to standard output."""
        return self.output == STDOUT

    def plan(self) -> list[tuple[Job, Combination]]:
        """The clips before the model is read: its sampling options are those usual for its kind. UsageError."""
        seed = draw_seed() if self.clips.seed is None else self.clips.seed
        return [
            (job, combination)
            for combination in self.combinations
            for job in plan(
                self.texts,
                self.sampling_of(combination, usual_sampling(self.model)),
                seed=seed,
                variations=self.clips.variations * self.candidates.best_of,
                edit=replace(self.edit, **combination.edits()),
            )
        ]

    def sampling_of(
        self, combination: Combination, own: SamplingConfig | MusicGenSampling
    ) -> SamplingConfig | MusicGenSampling:
        """The sampling options of a combination, for a model whose own ones these are."""
        base = self.sampling if isinstance(self.sampling, type(own)) else own
        return apply_all(combination.over(self.overrides), base)

    def targets(self, drafts: Sequence[tuple[Job, Combination]], model: ResolvedModel) -> list[Target]:
        """The files of every clip, none of which is there already unless it may be overwritten."""
        from magnet_cli.jobs.targets import check_targets

        if self.to_stdout:
            return [STDOUT_TARGET] * len(drafts)
        # Of the candidates for a clip, one is written: they may share a name, and have the number of the clip.
        each = self.candidates.rivals
        parts = [self._paths(drafts[place::each], model) for place in range(each)]
        targets = [target for clip in zip(*parts, strict=True) for target in clip]
        check_targets(targets, self.finish, overwrite=self.files.force)
        return targets

    def _paths(self, drafts: Sequence[tuple[Job, Combination]], model: ResolvedModel) -> list[Target]:
        """The files of clips, whether or not they are there already."""
        items = [
            ClipName(job.prompt, job.seed, swept=combination.words, bpm=job.edit.bpm, bars=loop_bars(job.edit, model))
            for job, combination in drafts
        ]
        folder, paths = plan_paths(self.output, items, model=model.file_name, extensions=AUDIO_EXTENSIONS)
        return [
            Target.beside(
                path,
                metadata=not self.files.no_metadata,
                codes=self.files.save_codes,
                folder=folder,
                picture=self.files.picture,
            )
            for path in paths
        ]


def make_new_clips(console: Console, order: Order, runtime: RuntimeConfig, speech: Speech) -> None:
    """Everything from the checks before a model is read to the results on standard output."""
    from magnet_cli.pipeline.inputs import InputFiles

    wanted, helping, fallback = order.model, resolve_helpers(order.helpers, order.model.places), None
    order.candidates.check_number(order.clips.variations)
    if order.candidates.keep_all and not order.candidates.judges:
        console.warning("--keep-all has no effect without --best-of")
    for combination in order.combinations:
        edit = replace(order.edit, **combination.edits())
        order.candidates.check(edit, is_musicgen=wanted.is_musicgen)
    order.files.check()
    drafts, inputs = order.plan(), InputFiles()
    if order.to_stdout:
        others = order.files.save_codes or order.files.picture or order.play
        check_standard_output(len(drafts) // order.candidates.rivals, as_json=speech.json, others=others)
    elif order.play:
        warn_of_silence(console)
    check = ModelGroup(wanted, helping).checker(inputs)
    each = len(drafts) // len(order.combinations)  # clips of a combination, which differ in prompt and seed only
    for job, _ in drafts[::each]:
        check(job)
    if order.overrides.rescore_weight is not None and "rescorer" not in order.helpers:
        console.warning("--rescore-weight has no effect without --rescorer")
    targets = order.targets(drafts, wanted)
    if order.clips.seed is None and speech.quiet and not speech.json:
        console.essential(f"seed {drafts[0][0].seed}")
    try:
        opened = open_parts(console, wanted, helping)
    except HubError as error:
        instead = stand_in(order, error)
        console.essential(
            f"{wanted.given} is not available: {error.message}. {error.hint}. "
            f"Falling back to the small model {BUNDLED}, which is much simpler; --no-fallback prevents this."
        )
        wanted, fallback = instead, error.message
        targets = order.targets(drafts, wanted)
        opened = open_parts(console, wanted, helping)
    own = opened.source.facts.sampling
    jobs = [replace(job, sampling=order.sampling_of(combination, own)) for job, combination in drafts]
    check = opened.group.checker(inputs)
    for job in jobs[::each]:
        check(job)
    pipeline = load(console, opened, runtime, inputs)
    console.detail(f"sampling: {describe_sampling(jobs[0].sampling)}")

    from magnet_cli.jobs.manifest import Item, Rival
    from magnet_cli.jobs.writer import Production

    production = Production(
        pipeline,
        wanted.given,
        order.finish,
        overwrite=order.files.force,
        metadata=not order.files.no_metadata,
        helpers=dict(order.helpers),
        fallback=fallback,
    )
    note_unknown_words(console, production, jobs)
    pairs, together = list(zip(jobs, targets, strict=True)), order.candidates.rivals
    items = [
        Item(
            *pairs[first],
            rivals=tuple(Rival(*pair) for pair in pairs[first + 1 : first + together]),
            judge=order.candidates.judging,
        )
        for first in range(0, len(pairs), together)
    ]
    words = {target.audio: combination.words for target, (_, combination) in zip(targets, drafts, strict=True)}
    rows: list[Sequence[str]] = []
    written: list[Path] = []

    def take(product: Product) -> None:
        if order.to_stdout:
            console.message(describe_clip(product.clip, STDOUT_TARGET, order.finish))
            write_standard_output(console, production, product)
            return
        console.result(result(product, as_json=speech.json), announced=not speech.json)
        written.append(product.item.target.audio)
        rows.append(sweep_row(product, words[product.item.target.audio]))

    make(console, production, items, take=take, write=not order.to_stdout)
    if len(order.combinations) > 1:
        header = [*(name for name, _ in order.combinations[0].words), "seed", "took", "LUFS", "file"]
        for line in aligned([header, *rows]):
            console.message(line)
    if order.play and not order.to_stdout:
        play_files(console, written)


def stand_in(order: Order, error: HubError) -> ResolvedModel:
    """The bundled model, in place of one that cannot be downloaded; the error itself unless that may be."""
    from magnet_cli.hub.locate import bundled_model

    instead = None if order.fallback is None else bundled_model(order.model.places)
    if instead is None:
        raise error
    if not order.fallback:
        download = f"magnet models download {order.model.given}"
        ways = error.hint if download in error.hint else f"{error.hint}. On a connected machine run `{download}`"
        raise HubError(error.message, f"{ways}; or give --model {BUNDLED}, the small model inside this package")
    return instead


def sweep_row(product: Product, words: Sequence[tuple[str, str]]) -> Sequence[str]:
    """What the table of a sweep says of a clip."""
    clip = product.clip
    lufs = clip.audio.after.lufs
    took = f"{clip.work_seconds:.1f} s"
    loudness = "silence" if lufs is None else decibels(lufs)
    return [*(value for _, value in words), str(clip.job.seed), took, loudness, product.item.target.audio.name]
