"""What a model can do: stated once, for models that are only known by name and for those that are open.

Imports no torch: impossible requests are refused before anything is downloaded or loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from magnet_cli.errors import UsageError
from magnet_cli.hub.registry import MUSICGEN_SECONDS, ModelFacts
from magnet_cli.music.bars import LoopLength, period_of
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import Job
from magnet_cli.options.regions import check_regions, parse_region
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig, Task, check_steps

if TYPE_CHECKING:
    from magnet_cli.pipeline.inputs import InputFiles

MOST_CHANNELS = 5  # BS.1770 defines the loudness of up to five


class KnownModel(Protocol):
    """A model that was resolved by its name, or opened."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def is_musicgen(self) -> bool:
        """Whether it is a MusicGen, which decodes frame after frame; otherwise it is a MAGNeT."""

    @property
    def facts(self) -> ModelFacts | None:
        """Its facts; None if they are known only after opening it."""

    @property
    def hashes(self) -> dict[str, str] | None:
        """SHA-256 of the files of its weights; None if they are known only after opening it."""


@dataclass(frozen=True)
class ModelGroup:
    """A model and its helpers, by role."""

    model: KnownModel
    helpers: Mapping[str, KnownModel]

    @cached_property
    def hashes(self) -> dict[str, str] | None:
        """SHA-256 of the files of all their weights; None if one is known only after opening it."""
        found: dict[str, str] = {}
        for prefix, one in (("", self.model), *((f"{role}/", helper) for role, helper in self.helpers.items())):
            if one.hashes is None:
                return None
            found |= {f"{prefix}{name}": digest for name, digest in one.hashes.items()}
        return found

    def checker(self, inputs: InputFiles) -> Callable[[Job], None]:
        """A function that raises UsageError for a job that the models cannot do, or whose input cannot be used.

        Raises: UsageError at once for models that do not go together.
        """
        check_helpers(self.model, self.helpers)

        def check(job: Job) -> None:
            check_job(job, self.model, self.helpers)
            check_input(job.edit, inputs, self.model.facts)

        return check


def usual_sampling(model: KnownModel) -> SamplingConfig | MusicGenSampling:
    """The sampling options that suit a model, or its kind if its facts are not known."""
    if model.facts is not None:
        return model.facts.sampling
    return MusicGenSampling() if model.is_musicgen else SamplingConfig()


def default_seconds(model: KnownModel) -> float | None:
    """The default length of a model whose clips have any length; None for a model with clips of one length."""
    return MUSICGEN_SECONDS if model.is_musicgen else None


def check_helpers(model: KnownModel, helpers: Mapping[str, KnownModel]) -> None:
    """Raise UsageError unless models of these kinds go together. Does not compare the meaning of their codes."""
    if helpers and model.is_musicgen:
        raise UsageError("MusicGen works alone: it cannot be rescored", "Choose a MAGNeT model")
    if "hybrid" in helpers and not helpers["hybrid"].is_musicgen:
        raise UsageError("only a MusicGen can generate the beginning of a hybrid", "Give --hybrid-model musicgen-small")
    for helper in helpers.values():
        own, others = model.facts, helper.facts
        if own is not None and others is not None:
            differences = code_differences((own.sample_rate, others.sample_rate), (own.codebooks, others.codebooks))
            refuse_other_codes(model.name, own.task, helper.name, differences)


Difference = tuple[str, str]  # what the other model has, and what the generator has


def code_differences(sample_rates: tuple[int, int], codebooks: tuple[int, int]) -> list[Difference]:
    """How the codes of a generator and of another model differ. Pairs: the generator's value first."""
    differences = []
    if sample_rates[0] != sample_rates[1]:
        differences.append((f"codes of {sample_rates[1]} Hz audio", f"{sample_rates[0]} Hz"))
    if codebooks[0] != codebooks[1]:
        differences.append((f"{codebooks[1]} codebooks", f"{codebooks[0]}"))
    return differences


def refuse_other_codes(generator: str, task: Task, other: str, differences: Sequence[Difference]) -> None:
    """Raise UsageError for the first way in which the codes of another model differ from a generator's."""
    hint = (
        "MusicGen is for music only; to rescore sound, give a second sound model, e.g. audio-magnet-medium"
        if task == "sound"
        else "Give musicgen-small or, to rescore, a second music model, e.g. magnet-medium-10secs"
    )
    for theirs, wanted in differences:
        raise UsageError(f"{other} does not fit {generator}: it has {theirs} instead of {wanted}", hint)


def check_job(job: Job, model: KnownModel, roles: Collection[str]) -> None:
    """Raise UsageError for options that a model with helpers of these roles cannot do. Reads no input."""
    if model.is_musicgen:
        job.edit.check_autoregressive()
    elif job.edit.hybrid is not None and "hybrid" not in roles:
        raise UsageError("a hybrid needs a second model", "Give e.g. --hybrid-model musicgen-small")
    if isinstance(job.sampling, SamplingConfig) and job.sampling.span_order == "corput" and "rescorer" in roles:
        raise UsageError(
            "a rescorer helps to rank spans, but the span order corput ranks none",
            "Leave the rescorer out, or give --span-order confidence",
        )
    facts = model.facts
    if facts is None:
        return
    if isinstance(job.sampling, SamplingConfig):
        check_steps(job.sampling, codebooks=facts.codebooks)
    job.edit.length(facts.seconds, facts.frame_rate, default_seconds=default_seconds(model))
    if job.edit.loop and job.edit.inpaint is None:
        loop_period(job.edit, facts)


def loop_period(edit: EditConfig, facts: ModelFacts, *, input_seconds: float | None = None) -> LoopLength:
    """Length of the loop that an edit asks for; see `period_of`."""
    return period_of(
        edit,
        sample_rate=facts.sample_rate,
        frame_rate=facts.frame_rate,
        clip_frames=int(facts.seconds * facts.frame_rate),
        input_seconds=input_seconds,
    )


def loop_bars(edit: EditConfig, model: KnownModel) -> int | None:
    """Bars of a loop with a tempo, as far as they are known without its input; None for others."""
    if edit.bpm is None or edit.inpaint is not None or model.facts is None:
        return edit.bars
    return loop_period(edit, model.facts).bars


def check_input(edit: EditConfig, inputs: InputFiles, facts: ModelFacts | None) -> None:
    """Raise UsageError for an input that cannot be read or kept or be a loop, or regions that are not within it."""
    if edit.input is None:
        return
    if not os.path.isfile(edit.input):
        raise UsageError(f"there is no file {edit.input}", "Check the path")
    channels, seconds = inputs.measure(edit.input)
    if edit.keeps_samples and channels > MOST_CHANNELS:
        option = "--join" if edit.join else "--blend"
        raise UsageError(
            f"{edit.input} has {channels} channels; {option} keeps at most {MOST_CHANNELS}",
            f"Mix it down first, or leave {option} out",
        )
    if edit.loop and facts is not None:
        loop_period(edit, facts, input_seconds=seconds)
    if edit.regions:
        check_regions([parse_region(one) for one in edit.regions], seconds)
