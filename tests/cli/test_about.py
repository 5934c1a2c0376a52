"""magnet --version: one line for people; with --json, what a report of a fault needs to know of the machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

import magnet_cli
from support.command import Magnet, one_line_error


@pytest.mark.parametrize("arguments", [("--version", "--json"), ("--json", "--version"), ("-V", "--json")])
def test_versions_and_devices_as_json(magnet: Magnet, arguments: tuple[str, ...]) -> None:
    done = magnet(*arguments)
    assert (done.code, done.err) == (0, "")
    (found,) = done.records
    assert found["magnet"] == magnet_cli.__version__
    assert found["python"] == platform.python_version()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["transformers"] == transformers.__version__
    assert found["platform"] == platform.platform()
    assert found["cuda"] == torch.version.cuda
    mps = torch.backends.mps.is_available()
    assert found["devices"] == {"cpu": True, "cuda": torch.cuda.is_available(), "mps": mps}
    assert len(found["gpus"]) == torch.cuda.device_count()


def test_without_json_it_is_one_line_and_loads_no_torch() -> None:
    script = (
        "import sys; sys.modules['torch'] = None; sys.argv[1:] = ['--version']; import magnet_cli.__main__ as one\n"
    )
    done = subprocess.run([sys.executable, "-c", script + "one.main()"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"magnet {magnet_cli.__version__}\n", "")


def test_a_torch_that_does_not_load_is_one_error() -> None:
    script = "import sys; sys.modules['torch'] = None; sys.argv[1:] = ['--version', '--json']\n"
    script += "import magnet_cli.__main__ as one; one.main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith("error: PyTorch does not load: ")
    assert done.stderr.endswith("Run magnet doctor.\n")


def test_json_before_a_command_is_refused(magnet: Magnet) -> None:
    one_line_error(magnet("--json", "models", "list"), 2, "--json", "after the command")


def test_neither_variables_nor_the_configuration_file_ask_for_it(
    magnet: Magnet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    monkeypatch.setenv("MAGNET_CONFIG", str(config))
    monkeypatch.setenv("MAGNET_VERSION", "1")
    monkeypatch.setenv("MAGNET_JSON", "1")
    assert magnet("models", "list").out.startswith("NAME")
    config.write_text("version = true\n", encoding="utf-8")
    one_line_error(magnet("models", "list"), 2, "version")
