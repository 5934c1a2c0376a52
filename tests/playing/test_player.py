"""Players: each gets the samples in the form that it takes; one that fails makes way for the next."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from magnet_cli.errors import DeviceError
from magnet_cli.playing import player as module
from magnet_cli.playing.pcm import endless_wav_header, pcm16
from magnet_cli.playing.player import PROGRAMS, Program, play, start_stream
from support.players import install, only_these

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs here are scripts")

RATE = 8_000
SOUND = np.random.default_rng(0).uniform(-1, 1, (2, 5_000)).astype(np.float32)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    only_these(monkeypatch, folder)
    return folder


@pytest.mark.parametrize("name", [one.name for one in PROGRAMS if one.takes == "raw"])
def test_a_program_gets_raw_samples_and_their_form(programs: Path, name: str) -> None:
    heard = install(programs, name)
    assert play(SOUND, RATE) == name
    assert heard.read_bytes() == pcm16(SOUND)
    words = (programs / f"{name}.arguments").read_text()
    assert "8000" in words
    assert "2" in words.replace("8000", "")


def test_ffplay_gets_a_wav_stream(programs: Path, tmp_path: Path) -> None:
    heard = install(programs, "ffplay")
    assert play(SOUND, RATE, times=3) == "ffplay"
    content = heard.read_bytes()
    assert content == endless_wav_header(2, RATE) + 3 * pcm16(SOUND)
    (tmp_path / "stream.wav").write_bytes(content)
    samples, rate = soundfile.read(tmp_path / "stream.wav", dtype="int16")
    assert rate == RATE
    assert samples.astype("<i2").tobytes() == 3 * pcm16(SOUND)


def test_afplay_gets_a_file(programs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.wav"
    programs.mkdir(exist_ok=True)
    program = programs / "afplay"
    program.write_text(f"#!{sys.executable}\nimport shutil, sys\nshutil.copy(sys.argv[1], {str(copy)!r})\n")
    program.chmod(0o755)
    assert play(SOUND, RATE) == "afplay"
    assert soundfile.read(copy, dtype="int16")[0].astype("<i2").tobytes() == pcm16(SOUND)
    with pytest.raises(DeviceError, match="plays files only"):
        start_stream(2, RATE)


def test_samples_are_whole_numbers_and_clipped() -> None:
    sound = np.array([[0.0, 1.0, -1.0, 2.0], [0.5, -0.5, 1 / 32768, -3.0]], np.float32)
    found = np.frombuffer(pcm16(sound), "<i2").reshape(-1, 2).T
    assert found.tolist() == [[0, 32767, -32768, 32767], [16384, -16384, 1, -32768]]


def test_a_player_that_fails_makes_way_for_the_next(programs: Path) -> None:
    install(programs, "paplay", code=1, says="Connection failure: Connection refused\n")
    heard = install(programs, "aplay")
    assert play(SOUND, RATE) == "aplay"
    assert heard.read_bytes() == pcm16(SOUND)
    playback, name = start_stream(1, RATE)
    assert name == "aplay"
    playback.write(SOUND[:1])
    playback.finish()
    assert heard.read_bytes().endswith(pcm16(SOUND[:1]))


def test_what_failed_is_said(programs: Path) -> None:
    install(programs, "paplay", code=1, says="Connection failure: Connection refused\n")
    install(programs, "aplay", code=1)
    with pytest.raises(DeviceError) as error:
        play(np.zeros((1, 10**6), np.float32), RATE)  # more than a pipe holds
    assert "paplay: Connection failure: Connection refused" in error.value.message or "ended before" in str(error.value)
    assert "aplay" in error.value.message


def test_without_a_player_a_remedy_is_named(programs: Path) -> None:
    with pytest.raises(DeviceError, match=r"no player was found.*alsa-utils.*\[play\]"):
        play(SOUND, RATE)


def test_stopping_ends_the_program(programs: Path) -> None:
    install(programs, "aplay")
    playback, _ = start_stream(1, RATE)
    playback.write(SOUND[:1])
    playback.stop()
    playback.stop()


def test_the_library_is_used_where_there_is_no_program(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bytes] = []
    stream = SimpleNamespace(start=lambda: None, write=heard.append, stop=lambda: None, close=lambda: None)
    form: list[dict[str, object]] = []

    def opened(**given: object) -> SimpleNamespace:
        form.append(given)
        return stream

    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(RawOutputStream=opened))
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    assert play(SOUND, RATE) == "sounddevice"
    assert b"".join(heard) == pcm16(SOUND)
    assert form == [{"samplerate": RATE, "channels": 2, "dtype": "int16"}]


def test_a_library_without_a_device_is_a_failure(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(**given: object) -> None:
        raise OSError("PortAudio library not found")

    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(RawOutputStream=opened))
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    with pytest.raises(DeviceError, match="PortAudio library not found"):
        play(SOUND, RATE)


def test_names_are_those_of_programs() -> None:
    assert [one.name for one in PROGRAMS] == ["paplay", "aplay", "play", "ffplay", "afplay"]
    assert all(isinstance(one, Program) for one in PROGRAMS)
