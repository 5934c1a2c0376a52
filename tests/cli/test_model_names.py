"""Commands agree on what a model's name means: bundled, by Hub id, and in other places."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from magnet_cli.hub.cache import storage_folder
from support.command import Magnet, one_line_error


@pytest.fixture(autouse=True)
def prompts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MAGNET_MODEL_DIR", str(tmp_path / "store"))
    (tmp_path / "p.txt").write_text("disco\nrain\n")


def dry_run(magnet: Magnet, model: str, *options: str) -> str:
    result = magnet("batch", "p.txt", "-o", "clips", "--dry-run", "--model", model, "--device", "cpu", *options)
    assert result.code == 0, result.err
    return result.err


def seconds(text: str) -> float:
    """The time that a dry run estimates."""
    found = re.search(r"about (?:(\d+) h )?(?:(\d+) min)?\s?(?:([\d.]+) s)? \(at", text)
    assert found is not None, text
    hours, minutes, rest = (float(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + rest


def test_the_bundled_model_is_here(magnet: Magnet) -> None:
    told = dry_run(magnet, "bundled")
    assert "not here" not in told
    assert "at " in told
    assert seconds(told) < seconds(dry_run(magnet, "magnet-small-10secs")) / 20


def test_a_hub_id_is_estimated_as_the_model_it_is(magnet: Magnet) -> None:
    by_id, by_name = (dry_run(magnet, name) for name in ("facebook/audio-magnet-medium", "audio-magnet-medium"))
    small = dry_run(magnet, "audio-magnet-small")
    assert 1 / 3 < seconds(by_id) / seconds(by_name) < 3  # as fast as the machine is just then
    assert seconds(by_id) > 1.5 * seconds(small)
    disk = re.search(r"about (\S+ \S+) of disk", by_id)
    assert disk is not None
    assert f"about {disk[1]} of disk" in by_name  # at 16 kHz


@pytest.mark.parametrize("model", ["audio-magnet-medium", "facebook/audio-magnet-medium"])
@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--steps", "2,1"), "the model has 4 codebooks"),
        (("--duration", "20", "--overlap", "15"), "leaves nothing of the 10 s"),
        (("--rescorer", "musicgen-small"), "MusicGen is for music only"),
        (("--hybrid", "2", "--hybrid-model", "facebook/audio-magnet-small"), "only a MusicGen can generate"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "batch"])
def test_a_hub_id_is_checked_as_early_as_its_short_name(
    magnet: Magnet, model: str, options: tuple[str, ...], part: str, command: str
) -> None:
    made = ("x", "-o", "a.wav") if command == "generate" else ("p.txt", "-o", "clips")
    result = magnet(command, *made, "--offline", "--model", model, *options)
    assert (result.code, result.out) == (2, "")
    assert part in result.err


def test_the_list_looks_in_the_cache_that_is_named(magnet: Magnet, tmp_path: Path) -> None:
    storage = storage_folder("facebook/musicgen-small", tmp_path / "c")
    folder = storage / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text("0" * 40)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    records = {record["name"]: record for record in magnet("models", "list", "--json", "--cache-dir", "c").records}
    assert (records["musicgen-small"]["here"], records["musicgen-medium"]["here"]) == (True, False)
    (record,) = magnet("models", "show", "facebook/musicgen-small", "--json", "--cache-dir", "c").records
    assert (record["here"], record["folder"]) == (True, str(Path("c") / folder.relative_to(tmp_path / "c")))
    (record,) = magnet("models", "show", "musicgen-small", "--json").records
    assert record["here"] is False


def test_a_released_model_is_shown_by_its_hub_id(magnet: Magnet) -> None:
    by_id, by_name = (
        magnet("models", "show", name).out for name in ("facebook/magnet-medium-30secs", "magnet-medium-30secs")
    )
    assert by_id == by_name
    assert "60,10,10,10" in by_id


def test_a_near_miss_is_told(magnet: Magnet) -> None:
    one_line_error(magnet("generate", "x", "-o", "a.wav", "--model", "bundeld"), 2, "Did you mean bundled?")
