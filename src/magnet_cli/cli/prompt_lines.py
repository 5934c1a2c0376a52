"""Lines that somebody types while a command works."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

MOST_BYTES = 1 << 16  # of a line; more is no prompt


def lines_of_input(take: Callable[[str], None]) -> None:
    """Call `take` with every line of standard input that is not blank, in a thread that ends with the process.

    Nothing is read where standard input is closed, or the terminal belongs to another job, which the system would stop.
    """
    stream = sys.stdin
    if stream is None or stream.closed:
        return
    try:
        number = stream.fileno()
        in_front = not os.isatty(number) or not hasattr(os, "tcgetpgrp") or os.tcgetpgrp(number) == os.getpgrp()
    except (OSError, ValueError):
        return
    if in_front:
        threading.Thread(target=_read, args=(number, take), name="magnet-input", daemon=True).start()


def _read(number: int, take: Callable[[str], None]) -> None:
    # The file itself and not Python's stream: that is locked while it waits, and Python could not end.
    rest = b""
    while True:
        try:
            piece = os.read(number, MOST_BYTES)
        except OSError:
            return
        *lines, rest = (rest + piece).split(b"\n")
        if not piece:  # the end, at which a line need not
            lines, rest = [rest], b""
        for line in lines:
            text = line[:MOST_BYTES].decode("utf-8", "replace").strip()
            if text:
                take(text)
        rest = rest[-MOST_BYTES:]
        if not piece:
            return
