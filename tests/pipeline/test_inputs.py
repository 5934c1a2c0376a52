"""Input files: each measured, hashed and decoded once, and anew when it has changed."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from magnet_cli.errors import UsageError
from magnet_cli.pipeline import inputs as module
from magnet_cli.pipeline.inputs import InputFiles

RATE = 8000


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a file is measured, hashed and decoded."""
    counts: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., Any]:
        plain = getattr(module, name)

        def count(path: Path) -> Any:
            counts[name] += 1
            return plain(path)

        return count

    for name in ("measure_audio", "sha256", "read_audio"):
        monkeypatch.setattr(module, name, counting(name))
    return counts


def write(path: Path, seconds: float, channels: int = 1) -> None:
    soundfile.write(path, 0.1 * np.ones((int(seconds * RATE), channels)), RATE)


def test_each_file_is_taken_once(tmp_path: Path, counted: Counter[str]) -> None:
    files, path = InputFiles(), tmp_path / "in.wav"
    write(path, 0.5, channels=2)
    for _ in range(3):
        assert files.measure(str(path)) == (2, 0.5)
        assert files.sha256(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()
        assert files.read(path)[0].shape == (2, RATE // 2)
    assert counted == {"measure_audio": 1, "sha256": 1, "read_audio": 1}


def test_a_file_that_changes_is_taken_anew(tmp_path: Path) -> None:
    files, path = InputFiles(), tmp_path / "in.wav"
    write(path, 0.5)
    before = files.measure(str(path)), files.sha256(str(path)), files.read(path)[0].shape
    write(path, 0.25)
    os.utime(path, ns=(1, 1))
    after = files.measure(str(path)), files.sha256(str(path)), files.read(path)[0].shape
    assert (before[0], after[0]) == ((1, 0.5), (1, 0.25))
    assert before[1] != after[1]
    assert (before[2], after[2]) == ((1, RATE // 2), (1, RATE // 4))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "nowhere.wav")
    for take in (InputFiles().measure, InputFiles().sha256, InputFiles().read):
        with pytest.raises(UsageError, match=r"nowhere\.wav"):
            take(path)


@pytest.mark.parametrize("count", [module.MOST_WAVEFORMS, module.MOST_WAVEFORMS + 1])
def test_few_waveforms_are_remembered(tmp_path: Path, counted: Counter[str], count: int) -> None:
    files, paths = InputFiles(), [tmp_path / f"{number}.wav" for number in range(count)]
    for path in paths:
        write(path, 0.1)
    for path in paths * 2:
        files.read(path)
        files.measure(str(path))
    assert counted["read_audio"] == (count if count <= module.MOST_WAVEFORMS else 2 * count)
    assert counted["measure_audio"] == count
