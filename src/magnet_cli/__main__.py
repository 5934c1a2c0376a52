"""`python -m magnet_cli`, and what the `magnet` command starts."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

from magnet_cli.errors import INTERRUPTED, INTERRUPTION


def main() -> None:
    """Run the command. Ctrl-C ends it with one line and exit code 130 from the first moment on."""
    # OpenMP reads this when PyTorch is imported. By default, its idle threads spin, and so take processor time from the
    # threads that they wait for. On two busy cores this slowed a small model down 24 times (measured); on idle cores it
    # makes no difference.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)  # the command is still being imported: there is nothing to clean up
    from magnet_cli.cli import run

    code = run()
    if code > 128:  # stopped by a signal: do not wait for background threads
        os._exit(code)
    sys.exit(code)


def _leave(number: int, frame: object) -> None:
    with suppress(OSError):
        os.write(2, f"error: {INTERRUPTION}\n".encode())
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
