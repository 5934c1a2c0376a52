"""What models cannot do is refused by name."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from magnet_cli.errors import UsageError
from magnet_cli.hub.registry import MODELS, ModelFacts
from magnet_cli.options.job import Job
from magnet_cli.options.sampling import SamplingConfig
from magnet_cli.pipeline.rules import check_job


@dataclass(frozen=True)
class SomeModel:
    name: str = "m"
    is_musicgen: bool = False
    facts: ModelFacts | None = MODELS["magnet-small-10secs"].facts
    hashes: dict[str, str] | None = None


def test_a_rescorer_cannot_rank_what_is_not_ranked() -> None:
    job = Job("x", 1, SamplingConfig(span_order="corput"))
    check_job(job, SomeModel(), ["hybrid"])
    with pytest.raises(UsageError, match="the span order corput ranks none"):
        check_job(job, SomeModel(), ["rescorer"])
