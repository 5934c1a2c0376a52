"""What the commands that generate clips share: loading a model, generating items, and the messages about both."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnet_cli.cli.best_of import Contest, Judge, judge_of, with_score
from magnet_cli.errors import near
from magnet_cli.hub.store import read_ahead
from magnet_cli.jobs.targets import Target
from magnet_cli.options.candidates import JudgeName
from magnet_cli.options.job import Job
from magnet_cli.options.output import RATES, OutputConfig
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig
from magnet_cli.pipeline.rules import ModelGroup
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.options import human, licence_note

if TYPE_CHECKING:
    from magnet_cli.checkpoints.bundle import Model
    from magnet_cli.checkpoints.musicgen import MusicGenModel
    from magnet_cli.hub.locate import ResolvedModel
    from magnet_cli.jobs.manifest import Item
    from magnet_cli.jobs.writer import ItemFailed, Product, Production
    from magnet_cli.pipeline.build import ModelInfo
    from magnet_cli.pipeline.clip import Clip
    from magnet_cli.pipeline.events import StepDone, TextEncoded
    from magnet_cli.pipeline.inputs import InputFiles
    from magnet_cli.pipeline.pipeline import Pipeline
    from magnet_cli.terminal.progress import ProgressBar

LONGEST_LABEL = 40
MOST_LINES = 3  # about inputs
MOST_WORDS = 8  # that a model does not know
SHORTEST_MISSPELLED = 4  # letters
LONGEST_IN_BAR = 80  # the bar shortens it further to the width of the terminal


# -- loading ----------------------------------------------------------------------------------------------------------


def resolve_helpers(names: Mapping[str, str], places: PlacesConfig) -> dict[str, ResolvedModel]:
    """What the names of the models that help mean."""
    from magnet_cli.hub.locate import resolve

    return {role: resolve(name, places) for role, name in names.items()}


@dataclass(frozen=True)
class Opened:
    """A model and those that help it, read but not built."""

    source: Model | MusicGenModel
    helpers: dict[str, Model | MusicGenModel]

    @property
    def group(self) -> ModelGroup:
        """The rules of what they can do."""
        return ModelGroup(self.source, self.helpers)


def open_parts(console: Console, model: ResolvedModel, helpers: Mapping[str, ResolvedModel]) -> Opened:
    """The parts of a model and its helpers; what is not on this machine is downloaded, with a bar."""
    from magnet_cli.hub.download import Access
    from magnet_cli.hub.locate import fetch_first

    with console.transfers(human) as transfers:
        for one in (model, *helpers.values()):
            fetch_first(one, Access(one.places.cache_dir, one.places.offline, transfers.hear))
            read_model_ahead(one)
    with console.busy(f"opening {model.given}"):
        from magnet_cli.checkpoints.open import open_resolved
    with console.transfers(human) as transfers:
        source = open_resolved(model, listener=transfers.hear)
        opened = {role: open_resolved(one, listener=transfers.hear) for role, one in helpers.items()}
    if opened:
        from magnet_cli.pipeline.build import check_codes

        check_codes(source, opened)
    return Opened(source, opened)


def read_model_ahead(model: ResolvedModel) -> None:
    """Have a bundle's weights read from the disk while PyTorch is imported."""
    if model.bundle is not None:
        read_ahead(model.bundle)


def load(console: Console, opened: Opened, runtime: RuntimeConfig, inputs: InputFiles | None = None) -> Pipeline:
    """Build the model for use; report what it is and where it runs."""
    started = time.perf_counter()
    with console.busy(f"loading {opened.source.name}"):
        from magnet_cli.pipeline.pipeline import Pipeline

        pipeline = Pipeline.build(opened.source, runtime, helpers=opened.helpers, inputs=inputs)
    console.message(describe(pipeline.info))
    for role, helper in opened.helpers.items():
        console.message(f"{role} {helper.origin.name} ({licence_note(helper.origin.licence)})")
    console.detail(f"loaded in {time.perf_counter() - started:.1f} s from {pipeline.info.folder}")
    return pipeline


# -- generating -------------------------------------------------------------------------------------------------------


def raise_failure(event: TextEncoded | StepDone | ItemFailed) -> None:
    """A listener for which the first failure stops the rest."""
    from magnet_cli.jobs.writer import ItemFailed

    if isinstance(event, ItemFailed):
        raise event.error


def make(
    console: Console,
    production: Production,
    items: Sequence[Item],
    *,
    take: Callable[[Product], object],
    write: bool = True,
    numbers: Callable[[int], str] = lambda done: "",
    listener: Callable[[TextEncoded | StepDone | ItemFailed], None] = raise_failure,
) -> None:
    """Generate items, with a bar over the decoding steps and a message about each.

    Of the candidates for an item, the best is kept. It is generated, judged and written like any other item.

    take: receives each item as soon as it is generated, which may be while the next ones are decoded. write: write
    their files. numbers: what precedes the message about an item, given how many are finished. listener: receives every
    step and every item that fails; by default, the first failure stops the rest.
    """
    from magnet_cli.jobs.writer import ItemFailed, Product
    from magnet_cli.pipeline.events import StepDone

    if write:
        for line in losses(production, items):
            console.message(line)
    candidates = [one for item in items for one in item.candidates]
    choice, written = Choice(console, production, items, write=write), 0
    with console.progress(production.pipeline.passes(one.job for one in candidates)) as bar:
        counted = Counted(production.pipeline, len(candidates), bar)

        def report() -> None:
            nonlocal written
            for kept, words in choice.taken():
                written += 1
                if write:
                    said = describe_clip(kept.clip, kept.item.target, production.output)
                    console.message(numbers(written) + said + words)
                take(kept)

        def hear(event: TextEncoded | StepDone | ItemFailed | Product) -> None:
            if isinstance(event, Product):
                counted.settle(event.item.job, event.clip.batch)
                choice.add(event)
                console.detail(", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in event.clip.timings.items()))
                report()
                return
            if isinstance(event, ItemFailed):
                counted.settle(event.item.job, 1)
                if choice.fails(event):
                    listener(event)
                report()  # a clip whose last candidate failed
                return
            listener(event)
            if isinstance(event, StepDone):
                counted.step(event)

        production.run(candidates, write=write and not choice.writes, listener=hear)


class Counted:
    """The steps that a bar shows, of so many clips."""

    def __init__(self, pipeline: Pipeline, clips: int, bar: ProgressBar) -> None:
        self.done = 0  # clips that are finished, or have failed
        self._pipeline, self._clips, self._bar = pipeline, clips, bar
        self._label = ""
        self._begun: list[Job] = []  # and not finished
        self._decoding: Sequence[Job] = ()  # the batch that takes steps
        self._shown = self._before = self._finished = 0  # steps: in the bar, before this batch, of finished clips
        self._behind = 0  # clips of the same batch that are still to be finished

    def step(self, event: StepDone) -> None:
        """A batch has taken a step."""
        batch = event.jobs
        if not self._is_decoding(batch[0]) or len(batch) != len(self._decoding):
            self._decoding, self._before = batch, self._shown
        if not any(job is batch[0] for job in self._begun):
            self._begun.extend(batch)
        first = self.done + 1 + next(place for place, job in enumerate(self._begun) if job is batch[0])
        which = f"{first}" if len(batch) == 1 else f"{first}-{first + len(batch) - 1}"
        self._label = f"clip {which}/{self._clips} · {event.stage} · {shortened(batch[0].prompt, LONGEST_IN_BAR)}"
        self._shown += len(batch)
        self._bar.advance(self._label, len(batch))

    def settle(self, job: Job, batch: int) -> None:
        """A clip is finished, of a batch of so many, or has failed."""
        self.done += 1
        self._begun[:] = [other for other in self._begun if other is not job]
        self._finished += self._pipeline.passes([job])
        self._behind = (self._behind or batch) - 1
        if self._is_decoding(job):  # the next batch has not begun
            self._before = self._shown
        if self._behind == 0:
            # The number of passes of a clip is not always known beforehand, and a codebook that is kept takes none.
            self._bar.advance(self._label, self._finished - self._before)
            self._shown += self._finished - self._before
            self._before = self._finished

    def _is_decoding(self, job: Job) -> bool:
        return any(job is other for other in self._decoding)


class Choice:
    """What becomes of finished clips: each is taken as it comes, or of several candidates the best.

    writes: whether it writes the clips, because at least one has to be judged first.
    """

    def __init__(self, console: Console, production: Production, items: Sequence[Item], *, write: bool) -> None:
        """write: whether clips are written at all."""
        self._console, self._production = console, production
        self._judges: dict[JudgeName, Judge] = {
            item.judge: judge_of(item.judge, production.pipeline) for item in items if item.judge is not None
        }
        self.writes = write and bool(self._judges)
        self._contests: dict[int, Contest] = {}  # by the identity of each candidate's job
        for item in items:
            if item.judge is not None:
                contest = Contest(item, item.judge)
                self._contests |= {id(one.job): contest for one in item.candidates}
        self._ready: list[tuple[Product, str]] = []

    def add(self, product: Product) -> None:
        """Take or judge a finished clip."""
        contest = self._contests.get(id(product.item.job))
        if contest is None:
            self._keep(product, "")
            return
        score = self._judges[contest.name](product.clip)
        if not contest.item.rivals:
            self._keep(with_score(product, contest.name, score), f"; {score.words}")
            return
        self._console.detail(f"candidate of seed {product.item.job.seed}: {score.words}")
        contest.scored.append((product, score))
        self._decide(contest)

    def fails(self, event: ItemFailed) -> bool:
        """Count a candidate that failed; whether the clip has none left, so that it failed itself."""
        contest = self._contests.get(id(event.item.job))
        if contest is None:
            return True
        contest.failed += 1
        if contest.item.rivals:
            self._console.detail(f"candidate of seed {event.item.job.seed} failed: {event.error}")
        self._decide(contest)
        return contest.is_over and not contest.scored

    def taken(self) -> Iterator[tuple[Product, str]]:
        """The clips that are decided, and what a message about each says in addition."""
        while self._ready:
            yield self._ready.pop(0)

    def _decide(self, contest: Contest) -> None:
        if contest.is_over and (best := contest.winner) is not None:
            self._keep(best, f"; the best of {len(contest.item.candidates)}")
            del contest.scored[1:]  # their waveforms are large

    def _keep(self, product: Product, words: str) -> None:
        if self.writes:
            self._production.write(product, self._production.encode(product))
        self._ready.append((product, words))


def result(product: Product, *, as_json: bool) -> Path | dict[str, Any]:
    """The path of a clip; or what --json prints: its files, and how it was generated."""
    target = product.item.target
    if not as_json:
        return target.audio
    return {
        "path": str(target.audio),
        "metadata_path": str(target.metadata) if target.metadata else None,
        "codes_path": str(target.codes) if target.codes else None,
        **({"picture_path": str(target.picture)} if target.picture else {}),
        **product.record,
    }


def losses(production: Production, items: Sequence[Item]) -> list[str]:
    """What clips lose of their inputs' form, or a loop of its seam: a line for each input, of many for the first."""
    found: dict[str, str] = {}
    for item in items:
        edit = item.job.edit
        if edit.input is not None and edit.input not in found and (line := loss(production, item.job)):
            found[edit.input] = line
    lines = list(found.values())
    if len(lines) > MOST_LINES:
        lines[MOST_LINES:] = [f"and {len(lines) - MOST_LINES:,} more inputs"]
    if any(item.job.edit.loop and item.target.audio.suffix.lower() == ".mp3" for item in items):
        lines.append("players add silence to the ends of an MP3 file: a loop is seamless as .wav or .flac")
    return lines


def loss(production: Production, job: Job) -> str | None:
    """What a clip has less of than its input, channels or rate, and which option keeps it; None if nothing."""
    edit, pipeline = job.edit, production.pipeline
    if edit.input is None:
        return None
    given, codec = pipeline.arranger.inputs.form(edit.input), pipeline.codec.config
    own = (given.channels, given.sample_rate) if edit.keeps_samples else (codec.channels, codec.sample_rate)
    channels, rate = own[0], production.output.sample_rate or own[1]
    fewer, slower = channels < given.channels, rate < given.sample_rate
    if not fewer and not slower:
        return None
    kept = "both" if fewer and slower else "them" if fewer else "it"
    remedies = [] if edit.keeps_samples else [f"{'--join' if edit.inpaint is None else '--blend'} keeps {kept}"]
    if not fewer and given.sample_rate in RATES:
        remedies.append(f"--sample-rate {given.sample_rate} writes that rate")
    told = f"{edit.input} has {form(given.channels, given.sample_rate)}, the clip {form(channels, rate)}"
    return f"{told}: {', '.join(remedies)}" if remedies else told


def form(channels: int, rate: int) -> str:
    """2 channels at 44,100 Hz."""
    return f"{channels} channel{'s' if channels > 1 else ''} at {rate:,} Hz"


def note_unknown_words(console: Console, production: Production, jobs: Sequence[Job]) -> None:
    """Name the words of all prompts that mean nothing to the model, the most frequent first, in one message."""
    known = production.pipeline.known_words
    prompts = dict.fromkeys(text for job in jobs for text in job.texts) if known is not None else {}
    found = Counter(word for prompt in prompts for word in production.pipeline.unknown_words(prompt))
    if not found:
        return
    words = sorted(word for word in known or () if not word.isdecimal())
    named = [
        unknown_word(word, count if len(prompts) > 1 else 0, words) for word, count in found.most_common(MOST_WORDS)
    ]
    if len(found) > len(named):
        named.append(f"{len(found) - len(named):,} more")
    which = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    remedy = shlex.join(["magnet", "models", "show", production.model, "--words"])
    console.message(f"note: {production.model} does not know {which}; {remedy} lists the words that it knows")


def unknown_word(word: str, prompts: int, known: Sequence[str]) -> str:
    """A word in quotes, in how many prompts it is unless 0, and the known one that it may be a misspelling of."""
    remarks = [f"in {prompts:,} prompt{'s' if prompts > 1 else ''}"] if prompts else []
    # Of short words, too many are alike.
    alike = near(word, known, 1, least=0.75) if len(word) >= SHORTEST_MISSPELLED else []
    remarks += [f"did you mean {one}?" for one in alike]
    return f'"{word}" ({", ".join(remarks)})' if remarks else f'"{word}"'


# -- words ------------------------------------------------------------------------------------------------------------


def shortened(text: str, limit: int = LONGEST_LABEL) -> str:
    """A text on one line, cut to this many characters."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def describe(info: ModelInfo) -> str:
    """The line that names the model, its licence, the device and the precision."""
    return f"model {info.name} ({licence_note(info.licence)}) · device {info.device} · dtype {info.dtype}"


def describe_sampling(sampling: SamplingConfig | MusicGenSampling) -> str:
    """The sampling options in effect."""
    return ", ".join(
        f"{name.replace('_', '-')} {','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in asdict(sampling).items()
        if value is not None
    )


def describe_clip(clip: Clip, target: Target, output: OutputConfig) -> str:
    """The line that reports a file that was written."""
    after = clip.audio.after
    loudness = "silence" if after.lufs is None else f"{decibels(after.lufs)} LUFS"
    if output.normalize in ("auto", "loudness") and after.lufs is not None and not clip.audio.reached:
        loudness += f" (not {output.lufs:g}: limited by the peak ceiling)"
    peak = "" if after.true_peak is None else f", {decibels(after.true_peak)} dBTP"
    return f"{target.audio}: {clip.seconds:.2f} s, seed {clip.job.seed}, {describe_tempo(clip)}{loudness}{peak}"


def describe_tempo(clip: Clip) -> str:
    """The measured tempo of a loop, and the one that it should have if that is another; empty for other clips."""
    bpm = clip.job.edit.bpm
    if clip.tempo is None:
        return "" if bpm is None else f"no clear beat (asked for {bpm:g} bpm), "
    other = bpm is not None and not clip.tempo.is_near(bpm)
    return f"{clip.tempo.bpm:.1f} bpm" + (f" (asked for {bpm:g}), " if other else ", ")


def decibels(value: float) -> str:
    """One digit after the point, and never -0.0."""
    return f"{round(value, 1) + 0.0:.1f}"
