"""Batches in real processes: killed at random moments, interrupted, two at once, on a disk that is full or read-only.

MAGNET_KILLS=50 kills that often, MAGNET_SIGNALS=300 interrupts that often; without them a handful.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from magnet_cli.disk.unfinished import UNFINISHED_NAME
from magnet_cli.jobs.manifest import MANIFEST_FILE
from magnet_cli.pipeline.record import codes_hash
from support.forked import Server

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

KILLS = int(os.environ.get("MAGNET_KILLS", "6"))
SIGNALS = int(os.environ.get("MAGNET_SIGNALS", "12"))
ITEMS, FEW = 40, 12
QUICK = ("--steps", "2,1,1,1", "--temperature", "10", "--guidance", "1", "--device", "cpu", "--seed", "5")

MOUNT = "mount -t tmpfs -o size=100k tmpfs"


@pytest.fixture(scope="module")
def may_mount(tmp_path_factory: pytest.TempPathFactory) -> bool:
    """Whether a process of ours may mount what it likes, out of sight of all others."""
    try:
        place = tmp_path_factory.mktemp("mount")
        done = subprocess.run(["unshare", "-rm", *MOUNT.split(), str(place)], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0


@pytest.fixture(scope="module")
def server(may_mount: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"), *(("unshare", "-rm") if may_mount else ()))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("prompts") / "p.csv"
    path.write_text("prompt,seed\n" + "".join(f"prompt {k},{k}\n" for k in range(ITEMS)))
    return str(path)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("prompts") / "few.txt"
    path.write_text("\n".join(f"prompt {k}" for k in range(FEW)))
    return str(path)


def hashes(folder: Path) -> dict[str, str]:
    """What codes each clip has, by name; fails for a clip that is not whole."""
    found = {}
    for path in folder.glob("[!.]*.wav"):
        assert soundfile.read(path)[0].shape == (15 * 640,)
        record = json.loads(path.with_suffix(".json").read_text())
        archive = path.with_suffix(".codes.npz")
        if archive.exists():
            assert codes_hash(np.load(archive)["codes"]) == record["codes"]["sha256"]
        found[path.name] = record["codes"]["sha256"]
    return found


def temporaries(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if UNFINISHED_NAME.fullmatch(path.name)]


def noted(folder: Path) -> Counter[str]:
    """How often each item was made, by the manifest: every line of it is whole."""
    lines = map(json.loads, (folder / MANIFEST_FILE).read_text().splitlines())
    return Counter(line["item"] for line in lines if "item" in line)


def states(folder: Path) -> list[str]:
    """The state of each clip by results.csv, which is of all clips or not there; as the contact sheet is."""
    if not (folder / "results.csv").exists():
        return []
    with (folder / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        found = [row["state"] for row in csv.DictReader(file)]
    page = (folder / "index.html").read_text(encoding="utf-8") if (folder / "index.html").exists() else "</html>"
    assert len(found) == ITEMS
    assert page.rstrip().endswith("</html>")
    return found


# -- kills ------------------------------------------------------------------------------------------------------------


def test_killed_at_any_moment_a_batch_ends_as_if_undisturbed(
    server: Server, tiny: str, prompts: str, tmp_path: Path
) -> None:
    """Runs batch after batch, killing each again and again, until there were enough kills."""
    arguments = ("batch", prompts, "--model", tiny, "--save-codes", *QUICK, "-o")
    undisturbed = server.start(tmp_path, *arguments, "whole")
    started = time.monotonic()
    assert undisturbed.wait() == 0, undisturbed.err
    lasting = time.monotonic() - started
    wanted = hashes(tmp_path / "whole")
    assert len(wanted) == len(set(wanted.values())) == ITEMS

    chance = random.Random(int(os.environ.get("MAGNET_KILLS_SEED", "1")))
    kills = rounds = redone = 0
    while kills < KILLS:
        rounds += 1
        folder, kills_here = tmp_path / f"clips-{rounds}", 0
        while True:
            run = server.start(tmp_path, *arguments, folder.name)
            if kills < KILLS:
                time.sleep(chance.uniform(0, lasting / 2))
                run.send(signal.SIGKILL)
            code = run.wait()
            assert code in (0, -signal.SIGKILL), run.err
            if code == 0:
                break
            kills += 1
            kills_here += 1
            if folder.exists():
                hashes(folder)  # whatever has its name is whole
                assert set(states(folder)) <= {"done", "waiting"}
        assert hashes(folder) == wanted
        assert temporaries(folder) == []
        assert len(list(folder.glob("*.wav"))) == len(list(folder.glob("*.json"))) == ITEMS
        made = noted(folder)
        assert len(made) == ITEMS
        assert made.total() - ITEMS <= kills_here
        assert states(folder) == ["done"] * ITEMS
        assert list(folder.glob("*.changed-*")) == []
        redone += made.total() - ITEMS
        assert server.start(tmp_path, *arguments, folder.name).wait() == 0
        assert noted(folder) == made
    print(f"{kills} kills in {rounds} batches of {ITEMS}; {redone} clips were made twice")


# -- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signals", "code"), [((signal.SIGINT,), 130), ((signal.SIGINT, signal.SIGINT), 130), ((signal.SIGTERM,), 143)]
)
def test_a_signal_ends_a_batch_cleanly(
    server: Server, tiny: str, few: str, tmp_path: Path, signals: tuple[int, ...], code: int
) -> None:
    arguments = ("batch", few, "--model", tiny, *QUICK, "-o", "clips")
    run = server.start(tmp_path, *arguments)
    run.wait_for(2)
    for number in signals:
        run.send(number)
        time.sleep(0.02)
    assert run.wait() == code
    assert "Traceback" not in run.err
    if code == 130:
        assert "interrupted. Finished clips are kept" in run.err.splitlines()[-1]
        assert "stopping after this step; Ctrl-C again stops at once" in run.err
    folder = tmp_path / "clips"
    clips = hashes(folder)
    assert 2 <= len(clips) < FEW
    assert sorted(path.stem for path in folder.glob("*.json")) == sorted(Path(name).stem for name in clips)
    assert temporaries(folder) == []
    again = server.start(tmp_path, *arguments)
    assert again.wait() == 0
    assert len(hashes(folder)) == FEW
    assert noted(folder).total() <= FEW + 1  # one may have been noted and dropped


def test_interrupted_at_any_moment_a_batch_ends_with_130_and_says_so(
    server: Server, tiny: str, few: str, tmp_path: Path
) -> None:
    """One to four Ctrl-C, some at once and some apart, at a random moment."""
    arguments = ("batch", few, "--model", tiny, *QUICK, "-o")
    started = time.monotonic()
    assert server.start(tmp_path, *arguments, "whole").wait() == 0
    lasting = time.monotonic() - started
    wanted = hashes(tmp_path / "whole")
    chance, ends = random.Random(int(os.environ.get("MAGNET_KILLS_SEED", "1"))), Counter[int]()
    for number in range(SIGNALS):
        run, folder = server.start(tmp_path, *arguments, f"clips-{number}"), tmp_path / f"clips-{number}"
        time.sleep(chance.uniform(0, lasting))
        for _ in range(chance.randint(1, 4)):
            run.send(signal.SIGINT)
            time.sleep(chance.choice((0, 0, 0.001, 0.02)))
        code = run.wait()
        ends[code] += 1
        assert "Traceback" not in run.err
        assert "Exception ignored" not in run.err
        if code == -signal.SIGINT:  # before the command's first line
            assert run.err == ""
        elif code == 130:
            last = run.err.splitlines()[-1]
            assert last == "error: interrupted. Finished clips are kept, and no file is left incomplete.", run.err
        else:  # the work was done when the signal came
            assert code == 0, run.err
            assert len(hashes(folder)) == FEW
        if folder.exists():
            assert temporaries(folder) == []
            assert hashes(folder).items() <= wanted.items()
    print(f"{SIGNALS} interruptions ended with {dict(ends)}")
    assert ends[130] > 0


def test_two_batches_at_once_never_share_a_folder(server: Server, tiny: str, few: str, tmp_path: Path) -> None:
    arguments = ("batch", few, "--model", tiny, *QUICK, "-o", "clips")
    first = server.start(tmp_path, *arguments)
    first.wait_for(1)
    second = server.start(tmp_path, *arguments)
    assert second.wait() == 7
    assert "another batch is writing into clips" in second.err
    assert first.wait() == 0
    assert first.out.count("\n") == len(noted(tmp_path / "clips")) == FEW


# -- disks ------------------------------------------------------------------------------------------------------------


def test_a_full_or_read_only_disk_stops_a_batch_that_goes_on_when_there_is_room(
    may_mount: bool, server: Server, tiny: str, few: str, tmp_path: Path
) -> None:
    if not may_mount:
        pytest.skip("mounting needs user namespaces")
    arguments = ("batch", few, "--model", tiny, *QUICK, "-o", "disk/clips")
    place = tmp_path / "disk"
    place.mkdir()
    server.ask(shell=f"{MOUNT} {place}")

    def listed() -> list[str]:
        return str(server.ask(shell=f"ls -A {place}/clips")).split()

    full = server.start(tmp_path, *arguments)
    assert full.wait() == 7
    assert "warning: the clips need about " in full.err
    assert re.search(r"error: cannot write disk/clips/\S+: No space left on device", full.err.splitlines()[-1])
    clips = [name for name in listed() if name.endswith(".wav")]
    assert full.out.split() == [f"disk/clips/{name}" for name in clips]
    assert 0 < len(clips) < FEW
    assert len([name for name in listed() if name.endswith(".json")]) == len(clips)
    assert not any(map(UNFINISHED_NAME.fullmatch, listed()))

    server.ask(shell=f"mount -o remount,ro {place}")
    locked = server.start(tmp_path, *arguments)
    assert locked.wait() == 7
    assert "Read-only file system" in locked.err.splitlines()[-1]

    server.ask(shell=f"mount -o remount,rw,size=10m {place}")
    done = server.start(tmp_path, *arguments)
    assert done.wait() == 0, done.err
    assert len([name for name in listed() if name.endswith(".wav")]) == FEW
    assert done.out.count("\n") == FEW - len(clips)
