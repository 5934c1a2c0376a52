"""What people do with trainings: look before, hold files out, repeat, extend, stop."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from magnet_cli.cli.train import _done
from magnet_cli.terminal.console import Console
from magnet_cli.train.codec_folder import read_codec_folder
from magnet_cli.train.loop.events import HeldOut, Outcome
from magnet_cli.train.loop.run import Best, measure
from magnet_cli.train.options import Places
from support.command import Magnet, one_line_error
from support.tiny_training import RATE, SMALL, load, losses

TINY_CODEC = shlex.split(
    "--sample-rate 8000 --ratios 8,5,5,2 --filters 2 --dimension 8 --lstm 0 --codebooks 2 --codes 16 --batch-size 4 "
    "--discriminator-filters 2 --log-every 1 --sample-every 0 --cpu"
)
LOUD = [option for option in SMALL if option != "-q"]


def decoder(data: Path, codec: Path, output: Path, *options: str) -> list[str]:
    return ["train", "decoder", str(data), "-o", str(output), "--codec", str(codec), *LOUD, *options]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open() as file:
        return list(csv.DictReader(file))


# -- schedule, repeating, extending -----------------------------------------------------------------------------------


def test_the_schedule_is_said_before_the_steps(magnet: Magnet, data: Path, codec: Path, tmp_path: Path) -> None:
    options = ("--steps", "4", "--warmup", "3")
    result = magnet(*decoder(data, codec, tmp_path / "m", *options))
    assert result.code == 0, result.err
    said = result.err.index("the learning rate rises from 0 to 0.005 over 3 steps, then falls")
    assert said < result.err.index("step 1 of 4")
    assert "warning: 3 of 4 steps are warm-up; give a smaller --warmup" in result.err


def test_a_repeat_is_finished_already(magnet: Magnet, data: Path, codec: Path, tmp_path: Path) -> None:
    arguments = decoder(data, codec, tmp_path / "m", "--steps", "3")
    first = magnet(*arguments)
    assert "already finished" not in first.err
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = magnet(*arguments)
    assert (again.code, again.out) == (0, first.out)
    assert "already finished: this training has done its 3 steps" in again.err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == files


def test_a_finished_training_is_extended_and_killed_alike(data: Path, codec: Path, tmp_path: Path) -> None:
    def train(output: Path, *options: str) -> None:
        command = [sys.executable, "-m", "magnet_cli", *decoder(data, codec, output, "--save-every", "4", *options)]
        subprocess.run(command, check=True, timeout=120, capture_output=True)

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    train(straight, "--steps", "8")
    shutil.copytree(straight, killed)
    shutil.copytree(tmp_path / "straight.run", tmp_path / "killed.run")
    before = losses(tmp_path / "straight.run")
    train(straight, "--steps", "20")
    after = losses(tmp_path / "straight.run")
    assert list(after) == list(range(1, 21))
    assert {step: loss for step, loss in after.items() if step <= 8} == before

    command = [sys.executable, "-m", "magnet_cli", *decoder(data, codec, killed, "--save-every", "4", "--steps", "20")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    log = tmp_path / "killed.run" / "log.csv"
    while max(losses(tmp_path / "killed.run") if log.is_file() else [0]) < 13:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    train(killed, "--steps", "20")
    assert losses(tmp_path / "killed.run") == after
    assert (killed / "decoder.safetensors").read_bytes() == (straight / "decoder.safetensors").read_bytes()
    settings = json.loads((tmp_path / "killed.run" / "settings.json").read_text())
    assert settings["schedule"] == [[0, 8, 10], [8, 20, 10]]


# -- dry runs ---------------------------------------------------------------------------------------------------------


def table(out: str) -> dict[str, str]:
    return {line[:9].strip(): line[10:] for line in out.splitlines()}


def test_a_dry_run_says_what_a_training_needs_and_writes_nothing(
    magnet: Magnet, data: Path, codec: Path, tmp_path: Path
) -> None:
    arguments = decoder(data, codec, tmp_path / "m", "--steps", "8", "--held-out", "0.3", "--learning-rate", "1e-3")
    result = magnet(*arguments, "--dry-run")
    assert result.code == 0, result.err
    assert list(tmp_path.iterdir()) == []
    found = table(result.out)
    assert found["examples"] == "1 file, 2 s of audio, 1 clip of 2.4 s"
    assert found["held out"] == "3 files, 7 s of audio"  # by their names' hashes
    assert found["steps"] == "8, of 4 clips each: every clip is used about 32 times"
    assert found["schedule"].startswith("the learning rate rises from 0 to 0.001 over 10 steps")
    assert "measured" in found["memory"]
    assert "a step (measured)" in found["time"]
    assert "warning: 8 of 8 steps are warm-up" in result.err
    assert result.err.rstrip().endswith("dry run: nothing was written")

    # The sizes, against those of the training itself; files have some kilobytes of names beside the numbers.
    assert magnet(*arguments).code == 0
    for name, path in (("the state", tmp_path / "m.run" / "state.pt"), ("the model", tmp_path / "m")):
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        size = sum(one.stat().st_size for one in files)
        said = found["disk"].split(f"{name} ")[1].split(",")[0]
        expected = float(said.split()[0]) * {"B": 1, "kB": 1e3, "MB": 1e6}[said.split()[1]]
        assert 0.6 * size < expected < 1.1 * size, (said, size)

    more = magnet(*arguments, "--steps", "20", "--dry-run")
    assert table(more.out)["steps"].startswith("12 after 8 that are done, of 4 clips each")


def test_a_dry_run_names_what_is_left_out(magnet: Magnet, data: Path, codec: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    soundfile.write(folder / "unnamed.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "long.wav", np.zeros(int(3.5 * RATE)), RATE)
    soundfile.write(folder / "short.wav", np.zeros(RATE), RATE)
    with (folder / "metadata.jsonl").open("a") as file:
        for name in ("long.wav", "short.wav"):
            file.write("\n" + json.dumps({"file_name": name, "text": "silence"}))
    result = magnet(*decoder(folder, codec, tmp_path / "m", "--steps", "1", "--dry-run"))
    assert "1 s at the ends of files left out: shorter than half a clip" in result.out
    assert "1 file padded with silence: shorter than a clip" in result.out
    assert "1 audio file left out: not named in the metadata" in result.out


def test_a_codecs_dry_run(magnet: Magnet, data: Path, tmp_path: Path) -> None:
    result = magnet("train", "codec", str(data), "-o", str(tmp_path / "c"), *TINY_CODEC, "--steps", "10", "--dry-run")
    assert result.code == 0, result.err
    assert list(tmp_path.iterdir()) == []
    assert table(result.out)["examples"] == "4 files, 10 s of audio"
    assert table(result.out)["schedule"] == "the learning rate stays at 0.0003 until step 10"
    assert "a step (measured)" in table(result.out)["time"]


def test_a_dry_run_downloads_nothing(magnet: Magnet, data: Path, tmp_path: Path) -> None:
    result = magnet(
        "train", "decoder", str(data), "-o", str(tmp_path / "m"), "--from", "magnet-small-10secs", "--dry-run",
        "--cache-dir", str(tmp_path / "cache"),
    )  # fmt: skip
    one_line_error(result, 4, "downloads nothing", "magnet models download magnet-small-10secs")


# -- held-out files ---------------------------------------------------------------------------------------------------


def test_the_loss_on_held_out_files_is_logged_and_the_best_model_kept(
    magnet: Magnet, data: Path, codec: Path, tmp_path: Path
) -> None:
    output = tmp_path / "m"
    options = ("--held-out", "0.3", "--validate-every", "20", "--steps", "60")
    result = magnet(*decoder(data, codec, output, *options))
    assert result.code == 0, result.err
    measured = {int(row["step"]): row for row in rows(tmp_path / "m.run") if row["held_out"]}
    assert list(measured) == [0, 20, 40, 60]
    values = {step: float(row["held_out"]) for step, row in measured.items()}
    parts = [float(measured[60][f"held_out_{index}"]) for index in range(2)]
    assert values[60] == pytest.approx(sum(parts) / 2)
    assert f"step 0: held-out loss {values[0]:.3f}" in result.err

    best = min(values, key=values.__getitem__)
    assert f"step {best}: held-out loss {values[best]:.3f}, the lowest so far" in result.err
    assert load(tmp_path / "m.run" / "best").info.codebooks == 2
    state = torch.load(tmp_path / "m.run" / "state.pt", weights_only=True)
    assert tuple(state["best"]) == (pytest.approx(values[best]), best)


def test_a_codecs_loss_on_held_out_files(magnet: Magnet, data: Path, tmp_path: Path) -> None:
    options = ["--held-out", str(data), "--validate-every", "2", "--steps", "4"]
    result = magnet("train", "codec", str(data), "-o", str(tmp_path / "c"), *TINY_CODEC, *options)
    assert result.code == 2, "the data cannot be held out from itself"
    other = tmp_path / "other"
    shutil.copytree(data, other)
    options[1] = str(other)
    result = magnet("train", "codec", str(data), "-o", str(tmp_path / "c"), *TINY_CODEC, *options)
    assert result.code == 0, result.err
    measured = {int(row["step"]): row for row in rows(tmp_path / "c.run") if row["held_out"]}
    assert list(measured) == [0, 2, 4]
    for row in measured.values():
        parts = [float(row[f"held_out_{name}"]) for name in ("l1", "mel")]
        assert float(row["held_out"]) == pytest.approx(sum(parts))
    assert read_codec_folder(tmp_path / "c.run" / "best").config.codes == 16
    assert f"next: magnet train decoder {data} -o {tmp_path / 'c-decoder'} --codec {tmp_path / 'c'}" in result.err

    without = magnet("train", "codec", str(data), "-o", str(tmp_path / "d"), *TINY_CODEC, "--steps", "4")
    assert without.code == 0, without.err
    written = [(tmp_path / name / "codec.safetensors").read_bytes() for name in ("c", "d")]
    assert written[0] == written[1]  # measuring changes nothing


class Overfitting:
    """A trainer whose held-out loss rises again."""

    def __init__(self) -> None:
        self.losses = iter((3.0, 2.0, 2.5))
        self.published: list[str] = []

    def held_out(self) -> dict[str, float]:
        return {"held_out": next(self.losses)}

    def publish(self, output: Path) -> None:
        self.published.append(output.name)


def test_the_model_of_the_lowest_loss_is_the_best() -> None:
    trainer, best, events = Overfitting(), Best(), []
    for step in (0, 10, 20):
        measure(trainer, Places(Path("m")), step, best, events.append)  # type: ignore[arg-type]
    assert events == [HeldOut(0, 3.0, True), HeldOut(10, 2.0, True), HeldOut(20, 2.5, False)]
    assert trainer.published == ["best", "best"]
    assert (best.loss, best.step) == (2.0, 10)


def test_the_best_model_is_named_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    _done(Console(), Path("m"), Outcome(0, 20, 2.0, 10), ["magnet", "generate", "low hum", "--model", "m"])
    written = capsys.readouterr()
    assert f"lowest at step 10: 2.000. That model is {Path('m.run') / 'best'}" in written.err
    assert "next: magnet generate 'low hum' --model m" in written.err
    assert written.out == "m\n"


def test_holding_out_changes_no_draw_and_is_measured_alike(
    magnet: Magnet, data: Path, codec: Path, tmp_path: Path
) -> None:
    # With the held-out files elsewhere, the training is the one without them, whatever is measured and how often.
    held, others = tmp_path / "held", tmp_path / "others"
    shutil.copytree(data, held)
    shutil.copytree(data, others)
    assert magnet(*decoder(others, codec, tmp_path / "a", "--steps", "6")).code == 0
    options = ("--steps", "6", "--held-out", str(held), "--validate-every", "2")
    assert magnet(*decoder(others, codec, tmp_path / "b", *options)).code == 0
    trained = {int(row["step"]): float(row["loss"]) for row in rows(tmp_path / "b.run") if row["loss"]}
    assert trained == losses(tmp_path / "a.run")
    options = ("--steps", "6", "--held-out", str(held), "--validate-every", "3", "--seed", "4")
    assert magnet(*decoder(others, codec, tmp_path / "c", *options)).code == 0
    assert (tmp_path / "a" / "decoder.safetensors").read_bytes() == (
        tmp_path / "b" / "decoder.safetensors"
    ).read_bytes()


# -- samples, the end, Ctrl-C -----------------------------------------------------------------------------------------


def test_samples_are_of_the_prompts_given(magnet: Magnet, data: Path, codec: Path, tmp_path: Path) -> None:
    options = ("--steps", "4", "--sample-every", "2", "--sample-prompt", "low hum", "--sample-prompt", "soft noise")
    result = magnet(*decoder(data, codec, tmp_path / "m", *options))
    assert result.code == 0, result.err
    names = sorted(path.name for path in (tmp_path / "m.run" / "samples").iterdir())
    assert names == [f"step000000{step}-{index}.wav" for step in (2, 4) for index in (0, 1)]


def test_a_training_ends_with_the_next_command(magnet: Magnet, data: Path, codec: Path, tmp_path: Path) -> None:
    result = magnet(*decoder(data, codec, tmp_path / "m", "--steps", "1"))
    assert f"next: magnet generate 'low hum' --model {tmp_path / 'm'} -o clip.wav" in result.err


def test_progress_shows_each_codebook_and_one_time(magnet: Magnet, data: Path, codec: Path, tmp_path: Path) -> None:
    result = magnet(*decoder(data, codec, tmp_path / "m", "--steps", "20", "--held-out", "0.3"))
    line = next(line for line in result.err.splitlines() if line.startswith("step 20 of 20"))
    assert line.count("left") == 1
    for words in ("loss ", "(codebooks ", "held-out ", "GB" if "GB" in line else "MB", "steps/s"):
        assert words in line


def test_ctrl_c_speaks_of_the_training(data: Path, codec: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "magnet_cli", *decoder(data, codec, tmp_path / "m", "--steps", "100000")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "m.run" / "log.csv"
    while not log.is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "clips are" not in err
    assert "Traceback" not in err
    assert err.rstrip().endswith("run the same command to resume the training.")
    assert "stopping after this step" in err


def test_a_terminated_training_saves_its_state(data: Path, codec: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "magnet_cli", *decoder(data, codec, tmp_path / "m", "--steps", "100000")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "m.run" / "log.csv"
    while not log.is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert (tmp_path / "m.run" / "state.pt").is_file()


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--held-out", "1.5"), "between 0 and 1, not 1.5"),
        (("--held-out", "nowhere"), "neither a share nor a folder"),
        (("--held-out", "0.1", "--validate-every", "0"), "at least 1"),
        (("--held-out", "0.9999"), "leaves no file"),
    ],
)
def test_wrong_held_out_files_are_refused(
    magnet: Magnet, data: Path, codec: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    result = magnet(*decoder(data, codec, tmp_path / "m", "--steps", "1", *options))
    one_line_error(result, 2, words)


def test_missing_packages_are_found_before_anything_is_read(
    magnet: Magnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    arguments = ["train", "decoder", str(tmp_path / "nowhere"), "-o", str(tmp_path / "m"), "--from", "nowhere"]
    one_line_error(magnet(*arguments, "--lora", "4"), 1, "peft", "pip install '.[train]' in a clone")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    one_line_error(magnet(*arguments, "--tensorboard"), 1, "tensorboard", "pip install '.[train]' in a clone")
