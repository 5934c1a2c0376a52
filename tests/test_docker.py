"""The Dockerfile without an engine: what it copies exists and is enough, it agrees with pyproject.toml, its user is not
root. hadolint, which parses it fully, finds nothing in it where it is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from magnet_cli.cli import app
from support.packaged import packaged

ROOT = Path(__file__).parents[1]
FILE = ROOT / "Dockerfile"
HADOLINT = shutil.which("hadolint")


def instructions() -> list[tuple[str, str]]:
    """Every instruction with its arguments, continued lines joined."""
    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    text = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in text.splitlines() if line.strip()]


def last_stage() -> dict[str, str]:
    """The instructions of the stage that becomes the image; of several of one kind the last."""
    found = instructions()
    begin = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return dict(found[begin:])


def sent(path: str) -> bool:
    """Whether .dockerignore lets a file into the build; the last pattern that matches decides."""
    answer = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        if line and not line.startswith("#"):
            parts = [path, *(parent.as_posix() for parent in Path(path).parents), *Path(path).parts[:-1]]
            if any(fnmatch(part, pattern) for part in parts if part != "."):
                answer = line.startswith("!")
    return answer


def test_every_instruction_is_one() -> None:
    known = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN", "USER", "VOLUME", "WORKDIR"}
    assert {name for name, _ in instructions()} <= known
    declared = {words.split("=")[0] for name, words in instructions() if name == "ARG"}
    set_here = {word.split("=")[0] for name, words in instructions() if name == "ENV" for word in words.split()}
    used = set(re.findall(r"\$\{(\w+)\}", FILE.read_text(encoding="utf-8")))
    assert used <= declared | set_here


def test_it_runs_magnet_as_an_ordinary_user_with_models_in_a_volume() -> None:
    stage = last_stage()
    assert json.loads(stage["ENTRYPOINT"]) == ["magnet"]
    assert stage["USER"].isdecimal()
    assert int(stage["USER"]) > 0
    assert stage["VOLUME"] == "/models"
    variables = dict(word.split("=", 1) for word in stage["ENV"].split())
    assert all(variables[name].startswith("/models/") for name in ("HF_HOME", "MAGNET_MODEL_DIR"))
    assert f"/models {stage['WORKDIR']}" in stage["RUN"]  # both are made, for everybody to write to
    assert app.info.name == "magnet"


def test_it_installs_the_versions_that_the_package_needs() -> None:
    versions = dict(words.split("=", 1) for name, words in instructions() if name == "ARG" and "=" in words)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for library in ("torch", "torchaudio"):
        assert f'"{library}=={versions["TORCH"]}"' in project
    assert f'"Programming Language :: Python :: {versions["PYTHON"]}"' in project
    assert versions["VARIANT"] == "cpu"


def test_the_build_gets_what_the_wheel_needs_and_nothing_else() -> None:
    needed = {f"src/{name}" for name in packaged()} | {"pyproject.toml", "README.md", "LICENSE", "docs/magnet.1"}
    assert all(sent(path) for path in needed)
    others = (".git/config", ".venv/bin/python", "tests/conftest.py", "docs/cli.md", "clips/a.wav")
    assert not any(sent(path) for path in (*others, "src/magnet_cli/__pycache__/errors.cpython-312.pyc"))


@pytest.mark.skipif(HADOLINT is None, reason="no hadolint")
def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([str(HADOLINT), "--no-color", str(FILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
