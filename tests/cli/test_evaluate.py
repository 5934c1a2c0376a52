"""`magnet evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from magnet_cli import Comparison, Pipeline, evaluate
from magnet_cli.audio.files import write_audio
from magnet_cli.errors import UsageError
from support.command import Magnet, one_line_error
from support.drums import FOUR_ON_THE_FLOOR, RATE, rhythm


def write(path: Path, waveform: np.ndarray, rate: int = RATE) -> None:
    path.parent.mkdir(exist_ok=True)
    write_audio(path, waveform.astype(np.float32), rate, "pcm16", overwrite=False)


def noise(seconds: float, channels: int = 1, rate: int = RATE) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal((channels, round(seconds * rate)))


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A rhythm of 125 bpm with its text, noise in stereo at another rate, and silence."""
    folder = tmp_path / "clips"
    write(folder / "beat.wav", rhythm(FOUR_ON_THE_FLOOR, 125.0) * 0.5)
    (folder / "beat.txt").write_text("disco, 125 bpm")
    write(folder / "noise.flac", noise(2.0, 2, 44_100), 44_100)
    write(folder / "silence.wav", np.zeros((1, RATE)))
    return folder


def test_a_table_of_clips_and_one_of_means(magnet: Magnet, clips: Path) -> None:
    result = magnet("evaluate", str(clips), "--metrics", "tempo,tempo_right,silence,lufs,stereo_width")
    assert result.code == 0, result.err
    lines = [line.split() for line in result.out.splitlines()]
    assert lines[0] == ["file", "bpm", "right", "tempo", "silent", "LUFS", "width"]
    assert lines[1][:4] == ["beat.wav", "125.0", "100.0", "%"]
    assert lines[2][:3] == ["noise.flac", "-", "-"]
    assert lines[3][3:] == ["100.0", "%", "-", "0.00"]
    assert ["tempo_right", "100.0", "%", "-", "1"] in lines
    assert "silence.wav is silent" in result.err


def test_json_has_every_clip_and_a_summary(magnet: Magnet, clips: Path) -> None:
    result = magnet("evaluate", str(clips), "--json")
    assert result.code == 0, result.err
    beat, noise, silence, last = result.records
    assert beat["prompt"] == "disco, 125 bpm"
    assert beat["tempo_asked"] == [[125.0, 125.0]]
    assert (noise["sample_rate"], noise["channels"]) == (44_100, 2)
    assert (silence["lufs"], silence["silence"], silence["repetition"]) == (None, 1.0, None)
    assert "likelihood" not in beat
    summary = last["summary"]
    assert summary["clips"] == 3
    assert summary["lufs"]["count"] == 2
    assert summary["lufs"]["mean"] == pytest.approx((beat["lufs"] + noise["lufs"]) / 2)
    assert summary["lufs"]["low"] <= summary["lufs"]["mean"] <= summary["lufs"]["high"]
    assert magnet("evaluate", str(clips), "--json").out == result.out  # the intervals, too


def test_what_a_model_measures(magnet: Magnet, tiny: str) -> None:
    model = ("--model", tiny, "--device", "cpu")
    made = magnet("generate", "disco beat", "rain", "-o", "clips/", *model, "--steps", "2,1,1,1", "--seed", "1", "-q")
    assert made.code == 0, made.err
    write(Path("clips/other.wav"), noise(0.5, 2, 44_100), 44_100)
    result = magnet("evaluate", "clips", *model, "--json", "--metrics", "likelihood,silence")
    assert result.code == 0, result.err
    assert "1 of 3 clips have no known prompt" in result.err
    scores = [one["likelihood"] for one in result.records[:3]]
    assert [one is None for one in scores] == [False, False, True]
    Path("p.csv").write_text("path,prompt\nother.wav,rain\n")
    named = magnet("evaluate", "clips/other.wav", "--prompts", "p.csv", *model, "--json")
    assert isinstance(named.records[0]["likelihood"], float)
    assert named.records[0]["prompt"] == "rain"


def test_clips_that_cannot_be_measured_are_named(magnet: Magnet, clips: Path) -> None:
    (clips / "text.wav").write_text("no audio")
    write(clips / "short.wav", noise(0.02))
    result = magnet("evaluate", str(clips), "--json")
    assert result.code == 8
    assert "short.wav was not measured: the clip lasts 0.020 s; at least 0.1 s are needed" in result.err
    assert "text.wav was not measured: " in result.err
    assert result.err.splitlines()[-1] == "error: 2 of 5 clips could not be measured. See the warnings above."
    assert result.records[-1]["summary"]["clips"] == 3
    one_line_error(magnet("evaluate", str(clips / "text.wav")), 2, "is not an audio file")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("nowhere",), "there is no file or folder nowhere"),
        (("clips", "--metrics", "loudness"), "unknown measure 'loudness'"),
        (("clips", "--metrics", "likelihood"), "the measure likelihood needs a model"),
        (("clips", "--model", "musicgen-small"), "is a MusicGen"),
        (("clips", "--prompts", "p.csv"), "belong to none of the 3 clips"),
    ],
)
def test_what_cannot_be(magnet: Magnet, clips: Path, options: tuple[str, ...], part: str) -> None:
    Path("p.csv").write_text("path,prompt\nx.wav,rain\n")
    one_line_error(magnet("evaluate", *options), 2, part)


# -- two sets ---------------------------------------------------------------------------------------------------------


def test_two_sets_are_compared_pair_by_pair(magnet: Magnet, tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "a" / f"{number}.wav", noise(1.0) * (0.5 + number / 4))
        write(tmp_path / "b" / f"{number}.flac", noise(1.0) * (0.5 + number / 4) / 2)
    write(tmp_path / "a" / "more.wav", noise(1.0))
    result = magnet("evaluate", "a", "--against", "b", "--metrics", "lufs,silence", "--json")
    assert result.code == 0, result.err
    assert "clips without a partner were left out: 1 of the first set, 0 of the other" in result.err
    last = result.records[-1]["differences"]
    assert last["pairs"] == 4
    # Each pair differs by the same 6.02 dB, which the interval shows although the clips themselves differ by more.
    assert last["lufs"]["mean"] == pytest.approx(6.02, abs=0.02)
    assert last["lufs"]["high"] - last["lufs"]["low"] < 0.02  # rounding to 16 bits
    assert result.records[0]["path"].endswith("0.wav")
    table = magnet("evaluate", "a", "--against", "b", "--metrics", "lufs,silence")
    assert ["lufs", "6.0", "6.0", "to", "6.0", "4"] in [line.split() for line in table.out.splitlines()]


def test_pairs_by_prompt_where_names_differ(tmp_path: Path) -> None:
    for folder, names in (("a", "xyz"), ("b", "uvw")):
        for name, text in zip(names, ("rock", "rock", "jazz"), strict=True):
            write(tmp_path / folder / f"{name}.wav", noise(1.0))
            (tmp_path / folder / f"{name}.txt").write_text(text)
    first, second = (evaluate(tmp_path / name, metrics=["lufs"]) for name in "ab")
    found = first.against(second)
    assert isinstance(found, Comparison)
    assert [(one.clip.name, other.clip.name) for one, other in found.pairs] == [
        ("x.wav", "u.wav"), ("y.wav", "v.wav"), ("z.wav", "w.wav"),
    ]  # fmt: skip
    assert found.differences("lufs") == [0.0, 0.0, 0.0]
    (tmp_path / "c").mkdir()
    write(tmp_path / "c" / "other.wav", noise(1.0))
    with pytest.raises(UsageError, match="no clip of one set"):
        first.against(evaluate(tmp_path / "c", metrics=["lufs"]))


# -- Python -----------------------------------------------------------------------------------------------------------


def test_from_python(tmp_path: Path, tiny: str) -> None:
    pipeline = Pipeline.load(tiny, device="cpu")
    clip = pipeline.generate_one("disco beat", seed=1, steps=(2, 1, 1, 1))
    clip.save(tmp_path / "x.wav")
    found = evaluate(str(tmp_path / "x.wav"), pipeline=pipeline)
    assert found.failed == []
    assert found.summary["likelihood"] is not None
    direct = pipeline.text_likelihood(pipeline.encode(clip.waveform, clip.sample_rate), "disco beat")
    # The file has 16 bits, which may change a code that lies between two.
    assert found.clips[0].scores["likelihood"] == pytest.approx(direct, abs=0.05)
    assert isinstance(pipeline.text_likelihood(clip.codes, "disco beat"), float)
    long = np.tile(clip.codes, (1, 5))  # longer than a clip of this model
    assert isinstance(pipeline.text_likelihood(long, "disco beat"), float)
    with pytest.raises(UsageError, match=r"codes are \[4, T\]"):
        pipeline.text_likelihood(clip.codes[:2], "disco beat")
    with pytest.raises(UsageError, match="must be between 0 and"):
        pipeline.text_likelihood(clip.codes + 10_000, "disco beat")
    with pytest.raises(UsageError, match="less than one span"):
        pipeline.text_likelihood(clip.codes[:, :1], "disco beat")


def test_json_of_a_missing_value_is_null(magnet: Magnet, clips: Path) -> None:
    out = magnet("evaluate", str(clips / "silence.wav"), "--json", "--metrics", "lufs").out
    assert json.loads(out.splitlines()[-1]) == {"summary": {"clips": 1, "lufs": None}}


# -- against a reference -----------------------------------------------------------------------------------------------


def test_distances_to_a_reference(magnet: Magnet, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for number in range(10):
        loud = 0.1 * random.standard_normal((1, 5 * RATE))
        dull = np.cumsum(0.01 * random.standard_normal((1, 5 * RATE)), axis=1) % 0.5
        for folder, sound in (
            ("reference", loud),
            ("same", 0.1 * random.standard_normal((1, 5 * RATE))),
            ("dull", dull),
        ):
            write(tmp_path / folder / f"{number}.wav", sound)
    found = {}
    for name in ("same", "dull"):
        result = magnet("evaluate", name, "--reference", "reference", "--metrics", "silence", "--json")
        assert result.code == 0, result.err
        found[name] = result.records[-1]["summary"]["reference"]
    assert (found["same"]["embeddings"], found["same"]["dimensions"]) == (50, 44)
    assert found["same"]["frechet"] < found["dull"]["frechet"]
    assert abs(found["same"]["kernel"]) < 0.05 < found["dull"]["kernel"]
    assert found["same"]["frechet_infinite"] is None
    assert "an extrapolation in 44 dimensions needs 440 embeddings, and there are 50" in result.err
    table = magnet("evaluate", "same", "--reference", "reference", "--metrics", "silence").out
    assert "distance to the reference  spectrum" in table
    few = magnet("evaluate", "same/0.wav", "--reference", "reference", "--metrics", "silence", "--json")
    assert few.code == 0
    assert few.records[-1]["summary"]["reference"]["frechet"] is None
    assert "needs more than 44 embeddings, and there are 5: the covariance of fewer is singular" in few.err


def test_a_reference_that_cannot_be(magnet: Magnet, clips: Path) -> None:
    write(clips.parent / "short.wav", noise(0.5))
    one_line_error(magnet("evaluate", "clips", "--reference", "nowhere"), 2, "there is no file or folder nowhere")
    both = magnet("evaluate", "clips", "--reference", "clips", "--against", "clips")
    one_line_error(both, 2, "--against and --reference cannot be combined")
    short = magnet("evaluate", "clips", "--reference", "short.wav", "--metrics", "silence")
    one_line_error(short, 2, "none of the clips has an embedding")
