"""What the user sees: messages and progress on stderr, results on stdout."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

import typer

from magnet_cli.errors import INTERRUPTED, MagnetError, MagnetWarning

if TYPE_CHECKING:
    from rich.progress import Progress

TERMINATED = 128 + signal.SIGTERM


class Console:
    """Messages go to stderr unless quiet; warnings too; errors always. Results go to stdout, one a line."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        from rich.console import Console as RichConsole  # a tenth of a second, which --help need not wait for

        self.quiet = quiet
        self.verbose = verbose
        self._stderr = RichConsole(stderr=True, highlight=False, markup=False, soft_wrap=True)
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

    def result(self, value: str | dict[str, Any]) -> None:
        """A result, for people and programs: a line of text, or a JSON object on a line."""
        if isinstance(value, dict):
            # Programs read this: never a character that the terminal's encoding cannot hold.
            plain = (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")
            value = json.dumps(value, ensure_ascii=plain, allow_nan=False)
        if self._bar is not None:  # on a terminal both streams share the screen
            self._bar.stop()
        print(value, flush=True)
        if self._bar is not None:
            self._bar.start()

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Say what takes a while; gone when it is done, and on a terminal only."""
        if self.quiet or not self._stderr.is_terminal:
            yield
        else:
            with self._stderr.status(text):
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
            disable=self.quiet or not self._stderr.is_terminal,
        )
        with bar:
            self._bar = bar
            try:
                yield ProgressBar(bar, total)
            finally:
                self._bar = None

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Show warnings as messages, and turn failures into a line on stderr and the documented exit code."""
        with warnings.catch_warnings(), _terminable():
            warnings.simplefilter("default", MagnetWarning)
            warnings.showwarning = self._show_warning
            try:
                yield
            except MagnetError as error:
                self.error(str(error))
                raise typer.Exit(error.exit_code) from None
            except KeyboardInterrupt:
                self.error("interrupted; finished clips are kept, nothing is left half-written.")
                raise typer.Exit(INTERRUPTED) from None

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


class ProgressBar:
    """A bar over decoding steps."""

    def __init__(self, bar: Progress, total: int) -> None:
        self._bar = bar
        self._task = bar.add_task("starting", total=total)

    def advance(self, description: str, steps: int) -> None:
        """`steps` more are done, of what the description says."""
        self._bar.update(self._task, description=description, advance=steps)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the program the way an exception does, so that nothing half-written stays behind."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread, where signals cannot be handled
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
