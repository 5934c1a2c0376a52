"""Folders from somebody else: whatever links are in them, nothing outside is deleted, renamed or overwritten."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from magnet_cli.disk.atomic import write_together
from magnet_cli.disk.confine import Confinement, check_within
from magnet_cli.disk.unfinished import LONGEST_WRITE, unfinished_path
from magnet_cli.errors import OutputError
from magnet_cli.jobs.manifest import LOCK_FILE, MANIFEST_FILE, Entry, Header, Made, Manifest, digest
from magnet_cli.jobs.targets import Target, check_targets
from magnet_cli.options.output import OutputConfig
from support.command import Magnet, Result, one_line_error

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights there")

QUICK = ("--steps", "2,1,1,1", "--temperature", "10", "--guidance", "1", "--device", "cpu", "--seed", "5")
HEADER = Header(7, {})


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder with a thesis in it, which is as it was at the end."""
    folder = tmp_path / "outside"
    folder.mkdir()
    thesis = folder / "thesis.wav"
    thesis.write_bytes(b"years of work")
    os.utime(thesis, ns=(1, 1))
    yield folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"thesis.wav": b"years of work"}


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    return folder


def planted(name: str, *, size: int = 13, time: int = 1) -> Entry:
    """What a hostile manifest says of a file: as the thesis is, unless otherwise."""
    return Entry("x", (Made(name, size, time, digest(b"years of work")),))


# -- the rule ---------------------------------------------------------------------------------------------------------


def test_a_link_that_leads_out_is_named(clips: Path, outside: Path) -> None:
    (clips / "a").mkdir()
    (clips / "a/b").symlink_to("../../outside")
    (clips / "c").symlink_to("a/b")
    for path, link in (("a/b/x", "a/b"), ("a/b", "a/b"), ("c/deep/x", "c"), ("a/b/../x", "a/b")):
        with pytest.raises(OutputError) as refused:
            check_within(clips, clips / path)
        assert f"{clips / link} is a link that leads out of {clips}" in refused.value.message
        assert str(outside) in refused.value.message


def test_links_within_the_folder_and_to_the_folder_are_fine(clips: Path, tmp_path: Path) -> None:
    (clips / "a").mkdir()
    (clips / "b").symlink_to("a")
    (clips / "round").symlink_to(clips)
    (tmp_path / "link").symlink_to("clips")
    for folder in (clips, tmp_path / "link", clips / "b"):
        for name in ("x", "b/x", "a/none/x", "round/b/x"):
            if folder.name != "b":
                check_within(folder, folder / name)
        check_within(folder, folder / "x")


def test_names_that_no_file_can_have_are_for_others_to_refuse(clips: Path) -> None:
    for name in ("x" * 300, "x" * 300 + "/y"):
        check_within(clips, clips / name)
        Confinement(clips).check(clips / name)


def test_a_path_that_is_elsewhere_is_refused(clips: Path) -> None:
    with pytest.raises(OutputError, match="is not in"):
        check_within(clips, clips / "../x")


def test_a_relative_folder_is_a_folder(clips: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clips)
    (clips / "drums").symlink_to(outside)
    check_within(Path(), Path("a/b"))
    with pytest.raises(OutputError, match="drums is a link"):
        check_within(Path(), Path("drums/x"))


# -- hostile manifests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [13, 14], ids=["intact", "changed"])
def test_nothing_is_removed_or_renamed_through_a_folder(clips: Path, outside: Path, size: int) -> None:
    (clips / "drums").symlink_to(outside)
    entry = planted("drums/thesis.wav", size=size)
    manifest = Manifest(clips, [HEADER], {"x": entry})
    for act in (lambda: manifest.clear_way(entry), lambda: manifest.finished("x"), lambda: manifest.sweep([])):
        with pytest.raises(OutputError, match="drums is a link that leads out of"):
            act()


def test_a_link_under_the_name_of_a_clip_is_refused(clips: Path, outside: Path) -> None:
    (clips / "a.wav").symlink_to(outside / "thesis.wav")
    entry = planted("a.wav")
    manifest = Manifest(clips, [HEADER], {"x": entry})
    for act in (lambda: manifest.clear_way(entry), lambda: manifest.finished("x")):
        with pytest.raises(OutputError, match=r"a\.wav is a link that leads out of"):
            act()
    assert (clips / "a.wav").is_symlink()


@pytest.mark.parametrize(
    "name", ["../outside/thesis.wav", "a/../../outside/thesis.wav", "ABSOLUTE", "", ".", "a\0.wav"]
)
def test_entries_of_other_places_count_as_damaged(clips: Path, outside: Path, name: str) -> None:
    path = str(outside / "thesis.wav") if name == "ABSOLUTE" else name
    lines = [
        {"format": "magnet-batch", "version": 1, "seed": 7, "settings": {}},
        {"item": "x", "seconds": 1, "files": [[path, 13, 1, digest(b"years of work")]]},
    ]
    (clips / MANIFEST_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert Manifest.read(clips).entries == {}


def test_unfinished_files_elsewhere_are_not_swept(clips: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    left = unfinished_path(elsewhere, ".wav")
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    assert LONGEST_WRITE < 1e9
    (clips / "drums").symlink_to(elsewhere)
    for files, entries in (([clips / "drums/x.wav"], {}), ([], {"x": planted("drums/x.wav")})):
        with pytest.raises(OutputError, match="drums is a link"):
            Manifest(clips, [], entries).sweep(files)
    assert left.exists()


def test_a_changed_file_takes_no_name_that_a_link_has(clips: Path, tmp_path: Path) -> None:
    (clips / "a.wav").write_bytes(b"an edit")
    (clips / "a.changed-1.wav").symlink_to(tmp_path / "none")
    entry = planted("a.wav")
    assert Manifest(clips, [HEADER], {"x": entry}).clear_way(entry) == [clips / "a.changed-2.wav"]
    assert (clips / "a.changed-1.wav").is_symlink()
    assert (clips / "a.changed-2.wav").read_bytes() == b"an edit"


@pytest.mark.parametrize("target", ["thesis.wav", "none"])
def test_the_manifest_is_no_link_to_elsewhere(clips: Path, outside: Path, target: str) -> None:
    (clips / MANIFEST_FILE).symlink_to(outside / target)
    with pytest.raises(OutputError, match="is a link that leads out of"), Manifest.opened(clips) as one:
        one.start(HEADER)


@pytest.mark.parametrize("target", ["../outside/thesis.wav", "../outside/none", "a.wav"])
def test_the_lock_is_no_link(clips: Path, outside: Path, target: str) -> None:
    (clips / "a.wav").write_bytes(b"a clip")
    (clips / LOCK_FILE).symlink_to(target)
    with pytest.raises(OutputError, match=r"\.magnet\.lock is a link"), Manifest.opened(clips):
        pass
    assert (clips / "a.wav").read_bytes() == b"a clip"


# -- writing ----------------------------------------------------------------------------------------------------------


def test_files_are_not_written_through_links(clips: Path, outside: Path) -> None:
    (clips / "drums").symlink_to(outside)
    (clips / "a.json").symlink_to(outside / "thesis.wav")
    for audio in ("a.wav", "drums/thesis.wav", "drums/new/x.wav"):
        target = Target.beside(clips / audio, metadata=True, codes=False, folder=clips)
        with pytest.raises(OutputError, match="is a link that leads out of"):
            check_targets([target], OutputConfig(), overwrite=True)
        with pytest.raises(OutputError, match="is a link that leads out of"):
            write_together([(path, b"x") for path in target.files], overwrite=True, within=clips)
    assert sorted(path.name for path in clips.iterdir()) == ["a.json", "drums"]


# -- the commands -----------------------------------------------------------------------------------------------------

Batch = Callable[..., Result]


@pytest.fixture
def batch(magnet: Magnet, tiny: str, tmp_path: Path) -> Batch:
    (tmp_path / "p.csv").write_text("prompt,output\nrain,drums/thesis.wav\nwind,wind.wav\n")
    return lambda *options: magnet("batch", "p.csv", "-o", "clips", "--model", tiny, *QUICK, *options)


@pytest.mark.parametrize("options", [(), ("--force",), ("--no-resume", "--force"), ("--mix",), ("--dry-run",)])
def test_a_batch_in_a_folder_with_a_planted_link_does_nothing(
    batch: Batch, tmp_path: Path, outside: Path, options: tuple[str, ...]
) -> None:
    assert batch().code == 0
    shutil.rmtree(tmp_path / "clips/drums")
    (tmp_path / "clips/drums").symlink_to(outside)
    before = (tmp_path / "clips" / MANIFEST_FILE).read_bytes()
    one_line_error(batch(*options), 7, "clips/drums is a link that leads out of clips")
    assert (tmp_path / "clips" / MANIFEST_FILE).read_bytes() == before


def test_force_overwrites_nothing_through_a_planted_link(batch: Batch, tmp_path: Path, outside: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/wind.json").symlink_to(outside / "thesis.wav")
    one_line_error(batch("--force"), 7, "clips/wind.json is a link that leads out of clips")


def test_the_folder_itself_may_be_a_link(batch: Batch, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "clips").symlink_to("disk")
    assert batch().code == 0
    assert batch().err.startswith("2 of 2 clips already generated")
    assert (tmp_path / "disk/drums/thesis.wav").is_file()


@pytest.mark.parametrize("output", ["clips", "clips/{slug}-{seed}.wav", "clips/{model}/x{seed}.wav"])
def test_generate_overwrites_nothing_through_a_planted_link(
    magnet: Magnet, tiny: str, tmp_path: Path, outside: Path, output: str
) -> None:
    (tmp_path / "clips").mkdir()
    model = tmp_path / "clips" / Path(tiny).name
    (model if "{model}" in output else tmp_path / "clips/rain-5.wav").symlink_to(
        outside if "{model}" in output else outside / "thesis.wav"
    )
    done = magnet("generate", "rain", "-o", output, "--force", "--model", tiny, *QUICK)
    one_line_error(done, 7, "is a link that leads out of clips")


def test_generate_follows_a_link_that_the_user_names(magnet: Magnet, tiny: str, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/real.wav").write_bytes(b"old")
    (tmp_path / "x.wav").symlink_to("disk/real.wav")
    assert magnet("generate", "rain", "-o", "x.wav", "--force", "--model", tiny, *QUICK).code == 0
    assert (tmp_path / "x.wav").is_symlink()
    assert (tmp_path / "disk/real.wav").read_bytes()[:4] == b"RIFF"
