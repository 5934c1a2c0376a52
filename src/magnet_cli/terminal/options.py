"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from magnet_cli.hub.registry import DEFAULT_BEGINNER, NON_COMMERCIAL, UNKNOWN_LICENCE
from magnet_cli.options.declared import Option, Panel
from magnet_cli.options.job import MOST_VARIATIONS
from magnet_cli.pictures.installed import check_pictures
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.signature import option_of

MODEL_METAVAR = "NAME|HUB_ID|FOLDER"
MODEL_HELP = "Model to use: a name from magnet models list, a repository on the Hugging Face Hub, or a folder."

Model = Annotated[str, typer.Option("--model", "-m", metavar=MODEL_METAVAR, help=MODEL_HELP, rich_help_panel="Clips")]


@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """How many clips of each prompt, and from which random numbers."""

    PANEL: ClassVar[Panel] = "Clips"

    seed: int | None = field(
        default=None,
        metadata=Option(
            help="Seed of the first clip of each prompt, 0 to 2^64 - 1. magnet batch derives a seed for each row from "
            "it. The same seed generates the same clip.",
            metavar="N",
            unset="drawn at random, and reported",
        ),
    )
    variations: int = field(
        default=1,
        metadata=Option(
            help=f"Number of clips for each prompt, 1 to {MOST_VARIATIONS:,}. They use the seeds N, N + 1, N + 2, ...",
            metavar="COUNT",
            short="-n",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class HelperOptions:
    """Models that help the one that generates."""

    PANEL: ClassVar[Panel] = "Other models"

    rescorer: str | None = field(
        default=None,
        metadata=Option(
            help="Second model whose probabilities help to choose which codes are kept: a MAGNeT with the same codec "
            "or, for music, a MusicGen.",
            metavar=MODEL_METAVAR,
        ),
    )
    hybrid_model: str = field(
        default=DEFAULT_BEGINNER,
        metadata=Option(
            help="MusicGen model that generates the beginning that --hybrid asks for.", metavar="NAME|FOLDER"
        ),
    )

    def names(self, *, hybrid: bool) -> dict[str, str]:
        """The models by what they do; without the one for hybrids if there are none."""
        names = {"rescorer": self.rescorer, "hybrid": self.hybrid_model if hybrid else None}
        return {role: name for role, name in names.items() if name is not None}


@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Which files are written for a clip."""

    PANEL: ClassVar[Panel] = "Files"

    save_codes: bool = field(
        default=False, metadata=Option(help="Write the codes of each clip to NAME.codes.npz beside it.")
    )
    picture: bool = field(
        default=False,
        metadata=Option(
            help="Draw each clip: NAME.png beside it, with its waveform, mel spectrogram, loudness and edited regions. "
            "Needs matplotlib, the extra pictures."
        ),
    )
    no_metadata: bool = field(
        default=False,
        metadata=Option(
            help="Do not write NAME.json beside each clip, and do not embed in the audio file how it was generated."
        ),
    )
    force: bool = field(default=False, metadata=Option(help="Overwrite existing files.", short="-f"))

    def check(self) -> None:
        """Raise UsageError for a file that this installation cannot make."""
        if self.picture:
            check_pictures()


@dataclass(frozen=True, kw_only=True)
class Speech:
    """What a command prints while it works."""

    PANEL: ClassVar[Panel] = "Other"

    json: bool = field(default=False, metadata=Option(help="Print the results as JSON, one object on each line."))
    quiet: bool = field(default=False, metadata=Option(help="Print only results and errors.", short="-q"))
    verbose: bool = field(
        default=False, metadata=Option(help="Print more about what is done, e.g. the sampling options.", short="-v")
    )
    log_file: Path | None = field(
        default=None,
        metadata=Option(
            help="File to append every message, detail, result and error to, with the time of each. Tokens and "
            "passwords are hidden.",
            metavar="FILE",
        ),
    )

    @property
    def console(self) -> Console:
        """Where a command says it."""
        return Console(quiet=self.quiet, verbose=self.verbose, log=self.log_file)


AsJson = Annotated[bool, option_of(Speech, "json")]
Quiet = Annotated[bool, option_of(Speech, "quiet")]
Log = Annotated[Path | None, option_of(Speech, "log_file")]


def licence_note(licence: str) -> str:
    """The licence of weights and what it permits."""
    if licence == UNKNOWN_LICENCE:
        return "weights of unknown licence"
    return f"weights {licence}, non-commercial use only" if licence == NON_COMMERCIAL else f"weights {licence}"


def human(size: float) -> str:
    """A number of bytes with its unit: 1.9 GB."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
