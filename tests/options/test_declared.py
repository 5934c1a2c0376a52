"""What the options classes say of their fields, from which command line, help and documentation are made."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

import pytest

from magnet_cli.errors import UsageError
from magnet_cli.jobs.prompt_file import COLUMNS
from magnet_cli.options.declared import Panel, declared
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig
from magnet_cli.options.sampling_overrides import Overrides
from magnet_cli.train.options import (
    CodecShape,
    CodecTraining,
    DecoderShape,
    DecoderTraining,
    LoraOptions,
    Optimization,
    RunOptions,
    TextShape,
)

ALL = (EditConfig, OutputConfig, PlacesConfig, RuntimeConfig, Overrides)
TRAINING = (
    *(CodecShape, CodecTraining, DecoderShape, DecoderTraining),
    *(LoraOptions, Optimization, RunOptions, TextShape),
)


@pytest.mark.parametrize("kind", [*ALL, *TRAINING], ids=lambda kind: kind.__name__)
def test_every_declaration_is_whole(kind: type[Any]) -> None:
    found = declared(kind)
    assert found
    for name, one in found.items():
        assert one["panel"] in get_args(Panel), name
        assert one["flag"].startswith("--"), name
        assert one["help"][0].isupper(), name
        assert one["help"].endswith("."), name
        assert not one.get("unset", "").endswith("."), name


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_field_is_an_option(kind: type[Any]) -> None:
    assert set(declared(kind)) == {one.name for one in fields(kind)}


def test_what_may_be_overridden_is_what_sampling_has() -> None:
    options = {one.name for one in fields(Overrides)} - {"preset"}
    assert options - {"no_anneal"} | {"anneal"} == {one.name for one in fields(SamplingConfig)}
    assert {one.name for one in fields(MusicGenSampling)} < options


def test_overrides_change_what_they_name_and_nothing_else() -> None:
    given = Overrides(steps="3,2,2,2", top_k=5, greedy=True, no_anneal=True, rescore_weight=0.0)
    expected = SamplingConfig(steps=(3, 2, 2, 2), top_p=None, top_k=5, greedy=True, anneal=False, rescore_weight=0.0)
    assert given.apply(SamplingConfig()) == expected
    assert Overrides().apply(expected) == expected
    assert Overrides(no_anneal=False, top_p=0.5).apply(expected).anneal
    music = Overrides(temperature=2.0, top_p=0.5, greedy=False, no_anneal=False).apply_to_musicgen(MusicGenSampling())
    assert music == MusicGenSampling(temperature=2.0, top_k=None, top_p=0.5)


@pytest.mark.parametrize(
    "name", sorted({one.name for one in fields(Overrides)} - {one.name for one in fields(MusicGenSampling)})
)
def test_musicgen_refuses_what_it_does_not_have(name: str) -> None:
    value = {"preset": "best", "steps": "1,1,1,1", "no_anneal": True}.get(name, 0.5)
    with pytest.raises(UsageError) as caught:
        Overrides(**{name: value}).apply_to_musicgen(MusicGenSampling())  # type: ignore[arg-type]
    assert f"no {declared(Overrides)[name]['flag']}:" in caught.value.message


def test_the_columns_of_prompt_files_are_the_options() -> None:
    flags = [one["flag"].removeprefix("--") for kind in (Overrides, EditConfig) for one in declared(kind).values()]
    assert list(COLUMNS) == ["prompt", "seed", "variations", "best-of", "output", *flags]
    assert COLUMNS["continue"] == "continue_from"
    assert COLUMNS["region"] == "regions"
