"""Trainings that cannot write: the last good state stays, the exit code is 7, and with room the same command goes on.

The system itself refuses (RLIMIT_FSIZE, EFBIG), so that every library meets what it would meet on a full disk. Each
limit is a little less than one of the files that an undisturbed training writes.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from magnet_cli.disk.unfinished import unfinished_path
from magnet_cli.errors import OutputError
from magnet_cli.train.codec import CodecTrainer
from magnet_cli.train.decoder import DecoderTrainer
from magnet_cli.train.loop.log import Log
from support.command import Magnet, one_line_error

resource = pytest.importorskip("resource")

RATE = 8000
STEPS = ("--steps", "6", "--save-every", "2", "--sample-every", "2", "--log-every", "1", "--batch-size", "2")
CODEC = shlex.split(
    f"--sample-rate {RATE} --ratios 8,5,5,2 --filters 2 --dimension 8 --lstm 0 --codebooks 2 --codes 16 --seconds 0.5 "
    "--adversarial-from 99 --cpu -q"
)
DECODER = shlex.split(
    "--width 16 --heads 2 --layers 1 --feed-forward 32 --clip-seconds 0.8 --text-encoder own --text-width 16 "
    "--text-layers 1 --text-heads 2 --vocabulary 300 --name m --seed 3 --cpu -q"
)
LEAST = 300  # bytes: the error message goes into a file, too, where the tests run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for index in range(2):
        soundfile.write(folder / f"{index}.wav", np.sin(np.arange(RATE) * 0.1 * (index + 1)) * 0.3, RATE)
        rows.append(json.dumps({"file_name": f"{index}.wav", "text": f"sound {index}"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture
def codec(magnet: Magnet, data: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "codec"
    options = ("--steps", "1", "--batch-size", "2", "--sample-every", "0")
    assert magnet("train", "codec", str(data), "-o", str(folder), *options, *CODEC).code == 0
    return folder


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def stop_at(monkeypatch: pytest.MonkeyPatch, trainer: Any, step: int) -> None:
    """As if the machine stopped before this step."""
    whole = trainer.step

    def stopped(self: Any, number: int, rate: float) -> Any:
        if number == step:
            raise KeyboardInterrupt
        return whole(self, number, rate)

    monkeypatch.setattr(trainer, "step", stopped)


def written(folder: Path) -> dict[str, bytes]:
    """What counts in the end: the model, and the steps of the log."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    log = folder.with_name("m.run").joinpath("log.csv").read_text().splitlines()
    return files | {"log": " ".join(line.split(",")[0] for line in log).encode()}


def check_every_limit(
    train: Callable[[Path], Any], trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop a training for each of its files, as too large, once from the beginning and once from a saved state."""
    assert train(tmp_path / "whole/m").code == 0
    wanted = written(tmp_path / "whole/m")
    with monkeypatch.context() as patch:
        stop_at(patch, trainer, 3)
        assert train(tmp_path / "half/m").code == 130
    state = (tmp_path / "half/m.run/state.pt").read_bytes()
    sizes = {path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file()}
    stopped = 0
    for number, size in enumerate(sorted(size - 1 for size in sizes if size > LEAST)):
        for half in (False, True):
            output = tmp_path / f"{number}-{half}/m"
            if half:
                shutil.copytree(tmp_path / "half", output.parent)
            with files_no_larger_than(size):
                refused = train(output)
            one_line_error(refused, 7, "cannot write", "File too large")
            if half:
                left = (output.parent / "m.run/state.pt").read_bytes()
                assert left == state or size > len(state), size
            assert not list(tmp_path.rglob(".unfinished-*")), size
            assert not list(tmp_path.rglob(".magnet-*")), size
            again = train(output)
            assert again.code == 0, again.err
            assert written(output) == wanted, size
            stopped += 1
            shutil.rmtree(output.parent)
    assert stopped >= 12


def test_a_decoders_training_survives_a_full_disk(
    magnet: Magnet, data: Path, codec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(output: Path) -> Any:
        return magnet("train", "decoder", str(data), "-o", str(output), "--codec", str(codec), *STEPS, *DECODER)

    check_every_limit(train, DecoderTrainer, tmp_path, monkeypatch)


def test_a_codecs_training_survives_a_full_disk(
    magnet: Magnet, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(output: Path) -> Any:
        return magnet("train", "codec", str(data), "-o", str(output), *STEPS, *CODEC)

    check_every_limit(train, CodecTrainer, tmp_path, monkeypatch)


def test_a_line_of_the_log_is_whole_or_not_there(tmp_path: Path) -> None:
    with Log(tmp_path, 0, tensorboard=False) as log:
        log.write(99, {"rate": 1.0, "loss": 1.0})
        before = (tmp_path / "log.csv").read_bytes()
        with files_no_larger_than(len(before) + 2), pytest.raises(OSError, match="too large"):
            log.write(100, {"rate": 1.0, "loss": 1.0})
        assert (tmp_path / "log.csv").read_bytes() == before
        log.write(100, {"rate": 1.0, "loss": 1.0})
    assert (tmp_path / "log.csv").read_text().splitlines()[1:] == ["99,1.0,1.0", "100,1.0,1.0"]


@pytest.mark.parametrize("method", ["__init__", "add_scalar", "close"])
def test_a_board_that_cannot_be_written_ends_the_training(
    magnet: Magnet, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """In place of TensorBoard's writer, which reports a full disk from a thread of its own, at its next call."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    methods = {name: lambda *_, **__: None for name in ("__init__", "add_scalar", "close")} | {method: full}
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = type("Writer", (), methods)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    package = types.ModuleType("tensorboard")
    package.__spec__ = ModuleSpec("tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard", package)
    arguments = ("train", "codec", str(data), "-o", str(tmp_path / "m"), *STEPS, *CODEC)
    one_line_error(magnet(*arguments, "--tensorboard"), 7, "No space left on device", "resume")
    assert magnet(*arguments).code == 0


def test_what_a_killed_training_left_unfinished_is_swept(magnet: Magnet, data: Path, tmp_path: Path) -> None:
    arguments = ("train", "codec", str(data), "-o", str(tmp_path / "m"), *STEPS, *CODEC)
    assert magnet(*arguments).code == 0
    left = [unfinished_path(tmp_path / "m.run" / name, ".x") for name in ("", "samples")]
    for path in left:
        path.write_bytes(b"half")
    assert magnet(*arguments).code == 0
    assert not any(path.exists() for path in left)


def test_errors_that_are_not_of_the_disk_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from magnet_cli.train.loop.run import Best, save, writing
    from magnet_cli.train.options import Places

    class Broken:
        def state(self) -> dict[str, Any]:
            return {}

    import torch

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of torch")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(RuntimeError, match="a fault of torch"):
        save(Broken(), Places(tmp_path / "m"), 1, Best())  # type: ignore[arg-type]
    with pytest.raises(OutputError, match=r"m\.run"), writing(Places(tmp_path / "m")):
        raise OSError("no more")
