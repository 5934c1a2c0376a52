"""Which clips are found, and with which texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from magnet_cli.audio.files import write_audio
from magnet_cli.errors import UsageError
from magnet_cli.judge.clips import FoundClip, find_clips

NAMES = ("a.wav", "b.flac", "c.wav")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three clips without texts."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in NAMES:
        write_audio(folder / name, np.full((1, 1600), 0.1, dtype=np.float32), 16_000, "pcm16", overwrite=False)
    return folder


def texts(clips: list[FoundClip]) -> list[str | None]:
    return [clip.text for clip in clips]


def test_folders_and_files_each_clip_once(folder: Path) -> None:
    clips = find_clips([folder / "c.wav", folder])
    assert [clip.name for clip in clips] == ["c.wav", "a.wav", "b.flac"]
    assert texts(clips) == [None, None, None]
    assert find_clips([folder])[0].asked == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prompts.txt", "rock\n# a comment\njazz\nrain\n"),
        ("prompts.csv", "path,prompt,state\nclips/a.wav,rock,done\nclips/b.flac,jazz,done\nclips/c.wav,rain,done\n"),
        ("prompts.csv", "prompt,file_name\nrock,a.wav\njazz,b.flac\nrain,c.wav\n"),
        ("prompts.csv", "prompt,path\nrock,old/a.mp3\njazz,old/b.mp3\nrain,old/c.mp3\n"),  # converted since
        (
            "prompts.jsonl",
            "\n".join(json.dumps({"file": f, "text": t}) for f, t in zip(NAMES, ("rock", "jazz", "rain"), strict=True)),
        ),
    ],
)
def test_prompts_of_a_file(folder: Path, name: str, content: str) -> None:
    (folder.parent / name).write_text(content)
    assert texts(find_clips([folder], folder.parent / name)) == ["rock", "jazz", "rain"]


def test_prompts_that_do_not_fit_are_refused(folder: Path) -> None:
    file = folder.parent / "prompts.csv"
    file.write_text("prompt,path\nrock,x.wav\njazz,y.wav\n")
    with pytest.raises(UsageError, match="belong to none of the 3 clips"):
        find_clips([folder], file)
    other = folder.parent / "prompts.txt"
    other.write_text("rock\njazz\n")
    with pytest.raises(UsageError, match="2 prompts for 3 clips"):
        find_clips([folder], other)
    file.write_text("prompt,path\nrock,x/a.wav\njazz,y/a.wav\nrain,z/c.wav\n")
    assert texts(find_clips([folder], file)) == [None, None, "rain"]  # two texts have the first one's name


def test_texts_of_the_audiofolder_convention(folder: Path) -> None:
    (folder / "a.txt").write_text("rock at 120 bpm")
    (folder / "b.json").write_text('{"caption": "jazz, 90-100 bpm"}')
    clips = find_clips([folder])
    assert texts(clips) == ["rock at 120 bpm", "jazz, 90-100 bpm", None]
    assert [clip.asked for clip in clips] == [[(120.0, 120.0)], [(90.0, 100.0)], []]


def test_records_say_more(folder: Path) -> None:
    def record(name: str, **values: object) -> None:
        (folder / name).write_text(json.dumps({"format": "magnet-clip", "version": 1, **values}))

    record("a.json", prompt="rock", text="rock, 120 bpm", edit={"bpm": 120, "loop": True})
    record("b.json", prompt="jazz", text="", edit={"unconditional": True})
    record("c.json", prompt=["rain"], edit="none")
    clips = find_clips([folder])
    assert [(clip.prompt, clip.text, clip.bpm, clip.loop) for clip in clips] == [
        ("rock", "rock, 120 bpm", 120.0, True),
        ("jazz", None, None, False),
        (None, None, None, False),
    ]


@pytest.mark.parametrize("place", ["missing.wav", "empty", "empty/manifest.jsonl"])
def test_places_without_clips_are_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no file|no audio|names no clips"):
        find_clips([tmp_path / place])
