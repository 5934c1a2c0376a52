"""The tempo of a loop in its prompt."""

from __future__ import annotations

import time

import pytest

from magnet_cli import EditConfig, Job, SamplingConfig
from magnet_cli.errors import UsageError
from magnet_cli.options.tempo import named_tempi, with_tempo


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("disco beat", []),
        ("disco beat, 120 bpm", [(120, 120)]),
        ("disco at 120BPM, 80s synths", [(120, 120)]),
        ("a 90-bpm groove", [(90, 90)]),
        ("118-122 bpm house", [(118, 122)]),
        ("from 100 bpm to 140 bpm", [(100, 100), (140, 140)]),
        ("127.5 bpm", [(127.5, 127.5)]),
        ("127,5 bpm", [(127.5, 127.5)]),
        ("BPM: 140, dark", [(140, 140)]),
        ("tempo of 75, soft", [(75, 75)]),
        ("72 beats per minute", [(72, 72)]),
        ("808 drums, 4 bars", []),
        ("tempo rubato", []),
    ],
)
def test_tempi_that_a_prompt_names(prompt: str, expected: list[tuple[float, float]]) -> None:
    assert named_tempi(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "bpm", "expected"),
    [
        ("disco beat", None, "disco beat"),
        ("disco beat", 120, "disco beat, 120 bpm"),
        ("disco beat.", 97.5, "disco beat, 97.5 bpm"),
        ("disco beat, 120 bpm", 120, "disco beat, 120 bpm"),
        ("disco beat, 125 BPM", 124.6, "disco beat, 125 BPM"),
        ("house, 118-122 bpm", 120, "house, 118-122 bpm"),
        ("from 100 bpm to 140 bpm", 140, "from 100 bpm to 140 bpm"),
    ],
)
def test_the_tempo_is_added_unless_it_is_there(prompt: str, bpm: float | None, expected: str) -> None:
    assert with_tempo(prompt, bpm) == expected


def test_another_tempo_is_refused() -> None:
    with pytest.raises(UsageError, match="the prompt names 100 and 130 to 140 bpm, but bpm is 120") as refused:
        with_tempo("100 bpm, then 130-140 bpm", 120)
    assert "leave it out of the prompt" in refused.value.hint


def test_a_job_gives_the_model_the_tempo_and_keeps_the_prompt() -> None:
    edit = EditConfig(loop=True, bpm=120)
    job = Job("disco beat", 1, SamplingConfig(), edit)
    assert (job.prompt, job.text) == ("disco beat", "disco beat, 120 bpm")
    assert Job("disco beat", 1, SamplingConfig(), EditConfig(loop=True)).text == "disco beat"
    assert Job("x, 90 bpm", 1, SamplingConfig(), EditConfig(loop=True, bpm=120, unconditional=True)).text == "x, 90 bpm"
    with pytest.raises(UsageError, match="names 90 bpm"):
        Job("x, 90 bpm", 1, SamplingConfig(), edit)
    then = Job("x, 90 bpm", 1, SamplingConfig(), edit, "x, 90 bpm")  # as versions before gave it to the model
    assert then.text == "x, 90 bpm"


def test_a_long_prompt_is_searched_at_once() -> None:
    started = time.process_time()
    assert named_tempi("1 " * 5000 + "1" + " " * 9000 + "- to") == []
    assert time.process_time() - started < 1
