"""How far the decoding is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from magnet_cli.terminal.streams import visible

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress

LINE_EVERY = 30.0  # seconds between the lines on what is no terminal, such as a log


def bar_width(columns: int) -> int:
    """Characters of the bar on a terminal of this width: enough to see it move, few enough to leave room for words."""
    return 40 if columns >= 120 else 20 if columns >= 80 else 10


def steps_bar(console: RichConsole, *, hidden: bool) -> Progress:
    """A bar over steps that fits every terminal from 40 columns on: the description alone shrinks."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    shrinking = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    whole = {"no_wrap": True}
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}", markup=False, table_column=shrinking),
        BarColumn(bar_width(console.width)),
        MofNCompleteColumn(table_column=Column(**whole)),  # type: ignore[arg-type]
        TimeRemainingColumn(table_column=Column(**whole)),  # type: ignore[arg-type]
        TextColumn("left", table_column=Column(**whole)),  # type: ignore[arg-type]
    ]
    if console.width >= 80:
        columns.insert(3, TimeElapsedColumn(table_column=Column(**whole)))  # type: ignore[arg-type]
    return Progress(
        *columns,
        console=console,
        expand=True,
        transient=True,
        redirect_stdout=False,  # rich would send results to stderr
        disable=hidden,
    )


class ProgressBar:
    """Progress over decoding steps. message: writes a line; None where a bar is drawn, or nothing is to be shown."""

    def __init__(self, bar: Progress, total: int, message: Callable[[str], None] | None) -> None:
        self._bar = bar
        self._task = bar.add_task("starting", total=total)
        self._message = message
        self._total, self._done, self._before = total, 0, 0
        self._started = self._said = time.monotonic()

    def resume(self, steps: int) -> None:
        """So many steps were done before: they fill the bar, and do not count as speed."""
        self._bar.reset(self._task, completed=steps)
        self._done = self._before = steps
        self._started = time.monotonic()

    def advance(self, description: str, steps: int) -> None:
        """`steps` more of the described work are done."""
        self._bar.update(self._task, description=visible(description), advance=steps)
        self._done += steps
        now = time.monotonic()
        if self._message is not None and now - self._said >= LINE_EVERY and 0 < self._done < self._total:
            self._said = now
            left = (now - self._started) / (self._done - self._before) * (self._total - self._done)
            word = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
            self._message(f"{description}: {self._done:,} of {self._total:,} steps, about {word} left")
