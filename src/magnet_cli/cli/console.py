"""What the user sees: messages and progress on stderr, results on stdout."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

import typer

from magnet_cli.cli.stopping import Stopping
from magnet_cli.errors import MagnetError, MagnetWarning, OutputError

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress, TaskID

    from magnet_cli.hub.download import Downloading, DownloadPlan


class Console:
    """Messages go to stderr unless quiet; warnings too; errors always. Results go to stdout, one a line."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self._bar: Progress | None = None

    def message(self, text: str) -> None:
        """Something the user wants to know."""
        if not self.quiet:
            self._stderr.print(text)

    def detail(self, text: str) -> None:
        """Something the user wants to know when asking for more."""
        if self.verbose:
            self.message(text)

    def warning(self, text: str) -> None:
        """Something the user should know, though the work goes on."""
        if not self.quiet:
            self._stderr.print(f"warning: {text}", style="yellow")

    def error(self, text: str) -> None:
        """Why the work stopped."""
        self._stderr.print(f"error: {text}", style="red")

    def essential(self, text: str) -> None:
        """Something that must be said even when quiet."""
        self._stderr.print(text)

    def result(self, value: str | dict[str, Any]) -> None:
        """A result, for people and programs: a line of text, or a JSON object on a line.

        A path goes out as the bytes it has on the disk, whatever the terminal's encoding; JSON is plain ASCII.
        """
        line = os.fsencode(value) if isinstance(value, str) else json.dumps(value, allow_nan=False).encode("ascii")
        if sys.stdout is None:
            raise OutputError("standard output is closed", "Redirect it to /dev/null; what was written is complete")
        if self._bar is not None:  # on a terminal both streams share the screen
            self._bar.stop()
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(
                f"cannot write to standard output: {error.strerror}",
                "Redirect it; what was written is complete",
            ) from error
        if self._bar is not None:
            self._bar.start()

    @cached_property
    def _stderr(self) -> RichConsole:
        from rich.console import Console as RichConsole  # a tenth of a second, which mere results need not wait for

        return RichConsole(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)

    @property
    def _on_terminal(self) -> bool:
        """Whether bars can be drawn; FORCE_COLOR, which rich takes for a terminal, is none."""
        return self._stderr.file.isatty() and not self._stderr.is_dumb_terminal

    @property
    def draws(self) -> bool:
        """Whether bars are shown."""
        return self._on_terminal and not self.quiet

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Say what takes a while; gone when it is done, and on a terminal only."""
        from rich.text import Text

        if self.quiet or not self._on_terminal:
            yield
        else:
            with self._stderr.status(Text(text)):
                yield

    @contextmanager
    def progress(self, total: int) -> Iterator[ProgressBar]:
        """A bar over `total` decoding steps; invisible when quiet or when stderr is no terminal."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._stderr,
            transient=True,
            redirect_stdout=False,  # rich would send results to stderr
            disable=self.quiet or not self._on_terminal,
        )
        with bar:
            self._bar = None if bar.disable else bar
            try:
                yield ProgressBar(bar, total)
            finally:
                self._bar = None

    @contextmanager
    def transfers(self, words: Callable[[float], str]) -> Iterator[Transfers]:
        """Bars over downloads; `words` puts a number of bytes into words."""
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._stderr,
            transient=True,
            redirect_stdout=False,
            disable=self.quiet or not self._on_terminal,
        )
        with bar:
            yield Transfers(self, bar, words)

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Show warnings as messages, and turn failures into a line on stderr and the documented exit code."""
        with warnings.catch_warnings():
            warnings.simplefilter("default", MagnetWarning)
            warnings.showwarning = self._show_warning
            try:
                yield
            except MagnetError as error:
                stopping = Stopping.current()
                if stopping is not None and stopping.raised:  # which is how it came to fail
                    raise KeyboardInterrupt from None
                self.error(str(error))
                raise typer.Exit(error.exit_code) from None
            except BrokenPipeError:  # the reader of our results has gone; there is nobody to tell
                raise typer.Exit(1) from None

    @contextmanager
    def stoppable(self) -> Iterator[Callable[[], None]]:
        """Let the first Ctrl-C wait for a good moment: the function this gives, called at one, raises it.

        A second Ctrl-C stops at once.
        """
        stopping = Stopping.current()
        if stopping is None:
            yield lambda: None
        else:
            with stopping.after_step() as check:
                yield check

    def _show_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, MagnetWarning):
            self.warning(f"{message}.")
        else:
            self.detail(f"{category.__name__}: {message} ({filename}:{lineno})")


class Transfers:
    """Bars over downloads, one for each repository; on a stream that is no terminal, a line for each."""

    def __init__(self, console: Console, bar: Progress, words: Callable[[float], str]) -> None:
        self.fetched: list[DownloadPlan] = []  # of which nothing was here before
        self._console = console
        self._bar = bar
        self._words = words
        self._tasks: dict[str, TaskID] = {}

    def hear(self, event: Downloading) -> None:
        """Show how far a download is; of the first event about one, say what it will cost."""
        plan, done = event.plan, event.done
        if plan.repository not in self._tasks:
            size = self._words(plan.missing_size)
            self._console.message(f"downloading {plan.repository} at {plan.revision[:8]}: {size}")
            self._tasks[plan.repository] = self._bar.add_task(plan.repository, total=plan.missing_size)
            if plan.missing_size == plan.size:
                self.fetched.append(plan)
        self._bar.update(self._tasks[plan.repository], completed=done)


class ProgressBar:
    """A bar over decoding steps."""

    def __init__(self, bar: Progress, total: int) -> None:
        self._bar = bar
        self._task = bar.add_task("starting", total=total)

    def advance(self, description: str, steps: int) -> None:
        """`steps` more are done, of what the description says."""
        self._bar.update(self._task, description=description, advance=steps)
