"""What a model's name means: one answer for every command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from magnet_cli.errors import MagnetError, MagnetWarning, ModelError, UsageError
from magnet_cli.hub import store
from magnet_cli.hub.cache import storage_folder
from magnet_cli.hub.locate import ResolvedModel, known_models, resolve
from magnet_cli.hub.registry import ALIASES, BUNDLED, MODELS, RESCORERS
from magnet_cli.hub.store import BUNDLED_FOLDER, BundleInfo, Store
from magnet_cli.model.config import DecoderConfig
from magnet_cli.model.decoder import MaskedTransformer
from magnet_cli.options.runtime import PlacesConfig
from magnet_cli.options.sampling import SamplingConfig
from support.golden import GOLDEN
from support.networks import CONFIG

MEDIUM = MODELS["audio-magnet-medium"]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlacesConfig:
    """An empty store and an empty cache, and an empty working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return PlacesConfig(tmp_path / "store", tmp_path / "cache")


def put(places: PlacesConfig, name: str, tiny: str) -> Path:
    """A bundle in the store."""
    assert places.model_dir is not None
    return Path(shutil.copytree(tiny, places.model_dir / name))


def cache_musicgen(places: PlacesConfig, name: str) -> Path:
    """As much of a MusicGen in the Hub cache as counts for being there."""
    storage = storage_folder(RESCORERS[name].repository, places.cache_dir)
    folder = storage / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text("0" * 40)
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / file).write_text("{}")
    return folder


def test_the_bundled_model_is_here_and_known(places: PlacesConfig) -> None:
    model = resolve(BUNDLED, places)
    assert (model.kind, model.folder, model.bundle) == ("bundled", BUNDLED_FOLDER, BUNDLED_FOLDER)
    assert model.facts is not None
    assert (model.facts.seconds, model.facts.sample_rate, model.facts.licence) == (10, 16_000, "MIT")
    assert model.facts.parameters < 10_000_000
    assert model.facts.sampling == replace(SamplingConfig(), steps=(12, 4, 4, 4), temperature=1.0, guidance=3.0)


@pytest.mark.parametrize("name", ["audio-magnet-medium", "facebook/audio-magnet-medium"])
def test_a_released_model_is_known_by_both_its_names(places: PlacesConfig, name: str, tiny: str) -> None:
    model = resolve(name, places)
    assert (model.given, model.kind, model.name, model.folder) == (name, "hub", MEDIUM.name, None)
    assert (model.repository, model.facts, model.file_name) == (MEDIUM.repository, MEDIUM.facts, MEDIUM.name)
    folder = put(places, MEDIUM.name, tiny)
    model = resolve(name, places)
    assert (model.kind, model.bundle, model.repository) == ("stored", folder, MEDIUM.repository)
    assert model.facts is not None  # those of the bundle, which is what will be opened
    assert (model.facts.task, model.facts.seconds) == ("music", 0.3)


def test_a_model_of_someone_else_is_unknown_until_it_is_here(places: PlacesConfig, tiny: str) -> None:
    model = resolve("someone/their.model", places)
    assert (model.kind, model.folder, model.facts, model.licence) == ("hub", None, None, "unknown")
    assert (model.repository, model.file_name) == ("someone/their.model", "their.model")
    folder = put(places, "someone--their.model", tiny)
    for name in ("someone/their.model", "someone--their.model"):
        assert resolve(name, places).bundle == folder


@pytest.mark.parametrize("name", ["musicgen-small", "facebook/musicgen-small"])
def test_a_musicgen_is_looked_for_in_the_cache_that_is_named(places: PlacesConfig, name: str) -> None:
    model = resolve(name, places)
    assert (model.kind, model.name, model.folder, model.is_musicgen) == ("musicgen", "musicgen-small", None, True)
    folder = cache_musicgen(places, "musicgen-small")
    assert resolve(name, places).folder == folder
    assert resolve(name, PlacesConfig(places.model_dir)).folder is None
    assert {one.name: one.folder for one in known_models(places)}["musicgen-small"] == folder


def test_folders_go_by_what_is_in_them(places: PlacesConfig, tiny: str) -> None:
    Path("mine").mkdir()
    assert (resolve("mine", places).kind, resolve("./mine/", places).name) == ("released", "mine")
    assert resolve(str(GOLDEN / "music"), places).kind == "released"
    Path("mine/config.json").write_text('{"model_type": "musicgen"}')
    assert (resolve("mine", places).kind, resolve("mine", places).is_musicgen) == ("musicgen folder", True)
    assert (resolve(tiny, places).kind, resolve(tiny, places).bundle) == ("bundle", Path(tiny))


def test_names_go_before_folders_and_folders_before_hub_ids(places: PlacesConfig, tiny: str) -> None:
    for name in (MEDIUM.name, BUNDLED, "musicgen-small"):
        Path(name).mkdir()
        assert resolve(name, places).kind != "released"
        assert resolve(f"./{name}", places).kind == "released"
    Path(MEDIUM.repository).mkdir(parents=True)
    assert resolve(MEDIUM.repository, places).kind == "released"


def test_a_folder_that_is_no_model_does_not_hide_a_stored_bundle(places: PlacesConfig, tiny: str) -> None:
    stored = put(places, "mine", tiny)
    assert resolve("mine", places).folder == stored
    Path("mine").mkdir()
    assert resolve("mine", places).folder == stored
    Path("mine/state_dict.bin").write_text("x")
    assert resolve("mine", places).kind == "released"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("bundeld", "bundled"), ("musicgen-smal", "musicgen-small"), ("my-modle", "my-model"), ("my", "my-model")],
)
def test_a_near_miss_is_told_of_every_kind_of_name(places: PlacesConfig, tiny: str, name: str, meant: str) -> None:
    put(places, "my-model", tiny)
    with pytest.raises(UsageError) as caught:
        resolve(name, places)
    assert caught.value.hint.startswith(f"Did you mean {meant}? ")
    assert str(caught.value).endswith("a Hub id.")  # one mark, not "?."


@pytest.mark.parametrize(("alias", "name"), sorted(ALIASES.items()))
def test_an_alias_is_resolved_as_the_name_that_it_stands_for(
    places: PlacesConfig, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alias: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve(alias, places) == resolve(name, places)
    Path(alias).mkdir()  # a folder of results, say
    assert resolve(alias, places).given == name
    assert Store.at(places.model_dir).folder(alias).name == name
    shutil.copytree(tiny, alias, dirs_exist_ok=True)  # a model of the user's comes first
    assert resolve(alias, places).kind == "bundle"
    assert Store.at(put(places, alias, tiny).parent).folder(alias).name == alias


def test_a_name_of_two_models_suggests_both(places: PlacesConfig) -> None:
    with pytest.raises(UsageError, match="Did you mean magnet-small-10secs or magnet-small-30secs"):
        resolve("magnet-small", places)


@pytest.mark.parametrize("name", ["musicgen-smal", "musicgen-smaal", "musicgen-tiny", "musicgen-xl"])
def test_a_musicgen_is_never_mistaken_for_a_magnet(places: PlacesConfig, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(name, places)
    assert "magnet-" not in str(caught.value)


def test_a_damaged_bundle_is_an_error_and_the_list_goes_on_without_it(places: PlacesConfig, tiny: str) -> None:
    folder = put(places, "mine", tiny)
    config = json.loads((folder / "config.json").read_text())
    config["decoder"]["width"] = "wide"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"decoder\.width"):
        resolve("mine", places)
    config["decoder"]["width"], config["codec"]["ratios"] = 32, [0, 1]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="frames of 0 samples"):
        resolve("mine", places)
    with pytest.warns(MagnetWarning, match="frames of 0 samples"):
        known = known_models(places)
    assert [model.name for model in known] == [*MODELS, *RESCORERS, BUNDLED]


def test_without_a_model_inside_the_package_none_is_listed(
    places: PlacesConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(store, "BUNDLED_FOLDER", tmp_path / "none")
    assert BUNDLED not in [model.name for model in known_models(places)]
    with pytest.raises(MagnetError):
        resolve(BUNDLED, places)


@pytest.mark.parametrize("config", [CONFIG, BundleInfo.read(BUNDLED_FOLDER).part(DecoderConfig, "decoder")])
def test_parameters_are_counted_as_the_network_has_them(config: DecoderConfig) -> None:
    assert config.parameters == sum(weight.numel() for weight in MaskedTransformer(config).state_dict().values())


def test_resolving_is_repeatable(places: PlacesConfig) -> None:
    assert isinstance(resolve("musicgen-large", places), ResolvedModel)
    assert resolve("musicgen-large", places) == resolve("musicgen-large", places)
