"""Progress bars for Python programs: on standard error, or in a notebook as HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from magnet_cli.hub.download import Downloading
from magnet_cli.pipeline.events import Listener, StepDone
from magnet_cli.pipeline.notebook import NotebookBars, in_notebook

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LONGEST_PROMPT = 30  # characters


def wants_bar(progress: bool | None) -> bool:
    """Whether a bar is to be shown: as asked for, else in notebooks only."""
    return in_notebook() if progress is None else progress


@contextmanager
def step_bar(total: int, listener: Listener) -> Iterator[Listener]:
    """A bar over `total` passes through the network; yields a listener that moves it and calls the other."""
    with _progress() as bar:
        task = bar.add_task("", total=total)

        def hear(event: Downloading | object) -> None:
            if isinstance(event, StepDone):
                prompt = event.jobs[0].prompt[:LONGEST_PROMPT]
                words = "".join(one if one.isprintable() else " " for one in f"{prompt} · {event.stage}")
                bar.update(task, description=words, advance=len(event.jobs))
            listener(event)  # type: ignore[arg-type]

        yield hear
        bar.update(task, completed=total)  # how many passes a clip takes is not always known beforehand


@contextmanager
def download_bars(*, draw: bool) -> Iterator[Callable[[Downloading], None]]:
    """Bars over downloads in MB, one for each repository; yields their listener. draw: or nothing at all."""
    if not draw:
        yield lambda event: None
        return
    with _progress() as bar:
        tasks: dict[str, TaskID] = {}

        def hear(event: Downloading) -> None:
            name = event.plan.repository
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=event.plan.missing_size / 1e6)
            bar.update(tasks[name], completed=event.done / 1e6)

        yield hear


def _progress() -> Progress | NotebookBars:
    if in_notebook():
        return NotebookBars()
    from rich.console import Console  # a tenth of a second, only where a bar is wanted
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        redirect_stdout=False,
        redirect_stderr=False,
    )
