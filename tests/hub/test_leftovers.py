"""`magnet models prune`: what is left over and ours goes, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from magnet_cli.disk.owner import own_mark
from magnet_cli.hub.cache import storage_folder
from magnet_cli.hub.leftovers import leftovers
from support.command import Magnet

REPOSITORY = "facebook/magnet-small-10secs"
OLD, NEW = "0" * 40, "1" * 40
FILES = ("state_dict.bin", "compression_state_dict.bin")
GONE = f"{own_mark().split('-')[0]}-999999999-1"  # no process has this number


def revision(cache: Path, name: str, contents: dict[str, str], repository: str = REPOSITORY) -> Path:
    """A snapshot: links to contents by their hashes."""
    storage = storage_folder(repository, cache)
    folder = storage / "snapshots" / name
    folder.mkdir(parents=True)
    (storage / "blobs").mkdir(exist_ok=True)
    for file, digest in contents.items():
        blob = storage / "blobs" / (digest * 64)
        blob.write_text(digest * 100)
        (folder / file).symlink_to(blob)
    (storage / "refs").mkdir(exist_ok=True)
    (storage / "refs" / "main").write_text(NEW)
    return folder


@pytest.fixture
def prune(magnet: Magnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Magnet:
    monkeypatch.setenv("MAGNET_MODEL_DIR", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()

    def run(*options: str, stdin: str = "") -> object:
        return magnet("models", "prune", "--cache-dir", "cache", *options, stdin=stdin)

    return run  # type: ignore[return-value]


def test_an_old_revision_goes_and_what_it_shares_stays(prune: Magnet, tmp_path: Path) -> None:
    old = revision(tmp_path / "cache", OLD, {FILES[0]: "a", FILES[1]: "b"})
    new = revision(tmp_path / "cache", NEW, {FILES[0]: "c", FILES[1]: "b"})
    result = prune(stdin="n\n")
    assert result.code == 1
    assert f"old revision of {REPOSITORY}, 100 B: cache/" in result.err
    assert "Delete this, 100 B?" in result.err
    assert old.is_dir()
    assert prune("--yes").err.endswith("deleted 100 B\n")
    assert not old.exists()
    assert [(new / name).read_text()[:1] for name in FILES] == ["c", "b"]
    assert len(list((storage_folder(REPOSITORY, tmp_path / "cache") / "blobs").iterdir())) == 2
    assert prune().err == "there is nothing to delete\n"


def test_what_others_may_have_written_stays(prune: Magnet, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    revision(cache, NEW, {FILES[0]: "a"})
    revision(cache, OLD, {FILES[0]: "b", "README.md": "c"})  # a file that we do not download
    plain = revision(cache, "2" * 40, {FILES[0]: "d"})
    (plain / FILES[1]).write_text("a file, not a link")
    pinned = revision(cache, "3" * 40, {FILES[0]: "e"})
    (pinned.parents[1] / "refs" / "v1").write_text("3" * 40)
    revision(cache, OLD, {"config.json": "f"}, "google-t5/t5-base")  # which other programs use
    without = revision(cache, OLD, {FILES[0]: "a"}, "facebook/audio-magnet-small")
    (without.parents[1] / "refs" / "main").unlink()  # nothing says which one is current
    models = tmp_path / "models"
    (models / f".unfinished-{own_mark()}-x").mkdir()  # its process runs
    (models / ".unfinished-notes").mkdir()
    (models / "elsewhere").mkdir()
    (models / f".unfinished-{GONE}-link").symlink_to(models / "elsewhere")
    (models / f".replaced-{GONE}-mine").mkdir()  # the only copy, which gets its name back
    before = sorted(tmp_path.rglob("*"))
    assert prune("--yes").err == "there is nothing to delete\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unfinished_bundle_goes(prune: Magnet, tmp_path: Path) -> None:
    folder = tmp_path / "models" / f".unfinished-{GONE}-abcd"
    folder.mkdir()
    (folder / "decoder.safetensors").write_text("x" * 10)
    assert [one.size for one in leftovers(tmp_path / "models", tmp_path / "cache")] == [10]
    assert prune("--yes").err.startswith("unfinished bundle, 10 B: ")
    assert not folder.exists()
