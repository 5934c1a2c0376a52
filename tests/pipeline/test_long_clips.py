"""Clips longer than what is worked on at once: the same sound as of one piece, on disk, or refused before any work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from magnet_cli import Job, OutputConfig, Pipeline, RuntimeConfig, SamplingConfig
from magnet_cli.audio import blocks
from magnet_cli.audio.loudness import measure
from magnet_cli.errors import OutputError
from magnet_cli.model.codec import PIECE
from magnet_cli.options.edit import EditConfig
from support.command import Magnet, one_line_error
from support.golden import GOLDEN

QUICK = SamplingConfig(steps=(1, 1, 1, 1))
LONG = 31.0  # seconds: more than a piece of the codec
RATE = 32_000


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load(str(GOLDEN / "music"), RuntimeConfig(device="cpu", dtype="float32", batch_size=3))


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "in.wav"
    soundfile.write(path, 0.3 * np.random.default_rng(0).uniform(-1, 1, (3 * 44_100, 2)), 44_100, subtype="FLOAT")
    return str(path)


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything lies in temporary files; blocks are half a second long."""
    monkeypatch.setattr(blocks, "IN_MEMORY", 1_000)
    monkeypatch.setattr(blocks, "BLOCK", 16_000)
    return


def test_a_long_clip_is_what_the_network_makes_of_its_codes(pipeline: Pipeline) -> None:
    output = OutputConfig(normalize="none")
    (clip,) = pipeline.generate("x", seed=1, sampling=QUICK, edit=EditConfig(duration=LONG), output=output)
    assert clip.codes.shape[1] == LONG * 50 > PIECE
    codec, codes = pipeline.codec, torch.from_numpy(clip.codes.astype(np.int64)).unsqueeze(0)
    with torch.inference_mode():
        whole = codec.decoder(codec.quantizer.vq.decode(codes.transpose(0, 1)))[0].numpy()
    assert clip.waveform.shape == whole.shape
    assert np.abs(clip.waveform - whole).max() < 1e-6  # float32, summed in another order


@pytest.mark.usefixtures("on_disk")
def test_edits_and_batches_on_disk(pipeline: Pipeline, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    edits = [
        EditConfig(duration=2.99),
        EditConfig(duration=0.5),
        EditConfig(loop=True, duration=1),
        EditConfig(continue_from=file, join=True, duration=3),
        EditConfig(inpaint=file, regions=("0.5:1.5",), blend=True),
        EditConfig(inpaint=file, vary=0.3),
    ]
    jobs = [Job("x", seed, QUICK, edit) for edit in edits for seed in range(2)]
    found = list(pipeline.generate(jobs))
    assert all(isinstance(clip.waveform, np.memmap) for clip in found if not clip.job.edit.loop)
    monkeypatch.undo()
    for clip, wanted in zip(found, pipeline.generate(jobs), strict=True):
        assert np.array_equal(clip.codes, wanted.codes)
        assert clip.waveform.shape == wanted.waveform.shape
        # The search for a gain ends within 0.1 LU, and need not end at the same one.
        assert np.abs(clip.waveform - wanted.waveform).max() < 0.02 * np.abs(wanted.waveform).max()
        if not clip.job.edit.loop:  # whose level is that of many rounds
            assert measure(clip.waveform, clip.sample_rate).lufs == pytest.approx(clip.audio.after.lufs, abs=1e-6)


@pytest.mark.usefixtures("on_disk")
def test_without_room_nothing_is_begun(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    steps: list[object] = []
    with pytest.raises(OutputError, match="temporary file") as caught:
        next(
            pipeline.generate(
                "x",
                seed=1,
                sampling=QUICK,
                edit=EditConfig(duration=LONG),
                on_step=lambda progress, jobs: steps.append(progress),
            )
        )
    assert "TMPDIR" in caught.value.hint
    assert steps == []


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize("extension", [".wav", ".flac", ".ogg"])
def test_the_command_writes_and_decodes_them(magnet: Magnet, tmp_path: Path, extension: str) -> None:
    model = ("--model", str(GOLDEN / "music"), "--device", "cpu")
    quick = ("--steps", "1,1,1,1", "--duration", "5", "--seed", "1", "--normalize", "none", "--save-codes")
    name = f"a{extension}"
    result = magnet("generate", "x", "-o", name, *quick, *model, "--json")
    assert result.code == 0, result.err
    samples, rate = soundfile.read(tmp_path / name)
    assert (rate, samples.shape) == (RATE, (5 * RATE,))
    assert magnet("info", name).code == 0
    assert magnet("decode", "a.codes.npz", "-o", "b.wav", "--model", str(GOLDEN / "music")).code == 0
    if extension == ".wav":
        assert np.array_equal(soundfile.read(tmp_path / "b.wav")[0], samples)


@pytest.mark.usefixtures("on_disk")
def test_the_command_refuses_what_has_no_room(magnet: Magnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    model = ("--model", str(GOLDEN / "music"), "--device", "cpu", "--steps", "1,1,1,1")
    result = magnet("generate", "x", "-o", "a.wav", "--duration", str(LONG), *model)
    one_line_error(result, 7, "temporary file", "TMPDIR")
    assert list(tmp_path.iterdir()) == []
