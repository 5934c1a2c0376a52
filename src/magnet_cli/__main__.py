"""`python -m magnet_cli`, and what the `magnet` command starts."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

from magnet_cli.errors import INTERRUPTED, INTERRUPTION


def main() -> None:
    """Run the command, from the first moment on with an end of its own for Ctrl-C."""
    # OpenMP reads this when PyTorch is imported. Threads that wait by spinning take the processor from those they wait
    # for: on two busy cores a small model was 24 times slower (measured), on idle ones it makes no difference.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)  # while the command itself is imported, nothing has begun
    from magnet_cli.cli import run

    code = run()
    if code > 128:  # stopped by a signal: without waiting for threads, which nobody waits for any more
        os._exit(code)
    sys.exit(code)


def _leave(number: int, frame: object) -> None:
    with suppress(OSError):
        os.write(2, f"error: {INTERRUPTION}\n".encode())
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
