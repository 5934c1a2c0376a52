"""The record of a stream: what is written is read back, and nothing else is taken for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magnet_cli.errors import UsageError
from magnet_cli.streaming.record import read_stream_record
from magnet_cli.streaming.stream import Turning
from support.streams import STREAM_RECORD


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "r.json"
    path.write_text(json.dumps({**STREAM_RECORD, **changes}))
    return path


def test_a_record_is_read_back(tmp_path: Path) -> None:
    found = read_stream_record(written(tmp_path))
    assert found.plan.script == (Turning(0, "a", (4, 2, 2, 2)), Turning(3, "b", (2, 1, 1, 1)))
    assert (found.plan.prompt, found.plan.seed, found.plan.overlap, found.seconds) == ("a", 7, 40, 12.5)
    assert (found.model, found.device, found.dtype, found.codes_sha256) == ("bundled", "cpu", "float32", "x")


WINDOW = STREAM_RECORD["windows"][0]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"format": "magnet-clip"}, "holds no record of a stream"),
        ({"version": 2}, "of version 1"),
        ({"version": True}, "of version 1"),
        ({"seed": "7"}, "seed"),
        ({"overlap": 1.5}, "overlap"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"windows": []}, "windows"),
        ({"windows": [{**WINDOW, "window": 1}]}, "windows"),
        ({"windows": [WINDOW, WINDOW]}, "windows"),
        ({"windows": [{**WINDOW, "prompt": " "}]}, "the prompt is empty"),
        ({"windows": [{**WINDOW, "steps": [4, 2]}]}, "windows"),
        ({"windows": [{**WINDOW, "steps": [0, 2, 2, 2]}]}, "steps must be"),
        ({"windows": [{**WINDOW, "steps": [1.0, 2, 2, 2]}]}, "windows"),
        ({"model": {}}, "model"),
        ({"codes": {}}, "codes"),
        ({"output": {**STREAM_RECORD["output"], "lufs": 5}}, "lufs"),
        ({"sampling": {}}, "steps"),
        ({"edit": None}, "all of it"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        read_stream_record(written(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": "magnet-stream"}'])
def test_what_is_no_record(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        read_stream_record(path)
    with pytest.raises(UsageError, match="there is no file"):
        read_stream_record(tmp_path / "none.json")


def cut_anywhere() -> list[Callable[[bytes], bytes]]:
    return [lambda content, at=at: content[:at] for at in range(0, 900, 97)]  # type: ignore[misc]


@pytest.mark.parametrize("damage", cut_anywhere())
def test_a_file_that_is_cut_is_an_error_with_a_remedy(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = written(tmp_path)
    content = path.read_bytes()
    path.write_bytes(damage(content))
    with pytest.raises(UsageError):
        read_stream_record(path)
