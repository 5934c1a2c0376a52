"""How far a set of clips is from a set of reference clips, by their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.files import read_audio
from magnet_cli.errors import MagnetError, UsageError, did_you_mean
from magnet_cli.judge.clips import FoundClip
from magnet_cli.judge.distances import Gaussian, frechet_distance, frechet_of_infinite, kernel_distance
from magnet_cli.judge.embeddings import spectrum_embeddings
from magnet_cli.judge.vggish import VGGishEncoder

ENCODERS = ("spectrum", "vggish")


@dataclass(frozen=True)
class SetEncoder:
    """What makes embeddings [N, D] of a waveform [C, L] and its rate. sha256: of its weights; None: it has none."""

    name: str
    embed: Callable[[Waveform, int], NDArray[np.float64]]
    sha256: str | None = None

    @classmethod
    def of(cls, name: str, weights: Path | None) -> SetEncoder:
        """The encoder of this name. weights: their file.

        Raises: UsageError for an unknown one, or one without its weights; ModelError for damaged ones.
        """
        if name not in ENCODERS:
            hint = did_you_mean(name, ENCODERS, f"Give one of {', '.join(ENCODERS)}")
            raise UsageError(f"unknown encoder {name!r}", hint)
        if name == "vggish":
            if weights is None:
                raise UsageError("--encoder vggish needs its weights", "Give --weights vggish-10086976.pth")
            encoder = VGGishEncoder.load(weights)
            return cls(name, encoder, encoder.sha256)
        if weights is not None:
            raise UsageError("--weights has no effect without --encoder vggish", "Give both")
        return cls(name, spectrum_embeddings)


@dataclass(frozen=True)
class SetDistances:
    """The distances of a set of embeddings to those of a reference; None: refused, for the reason in `refused`.

    sha256: of the encoder's weights.
    """

    encoder: str
    sha256: str | None
    dimensions: int
    embeddings: int
    reference_embeddings: int
    frechet: float | None = None
    frechet_infinite: float | None = None
    kernel: float | None = None
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def set_distances(embeddings: NDArray[np.float64], reference: NDArray[np.float64], encoder: SetEncoder) -> SetDistances:
    """The distances between two sets of embeddings [N, D] by an encoder."""
    ways: dict[str, Callable[[], float]] = {
        "frechet": lambda: frechet_distance(Gaussian.of(embeddings), Gaussian.of(reference)),
        "frechet_infinite": lambda: frechet_of_infinite(embeddings, Gaussian.of(reference)),
        "kernel": lambda: kernel_distance(embeddings, reference),
    }
    found: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name, way in ways.items():
        try:
            found[name] = way()
        except UsageError as error:
            refused[name] = error.message
    return SetDistances(
        encoder.name,
        encoder.sha256,
        dimensions=embeddings.shape[1],
        embeddings=len(embeddings),
        reference_embeddings=len(reference),
        frechet=found.get("frechet"),
        frechet_infinite=found.get("frechet_infinite"),
        kernel=found.get("kernel"),
        refused=refused,
    )


def embedded(
    clips: Sequence[FoundClip], encoder: SetEncoder, failed: Callable[[FoundClip, MagnetError], None]
) -> NDArray[np.float64]:
    """The embeddings of all clips, [N, D]. failed: called with each that has none.

    Raises: UsageError if none has any.
    """
    found = []
    for clip in clips:
        try:
            found.append(encoder.embed(*read_audio(clip.path)))
        except MagnetError as error:
            failed(clip, error)
    if not found:
        raise UsageError("none of the clips has an embedding", "Give audio files of at least a second")
    return np.concatenate(found)
