"""The combinations of a sweep."""

from __future__ import annotations

import pytest

from magnet_cli.errors import UsageError
from magnet_cli.jobs.sweep import MOST_COMBINATIONS, Combination, combinations, parse_sweep
from magnet_cli.options.sampling_overrides import Overrides


def test_without_a_sweep_there_is_one_combination_which_changes_nothing() -> None:
    (only,) = combinations([])
    given = Overrides(guidance=3.0, top_k=5)
    assert only == Combination()
    assert (only.over(given), only.edits()) == (given, {})


def test_every_combination_comes_once_and_the_last_option_changes_fastest() -> None:
    found = combinations(["guidance=1,3.5", "--steps=20,10,10,10/60,10,10,10"])
    assert [[value for _, value in one.words] for one in found] == [
        ["1", "20,10,10,10"],
        ["1", "60,10,10,10"],
        ["3.5", "20,10,10,10"],
        ["3.5", "60,10,10,10"],
    ]
    last = found[-1].over(Overrides(guidance=9.0, temperature=2.0))
    assert (last.guidance, last.steps, last.temperature) == (3.5, "60,10,10,10", 2.0)


def test_options_of_the_clip_are_swept_apart_from_those_of_sampling() -> None:
    (_, second) = combinations(["duration=4,8"])
    assert second.over(Overrides()) == Overrides()
    assert second.edits() == {"duration": 8.0}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("top_p=0.5,1", (0.5, 1.0)),
        ("TOP-K = 1, 2", (1, 2)),
        ("greedy=yes,no", (True, False)),
        ("spans=nonoverlap,stride1", ("nonoverlap", "stride1")),
        ("negative=noise, hiss/speech", ("noise, hiss", "speech")),
        ("steps=5,5,5,5", ("5,5,5,5",)),
    ],
)
def test_values_are_read_as_in_a_prompt_file(text: str, values: tuple[object, ...]) -> None:
    assert tuple(value for _, value in parse_sweep(text).values) == values


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("guidance", "has no values"),
        ("guidence=1,2", "guidence"),
        ("seed=1,2", "seed"),
        ("prompt=a,b", "prompt"),
        ("inpaint=a.wav", "inpaint"),
        ("guidance=1,,2", "not a number"),
        ("guidance=", "not a number"),
        ("guidance=low,high", "not a number"),
        ("guidance=1,1.0", "twice"),
    ],
)
def test_what_cannot_be_swept_is_named(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_sweep(text)


def test_a_misspelt_option_gets_a_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        parse_sweep("guidence=1,2")
    assert "Did you mean guidance?" in caught.value.hint


def test_an_option_is_swept_once_and_combinations_have_a_limit() -> None:
    with pytest.raises(UsageError, match="twice"):
        combinations(["guidance=1", "guidance=2"])
    many = ",".join(map(str, range(1, MOST_COMBINATIONS + 2)))
    with pytest.raises(UsageError, match="combinations"):
        combinations([f"top-k={many}"])
