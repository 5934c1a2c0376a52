"""A codec in a folder of its own, which training writes and reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from magnet_cli.checkpoints.bundle import read_bundle, save_weights
from magnet_cli.checkpoints.parts import CodecCheckpoint
from magnet_cli.disk.small_files import read_object
from magnet_cli.errors import ModelError, shown
from magnet_cli.hub.folders import ANALYSIS_FILE, CODEC_FILE, CODEC_FOLDER, CONFIG_FILE, new_folder
from magnet_cli.hub.store import is_bundle
from magnet_cli.model.codec import Codec
from magnet_cli.model.config import CodecConfig, ShapeError
from magnet_cli.model.weights import Weights, assign, read_safetensors, without_weights
from magnet_cli.options.strict_json import from_plain
from magnet_cli.train.tones import Analysis


def codec_weights(codec: Codec) -> Weights:
    """A codec's tensors under their plain names, weight normalization folded."""
    with without_weights():
        names = list(Codec(codec.config).state_dict())
    weights = {}
    for name in names:
        owner, _, last = name.rpartition(".")
        value: Tensor = getattr(codec.get_submodule(owner), last)
        weights[name] = value.detach().float().cpu().clone().contiguous()
    return weights


def write_codec(config: CodecConfig, weights: Weights, output: Path, analysis: Analysis | None = None) -> None:
    """Write a codec as a folder of `config.json` and `codec.safetensors`, whole or not at all.

    analysis: that of a codec with phase-free codes, which `ANALYSIS_FILE` keeps.
    """
    with new_folder(output, CODEC_FOLDER, overwrite=True) as folder:
        save_weights(weights, folder / CODEC_FILE)
        if analysis is not None:
            save_weights(dict(analysis.state_dict()), folder / ANALYSIS_FILE)
        text = json.dumps({**CODEC_FOLDER.content, "version": 1, "codec": asdict(config)}, indent=2)
        (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def read_codec_folder(folder: Path) -> CodecCheckpoint:
    """The codec in a folder of `write_codec`, or in a bundle.

    Raises: ModelError for any other folder.
    """
    if is_bundle(folder):
        return read_bundle(folder).codec
    path = folder / CONFIG_FILE
    try:
        content = read_object(path)
        if content["format"] != CODEC_FOLDER.content["format"] or content["version"] != 1:
            raise ValueError(f"its format is {shown(content['format'])}")
    except (ValueError, LookupError) as error:
        raise ModelError(f"{path} describes no codec: {error}", "Train one with magnet train codec") from error
    try:
        config = from_plain(CodecConfig, content.get("codec"))
        config.check()
    except ShapeError as error:
        raise ModelError(f"codec.{error}, in {path}", "Train it again") from error
    except ValueError as error:
        raise ModelError(f"codec.{error} in {path} is missing or wrong", "Train it again") from error
    return CodecCheckpoint(folder / CODEC_FILE, config, read_safetensors(folder / CODEC_FILE))


def read_analysis(codec: CodecCheckpoint) -> Analysis | None:
    """The analysis in the folder of a codec that began phase-free; None for other codecs.

    Raises: ModelError for a file that is damaged or of another codec.
    """
    path = codec.path.parent / ANALYSIS_FILE
    if not path.is_file():
        return None
    return assign(Analysis(codec.config), read_safetensors(path), path, device=torch.device("cpu"), dtype=torch.float32)
