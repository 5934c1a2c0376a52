"""The comparison of ways to sample: its figures against their definitions, and one small study from end to end."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

import sampling_study
from magnet_cli.errors import KeywordError
from magnet_cli.options.keywords import change_sampling
from magnet_cli.options.sampling import SamplingConfig
from sampling_study import WAYS, by_prompt, front, main, mean_of, options_of
from support.golden import GOLDEN

JUDGE = """
import json, sys, wave
for number, line in enumerate(open(sys.argv[1], encoding="utf-8")):
    row = json.loads(line)
    with wave.open(row["file"]) as file:
        samples = file.readframes(file.getnframes())
    print(json.dumps({"quality": len(row["text"]) + sum(samples) % 7, "odd": number if number % 2 else None}))
"""


def test_every_way_is_possible_and_another() -> None:
    ways = [change_sampling(SamplingConfig(), {**options_of(way), "steps": "6,2,2,2"}) for way in WAYS.values()]
    assert len(set(map(repr, ways))) == len(ways)
    with pytest.raises(KeywordError, match="span_oder"):
        options_of("span_oder=corput")
    with pytest.raises(SystemExit, match="is no option with a value"):
        options_of("corput")


def test_clips_of_a_prompt_count_as_one() -> None:
    rows = [{"text": "a"}, {"text": "b"}, {"text": "a"}, {"text": "c"}]
    found = by_prompt(np.array([1.0, 5.0, 2.0, np.nan]), rows)
    assert found.tolist()[:2] == [1.5, 5.0]
    assert np.isnan(found[2])


def test_an_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    found = mean_of(np.append(values, np.nan))
    assert found.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    # A bootstrap of 2000 draws knows its quantiles to a few per cent.
    assert (found.low, found.high) == (
        pytest.approx(found.value - half, abs=0.1 * half),
        pytest.approx(found.value + half, abs=0.1 * half),
    )


def test_the_front_has_what_nothing_cheaper_reaches() -> None:
    points = [(10.0, 0.5), (12.0, 0.4), (20.0, 0.7), (20.0, 0.6), (5.0, 0.2), (30.0, 0.7)]
    assert front(points) == [(5.0, 0.2), (10.0, 0.5), (20.0, 0.7)]


@pytest.mark.filterwarnings("ignore::magnet_cli.errors.MagnetWarning")  # that there is no GPU
def test_a_study_measures_resumes_and_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, judge, out = tmp_path / "prompts.txt", tmp_path / "judge.py", tmp_path / "study"
    prompts.write_text("rain\nwind & snow\n")
    judge.write_text(JUDGE)
    given = [str(GOLDEN / "music"), str(prompts), "--judge", f"{sys.executable} {judge}", "--count", "3"]
    given += ["--device", "cpu", "--steps", "1,2,2,2", "--out", str(out)]
    main([*given, "--ways", "corput", "entropy_bound=100000"])
    lines = (out / "study.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines] == [
        "way",
        "---",
        "reference",
        "corput",
        "entropy_bound=100000",
    ]
    assert [line.split("|")[3].strip() for line in lines[2:]] == ["7.0", "7.0", "4.0"]  # passes: entropy ended early
    texts = ElementTree.fromstring((out / "study.svg").read_text()).itertext()
    assert {"corput", "quality"} <= {text.strip() for text in texts}
    points = {path.name: path.read_bytes() for path in (out / "points").iterdir()}
    assert len(points) == 3
    assert json.loads(min(points.values()))["values"]["odd"] == [None, 1.0, None]

    def again(*_: object) -> None:
        raise AssertionError("a finished point is measured again")

    monkeypatch.setattr(sampling_study, "measure_point", again)
    capsys.readouterr()
    main([*given, "--ways", "corput"])
    assert capsys.readouterr().out.splitlines() == [*lines[:4], ""]
    with pytest.raises(AssertionError, match="measured again"):
        main([*given[:-1], str(tmp_path / "other")])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["no-such-model", "p.txt"], "there is no judge|--judge"),
        (["bundled", "p.txt", "--judge", "x", "--ways", "guidence=3"], "guidence"),
        (["bundled", "missing.txt", "--judge", "x"], "missing.txt"),
        (["bundled", "p.txt", "--judge", "x"], "0 prompts"),
    ],
)
def test_what_cannot_be_studied_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("\n")
    with pytest.raises(SystemExit, match=message):
        main(given)
