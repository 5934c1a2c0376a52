"""The release workflow: valid, every action pinned to a commit, and only what is tested is published."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from magnet_cli import __version__

ROOT = Path(__file__).parents[1]
FILE = ROOT / ".github" / "workflows" / "release.yml"


def workflow() -> dict[Any, Any]:
    found = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_every_action_is_pinned_to_a_commit() -> None:
    used = [step["uses"] for job in workflow()["jobs"].values() for step in job["steps"] if "uses" in step]
    assert len(used) >= 5
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), action


def test_only_the_publishing_job_may_do_more_than_read_and_it_waits_for_the_tests() -> None:
    found = workflow()
    assert found["permissions"] == {"contents": "read"}
    assert [name for name, job in found["jobs"].items() if "permissions" in job] == ["publish"]
    publish = found["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert set(publish["needs"]) == {"test", "build"}
    assert "tag" in publish["if"]
    assert found[True]["push"] == {"tags": ["v*"]}  # YAML 1.1, which PyYAML reads, takes "on" for true


def test_what_it_runs_exists() -> None:
    jobs = workflow()["jobs"]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    (make,) = [step["run"] for step in jobs["test"]["steps"] if "run" in step]
    assert set(make.split()[2:]) <= targets
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for version in jobs["test"]["strategy"]["matrix"]["python"]:
        assert f'"Programming Language :: Python :: {version}"' in project
    tags = [step["run"] for step in jobs["build"]["steps"] if "GITHUB_REF_NAME" in step.get("run", "")]
    assert tags == ['test -f "dist/magnet_cli-${GITHUB_REF_NAME#v}.tar.gz"']


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert f"\n## {__version__} - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f'"magnet {__version__}"' in (ROOT / "docs" / "magnet.1").read_text(encoding="utf-8")
