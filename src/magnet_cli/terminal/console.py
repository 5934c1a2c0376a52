"""What the user sees: messages and progress on stderr, results on stdout."""

from __future__ import annotations

import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

import typer

from magnet_cli.disk.atomic import Content
from magnet_cli.errors import INTERRUPTION, MagnetError, MagnetWarning, OutputError
from magnet_cli.terminal.log_file import LogFile
from magnet_cli.terminal.progress import ProgressBar, steps_bar
from magnet_cli.terminal.stopping import Stopping
from magnet_cli.terminal.streams import ErrorStream, silence, visible

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress, TaskID

    from magnet_cli.hub.download import Downloading, DownloadPlan

AT_ONCE = 1 << 16  # bytes of a file that are written to standard output at once


class Console:
    """Messages go to stderr unless quiet; warnings too; errors always. Results go to stdout, one a line."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False, log: Path | None = None) -> None:
        """log: a file that receives everything, also what is not shown; see `reporting`."""
        self.quiet = quiet
        self.verbose = verbose
        self._bar: Progress | None = None
        self._log_path = log
        self._log: LogFile | None = None

    def message(self, text: str) -> None:
        """Something the user wants to know."""
        self._note("message", text)
        if not self.quiet:
            self._stderr.print(visible(text))

    def detail(self, text: str) -> None:
        """Something the user wants to know with --verbose."""
        if self.verbose:
            self.message(text)
        else:
            self._note("detail", text)

    def warning(self, text: str) -> None:
        """Something the user should know, although the work continues."""
        self._note("warning", text)
        if not self.quiet:
            self._stderr.print(f"warning: {visible(text)}", style="yellow")

    def error(self, *lines: str) -> None:
        """Why the work stopped."""
        for line in lines:
            self._note("error", line)
        self._stderr.print("error: " + "\n".join(map(visible, lines)), style="red")

    def essential(self, text: str) -> None:
        """Something that is shown even when quiet."""
        self._note("message", text)
        self._stderr.print(visible(text))

    @property
    def can_ask(self) -> bool:
        """Whether somebody can read a question and answer it."""
        return sys.stdin is not None and sys.stdin.isatty() and self._stderr.file.isatty()

    @property
    def is_watched(self) -> bool:
        """Whether messages appear on a terminal."""
        return self._stderr.file.isatty()

    def confirm(self, question: str) -> None:
        """Ask; typer.Abort unless the answer is yes."""
        typer.confirm(visible(question), abort=True, err=True)

    def result(self, value: str | Path | dict[str, Any], *, announced: bool = False) -> None:
        """A result on a line: a path, a text for people, or a JSON object, in plain ASCII.

        announced: a message has shown it already, so that a terminal which shows both streams needs no second line.

        A path is for programs, too: it goes out as the bytes it has on the disk, whatever the terminal's encoding, but
        on a terminal as it is safe to show.
        """
        if sys.stdout is None:
            raise OutputError("standard output is closed", "Redirect it to /dev/null; what was written is complete")
        self._note("result", json.dumps(value) if isinstance(value, dict) else str(value))
        if announced and not self.quiet and self.is_watched and sys.stdout.isatty():
            return
        if isinstance(value, dict):
            line = json.dumps(value, allow_nan=False).encode("ascii")
        elif isinstance(value, Path) and not sys.stdout.isatty():
            line = os.fsencode(value)
        else:
            line = visible(str(value)).encode(sys.stdout.encoding or "utf-8", "backslashreplace")
        if self._bar is not None:  # on a terminal both streams share the screen
            self._bar.stop()
        with writing_results():
            sys.stdout.flush()
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.flush()
        if self._bar is not None:
            self._bar.start()

    def content(self, content: Content) -> None:
        """A whole file as the only result. OutputError if it cannot be written."""
        self.pieces(content[start : start + AT_ONCE] for start in range(0, len(content), AT_ONCE))

    def pieces(self, pieces: Iterable[bytes]) -> None:
        """The bytes of something that is not text, each as soon as it is there. OutputError; BrokenPipeError."""
        if sys.stdout is None:
            raise OutputError("standard output is closed", "Name a file with -o")
        for piece in pieces:
            with writing_results():
                sys.stdout.buffer.write(piece)
                sys.stdout.flush()

    def _note(self, kind: str, text: str) -> None:
        """Write to the log, if there is one."""
        if self._log is not None and (problem := self._log.write(kind, text)) is not None:
            self.warning(problem)

    @cached_property
    def _stderr(self) -> RichConsole:
        from rich.console import Console as RichConsole  # a tenth of a second, which mere results need not wait for

        stream = cast(IO[str], ErrorStream())
        return RichConsole(file=stream, stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)

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
        """Show what takes a while, until it is done; on a terminal only."""
        from rich.text import Text

        if self.quiet or not self._on_terminal:
            yield
        else:
            with self._stderr.status(Text(visible(text))):
                yield

    @contextmanager
    def progress(self, total: int, *, lines: bool = True) -> Iterator[ProgressBar]:
        """A bar over `total` steps; where stderr is no terminal, a line now and then; when quiet, nothing.

        lines: False leaves those lines to the caller.
        """
        hidden = self.quiet or not self._on_terminal
        bar = steps_bar(self._stderr, hidden=hidden)
        with bar:
            self._bar = None if hidden else bar
            try:
                yield ProgressBar(bar, total, self.message if lines and hidden and not self.quiet else None)
            finally:
                self._bar = None

    @contextmanager
    def transfers(self, words: Callable[[float], str]) -> Iterator[Transfers]:
        """Bars over downloads; `words` formats a number of bytes."""
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        bar = Progress(
            TextColumn("{task.description}", markup=False),
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
        """Show warnings as messages, and turn failures into a line on stderr and the documented exit code.

        Opens the log, whose first line is the command.
        """
        stopping = Stopping.current()
        with warnings.catch_warnings():
            warnings.simplefilter("default", MagnetWarning)
            warnings.showwarning = self._show_warning
            try:
                if self._log_path is not None and self._log is None:
                    self._log = LogFile(self._log_path)
                    self._note("command", shlex.join(["magnet", *sys.argv[1:]]))
                yield
            except KeyboardInterrupt:
                self._note("error", INTERRUPTION if stopping is None else stopping.farewell)
                raise
            except MagnetError as error:
                if stopping is not None and stopping.raised:  # which is how it came to fail
                    raise KeyboardInterrupt from None
                self.error(*error.lines)
                raise typer.Exit(error.exit_code) from None
            except BrokenPipeError:  # the reader of our results has gone, and so has whoever would read a message
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
            text = message.args[0] if isinstance(message, MagnetWarning) else message  # with the command's options
            self.warning(f"{text}.")
        else:
            self.detail(f"{category.__name__}: {message} ({filename}:{lineno})")


class Transfers:
    """Bars over downloads, one for each repository; on a stream that is no terminal, a line for each."""

    def __init__(self, console: Console, bar: Progress, words: Callable[[float], str]) -> None:
        self.fetched: list[DownloadPlan] = []  # of repositories that this machine had no files of before
        self._console = console
        self._bar = bar
        self._words = words
        self._tasks: dict[str, TaskID] = {}

    def hear(self, event: Downloading) -> None:
        """Show the progress of a download; its first event also reports the size."""
        plan, done = event.plan, event.done
        if plan.repository not in self._tasks:
            size = self._words(plan.missing_size)
            self._console.message(f"downloading {plan.repository} at {plan.revision[:8]}: {size}")
            self._tasks[plan.repository] = self._bar.add_task(visible(plan.repository), total=plan.missing_size)
            if plan.missing_size == plan.size:
                self.fetched.append(plan)
        self._bar.update(self._tasks[plan.repository], completed=done)


@contextmanager
def writing_results() -> Iterator[None]:
    """OutputError if standard output cannot be written to; BrokenPipeError if its reader has gone."""
    try:
        yield
    except BrokenPipeError:
        silence(sys.stdout)
        raise
    except (OSError, ValueError) as error:  # ValueError: it was closed meanwhile
        silence(sys.stdout)
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(
            f"cannot write to standard output: {reason}", "Redirect it; what was written is complete"
        ) from error
