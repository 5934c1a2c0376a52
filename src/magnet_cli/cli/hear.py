"""Clips that are heard at once: `--play`, and audio on standard output."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.errors import DeviceError, UsageError
from magnet_cli.jobs.targets import Target
from magnet_cli.terminal.console import Console

if TYPE_CHECKING:
    from magnet_cli.jobs.writer import Product, Production

STDOUT = "-"
# What stands for its file in messages.
STDOUT_TARGET = Target(Path("standard output"))

PlayOption = Annotated[
    bool,
    typer.Option(
        "--play",
        help="Play the clips when all of them are written, through paplay, aplay, play, ffplay or afplay, whichever is "
        "installed, or through the library sounddevice.",
        rich_help_panel="Files",
    ),
]


def warn_of_silence(console: Console) -> None:
    """Warn before any work if nothing on this machine can play."""
    from magnet_cli.playing.player import check_players

    try:
        check_players()
    except DeviceError as error:
        console.warning(f"--play has no effect: {error.message}. {error.hint}.")


def play_files(console: Console, paths: Sequence[Path]) -> None:
    """Play clips that are written. What cannot be played is only a warning: the files are complete."""
    from magnet_cli.audio.files import read_audio
    from magnet_cli.playing.player import play, players

    if not players():
        return
    for path in paths:
        waveform, rate = read_audio(path)
        console.message(f"playing {path}: {waveform.shape[1] / rate:.2f} s")
        try:
            play(waveform, rate)
        except DeviceError as error:
            console.warning(f"{error.message}. {error.hint}.")
            return


def check_standard_output(clips: int, *, as_json: bool, others: bool) -> None:
    """Check, before any work, that a clip can go to standard output.

    others: whether files beside the clip are wanted.

    Raises: UsageError for a terminal, for several clips, and for what would be there beside the clip.
    """
    if clips != 1:
        raise UsageError(f"{clips} clips do not fit into standard output", "Give one prompt, or name a folder with -o")
    if as_json:
        raise UsageError("--json and -o - both write to standard output", "Leave --json out, or name a file")
    if others:
        raise UsageError(
            "--save-codes, --picture and --play need a file, but -o - writes to standard output",
            "Leave them out, or name a file",
        )
    if sys.stdout is not None and sys.stdout.isatty():
        raise UsageError(
            "audio is not written to a terminal", "Pipe it into a program, e.g. -o - | aplay, or name a file with -o"
        )


def write_standard_output(console: Console, production: Production, product: Product) -> None:
    """Write a clip to standard output as the WAV file that it would be."""
    named = replace(product, item=replace(product.item, target=Target(Path("clip.wav"))))
    console.content(production.encode(named))
