"""Small files of strangers: what is opened, what is read, what is parsed."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from magnet_cli.disk.small_files import (
    DEEPEST,
    LARGEST_INTEGER,
    MOST_BYTES,
    MissingFileError,
    UnreadableFileError,
    open_regular,
    parse_json,
    read_bytes,
    read_json,
    read_object,
    read_text,
)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "value",
    [{}, [], "é", "\udcff", 7, 0.5, -LARGEST_INTEGER, {"a": [None, True, {"b": 1e308}]}, json.loads(nested(DEEPEST))],
)
def test_what_files_hold_is_read(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    assert read_json(path) == value


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        (nested(DEEPEST + 2), "nests"),
        (nested(100_000), "nests"),
        ('{"a":' * 100_000, "nests"),
        ("NaN", "the number nan"),
        ("[1, Infinity]", "the number inf"),
        ('{"a": {"b": -1e999}}', "the number -inf"),
        ("9" * 30, "64 bits"),
        ("9" * 5000, "not valid JSON"),
        ('"\\ud800"', "Unicode"),
        ('{"\\ud800": 1}', "Unicode"),
    ],
)
def test_what_no_file_has_a_reason_to_hold_is_refused(text: str, part: str) -> None:
    with pytest.raises(UnreadableFileError, match=part):
        parse_json(text)


@pytest.mark.parametrize(("text", "part"), [("[]", "a list"), ("7", "a number"), ("null", "null"), ('"x"', "a text")])
def test_an_object_is_an_object(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UnreadableFileError, match=part):
        read_object(path)


def test_only_small_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 11)
    assert read_bytes(path, most=11) == b"x" * 11
    with pytest.raises(UnreadableFileError, match="11 bytes; at most 10"):
        read_bytes(path, most=10)
    with path.open("wb") as file:
        file.truncate(10 * 2**40)  # it takes no room, and would take all memory
    with pytest.raises(UnreadableFileError, match=f"at most {MOST_BYTES:,}"):
        read_text(path)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"ab\xff")
    with pytest.raises(UnreadableFileError, match="UTF-8"):
        read_text(path)


def test_what_is_not_there_has_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "nothing", tmp_path / "file" / "below"):
        with pytest.raises(MissingFileError):
            read_bytes(path)
    for path in (tmp_path / ("x" * 1000), tmp_path / "a\0b", tmp_path):
        with pytest.raises(UnreadableFileError) as caught:
            read_bytes(path)
        assert not isinstance(caught.value, MissingFileError)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in the file system")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    done: list[str] = []

    def read() -> None:
        for path in (tmp_path / "pipe", tmp_path / "link", Path(os.devnull)):
            with pytest.raises(UnreadableFileError) as caught:
                open_regular(path)
            done.append(str(caught.value))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(timeout=10)
    assert done == ["it is no regular file"] * 3
