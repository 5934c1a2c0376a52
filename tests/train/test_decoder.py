"""Training the decoder: the reference's loss, overfitting, going on after a kill, adapters, several processes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from magnet_cli.checkpoints.bundle import Model
from magnet_cli.decoding.masked import decode
from magnet_cli.options.sampling import SamplingConfig
from magnet_cli.pipeline.pipeline import Pipeline
from magnet_cli.train.loop.schedule import new_schedule
from magnet_cli.train.options import Optimization
from magnet_cli.train.trainable import Batch, TrainableDecoder
from support.command import Magnet, one_line_error
from support.golden import Golden
from support.tiny_training import SMALL, TEXTS, load, losses

ROOT = Path(__file__).parents[2]


# -- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codebook", [0, 2])
def test_the_loss_is_that_of_the_reference(golden: Golden, codebook: int) -> None:
    # The reference's logits for row 1 of its batch, and its formula: the mean cross-entropy of the hidden codes of the
    # drawn codebook (audiocraft `solvers/magnet.py`), here written out in numpy and float64.
    seen = golden.arrays["fwd_seq"][1:]
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, golden.decoder.config.codes, seen.shape))
    mask = torch.from_numpy(np.random.default_rng(1).random((1, seen.shape[-1])) < 0.4)
    logits = golden.arrays[f"fwd_logits_{codebook}"][1].double().numpy()
    normalizer = np.log(np.exp(logits).sum(-1))
    wanted = (normalizer - logits[np.arange(len(logits)), codes[0, codebook].numpy()])[mask[0].numpy()].mean()

    network = TrainableDecoder(golden.decoder, golden.text.model, train_text=False)
    ids = golden.text.tokenize(golden.prompts[1])
    batch = Batch(codes, seen, mask, codebook, torch.tensor([ids]), [len(ids)])
    with torch.no_grad():
        found = float(network(batch)) / int(mask.sum())
    assert found == pytest.approx(wanted, rel=1e-5)  # the tolerance of the logits themselves, in test_golden


def test_items_without_text_are_trained_as_unconditional(music: Golden) -> None:
    network = TrainableDecoder(music.decoder, music.text.model, train_text=False)
    seen = music.arrays["fwd_seq"]
    mask = torch.ones(2, seen.shape[-1], dtype=torch.bool)
    ids = music.text.tokenize(music.prompts[1])
    with torch.no_grad():
        one, none = (
            float(network(Batch(seen[:1] * 0, seen[:1], mask[:1], 0, *text)))
            for text in ((torch.tensor([ids]), [len(ids)]), (torch.zeros(0, 0, dtype=torch.int64), []))
        )
        both = float(network(Batch(seen[[0, 0]] * 0, seen[[0, 0]], mask, 0, torch.tensor([ids]), [len(ids)])))
    assert one != none
    assert both == pytest.approx(one + none, rel=1e-5)  # sums of a hundred float32


def test_the_schedule_warms_up_and_falls_along_a_cosine() -> None:
    options = Optimization(learning_rate=1e-2, warmup=10, last_rate=0.1)
    schedule = new_schedule(110, options)
    rates = [schedule.rate(step) for step in range(110)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[9] == rates[10] == pytest.approx(1e-2)
    assert rates[60] == pytest.approx(1e-2 * (0.1 + 0.9 * 0.5))
    assert rates[-1] == pytest.approx(1e-3, rel=0.01)  # one step before the end of the cosine


# -- whole trainings --------------------------------------------------------------------------------------------------


def test_a_tiny_decoder_learns_its_clips_by_heart(magnet: Magnet, data: Path, codec: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    result = magnet(
        "train", "decoder", str(data), "-o", str(output), "--codec", str(codec), *SMALL, "--steps", "600",
        "--text-dropout", "0.1", "--max-norm", "1", "--weight-decay", "0", "--ema", "0.9", "--ema-every", "1",
        "--max-period", "60",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.out == f"{output}\n"

    pipeline = load(output)
    assert isinstance(pipeline.source, Model)
    assert pipeline.source.decoder.config.max_period == 60
    greedy = SamplingConfig(steps=(8, 4), greedy=True, guidance=1.0, min_guidance=1.0)
    clips = {clip.job.prompt: clip.codes for clip in pipeline.generate(list(TEXTS), seed=0, sampling=greedy)}
    for index, text in enumerate(TEXTS):
        audio = torch.from_numpy(soundfile.read(data / f"{index}.wav", dtype="float32")[0])
        wanted = pipeline.codec.encode(audio[None, None])[0].numpy()
        same = (clips[text] == wanted[:, : clips[text].shape[1]]).mean()
        assert same > 0.95, text  # chance is 1/16; a code or two of the noise may stay open


def test_a_killed_training_goes_on_along_the_same_curve(data: Path, codec: Path, tmp_path: Path) -> None:
    def command(output: Path) -> list[str]:
        options = [*SMALL, "--steps", "24", "--save-every", "6"]
        return ["-m", "magnet_cli", "train", "decoder", str(data), "-o", str(output), "--codec", str(codec), *options]

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    subprocess.run([sys.executable, *command(straight)], check=True, timeout=120)
    process = subprocess.Popen([sys.executable, *command(killed)])
    state = tmp_path / "killed.run" / "state.pt"
    while not state.is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    subprocess.run([sys.executable, *command(killed)], check=True, timeout=120)
    assert losses(tmp_path / "killed.run") == losses(tmp_path / "straight.run")  # one thread: not a bit differs
    for name in ("decoder.safetensors", "text_encoder/model.safetensors"):
        assert (killed / name).read_bytes() == (straight / name).read_bytes()


def test_ctrl_c_saves_the_state(data: Path, codec: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    arguments = ["train", "decoder", str(data), "-o", str(output), "--codec", str(codec), *SMALL[:-1]]
    process = subprocess.Popen(
        [sys.executable, "-m", "magnet_cli", *arguments, "--steps", "100000"], stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "model.run" / "log.csv"
    while not log.is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "run the same command to resume" in err
    step = torch.load(tmp_path / "model.run" / "state.pt", weights_only=True)["step"]
    assert step == max(losses(tmp_path / "model.run"))
    assert load(output).info.codebooks == 2


def test_two_processes_train_as_one_with_the_same_batch(data: Path, codec: Path, tmp_path: Path) -> None:
    def train(name: str, *launcher: str) -> dict[int, float]:
        arguments = ["-m", "magnet_cli", "train", "decoder", str(data), "-o", str(tmp_path / name)]
        options = ["--codec", str(codec), *SMALL, "--steps", "12"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, *launcher, *arguments, *options], check=True, timeout=200, env=environment)
        return losses(tmp_path / f"{name}.run")

    launcher = shlex.split(
        "-m accelerate.commands.launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no"
    )
    launcher += ["--dynamo_backend", "no", "--num_cpu_threads_per_process", "1", "--main_process_port", "0"]
    one, two = train("one"), train("two", *launcher)
    assert one.keys() == two.keys()
    # Sums in another order, 1e-7 each, which twelve steps of Adam at a high rate let grow.
    assert list(two.values()) == pytest.approx(list(one.values()), rel=1e-3)


def test_adapters_train_and_are_merged(magnet: Magnet, data: Path, codec: Path, tmp_path: Path) -> None:
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    start = magnet("train", "decoder", str(data), "-o", str(base), "--codec", str(codec), *SMALL, "--steps", "3")
    assert start.code == 0, start.err
    options = shlex.split(
        "--steps 40 --batch-size 4 --learning-rate 2e-2 --warmup 2 --log-every 1 --sample-every 0 --cpu -q"
    )
    options += ["--dtype", "float32", "--lora", "4", "--text-dropout", "0"]
    result = magnet("train", "decoder", str(data), "-o", str(tuned), "--from", str(base), *options)
    assert result.code == 0, result.err
    curve = list(losses(tmp_path / "tuned.run").values())
    assert np.mean(curve[-8:]) < np.mean(curve[:8]) - 0.2  # nats; from ln 16 = 2.8
    before, after = load(base).generator.reader.decoder, load(tuned).generator.reader.decoder
    changed = {name for name, one in after.state_dict().items() if not torch.equal(one, before.state_dict()[name])}
    assert "layers.0.up.weight" in changed
    assert not any("norm" in name or "embeddings" in name for name in changed)
    assert torch.equal(
        load(tuned).codec.decoder.model[0].conv.conv.weight,
        load(base).codec.decoder.model[0].conv.conv.weight,
    )


def test_a_released_checkpoint_is_fine_tuned(magnet: Magnet, music: Golden, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "tuned"
    options = shlex.split(
        "--steps 2 --batch-size 2 --warmup 0 --learning-rate 1e-2 --sample-every 2 --cpu -q --dtype float32"
    )
    result = magnet("train", "decoder", str(data), "-o", str(output), "--from", str(music.folder), *options)
    assert result.code == 0, result.err
    tuned = load(output)
    assert not torch.equal(tuned.generator.reader.decoder.layers[0].up.weight, music.decoder.layers[0].up.weight)
    assert torch.equal(tuned.generator.reader.text_encoder.model.shared.weight, music.text.model.shared.weight)
    assert len(list((tmp_path / "tuned.run" / "samples").glob("step0000002-*.wav"))) == 4
    memory = tuned.generator.reader.decoder.text_memory(*_states(tuned, "hum"))
    assert decode(tuned.generator.reader.decoder, memory, [0], SamplingConfig(steps=(1, 1, 1, 1)), frames=6).shape == (
        1,
        4,
        6,
    )


def _states(pipeline: Pipeline, prompt: str) -> tuple[torch.Tensor, list[int]]:
    text = pipeline.generator.reader.text_encoder.encode([prompt])
    return text.states, text.lengths


# -- mistakes ---------------------------------------------------------------------------------------------------------


def test_going_on_with_other_options_is_refused(magnet: Magnet, data: Path, codec: Path, tmp_path: Path) -> None:
    arguments = ["train", "decoder", str(data), "-o", str(tmp_path / "m"), "--codec", str(codec), *SMALL]
    assert magnet(*arguments, "--steps", "2").code == 0
    one_line_error(magnet(*arguments, "--steps", "1"), 2, "has 2 steps, not 1", "--restart")
    one_line_error(
        magnet(*arguments, "--steps", "2", "--weight-decay", "0.3"), 2, "weight_decay 0.1, not 0.3", "--restart"
    )
    assert magnet(*arguments, "--steps", "3", "--restart").code == 0
    assert list(losses(tmp_path / "m.run")) == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--from or --codec"),
        (["--from", "x", "--codec", "y"], "--from or --codec"),
        (["--codec", "nowhere"], "describes no codec"),
        (["--from", "nowhere", "--task", "speech"], "unknown task"),
        (["--from", "nowhere", "--batch-size", "0"], "batch size must be at least 1"),
        (["--from", "nowhere", "--steps", "-1"], "must not be negative"),
        (["--from", "nowhere", "--codebook-shares", "1,x"], "--codebook-shares"),
        (["--codec", "nowhere", "--max-period", "1"], "longest period must be above 1"),
    ],
)
def test_what_cannot_work_is_said(magnet: Magnet, data: Path, tmp_path: Path, options: list[str], words: str) -> None:
    result = magnet("train", "decoder", str(data), "-o", str(tmp_path / "m"), *options)
    assert result.code in (2, 3)
    one_line_error(result, result.code, words)


def test_without_accelerate_the_remedy_is_named(
    magnet: Magnet, data: Path, codec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    result = magnet("train", "decoder", str(data), "-o", str(tmp_path / "m"), "--codec", str(codec), *SMALL)
    one_line_error(result, 1, "accelerate", "pip install '.[train]' in a clone")


def test_low_precision_trains_and_keeps_its_weights_exact(data: Path, codec: Path, tmp_path: Path) -> None:
    # A process of its own: accelerate keeps a process to its first precision.
    arguments = ["train", "decoder", str(data), "-o", str(tmp_path / "m"), "--codec", str(codec), *SMALL]
    command = [sys.executable, "-m", "magnet_cli", *arguments, "--steps", "3", "--precision", "bfloat16"]
    subprocess.run(command, check=True, timeout=120)
    state = torch.load(tmp_path / "m.run" / "state.pt", weights_only=True)["trainer"]["network"]
    weight = state["decoder.layers.0.up.weight"]
    assert weight.dtype == torch.float32
    assert not torch.equal(weight, weight.bfloat16().float())
