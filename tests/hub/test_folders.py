"""Folders that the package writes: only its own are replaced or removed, file by file, and a kill loses none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from magnet_cli.disk.owner import is_abandoned, own_mark
from magnet_cli.errors import OutputError
from magnet_cli.hub.cache import discard
from magnet_cli.hub.folders import (
    BUNDLE,
    CODEC_FOLDER,
    KINDS,
    REPLACED,
    UNFINISHED,
    FolderKind,
    check_apart,
    check_own,
    clear_leftovers,
    new_folder,
    remove_folder,
)
from support.command import Magnet, one_line_error
from support.golden import GOLDEN

MUSIC = GOLDEN / "music"


def write(target: Path, kind: FolderKind = CODEC_FOLDER, word: str = "old", *, overwrite: bool = True) -> None:
    """A complete folder of a kind with every file it may have, the marker among them."""
    with new_folder(target, kind, overwrite=overwrite) as folder:
        for pattern in kind.files:
            path = folder / pattern.replace("*", "1").replace("?", "1")
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({**kind.content, "word": word}))


def everything(folder: Path) -> dict[str, str]:
    """All files below a folder with their content, and where links lead."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = f"-> {os.readlink(path)}" if path.is_symlink() else path.read_text() if path.is_file() else ""
    return found


@pytest.fixture
def thesis(tmp_path: Path) -> Iterator[Path]:
    """Somebody's folder, which a test must not change."""
    folder = tmp_path / "thesis"
    (folder / "chapters" / "one").mkdir(parents=True)
    (folder / "chapters" / "one" / "draft.tex").write_text("years of work")
    (folder / "config.json").write_text('{"format": "latex"}')
    before = everything(folder)
    yield folder
    assert everything(folder) == before


# -- what is ours -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_folder_of_a_kind_is_replaced_and_removed_whole(kind: FolderKind, tmp_path: Path) -> None:
    target = tmp_path / "there"
    target.mkdir()  # an empty one may be in the way
    write(target, kind)
    write(target, kind, "new")
    assert {json.loads(text)["word"] for text in everything(target).values() if text} == {"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    assert remove_folder(target, kind) == size
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", ["notes.txt", "text_encoder/notes.txt", "takes/take.wav", ".hidden"])
def test_a_foreign_file_in_it_is_named_and_stays(kind: FolderKind, name: str, tmp_path: Path) -> None:
    target = tmp_path / "there"
    write(target, kind)
    (target / name).parent.mkdir(exist_ok=True)
    (target / name).write_text("mine")
    before = everything(target)
    word = name if name.startswith("text_encoder") and kind is not CODEC_FOLDER else name.split("/")[0]
    for act in (lambda: write(target, kind, "new"), lambda: remove_folder(target, kind)):
        with pytest.raises(OutputError, match=rf"holds {word}.*which magnet did not write") as caught:
            act()
        assert caught.value.exit_code == 7
    assert everything(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_folder_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    for index, kind in enumerate(KINDS):
        target = tmp_path / str(index)
        write(target, kind)
        before = everything(target)
        for other in KINDS:
            if other is not kind:
                with pytest.raises(OutputError, match="holds"):
                    write(target, other, "new")
        assert everything(target) == before


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}', "[" * 100_000, "\udcff"])
def test_a_damaged_marker_is_no_marker(text: str, tmp_path: Path) -> None:
    target = tmp_path / "there"
    write(target)
    (target / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(OutputError, match=r"not a codec that magnet wrote: it holds analysis\.safetensors"):
        write(target, word="new")


def test_a_pipe_for_a_marker_does_not_hang(tmp_path: Path) -> None:
    target = tmp_path / "there"
    target.mkdir()
    os.mkfifo(target / "config.json")
    with pytest.raises(OutputError, match=r"holds config\.json"):
        write(target)


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(OutputError, match="is not a folder"):
        write(tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"


def test_what_comes_during_the_work_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "there"
    write(target)

    def replace_during_a_visit() -> None:
        with new_folder(target, CODEC_FOLDER, overwrite=True) as folder:
            (folder / "config.json").write_text("{}")
            (target / "notes.txt").write_text("mine")

    with pytest.raises(OutputError, match=r"holds notes\.txt"):
        replace_during_a_visit()
    assert (target / "notes.txt").read_text() == "mine"
    with pytest.raises(OutputError, match="already exists"), new_folder(tmp_path / "free", CODEC_FOLDER):
        (tmp_path / "free").mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["free", "there"]


# -- links and places -------------------------------------------------------------------------------------------------


def test_nothing_behind_a_link_is_deleted(thesis: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    write(bundle, BUNDLE)
    before = everything(bundle)
    (tmp_path / "link").symlink_to(bundle)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for name in ("link", "nowhere"):
        for act in (lambda: write(tmp_path / name, BUNDLE), lambda: remove_folder(tmp_path / name, BUNDLE)):  # noqa: B023
            with pytest.raises(OutputError, match="is a symbolic link"):
                act()
    assert everything(bundle) == before

    for name in ("decoder.safetensors", "text_encoder", "config.json"):
        planted = tmp_path / "planted"
        write(planted, BUNDLE)
        (planted / name).rename(tmp_path / "elsewhere")
        (planted / name).symlink_to(tmp_path / "elsewhere")
        elsewhere = everything(tmp_path / "elsewhere") or (tmp_path / "elsewhere").read_text()
        for act in (lambda: write(planted, BUNDLE), lambda: remove_folder(planted, BUNDLE)):  # noqa: B023
            with pytest.raises(OutputError, match=f"holds {name}"):
                act()
        assert (everything(tmp_path / "elsewhere") or (tmp_path / "elsewhere").read_text()) == elsewhere
        (planted / name).unlink()
        (tmp_path / "elsewhere").rename(planted / name)
        remove_folder(planted, BUNDLE)


@pytest.mark.parametrize("name", [".", "..", "/", "there/.."])
def test_a_target_needs_a_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="names no folder"):
        write(Path(name))


def test_a_target_is_apart_from_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "a" / "work"
    work.mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    monkeypatch.chdir(work)
    data = tmp_path / "b" / "data"
    for target, words in (
        (data, "is .*data"),
        (tmp_path / "b", "is above"),
        (data / "new", "is inside"),
        (work, "working directory"),
        (tmp_path / "a", "working directory"),
        (tmp_path / "link", "working directory"),
        (Path("../../b/x/../data"), "which is read"),
    ):
        with pytest.raises(OutputError, match=words):
            check_apart(target, [data])
    check_apart(Path("new"), [data])
    check_apart(tmp_path / "b" / "data.run", [data])


# -- kills ------------------------------------------------------------------------------------------------------------

KILLED = """
import json, os, signal, sys
from pathlib import Path
from magnet_cli.hub.folders import CODEC_FOLDER, new_folder
moment, place = int(sys.argv[1]), Path(sys.argv[2])
count = 0
def counted(name):
    real = getattr(os, name)
    def act(*arguments, **options):
        global count
        for after in (False, True):
            if after:
                result = real(*arguments, **options)
            count += 1
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(os, name, act)
for name in ("rename", "unlink", "rmdir", "mkdir"):
    counted(name)
with new_folder(place / "there", CODEC_FOLDER, overwrite=True) as folder:
    for name in CODEC_FOLDER.files:
        (folder / name).write_text(json.dumps({**CODEC_FOLDER.content, "word": "new"}))
"""


def test_a_kill_at_any_moment_leaves_the_old_folder_or_the_new_one(tmp_path: Path) -> None:
    moment, kept = 0, []
    while True:
        moment += 1
        place = tmp_path / str(moment)
        place.mkdir()
        write(place / "there")
        done = subprocess.run([sys.executable, "-c", KILLED, str(moment), str(place)], capture_output=True, text=True)
        hidden = [path for path in place.iterdir() if path.name != "there"]
        assert all(path.name.startswith((UNFINISHED, REPLACED)) for path in hidden)
        clear_leftovers(place)
        assert [path.name for path in place.iterdir()] == ["there"]
        check_own(place / "there", CODEC_FOLDER)
        kept.append(json.loads((place / "there" / "codec.safetensors").read_text())["word"])
        assert json.loads((place / "there" / "config.json").read_text())["word"] == kept[-1]
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
    assert moment > 10  # before and after each of the renames, and of what removes the old files
    assert kept[0] == "old"
    assert kept[-1] == "new"
    assert kept == sorted(kept, reverse=True)  # old, until at some moment it is the new one


def test_only_what_dead_processes_left_is_cleared_away(tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "from magnet_cli.disk.owner import own_mark; print(own_mark())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    machine, process, start = own_mark().split("-")
    marks = {
        "dead": dead,
        "alive": own_mark(),
        "reused": f"{machine}-{process}-{int(start) + 1}",  # the process's number, but another process
        "elsewhere": f"{'0' * 8}-{dead.split('-', 1)[1]}",
    }
    assert {name: is_abandoned(mark) for name, mark in marks.items()} == {
        "dead": True,
        "alive": False,
        "reused": True,
        "elsewhere": False,
    }
    for name, mark in marks.items():
        folder = tmp_path / f"{UNFINISHED}{mark}-{name}"
        folder.mkdir()
        (folder / "decoder.safetensors").write_text(name)
        (folder / ".tmpAbC123").write_text(name)  # as the library of the format leaves it
    foreign = tmp_path / f"{UNFINISHED}{dead}-foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    (tmp_path / f"{UNFINISHED}model").mkdir()
    clear_leftovers(tmp_path)
    left = sorted(path.name.rpartition("-")[2] for path in tmp_path.iterdir())
    assert left == ["alive", "elsewhere", "foreign", "model"]
    assert (foreign / "notes.txt").read_text() == "mine"


# -- commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from magnet_cli.checkpoints.open import convert

    target = tmp_path_factory.mktemp("bundle") / "bundle"
    convert(str(MUSIC), target, dtype=None)
    return target


@pytest.mark.parametrize("command", ["convert", "export"])
def test_force_replaces_no_folder_of_somebodys(magnet: Magnet, thesis: Path, command: str) -> None:
    for target in (str(thesis), str(thesis / "chapters")):
        one_line_error(magnet("models", command, str(MUSIC), target, "--force"), 7, target, "holds")
    one_line_error(magnet("models", command, "facebook/nowhere", str(thesis), "--force"), 7, "holds")  # no download


@pytest.mark.parametrize("command", ["convert", "export"])
def test_force_replaces_what_the_same_command_wrote(magnet: Magnet, tmp_path: Path, command: str) -> None:
    for force in ((), ("--force",)):
        result = magnet("models", command, str(MUSIC), "made", "-q", *force)
        assert result.code == 0, result.err
    assert magnet("generate", "x", "-o", "a.wav", "--model", "made", "--device", "cpu", "--steps", "1,1,1,1").code == 0
    other = "export" if command == "convert" else "convert"
    one_line_error(magnet("models", other, str(MUSIC), "made", "--force"), 7, "made is not")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.wav", "made"]


@pytest.mark.parametrize("command", ["convert", "export"])
def test_a_checkpoint_is_not_written_over_itself(
    magnet: Magnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Path, command: str
) -> None:
    import shutil

    shutil.copytree(MUSIC, tmp_path / "models" / "released")
    shutil.copytree(bundle, tmp_path / "models" / "mine")
    before = everything_in_bytes(tmp_path)
    for source in ("models/released", "models/mine"):
        for target in (source, "models", f"{source}/new", f"{source}/../{Path(source).name}"):
            one_line_error(magnet("models", command, source, target, "--force"), 7)
    monkeypatch.setenv("MAGNET_MODEL_DIR", str(tmp_path / "models"))
    one_line_error(magnet("models", command, "mine", "models/mine", "--force"), 7)
    assert everything_in_bytes(tmp_path) == before


def everything_in_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_remove_deletes_bundles_only(magnet: Magnet, thesis: Path, bundle: Path, tmp_path: Path) -> None:
    import shutil

    here = ("--model-dir", str(tmp_path))
    one_line_error(magnet("models", "remove", "thesis", "--yes", *here), 7, "is not a bundle", "holds")
    one_line_error(magnet("models", "remove", "thesis", *here), 7, "is not a bundle")  # before it asks
    shutil.copytree(bundle, tmp_path / "mine")
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    one_line_error(magnet("models", "remove", "mine", "--yes", *here), 7, "holds notes.txt")
    assert (tmp_path / "mine" / "decoder.safetensors").is_file()
    (tmp_path / "linked").symlink_to(bundle)
    one_line_error(magnet("models", "remove", "linked", "--yes", *here), 7, "is a symbolic link")
    (tmp_path / "mine" / "notes.txt").unlink()
    assert magnet("models", "remove", "mine", "--yes", *here).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["linked", "thesis"]
    assert (bundle / "decoder.safetensors").is_file()


def test_a_damaged_download_takes_no_file_of_the_users_with_it(tmp_path: Path) -> None:
    # The cache of the Hub holds links to blobs; somebody may have put one of their own there.
    snapshot, digest = tmp_path / "models--x--y" / "snapshots" / ("a" * 40), "b" * 40
    snapshot.mkdir(parents=True)
    blobs = tmp_path / "models--x--y" / "blobs"
    blobs.mkdir()
    for path in (blobs / digest, blobs / "notes", tmp_path / "weights.bin"):
        path.write_text("content")
    for name, leads in (
        ("a", f"../../blobs/{digest}"),
        ("b", "../../blobs/notes"),
        ("c", str(tmp_path / "weights.bin")),
    ):
        (snapshot / name).symlink_to(leads)
    discard(snapshot, ["a", "b", "c"])
    assert list(snapshot.iterdir()) == []
    assert [path.name for path in blobs.iterdir()] == ["notes"]
    assert (tmp_path / "weights.bin").read_text() == "content"
