"""Times and regions with minutes and hours."""

from __future__ import annotations

import math

import pytest

from magnet_cli.errors import UsageError
from magnet_cli.jobs.prompt_file import value_of
from magnet_cli.options.regions import parse_region
from magnet_cli.options.times import parse_seconds
from support.command import Magnet, one_line_error


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("2.5", 2.5),
        ("1:30", 90.0),
        ("0:05.5", 5.5),
        ("1:02:03", 3723.0),
        ("90:00", 5400.0),
        (" 1:05 ", 65),
    ],
)
def test_a_time_is_so_many_seconds(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "1:60", "1:60:00", "1:2:3:4", ":30", "1:", "-1:30", "1:-30", "1.5:30"])
def test_what_is_no_time_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"time|float"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2.5:5", 2.5, 5),
        (":5", 0, 5),
        ("2.5:", 2.5, math.inf),
        ("1:30", 1, 30),  # seconds, as ever
        ("2.5-5", 2.5, 5),
        ("1:10-1:30", 70, 90),
        ("1:10-", 70, math.inf),
        ("1:10:1:30", 70, 90),
        ("0:01:02:0:01:03", 62, 63),
        ("1:02:03-1:02:04.5", 3723, 3724.5),
    ],
)
def test_a_region_has_two_times(text: str, start: float, end: float) -> None:
    region = parse_region(text)
    assert (region.start, region.end) == (start, end)


@pytest.mark.parametrize(
    ("text", "part"),
    [("1:2:3", "Write a dash"), ("1:70-2:00", "not a region"), ("-5:3", "does not begin"), ("5", "not a region")],
)
def test_what_is_no_region_is_an_error(text: str, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        parse_region(text)


def test_options_and_columns_take_times(magnet: Magnet, tiny: str) -> None:
    assert value_of("duration", "1:30") == 90.0
    assert value_of("keep", "2.5") == 2.5
    options = ("--model", tiny, "--steps", "1,1,1,1", "--device", "cpu", "--json", "-o", "x.wav", "--duration")
    assert magnet("generate", "x", *options, "0:01").records[0]["seconds"] == 1.0
    one_line_error(magnet("generate", "x", *options, "1:75"), 2, "--duration must be seconds or a time such as 1:30")
    one_line_error(magnet("generate", "x", *options, "2:00:00"), 2, "3,600 seconds")
