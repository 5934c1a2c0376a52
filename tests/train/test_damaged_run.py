"""Trainings that are to go on from damaged files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from magnet_cli.errors import ModelError, OutputError, UsageError
from magnet_cli.hub.folders import CODEC_FILE, CONFIG_FILE
from magnet_cli.model.config import RELEASED_CODEC
from magnet_cli.train.code_cache import _read as read_tokens
from magnet_cli.train.codec_folder import read_codec_folder
from magnet_cli.train.data import find_examples
from magnet_cli.train.loop.run import resume
from magnet_cli.train.options import Optimization, Places, RunOptions

# As versions without a schedule wrote them.
SETTINGS = {"width": 8, "steps": 5, "optimization": {"learning_rate": 0.1, "warmup": 2}}


class Network:
    """A trainer of which only `load` is called."""

    def __init__(self) -> None:
        self.network = torch.nn.Linear(2, 2)

    def load(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """A training that was stopped after three steps."""
    places = Places(tmp_path / "model")
    places.run.mkdir()
    (places.run / "settings.json").write_text(json.dumps(SETTINGS))
    torch.save({"step": 3, "trainer": {"network": torch.nn.Linear(2, 2).state_dict()}}, places.state)
    return places


def go_on(places: Places) -> int:
    run = RunOptions(steps=5, batch_size=1)
    return resume(Network(), run, places, SETTINGS, Optimization()).step  # type: ignore[arg-type]


def test_an_undamaged_training_goes_on(places: Places) -> None:
    assert go_on(places) == 3


@pytest.mark.parametrize("text", ["", "[]", "7", "null", "[" * 100_000, '{"width": NaN}', '{"width": 1e999}', "\xff"])
def test_damaged_settings_are_named(places: Places, text: str) -> None:
    (places.run / "settings.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(OutputError, match=r"settings\.json is damaged"):
        go_on(places)


def test_other_settings_are_told_shortly(places: Places) -> None:
    (places.run / "settings.json").write_text(json.dumps({**SETTINGS, "width": [1] * 10_000}))
    with pytest.raises(UsageError, match="width") as caught:
        go_on(places)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"step": 3},
        {"step": 3, "trainer": {}},
        {"step": 3, "trainer": 7},
        {"step": 3, "trainer": {"network": {"weight": torch.zeros(3)}}},
        {"step": 3, "trainer": {"network": 7}},
        {"step": "3", "trainer": {"network": torch.nn.Linear(2, 2).state_dict()}},
        {"step": -1, "trainer": {"network": torch.nn.Linear(2, 2).state_dict()}},
        {"step": None, "trainer": {"network": torch.nn.Linear(2, 2).state_dict()}},
        [1],
    ],
)
def test_a_damaged_state_is_named(places: Places, state: object) -> None:
    torch.save(state, places.state)
    with pytest.raises(OutputError, match=r"state\.pt") as caught:
        go_on(places)
    assert "--restart" in caught.value.hint


def test_a_state_that_is_cut_is_named(places: Places) -> None:
    content = places.state.read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 1):
        places.state.write_bytes(content[:cut])
        with pytest.raises(OutputError, match=r"state\.pt"):
            go_on(places)


GOOD = {**asdict(RELEASED_CODEC), "ratios": [8, 5, 4, 4]}


@pytest.mark.parametrize(
    "codec",
    [
        *(
            None,
            7,
            [],
            {},
            {**GOOD, "more": 1},
            {**GOOD, "ratios": 8},
            {**GOOD, "ratios": [0]},
            {**GOOD, "lstm": 10**6},
        ),
        *({**GOOD, "sample_rate": rate} for rate in (float("nan"), -1, 1e999, None)),
        *({**GOOD, "pad_mode": "sideways"}, {**GOOD, "activation": "Module"}),
    ],
)
def test_a_codec_folder_that_describes_none_is_an_error(tmp_path: Path, codec: Any) -> None:
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"format": "magnet-codec", "version": 1, "codec": codec}))
    (tmp_path / CODEC_FILE).touch()
    with pytest.raises(ModelError, match=r"config\.json"):
        read_codec_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.jsonl", "[" * 100_000),
        ("metadata.jsonl", '{"file_name": "' + "x" * 5000 + '"}'),
        ("metadata.jsonl", '{"file_name": "a\\u0000.wav"}'),
        ("metadata.csv", 'file_name,text\n"' + "x" * 200_000 + '",y\n'),
        ("metadata.csv", "file_name,text\n" + "x" * 300 + ".wav,y\n"),
        ("a.json", "[" * 100_000),
        ("a.json", '{"text": 1e999}'),
    ],
)
def test_damaged_descriptions_are_named(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError):
        find_examples(tmp_path, texts=True)


@pytest.mark.parametrize(
    "shard",
    [
        {},
        {"codes": torch.zeros(2, 4, 5, dtype=torch.int16)},
        {"codes": torch.zeros(2, 4, 5), "valid": torch.ones(2, dtype=torch.int64)},
        {"codes": torch.zeros(2, 4, 0, dtype=torch.int16), "valid": torch.ones(2, dtype=torch.int64)},
        {"codes": torch.zeros(2, 3, 5, dtype=torch.int16), "valid": torch.ones(2, dtype=torch.int64)},
        {"codes": torch.full((2, 4, 5), 64, dtype=torch.int16), "valid": torch.ones(2, dtype=torch.int64)},
        {"codes": torch.zeros(2, 4, 5, dtype=torch.int16), "valid": torch.tensor([1, 6])},
        {"codes": torch.zeros(2, 4, 5, dtype=torch.int16), "valid": torch.tensor([1])},
        None,
    ],
)
def test_damaged_tokens_are_named(tmp_path: Path, shard: dict[str, torch.Tensor] | None) -> None:
    path = tmp_path / "a.safetensors"
    good = {"codes": torch.full((2, 4, 5), 63, dtype=torch.int16), "valid": torch.tensor([1, 5])}
    save_file(good, path)
    assert read_tokens(path, 2, 4, 64).keys() == good.keys()
    path.write_bytes(b"x" * 20) if shard is None else save_file(shard, path)
    with pytest.raises(OutputError, match=r"a\.safetensors") as caught:
        read_tokens(path, 2, 4, 64)
    assert caught.value.hint.startswith("Delete a.safetensors")
