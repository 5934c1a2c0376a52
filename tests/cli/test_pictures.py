"""`--picture` and `--sheet`: pictures beside clips follow the rules of all files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from magnet_cli import Pipeline
from magnet_cli.jobs.manifest import MANIFEST_FILE
from magnet_cli.pictures import installed
from support.command import Magnet, one_line_error

pytest.importorskip("matplotlib")

QUICK = ("--steps", "1,1,1,1", "--device", "cpu")


def text_of(path: str) -> dict[str, str]:
    with Image.open(path) as image:
        image.load()
        return dict(image.info)


def test_a_picture_lies_beside_the_clip_and_holds_its_record(magnet: Magnet, tiny: str, tmp_path: Path) -> None:
    done = magnet("generate", "rain", "-o", "a.wav", "--model", tiny, "--seed", "7", "--picture", "--json", *QUICK)
    assert done.code == 0, done.err
    assert done.records[0]["picture_path"] == "a.png"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.png", "a.wav"]
    said = text_of("a.png")
    assert (said["Title"], json.loads(said["Comment"])) == ("rain", json.loads(Path("a.json").read_text()))
    refused = magnet("generate", "rain", "-o", "a.flac", "--model", tiny, "--picture", "--no-metadata", *QUICK)
    one_line_error(refused, 7, "a.png already exists")
    assert not Path("a.flac").exists()
    bare = magnet("generate", "rain", "-o", "b.wav", "--model", tiny, "--picture", "--no-metadata", *QUICK)
    assert bare.code == 0
    assert "Comment" not in text_of("b.png")


def test_files_are_drawn_later_each_and_on_a_sheet(magnet: Magnet, tiny: str, tmp_path: Path) -> None:
    assert magnet("generate", "rain", "-n", "2", "-o", "{seed}.wav", "--seed", "1", "--model", tiny, *QUICK).code == 0
    done = magnet("info", "1.wav", "2.json", "--picture", "--sheet", "all.png")
    assert done.code == 0, done.err
    assert done.out.count("prompt     rain") == 2
    assert done.out.splitlines()[0] == "file       1.wav"
    assert {path.name for path in tmp_path.glob("*.png")} == {"1.png", "2.png", "all.png"}
    one_line = magnet("info", "1.wav", "--picture")
    assert one_line.code == 7
    assert "1.png already exists" in one_line.err
    assert magnet("info", "1.wav", "--picture", "--force").code == 0
    Path("2.wav").unlink()
    assert "there is no audio file beside 2.json" in magnet("info", "2.json", "--sheet", "x.png").err
    assert "is not a .png file" in magnet("info", "1.wav", "--sheet", "x.jpg").err
    assert [one["seed"] for one in magnet("info", "1.wav", "2.json", "--json").records] == [1, 2]


def test_a_batch_draws_and_resumes(magnet: Magnet, tiny: str, tmp_path: Path) -> None:
    Path("p.txt").write_text("rain\nwind\n")
    command = ("batch", "p.txt", "-o", "clips", "--model", tiny, "--seed", "1", *QUICK)
    assert magnet(*command, "--picture").code == 0
    assert len(list(Path("clips").glob("*.png"))) == 2
    assert Path("clips/index.html").read_text().count("<img") == 2
    lines = [json.loads(line) for line in Path("clips", MANIFEST_FILE).read_text().splitlines()]
    assert all(any(made[0].endswith(".png") for made in line["files"]) for line in lines if "item" in line)
    assert "nothing to generate" in magnet(*command, "--picture").err
    next(Path("clips").glob("*rain*.png")).unlink()  # a file of a clip is missing
    assert "1 of 2 clips already generated" in magnet(*command, "--picture").err
    assert len(list(Path("clips").glob("*.png"))) == 2


def test_asking_for_pictures_later_generates_nothing_again(magnet: Magnet, tiny: str, tmp_path: Path) -> None:
    Path("p.txt").write_text("rain\n")
    command = ("batch", "p.txt", "-o", "clips", "--model", tiny, "--seed", "1", *QUICK)
    assert magnet(*command).code == 0
    assert "nothing to generate" in magnet(*command, "--picture").err


def test_without_matplotlib_nothing_is_begun(
    magnet: Magnet, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    Path("p.txt").write_text("rain\n")
    for command in (("generate", "rain", "-o", "a.wav"), ("batch", "p.txt", "-o", "clips")):
        refused = magnet(*command, "--model", tiny, "--picture", *QUICK)
        one_line_error(refused, 2, "a picture needs matplotlib", "pip install '.[pictures]'")
    assert [path.name for path in tmp_path.iterdir()] == ["p.txt"]


@pytest.mark.filterwarnings("ignore::magnet_cli.errors.MagnetWarning")  # that there is no GPU
def test_a_clip_saves_its_picture_from_python(tiny: str, tmp_path: Path) -> None:
    clip = Pipeline.load(tiny, device="cpu").generate_one("rain", seed=7, steps=(1, 1, 1, 1))
    clip.save(tmp_path / "a.wav", picture=True)
    assert text_of(str(tmp_path / "a.png"))["Title"] == "rain"
    assert clip.picture().startswith(b"\x89PNG")
