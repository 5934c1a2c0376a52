"""A codec in a folder of its own: read as strictly as the one in a bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from magnet_cli.errors import ModelError
from magnet_cli.model.codec import Codec
from magnet_cli.train.codec import codec_config
from magnet_cli.train.codec_folder import codec_weights, read_codec_folder, write_codec
from magnet_cli.train.options import CodecShape

SHAPE = CodecShape(sample_rate=8000, ratios=(8, 5, 2), filters=4, dimension=12, lstm=1, codebooks=2, codes=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = codec_config(SHAPE)
    write_codec(config, codec_weights(Codec(config)), tmp_path / "codec")
    return tmp_path / "codec"


def test_what_is_written_is_read(folder: Path) -> None:
    assert read_codec_folder(folder).config == codec_config(SHAPE)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda codec: codec.update(sample_rate="8000"), "codec.sample_rate"),
        (lambda codec: codec.update(lstm=True), "codec.lstm"),
        (lambda codec: codec.update(ratios=[8, "5"]), "codec.ratios"),
        (lambda codec: codec.update(surprise=1), "codec.surprise"),
        (lambda codec: codec.pop("dimension"), "codec.dimension"),
    ],
)
def test_a_value_of_another_type_is_named(folder: Path, change: Callable[[dict[str, Any]], object], part: str) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text())
    change(content["codec"])
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError) as caught:
        read_codec_folder(folder)
    assert f"{part} in {path} is missing or wrong" in caught.value.message


@pytest.mark.parametrize("content", ["", "[]", '{"format": "magnet-codec", "version": 2}', '{"format": "x"}'])
def test_another_file_describes_no_codec(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match="describes no codec"):
        read_codec_folder(folder)
