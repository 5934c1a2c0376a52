"""The best of several candidates for a loop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from magnet_cli import Job, Pipeline
from magnet_cli.cli.best_of import rank
from magnet_cli.errors import NumericsError
from magnet_cli.music.tempo import Tempo
from magnet_cli.pipeline.generators import MaskedGenerator
from support.command import Magnet, one_line_error
from support.golden import GOLDEN

QUICK = ("--model", str(GOLDEN / "music"), "--device", "cpu", "--steps", "2,1,1,1")
LOOP = ("--loop", "--bpm", "130", "--bars", "1")


def test_the_nearest_tempo_is_the_best_and_then_the_clearest_beat() -> None:
    found = [None, Tempo(240, 0.9), Tempo(112.5, 0.9), Tempo(127.5, 0.3), Tempo(121, 0.4), Tempo(119, 0.6)]
    ordered = sorted(found, key=lambda tempo: rank(tempo, 120))
    assert ordered == [found[5], found[4], found[3], found[2], found[1], None]


def test_one_of_several_candidates_is_written(magnet: Magnet) -> None:
    result = magnet("generate", "rock", "-o", "clips/", *LOOP, *QUICK, "-n", "2", "--best-of", "3", "--seed", "5", "-v")
    assert result.code == 0, result.err
    paths = [Path(path) for path in result.out.split()]
    assert sorted(Path("clips").iterdir()) == sorted([*paths, *(path.with_suffix(".json") for path in paths)])
    seeds = [json.loads(path.with_suffix(".json").read_text())["seed"] for path in paths]
    assert seeds[0] in (5, 6, 7)
    assert seeds[1] in (8, 9, 10)
    assert [path.name for path in paths] == [f"0{k + 1}-rock-{seed}.wav" for k, seed in enumerate(seeds)]
    for seed in range(5, 11):
        assert f"candidate of seed {seed}: " in result.err
    assert result.err.count("the best of 3") == 2
    assert magnet("replay", str(paths[1]), "--check", "--device", "cpu").out == "same\n"
    one = magnet("generate", "rock", "-o", "one.wav", *LOOP, *QUICK, "--best-of", "2", "--seed", "5", "--json")
    assert one.records[0]["path"] == "one.wav"
    again = magnet("generate", "rock", "-o", "one.wav", *LOOP, *QUICK, "--best-of", "2", "--seed", "5")
    one_line_error(again, 7, "already exists")  # before any work


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--best-of", "2"), "compares the tempi of loops"),
        (("--best-of", "0", *LOOP), "best-of must be from 1"),
        (("--best-of", "6000", "-n", "2", *LOOP), "best-of must be from 1 to 5,000"),
    ],
)
def test_candidates_that_cannot_be(magnet: Magnet, options: tuple[str, ...], part: str) -> None:
    one_line_error(magnet("generate", "rock", *QUICK, *options), 2, part)


# -- by the likelihood of the text -------------------------------------------------------------------------------------


def record(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.with_suffix(".json").read_text()))


@pytest.fixture
def by_likelihood(tiny: str) -> tuple[str, ...]:
    return ("--model", tiny, "--device", "cpu", "--steps", "2,1,1,1", "--judge", "likelihood")


def test_the_likeliest_candidate_is_kept_and_the_record_has_all_scores(
    magnet: Magnet, by_likelihood: tuple[str, ...], tiny: str
) -> None:
    result = magnet("generate", "rock", "rain", "-o", "clips/", *by_likelihood, "--best-of", "4", "--seed", "5", "-v")
    assert result.code == 0, result.err
    assert result.err.count("the best of 4") == 2
    paths = [Path(path) for path in result.out.split()]
    pipeline = Pipeline.load(tiny, device="cpu")
    for path, prompt in zip(paths, ("rock", "rain"), strict=True):
        judged = record(path)["judged"]
        assert [one["seed"] for one in judged["candidates"]] == [5, 6, 7, 8]
        best = max(judged["candidates"], key=lambda one: one["likelihood"])
        assert (record(path)["seed"], judged["likelihood"]) == (best["seed"], best["likelihood"])
        assert path.name.endswith(f"{prompt}-{best['seed']}.wav")
        clips = pipeline.generate(prompt, seed=5, variations=4, steps=(2, 1, 1, 1))
        found = [pipeline.text_likelihood(clip.codes, prompt) for clip in clips]
        assert [one["likelihood"] for one in judged["candidates"]] == found
    assert magnet("replay", str(paths[0]), "--check", "--device", "cpu").out == "same\n"


def test_all_candidates_with_their_scores(magnet: Magnet, by_likelihood: tuple[str, ...]) -> None:
    options = (*by_likelihood, "--best-of", "3", "--keep-all", "--seed", "5")
    result = magnet("generate", "rock", "-o", "all/", *options)
    assert result.code == 0, result.err
    paths = [Path(path) for path in result.out.split()]
    assert [record(path)["seed"] for path in paths] == [5, 6, 7]
    assert all(record(path)["judged"].keys() == {"judge", "likelihood"} for path in paths)
    assert result.err.count("; likelihood ") == 3
    one_line_error(magnet("generate", "rock", "-o", "one.wav", *options), 2, "do not fit into the one file")
    alone = magnet("generate", "rock", "-o", "one.wav", *by_likelihood, "--keep-all", "--seed", "5")
    assert "--keep-all has no effect without --best-of" in alone.err
    assert "judged" not in record(Path("one.wav"))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--best-of", "2", "--judge", "ears"), "unknown judge 'ears'"),
        (("--best-of", "2", "--judge", "likelihood", "--unconditional"), "compares clips by their text"),
        (("--best-of", "2", "--judge", "likelihood", "--model", "musicgen-small"), "MusicGen has no likelihood"),
    ],
)
def test_what_the_likelihood_cannot_judge(magnet: Magnet, options: tuple[str, ...], part: str) -> None:
    one_line_error(magnet("generate", "rock", *QUICK, *options), 2, part)


# -- batches -----------------------------------------------------------------------------------------------------------


def test_a_batch_keeps_the_best_of_each_row_and_resumes(magnet: Magnet, by_likelihood: tuple[str, ...]) -> None:
    Path("p.csv").write_text("prompt,best-of,seed\nrock,3,5\nrain,,9\n")
    asked = ("batch", "p.csv", "-o", "clips", *by_likelihood, "--seed", "1")
    result = magnet(*asked)
    assert result.code == 0, result.err
    rock, rain = (Path(path) for path in result.out.split())
    judged = record(rock)["judged"]
    assert [one["seed"] for one in judged["candidates"]] == [5, 6, 7]
    assert record(rock)["seed"] == max(judged["candidates"], key=lambda one: one["likelihood"])["seed"]
    assert rock.name.endswith("-5.wav")  # the first candidate's: the name is planned before one is chosen
    assert "judged" not in record(rain)
    table = Path("clips/results.csv").read_text("utf-8-sig").splitlines()
    kept = f"{record(rock)['seed']}"
    assert table[1].split(",")[2] == kept
    again = magnet(*asked)
    assert (again.code, again.out) == (0, "")
    assert "nothing to generate" in again.err
    assert Path("clips/results.csv").read_text("utf-8-sig").splitlines() == table
    before = {path: path.read_bytes() for path in (rock, rain)}
    Path("clips/manifest.jsonl").unlink()
    lost = magnet(*asked)
    assert "2 clips restored from the records" in lost.err
    assert {path: path.read_bytes() for path in (rock, rain)} == before
    assert Path("clips/results.csv").read_text("utf-8-sig").splitlines()[1].split(",")[2] == kept
    rock.unlink()
    assert magnet(*asked).out.split() == [str(rock)]
    assert record(rock)["judged"] == judged
    assert magnet("replay", str(rock), "--check", "--device", "cpu").out == "same\n"


def test_a_batch_of_other_candidates_is_another_batch(magnet: Magnet, by_likelihood: tuple[str, ...]) -> None:
    Path("p.txt").write_text("rock\nrain\n")
    asked = ("batch", "p.txt", "-o", "clips", *by_likelihood, "--seed", "1")
    assert magnet(*asked, "--best-of", "2", "-n", "2").code == 0
    assert len(list(Path("clips").glob("*.wav"))) == 4
    assert magnet(*asked, "--best-of", "2", "-n", "2").out == ""
    other = magnet(*asked, "--best-of", "3", "-n", "2")
    assert other.code == 7
    assert "best-of 2, not 3" in other.err
    assert magnet(*asked, "-o", "all", "--best-of", "3", "--keep-all").code == 0
    assert len(list(Path("all").glob("*.wav"))) == 6


def test_rows_that_cannot_be_judged_are_problems(magnet: Magnet, tiny: str) -> None:
    Path("p.csv").write_text("prompt,best-of\nrock,2\nrain,0\nwind,x\n")
    result = magnet("batch", "p.csv", "-o", "clips", "--model", tiny)
    assert result.code == 2
    assert "line 2: --best-of compares the tempi of loops" in result.err
    assert "line 3: best-of must be from 1 to 10,000, not 0" in result.err
    assert "line 4: best-of is 'x', not a whole number" in result.err


def test_a_candidate_that_fails_leaves_the_clip_to_the_others(
    magnet: Magnet, by_likelihood: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = MaskedGenerator.codes

    def fail(self: MaskedGenerator, jobs: Sequence[Job], *arguments: Any, **named: Any) -> Any:
        if any(job.seed in failing for job in jobs):
            raise NumericsError("not finite", "Try another seed")
        return codes(self, jobs, *arguments, **named)

    monkeypatch.setattr(MaskedGenerator, "codes", fail)
    Path("p.csv").write_text("prompt,best-of,seed\nrock,3,5\nrain,2,9\n")
    failing = {7, 9, 10}
    result = magnet("batch", "p.csv", "-o", "clips", *by_likelihood, "--seed", "1")
    assert result.code == 8
    assert "1 of 2 clips failed" in result.err
    (rock,) = (Path(path) for path in result.out.split())
    assert [one["seed"] for one in record(rock)["judged"]["candidates"]] == [5, 6]
    failing = set()
    again = magnet("batch", "p.csv", "-o", "clips", *by_likelihood, "--seed", "1", "--failed")
    assert again.code == 0, again.err
    assert [record(Path(path))["prompt"] for path in again.out.split()] == ["rain"]
