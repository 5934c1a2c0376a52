"""What the commands that make clips share: loading a model, making items, and the words for both."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnet_cli.cli.options import download_first, human, licence_note
from magnet_cli.config import OutputConfig, PlacesConfig, RuntimeConfig, SamplingConfig
from magnet_cli.console import Console
from magnet_cli.naming import Target
from magnet_cli.prompts import Job

if TYPE_CHECKING:
    from magnet_cli.bundle import Model
    from magnet_cli.decode import Step
    from magnet_cli.manifest import Item
    from magnet_cli.pipeline import Clip, ModelInfo, Pipeline
    from magnet_cli.production import Product, Production

LONGEST_LABEL = 40


def open_parts(console: Console, model: str, places: PlacesConfig) -> Model:
    """The parts of a model, downloaded with a bar where they are not here."""
    with console.transfers(human) as transfers:
        download_first(model, places, transfers.report)
    with console.busy(f"opening {model}"):
        from magnet_cli.models import open_model
    with console.transfers(human) as transfers:
        return open_model(model, places, on_download=transfers.report)


def load(
    console: Console, model: str, runtime: RuntimeConfig, places: PlacesConfig, *, source: Model | None = None
) -> Pipeline:
    """The model, ready; says what it is and where it runs. source: its parts, if they are open."""
    started = time.perf_counter()
    source = source or open_parts(console, model, places)
    with console.busy(f"loading {model}"):
        from magnet_cli.pipeline import Pipeline

        pipeline = Pipeline.build(source, runtime)
    console.message(describe(pipeline.info))
    console.detail(f"loaded in {time.perf_counter() - started:.1f} s from {pipeline.info.folder}")
    return pipeline


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
    codebooks = production.pipeline.info.codebooks
    with console.progress(sum(sum(item.job.sampling.steps) for item in items)) as bar:
        done = 0

        def step(step: Step, batch: Sequence[Job]) -> None:
            on_step()
            first = done + 1
            which = f"{first}" if len(batch) == 1 else f"{first}-{done + len(batch)}"
            label = f"clip {which}/{len(items)} · codebook {step.codebook + 1}/{codebooks}"
            bar.advance(f"{label} · {shortened(batch[0].prompt)}", len(batch))

        def fail(item: Item, error: Exception) -> None:
            nonlocal done
            done += 1
            if on_failure is not None:
                on_failure(item, error)

        failed = None if on_failure is None else fail
        for product in production.run(items, write=write, on_step=step, on_failure=failed):
            done += 1
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


def describe_sampling(sampling: SamplingConfig) -> str:
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
    if output.normalize == "loudness" and after.lufs is not None and not clip.audio.reached:
        loudness += f" (not {output.lufs:g}: the peak ceiling came first)"
    peak = "" if after.true_peak is None else f", {decibels(after.true_peak)} dBTP"
    return f"{target.audio.name}: {clip.seconds:.2f} s, seed {clip.job.seed}, {loudness}{peak}"


def decibels(value: float) -> str:
    """One digit after the point, and never -0.0."""
    return f"{round(value, 1) + 0.0:.1f}"
