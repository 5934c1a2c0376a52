"""`magnet stream` through its entry point: to a player, to standard output, to files; steered, stopped, replayed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from magnet_cli.playing.pcm import endless_wav_header
from support.command import Magnet, clean_environment, one_line_error
from support.golden import GOLDEN
from support.players import install, only_these

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the players here are scripts")

MODEL = ("--model", str(GOLDEN / "music"), "--device", "cpu", "--dtype", "float32")
QUICK = (*MODEL, "--steps", "1,1,1,1", "--seed", "7")
RATE = 32_000


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    only_these(monkeypatch, folder)
    return folder


def test_files_of_some_minutes_and_a_replay_of_them(magnet: Magnet, tmp_path: Path) -> None:
    done = magnet("stream", "rain", "-o", "radio", "--minutes", "0.05", "--duration", "7", *QUICK)
    assert done.code == 0, done.err
    names = [f"radio/rain-7-{number:04}.wav" for number in (1, 2, 3)]
    assert done.out.split() == names
    lengths = [soundfile.info(name).frames for name in names]
    assert lengths == [3 * RATE, 3 * RATE, 1 * RATE]
    record = json.loads(Path("radio/rain-7-stream.json").read_text())
    assert (record["seed"], record["seconds"], record["model"]["name"]) == (7, 7.0, "music")
    assert [(one["window"], one["prompt"], one["steps"]) for one in record["windows"]] == [(0, "rain", [1, 1, 1, 1])]
    again = magnet("stream", "--replay", "radio/rain-7-stream.json", "-o", "again", "--format", "flac", *MODEL[2:])
    assert again.code == 0, again.err
    before = np.concatenate([soundfile.read(name, dtype="int16")[0] for name in names])
    assert np.array_equal(soundfile.read("again/rain-7-0001.flac", dtype="int16")[0], before)
    assert not list(Path("again").glob("*.json"))
    refused = magnet("stream", "rain", "-o", "radio", "--duration", "1", *QUICK)
    assert refused.code == 7
    assert "already exists" in refused.err
    record["codes"]["sha256"] = "0" * 64
    Path("other.json").write_text(json.dumps(record))
    other = magnet("stream", "--replay", "other.json", "-o", "differs", *MODEL[2:])
    assert other.code == 9
    assert "the codes are not those of other.json" in other.err


def test_a_player_hears_it_and_lines_steer_it(magnet: Magnet, tmp_path: Path, programs: Path) -> None:
    one_line_error(magnet("stream", "rain", *QUICK), 5, "no player was found")
    heard = install(programs, "aplay")
    done = magnet("stream", "rain", "--duration", "3", "--record", "mine.json", *QUICK)
    assert done.code == 0, done.err
    assert "playing through aplay" in done.err
    assert len(heard.read_bytes()) == 2 * (3 * RATE + round(0.05 * RATE))  # and the silence that tried it
    assert json.loads(Path("mine.json").read_text())["seconds"] == 3.0


def started(*arguments: str, folder: Path, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "magnet_cli", "stream", *arguments],
        cwd=folder,
        env=clean_environment(),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_ctrl_c_leaves_a_record_that_replays_what_was_heard(tmp_path: Path, magnet: Magnet) -> None:
    with started("rain", "-o", "-", "--no-live", *QUICK, folder=tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        heard = process.stdout.read(44 + 4 * 2 * RATE)
        process.stdin.write("café\n \n".encode())
        process.stdin.flush()
        time.sleep(0.2)
        for _ in range(20):  # until the prompt is heard, and further
            heard += process.stdout.read(RATE)
        process.send_signal(signal.SIGINT)
        heard += process.stdout.read()
        said = process.stderr.read().decode()
        assert process.wait(60) == 130
    assert "Traceback" not in said
    record = tmp_path / "rain-7-stream.json"
    assert f"magnet stream --replay {record.name} plays it again" in said.splitlines()[-1]
    assert "the next window plays 'café'" in said
    kept = json.loads(record.read_text())
    assert [one["prompt"] for one in kept["windows"]] == ["rain", "café"]
    assert round(kept["seconds"] * RATE) * 2 + 44 == len(heard)
    assert heard.startswith(endless_wav_header(1, RATE))
    again = magnet("stream", "--replay", record.name, "-o", "again", *MODEL[2:])
    assert again.code == 0, again.err
    assert soundfile.read("again/rain-7-0001.wav", dtype="int16")[0].astype("<i2").tobytes() == heard[44:]


def test_a_reader_that_has_gone_ends_it_quietly(tmp_path: Path) -> None:
    with started("rain", "-o", "-", "--format", "raw", *QUICK, folder=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert len(process.stdout.read(RATE)) == RATE
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(60) == 1
    assert "error" not in said
    assert "Traceback" not in said
    assert (tmp_path / "rain-7-stream.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        ((), 2, "there is no prompt"),
        ((" ",), 2, "the prompt is empty"),
        (("x", "-o", "-", "--format", "flac"), 2, "standard output is wav or raw"),
        (("x", "-o", "a.wav"), 2, "a.wav is no folder"),
        (("x", "-o", "radio", "--format", "raw"), 2, ".raw"),
        (("x", "-o", "radio", "--minutes", "0"), 2, "minutes must be above 0"),
        (("x", "-o", "radio", "--overlap", "99"), 2, "overlap 99 s leaves nothing"),
        (("x", "--format", "wav"), 2, "the stream is played"),
        (("x", "-o", "radio", "--model", "musicgen-small"), 2, "MusicGen cannot stream"),
        (("x", "-o", "radio", "--replay", "r.json"), 2, "not a prompt"),
        (("-o", "radio", "--replay", "r.json", "--seed", "1"), 2, "not --seed"),
        (("-o", "radio", "--replay", "r.json", "--guidance", "1"), 2, "not sampling options"),
        (("-o", "radio", "--replay", "r.json"), 2, "there is no file r.json"),
        (("x", "-o", "radio", "--seed", "-1"), 2, "seed must be"),
    ],
    ids=str,
)
def test_what_cannot_be(magnet: Magnet, tmp_path: Path, arguments: tuple[str, ...], code: int, part: str) -> None:
    model = () if "--model" in arguments else MODEL
    one_line_error(magnet("stream", *arguments, *model), code, part)
    assert list(tmp_path.iterdir()) == []
