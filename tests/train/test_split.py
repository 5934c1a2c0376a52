"""Which files are held out."""

from __future__ import annotations

from pathlib import Path

import pytest

from magnet_cli.errors import UsageError
from magnet_cli.train.data import split_examples


def fill(folder: Path, names: list[str]) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        path.with_suffix(".txt").write_text("text")
    return folder


def names(examples: object) -> set[str]:
    return {example.path.name for example in examples}  # type: ignore[attr-defined]


def test_about_a_share_of_the_files_is_held_out(tmp_path: Path) -> None:
    split = split_examples(fill(tmp_path, [f"{index}.wav" for index in range(400)]), "0.1", texts=True)
    assert 25 < len(split.held_out) < 60  # 40, give or take three standard deviations
    assert len(split.training) + len(split.held_out) == 400
    assert not names(split.training) & names(split.held_out)


def test_no_file_changes_sides_when_files_are_added_or_the_folder_moves(tmp_path: Path) -> None:
    some = [f"{index}.wav" for index in range(60)]
    before = split_examples(fill(tmp_path / "a", some), "0.2", texts=True)
    after = split_examples(fill(tmp_path / "b", [*some, *(f"new/{one}" for one in some)]), "0.2", texts=True)
    assert names(before.held_out) == {one.path.name for one in after.held_out if one.path.parent.name != "new"}


def test_one_file_at_least_is_held_out_and_one_is_left(tmp_path: Path) -> None:
    two = fill(tmp_path / "two", ["a.wav", "b.wav"])
    split = split_examples(two, "0.000001", texts=True)
    assert (len(split.training), len(split.held_out)) == (1, 1)
    with pytest.raises(UsageError, match="leaves no file"):
        split_examples(fill(tmp_path / "one", ["a.wav"]), "0.1", texts=True)


def test_a_folder_is_held_out_also_where_it_is_in_the_data(tmp_path: Path) -> None:
    data = fill(tmp_path, ["a.wav", "b.wav", "held/c.wav"])
    split = split_examples(data, str(data / "held"), texts=True)
    assert (names(split.training), names(split.held_out)) == ({"a.wav", "b.wav"}, {"c.wav"})


def test_nothing_is_held_out_unless_asked(tmp_path: Path) -> None:
    split = split_examples(fill(tmp_path, ["a.wav"]), None, texts=True)
    assert (names(split.training), split.held_out) == ({"a.wav"}, [])


@pytest.mark.parametrize("held_out", ["0", "1", "-0.1", "nan", "inf", "nowhere", ""])
def test_what_is_no_share_and_no_folder_is_refused(tmp_path: Path, held_out: str) -> None:
    fill(tmp_path, ["a.wav", "b.wav"])
    with pytest.raises(UsageError, match=r"held_out.*[Gg]ive e\.g\. 0\.1"):
        split_examples(tmp_path, held_out, texts=True)
