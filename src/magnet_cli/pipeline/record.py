"""The parts of a clip's record, and how it goes into and beside its audio file; `jobs.record` reads it back."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from magnet_cli._version import __version__
from magnet_cli.audio.codes_file import CodesSource
from magnet_cli.checkpoints.bundle import Origin
from magnet_cli.options.edit import EditConfig
from magnet_cli.pipeline.build import ModelInfo
from magnet_cli.pipeline.inputs import InputFiles

FORMAT, VERSION = "magnet-clip", 1
LONGEST_TITLE = 200  # characters; the whole prompt is in the record
# What can change the codes or the audio, beside this package.
LIBRARIES = ("torch", "torchaudio", "transformers", "encodec")

Record = dict[str, Any]
Hashes = dict[str, dict[str, str]]


@dataclass(frozen=True, eq=False)
class Provenance:
    """The models that generate clips, as records name them.

    info: of the generating model. helpers: origins of the models that help, by role. given: the names under which the
    user gave all of them, by role ("model", "rescorer", "hybrid"). hashes: returns SHA-256 of the files of weights by
    role, which may take seconds. codes: whose codes the clips have. fallback: why it is not the model that was asked
    for.
    """

    info: ModelInfo
    helpers: Mapping[str, Origin]
    given: Mapping[str, str]
    hashes: Callable[[], Hashes]
    codes: CodesSource
    fallback: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes: with the hashes instead of the models that they are computed from."""
        known = partial(dict[str, dict[str, str]], self.hashes())
        return Provenance, (self.info, dict(self.helpers), dict(self.given), known, self.codes, self.fallback)


def input_of(edit: EditConfig, inputs: InputFiles) -> dict[str, str] | None:
    """The audio file that a clip starts from, with its SHA-256; UsageError if it cannot be read."""
    if edit.input is None:
        return None
    return {"path": os.path.abspath(edit.input), "sha256": inputs.sha256(edit.input)}


def versions() -> dict[str, str]:
    """The versions of this package, of Python, and of the libraries that compute."""
    found = {"magnet": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def codes_hash(codes: NDArray[np.integer[Any]]) -> str:
    """SHA-256 of codes [K, T], as little-endian int16 in that order."""
    return hashlib.sha256(np.ascontiguousarray(codes, dtype="<i2").tobytes()).hexdigest()


def as_tags(record: Record, licence: str) -> dict[str, str]:
    """The tags of an audio file: the record as a comment, and what a player shows."""
    title = "".join(character if character.isprintable() else " " for character in record["prompt"])
    return {
        "title": title[:LONGEST_TITLE],
        "comment": json.dumps(record, allow_nan=False),
        "software": f"magnet {record['versions']['magnet']}",
        "copyright": licence,
    }


def as_sidecar(record: Record) -> bytes:
    """The content of the JSON file beside an audio file."""
    return (json.dumps(record, indent=2, allow_nan=False) + "\n").encode()
