"""The check of a GPU runs on a CPU, too, at small sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def check(path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), str(path), "--small", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads(path.read_text())
    return done.returncode, found


def test_every_step_but_the_tests_themselves_runs_on_a_cpu(tmp_path: Path) -> None:
    steps = ("environment", "codes", "attention", "speed", "kernels", "compiled")
    code, found = check(tmp_path / "found.json", "--only", *steps)
    assert tuple(found) == steps
    assert [found[name].get("failed") for name in steps] == [None] * len(steps)
    assert code == 0
    results = {name: found[name]["result"] for name in steps}
    assert results["codes"]["float32, batch 1"] == results["codes"]["float32, batch 3"] == 1.0
    assert results["kernels"]["operations"] > results["kernels"]["steps"] == 5
    assert {report["batch"] for report in results["speed"].values()} == {1, 2}
    assert results["attention"]["flash, efficient, math"]["equal"] == 1.0
    assert all(len(one["seconds"]) == 4 for one in results["attention"].values())


def test_a_step_that_fails_is_noted_and_the_others_run(tmp_path: Path) -> None:
    broken = tmp_path / "gpu_check.py"
    text = (ROOT / "benchmarks" / "gpu_check.py").read_text()
    broken.write_text(text.replace('"""What the machine is."""', 'raise ValueError("no machine")'))
    path = tmp_path / "found.json"
    command = [sys.executable, str(broken), str(path), "--small", "--only", "environment", "compiled"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads(path.read_text())
    assert done.returncode == 1
    assert "no machine" in found["environment"]["failed"]
    assert "failed" not in found["compiled"]
