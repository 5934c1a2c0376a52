"""Judge clips: all measures of each, their means, and the differences between two sets of clips."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnet_cli.audio.files import read_audio
from magnet_cli.errors import MagnetError, UsageError
from magnet_cli.judge.clips import FoundClip, find_clips
from magnet_cli.judge.measures import Scores, check, chosen, measure_sound
from magnet_cli.judge.statistics import Estimate, estimate
from magnet_cli.options.keywords import StrPath

if TYPE_CHECKING:
    from magnet_cli.pipeline.pipeline import Pipeline


@dataclass(frozen=True)
class ClipScores:
    """What was measured of one clip. scores: by the name of the measure; None: it has no value for this clip."""

    clip: FoundClip
    seconds: float
    sample_rate: int
    channels: int
    scores: Scores

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "path": str(self.clip.path),
            "prompt": self.clip.prompt,
            "seconds": self.seconds,
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            "tempo_asked": [list(bounds) for bounds in self.clip.asked],
            **self.scores,
        }


@dataclass(frozen=True)
class FailedClip:
    """A clip that could not be measured, and why."""

    clip: FoundClip
    error: MagnetError


@dataclass(frozen=True)
class Evaluation:
    """What was measured of a set of clips. names: of the measures, in order. failed: the clips that were left out."""

    names: tuple[str, ...]
    clips: list[ClipScores]
    failed: list[FailedClip]

    @property
    def summary(self) -> dict[str, Estimate | None]:
        """The mean of each measure over the clips that have a value of it, with its interval; None where none has."""
        return {name: estimate([one.scores[name] for one in self.clips]) for name in self.names}

    def against(self, other: Evaluation) -> Comparison:
        """The differences to another set of clips, pair by pair.

        Clips are a pair if they have the same name but for the suffix, relative to their folder. If no two have, those
        of the same prompt are, in their order.

        Raises: UsageError if there is no pair, or no measure that both have.
        """
        names = tuple(name for name in self.names if name in other.names)
        for key in (_stems, _prompts):
            mine, theirs = key(self.clips), key(other.clips)
            pairs = [(mine[one], theirs[one]) for one in mine if one in theirs]
            if pairs and names:
                return Comparison(names, pairs, len(self.clips) - len(pairs), len(other.clips) - len(pairs))
        raise UsageError(
            "no clip of one set has the name or the prompt of a clip of the other",
            "Compare clips of the same prompts, e.g. two batches of one file",
        )


@dataclass(frozen=True)
class Comparison:
    """Two sets of clips, pair by pair. unpaired, others_unpaired: clips of either set that have no partner."""

    names: tuple[str, ...]
    pairs: list[tuple[ClipScores, ClipScores]]
    unpaired: int
    others_unpaired: int

    def differences(self, name: str) -> list[float]:
        """The first minus the second, for each pair in which both have a value of this measure."""
        values = [(first.scores[name], second.scores[name]) for first, second in self.pairs]
        return [one - other for one, other in values if one is not None and other is not None]

    @property
    def summary(self) -> dict[str, Estimate | None]:
        """The mean difference of each measure, with its interval."""
        return {name: estimate(self.differences(name)) for name in self.names}


def evaluate(
    clips: StrPath | Sequence[StrPath],
    *,
    prompts: StrPath | None = None,
    pipeline: Pipeline | None = None,
    metrics: Collection[str] | None = None,
) -> Evaluation:
    """Measure audio files.

    clips: files, folders of them, or manifests of batches. prompts: a file of their texts; None: those of their
    records. pipeline: a MAGNeT model, for the measures that need one. metrics: names of measures; None: all that are
    possible. Clips that cannot be measured are in `failed`.

    Raises: UsageError for clips that are not there, prompts that belong to none of them, and measures that are not
        possible.
    """
    names = chosen(metrics, has_model=pipeline is not None)
    places = [clips] if isinstance(clips, (str, os.PathLike)) else list(clips)
    found = find_clips([Path(place) for place in places], None if prompts is None else Path(prompts))
    return collected(names, judged(found, names, pipeline))


def collected(names: tuple[str, ...], results: Iterator[ClipScores | FailedClip]) -> Evaluation:
    """The evaluation of results that come one by one."""
    evaluation = Evaluation(names, [], [])
    for one in results:
        if isinstance(one, ClipScores):
            evaluation.clips.append(one)
        else:
            evaluation.failed.append(one)
    return evaluation


def judged(
    clips: Sequence[FoundClip], names: Sequence[str], pipeline: Pipeline | None
) -> Iterator[ClipScores | FailedClip]:
    """The results of clips, one after the other."""
    for clip in clips:
        try:
            yield judge(clip, names, pipeline)
        except MagnetError as error:
            yield FailedClip(clip, error)


def judge(clip: FoundClip, names: Sequence[str], pipeline: Pipeline | None) -> ClipScores:
    """These measures of a clip. UsageError for one that cannot be measured."""
    waveform, rate = read_audio(clip.path)
    check(waveform, rate)
    frame_rate = None if pipeline is None else pipeline.codec.config.frame_rate
    scores = measure_sound(waveform, rate, names, asked=clip.asked, loop=clip.loop, frame_rate=frame_rate)
    if "likelihood" in names and pipeline is not None:
        scores["likelihood"] = None
        if clip.text is not None and waveform.any():
            scores["likelihood"] = pipeline.text_likelihood(pipeline.encode(waveform, rate), clip.text)
    return ClipScores(clip, waveform.shape[1] / rate, rate, waveform.shape[0], scores)


Keyed = dict[object, ClipScores]


def _stems(clips: Sequence[ClipScores]) -> Keyed:
    return {Path(one.clip.name).with_suffix(""): one for one in clips}


def _prompts(clips: Sequence[ClipScores]) -> Keyed:
    seen: Counter[str] = Counter()
    found: Keyed = {}
    for one in clips:
        if one.clip.prompt is not None:
            found[one.clip.prompt, seen[one.clip.prompt]] = one
            seen[one.clip.prompt] += 1
    return found
