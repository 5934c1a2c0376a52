"""The form of what is written: sample rate, bits, MP3, and what is kept or lost of an input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from magnet_cli.audio import formats
from magnet_cli.audio.files import encode_audio
from magnet_cli.errors import UsageError
from support.closure import closure
from support.command import Magnet, one_line_error
from support.golden import GOLDEN

MUSIC = str(GOLDEN / "music")  # clips of 2 s, mono at 32 kHz
QUICK = ("--model", MUSIC, "--device", "cpu", "--steps", "2,1,1,1", "--seed", "1", "--force")


def made(magnet: Magnet, path: str, *options: str) -> tuple[dict[str, Any], str]:
    result = magnet("generate", "rock", "-o", path, "--json", *QUICK, *options)
    assert result.code == 0, result.err
    return dict(result.records[0]), result.err


def stereo(path: str, subtype: str = "PCM_24", rate: int = 44_100) -> None:
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (rate * 3 // 2, 2)), rate, subtype=subtype)


@pytest.mark.parametrize("rate", [44_100, 48_000, 16_000])
@pytest.mark.parametrize("extension", ["wav", "flac"])
def test_rate_and_bits_of_what_is_written(magnet: Magnet, rate: int, extension: str) -> None:
    own, _ = made(magnet, "own.wav")
    record, _ = made(magnet, f"x.{extension}", "--sample-rate", str(rate), "--subtype", "pcm24")
    info = soundfile.info(f"x.{extension}")
    assert (info.samplerate, info.subtype) == (rate, "PCM_24")
    assert info.frames == -(-soundfile.info("own.wav").frames * rate // 32_000)
    assert record["sample_rate"] == rate
    assert record["codes"] == own["codes"]
    assert record["lufs"] == pytest.approx(-14, abs=0.5)
    assert record["true_peak"] <= -1
    assert magnet("replay", f"x.{extension}", "--device", "cpu").code == 0
    assert Path(f"x-replay.{extension}").is_file()
    again = soundfile.read(f"x-replay.{extension}")
    assert np.array_equal(again[0], soundfile.read(f"x.{extension}")[0])


def test_a_loop_at_another_rate_is_exact_and_closes(magnet: Magnet) -> None:
    ranks = []
    for seed in range(4):
        made(magnet, "x.wav", "--loop", "--bpm", "130", "--sample-rate", "44100", "--seed", str(seed))
        waveform, rate = soundfile.read("x.wav", dtype="float32", always_2d=True)
        assert len(waveform) == round(240 / 130 * 44_100)
        ranks.append(closure(waveform.T, rate).seam_jump)
    assert min(ranks) < 0.95  # as in test_edits.test_a_loop_closes_where_a_clip_does_not


@pytest.mark.parametrize("rate", [0, 11_000, 44_101])
def test_rates_that_nobody_has(magnet: Magnet, rate: int) -> None:
    one_line_error(
        magnet("generate", "x", "--sample-rate", str(rate), *QUICK), 2, "sample-rate must be one of", "44100"
    )


# -- inputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subtype", "extension", "expected"),
    [
        ("PCM_24", "wav", "PCM_24"),
        ("PCM_24", "flac", "PCM_24"),
        ("PCM_16", "wav", "PCM_16"),
        ("FLOAT", "wav", "FLOAT"),
        ("FLOAT", "flac", "PCM_24"),
    ],
)
def test_the_sample_format_is_the_inputs(magnet: Magnet, subtype: str, extension: str, expected: str) -> None:
    stereo("in.wav", subtype)
    edit = ("--inpaint", "in.wav", "--region", "0.5:1")
    record, _ = made(magnet, f"x.{extension}", *edit)
    assert soundfile.info(f"x.{extension}").subtype == expected
    assert record["output"]["subtype"] == {"PCM_16": "pcm16", "PCM_24": "pcm24", "FLOAT": "float32"}[expected]
    made(magnet, "y.wav", *edit, "--subtype", "pcm16")
    assert soundfile.info("y.wav").subtype == "PCM_16"
    made(magnet, "z.wav")
    assert soundfile.info("z.wav").subtype == "PCM_16"


@pytest.mark.parametrize(
    ("options", "keeping", "rate"),
    [
        (("--inpaint", "in.wav", "--region", "0.5:1"), "--blend", 44_100),
        (("--continue", "in.wav", "--keep", "0.5"), "--join", 44_100),
    ],
)
def test_what_is_lost_is_said_and_how_to_keep_it(
    magnet: Magnet, options: tuple[str, ...], keeping: str, rate: int
) -> None:
    stereo("in.wav")
    _, said = made(magnet, "x.wav", *options)
    line = f"in.wav has 2 channels at 44,100 Hz, the clip 1 channel at 32,000 Hz: {keeping} keeps both"
    assert said.count(line) == 1
    _, said = made(magnet, "y.wav", *options, keeping)
    assert "channel" not in said
    info = soundfile.info("y.wav")
    assert (info.channels, info.samplerate, info.subtype) == (2, rate, "PCM_24")


def test_a_rate_alone_can_be_kept(magnet: Magnet) -> None:
    soundfile.write("in.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 66_150), 44_100)
    edit = ("--inpaint", "in.wav", "--region", "0.5:1")
    _, said = made(magnet, "x.wav", *edit)
    assert "--blend keeps it, --sample-rate 44100 writes that rate" in said
    _, said = made(magnet, "x.wav", *edit, "--sample-rate", "44100")
    assert "channel" not in said
    assert soundfile.info("x.wav").frames == 66_150


def test_a_batch_keeps_what_its_inputs_have(magnet: Magnet) -> None:
    stereo("in.wav")
    Path("rows.csv").write_text("prompt,inpaint,region\nrock,in.wav,0.5:1\nplain,,\n")
    arguments = ("batch", "rows.csv", "-o", "clips", "--model", MUSIC, "--device", "cpu", "--steps", "2,1,1,1")
    result = magnet(*arguments, "--seed", "1")
    assert result.code == 0, result.err
    assert [soundfile.info(path).subtype for path in sorted(result.out.split())] == ["PCM_24", "PCM_16"]
    again = magnet(*arguments, "--seed", "1")
    assert again.out == ""  # nothing is left to do


def test_records_and_batches_of_versions_without_a_rate_are_read(magnet: Magnet) -> None:
    record, _ = made(magnet, "x.wav")
    del record["output"]["sample_rate"]
    old = {name: value for name, value in record.items() if not name.endswith("path")}
    Path("old.json").write_text(json.dumps(old))
    assert magnet("replay", "old.json", "--check", "--device", "cpu").out == "same\n"


# -- MP3 --------------------------------------------------------------------------------------------------------------


def test_an_mp3_file_sounds_as_the_clip_and_can_be_made_again(magnet: Magnet) -> None:
    if "MP3" not in soundfile.available_formats():
        pytest.skip("this libsndfile writes no MP3")
    made(magnet, "x.wav")
    result = magnet("generate", "rock", "-o", "x.mp3", *QUICK)
    assert result.code == 0, result.err
    info, wave = soundfile.info("x.mp3"), soundfile.read("x.wav")[0]
    assert (info.format, info.samplerate) == ("MP3", 32_000)
    heard = soundfile.read("x.mp3")[0]
    assert abs(len(heard) - len(wave)) < 2_500  # a few frames of 1,152 samples
    assert Path("x.json").is_file()
    Path("x.json").unlink()
    assert "rock" in magnet("info", "x.mp3").out
    assert magnet("replay", "x.mp3", "--check", "--device", "cpu").out == "same\n"
    looped = magnet("generate", "rock", "-o", "loop.mp3", "--loop", *QUICK)
    assert "a loop is seamless as .wav or .flac" in looped.err
    one_line_error(magnet("generate", "x", "-o", "y.mp3", "--sample-rate", "96000", *QUICK), 2, "cannot have 96000 Hz")


def test_a_libsndfile_without_mp3_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": "WAV"})
    with pytest.raises(UsageError, match=r"cannot write .*x\.mp3: libsndfile .* cannot write MP3"):
        encode_audio(tmp_path / "x.mp3", np.zeros((1, 100), np.float32), 32_000, "pcm16")
    formats.check_format(tmp_path / "x.wav", "pcm16")


def test_accents_in_the_tags_of_an_mp3_file(tmp_path: Path) -> None:
    if "MP3" not in soundfile.available_formats():
        pytest.skip("this libsndfile writes no MP3")
    path = tmp_path / "x.mp3"
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 32_000)).astype(np.float32)
    path.write_bytes(encode_audio(path, sound, 32_000, "pcm16", tags={"title": "café 🎵", "comment": "x"}))
    with soundfile.SoundFile(path) as file:
        assert file.title.strip() == "cafe"
        assert file.comment == "x"
