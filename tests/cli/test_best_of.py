"""The best of several candidates for a loop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from magnet_cli.cli.best_of import rank
from magnet_cli.music.tempo import Tempo
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
