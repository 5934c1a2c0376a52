"""`python -m magnet_cli` is the `magnet` command."""

from magnet_cli.cli import main

main()
