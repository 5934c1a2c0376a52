"""The files of one clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from magnet_cli.audio.formats import check_format, codes_beside, picture_beside, sidecar
from magnet_cli.disk.atomic import check_writable
from magnet_cli.disk.confine import Confinement
from magnet_cli.options.output import OutputConfig


@dataclass(frozen=True)
class Target:
    """The files of one clip; None for a file that is not wanted.

    folder: no link may lead the files out of it. It is None for a file that the user named, whose link is followed.
    """

    audio: Path
    metadata: Path | None = None
    codes: Path | None = None
    folder: Path | None = None
    picture: Path | None = None

    @classmethod
    def beside(cls, audio: Path, *, metadata: bool, codes: bool, folder: Path | None, picture: bool = False) -> Target:
        """An audio file, and the files that are wanted beside it."""
        return cls(
            audio,
            sidecar(audio) if metadata else None,
            codes_beside(audio) if codes else None,
            folder,
            picture_beside(audio) if picture else None,
        )

    def renamed(self, audio: Path) -> Target:
        """The same files for an audio file of another name."""
        return Target.beside(
            audio,
            metadata=self.metadata is not None,
            codes=self.codes is not None,
            folder=self.folder,
            picture=self.picture is not None,
        )

    @property
    def files(self) -> list[Path]:
        """All files. The audio file is last: it exists only if the others do."""
        return [path for path in (self.codes, self.picture, self.metadata, self.audio) if path is not None]


def check_targets(targets: Sequence[Target], finish: OutputConfig, *, overwrite: bool) -> None:
    """Check that the files of all targets can be written.

    Raises:
        UsageError: for a format that cannot be written.
        OutputError: for a file that exists or cannot be written, or a link that leads out of a target's folder.
    """
    confinements = {folder: Confinement(folder) for target in targets if (folder := target.folder) is not None}
    for target in targets:
        check_format(target.audio, finish.subtype, finish.sample_rate)
        if target.folder is not None:
            for path in target.files:
                confinements[target.folder].check(path)
    check_writable([path for target in targets for path in target.files], overwrite=overwrite)
