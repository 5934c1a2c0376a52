"""Batches whose manifest was damaged, cut or deleted: the same command finishes them, and loses nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magnet_cli.audio.formats import sidecar
from magnet_cli.disk.atomic import write_together
from magnet_cli.errors import OutputError
from magnet_cli.jobs.manifest import MANIFEST_FILE, START, Entry, Header, Made, Manifest, digest
from magnet_cli.jobs.plan import BatchPlan, Request, check_same, clear_way, plan_batch, plan_rows
from magnet_cli.jobs.prompt_file import Problems, read_prompt_file
from magnet_cli.jobs.seal import is_sealed, sealed
from magnet_cli.jobs.targets import check_targets
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.sampling import SamplingConfig
from magnet_cli.options.sampling_overrides import Overrides
from magnet_cli.pipeline.inputs import InputFiles
from support.command import Magnet, Result, one_line_error

QUICK = ("--steps", "2,1,1,1", "--temperature", "10", "--guidance", "1", "--device", "cpu")
PROMPTS = ("rain", "wind", "snow")
HASHES = {"decoder": "0"}

Batch = Callable[..., Result]


@pytest.fixture
def batch(magnet: Magnet, tiny: str, tmp_path: Path) -> Batch:
    """Run the batch of three clips, the seed drawn."""
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS))
    return lambda *options: magnet("batch", "p.txt", "-o", "clips", "--model", tiny, "--same-seed", *QUICK, *options)


def codes(folder: str | Path = "clips") -> dict[str, str]:
    """The hash of each clip's codes, by its file's name."""
    records = {path.stem: json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))}
    return {name: record["codes"]["sha256"] for name, record in records.items()}


def lines(folder: str | Path = "clips") -> list[dict[str, Any]]:
    """The lines of the manifest but for those about the files that show the results."""
    every = [json.loads(line) for line in (Path(folder) / MANIFEST_FILE).read_text().splitlines()]
    return [line for line in every if "reports" not in line]


# -- the command ------------------------------------------------------------------------------------------------------


def test_a_deleted_manifest_costs_nothing_where_clips_have_records(batch: Batch) -> None:
    assert batch("--save-codes").code == 0
    before, header = codes(), lines()[0]
    (Path("clips") / MANIFEST_FILE).unlink()
    Path("clips", f"{next(iter(before))}.wav").unlink()
    dry = batch("--save-codes", "--dry-run")
    assert dry.out.count("waiting") == 1
    assert not (Path("clips") / MANIFEST_FILE).exists()
    done = batch("--save-codes")
    assert done.code == 0, done.err
    assert done.out.count("\n") == 1
    assert "manifest.jsonl was damaged: 2 clips restored from the records" in done.err
    # Of the clip without audio the record and the codes were there, and nobody knows whose they are.
    assert done.err.count("a file had changed since it was written") == 2
    assert {name: one for name, one in codes().items() if "changed" not in name} == before
    assert [line["seed"] for line in lines() if "format" in line] in ([header["seed"]], [])
    assert batch("--save-codes").err.endswith("nothing to generate\n")


def test_a_manifest_that_is_deleted_while_a_batch_runs_is_begun_anew(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert batch("--seed", "5").code == 0
    before = codes()
    shutil.rmtree("clips")
    add, added = Manifest.add, []

    def deleting(self: Manifest, *arguments: Any) -> None:
        add(self, *arguments)
        added.append(arguments)
        if len(added) == 2:
            (self.folder / MANIFEST_FILE).unlink()

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "add", deleting)
        assert batch("--seed", "5").code == 0
    assert len(lines()) == 1
    again = batch("--seed", "5")
    assert (again.code, again.out) == (0, ""), again.err
    assert batch("--seed", "5").err.endswith("nothing to generate\n")
    assert codes() == before
    assert all(is_sealed(line) for line in lines())


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("place", [5, 60, 800, -1])
def test_a_flipped_bit_in_the_manifest_is_overcome(batch: Batch, place: int, metadata: bool) -> None:
    """In the header, in the first line after it, and at the end; the seed is drawn, so it has to be found again."""
    options = () if metadata else ("--no-metadata", "--save-codes")
    assert batch(*options).code == 0
    before = {path.name: path.read_bytes() for path in Path("clips").iterdir() if path.suffix in (".wav", ".npz")}
    path = Path("clips") / MANIFEST_FILE
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    done = batch(*options)
    assert done.code == 0, done.err
    assert done.out.count("\n") <= (0 if metadata else 1)
    assert "Traceback" not in done.err
    for name, was in before.items():
        assert Path("clips", name).read_bytes() == was, name
    assert batch(*options).err.endswith("nothing to generate\n")


def test_a_record_beside_a_clip_is_not_believed_about_other_content(batch: Batch) -> None:
    assert batch("--seed", "5").code == 0
    (Path("clips") / MANIFEST_FILE).unlink()
    sound = Path("clips/01-rain-5.wav")
    sound.write_bytes(sound.read_bytes()[:-1] + b"\x55")
    record = Path("clips/02-wind-5.json")
    record.write_text(record.read_text().replace('"prompt": "wind"', '"prompt": "wine"'))
    done = batch("--seed", "5")
    assert done.out == "clips/01-rain-5.wav\nclips/02-wind-5.wav\n", done.err
    assert Path("clips/01-rain-5.changed-1.wav").read_bytes()[-1:] == b"\x55"
    assert "wine" in Path("clips/02-wind-5.changed-1.json").read_text()


def test_the_same_folder_for_another_batch_is_still_refused_without_its_manifest(batch: Batch) -> None:
    assert batch("--seed", "5").code == 0
    (Path("clips") / MANIFEST_FILE).unlink()
    before = {path: path.read_bytes() for path in Path("clips").iterdir()}
    done = batch("--seed", "5", "--lufs", "-20")
    assert done.code == 7
    assert "already exists" in done.err.splitlines()[-1]
    assert {path: path.read_bytes() for path in Path("clips").iterdir() if path in before} == before


def test_another_clips_files_are_not_taken_for_lost_ones(batch: Batch, tmp_path: Path) -> None:
    """Two batches had the same names; of the first, the manifest has lost a line."""
    assert batch("-o", "clips/{slug}.wav", "--seed", "5").code == 0
    text = (Path("clips") / MANIFEST_FILE).read_text().splitlines(keepends=True)
    (Path("clips") / MANIFEST_FILE).write_text("".join([text[0], *text[2:]]))
    before = {path.name: path.read_bytes() for path in Path("clips").glob("*.wav")}
    mixed = batch("-o", "clips/{slug}.wav", "--seed", "6", "--mix")
    assert mixed.code == 0, mixed.err
    assert {name: Path("clips", name).read_bytes() for name in before} == before
    assert len(list(Path("clips").glob("*.wav"))) == 6


# -- manifests of earlier versions ------------------------------------------------------------------------------------


def as_before(folder: Path) -> None:
    """Make a folder what an earlier version would have written: no checksums, and the header once."""
    old = [{name: one for name, one in line.items() if name not in ("sum", "batch")} for line in lines(folder)]
    (folder / MANIFEST_FILE).write_text("".join(json.dumps(line) + "\n" for line in old))
    for path in folder.glob("*.json"):
        record = {name: one for name, one in json.loads(path.read_text()).items() if name not in ("sum", "manifest")}
        path.write_text(json.dumps(record, indent=2) + "\n")


@pytest.fixture
def old(batch: Batch, magnet: Magnet, tiny: str) -> Batch:
    """Run a batch in a folder that an earlier version began, where all rows have the same seed."""
    assert batch("--seed", "5", "--no-metadata").code == 0
    as_before(Path("clips"))
    return lambda *options: magnet("batch", "p.txt", "-o", "clips", "--model", tiny, *QUICK, *options)


def test_an_earlier_versions_manifest_is_read_and_added_to(old: Batch) -> None:
    assert old("--seed", "5", "--no-metadata").err.endswith("nothing to generate\n")
    Path("p.txt").write_text("\n".join([*PROMPTS, "hail"]))
    added = old("--no-metadata")
    assert added.out == "clips/04-hail-5.wav\n", added.err
    assert [is_sealed(line) for line in lines()] == [None] * 4 + [True]
    assert old("--no-metadata").err.endswith("nothing to generate\n")


def test_an_earlier_versions_manifest_without_its_header_needs_the_seed(old: Batch) -> None:
    path = Path("clips") / MANIFEST_FILE
    path.write_bytes(path.read_bytes().replace(b'"seed"', b'"se"d"', 1))
    one_line_error(old("--no-metadata"), 7, "first line of", "--seed")
    done = old("--seed", "5", "--no-metadata")
    assert (done.code, done.out) == (0, ""), done.err


def test_an_earlier_version_reads_a_new_manifest(batch: Batch) -> None:
    """What it reads of a line: these keys, and others are no matter to it."""
    assert batch("--seed", "5").code == 0
    assert (Path("clips") / MANIFEST_FILE).read_bytes().startswith(START)
    header, *items = lines()
    assert (header["format"], header["version"], header["seed"]) == ("magnet-batch", 1, 5)
    for line in items:
        assert isinstance(line["item"], str)
        assert "format" not in line
        assert [len(file) for file in line["files"]] == [4, 4]


# -- every byte -------------------------------------------------------------------------------------------------------


def request(folder: Path, *, metadata: bool = False) -> Request:
    return Request(
        file=str(folder.parent / "p.txt"),
        output=str(folder),
        model="tiny",
        seed=None,
        variations=1,
        overrides=Overrides(),
        edits={},
        helpers={},
        finish=OutputConfig(),
        codes=False,
        metadata=metadata,
        resume=True,
        mix=False,
        force=False,
    )


def planned(manifest: Manifest, header: Header | None = None, *, metadata: bool = False) -> BatchPlan:
    """The plan of the three clips; without a header, by the seed that the manifest knows."""
    asked = request(manifest.folder, metadata=metadata)
    if header is None:
        seed = manifest.seed(asked.settings(HASHES))
        assert seed is not None, "the seed is lost"
        header = Header(seed, asked.settings(HASHES))
    problems = Problems(asked.file)
    rows = read_prompt_file(asked.file, None, problems).rows
    each = plan_rows(rows, asked, SamplingConfig(), seed=header.seed, check=lambda job: None, problems=problems)
    plan = plan_batch(each, asked, manifest, header=header, hashes=HASHES, inputs=InputFiles(), problems=problems)
    problems.check()
    check_same(plan, manifest, drawn=True)
    return plan


Make = Callable[[bool], bytes]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Makes a folder of three clips, whose sound is none, with records or without; returns its manifest's content."""

    def make(records: bool) -> bytes:
        folder = tmp_path / "clips"
        (tmp_path / "p.txt").write_text("\n".join(PROMPTS))
        header = Header(5, request(folder).settings(HASHES))
        with Manifest.opened(folder) as manifest:
            manifest.start(header)
            for item in planned(manifest, header).todo:
                sound = item.key.encode()
                contents = [(item.target.audio, sound)]
                if records:
                    note = manifest.note(item.key, [(item.target.audio.name, sound)])
                    contents.insert(0, (sidecar(item.target.audio), json.dumps(sealed(note)).encode()))
                write_together(contents)
                files = [Made(path.name, len(one), path.stat().st_mtime_ns, digest(one)) for path, one in contents]
                manifest.add(Entry(item.key, tuple(files)))
        return (folder / MANIFEST_FILE).read_bytes()

    return make


@pytest.mark.parametrize("mask", [0x04, 0xFF])
def test_any_flipped_byte_loses_nothing(made: Make, tmp_path: Path, mask: int) -> None:
    folder = tmp_path / "clips"
    content = made(True)
    assert len(planned(Manifest.read(folder), metadata=True).done) == 3
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= mask
        (folder / MANIFEST_FILE).write_bytes(damaged)
        plan = planned(Manifest.read(folder), metadata=True)
        assert len(plan.done) == 3, place


def test_a_manifest_cut_anywhere_loses_nothing(made: Make, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    content = made(True)
    for length in range(len(content)):
        (folder / MANIFEST_FILE).write_bytes(content[:length])
        assert len(planned(Manifest.read(folder), metadata=True).done) == 3, length


@pytest.mark.parametrize("cut", [False, True])
def test_without_records_the_rest_is_made_again_and_nothing_is_overwritten(
    made: Make, tmp_path: Path, cut: bool
) -> None:
    """Two items at most are lost with one byte: those on both sides of a line end."""
    folder = tmp_path / "clips"
    content = made(False)
    lost = set()
    for place in range(content.index(b"\n") + 1 if cut else 0, len(content)):
        path = folder / MANIFEST_FILE
        path.write_bytes(
            content[:place] if cut else content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        )
        manifest = Manifest.read(folder)
        plan = planned(manifest)
        lost.add(len(plan.todo))
        before = sorted(one.read_bytes() for one in folder.glob("*.wav"))
        moved = clear_way(plan, manifest)
        assert len(moved) == len(plan.todo)
        check_targets([item.target for item in plan.todo], "pcm16", overwrite=False)
        assert sorted(one.read_bytes() for one in folder.glob("*.wav")) == before
        for one in moved:
            one.rename(one.with_name(one.name.replace(".changed-1", "")))
    assert lost == ({0, 1, 2, 3} if cut else {0, 1, 2})


@pytest.mark.parametrize("content", [b"notes\n", b'{"file_name": "a.wav", "text": "settings"}\n', b"\0" * 2000])
def test_anothers_file_of_that_name_is_refused_as_before(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(OutputError, match="is not the manifest of a batch"):
        Manifest.read(tmp_path)
