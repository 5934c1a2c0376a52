"""What all tests share: an environment of their own, the golden models, the command."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from io import StringIO
from pathlib import Path

# No test asks the Hub or reads the user's cache; huggingface_hub reads these when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="magnet-tests-hf-")
os.environ["MAGNET_MODEL_DIR"] = os.path.join(os.environ["HF_HOME"], "models")
os.environ["MAGNET_CONFIG"] = os.path.join(os.environ["HF_HOME"], "no-config.toml")
# The models are tiny: a second thread costs more than it brings, and much more on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

from magnet_cli.checkpoints.open import convert
from magnet_cli.cli import main
from support.command import Magnet, Result
from support.golden import GOLDEN, Golden, load_golden


def pytest_configure() -> None:
    """What is started in the background, or by nohup, ignores these signals, and so would every command of a test."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """GPU tests skip where there is no GPU."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session", params=["music", "sound"])
def golden(request: pytest.FixtureRequest) -> Golden:
    """Each of the golden models in turn."""
    return load_golden(request.param)


@pytest.fixture(scope="session")
def music() -> Golden:
    """The golden music model."""
    return load_golden("music")


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
