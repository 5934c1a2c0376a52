"""`python -m magnet_cli`, and what the `magnet` command starts."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command. Ctrl-C while the command itself is still being imported ends it without a word."""
    # OpenMP reads this when PyTorch is imported. Threads that wait by spinning take the processor from those they wait
    # for: on two busy cores a small model was 24 times slower (measured), on idle ones it makes no difference.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from magnet_cli.cli import main as run

    signal.signal(signal.SIGINT, before)
    run()


if __name__ == "__main__":
    main()
