"""Text to music and sound effects with Meta's MAGNeT models.

from magnet_cli import Pipeline

pipeline = Pipeline.load("small", device="cuda")
pipeline.generate_one("disco beat", seed=7, guidance=5, duration=4).save("disco.wav")
for clip in pipeline.generate(["slow jazz piano", "rain on a tin roof"], seed=7, progress=True):
    clip.save(f"{clip.job.prompt}.wav")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from magnet_cli._version import __version__ as __version__

if TYPE_CHECKING:
    from magnet_cli.decoding.masked import Known
    from magnet_cli.errors import MagnetError, MagnetWarning
    from magnet_cli.judge.evaluation import Comparison, Evaluation, evaluate
    from magnet_cli.options.edit import EditConfig
    from magnet_cli.options.job import Job
    from magnet_cli.options.output import OutputConfig
    from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
    from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig
    from magnet_cli.pipeline.clip import Clip
    from magnet_cli.pipeline.pipeline import Pipeline

# Imported on first use: some need torch, which takes seconds to import, and the command does not need them to start.
_LAZY = {
    "Clip": "pipeline.clip",
    "Comparison": "judge.evaluation",
    "EditConfig": "options.edit",
    "Evaluation": "judge.evaluation",
    "Job": "options.job",
    "Known": "decoding.masked",
    "MagnetError": "errors",
    "MagnetWarning": "errors",
    "MusicGenSampling": "options.sampling",
    "OutputConfig": "options.output",
    "Pipeline": "pipeline.pipeline",
    "PlacesConfig": "options.runtime",
    "RuntimeConfig": "options.runtime",
    "SamplingConfig": "options.sampling",
    "evaluate": "judge.evaluation",
}

__all__ = [
    "Clip",
    "Comparison",
    "EditConfig",
    "Evaluation",
    "Job",
    "Known",
    "MagnetError",
    "MagnetWarning",
    "MusicGenSampling",
    "OutputConfig",
    "Pipeline",
    "PlacesConfig",
    "RuntimeConfig",
    "SamplingConfig",
    "evaluate",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"magnet_cli.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
