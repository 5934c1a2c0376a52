"""The manifest of a batch: what a crash, a damaged file or another hand leaves of it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magnet_cli.disk.unfinished import unfinished_path
from magnet_cli.errors import OutputError
from magnet_cli.jobs.manifest import MANIFEST_FILE, Entry, Header, Made, Manifest, digest, item_key
from magnet_cli.options.job import Job
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig
from magnet_cli.pipeline.inputs import InputFiles
from support.samplers import SAMPLERS, STEPS

HEADER = Header(7, {"lufs": -14.0})


def make(folder: Path, name: str, content: bytes = b"sound") -> Made:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return Made(name, len(content), path.stat().st_mtime_ns, digest(content))


def write(folder: Path, *entries: Entry) -> None:
    with Manifest.opened(folder) as manifest:
        manifest.start(HEADER)
        for entry in entries:
            manifest.add(entry)


def test_what_is_noted_is_read_again(tmp_path: Path) -> None:
    made = Entry("a", (make(tmp_path, "a.json"), make(tmp_path, "drums/ä 🎵.wav")), seconds=1.5)
    failed = Entry("b", (), "the model computed nonsense")
    write(tmp_path, made, failed)
    write(tmp_path)  # the same batch again: no second header
    manifest = Manifest.read(tmp_path)
    assert manifest.headers == [HEADER]
    assert manifest.entries == {"a": made, "b": failed}
    assert manifest.finished("a") == made
    assert manifest.finished("b") is None
    assert manifest.finished("c") is None
    assert manifest.seed(HEADER.settings) == 7
    assert manifest.seed({}) is None
    assert (tmp_path / MANIFEST_FILE).read_text().count("\n") == 3


def test_an_item_is_what_makes_its_sound() -> None:
    job, output, hashes = Job("a", 1, SamplingConfig()), OutputConfig(), {"decoder": "1"}
    keys = {
        item_key(job, output, ".wav", hashes, InputFiles()),
        item_key(Job("b", 1, SamplingConfig()), output, ".wav", hashes, InputFiles()),
        item_key(Job("a", 2, SamplingConfig()), output, ".wav", hashes, InputFiles()),
        item_key(Job("a", 1, SamplingConfig(guidance=0.0)), output, ".wav", hashes, InputFiles()),
        item_key(job, OutputConfig(lufs=-20), ".wav", hashes, InputFiles()),
        item_key(job, output, ".flac", hashes, InputFiles()),
        item_key(job, output, ".wav", {"decoder": "2"}, InputFiles()),
    }
    assert len(keys) == 7
    assert item_key(job, output, ".WAV", hashes, InputFiles()) in keys


def test_an_item_is_known_by_the_key_that_version_0_1_0_gave_it() -> None:
    """Else a folder that was begun before would be generated again."""
    for sampling, key in (
        (SamplingConfig(), "3931cf5d73e77179ac5b7eca969afd03"),
        (MusicGenSampling(), "32d19670cd7a65e6a73598d6128e5f67"),
    ):
        assert item_key(Job("a", 1, sampling), OutputConfig(), ".wav", {"decoder": "1"}, InputFiles()) == key


def test_every_way_to_sample_is_part_of_an_item() -> None:
    ways = [SamplingConfig(STEPS), *SAMPLERS.values()]
    keys = {item_key(Job("a", 1, way), OutputConfig(), ".wav", {"decoder": "1"}, InputFiles()) for way in ways}
    assert len(keys) == len(ways)


def test_an_item_that_fails_keeps_what_it_left_before(tmp_path: Path) -> None:
    made = Entry("a", (make(tmp_path, "a.wav"),))
    write(tmp_path, made, Entry("a", (), "no memory"))
    manifest = Manifest.read(tmp_path)
    assert manifest.finished("a") is None
    assert manifest.clear_way(manifest.entries["a"]) == []
    assert not (tmp_path / "a.wav").exists()


# -- files that changed -----------------------------------------------------------------------------------------------


def test_what_is_damaged_or_missing_is_not_finished(tmp_path: Path) -> None:
    for name, change in {
        "cut": lambda path: path.write_bytes(b"sou"),
        "flipped": lambda path: path.write_bytes(b"Sound"),
        "gone": lambda path: path.unlink(),
        "folder": lambda path: (path.unlink(), path.mkdir()),
    }.items():
        write(tmp_path, Entry(name, (make(tmp_path, f"{name}.json"), make(tmp_path, f"{name}.wav"))))
        assert Manifest.read(tmp_path).finished(name)
        change(tmp_path / f"{name}.wav")
        assert not Manifest.read(tmp_path).finished(name), name


def test_a_copied_folder_is_finished_too(tmp_path: Path) -> None:
    """A copy has other times of change; then the content decides."""
    write(tmp_path / "a", Entry("x", (make_in(tmp_path / "a", "x.wav"),)))
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    os.utime(tmp_path / "b/x.wav", ns=(1, 1))
    assert Manifest.read(tmp_path / "b").finished("x")


def make_in(folder: Path, name: str) -> Made:
    folder.mkdir()
    return make(folder, name)


def test_a_changed_file_is_moved_aside_and_never_lost(tmp_path: Path) -> None:
    entry = Entry("a", (make(tmp_path, "a.json"), make(tmp_path, "a.wav")))
    manifest = Manifest(tmp_path, [HEADER], {"a": entry})
    (tmp_path / "a.changed-1.wav").write_bytes(b"an earlier edit")
    (tmp_path / "a.wav").write_bytes(b"an edit")
    assert manifest.clear_way(entry) == [tmp_path / "a.changed-2.wav"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a.changed-1.wav": b"an earlier edit",
        "a.changed-2.wav": b"an edit",
    }
    assert manifest.clear_way(entry) == []


def test_unfinished_files_are_swept_where_this_batch_writes_and_nowhere_else(tmp_path: Path) -> None:
    unfinished = unfinished_path(Path(), "").name
    names = [f"{unfinished}.wav", f"other/{unfinished}.wav", ".magnet-notes.txt"]
    names += [f"drums/{unfinished}", f"made/{unfinished}.json"]
    for name in names:
        make(tmp_path, name)
    entry = Entry("a", (make(tmp_path, "made/a.wav"),))
    Manifest(tmp_path, [], {"a": entry}).sweep([tmp_path / "x.wav", tmp_path / "drums/x.wav", tmp_path / "no/x.wav"])
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".magnet-notes.txt", "made/a.wav", f"other/{unfinished}.wav"]


# -- damaged manifests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(1, 200, 7))
def test_a_line_that_a_crash_has_cut_is_made_again(tmp_path: Path, cut: int) -> None:
    """Wherever the last line ends, what came before counts, and what comes after is readable."""
    write(tmp_path, Entry("a", (make(tmp_path, "a.wav"),)), Entry("b", (make(tmp_path, "b.wav"),)))
    path = tmp_path / MANIFEST_FILE
    path.write_bytes(path.read_bytes()[:-cut])
    last = {"b"} if cut == 1 else set()  # without its newline the line is whole
    assert last <= Manifest.read(tmp_path).entries.keys() <= {"a"} | last
    write(tmp_path, Entry("c", (make(tmp_path, "c.wav"),)))
    again = Manifest.read(tmp_path)
    assert again.finished("c")
    assert again.headers == [HEADER]


def test_a_first_line_that_a_full_disk_has_cut_is_no_batch_yet(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / MANIFEST_FILE
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        assert Manifest.read(tmp_path).headers == []
    write(tmp_path)
    assert Manifest.read(tmp_path).headers == [HEADER]


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("notes", "is not the manifest of a batch"),
        ('{"prompt": "x"}', "is not the manifest of a batch"),
        ('{"format": "magnet-batch", "version": 2}', "is not of this version"),
        ('{"format": "npm", "version": 1}', "is not of this version"),
        ('{"format": "magnet-batch", "version": 1, "seed": "x", "settings": {}}\n', "is not the manifest"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, line: str, part: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(line + "\n")
    with pytest.raises(OutputError, match=part):
        Manifest.read(tmp_path)


ODD = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=5)
)
FILES = st.lists(
    st.tuples(st.sampled_from(["a.wav", "", ".", "..", "/etc/passwd", "../x", "\0", "\ud800"]), ODD, ODD, ODD),
    max_size=2,
)


@settings(max_examples=200, deadline=None)
@given(
    content=st.binary(max_size=50)
    | st.builds(
        lambda line: json.dumps(line).encode(),
        st.fixed_dictionaries({"item": ODD, "seconds": ODD, "files": FILES | ODD}, optional={"error": ODD}),
    )
)
def test_any_content_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    path = folder / MANIFEST_FILE
    path.write_bytes(content)
    start = b'{"format": "magnet-batch"'
    if content.strip(b"\n") and not (b"\n" not in content and (content.startswith(start) or start.startswith(content))):
        with pytest.raises(OutputError):
            Manifest.read(folder)
    path.write_bytes(b'{"format": "magnet-batch", "version": 1, "seed": 1, "settings": {}}\n' + content)
    try:
        manifest = Manifest.read(folder)
    except OutputError:  # another header among the random bytes
        return
    for item, entry in manifest.entries.items():
        assert manifest.finished(item) is None
        assert manifest.clear_way(entry) == []


# -- who writes where -------------------------------------------------------------------------------------------------


def test_two_are_never_in_one_folder(tmp_path: Path) -> None:
    with Manifest.opened(tmp_path):
        with pytest.raises(OutputError, match="another batch is writing into"), Manifest.opened(tmp_path):
            pass
        with Manifest.opened(tmp_path / "below"):
            pass
    with Manifest.opened(tmp_path):
        pass


def test_a_folder_that_is_gone_or_replaced_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    with Manifest.opened(folder) as manifest:
        manifest.check_folder()
        folder.rename(tmp_path / "moved")
        with pytest.raises(OutputError, match="is gone, or another folder is in its place"):
            manifest.check_folder()
        folder.mkdir()
        with pytest.raises(OutputError, match="is gone, or another folder is in its place"):
            manifest.check_folder()


@pytest.mark.parametrize("folder", ["/proc/clips", "/dev/null/clips", "file/clips"])
def test_a_folder_that_cannot_be_is_an_output_error(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write into"), Manifest.opened(tmp_path / folder):
        pass


def test_a_full_disk_is_an_output_error_and_what_was_noted_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, Entry("a", (make(tmp_path, "a.wav"),)))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, Manifest.opened(tmp_path) as manifest:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left on device"):
            manifest.add(Entry("b", (make(tmp_path, "b.wav"),)))
    assert Manifest.read(tmp_path).finished("a")


def test_a_batch_of_an_earlier_version_is_the_same_batch(tmp_path: Path) -> None:
    line = {"format": "magnet-batch", "version": 1, "seed": 5, "settings": {"model": "tiny", "regions": []}}
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert Manifest.read(tmp_path).headers == [Header(5, {"model": "tiny"})]
