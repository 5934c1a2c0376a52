"""A batch opens its one input file as seldom as possible, and is planned once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

import magnet_cli
from magnet_cli.cli import batch_run
from magnet_cli.jobs import plan as plan_module
from support.command import Magnet, clean_environment

QUICK = ("--steps", "2,1,1,1", "--device", "cpu", "--seed", "1")
WATCH = """
import sys
opened = 0
def hook(event, arguments):
    global opened
    opened += event == "open" and str(arguments[0]).endswith("in.wav")
sys.addaudithook(hook)
from magnet_cli.cli import main
try:
    main()
finally:
    print(f"opened {opened}", file=sys.stderr)
"""


@pytest.fixture
def batch(tmp_path: Path) -> tuple[str, ...]:
    soundfile.write(tmp_path / "in.wav", 0.1 * np.ones(32_000), 32_000)
    (tmp_path / "p.txt").write_text("".join(f"prompt {number}\n" for number in range(3)))
    return ("batch", "p.txt", "-o", "clips", "--inpaint", "in.wav", "--region", "0.2:0.5", *QUICK)


def test_an_input_is_opened_to_measure_to_hash_and_to_decode_it(
    batch: tuple[str, ...], tiny: str, tmp_path: Path
) -> None:
    environment = clean_environment() | {"PYTHONPATH": str(Path(magnet_cli.__file__).parents[1]), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", WATCH, *batch, "--model", tiny]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 3
    # Decoding measures it first: nothing but reading says how long a file is, and it may change in between.
    assert int(done.stderr.splitlines()[-1].removeprefix("opened ")) <= 4


@pytest.mark.parametrize(("released", "plans"), [(False, 1), (True, 2)])
def test_a_batch_is_planned_once_its_model_is_known(
    magnet: Magnet,
    batch: tuple[str, ...],
    tiny: str,
    monkeypatch: pytest.MonkeyPatch,
    released: bool,
    plans: int,
) -> None:
    """What a bundle can do is known before it is opened; of another model only what is wrong with any is told first."""
    from support.golden import GOLDEN

    counts: Counter[str] = Counter()
    for name in ("plan_rows", "plan_batch"):
        plain = getattr(plan_module, name)

        def counting(*args: object, name: str = name, plain: object = plain, **kwargs: object) -> object:
            counts[name] += 1
            return plain(*args, **kwargs)  # type: ignore[operator]

        monkeypatch.setattr(batch_run, name, counting)
    result = magnet(*batch, "--model", str(GOLDEN / "music") if released else tiny)
    assert result.code == 0, result.err
    assert counts == {"plan_rows": plans, "plan_batch": plans}
    assert "manifest.jsonl" in os.listdir("clips")
