"""Finding models in folders and in the Hub's cache. Nothing here touches the network (conftest sets HF_HUB_OFFLINE)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import huggingface_hub.constants
import pytest

from magnet_cli.errors import HubError, MagnetError, ModelError, UsageError
from magnet_cli.hub import cache as cache_module
from magnet_cli.hub import download as transfer
from magnet_cli.hub import locate as hub
from magnet_cli.hub.registry import MODELS
from magnet_cli.model.weights import WEIGHT_FILES

HASH = "0123456789abcdef0123456789abcdef01234567"
OTHER_HASH = "f" * 40

TEXT_FILES = ("config.json", "tokenizer.json", "model.safetensors")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache of our own; the library looks its place up at every call."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


def put(cache: Path, repository: str, *files: str, commit: str = HASH) -> Path:
    """Lay a snapshot into the cache as a download would, its files links to blobs; returns its folder."""
    storage = cache / f"models--{repository.replace('/', '--')}"
    snapshot = storage / "snapshots" / commit
    for folder in (storage / "refs", storage / "blobs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    (storage / "refs" / "main").write_text(commit)
    for number, name in enumerate(files):
        blob = storage / "blobs" / f"{commit[:8]}{number:032x}"
        blob.write_text(name)
        (snapshot / name).symlink_to(blob)
    return snapshot


def locate_model(name: str) -> hub.ModelSource:
    return hub.locate_model(hub.resolve(name))


def test_the_tests_are_offline() -> None:
    assert huggingface_hub.constants.HF_HUB_OFFLINE


# -- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    source = locate_model(str(tmp_path))
    assert source == hub.ModelSource(tmp_path.name, tmp_path, None, None, hub.UNKNOWN_LICENCE)


def test_a_relative_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in ("models/mine", "./models/mine", "models/../models/mine/"):
        source = locate_model(name)
        assert source.name == "mine"
        assert source.folder.samefile(tmp_path / "models" / "mine")


def test_a_folder_in_the_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert locate_model("~/mine").folder == tmp_path / "mine"


@pytest.mark.parametrize("name", ["./nowhere", "../nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c", ".\\x"])
def test_a_missing_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as caught:
        locate_model(name)
    assert f"no folder {name}" in caught.value.message


def test_a_file_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "state_dict.bin"
    path.write_text("x")
    with pytest.raises(ModelError, match="is a file") as caught:
        locate_model(str(path))
    assert "folder" in caught.value.hint


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("magnet-smal-10secs", "magnet-small-10secs"),
        ("magnet-medium-30sec", "magnet-medium-30secs"),
        ("audio-magnet-smal", "audio-magnet-small"),
        ("magnet-small-10", "magnet-small-10secs"),
    ],
)
def test_a_near_miss_gets_a_suggestion(name: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        locate_model(name)
    assert repr(name) in caught.value.message
    assert meant in caught.value.hint


def test_an_unknown_name_gets_the_list() -> None:
    with pytest.raises(UsageError) as caught:
        locate_model("zzz")
    assert all(name in caught.value.hint for name in MODELS)


def test_an_empty_name_is_not_the_current_folder() -> None:
    with pytest.raises(UsageError):
        locate_model("")


def test_a_short_name_goes_before_a_folder_of_that_name(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = put(cache, "facebook/magnet-small-10secs", *cache_module.MODEL_FILES)
    (tmp_path / "magnet-small-10secs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate_model("magnet-small-10secs").folder == snapshot
    assert locate_model("./magnet-small-10secs").repository is None


# -- models in the cache ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_cached_model_is_found_by_its_short_name(cache: Path, name: str) -> None:
    spec = MODELS[name]
    snapshot = put(cache, spec.repository, *cache_module.MODEL_FILES, "README.md")
    assert locate_model(name) == hub.ModelSource(name, snapshot, spec.repository, HASH, "CC-BY-NC-4.0")


def test_a_cached_model_is_found_by_its_hub_id(cache: Path) -> None:
    repository = "facebook/magnet-medium-30secs"
    snapshot = put(cache, repository, *cache_module.MODEL_FILES)
    assert locate_model(repository) == hub.ModelSource(repository, snapshot, repository, HASH, "CC-BY-NC-4.0")


def test_a_cached_model_of_someone_else_is_found_by_its_hub_id(cache: Path) -> None:
    snapshot = put(cache, "someone/their.model", *cache_module.MODEL_FILES)
    source = locate_model("someone/their.model")
    assert (source.folder, source.licence) == (snapshot, hub.UNKNOWN_LICENCE)


def test_the_revision_is_what_the_cache_calls_main(cache: Path) -> None:
    put(cache, "facebook/magnet-small-10secs", *cache_module.MODEL_FILES)
    snapshot = put(cache, "facebook/magnet-small-10secs", *cache_module.MODEL_FILES, commit=OTHER_HASH)
    source = locate_model("magnet-small-10secs")
    assert (source.folder, source.revision) == (snapshot, OTHER_HASH)


@pytest.mark.parametrize(
    ("model", "repository"),
    [("magnet-small-10secs", "facebook/magnet-small-10secs"), ("someone/something", "someone/something")],
)
def test_a_model_that_is_not_cached_is_an_error_that_names_it(cache: Path, model: str, repository: str) -> None:
    with pytest.raises(HubError) as caught:
        locate_model(model)
    assert repository in caught.value.message
    assert "cache" in caught.value.message
    assert not cache.exists()  # a failure leaves nothing behind


@pytest.mark.parametrize("model", ["a--b/c", "owner/name-", "owner/.."])
def test_an_impossible_hub_id_is_an_error_that_names_it(cache: Path, model: str) -> None:
    with pytest.raises(HubError) as caught:
        locate_model(model)
    assert model in caught.value.message


@pytest.mark.parametrize("present", [(), ("state_dict.bin",), ("compression_state_dict.bin",), ("README.md",)])
def test_a_model_that_is_cached_in_part_is_not_taken(cache: Path, present: tuple[str, ...]) -> None:
    repository = "facebook/magnet-small-10secs"
    put(cache, repository, *present)
    # The rest has to come from the Hub, which is out of reach; the repository itself is no wrong choice.
    with pytest.raises(HubError) as caught:
        locate_model(repository)
    assert repository in caught.value.message


def test_a_link_to_a_lost_blob_is_no_file(cache: Path) -> None:
    snapshot = put(cache, "facebook/magnet-small-10secs", *cache_module.MODEL_FILES)
    (snapshot / "state_dict.bin").resolve().unlink()
    with pytest.raises(HubError, match="facebook/magnet-small-10secs"):
        locate_model("magnet-small-10secs")


# -- text encoders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("t5-base", "text_encoder"),
        ("t5-base", "t5-base"),
        ("google-t5/t5-base", "t5-base"),
        ("google-t5/t5-base", "google-t5/t5-base"),
    ],
)
def test_a_text_encoder_in_the_models_folder_is_found(cache: Path, tmp_path: Path, name: str, folder: str) -> None:
    put(cache, "google-t5/t5-base", *TEXT_FILES)  # one of the model's own goes before it
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "config.json").write_text("{}")
    assert hub.locate_text_encoder(tmp_path, name) == tmp_path / folder


def test_a_folder_without_config_is_no_text_encoder(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "t5-base").mkdir()
    snapshot = put(cache, "google-t5/t5-base", *TEXT_FILES)
    assert hub.locate_text_encoder(tmp_path, "t5-base") == snapshot


@pytest.mark.parametrize("repository", ["t5-base", "google-t5/t5-base"])
@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_cached_text_encoder_is_found_under_its_old_and_new_name(
    cache: Path, tmp_path: Path, repository: str, weights: str
) -> None:
    snapshot = put(cache, repository, "config.json", "tokenizer.json", weights)
    assert hub.locate_text_encoder(tmp_path, "t5-base") == snapshot


def test_an_incomplete_text_encoder_does_not_hide_a_complete_one(cache: Path, tmp_path: Path) -> None:
    put(cache, "google-t5/t5-base", "config.json", "tokenizer.json")
    snapshot = put(cache, "t5-base", *TEXT_FILES)
    assert hub.locate_text_encoder(tmp_path, "t5-base") == snapshot


@pytest.mark.parametrize("name", ["google/flan-t5-base", "t5-large"])
def test_other_text_encoders_are_found(cache: Path, tmp_path: Path, name: str) -> None:
    snapshot = put(cache, name, *TEXT_FILES)
    assert hub.locate_text_encoder(tmp_path, name) == snapshot


def test_a_text_encoder_that_is_not_cached_is_an_error_that_names_it(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="google-t5/t5-large"):
        hub.locate_text_encoder(tmp_path, "t5-large")


@pytest.mark.parametrize("missing", TEXT_FILES)
def test_a_text_encoder_that_is_cached_in_part_is_not_taken(cache: Path, tmp_path: Path, missing: str) -> None:
    put(cache, "google-t5/t5-base", *(name for name in TEXT_FILES if name != missing))
    with pytest.raises(HubError, match="google-t5/t5-base"):
        hub.locate_text_encoder(tmp_path, "t5-base")


# -- codecs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["codec", "encodec_32khz"])
def test_a_codec_in_the_models_folder_is_found(cache: Path, tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "config.json").write_text("{}")
    assert hub.locate_codec(tmp_path, "facebook/encodec_32khz") == tmp_path / folder


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_cached_codec_is_found(cache: Path, tmp_path: Path, weights: str) -> None:
    snapshot = put(cache, "facebook/encodec_32khz", "config.json", weights)
    assert hub.locate_codec(tmp_path, "facebook/encodec_32khz") == snapshot


@pytest.mark.parametrize("present", [(), ("config.json",), ("model.safetensors",)])
def test_a_codec_that_is_cached_in_part_is_not_taken(cache: Path, tmp_path: Path, present: tuple[str, ...]) -> None:
    put(cache, "facebook/encodec_32khz", *present)
    with pytest.raises(HubError, match="facebook/encodec_32khz"):
        hub.locate_codec(tmp_path, "facebook/encodec_32khz")


@pytest.mark.parametrize("lost", [None, 1, 2])
def test_shards_count_when_all_are_there(cache: Path, tmp_path: Path, lost: int | None) -> None:
    snapshot = put(
        cache, "a/b", "config.json", cache_module.SHARDS, "model-00001-of-00002.safetensors", "2.safetensors"
    )
    (snapshot / cache_module.SHARDS).unlink()
    (snapshot / cache_module.SHARDS).write_text(
        '{"weight_map": {"x": "model-00001-of-00002.safetensors", "y": "2.safetensors", "z": "2.safetensors"}}'
    )
    if lost:
        (snapshot / ("model-00001-of-00002.safetensors", "2.safetensors")[lost - 1]).unlink()
    assert cache_module.cached("a/b", cache_module.CODEC) == (None if lost else snapshot)


def test_an_index_that_is_none_is_no_weights(cache: Path) -> None:
    snapshot = put(cache, "a/b", "config.json", cache_module.SHARDS)
    for content in ("", "[]", "{}", '{"weight_map": 1}', '{"weight_map": {}}', '{"weight_map": {"a": []}}'):
        (snapshot / cache_module.SHARDS).unlink()
        (snapshot / cache_module.SHARDS).write_text(content)
        assert cache_module.cached("a/b", cache_module.CODEC) is None


def test_weights_have_the_names_that_are_read() -> None:
    assert (cache_module.SAFETENSORS, cache_module.PICKLE) == WEIGHT_FILES


# -- content and its hash ---------------------------------------------------------------------------------------------


def fill(cache: Path, repository: str = "a/b") -> tuple[transfer.DownloadPlan, dict[str, bytes]]:
    """A plan whose files are in the cache as content only, not yet under their names."""
    contents = {"state_dict.bin": b"large" * 1000, "config.json": b"{}", "deep/file": b""}
    digests = {
        "state_dict.bin": hashlib.sha256(contents["state_dict.bin"]).hexdigest(),
        "config.json": hashlib.sha1(b"blob 2\0{}").hexdigest(),
        "deep/file": hashlib.sha1(b"blob 0\0").hexdigest(),
    }
    storage = cache_module.storage_folder(repository)
    (storage / "blobs").mkdir(parents=True)
    for name, content in contents.items():
        (storage / "blobs" / digests[name]).write_bytes(content)
    files = tuple(transfer.RemoteFile(name, len(contents[name]), digests[name], False) for name in contents)
    return transfer.DownloadPlan(repository, HASH, "main", storage, files), contents


def refuse(self: Path, target: str) -> None:
    """In place of Path.symlink_to: what Windows says."""
    raise OSError(1314, "A required privilege is not held by the client")


@pytest.mark.parametrize("links", [True, False])
def test_content_that_is_there_is_not_fetched_again(cache: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:
        monkeypatch.setattr(Path, "symlink_to", refuse)
    plan, contents = fill(cache)
    steps: list[int] = []
    result = transfer.download(plan, listener=lambda event: steps.append(event.done))
    assert {name: (result.folder / name).read_bytes() for name in result.files} == contents
    assert (steps[0], steps[-1]) == (0, plan.missing_size)
    assert (result.folder / "config.json").is_symlink() == links
    assert cache_module.cached("a/b", cache_module.Wanted(tuple(contents))) == result.folder
    assert cache_module.damaged(result.folder) == []


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_another_run_has_brought_is_left_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(Path, "symlink_to", refuse)
    plan, contents = fill(cache)  # made before the other run had finished: it says that nothing is cached
    folder = transfer.download(plan).folder
    before = {name: (folder / name).lstat() for name in contents}
    transfer.download(plan)
    assert {name: (folder / name).lstat() for name in contents} == before  # never away, not even for a moment


def test_damage_is_found_and_taken_out(cache: Path) -> None:
    plan, _ = fill(cache)
    folder = transfer.download(plan).folder
    (folder / "state_dict.bin").resolve().write_bytes(b"Large" * 1000)
    (folder / "deep" / "file").resolve().unlink()
    damaged = cache_module.damaged(folder)
    assert sorted(damaged) == ["deep/file", "state_dict.bin"]
    cache_module.discard(folder, damaged)
    assert sorted(path.name for path in plan.storage.glob("blobs/*")) == [plan.files[1].hash]
    assert cache_module.damaged(folder) == []
    assert cache_module.cached("a/b", cache_module.MODEL) is None


def test_every_error_has_a_hint(cache: Path, tmp_path: Path) -> None:
    for model in ("", "zzz", "./nowhere", "someone/something", "magnet-small-10secs"):
        with pytest.raises(MagnetError) as caught:
            locate_model(model)
        assert caught.value.hint
        assert not caught.value.hint.endswith(".")
