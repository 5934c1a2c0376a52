"""Ctrl-C, SIGTERM and a closed terminal: the command ends, with its own exit code and without a traceback."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from magnet_cli.errors import INTERRUPTION

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# Seconds after an exception in which further signals add nothing: it is on its way, and those who clean up meanwhile
# are not to be disturbed. If cleaning up takes longer, the next signal stops that, too.
GRACE = 2.0
AGAIN = 0.05  # seconds after which an exception that was swallowed is raised again
NOTICE = "stopping after this step; Ctrl-C again stops at once"


class Stopping:
    """The handler of the signals that ask a command to stop: raises KeyboardInterrupt, or SystemExit(128 + number).

    A signal can come while any line runs, of ours or of a library's. So what counts is not which exception arrives at
    the top, but what this remembers: PyTorch turns a KeyboardInterrupt that comes while it is imported into an
    ImportError, and Python drops one that comes in a destructor.
    """

    def __init__(self) -> None:
        self.code: int | None = None  # the exit code that was asked for
        self.raised = False
        self.farewell = INTERRUPTION  # the last line after Ctrl-C
        self._raised_at = 0.0
        self._waits: Collection[int] = ()  # signals that wait for a good moment
        self._over = False
        self._hooks: tuple[Any, Any] | None = None

    @staticmethod
    def current() -> Stopping | None:
        """The handler of Ctrl-C at present, if there is one."""
        handler = signal.getsignal(signal.SIGINT)
        return handler if isinstance(handler, Stopping) else None

    def listen(self) -> None:
        """Handle the signals, except those that the parent process has set to be ignored (nohup, a shell's `&`)."""
        if threading.current_thread() is not threading.main_thread():  # only that one can
            return
        self._hooks = sys.unraisablehook, sys.excepthook
        sys.unraisablehook, sys.excepthook = self._swallowed, self._printed
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self)

    def end(self) -> None:
        """There is nothing left to stop: Ctrl-C is ignored from here on, and so is a second SIGTERM."""
        self._over = True
        if self._hooks is None:
            return
        sys.unraisablehook, sys.excepthook = self._hooks
        for number in STOPPING:
            ignored = number == signal.SIGINT or self.code is not None
            if signal.getsignal(number) is self:
                signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self._over:
            return
        first = self.code is None
        if first:
            self.code = 128 + number
        if first and number in self._waits:
            say_at_once(NOTICE)
        elif not self.raised or time.monotonic() - self._raised_at > GRACE:
            self._raise()

    @contextmanager
    def after_step(self, signals: Collection[int] = (signal.SIGINT,)) -> Iterator[Callable[[], None]]:
        """Let the first Ctrl-C wait for a good moment: the function this gives, called at one, raises."""
        self._waits = signals
        try:
            yield self.check
        finally:
            self._waits = ()
        self.check()

    def check(self) -> None:
        """Raise if a signal has arrived that had no effect yet."""
        if self.code is not None:
            self._raise()

    def _raise(self) -> None:
        self.raised = True
        self._raised_at = time.monotonic()
        if self.code == 128 + signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(self.code)

    def _swallowed(self, unraisable: Any) -> None:
        """An exception came where none can be raised, such as a destructor: raise ours again shortly after."""
        if not issubclass(unraisable.exc_type, (KeyboardInterrupt, SystemExit)):
            if self._hooks is not None:
                self._hooks[0](unraisable)
        elif not self._over and self.code is not None:
            self._raised_at = -GRACE
            again = threading.Timer(AGAIN, _thread.interrupt_main, (self.code - 128,))
            again.daemon = True
            again.start()

    def _printed(self, kind: Any, error: Any, traceback: Any) -> None:
        """A library's C code prints an exception that it cannot pass on; ours is reported elsewhere."""
        if not self.raised and self._hooks is not None:
            self._hooks[1](kind, error, traceback)


def say_at_once(text: str) -> None:
    """Write a line to stderr from a signal handler, past the stream, which may be in the middle of a write.

    On a terminal the line replaces a bar, which appears again below.
    """
    with suppress(OSError):
        os.write(2, f"{CLEAR_LINE if os.isatty(2) else ''}{text}\n".encode())


CLEAR_LINE = "\r\x1b[2K"
