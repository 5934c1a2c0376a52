"""Audio files that say what is not so, or nothing at all: read for what is there, in bounded memory, and in silence."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from magnet_cli.audio.files import measure_audio, read_audio
from magnet_cli.audio.reading import UNKNOWN_FRAMES, opened
from magnet_cli.audio.riff_info import read_tags
from magnet_cli.errors import UsageError
from magnet_cli.train.data import duration, read_segment
from support.command import Magnet, one_line_error
from support.golden import GOLDEN
from support.memory import run_within

RATE = 32_000
SAMPLES = 3 * RATE
LENGTHS = {"unknown": 0, "endless": (1 << 36) - 1, "too long": SAMPLES + RATE}


def noise(samples: int = SAMPLES, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (samples, channels)).astype(np.float32)


def flac(path: Path, length: int, samples: np.ndarray) -> Path:
    """A FLAC file that says it has so many samples; 0: it does not say. (The last 36 bits of the 8 bytes at 18.)"""
    soundfile.write(path, samples, RATE, format="FLAC")
    content = bytearray(path.read_bytes())
    fields = int.from_bytes(content[18:26], "big")
    content[18:26] = (fields >> 36 << 36 | length).to_bytes(8, "big")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_a_flac_file_of_another_length_is_read_for_what_is_there(tmp_path: Path, length: int) -> None:
    whole = soundfile.read(flac(tmp_path / "a.flac", SAMPLES, noise()), dtype="float32")[0]
    path = flac(tmp_path / "b.flac", length, noise())
    found, rate = read_audio(path)
    assert rate == RATE
    assert np.array_equal(found[0], whole)
    assert measure_audio(path) == (1, SAMPLES, RATE, "PCM_16")
    for start in (0.0, 0.5, 2.9):  # its last part is silence
        wanted = np.pad(whole[round(start * RATE) :][: RATE // 2], (0, max(0, round((start - 2.5) * RATE))))
        assert np.array_equal(read_segment(path, start, 0.5, RATE, 1)[0].numpy(), wanted), start
    if length == 0:
        assert soundfile.info(path).frames == UNKNOWN_FRAMES
        assert duration(path) == 3.0


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_a_declared_length_takes_no_memory(tmp_path: Path, length: int) -> None:
    path = flac(tmp_path / "a.flac", length, noise())
    done = run_within(
        30,
        "from pathlib import Path; from magnet_cli.audio.files import read_audio",
        f"print(read_audio(Path({str(path)!r}))[0].shape)",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"(1, {SAMPLES})"


def test_silence_in_many_channels_takes_no_memory_either(tmp_path: Path) -> None:
    """A small file that is long: its samples are 384 MB, and lie in a temporary file."""
    path = tmp_path / "a.flac"
    with soundfile.SoundFile(path, "w", RATE, 8, subtype="PCM_16") as file:
        for _ in range(12):
            file.write(np.zeros((1_000_000, 8), dtype=np.int16))
    assert path.stat().st_size < 400_000
    done = run_within(
        150,
        "from pathlib import Path; from magnet_cli.audio.files import read_audio",
        f"""
        found, rate = read_audio(Path({str(path)!r}))
        print(found.shape, found.any())
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(8, 12000000) False"


def test_more_than_an_hour_is_refused_without_reading_on(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    with soundfile.SoundFile(path, "w", 1_000, 1, subtype="PCM_16") as file:
        file.write(np.zeros(3_601_000, dtype=np.int16))
    with pytest.raises(UsageError, match=r"a\.flac is longer than 3,600 s"):
        read_audio(path)
    with opened(path) as file:
        assert sum(len(block) for block in file.blocks_of(path, math.inf)) == 3_601_000


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF"])
def test_the_containers_that_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.raw"  # the content counts, not the name
    with path.open("wb") as file:
        soundfile.write(file, noise(8_000), RATE, format=kind)
    found, rate = read_audio(path)
    assert rate == RATE
    assert abs(found.shape[1] - 8_000) <= 2 * 1152  # MP3 pads to whole frames
    assert found.any()


@pytest.mark.parametrize("kind", ["SDS", "SVX", "PAF", "MAT5", "IRCAM", "NIST", "VOC", "HTK"])
def test_what_is_not_read_is_refused_by_its_kind(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.wav"
    with path.open("wb") as file:
        soundfile.write(file, noise(8_000), RATE, format=kind, subtype="PCM_16")
    with pytest.raises(UsageError, match=rf"a\.wav is a {kind} file, which magnet does not read") as caught:
        read_audio(path)
    assert "WAV" in caught.value.hint
    assert capfd.readouterr() == ("", "")


def test_nothing_but_json_is_on_stdout(magnet: Magnet, tmp_path: Path) -> None:
    path = tmp_path / "a.sds"
    soundfile.write(path, noise(SAMPLES), RATE, format="SDS", subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = os.urandom(len(content) // 2)  # libsndfile would print "Error A" and the like
    path.write_bytes(content)
    result = magnet("generate", "x", "--continue", str(path), "--json", "--model", str(GOLDEN / "music"))
    one_line_error(result, 2, "a.sds is a SDS file")


def test_damaged_files_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither libsndfile nor a callback of Python in it; whatever comes of them is a UsageError or samples."""
    generator = np.random.default_rng(0)
    for kind in ("AIFF", "WAV", "CAF", "W64", "FLAC", "AU", "OGG"):
        path = tmp_path / f"a.{kind}"
        with path.open("wb") as file:
            soundfile.write(file, noise(2_000), RATE, format=kind)
        whole = path.read_bytes()
        for _ in range(60):
            content = bytearray(whole)
            for place in generator.integers(min(len(whole), 120), size=4):
                content[place] = generator.integers(256)
            path.write_bytes(content[: generator.integers(20, len(content))])
            for call in (read_audio, read_tags):
                try:
                    call(path)  # type: ignore[operator]
                except UsageError:
                    continue
    assert capfd.readouterr() == ("", "")


def test_what_comes_through_a_pipe_is_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(), RATE, subtype="FLOAT")
    os.mkfifo(tmp_path / "pipe")
    content = (tmp_path / "a.wav").read_bytes()
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(content))
    writer.start()
    with opened(tmp_path / "pipe") as file:
        assert sum(len(block) for block in file.blocks_of(tmp_path / "pipe")) == SAMPLES
    writer.join()


def test_too_many_channels_and_impossible_rates_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(10, 65), RATE)
    with pytest.raises(UsageError, match="65 channels"):
        read_audio(tmp_path / "a.wav")
    soundfile.write(tmp_path / "b.wav", noise(10), 1)
    with pytest.raises(UsageError, match="rate of 1 Hz"):
        read_audio(tmp_path / "b.wav")
