"""One text of each error: the command names options, Python names keyword arguments."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import pytest

from magnet_cli.errors import KeywordError, MagnetError, MagnetWarning, OutputError, UsageError, in_python, near
from magnet_cli.options.declared import declared
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling_overrides import Overrides


@pytest.mark.parametrize(
    ("flags", "keywords"),
    [
        ("Give e.g. --steps 20,10,10,10", "Give e.g. steps=(20, 10, 10, 10)"),
        ("Pass --force to overwrite it", "Pass overwrite=True to overwrite it"),
        ("Give --region 2.5:5, or --vary 0.3", 'Give regions=["2.5:5"], or vary=0.3'),
        ("Give e.g. -n 4", "Give e.g. variations=4"),
        ("Check the driver, or give --device cpu", 'Check the driver, or give device="cpu"'),
        ("Give --hybrid-model musicgen-small", 'Give hybrid="musicgen-small"'),
        ("Try --dtype float32 (or bfloat16)", 'Try dtype="float32" (or bfloat16)'),
        ("--bpm cannot be combined with --duration", "bpm cannot be combined with duration"),
        ("Give e.g. --true-peak -1", "Give e.g. true_peak=-1"),
        ("or --greedy for no randomness", "or greedy=True for no randomness"),
        ("run magnet-small--x and a--b", "run magnet-small--x and a--b"),
    ],
)
def test_options_become_keyword_arguments(flags: str, keywords: str) -> None:
    error = UsageError("it cannot work", flags)
    assert in_python(flags) == keywords
    assert str(error) == f"it cannot work. {keywords}."
    assert error.lines == [f"it cannot work. {flags}."]


@pytest.mark.parametrize("kind", [EditConfig, OutputConfig, PlacesConfig, RuntimeConfig, Overrides])
def test_every_option_has_the_name_of_its_field(kind: type[Any]) -> None:
    for name, declaration in declared(kind).items():
        wanted = {"no_anneal": "anneal=False"}.get(name, name)
        assert in_python(declaration["flag"]).removesuffix("=True") == wanted


def test_warnings_name_keyword_arguments_in_python() -> None:
    with pytest.warns(MagnetWarning, match="^compile=True changes nothing$"):
        warnings.warn("--compile changes nothing", MagnetWarning, stacklevel=1)


@pytest.mark.parametrize("error", [OutputError("a", "b", details=["c"]), KeywordError("a", "Did you mean b?")])
def test_errors_reach_other_processes_whole(error: MagnetError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.lines, copy.details) == (type(error), error.lines, error.details)


def test_near_words_are_as_alike_as_is_asked() -> None:
    known = ["flute", "lute", "piano", "pianist"]
    assert near("flutte", known) == ["flute", "lute"]
    assert near("flutte", known, 1, least=0.75) == ["flute"]
    assert near("flax", known, least=0.75) == []
