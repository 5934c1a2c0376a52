"""What `magnet batch` leaves beside the manifest: results.csv and index.html, complete and up to date."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from magnet_cli import Job, Pipeline
from magnet_cli.errors import NumericsError
from magnet_cli.jobs import results as results_module
from magnet_cli.jobs.manifest import Manifest
from magnet_cli.pipeline.pipeline import Clip
from support.command import Magnet, Result

QUICK = ("--steps", "2,1,1,1", "--temperature", "10", "--guidance", "1", "--device", "cpu", "--seed", "5")

Batch = Callable[..., Result]


@pytest.fixture
def batch(magnet: Magnet, tiny: str, tmp_path: Path) -> Batch:
    """Run a batch of these rows into clips/."""

    def run(text: str, *options: str) -> Result:
        (tmp_path / "p.csv").write_text(text, encoding="utf-8", newline="")
        return magnet("batch", "p.csv", "-o", "clips", "--model", tiny, *QUICK, *options)

    return run


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], None]]:
    """What happens when a prompt is decoded, by prompt; nothing by default."""
    acts: dict[str, Callable[[], None]] = {}
    decode = Pipeline._generate_batch

    def acting(self: Pipeline, jobs: Sequence[Job], batch: Sequence[int], *others: Any) -> Iterator[Clip]:
        for index in batch:
            acts.get(jobs[index].prompt, lambda: None)()
        return decode(self, jobs, batch, *others)

    monkeypatch.setattr(Pipeline, "_generate_batch", acting)
    return acts


def fail() -> None:
    raise NumericsError("logits are not finite", "Try another seed")


def table() -> list[dict[str, str]]:
    with Path("clips/results.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def states() -> list[str]:
    return [row["state"] for row in table()]


def test_results_lie_beside_the_clips(batch: Batch, odd: dict[str, Callable[[], None]]) -> None:
    odd["bad"] = fail
    done = batch("Take,prompt,top-k\n1,rain,3\n2,bad,\n3,=wind,\n")
    assert done.code == 8
    assert "columns that are no options are copied to results.csv: 'Take'" in done.err.splitlines()
    rows = table()
    assert [row["Take"] for row in rows] == ["1", "2", "3"]
    assert [row["prompt"] for row in rows] == ["rain", "bad", "'=wind"]
    assert [row["state"] for row in rows] == ["done", "failed", "done"]
    assert rows[1]["error"] == "logits are not finite"
    assert [row["top-k"] for row in rows] == ["3", "", ""]
    assert {row["guidance"] for row in rows} == {"1.0"}
    assert all((Path("clips") / row["path"]).exists() == (row["state"] == "done") for row in rows)
    assert float(rows[0]["seconds"]) == 0.3
    assert float(rows[0]["lufs"]) < 0
    assert float(rows[0]["true-peak"]) <= 0
    page = Path("clips/index.html").read_text()
    assert page.count("<audio ") == 2
    assert "failed</b>: <bdi>logits are not finite" in page


def test_an_interrupted_batch_says_what_waits(batch: Batch, odd: dict[str, Callable[[], None]]) -> None:
    odd["b"] = lambda: os.kill(os.getpid(), signal.SIGINT)
    assert batch("prompt\na\nb\nc\n").code == 130
    assert states() in (["done", "waiting", "waiting"], ["done", "done", "waiting"])
    odd.clear()
    assert batch("prompt\na\nb\nc\n").code == 0
    assert states() == ["done"] * 3


def test_stale_or_missing_results_are_rewritten_by_the_next_run(batch: Batch) -> None:
    rows = "prompt\na\nb\n"
    assert batch(rows).code == 0
    before = Path("clips/results.csv").read_bytes()
    for name in ("results.csv", "index.html"):
        Path("clips", name).unlink()
    again = batch(rows)
    assert again.err.endswith("nothing to generate\n")
    assert Path("clips/results.csv").read_bytes() == before
    assert Path("clips/index.html").exists()


def test_measurements_of_an_earlier_versions_clips_come_from_their_records(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert batch("prompt\na\n").code == 0
    before = table()
    manifest = Path("clips/manifest.jsonl")
    lines = [line for line in manifest.read_text().splitlines(keepends=True) if '"reports"' not in line]
    monkeypatch.setattr(Manifest, "measured", measured_before(Manifest.measured))
    manifest.write_text("".join(lines))
    assert batch("prompt\na\n").code == 0
    assert table() == before


def measured_before(measured: Any) -> Any:
    """As it reads an entry that lacks what was measured."""
    from dataclasses import replace

    return lambda self, entry: measured(self, replace(entry, measured=None))


def test_notes_in_the_results_are_kept(batch: Batch) -> None:
    assert batch("prompt\na\n").code == 0
    with Path("clips/results.csv").open("ab") as file:
        file.write(b"my notes\r\n")
    done = batch("prompt\na\nb\n")
    assert done.code == 0
    assert "it was renamed to clips/results.changed-1.csv" in done.err
    assert Path("clips/results.changed-1.csv").read_bytes().endswith(b"my notes\r\n")
    assert states() == ["done", "done"]


def test_results_that_cannot_be_written_do_not_stop_a_batch(batch: Batch) -> None:
    Path("clips/results.csv").mkdir(parents=True)
    done = batch("prompt\na\n")
    assert done.code == 0
    assert done.out == "clips/01-a-5.wav\n" or done.out.startswith("clips/01-a-")
    assert "warning: results.csv and index.html are not up to date: clips/results.csv is a folder." in done.err


def test_a_long_batch_is_shown_now_and_then_but_not_after_every_clip(
    batch: Batch, odd: dict[str, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    odd["d"] = lambda: seen.append(states() if Path("clips/results.csv").exists() else [])
    assert batch("prompt\na\nb\nc\nd\n").code == 0
    assert seen == [[]]
    monkeypatch.setattr(results_module, "INTERVAL", 0.0)
    monkeypatch.setattr(results_module, "MOST_SHARE", 1e9)
    assert batch("prompt\na\nb\nc\nd\n", "--no-resume", "--force").code == 0
    assert seen[1] == ["done", "done", "waiting", "waiting"]  # "c" is decoded, and is finished beside "d"


def test_a_dry_run_writes_no_results(batch: Batch) -> None:
    assert batch("prompt\na\n", "--dry-run").code == 0
    assert not Path("clips").exists()


# -- what failed ------------------------------------------------------------------------------------------------------


def test_only_what_failed_is_listed_and_tried_again(batch: Batch, odd: dict[str, Callable[[], None]]) -> None:
    rows = "prompt,output\na,a\nbad,b\nworse,c\n"
    odd["bad"] = odd["worse"] = fail
    assert batch(rows).code == 8
    added = f"{rows}d,d\n"
    listed = batch(added, "--failed", "--dry-run")
    assert (listed.code, len(listed.out.splitlines())) == (0, 2)
    assert listed.out.startswith("clips/b.wav  failed  seed ")
    assert listed.out.splitlines()[0].endswith("  bad  logits are not finite")
    assert "4 clips: 1 done, 2 failed, 1 waiting" in listed.err
    records = batch(added, "--failed", "--dry-run", "--json").records
    assert [(one["state"], one["error"]) for one in records] == [("failed", "logits are not finite")] * 2
    every = batch(added, "--dry-run", "--json").records
    assert [one["state"] for one in every] == ["done", "failed", "failed", "waiting"]

    del odd["bad"]
    again = batch(added, "--failed")
    assert (again.code, again.out) == (8, "clips/b.wav\n")
    assert "error: 1 of 3 clips failed" in again.err
    assert states() == ["done", "done", "failed", "waiting"]
    odd.clear()
    assert batch(added, "--failed").out == "clips/c.wav\n"
    done = batch(added, "--failed")
    assert (done.code, done.out) == (0, "")
    assert done.err.endswith("no clip has failed\n")
    assert states() == ["done", "done", "done", "waiting"]
    assert batch(added).out == "clips/d.wav\n"


def test_failed_clips_of_a_folder_without_a_batch(batch: Batch) -> None:
    for more in ((), ("--dry-run",)):
        done = batch("prompt\na\n", "--failed", *more)
        assert (done.code, done.out) == (2, "")
        assert done.err.endswith("error: clips holds no batch. Name the folder of a batch, or omit --failed.\n")
    assert not Path("clips").exists()


# -- rows that have changed -------------------------------------------------------------------------------------------


def test_clips_of_changed_rows_are_named_and_left(batch: Batch) -> None:
    assert batch("prompt,seed,top-k\na,1,\nb,2,\nc,3,\n").code == 0
    changed = "prompt,seed,top-k\na,1,\nb,2,5\n"
    named = "clips of rows that were changed or removed: 02-b-2.wav, 03-c-3.wav"
    dry = batch(changed, "--dry-run")
    assert f"{named} (left in place; --move-stale moves them to clips/stale)" in dry.err
    done = batch(changed)
    assert done.out == "clips/02-b-2-2.wav\n"
    assert f"{named} (left in place; --move-stale moves them to clips/stale)" in done.err
    assert sorted(path.name for path in Path("clips").glob("*.wav")) == [
        "01-a-1.wav",
        "02-b-2-2.wav",
        "02-b-2.wav",
        "03-c-3.wav",
    ]
    assert "of rows that" not in batch("prompt,seed,top-k\na,1,\nb,2,\nb,2,5\nc,3,\n").err


def test_clips_of_changed_rows_are_moved_and_nothing_is_lost(batch: Batch) -> None:
    rows, changed = "prompt,seed,output,top-k\na,1,x/a,\nb,2,x/b,\n", "prompt,seed,output,top-k\na,1,x/a,\nb,2,x/b,5\n"
    assert batch(rows).code == 0
    first = Path("clips/x/b.wav").read_bytes()
    assert "left in place" not in batch(changed, "--move-stale", "--dry-run").err
    assert Path("clips/x/b.wav").read_bytes() == first
    done = batch(changed, "--move-stale")
    assert done.out == "clips/x/b.wav\n"  # its name is free
    assert "x/b.wav (moved to clips/stale)" in done.err
    assert Path("clips/stale/x/b.wav").read_bytes() == first
    assert Path("clips/stale/x/b.json").exists()
    codes = json.loads(Path("clips/stale/x/b.json").read_text())["codes"]
    second = Path("clips/x/b.wav").read_bytes()
    assert second != first
    again = batch(changed, "--move-stale")
    assert (again.out, "stale" in again.err) == ("", False)
    # Back again, without moving: nothing takes the name of the other.
    assert batch(rows).out == "clips/x/b-2.wav\n"
    assert Path("clips/x/b.wav").read_bytes() == second
    Path("clips/x/b-2.wav").unlink()
    # Back again: it is generated again, and the other one moves beside the first.
    assert batch(rows, "--move-stale").out == "clips/x/b.wav\n"
    assert json.loads(Path("clips/x/b.json").read_text())["codes"] == codes
    assert Path("clips/stale/x/b.wav").read_bytes() == first
    assert Path("clips/stale-2/x/b.wav").read_bytes() == second


def test_clips_of_another_batch_in_the_folder_are_no_stale_ones(batch: Batch) -> None:
    assert batch("prompt,seed\na,1\n").code == 0
    mixed = batch("prompt,seed\nb,1\n", "--mix", "--lufs", "-20", "--move-stale")
    assert mixed.code == 0
    assert "rows that were changed" not in mixed.err
    assert sorted(path.name for path in Path("clips").glob("*.wav")) == ["01-a-1.wav", "01-b-1.wav"]


# -- seeds ------------------------------------------------------------------------------------------------------------


def test_rows_without_a_seed_have_seeds_of_their_own_and_keep_them(batch: Batch) -> None:
    assert batch("prompt\na\nb\na\n").code == 0
    first = {row["path"]: row["seed"] for row in table()}
    assert len(set(first.values())) == 3
    again = batch("prompt\nnew\nb\na\na\n")
    assert len(again.out.splitlines()) == 1
    assert {row["seed"] for row in table()} > set(first.values())
    assert json.loads(Path("clips/manifest.jsonl").read_text().splitlines()[0])["settings"]["seeds"] == "derived"


def test_a_folder_keeps_the_rule_for_seeds_that_it_began_with(batch: Batch) -> None:
    rows = "prompt\na\nb\n"
    assert batch(rows, "--same-seed").code == 0  # as every batch of an earlier version
    assert "seeds" not in json.loads(Path("clips/manifest.jsonl").read_text().splitlines()[0])["settings"]
    assert {row["seed"] for row in table()} == {"5"}
    assert batch(f"{rows}c\n").out == "clips/03-c-5.wav\n"
    changed = batch(rows, "--lufs", "-20")
    assert changed.code == 7
    assert "holds another batch (lufs -14.0, not -20.0)" in changed.err
    mixed = batch(rows, "--lufs", "-20", "--mix")
    assert mixed.code == 0
    assert "5" not in {row["seed"] for row in table()}


def test_another_rule_for_seeds_is_another_batch(batch: Batch) -> None:
    assert batch("prompt\na\n").code == 0
    done = batch("prompt\na\n", "--same-seed")
    assert done.code == 7
    assert "clips holds another batch (seeds derived, not all the same)" in done.err
