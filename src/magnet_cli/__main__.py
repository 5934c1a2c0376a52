"""`python -m magnet_cli`, and what the `magnet` command starts."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command. Ctrl-C while the command itself is still being imported ends it without a word."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from magnet_cli.cli import main as run

    signal.signal(signal.SIGINT, before)
    run()


if __name__ == "__main__":
    main()
