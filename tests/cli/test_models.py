"""`magnet models` through the entry point."""

from __future__ import annotations

import json
import re
import sys
from io import StringIO
from pathlib import Path

import pytest

from magnet_cli.hub import store as store_module
from magnet_cli.hub.registry import BUNDLED, MODELS, RESCORERS
from magnet_cli.hub.store import Store
from magnet_cli.terminal.options import human
from support.command import Magnet, one_line_error, seconds_when_idle
from support.golden import GOLDEN

MUSIC = str(GOLDEN / "music")


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    monkeypatch.setenv("MAGNET_MODEL_DIR", str(tmp_path / "store"))
    return Store(tmp_path / "store")


@pytest.fixture
def music(magnet: Magnet, store: Store) -> Path:
    """A bundle in the store, made by the command."""
    result = magnet("models", "convert", MUSIC, str(store.folder("music")))
    assert result.code == 0, result.err
    assert result.out == f"{store.folder('music')}\n"
    return store.folder("music")


def test_the_list_shows_the_released_models_and_what_is_here(magnet: Magnet, music: Path) -> None:
    lines = magnet("models", "list").out.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", *MODELS, *RESCORERS, BUNDLED, "music", "total"]
    small = lines[1]
    for part in ("music", "10 s", "419M", "about 2.0 GB", "CC-BY-NC-4.0"):
        assert part in small
    assert lines[0].split() == ["NAME", "MAKES", "CLIP", "PARAMETERS", "DOWNLOAD", "ON", "DISK", "LICENCE"]
    assert re.search(r"419M +about 2.0 GB +- +CC", small)
    assert re.search(r"musicgen-medium .* 1.5B +about 8.0 GB +- ", "\n".join(lines))
    size = human(magnet("models", "show", "music", "--json").records[0]["bytes"])
    assert re.search(rf" - +{size} ", lines[-2])


def test_the_list_ends_with_a_total(magnet: Magnet, music: Path) -> None:
    sizes = [record["bytes"] for record in magnet("models", "list", "--json").records if record["here"]]
    assert len(sizes) == 2
    last = magnet("models", "list").out.splitlines()[-1]
    assert re.fullmatch(rf"total on this machine +{human(sum(sizes))}", last)


def test_the_list_is_json_for_programs(magnet: Magnet, music: Path) -> None:
    records = {record["name"]: record for record in magnet("models", "list", "--json").records}
    assert records["musicgen-small"]["use"] == ["to generate", "to rescore", "to begin hybrids"]
    assert set(records) == {*MODELS, *RESCORERS, BUNDLED, "music"}
    assert records["audio-magnet-small"]["sampling"]["temperature"] == 3.5
    assert records["audio-magnet-small"]["here"] is False
    assert records["audio-magnet-small"]["commercial_use"] is False
    assert records["music"]["folder"] == str(music)


def test_show_tells_everything(magnet: Magnet, music: Path) -> None:
    assert "to generate,to rescore,to begin hybrids" in magnet("models", "show", "facebook/musicgen-large").out
    released = magnet("models", "show", "magnet-medium-30secs").out
    for part in ("facebook/magnet-medium-30secs", "t5-base", "32000", "CC-BY-NC-4.0", "60,10,10,10"):
        assert part in released
    (record,) = magnet("models", "show", "music", "--json").records
    assert record["decoder"]["width"] == 32
    assert record["files"]["decoder.safetensors"]["bytes"] == (music / "decoder.safetensors").stat().st_size


def test_path_prints_the_folder(magnet: Magnet, music: Path) -> None:
    assert magnet("models", "path", "music").out == f"{music}\n"


def test_a_converted_model_generates(magnet: Magnet, music: Path) -> None:
    # How a clip was made names the model's files, which differ.
    options = ("--seed", "1", "--steps", "2,1,1,1", "--device", "cpu", "--no-metadata")
    assert magnet("generate", "x", "-o", "a.wav", "--model", MUSIC, *options).code == 0
    assert magnet("generate", "x", "-o", "b.wav", "--model", str(music), *options).code == 0
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()


def test_a_bundle_names_its_own_sampling(magnet: Magnet, music: Path) -> None:
    before = magnet("models", "defaults", "music").out
    assert "steps                    20,10,10,10" in before
    assert "sampling" not in magnet("models", "show", "music", "--json").records[0]
    changed = magnet("models", "defaults", str(music), "--steps", "3,1,1,2", "--temperature", "1.5", "--top-k", "7")
    assert changed.code == 0, changed.err
    assert "steps                    3,1,1,2" in changed.out
    assert magnet("models", "show", "music", "--json").records[0]["sampling"]["top_k"] == 7
    assert magnet("models", "verify", "music").code == 0

    # That is what it samples with, presets and options going over it.
    common = ("--model", "music", "--seed", "1", "--device", "cpu", "--json")
    (made,) = magnet("generate", "x", "-o", "a.wav", *common).records
    wanted = {"steps": [3, 1, 1, 2], "temperature": 1.5, "top_k": 7, "top_p": None, "guidance": 10.0}
    assert {name: made["sampling"][name] for name in wanted} == wanted
    (made,) = magnet("generate", "x", "-o", "b.wav", *common, "--steps", "2,1,1,1").records
    assert (made["sampling"]["steps"], made["sampling"]["temperature"]) == ([2, 1, 1, 1], 1.5)
    # A copy has it too.
    assert magnet("models", "convert", str(music), "copy").code == 0
    assert "steps                    3,1,1,2" in magnet("models", "defaults", "copy").out

    assert magnet("models", "defaults", "music", "--reset").out == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--steps", "2,2"), "the model has 4 codebooks"),
        (("--temperature", "0"), "temperature must be above 0"),
        (("--reset", "--top-k", "5"), "--reset takes no other options"),
    ],
)
def test_sampling_that_cannot_work_is_not_written(
    magnet: Magnet, music: Path, options: tuple[str, ...], words: str
) -> None:
    before = (music / "config.json").read_bytes()
    result = magnet("models", "defaults", "music", *options)
    one_line_error(result, 2, words)
    assert (music / "config.json").read_bytes() == before


@pytest.mark.parametrize("change", [{"steps": [1]}, {"temperature": "hot"}, {"temperature": -1.0}, {"color": 1}])
@pytest.mark.parametrize("place", ["bundle", "user"])
def test_damaged_sampling_is_an_error(
    magnet: Magnet, music: Path, store: Store, change: dict[str, object], place: str
) -> None:
    assert magnet("models", "defaults", "music", "--top-k", "5").code == 0
    config, user = music / "config.json", store.root / "sampling.json"
    values = json.loads(user.read_text())[str(music)] | change
    if place == "bundle":
        user.unlink()
        config.write_text(json.dumps(json.loads(config.read_text()) | {"sampling": values}))
    else:
        user.write_text(json.dumps({str(music): values}))
    one_line_error(magnet("generate", "x", "-o", "a.wav", "--model", "music", "--device", "cpu"), 3, "sampling")
    assert not Path("a.wav").exists()


def test_defaults_leave_the_bundle_as_it_is(magnet: Magnet, music: Path, store: Store) -> None:
    package = Path(store_module.__file__).parents[1] / "bundled" / "config.json"
    before, shipped = package.read_bytes(), magnet("models", "defaults", "bundled").out
    assert "steps                    12,4,4,4" in shipped
    changed = magnet("models", "defaults", "bundled", "--steps", "3,1,1,1").out
    assert "steps                    3,1,1,1" in changed
    assert magnet("models", "show", "bundled", "--json").records[0]["sampling"]["steps"] == [3, 1, 1, 1]
    assert package.read_bytes() == before
    assert magnet("models", "defaults", "bundled", "--reset").out == shipped
    assert json.loads((store.root / "sampling.json").read_text()) == {}


def test_what_is_set_for_a_bundle_goes_with_it(magnet: Magnet, music: Path, store: Store) -> None:
    assert magnet("models", "defaults", "music", "--top-k", "5").code == 0
    assert magnet("models", "remove", "music", "--yes").code == 0
    assert json.loads((store.root / "sampling.json").read_text()) == {}


def test_settings_that_cannot_be_read_are_named(magnet: Magnet, music: Path, store: Store) -> None:
    (store.root / "sampling.json").write_text("[")
    one_line_error(magnet("models", "defaults", "music"), 3, "sampling.json", "delete it")


def test_verify_finds_a_changed_byte(magnet: Magnet, music: Path) -> None:
    assert "all as they were written" in magnet("models", "verify", "music").err
    path = music / "decoder.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    one_line_error(magnet("models", "verify", "music"), 3, "decoder.safetensors")


def test_remove_asks_first(magnet: Magnet, music: Path) -> None:
    result = magnet("models", "remove", "music", stdin="n\n")
    assert result.code == 1
    assert "[y/N]" in result.err
    assert music.is_dir()
    assert magnet("models", "remove", "music", stdin="y\n").code == 0
    assert not music.exists()


def test_remove_yes_does_not_ask(magnet: Magnet, music: Path) -> None:
    result = magnet("models", "remove", "music", "--yes")
    assert result.code == 0
    assert "[y/N]" not in result.err
    assert not music.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["show", "nope"], 2, "unknown model 'nope'"),
        (["convert", "musicgen-small", "x"], 2, "whose format is not converted"),
        (["path", "magnet-small-10secs"], 2, "no bundle"),
        (["verify", "../x"], 2, "cannot be the name"),
        (["remove", "nope", "--yes"], 2, "not in"),
        (["convert", "/no/such", "x"], 3, "/no/such"),
        (["convert", MUSIC, "x", "--dtype", "int8"], 2, "float16"),
    ],
)
def test_bad_input_is_one_line_with_a_remedy(magnet: Magnet, arguments: list[str], code: int, part: str) -> None:
    one_line_error(magnet("models", *arguments), code, part)


def test_converting_onto_something_is_refused(magnet: Magnet, music: Path) -> None:
    one_line_error(magnet("models", "convert", MUSIC, str(music)), 7, "already exists")
    assert magnet("models", "convert", MUSIC, str(music), "--force").code == 0


def test_the_list_is_quick_and_imports_no_torch(tmp_path: Path) -> None:
    probe = (
        "import sys; sys.argv = ['magnet', 'models', 'list']; from magnet_cli.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'numpy', 'transformers', 'scipy'} & set(sys.modules)), file=sys.stderr)"
    )
    seconds, runs = seconds_when_idle("-c", probe)
    assert all(done.stderr == "[]\n" for done in runs)
    assert seconds < 0.3


def test_the_users_defaults_apply_and_lose_to_the_environment_and_to_options(
    magnet: Magnet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[generate]\nmodel = "{MUSIC}"\nsteps = "2,1,1,1"\ndevice = "cpu"\nlufs = -20\n')
    monkeypatch.setenv("MAGNET_CONFIG", str(config))

    def lufs(*options: str) -> float:
        (record,) = magnet("generate", "x", "-o", "x.wav", "--force", "--json", *options).records
        return round(record["lufs"])

    assert lufs() == -20
    monkeypatch.setenv("MAGNET_GENERATE_LUFS", "-18")
    assert lufs() == -18
    assert lufs("--lufs", "-16") == -16


def test_a_wrong_default_is_named(magnet: Magnet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[generate]\ncolour = 1\n")
    monkeypatch.setenv("MAGNET_CONFIG", str(config))
    one_line_error(magnet("generate", "x"), 2, "colour", str(config))


def test_standard_input_is_not_read_without_need(magnet: Magnet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(json.dumps("unread")))
    assert magnet("models", "list").code == 0
