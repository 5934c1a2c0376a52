"""`--play`, `magnet play`, and a clip on standard output."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from magnet_cli.audio.riff_info import read_tags
from magnet_cli.playing.pcm import pcm16
from support.command import Magnet, clean_environment, one_line_error
from support.players import install, only_these

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the players here are scripts")

QUICK = ("--steps", "1,1,1,1", "--device", "cpu", "--seed", "7")


def samples(path: str) -> bytes:
    return soundfile.read(path, dtype="int16")[0].astype("<i2").tobytes()


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    only_these(monkeypatch, folder)
    return folder


def test_clips_are_played_when_they_are_written(magnet: Magnet, tiny: str, programs: Path) -> None:
    heard = install(programs, "aplay")
    done = magnet("generate", "x", "-n", "2", "-o", "{seed}.wav", "--model", tiny, "--play", *QUICK)
    assert done.code == 0, done.err
    assert done.out == "7.wav\n8.wav\n"
    assert heard.read_bytes() == samples("7.wav") + samples("8.wav")
    assert "playing 7.wav: 0.30 s" in done.err


def test_of_several_candidates_only_the_one_that_is_written_is_played(
    magnet: Magnet, tiny: str, programs: Path
) -> None:
    heard = install(programs, "aplay")
    best = ("--best-of", "3", "--judge", "likelihood", "-n", "2")
    done = magnet("generate", "x", "-o", "{seed}.wav", "--model", tiny, "--play", *best, *QUICK)
    assert done.code == 0, done.err
    written = done.out.split()
    assert len(written) == 2
    assert heard.read_bytes() == b"".join(samples(path) for path in written)


def test_a_clip_that_cannot_be_played_is_written_and_said(magnet: Magnet, tiny: str, programs: Path) -> None:
    done = magnet("generate", "x", "-o", "a.wav", "--model", tiny, "--play", *QUICK)
    assert (done.code, done.out) == (0, "a.wav\n")
    assert "warning: --play has no effect: no player was found on this machine" in done.err
    install(programs, "aplay", code=1, says="cannot open audio device default\n")
    done = magnet("generate", "x", "-o", "b.wav", "--model", tiny, "--play", *QUICK)
    assert (done.code, done.out) == (0, "b.wav\n")
    assert "warning: no player worked (aplay: " in done.err


def test_files_are_played(magnet: Magnet, tiny: str, programs: Path) -> None:
    assert magnet("generate", "x", "-o", "a.flac", "--model", tiny, *QUICK).code == 0
    one_line_error(magnet("play", "a.flac"), 5, "no player was found", "ffmpeg")
    heard = install(programs, "aplay")
    done = magnet("play", "a.flac", "a.json", "-n", "3")
    assert done.code == 0, done.err
    assert heard.read_bytes() == 6 * samples("a.flac")
    one_line_error(magnet("play", "b.wav"), 2, "there is no file b.wav")
    one_line_error(magnet("play", "a.flac", "-n", "0"), 2, "times must be from 1")


# -- standard output --------------------------------------------------------------------------------------------------


def piped(*arguments: str, folder: Path, **named: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "magnet_cli", *arguments]
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        command, cwd=folder, env=clean_environment(), stderr=subprocess.PIPE, timeout=120, check=False, **named
    )


def test_a_clip_goes_to_standard_output_as_the_file_that_it_would_be(magnet: Magnet, tiny: str, tmp_path: Path) -> None:
    done = piped("generate", "x", "-o", "-", "--model", tiny, *QUICK, folder=tmp_path, stdout=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()
    assert "standard output: 0.30 s, seed 7" in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []
    assert magnet("generate", "x", "-o", "a.wav", "--model", tiny, *QUICK).code == 0
    (tmp_path / "piped.wav").write_bytes(done.stdout)
    assert samples("piped.wav") == samples("a.wav")
    record = json.loads(read_tags(tmp_path / "piped.wav")["comment"])
    assert record["codes"] == json.loads(Path("a.json").read_text())["codes"]
    assert soundfile.read(io.BytesIO(done.stdout))[1] == record["sample_rate"]
    assert magnet("replay", "piped.wav", "--check").code == 0


def test_best_of_goes_to_standard_output_too(magnet: Magnet, tiny: str, tmp_path: Path) -> None:
    loop = ("--loop", "--bpm", "240", "--bars", "1", "--best-of", "2")
    done = magnet("generate", "x", "-o", "-", "--model", "bundled", *loop, *QUICK)
    assert done.code == 0, done.err
    assert done.out.startswith("RIFF")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_gone_is_no_error_message(tiny: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "magnet_cli", "generate", "x", "-o", "-", "--model", tiny, "--duration", "20"]
    with subprocess.Popen(
        [*command, *QUICK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment(), cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == b"RIFF"
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert process.wait(60) == 1
    assert "error" not in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--json",), "--json and -o -"),
        (("--save-codes",), "need a file"),
        (("--picture",), "need a file"),
        (("--play",), "need a file"),
        (("-n", "2"), "2 clips"),
        (("--sweep", "guidance=1,2"), "2 clips"),
    ],
)
def test_what_does_not_go_with_standard_output(magnet: Magnet, tiny: str, options: tuple[str, ...], part: str) -> None:
    one_line_error(magnet("generate", "x", "-o", "-", "--model", tiny, *options, *QUICK), 2, part)


def test_a_terminal_gets_no_audio(magnet: Magnet, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    one_line_error(magnet("generate", "x", "-o", "-", "--model", tiny, *QUICK), 2, "not written to a terminal", "aplay")


def test_again_writes_there_too(magnet: Magnet, tiny: str, tmp_path: Path) -> None:
    assert magnet("generate", "x", "-o", "a.wav", "--model", tiny, *QUICK).code == 0
    done = piped("again", "a.wav", "--seed", "7", "-o", "-", "--device", "cpu", folder=tmp_path, stdout=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()
    sound = soundfile.read(io.BytesIO(done.stdout), dtype="float32", always_2d=True)[0].T
    assert pcm16(np.ascontiguousarray(sound)) == samples("a.wav")
