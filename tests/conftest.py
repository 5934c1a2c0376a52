"""Shared fixtures: the golden models, loaded once."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

# No test asks the Hub or reads the user's cache; huggingface_hub reads these when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="magnet-tests-hf-")
os.environ["MAGNET_MODEL_DIR"] = os.path.join(os.environ["HF_HOME"], "models")
os.environ["MAGNET_CONFIG"] = os.path.join(os.environ["HF_HOME"], "no-config.toml")
# The models are tiny: a second thread costs more than it brings, and much more on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch

from magnet_cli.checkpoints.open import convert
from magnet_cli.checkpoints.parts import build_codec, build_decoder
from magnet_cli.checkpoints.released import read_codec, read_decoder
from magnet_cli.cli import main
from magnet_cli.errors import MagnetWarning
from magnet_cli.model.codec import Codec
from magnet_cli.model.decoder import MaskedTransformer, TextMemory
from magnet_cli.model.text_encoder import TextEncoder
from magnet_cli.options.runtime import DTypeName, RuntimeConfig
from magnet_cli.options.sampling import SamplingConfig
from magnet_cli.pipeline.pipeline import Pipeline

GOLDEN = Path(__file__).parent / "golden"
CPU = torch.device("cpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """GPU tests skip where there is no GPU."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@dataclass(frozen=True)
class Golden:
    """A golden model and what the reference computed from it."""

    folder: Path
    decoder: MaskedTransformer
    codec: Codec
    text: TextEncoder
    prompts: list[str]
    cases: list[SamplingConfig]
    arrays: dict[str, torch.Tensor]

    @property
    def frames(self) -> int:
        return int(self.decoder.config.clip_seconds * self.codec.config.frame_rate)

    def memory(self, *prompts: str) -> TextMemory:
        text = self.text.encode(prompts)
        with torch.inference_mode():
            return self.decoder.text_memory(text.states, text.lengths)


def _case(options: dict[str, Any]) -> SamplingConfig:
    return SamplingConfig(
        steps=tuple(options["decoding_steps"]),
        temperature=options["temperature"],
        guidance=options["max_cfg_coef"],
        min_guidance=options["min_cfg_coef"],
        spans=options["span_arrangement"],
        greedy=True,
    )


def load_golden(kind: str) -> Golden:
    folder = GOLDEN / kind
    decoder = read_decoder(folder)
    codec = read_codec(folder)
    description = json.loads((folder / "golden.json").read_text())
    with np.load(folder / "golden.npz") as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays}
    return Golden(
        folder=folder,
        decoder=build_decoder(decoder, CPU, torch.float32),
        codec=build_codec(codec, CPU),
        text=TextEncoder.load(folder / decoder.text.name, CPU),
        prompts=description["prompts"],
        cases=[_case(options) for options in description["cases"]],
        arrays={name: t.long() if t.dtype == torch.int16 else t for name, t in tensors.items()},
    )


@pytest.fixture(scope="session", params=["music", "sound"])
def golden(request: pytest.FixtureRequest) -> Golden:
    """Each of the golden models in turn."""
    return load_golden(request.param)


@pytest.fixture(scope="session")
def music() -> Golden:
    """The golden music model."""
    return load_golden("music")


def load_in(dtype: DTypeName, model: str, *, batch_size: int | None = None, hybrid: str | None = None) -> Pipeline:
    """A model on the CPU in this dtype, whether or not the CPU has instructions for it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "this CPU has no fast", MagnetWarning)
        return Pipeline.load(model, RuntimeConfig(device="cpu", dtype=dtype, batch_size=batch_size), hybrid=hybrid)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a model whose clips take milliseconds: the golden music model as a bundle, 0.3 s long."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    convert(str(GOLDEN / "music"), folder, dtype=None)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["decoder"]["clip_seconds"] = 0.3
    path.write_text(json.dumps(config))
    return str(folder)


# -- the command ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Magnet = Callable[..., Result]


@pytest.fixture
def magnet(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Magnet:
    """Run the entry point as a shell would, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "argv", ["magnet", *arguments])
        monkeypatch.setattr(sys, "stdin", StringIO(stdin))
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capfd.readouterr()
        return Result(int(stopped.value.code or 0), captured.out, captured.err)

    return run


def processor_seconds(*arguments: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run Python as a process: the processor time it took, which a busy machine stretches less than the clock's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


IMPORTING_TYPER = 0.07  # seconds on an idle machine, Python's own start included


def seconds_when_idle(*arguments: str) -> tuple[float, list[subprocess.CompletedProcess[str]]]:
    """About the processor time that running Python would take on an idle machine.

    What shares a core, another process on its second thread above all, stretches processor time too. So the time it
    takes to import typer, which most of a start-up is, is measured in turn, and its stretch taken out.
    """
    pairs = [(processor_seconds(*arguments), processor_seconds("-c", "import typer")[0]) for _ in range(5)]
    stretch = max(min(base for _, base in pairs) / IMPORTING_TYPER, 1.0)
    return min(seconds for (seconds, _), _ in pairs) / stretch, [done for (_, done), _ in pairs]


def one_line_error(result: Result, code: int, *parts: str) -> None:
    """The last line on stderr is the error; nothing is on stdout; no traceback."""
    assert result.code == code, result.err
    assert result.out == ""
    last = result.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert last.endswith(".")
    assert [line.startswith("error: ") for line in result.err.splitlines()].count(True) == 1
    assert "Traceback" not in result.err
    for part in parts:
        assert part in last
