"""The sampling defaults that a user sets for bundles: one file in the folder of models, apart from the bundles.

Bundles stay as they were written: other programs and environments share them, and their own values come back when the
user's are removed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magnet_cli.disk.atomic import write_atomic
from magnet_cli.disk.small_files import MissingFileError, UnreadableFileError, read_object
from magnet_cli.errors import ModelError

SAMPLING_FILE = "sampling.json"


def read_user_sampling(models: Path) -> dict[str, Any]:
    """The defaults that are set, by bundle, as the file has them. ModelError for one that cannot be read."""
    path = models / SAMPLING_FILE
    try:
        return read_object(path)
    except MissingFileError:
        return {}
    except UnreadableFileError as error:
        raise ModelError(f"cannot read {path}: {error}", "Correct it, or delete it") from error


def write_user_sampling(models: Path, bundle: str, sampling: Mapping[str, Any] | None) -> None:
    """Set the defaults of a bundle; None removes them. Raises OutputError."""
    every = read_user_sampling(models)
    if sampling is None:
        every.pop(bundle, None)
    else:
        every[bundle] = dict(sampling)
    text = json.dumps(every, indent=2) + "\n"
    write_atomic(models / SAMPLING_FILE, lambda file: file.write(text.encode("ascii")), overwrite=True)
