"""`magnet play`: play audio files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from magnet_cli.errors import UsageError
from magnet_cli.terminal import options
from magnet_cli.terminal.console import Console

MOST_TIMES = 1_000


def play(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Audio files of any kind, or the .json files beside clips."),
    ],
    *,
    times: Annotated[
        int,
        typer.Option(
            "--times",
            "-n",
            metavar="N",
            help=f"Number of times that each file is played, 1 to {MOST_TIMES:,}, without a gap: a loop sounds as one.",
        ),
    ] = 1,
    quiet: options.Quiet = False,
) -> None:
    """Play audio files.

    Plays through paplay, aplay, play, ffplay or afplay, whichever is installed, or through the library sounddevice.

    Example: magnet play disco.wav

    Example: magnet play loop.wav -n 8
    """
    console = Console(quiet=quiet)
    with console.reporting():
        if not 1 <= times <= MOST_TIMES:
            raise UsageError(f"times must be from 1 to {MOST_TIMES:,}, not {times}", "Give e.g. -n 8")
        from magnet_cli.audio.files import read_audio
        from magnet_cli.cli.picture import audio_of
        from magnet_cli.playing import player

        sounds = [audio_of(file) for file in files]
        for path in sounds:
            if not path.is_file():
                raise UsageError(f"there is no file {path}", "Check the path")
        player.check_players()
        for path in sounds:
            waveform, rate = read_audio(path)
            console.message(f"playing {path}: {waveform.shape[1] / rate:.2f} s")
            name = player.play(waveform, rate, times=times)
            console.detail(f"played by {name}")
