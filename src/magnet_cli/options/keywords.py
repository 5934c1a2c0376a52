"""Options as keyword arguments of Python functions: each changes only what it names.

The keywords are the fields of the options classes. These typed dictionaries list them again for type checkers and
editors; a test compares both.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

from magnet_cli.errors import KeywordError, near
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.output import Normalize, OutputConfig, Subtype
from magnet_cli.options.runtime import DTypeName, PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling import (
    GuidanceSchedule,
    MusicGenSampling,
    SamplingConfig,
    SpanOrder,
    Spans,
    SpanScore,
)
from magnet_cli.options.sampling_overrides import Overrides, apply_all

StrPath = str | os.PathLike[str]


class LoadOptions(TypedDict, total=False):
    """The fields of RuntimeConfig and of PlacesConfig."""

    device: str
    dtype: DTypeName
    batch_size: int
    compile: bool
    model_dir: StrPath
    cache_dir: StrPath
    offline: bool


class SamplingOptions(TypedDict, total=False):
    """The fields of SamplingConfig, and a preset; see `SamplingConfig` for units and defaults."""

    preset: Literal["fast", "balanced", "best"]
    steps: Sequence[int]
    temperature: float
    anneal: bool
    top_p: float
    top_k: int
    greedy: bool
    guidance: float
    min_guidance: float
    spans: Spans
    span_score: SpanScore
    rescore_weight: float
    guidance_schedule: GuidanceSchedule
    guidance_start: float
    guidance_end: float
    span_order: SpanOrder
    order_noise: float
    entropy_bound: float
    remask: float


class GenerateOptions(SamplingOptions, total=False):
    """The fields of SamplingConfig, EditConfig and OutputConfig."""

    duration: float
    overlap: float
    continue_from: StrPath
    keep: float
    join: bool
    inpaint: StrPath
    regions: Sequence[str]
    vary: float
    blend: bool
    loop: bool
    bpm: float
    bars: int
    hybrid: float
    negative: str
    unconditional: bool
    normalize: Normalize
    lufs: float
    true_peak: float
    subtype: Subtype
    sample_rate: int


Config = TypeVar("Config", EditConfig, OutputConfig, PlacesConfig, RuntimeConfig)


def check_keywords(function: str, given: Mapping[str, object], known: type[Any], *others: str) -> None:
    """Raise KeywordError for the first keyword that is not known. others: further parameters, for suggestions."""
    names = [*known.__annotations__, *others]
    for name in given:
        if name not in names:
            found = " or ".join(near(name, names))
            hint = f"Did you mean {found}?" if found else f"Choose one of {', '.join(sorted(names))}"
            raise KeywordError(f"{function} has no keyword argument {name!r}", hint)


def changed(config: Config, given: Mapping[str, Any]) -> Config:
    """An options object with those of its fields that are given and not None. UsageError for impossible values."""
    changes = _given(type(config), given)
    for name in ("continue_from", "inpaint"):
        if name in changes:
            changes[name] = os.fspath(changes[name])
    if "regions" in changes:
        regions = changes["regions"]
        changes["regions"] = (regions,) if isinstance(regions, str) else tuple(regions)
    for name in ("model_dir", "cache_dir"):
        if name in changes:
            changes[name] = Path(changes[name])
    return replace(config, **changes)


def _given(kind: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those keywords that are fields of a class, and not None; `5` is `5.0` for a field of floats."""
    return {
        one.name: float(value) if type(value) is int and "float" in str(one.type) else value
        for one in fields(kind)
        if (value := given.get(one.name)) is not None
    }


def change_sampling(
    sampling: SamplingConfig | MusicGenSampling, given: Mapping[str, Any]
) -> SamplingConfig | MusicGenSampling:
    """Sampling options with those that are given and not None; UsageError for what is not possible, or not MusicGen's.

    As on the command line, a preset comes first, and `top_p` and `top_k` replace each other.
    """
    changes = _given(Overrides, given)
    if "steps" in changes and not isinstance(changes["steps"], str):
        changes["steps"] = ",".join(map(str, changes["steps"]))
    if given.get("anneal") is not None:
        changes["no_anneal"] = not given["anneal"]
    return apply_all(Overrides(**changes), sampling)
