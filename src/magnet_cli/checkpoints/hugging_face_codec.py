"""Reading an EnCodec in the format of `transformers`."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from magnet_cli.checkpoints.parts import CodecCheckpoint
from magnet_cli.checkpoints.released import fold_weight_norm
from magnet_cli.disk.small_files import UnreadableFileError, read_object
from magnet_cli.errors import ModelError, one_line
from magnet_cli.model.config import MOST_CODES, CodecConfig, check_sizes
from magnet_cli.model.weights import Weights, read_weights


def read_hugging_face_codec(folder: Path) -> CodecCheckpoint:
    """Read an EnCodec in the format of `transformers`: config.json and model.safetensors or pytorch_model.bin."""
    try:
        settings = read_object(folder / "config.json")
    except UnreadableFileError as error:
        raise _no_codec(folder, error) from error
    config = hugging_face_codec_config(settings, folder)
    path, state = read_weights(folder)
    return hugging_face_codec(config, state, path)


def hugging_face_codec(config: CodecConfig, state: Weights, path: Path) -> CodecCheckpoint:
    """The codec of these tensors of transformers' EncodecModel, which come from the file `path`."""
    return CodecCheckpoint(path, config, fold_weight_norm(_rename_hugging_face_codec(state), path))


def hugging_face_codec_config(settings: Any, folder: Path) -> CodecConfig:
    """The codec that the settings in a folder's config.json describe; ModelError if they describe none."""
    try:
        config = _hugging_face_config(settings)
        config.check()
        return config
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise _no_codec(folder, error) from error


def _no_codec(folder: Path, error: Exception) -> ModelError:
    return ModelError(f"{folder} has no usable config.json: {one_line(error)}", "Fetch the codec again")


def _hugging_face_config(settings: dict[str, Any]) -> CodecConfig:
    if settings["model_type"] != "encodec" or settings["normalize"] or settings["norm_type"] != "weight_norm":
        raise ValueError("it is not an EnCodec with weight normalization and without loudness normalization")
    ratios, codes = settings["upsampling_ratios"], settings["codebook_size"]
    for name, value in (("codebook_size", codes), *(("upsampling_ratios", ratio) for ratio in ratios)):
        check_sizes({name: value}, {name: (1, MOST_CODES)})
    hop = math.prod(ratios)
    bits_per_frame = (codes - 1).bit_length()
    frame_rate = -(-settings["sampling_rate"] // hop)
    # As transformers' EncodecConfig.num_quantizers: what the highest bandwidth (kbit/s) pays for.
    codebooks = int(1000 * settings["target_bandwidths"][-1] // (frame_rate * bits_per_frame))
    return CodecConfig(
        sample_rate=settings["sampling_rate"],
        channels=settings["audio_channels"],
        codebooks=codebooks,
        codes=codes,
        dimension=settings["hidden_size"],
        n_filters=settings["num_filters"],
        n_residual_layers=settings["num_residual_layers"],
        ratios=tuple(ratios),
        kernel_size=settings["kernel_size"],
        residual_kernel_size=settings["residual_kernel_size"],
        last_kernel_size=settings["last_kernel_size"],
        dilation_base=settings["dilation_growth_rate"],
        compress=settings["compress"],
        lstm=settings["num_lstm_layers"],
        causal=settings["use_causal_conv"],
        pad_mode=settings["pad_mode"],
        true_skip=not settings["use_conv_shortcut"],
        activation="ELU",
        activation_params={"alpha": 1.0},
        trim_right_ratio=settings["trim_right_ratio"],
        final_activation=None,
    )


def _rename_hugging_face_codec(state: Weights) -> Weights:
    """The tensors of transformers' EncodecModel under our names."""
    # Convolutions straight in the decoder: the first and the last are plain, those between are transposed.
    direct = {int(found[1]) for name in state if (found := re.match(r"decoder\.layers\.(\d+)\.conv\.", name))}
    transposed = sorted(direct)[1:-1]
    renamed: Weights = {}
    for name, weight in state.items():
        name = re.sub(r"\.parametrizations\.weight\.original0$", ".weight_g", name)
        name = re.sub(r"\.parametrizations\.weight\.original1$", ".weight_v", name)
        name = re.sub(r"^(encoder|decoder)\.layers\.", r"\1.model.", name)
        name = re.sub(r"^quantizer\.layers\.(\d+)\.codebook\.", r"quantizer.vq.layers.\1._codebook.", name)
        layer = re.match(r"decoder\.model\.(\d+)\.conv\.", name)
        module = "convtr" if layer and int(layer[1]) in transposed else "conv"
        renamed[name.replace(".conv.", f".{module}.{module}.")] = weight
    return renamed
