"""What the commands that make clips share: loading a model, making items, and the words for both."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnet_cli.cli.console import Console
from magnet_cli.cli.options import download_first, human, licence_note
from magnet_cli.errors import UsageError
from magnet_cli.hub.library import BUNDLED_FOLDER, Store, is_bundle, read_ahead
from magnet_cli.hub.registry import BUNDLED, MODELS, MUSICGEN_SECONDS, RESCORERS, musicgen_name
from magnet_cli.jobs.targets import Target
from magnet_cli.options.job import Job
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig, check_steps

if TYPE_CHECKING:
    from magnet_cli.checkpoints.bundle import Model
    from magnet_cli.checkpoints.musicgen import MusicGenModel
    from magnet_cli.jobs.manifest import Item
    from magnet_cli.jobs.writer import Product, Production
    from magnet_cli.pipeline.build import ModelInfo
    from magnet_cli.pipeline.generators import Progress
    from magnet_cli.pipeline.pipeline import Clip, Pipeline

LONGEST_LABEL = 40
LONGEST_IN_BAR = 24  # so that the bar fits into 80 columns
RELEASED_RATE = 50  # frames per second of every released model


# -- before anything is loaded ----------------------------------------------------------------------------------------


def draft_sampling(model: str) -> SamplingConfig | MusicGenSampling:
    """The sampling options that suit a model, as far as that is known without opening it."""
    if musicgen_name(model):
        return MusicGenSampling()
    return MODELS[model].sampling if model in MODELS else SamplingConfig()


def early_check(model: str, helpers: Mapping[str, str]) -> Callable[[Job], None]:
    """What raises UsageError for a job that cannot work, as far as that is known without opening the model."""
    spec, musicgen = MODELS.get(model), musicgen_name(model)
    if musicgen is not None and helpers:
        raise UsageError("MusicGen generates alone: nothing rescores it", "Choose a MAGNeT model")
    if spec is not None and spec.task == "sound" and any(map(musicgen_name, helpers.values())):
        raise UsageError(
            f"{model} makes sound effects, and MusicGen knows music only",
            "Choose a music model; to rescore sound, give a second sound model, e.g. audio-magnet-medium",
        )

    def check(job: Job) -> None:
        if job.edit.input is not None and not os.path.isfile(job.edit.input):
            raise UsageError(f"there is no file {job.edit.input}", "Check the path")
        if job.edit.hybrid is not None and "hybrid" not in helpers:
            raise UsageError("a hybrid needs a second model", "Name it, e.g. --hybrid-model musicgen-small")
        if musicgen is not None:
            job.edit.check_autoregressive()
            seconds = RESCORERS[musicgen].seconds
            job.edit.length(seconds, RELEASED_RATE, default_seconds=MUSICGEN_SECONDS)
        elif spec is not None and isinstance(job.sampling, SamplingConfig):
            check_steps(job.sampling, codebooks=len(spec.sampling.steps))
            job.edit.length(spec.seconds, RELEASED_RATE)

    return check


# -- loading ----------------------------------------------------------------------------------------------------------


def helper_names(rescorer: str | None, beginner: str | None) -> dict[str, str]:
    """The models that help, by what they do; None where nothing of the kind is wanted."""
    names = {"rescorer": rescorer, "hybrid": beginner}
    return {role: name for role, name in names.items() if name is not None}


@dataclass(frozen=True)
class Opened:
    """A model and those that help it, read but not built."""

    source: Model | MusicGenModel
    helpers: dict[str, Model | MusicGenModel]

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of all their files."""
        found = dict(self.source.hashes)
        for role, helper in self.helpers.items():
            found |= {f"{role}/{name}": digest for name, digest in helper.hashes.items()}
        return found

    def check(self) -> Callable[[Job], None]:
        """What raises UsageError for a job that the models cannot do, or whose input cannot be used."""
        from magnet_cli.pipeline.build import check_job
        from magnet_cli.pipeline.edits import check_input, measure_input

        measured = cache(measure_input)

        def check(job: Job) -> None:
            check_job(job, self.source, self.helpers)
            check_input(job.edit, measured)

        return check


def open_parts(console: Console, model: str, helpers: Mapping[str, str], places: PlacesConfig) -> Opened:
    """The parts of a model and of those that help it, downloaded with a bar where they are not here."""
    with console.transfers(human) as transfers:
        for name in (model, *helpers.values()):
            download_first(name, places, transfers.report)
            read_model_ahead(name, places)
    with console.busy(f"opening {model}"):
        from magnet_cli.checkpoints.open import open_any
    with console.transfers(human) as transfers:
        source = open_any(model, places, on_download=transfers.report)
        opened = {role: open_any(name, places, on_download=transfers.report) for role, name in helpers.items()}
    if opened:
        from magnet_cli.pipeline.build import check_helpers

        check_helpers(source, opened)
    return Opened(source, opened)


def read_model_ahead(model: str, places: PlacesConfig) -> None:
    """Have a bundle's weights read from the disk while PyTorch is imported."""
    from magnet_cli.hub.locate import store_name

    name, folder = store_name(model), Path(os.path.expanduser(model))
    if name is not None and (name in MODELS or not folder.is_dir()):
        folder = Store.at(places.model_dir).folder(name)
    elif model == BUNDLED:
        folder = BUNDLED_FOLDER
    if is_bundle(folder):
        read_ahead(folder)


def load(console: Console, model: str, opened: Opened, runtime: RuntimeConfig) -> Pipeline:
    """The model, ready; says what it is and where it runs."""
    started = time.perf_counter()
    with console.busy(f"loading {model}"):
        from magnet_cli.pipeline.pipeline import Pipeline

        pipeline = Pipeline.build(opened.source, runtime, helpers=opened.helpers)
    console.message(describe(pipeline.info))
    for role, helper in opened.helpers.items():
        console.message(f"{role} {helper.origin.name} ({licence_note(helper.origin.licence)})")
    console.detail(f"loaded in {time.perf_counter() - started:.1f} s from {pipeline.info.folder}")
    return pipeline


# -- making -----------------------------------------------------------------------------------------------------------


def make(
    console: Console,
    production: Production,
    items: Sequence[Item],
    *,
    write: bool = True,
    numbers: Callable[[int], str] = lambda done: "",
    on_step: Callable[[], None] = lambda: None,
    on_failure: Callable[[Item, Exception], None] | None = None,
) -> Iterator[Product]:
    """Make items, with a bar over the decoding steps and a message about each.

    write: write their files. numbers: what to say before the message about an item, given how many are done. on_step:
    called after every step.
    """
    with console.progress(production.pipeline.passes(item.job for item in items)) as bar:
        done = shown = finished = 0
        label = ""
        begun: list[Job] = []  # of those that are not done

        def settle(job: Job, *, last: bool) -> None:
            # How many passes a clip takes is not always known beforehand, and a codebook that is kept takes none.
            nonlocal shown, finished
            begun[:] = [other for other in begun if other is not job]
            finished += production.pipeline.passes([job])
            if last:
                bar.advance(label, finished - shown)
                shown = finished

        def step(progress: Progress, batch: Sequence[Job]) -> None:
            nonlocal label, shown
            on_step()
            if not any(job is batch[0] for job in begun):
                begun.extend(batch)
            first = done + 1 + next(place for place, job in enumerate(begun) if job is batch[0])
            which = f"{first}" if len(batch) == 1 else f"{first}-{first + len(batch) - 1}"
            label = f"clip {which}/{len(items)} · {progress.stage}"
            label += f" · {shortened(batch[0].prompt, LONGEST_IN_BAR)}"
            shown += len(batch)
            bar.advance(label, len(batch))

        def fail(item: Item, error: Exception) -> None:
            nonlocal done
            done += 1
            settle(item.job, last=True)
            if on_failure is not None:
                on_failure(item, error)

        failed = None if on_failure is None else fail
        behind = 0  # clips of the batch that are yet to come
        for product in production.run(items, write=write, on_step=step, on_failure=failed):
            done += 1
            behind = (behind or product.clip.batch) - 1
            settle(product.item.job, last=behind == 0)
            clip, target = product.clip, product.item.target
            if write:
                console.message(numbers(done) + describe_clip(clip, target, production.output))
            console.detail(", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in clip.timings.items()))
            yield product


def result(product: Product, *, as_json: bool) -> str | dict[str, Any]:
    """The path of a clip; or what --json prints: its files, and how it was made."""
    target = product.item.target
    if not as_json:
        return str(target.audio)
    return {
        "path": str(target.audio),
        "metadata_path": str(target.metadata) if target.metadata else None,
        "codes_path": str(target.codes) if target.codes else None,
        **product.record,
    }


# -- words ------------------------------------------------------------------------------------------------------------


def short_name(model: str) -> str:
    """What a model is called in the names of files."""
    return Path(os.path.realpath(model)).name if os.path.isdir(model) else model.rsplit("/", 1)[-1]


def shortened(text: str, limit: int = LONGEST_LABEL) -> str:
    """A text on one line, cut to this many characters."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def describe(info: ModelInfo) -> str:
    """The line that says what runs where, and under which licence."""
    return f"model {info.name} ({licence_note(info.licence)}) · device {info.device} · dtype {info.dtype}"


def describe_sampling(sampling: SamplingConfig | MusicGenSampling) -> str:
    """The sampling options in effect."""
    return ", ".join(
        f"{name.replace('_', '-')} {','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in asdict(sampling).items()
        if value is not None
    )


def describe_clip(clip: Clip, target: Target, output: OutputConfig) -> str:
    """The line that says what was written."""
    after = clip.audio.after
    loudness = "silence" if after.lufs is None else f"{decibels(after.lufs)} LUFS"
    if output.normalize in ("auto", "loudness") and after.lufs is not None and not clip.audio.reached:
        loudness += f" (not {output.lufs:g}: the peak ceiling came first)"
    peak = "" if after.true_peak is None else f", {decibels(after.true_peak)} dBTP"
    return f"{target.audio.name}: {clip.seconds:.2f} s, seed {clip.job.seed}, {loudness}{peak}"


def decibels(value: float) -> str:
    """One digit after the point, and never -0.0."""
    return f"{round(value, 1) + 0.0:.1f}"
