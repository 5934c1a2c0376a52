"""Options as keyword arguments: the same as those of the classes, and each changes only what it names."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from magnet_cli.errors import KeywordError, MagnetError, UsageError
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.keywords import (
    GenerateOptions,
    LoadOptions,
    SamplingOptions,
    change_sampling,
    changed,
    check_keywords,
)
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig

OWN = SamplingConfig(steps=(60, 10, 10, 10), temperature=3.5, top_p=0.8, guidance=20.0)


@pytest.mark.parametrize(
    ("keywords", "kinds", "more"),
    [
        (LoadOptions, (RuntimeConfig, PlacesConfig), set()),
        (SamplingOptions, (SamplingConfig,), {"preset"}),
        (GenerateOptions, (SamplingConfig, EditConfig, OutputConfig), {"preset"}),
    ],
)
def test_every_field_is_a_keyword(keywords: type[Any], kinds: tuple[type[Any], ...], more: set[str]) -> None:
    """A new field needs a line in `options/keywords.py`."""
    assert set(keywords.__annotations__) == {one.name for kind in kinds for one in fields(kind)} | more


def test_a_sampling_option_changes_only_itself() -> None:
    assert change_sampling(OWN, {"guidance": 3}) == SamplingConfig(
        steps=(60, 10, 10, 10), temperature=3.5, top_p=0.8, guidance=3.0
    )
    assert change_sampling(OWN, {}) == OWN
    assert change_sampling(OWN, {"guidance": None}) == OWN
    assert change_sampling(OWN, {"steps": (4, 2, 2, 2), "anneal": False}) == SamplingConfig(
        steps=(4, 2, 2, 2), temperature=3.5, top_p=0.8, guidance=20.0, anneal=False
    )


def test_top_k_replaces_top_p_and_a_preset_comes_first() -> None:
    drawn = change_sampling(OWN, {"top_k": 5, "preset": "fast"})
    assert isinstance(drawn, SamplingConfig)
    assert (drawn.top_k, drawn.top_p, drawn.steps) == (5, None, (12, 4, 4, 4))


def test_what_musicgen_lacks_is_refused() -> None:
    assert change_sampling(MusicGenSampling(), {"guidance": 4}) == MusicGenSampling(guidance=4.0)
    with pytest.raises(UsageError, match="MusicGen has no span_score"):
        change_sampling(MusicGenSampling(), {"span_score": "max"})


def test_fields_of_other_options() -> None:
    edit = changed(EditConfig(), {"inpaint": Path("a.wav"), "regions": "1:2", "guidance": 3.0})
    assert edit == EditConfig(inpaint="a.wav", regions=("1:2",))
    assert type(changed(EditConfig(), {"duration": 4}).duration) is float
    assert changed(PlacesConfig(offline=True), {"model_dir": "m"}) == PlacesConfig(Path("m"), offline=True)
    assert changed(RuntimeConfig(dtype="int8"), {"device": "cpu"}) == RuntimeConfig("cpu", "int8")


def test_an_unknown_keyword_is_a_type_error_with_a_suggestion() -> None:
    for kind in (TypeError, MagnetError):
        with pytest.raises(kind, match=r"f has no keyword argument 'guidence'\. Did you mean guidance"):
            check_keywords("f", {"guidence": 3}, GenerateOptions)
    with pytest.raises(KeywordError, match=r"Did you mean variations\?$"):
        check_keywords("f", {"variation": 3}, GenerateOptions, "variations")
    with pytest.raises(KeywordError, match="Choose one of batch_size, cache_dir"):
        check_keywords("f", {"zzz": 3}, LoadOptions)
