"""Several candidates for each clip, and how the best of them is chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from magnet_cli.errors import UsageError, did_you_mean
from magnet_cli.options.declared import Option, Panel
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import MOST_VARIATIONS

JudgeName = Literal["tempo", "likelihood"]


@dataclass(frozen=True, kw_only=True)
class CandidateOptions:
    """How many candidates each clip has, and which of them are kept.

    Raises:
        UsageError: for a number or a judge that cannot be.
    """

    PANEL: ClassVar[Panel] = "Clips"

    best_of: int = field(
        default=1,
        metadata=Option(
            help="Generate N candidates for each clip, with consecutive seeds, and keep the best by --judge.",
            metavar="N",
        ),
    )
    judge: JudgeName = field(
        default="tempo",
        metadata=Option(
            help="How --best-of compares candidates. tempo: for loops, by how near the tempo is to --bpm; of several "
            "at that tempo, the one with the clearest beat. likelihood: by how much more probable the model finds "
            "them with the text than without it.",
        ),
    )
    keep_all: bool = field(
        default=False, metadata=Option(help="Write all candidates of --best-of, with their scores in their records.")
    )

    def __post_init__(self) -> None:
        if self.judge not in get_args(JudgeName):
            known = get_args(JudgeName)
            raise UsageError(
                f"unknown judge {self.judge!r}", did_you_mean(self.judge, known, f"Give one of {', '.join(known)}")
            )
        self.check_number(1)

    def check_number(self, variations: int) -> None:
        """Raise UsageError for a number of candidates that cannot be, of as many variations."""
        most = MOST_VARIATIONS // max(variations, 1)
        if self.best_of != 1 and not 1 <= self.best_of <= most:
            raise UsageError(f"best-of must be from 1 to {most:,}, not {self.best_of}", "Give e.g. --best-of 4")

    def check(self, edit: EditConfig, *, is_musicgen: bool) -> None:
        """Raise UsageError for clips that the judge cannot compare."""
        if not self.judges:
            return
        if self.judge == "tempo" and edit.bpm is None:
            raise UsageError(
                "--best-of compares the tempi of loops",
                "Give --loop and --bpm too, e.g. --loop --bpm 120, or --judge likelihood",
            )
        if self.judge == "likelihood" and edit.unconditional:
            raise UsageError("--judge likelihood compares clips by their text", "Leave out --unconditional")
        if self.judge == "likelihood" and is_musicgen:
            raise UsageError("MusicGen has no likelihood to judge by", "Choose a MAGNeT model, or --judge tempo")

    @property
    def judges(self) -> bool:
        """Whether there is anything to compare."""
        return self.best_of > 1

    @property
    def rivals(self) -> int:
        """How many candidates there are for each clip that is written."""
        return 1 if self.keep_all else self.best_of

    @property
    def judging(self) -> JudgeName | None:
        """The judge, if there is anything to compare."""
        return self.judge if self.judges else None

    @property
    def settings(self) -> dict[str, int | str | bool]:
        """What of it defines a batch; empty for one candidate, as for versions that knew no others."""
        if not self.judges:
            return {}
        kept: dict[str, int | str | bool] = {"keep_all": True} if self.keep_all else {}
        return {"best_of": self.best_of, "judge": self.judge, **kept}
