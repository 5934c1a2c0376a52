"""`magnet again` and `--sweep`: more clips like one, and clips under several values of an option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile

from support.command import Magnet
from support.golden import GOLDEN

MUSIC = str(GOLDEN / "music")
LIKED = (
    *("--model", MUSIC, "--device", "cpu", "--steps", "2,1,1,1", "--guidance", "4", "--temperature", "2"),
    *("--duration", "0.5", "--lufs", "-20", "--seed", "5"),
)


def record(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return found


def choices(record: dict[str, Any]) -> dict[str, Any]:
    """What a user chose, without the seed."""
    return {name: record[name] for name in ("prompt", "sampling", "edit", "output")} | {
        "model": record["model"]["given"]
    }


@pytest.fixture
def liked(magnet: Magnet, tmp_path: Path) -> Path:
    assert magnet("generate", "disco beat", *LIKED, "-o", "liked.flac").code == 0
    return tmp_path / "liked.flac"


def test_another_seed_and_all_else_as_before(magnet: Magnet, liked: Path) -> None:
    before = liked.read_bytes()
    done = magnet("again", str(liked), "-n", "2", "--seed", "11")
    assert done.code == 0, done.err
    assert done.out.split() == [str(liked.with_name(f"disco-beat-{seed}.flac")) for seed in (11, 12)]
    assert liked.read_bytes() == before
    for path in map(Path, done.out.split()):
        assert soundfile.info(path).format == "FLAC"
        assert choices(record(path)) == choices(record(liked))
        assert record(path)["codes"] != record(liked)["codes"]


def test_the_same_seed_generates_the_same_codes(magnet: Magnet, liked: Path) -> None:
    done = magnet("again", str(liked), "--seed", "5", "-o", str(liked.with_name("same.wav")))
    assert done.code == 0, done.err
    assert record(liked.with_name("same.wav"))["codes"] == record(liked)["codes"]


def test_a_seed_is_drawn_and_said(magnet: Magnet, liked: Path) -> None:
    done = magnet("again", str(liked), "--json")
    assert done.code == 0, done.err
    seed = json.loads(done.out)["seed"]
    assert seed != 5
    assert f"seed {seed}," in done.err


def test_options_change_what_they_name_alone(magnet: Magnet, liked: Path) -> None:
    done = magnet(
        *("again", str(liked), "--prompt", "slow jazz", "--guidance", "7", "--duration", "0.3", "--true-peak", "-3"),
        *("-o", str(liked.with_name("new.wav"))),
    )
    assert done.code == 0, done.err
    new, old = record(liked.with_name("new.wav")), record(liked)
    assert new["prompt"] == "slow jazz"
    assert new["sampling"] == old["sampling"] | {"guidance": 7.0}
    assert new["edit"] == old["edit"] | {"duration": 0.3}
    assert new["output"] == old["output"] | {"true_peak": -3.0}


def test_nothing_is_overwritten(magnet: Magnet, liked: Path) -> None:
    before = liked.read_bytes()
    assert magnet("again", str(liked), "--seed", "5", "-o", str(liked)).code == 7
    assert liked.read_bytes() == before


def test_a_file_without_a_record_is_refused(magnet: Magnet, tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"RIFF")
    done = magnet("again", "x.wav")
    assert done.code == 2
    assert "does not say how it was made" in done.err or "no record" in done.err


def test_a_repository_that_only_the_record_names_needs_a_flag(magnet: Magnet, liked: Path) -> None:
    sidecar = liked.with_suffix(".json")
    sidecar.write_text(json.dumps(record(liked) | {"model": {"given": "somebody/something"}}))
    assert magnet("again", str(sidecar)).code == 2
    assert magnet("again", str(sidecar), "--download").code == 4  # asks the Hub, which the tests have off
    assert magnet("again", str(sidecar), "--model", MUSIC).code == 0


def test_a_sweep_has_every_combination_under_one_seed(magnet: Magnet, tmp_path: Path) -> None:
    done = magnet(
        *("generate", "disco beat", *LIKED, "--sweep", "guidance=1,3", "--sweep", "steps=1,1,1,1/2,1,1,1"),
        *("-o", "clips/"),
    )
    assert done.code == 0, done.err
    wanted = [
        (guidance, steps, f"clips/0{2 * place + number}-disco-beat-5-guidance-{guidance:g}-steps-{steps[0]}-1-1-1.wav")
        for place, guidance in enumerate((1.0, 3.0))
        for number, steps in enumerate(([1, 1, 1, 1], [2, 1, 1, 1]), 1)
    ]
    assert done.out.split() == [path for *_, path in wanted]
    for guidance, steps, path in wanted:
        found = record(tmp_path / path)
        assert (found["seed"], found["sampling"]["guidance"], found["sampling"]["steps"]) == (5, guidance, steps)
    table = done.err.splitlines()[-5:]
    assert table[0].split() == ["guidance", "steps", "seed", "took", "LUFS", "file"]
    assert [line.split()[:3] for line in table[1:]] == [
        [f"{guidance:g}", ",".join(map(str, steps)), "5"] for guidance, steps, _ in wanted
    ]


def test_a_clip_of_a_sweep_is_the_one_made_alone(magnet: Magnet, tmp_path: Path) -> None:
    for more, name in ((("--sweep", "guidance=1,3"), "{guidance}.wav"), (("--guidance", "3"), "alone.wav")):
        assert magnet("generate", "disco beat", *LIKED, *more, "-o", name).code == 0
    assert record(tmp_path / "3.wav")["codes"] == record(tmp_path / "alone.wav")["codes"]
    assert record(tmp_path / "1.wav")["codes"] != record(tmp_path / "alone.wav")["codes"]


def test_one_seed_is_drawn_for_a_whole_sweep(magnet: Magnet) -> None:
    drawn = [one for one in LIKED if one not in ("--seed", "5")]
    done = magnet("generate", "disco beat", *drawn, "--sweep", "guidance=1,3", "-n", "2", "--json")
    found = [json.loads(line)["seed"] for line in done.out.splitlines()]
    assert found[:2] == found[2:] == [found[0], found[0] + 1]


def test_a_value_that_cannot_work_is_found_before_anything_is_written(magnet: Magnet, tmp_path: Path) -> None:
    for sweep in ("temperature=1,0", "steps=1,1,1,1/2,2", "duration=1,9999", "colour=red"):
        done = magnet("generate", "disco beat", "--model", MUSIC, "--sweep", sweep, "-o", "clips/")
        assert done.code == 2, sweep
    assert not (tmp_path / "clips").exists()


def test_a_liked_clip_is_swept(magnet: Magnet, liked: Path) -> None:
    done = magnet("again", str(liked), "--seed", "5", "--sweep", "guidance=4,6")
    assert done.code == 0, done.err
    names = [f"disco-beat-5-guidance-{value}.flac" for value in (4, 6)]
    assert done.out.split() == [str(liked.with_name(name)) for name in names]
    assert record(liked.with_name(names[0]))["codes"] == record(liked)["codes"]
