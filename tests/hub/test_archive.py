"""One file that carries a model: what is exported is imported, and everything else is refused without a trace."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magnet_cli.checkpoints.open import convert
from magnet_cli.errors import ModelError, OutputError
from magnet_cli.hub import archive
from magnet_cli.hub.archive import INDEX, export_archive, import_archive
from magnet_cli.hub.store import BundleInfo, Store
from support.golden import GOLDEN

NAME = "magnet-small-10secs"
FILES = ["config.json", "codec.safetensors", "decoder.safetensors", "text_encoder/config.json"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> BundleInfo:
    folder = tmp_path_factory.mktemp("bundles") / "music"
    convert(str(GOLDEN / "music"), folder, dtype=None)
    return BundleInfo.read(folder)


@pytest.fixture
def packed(bundle: BundleInfo, tmp_path: Path) -> Path:
    export_archive(bundle, NAME, tmp_path / "m.tar")
    return tmp_path / "m.tar"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_exported_is_imported(bundle: BundleInfo, packed: Path, store: Store) -> None:
    imported = import_archive(packed, store)
    assert imported.new
    assert imported.info.folder == store.root / NAME
    assert contents(imported.info.folder) == contents(bundle.folder)
    assert imported.info.problems() == []
    again = import_archive(packed, store)
    assert (again.new, again.info.folder) == (False, imported.info.folder)


def test_an_archive_is_a_tar_file_and_always_the_same(bundle: BundleInfo, packed: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle.folder, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*"):
        os.utime(path, (1, 1))
    size = export_archive(BundleInfo.read(tmp_path / "copy"), NAME, tmp_path / "n.tar")
    assert (tmp_path / "n.tar").read_bytes() == packed.read_bytes()
    assert packed.stat().st_size == size
    with tarfile.open(packed) as tar:
        assert tar.getnames()[:5] == [INDEX, *FILES]
        member = tar.extractfile(INDEX)
        assert member is not None
        index = json.load(member)
        for name, one in index["files"].items():
            file = tar.extractfile(name)
            assert file is not None
            assert hashlib.sha256(file.read()).hexdigest() == one["sha256"]


def test_a_damaged_bundle_is_not_exported(bundle: BundleInfo, tmp_path: Path) -> None:
    shutil.copytree(bundle.folder, tmp_path / "copy")
    path = tmp_path / "copy" / "codec.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"codec\.safetensors in it has changed"):
        export_archive(BundleInfo.read(tmp_path / "copy"), NAME, tmp_path / "m.tar")
    assert not (tmp_path / "m.tar").exists()


def test_nothing_is_overwritten(bundle: BundleInfo, packed: Path, store: Store) -> None:
    before = packed.read_bytes()
    with pytest.raises(OutputError, match="already exists"):
        export_archive(bundle, NAME, packed)
    assert packed.read_bytes() == before
    import_archive(packed, store)
    config = store.root / NAME / "config.json"
    config.write_text(config.read_text().replace('"licence": "', '"licence": "other '))
    changed = config.read_bytes()
    with pytest.raises(OutputError, match="already exists"):
        import_archive(packed, store)
    assert config.read_bytes() == changed
    assert import_archive(packed, store, overwrite=True).info.problems() == []
    (store.root / NAME / "thesis.txt").write_text("mine")
    config.write_bytes(changed)
    with pytest.raises(OutputError, match=r"thesis\.txt, which magnet did not write"):
        import_archive(packed, store, overwrite=True)


def test_a_full_disk_is_noticed_before(packed: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))  # type: ignore[attr-defined]
    with pytest.raises(OutputError, match="has 1,000 bytes free"):
        import_archive(packed, store)
    assert not store.root.exists()


# -- what is refused --------------------------------------------------------------------------------------------------


def members(packed: Path) -> dict[str, bytes]:
    with tarfile.open(packed) as tar:
        return {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]


def rewritten(packed: Path, change: Callable[[dict[str, Any]], object]) -> bytes:
    """The archive with a changed index, otherwise as `export_archive` writes it."""
    files = members(packed)
    index = json.loads(files.pop(INDEX))
    change(index)
    index.pop("sha256")
    index["sha256"] = hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()
    files = {INDEX: (json.dumps(index, indent=2) + "\n").encode(), **files}
    target = io.BytesIO()
    for name, content in files.items():
        target.write(archive._header(name, len(content)) + archive._padded(content))
    target.write(bytes(1024))
    target.write(bytes(-target.tell() % archive.RECORD))
    return target.getvalue()


def with_member(packed: Path, **fields: Any) -> bytes:
    """The archive with its second member replaced by one of these fields."""
    target = io.BytesIO()
    with tarfile.open(packed) as tar, tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as out:
        for number, info in enumerate(tar.getmembers()):
            content = tar.extractfile(info)
            if number == 1:
                for name, value in fields.items():
                    setattr(info, name, value)
            out.addfile(info, content)
    return target.getvalue()


def renamed(old: str, new: str) -> Callable[[dict[str, Any]], object]:
    def change(index: dict[str, Any]) -> None:
        index["files"] = {new if name == old else name: one for name, one in index["files"].items()}

    return change


def resized(name: str, size: int) -> Callable[[dict[str, Any]], object]:
    return lambda index: index["files"][name].update(size=size)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (renamed("decoder.safetensors", "../decoder.safetensors"), "cannot be a file of a bundle"),
        (renamed("decoder.safetensors", "/tmp/decoder.safetensors"), "cannot be a file of a bundle"),
        (renamed("decoder.safetensors", ".unfinished-config.json"), "cannot be a file of a bundle"),
        (renamed("decoder.safetensors", "run.py"), "cannot be a file of a bundle"),
        (lambda index: index["files"].pop("config.json"), "no config.json"),
        (lambda index: index.update(name="../x"), "cannot be the name of a model"),
        (lambda index: index.update(name=".hidden"), "cannot be the name of a model"),
        (lambda index: index.update(name="bundled"), "part of this package"),
        (lambda index: index.update(name=7), "its name is 7"),
        (lambda index: index.update(version=2), "version 2"),
        (lambda index: index.update(format="zip"), "not an index"),
        (resized("decoder.safetensors", 10**15), "cut short"),
        (resized("decoder.safetensors", -1), "cannot be a file of a bundle"),
        (resized("decoder.safetensors", 10**30), "64 bits"),
        (lambda index: index["files"]["codec.safetensors"].update(sha256="0" * 64), "has changed"),
        (lambda index: index.update(more=1), "not as magnet writes it"),
    ],
)
def test_a_hostile_index_is_refused(
    packed: Path, store: Store, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    packed.write_bytes(rewritten(packed, change))
    with pytest.raises(ModelError, match=words):
        import_archive(packed, store)
    assert contents(packed.parent).keys() == {"m.tar"}


@pytest.mark.parametrize(
    "fields",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.LNKTYPE, "linkname": "magnet-archive.json"},
        {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.DIRTYPE},
        {"type": tarfile.GNUTYPE_SPARSE},
        {"name": "../config.json"},
        {"name": "/config.json"},
        {"name": "x" * 300},
        {"mode": 0o4755},
        {"uname": "root"},
        {"mtime": 5},
    ],
    ids=str,
)
def test_another_kind_of_member_is_refused(packed: Path, store: Store, fields: dict[str, Any]) -> None:
    content = with_member(packed, **fields)
    packed.write_bytes(content)
    with pytest.raises(ModelError, match="cannot import"):
        import_archive(packed, store)
    assert contents(packed.parent).keys() == {"m.tar"}


def test_every_cut_is_refused(packed: Path, store: Store) -> None:
    whole = packed.read_bytes()
    for size in (0, 1, 511, 512, 700, len(whole) // 2, len(whole) - 10_240, len(whole) - 1):
        packed.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"not an archive of magnet|cut short|not valid JSON|damaged"):
            import_archive(packed, store)
    packed.write_bytes(whole + bytes(10_240))
    with pytest.raises(ModelError, match="too long"):
        import_archive(packed, store)
    assert contents(packed.parent).keys() == {"m.tar"}


def test_a_flipped_byte_is_refused(packed: Path, store: Store) -> None:
    whole = packed.read_bytes()
    for place in [*range(0, 1600, 97), *range(1600, len(whole), len(whole) // 40), len(whole) - 1]:
        packed.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ModelError):
            import_archive(packed, store)
    assert contents(packed.parent).keys() == {"m.tar"}


def test_other_files_are_refused(tmp_path: Path, store: Store) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("x" * 5000)
    shutil.make_archive(str(tmp_path / "zipped"), "gztar", GOLDEN / "music" / "t5-base")
    for name in ("pipe", "text", "zipped.tar.gz", "missing"):
        with pytest.raises(ModelError, match="cannot import"):
            import_archive(tmp_path / name, store)
    assert not store.root.exists()
