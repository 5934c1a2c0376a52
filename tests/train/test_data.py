"""Training data: the folder's conventions, segments of files, and who trains on what."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from magnet_cli.errors import UsageError
from magnet_cli.train.data import batch_indices, find_examples, read_segment, share


def write(path: Path, seconds: float = 1.0, rate: int = 8000, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(-0.5, 0.5, int(seconds * rate), dtype=np.float32)
    soundfile.write(path, np.stack([ramp] * channels, axis=1), rate, subtype="FLOAT")


def test_metadata_in_json_lines_may_hold_several_texts(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    write(tmp_path / "sub" / "b.wav")
    rows = [{"file_name": "a.wav", "text": ["one", "two"]}, {"file_name": "sub/b.wav", "text": "three"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = find_examples(tmp_path, texts=True)
    assert [(one.path.name, one.texts) for one in found] == [("a.wav", ("one", "two")), ("b.wav", ("three",))]


def test_metadata_as_csv(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text('file_name,text\na.wav,"slow, sad piano"\n')
    assert find_examples(tmp_path, texts=True)[0].texts == ("slow, sad piano",)


def test_texts_beside_the_files(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav", "c.wav"):
        write(tmp_path / name)
    (tmp_path / "a.txt").write_text("from text\n")
    (tmp_path / "b.json").write_text('{"description": "from json"}')
    assert [one.texts for one in find_examples(tmp_path, texts=False)] == [("from text",), ("from json",), ()]
    with pytest.raises(UsageError, match=r"c\.wav has no text"):
        find_examples(tmp_path, texts=True)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ('{"text": "x"}', "cannot be read"),
        ("{", "cannot be read"),
        ('{"file_name": "no.wav", "text": "x"}', "does not exist"),
        ("", "there is no audio"),
    ],
)
def test_metadata_that_is_wrong(tmp_path: Path, metadata: str, message: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(metadata)
    with pytest.raises(UsageError, match=message):
        find_examples(tmp_path, texts=True)


def test_a_segment_is_cut_resampled_mixed_and_padded(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write(path, seconds=1.0, rate=8000, channels=2)
    plain = read_segment(path, 0.25, 0.5, 8000, 1)
    assert plain.shape == (1, 4000)
    assert float(plain[0, 0]) == pytest.approx(-0.25, abs=1e-3)  # a sample more or less of the ramp
    other = read_segment(path, 0.25, 0.5, 4000, 2)
    assert other.shape == (2, 2000)
    assert float(other[1, 1000]) == pytest.approx(0.0, abs=2e-3)  # the resampler's ripple on a ramp
    late = read_segment(path, 0.75, 0.5, 8000, 1)
    assert float(late[0, 1999]) == pytest.approx(0.5, abs=1e-3)
    assert not late[0, 2000:].any()


def test_what_is_no_audio_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no")
    with pytest.raises(UsageError, match="not an audio file"):
        read_segment(tmp_path / "a.wav", 0, 1, 8000, 1)


def test_every_example_comes_once_in_a_pass() -> None:
    seen = [index for step in range(5) for index in batch_indices(10, 4, step, seed=1)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    assert batch_indices(10, 4, 2, seed=1) == seen[8:12]


def test_processes_share_a_batch() -> None:
    parts = [list(range(6))[share(6, process, 3)] for process in range(3)]
    assert parts == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(UsageError, match="cannot be divided"):
        share(5, 0, 2)
