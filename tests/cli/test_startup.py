"""From the command to the first clip: nothing is loaded that is not needed, and the disk does not wait for Python."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from magnet_cli.cli import run_jobs as making
from magnet_cli.errors import UsageError
from magnet_cli.hub import store
from magnet_cli.hub.locate import resolve
from magnet_cli.hub.store import read_ahead
from magnet_cli.model.weights import assign, without_weights
from magnet_cli.options.runtime import PlacesConfig
from support.golden import CPU, GOLDEN

WEIGHTS = {"decoder.safetensors", "codec.safetensors", "model.safetensors"}


def test_making_a_clip_imports_no_compiler_and_importing_the_pipeline_no_meters() -> None:
    script = f"""
import sys
from magnet_cli.pipeline.pipeline import Pipeline
from magnet_cli.options.runtime import RuntimeConfig
from magnet_cli.options.sampling import SamplingConfig
print(sorted(name for name in sys.modules if name in ("scipy", "pyloudnorm")))
pipeline = Pipeline.load({str(GOLDEN / "music")!r}, RuntimeConfig(device="cpu"))
next(pipeline.generate("x", seed=1, sampling=SamplingConfig(steps=(1, 1, 1, 1))))
print(sorted(name for name in sys.modules if name in ("torch._dynamo", "sympy", "transformers")))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"


def test_networks_without_weights_have_shapes_and_take_weights() -> None:
    with without_weights():
        made = nn.ModuleDict({"table": nn.Embedding(5, 4), "linear": nn.Linear(4, 3)})
    assert {weight.device.type for weight in made.parameters()} == {"meta"}
    drawn = nn.ModuleDict({"table": nn.Embedding(5, 4), "linear": nn.Linear(4, 3)})
    assert all(weight.device == CPU and len(weight.unique()) > 1 for weight in drawn.parameters())  # the block is over
    assign(made, dict(drawn.state_dict()), Path("x"), device=CPU, dtype=torch.float32)
    for found, expected in zip(made.parameters(), drawn.parameters(), strict=True):
        assert torch.equal(found, expected)


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[int]]:
    """The bytes that the system is asked to read, by file."""
    found: dict[str, set[int]] = {}

    def advise(file: int, start: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        name = Path(os.readlink(f"/proc/self/fd/{file}")).name
        found.setdefault(name, set()).update(range(start, start + length))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    return found


def wait() -> None:
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(10)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is read ahead")
def test_every_byte_of_the_weights_is_read_ahead(
    tiny: str, advised: dict[str, set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BLOCK", 1000)
    read_ahead(Path(tiny))
    wait()
    assert set(advised) == WEIGHTS
    for path in Path(tiny).rglob("*.safetensors"):
        assert advised[path.name].issuperset(range(path.stat().st_size))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is read ahead")
def test_bundles_are_read_ahead_wherever_they_are(
    tiny: str, tmp_path: Path, advised: dict[str, set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "magnet-small-10secs").symlink_to(tiny)
    monkeypatch.setattr(store, "BUNDLED_FOLDER", Path(tiny))
    places = PlacesConfig(model_dir=tmp_path)
    for model in (tiny, "magnet-small-10secs", "bundled"):
        making.read_model_ahead(resolve(model, places))
        wait()
        assert set(advised) == WEIGHTS
        advised.clear()
    for model in (str(GOLDEN / "music"), "magnet-medium-10secs", "musicgen-small"):
        making.read_model_ahead(resolve(model, places))
        wait()
    with pytest.raises(UsageError):
        resolve("nowhere", places)
    assert not advised


def test_a_file_that_is_not_there_is_left_to_whoever_reads_it(tmp_path: Path) -> None:
    read_ahead(tmp_path / "nowhere")
    wait()
