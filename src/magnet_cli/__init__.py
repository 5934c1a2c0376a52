"""Text to music and sound effects with Meta's MAGNeT models.

from magnet_cli import Pipeline

pipeline = Pipeline.load("magnet-small-10secs")
for clip in pipeline.generate(["disco beat", "rain on a tin roof"], seed=7):
    clip.save(f"{clip.job.prompt}.wav")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from magnet_cli.config import OutputConfig, PlacesConfig, RuntimeConfig, SamplingConfig
from magnet_cli.errors import MagnetError, MagnetWarning
from magnet_cli.prompts import Job

if TYPE_CHECKING:
    from magnet_cli.decode import Known
    from magnet_cli.pipeline import Clip, Pipeline

__all__ = [
    "Clip",
    "Job",
    "Known",
    "MagnetError",
    "MagnetWarning",
    "OutputConfig",
    "Pipeline",
    "PlacesConfig",
    "RuntimeConfig",
    "SamplingConfig",
]

__version__ = "0.1.0"

# These import torch, which takes seconds: only when they are asked for.
_LAZY = {"Clip": "magnet_cli.pipeline", "Known": "magnet_cli.decode", "Pipeline": "magnet_cli.pipeline"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
