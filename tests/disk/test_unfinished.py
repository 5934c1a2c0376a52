"""Files that are being written: never removed while they have a writer, and removed when they have none."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from magnet_cli.disk import unfinished
from magnet_cli.disk.atomic import write_atomic, write_together
from magnet_cli.disk.unfinished import LONGEST_WRITE, UNFINISHED_NAME, create_unfinished, sweep, unfinished_path
from magnet_cli.jobs.manifest import Manifest

needs_locks = pytest.mark.skipif(unfinished.fcntl is None, reason="Windows says nothing of writers")

# Writes a file that is never complete: says so when the hidden file is there, and waits.
WRITER = """
import sys, time
from pathlib import Path
from magnet_cli.disk.atomic import write_atomic

def write(file):
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(600)

write_atomic(Path(sys.argv[1]), write)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def left_behind(folder: Path, name: str | None = None, *, age: float = 0.0) -> Path:
    """A file without a writer, last changed so many seconds ago."""
    path = unfinished_path(folder, ".wav") if name is None else folder / name
    path.write_bytes(b"half")
    changed = time.time() - age
    os.utime(path, (changed, changed))
    return path


@needs_locks
def test_a_file_that_is_being_written_is_not_swept(tmp_path: Path) -> None:
    def write(file: object) -> None:
        os.write(file.fileno(), b"all of it")  # type: ignore[attr-defined]
        sweep(tmp_path)
        Manifest(tmp_path, [], {}).sweep([tmp_path / "b.wav"])

    write_atomic(tmp_path / "a.wav", write)
    assert (tmp_path / "a.wav").read_bytes() == b"all of it"
    assert names(tmp_path) == ["a.wav"]


@needs_locks
def test_complete_files_that_wait_for_their_names_are_not_swept(tmp_path: Path) -> None:
    contents = [(tmp_path / name, name.encode()) for name in ("a.json", "a.wav")]
    write_together(contents, before_publishing=lambda _: sweep(tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.json": b"a.json", "a.wav": b"a.wav"}


@needs_locks
def test_writers_of_other_processes_lose_nothing_and_killed_ones_leave_nothing(tmp_path: Path) -> None:
    """Six that write while a batch starts; three of them are killed."""
    command = [sys.executable, "-c", WRITER]
    writers = [
        subprocess.Popen([*command, str(tmp_path / f"{number}.wav")], stdout=subprocess.PIPE) for number in range(6)
    ]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"writing\n"
        before = names(tmp_path)
        assert len(before) == 6
        manifest = Manifest(tmp_path, [], {})
        manifest.sweep([tmp_path / "x.wav"])
        assert names(tmp_path) == before
        for writer in writers[:3]:
            writer.kill()
            writer.wait()
        assert names(tmp_path) == before  # nobody could clean up
        manifest.sweep([tmp_path / "x.wav"])
        assert len(names(tmp_path)) == 3
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    sweep(tmp_path)
    assert names(tmp_path) == []


@needs_locks
def test_threads_that_write_and_sweep_lose_nothing(tmp_path: Path) -> None:
    stop, failed = threading.Event(), list[BaseException]()

    def keep_sweeping() -> None:
        try:
            while not stop.is_set():
                sweep(tmp_path)
        except BaseException as error:
            failed.append(error)
            raise

    sweepers = [threading.Thread(target=keep_sweeping) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        for number in range(300):
            write_atomic(tmp_path / f"{number}.wav", lambda file: file.write(b"x"))
    finally:
        stop.set()
        for sweeper in sweepers:
            sweeper.join()
    assert failed == []
    assert len(names(tmp_path)) == 300


@needs_locks
def test_a_file_that_is_swept_before_its_lock_is_created_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one moment at which a writer's file looks abandoned."""
    path, real, calls = unfinished_path(tmp_path, ".wav"), unfinished.fcntl.flock, 0

    def late(descriptor: int, operation: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            sweep(tmp_path)  # the second call
            assert not path.exists()
        real(descriptor, operation)

    monkeypatch.setattr(unfinished.fcntl, "flock", late)
    with create_unfinished(path) as file:
        file.write(b"x")
    assert calls == 3
    assert path.read_bytes() == b"x"


def test_a_name_says_on_which_host_its_writer_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = unfinished_path(tmp_path, ".wav").name
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    other = unfinished_path(tmp_path, ".wav").name
    hosts = [match["host"] for match in map(UNFINISHED_NAME.fullmatch, (own, other)) if match]
    assert len(set(hosts)) == 2
    assert all(re.fullmatch("[0-9a-f]{8}", host) for host in hosts)


@pytest.mark.parametrize("kind", ["another host's", "an earlier version's"])
def test_what_no_lock_tells_of_is_swept_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A lock may not reach the other host, and earlier versions held none."""
    with monkeypatch.context() as patch:
        patch.setattr("platform.node", lambda: "elsewhere")
        name = unfinished_path(tmp_path, ".wav").name if kind == "another host's" else ".magnet-0123456789abcdef.wav"
    path = left_behind(tmp_path, name, age=LONGEST_WRITE - 60)
    sweep(tmp_path)
    assert path.exists()
    left_behind(tmp_path, name, age=LONGEST_WRITE + 60)
    sweep(tmp_path)
    assert not path.exists()


@pytest.mark.parametrize("lacking", ["disk", "system"])
def test_without_locks_a_file_is_swept_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if lacking == "system":
        monkeypatch.setattr(unfinished, "fcntl", None)
    elif unfinished.fcntl is not None:
        monkeypatch.setattr(unfinished.fcntl, "flock", refuse)
    new, old = left_behind(tmp_path), left_behind(tmp_path, age=LONGEST_WRITE + 60)
    sweep(tmp_path)
    assert (new.exists(), old.exists()) == (True, False)
    write_atomic(tmp_path / "a.wav", lambda file: file.write(b"x"))
    assert names(tmp_path) == sorted([new.name, "a.wav"])


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_only_regular_files_of_its_own_names_are_swept(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"x")
    link, fifo, folder = (unfinished_path(tmp_path, ".wav") for _ in range(3))
    link.symlink_to("precious")
    os.mkfifo(fifo)
    folder.mkdir()
    others = [".magnet-notes.txt", ".magnet.lock", "magnet-0123456789abcdef.wav", ".magnet-0123456789ABCDEF.wav"]
    for name in others:
        left_behind(tmp_path, name, age=LONGEST_WRITE + 60)
    before = names(tmp_path)
    sweep(tmp_path)
    assert names(tmp_path) == before


@needs_locks
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may open everything")
def test_a_file_that_may_not_be_opened_is_left(tmp_path: Path) -> None:
    left_behind(tmp_path).chmod(0)
    sweep(tmp_path)
    assert len(names(tmp_path)) == 1


def test_a_file_that_its_writer_finishes_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = left_behind(tmp_path)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([path, path]))
    sweep(tmp_path)
    assert names(tmp_path) == []
