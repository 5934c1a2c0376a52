"""The results of a batch: a table that spreadsheets open without harm, and files that are nobody else's."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path

import pytest

from magnet_cli.errors import OutputError
from magnet_cli.jobs.manifest import MANIFEST_FILE, Entry, Header, Made, Manifest, Measured, digest
from magnet_cli.jobs.prompt_file import Row
from magnet_cli.jobs.results import BatchResults, ClipResult, as_csv, harmless


def clip(prompt: str = "rain", **cells: str) -> ClipResult:
    measured = Measured(9.96, -14.085, -1.03)
    return ClipResult(Row(2, prompt, own=cells), prompt, "a.wav", 7, {"guidance": "3.5"}, "done", None, measured, 1.25)


def table(results: BatchResults) -> list[list[str]]:
    """The cells as a spreadsheet reads them."""
    text = as_csv(results).decode("utf-8-sig")
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=results.delimiter))


def test_the_columns() -> None:
    failed = ClipResult(Row(3, "b"), "b", "b.wav", 2**64 - 1, {"steps": "1,1,1,1"}, "failed", "no memory")
    results = BatchResults(
        "clips", [clip(take="1"), failed, ClipResult(Row(4, "c"), "c", "c.wav", 0, {})], ["take"], ","
    )
    assert as_csv(results).startswith(b"\xef\xbb\xbfprompt,path,seed,")  # the mark by which Excel knows UTF-8
    assert table(results) == [
        [
            "prompt",
            "path",
            "seed",
            "steps",
            "guidance",
            "lufs",
            "true-peak",
            "seconds",
            "generation-seconds",
            "state",
            "error",
            "take",
        ],
        ["rain", "a.wav", "7", "", "3.5", "-14.09", "-1.03", "9.96", "1.25", "done", "", "1"],
        ["b", "b.wav", str(2**64 - 1), "1,1,1,1", "", "", "", "", "", "failed", "no memory", ""],
        ["c", "c.wav", "0", "", "", "", "", "", "", "waiting", "", ""],
    ]


def test_semicolons_go_with_decimal_commas_but_own_cells_stay() -> None:
    (_, row) = table(BatchResults("clips", [clip(take="1.5")], ["take"], ";"))
    assert row[3:8] == ["3,5", "-14,09", "-1,03", "9,96", "1,25"]
    assert row[-1] == "1.5"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1+1", "'+1+1"),
        ("-soft piano", "'-soft piano"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "\t'=1"),
        ("\r=1", "\r'=1"),
        ("  =1", "  '=1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ('x";=cmd|x', "x\";'=cmd|x"),  # where semicolons separate cells, a cell of its own
        ("x,=1", "x,'=1"),
        ("a\n=1", "a\n'=1"),
        ("piano, -3 dB", "piano, -3 dB"),
        ("a-b = c", "a-b = c"),
        ("", ""),
    ],
)
def test_no_cell_is_a_formula(text: str, cell: str) -> None:
    assert harmless(text) == cell
    header, row = table(BatchResults("clips", [clip(text, **{f"{text} ": text})], [f"{text} "], ","))
    assert (row[0], header[-1], row[-1]) == (cell, f"{cell} ", cell)


def test_numbers_stay_numbers() -> None:
    assert [harmless(text) for text in ("-14.1", "+5", "-3,5")] == ["-14.1", "+5", "-3,5"]


def test_own_columns_with_names_of_the_results_are_marked() -> None:
    own = ["State", "seed (prompt file)", "seed", "note"]
    header, row = table(BatchResults("clips", [clip(State="ok", seed="x")], own, ","))
    assert header[-4:] == ["State (prompt file)", "seed (prompt file)", "seed (prompt file 2)", "note"]
    assert len({name.lower() for name in header}) == len(header)
    assert row[-4:] == ["ok", "", "x", ""]


def test_what_cannot_be_written_is_escaped() -> None:
    (_, row) = table(BatchResults("clips", [clip("a\ud800b")], [], ","))
    assert row[0] == "a\\ud800b"


def test_a_hundred_thousand_clips_take_seconds() -> None:
    """0.7 s where this was written."""
    clips = [clip(f"prompt {k}", take=str(k)) for k in range(100_000)]
    started = time.process_time()
    content = as_csv(BatchResults("clips", clips, ["take"], ","))
    assert time.process_time() - started < 10
    assert content.count(b"\r\n") == 100_001


# -- files beside the manifest ----------------------------------------------------------------------------------------


def publish(folder: Path, **contents: bytes) -> list[Path]:
    with Manifest.opened(folder) as manifest:
        manifest.start(Header(5, {}))
        return manifest.publish([(f"{name}.csv", content) for name, content in contents.items()])


def test_files_are_replaced_and_what_others_wrote_is_renamed(tmp_path: Path) -> None:
    assert publish(tmp_path, a=b"1", b=b"1") == []
    assert publish(tmp_path, a=b"2", b=b"1") == []
    assert (tmp_path / "a.csv").read_bytes() == b"2"
    (tmp_path / "a.csv").write_bytes(b"2 and my notes")
    (tmp_path / "c.csv").write_bytes(b"mine")
    assert publish(tmp_path, a=b"3", c=b"3") == [tmp_path / "a.changed-1.csv", tmp_path / "c.changed-1.csv"]
    assert (tmp_path / "a.changed-1.csv").read_bytes() == b"2 and my notes"
    assert (tmp_path / "c.changed-1.csv").read_bytes() == b"mine"
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "c.csv").read_bytes() == b"3"


def test_a_kill_before_the_files_have_their_names_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, a=b"1")
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            publish(tmp_path, a=b"2")
    assert (tmp_path / "a.csv").read_bytes() == b"1"
    assert publish(tmp_path, a=b"3") == []
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["a.csv"]


def test_equal_content_is_not_written_again(tmp_path: Path) -> None:
    publish(tmp_path, a=b"1")
    before = (tmp_path / MANIFEST_FILE).read_bytes()
    changed = (tmp_path / "a.csv").stat().st_mtime_ns
    assert publish(tmp_path, a=b"1") == []
    assert (tmp_path / MANIFEST_FILE).read_bytes() == before
    assert (tmp_path / "a.csv").stat().st_mtime_ns == changed


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.csv").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match="is a link that leads out"):
        publish(tmp_path / "clips", a=b"1")
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_measurements_are_in_the_manifest_and_else_in_the_record(tmp_path: Path) -> None:
    measured = Measured(9.96, None, -1.0)
    (tmp_path / "a.wav").touch()
    with Manifest.opened(tmp_path) as manifest:
        manifest.start(Header(5, {}))
        manifest.add(Entry("a", (), None, 1.0, measured))
    assert Manifest.read(tmp_path).entries["a"].measured == measured
    old = Entry("b", (Made("a.wav", 0, 0, digest(b"")),))
    read = Manifest.read(tmp_path)
    assert read.measured(old) is None
    (tmp_path / "a.json").write_text(json.dumps({"seconds": 9.96, "lufs": None, "true_peak": -1.0}))
    assert read.measured(old) == measured
    for damaged in ('{"seconds": "x", "lufs": 1, "true_peak": 1}', "{", "[]", '{"seconds": 1e400}'):
        (tmp_path / "a.json").write_text(damaged)
        assert read.measured(old) in (None, Measured(None, None, None))
