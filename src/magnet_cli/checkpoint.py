"""Reading checkpoints: files -> configurations and weights, strictly.

The released format is two files written by torch.save, `state_dict.bin` (the decoder) and
`compression_state_dict.bin` (the codec), each a dictionary with the weights in `best_state` and the training
configuration in `xp.cfg`, a YAML string. The second file may instead point to a codec in Hugging Face format.
A tensor that is missing, unexpected or of the wrong shape is an error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from magnet_cli.errors import ModelError, one_line
from magnet_cli.model.codec import Codec
from magnet_cli.model.config import CodecConfig, DecoderConfig, TextConfig
from magnet_cli.model.decoder import MaskedTransformer
from magnet_cli.model.weights import Weights, as_weights, assign, read_package, read_weights, without_weights
from magnet_cli.options.sampling import Task
from magnet_cli.settings import Settings

DECODER_FILE = "state_dict.bin"
CODEC_FILE = "compression_state_dict.bin"

# What this package's network is; a checkpoint whose configuration says otherwise is refused.
SUPPORTED_DECODER: dict[str, Any] = {
    "lm_model": "transformer_lm_magnet",
    "codebooks_pattern.modeling": "parallel",
    "fuser.sum": [],
    "fuser.prepend": [],
    "fuser.cross": ["description"],
    "fuser.input_interpolate": [],
    "fuser.cross_attention_pos_emb": False,
    "interleave_stereo_codebooks.use": False,
    "conditioners.description.model": "t5",
    "conditioners.description.t5.normalize_text": False,
    "transformer_lm.norm": "layer_norm",
    "transformer_lm.norm_first": True,
    "transformer_lm.activation": "gelu",
    "transformer_lm.positional_embedding": "sin",
    "transformer_lm.causal": False,
    "transformer_lm.past_context": None,
    "transformer_lm.layer_scale": None,
    "transformer_lm.qk_layer_norm": False,
    "transformer_lm.qk_layer_norm_cross": False,
    "transformer_lm.kv_repeat": 1,
    "transformer_lm.bias_ff": False,
    "transformer_lm.bias_attn": False,
    "transformer_lm.bias_proj": False,
}
SUPPORTED_CODEC: dict[str, Any] = {
    "compression_model": "encodec",
    "encodec.autoencoder": "seanet",
    "encodec.quantizer": "rvq",
    "encodec.renormalize": False,
    "seanet.norm": "weight_norm",
    "seanet.disable_norm_outer_blocks": 0,
}


@dataclass(frozen=True)
class DecoderCheckpoint:
    """A decoder as read from disk: weights are memory-mapped, under the names of MaskedTransformer."""

    path: Path
    config: DecoderConfig
    text: TextConfig
    task: Task
    weights: Weights


@dataclass(frozen=True)
class CodecCheckpoint:
    """A codec as read from disk: weights under the names of Codec, weight normalization folded."""

    path: Path
    config: CodecConfig
    weights: Weights


@dataclass(frozen=True)
class CodecPointer:
    """A checkpoint without a codec of its own: `name` says which one it was trained with."""

    path: Path
    name: str


# -- building networks ------------------------------------------------------------------------------------------------


def build_decoder(checkpoint: DecoderCheckpoint, device: torch.device, dtype: torch.dtype) -> MaskedTransformer:
    """The network with the checkpoint's weights. In the stored dtype on the CPU, the weights stay memory-mapped."""
    with without_weights():
        model = MaskedTransformer(checkpoint.config)
    return assign(model, checkpoint.weights, checkpoint.path, device=device, dtype=dtype)


def build_codec(checkpoint: CodecCheckpoint, device: torch.device) -> Codec:
    """The codec with the checkpoint's weights, in float32."""
    try:
        with without_weights():
            codec = Codec(checkpoint.config)
    except (TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError, LookupError) as error:
        raise ModelError(
            f"the configuration of {checkpoint.path} describes no codec that can be built: {one_line(error)}",
            "Its configuration is damaged; fetch it again",
        ) from error
    codec = assign(codec, checkpoint.weights, checkpoint.path, device=device, dtype=torch.float32)
    for module in codec.modules():
        if isinstance(module, nn.LSTM):
            module.flatten_parameters()  # one block of memory, as cuDNN wants it
    return codec


# -- reading the released format --------------------------------------------------------------------------------------


def read_decoder(folder: Path) -> DecoderCheckpoint:
    """Read `state_dict.bin` of a checkpoint folder."""
    path, package = _read_part(folder, DECODER_FILE)
    settings = Settings.parse(package.get("xp.cfg"), path)
    settings.require(SUPPORTED_DECODER)
    weights = _rename_decoder(as_weights(package.get("best_state"), path, "best_state"), path)
    projection = weights.get("text_projection.weight")
    if projection is None or projection.dim() != 2:
        raise ModelError(f"{path} has no text projection", "It is no MAGNeT checkpoint; choose another")
    width = settings.integer("transformer_lm.dim", least=4)  # two sines and two cosines
    config = DecoderConfig(
        width=width,
        heads=settings.integer("transformer_lm.num_heads"),
        layers=settings.integer("transformer_lm.num_layers"),
        feed_forward=int(settings.number("transformer_lm.hidden_scale") * width),
        codebooks=settings.integer("transformer_lm.n_q"),
        codes=settings.integer("transformer_lm.card"),
        text_width=projection.shape[1],
        span_length=settings.integer("masking.span_len"),
        context=settings.integer("transformer_lm.subcodes_context", least=-1),
        clip_seconds=settings.number("dataset.segment_duration"),
        max_period=settings.number("transformer_lm.max_period", 10_000),  # the reference's default, seldom written
        position_scale=settings.number("transformer_lm.positional_scale", 1),  # likewise
    )
    if config.width % 2 or config.width % config.heads:
        raise ModelError(
            f"{path} has a width of {config.width} and {config.heads} heads, which do not go together",
            "Its configuration is damaged; fetch it again",
        )
    task: Task = "sound" if settings.value("solver", None) == "audio_magnet" else "music"
    text = TextConfig(settings.text("conditioners.description.t5.name"))
    return DecoderCheckpoint(path, config, text, task, weights)


def read_codec(folder: Path) -> CodecCheckpoint | CodecPointer:
    """Read `compression_state_dict.bin` of a checkpoint folder."""
    path, package = _read_part(folder, CODEC_FILE)
    if "pretrained" in package:
        return CodecPointer(path, str(package["pretrained"]))
    settings = Settings.parse(package.get("xp.cfg"), path)
    settings.require(SUPPORTED_CODEC)
    ratios = settings.value("seanet.ratios")
    if not (isinstance(ratios, list) and ratios and all(isinstance(ratio, int) and ratio > 0 for ratio in ratios)):
        raise ModelError(f"seanet.ratios in the configuration in {path} is {ratios!r}", "Fetch it again")
    config = CodecConfig(
        sample_rate=settings.integer("encodec.sample_rate"),
        channels=settings.integer("encodec.channels"),
        codebooks=settings.integer("rvq.n_q"),
        codes=settings.integer("rvq.bins"),
        dimension=settings.integer("seanet.dimension"),
        n_filters=settings.integer("seanet.n_filters"),
        n_residual_layers=settings.integer("seanet.n_residual_layers", least=0),
        ratios=tuple(ratios),
        kernel_size=settings.integer("seanet.kernel_size"),
        residual_kernel_size=settings.integer("seanet.residual_kernel_size"),
        last_kernel_size=settings.integer("seanet.last_kernel_size"),
        dilation_base=settings.integer("seanet.dilation_base"),
        compress=settings.integer("seanet.compress"),
        lstm=settings.integer("seanet.lstm", least=0),
        causal=bool(settings.value("seanet.causal")),
        pad_mode=settings.text("seanet.pad_mode"),
        true_skip=bool(settings.value("seanet.true_skip")),
        activation=settings.text("seanet.activation"),
        activation_params=settings.mapping("seanet.activation_params"),
        trim_right_ratio=settings.number("seanet.decoder.trim_right_ratio"),
        final_activation=settings.value("seanet.decoder.final_activation"),
    )
    return CodecCheckpoint(
        path, config, _fold_weight_norm(as_weights(package.get("best_state"), path, "best_state"), path)
    )


def _read_part(folder: Path, name: str) -> tuple[Path, Mapping[Any, Any]]:
    path = folder / name
    if not path.is_file():
        raise ModelError(f"{folder} has no {name}", f"A checkpoint folder holds {DECODER_FILE} and {CODEC_FILE}")
    return path, read_package(path)


DECODER_NAMES = (
    (r"^emb\.", "embeddings."),
    (r"^transformer\.layers\.", "layers."),
    (r"^linears\.", "output_heads."),
    (r"^condition_provider\.conditioners\.description\.output_proj\.", "text_projection."),
    (r"\.self_attn\.in_proj_weight$", ".self_attention.qkv.weight"),
    (r"\.self_attn\.out_proj\.", ".self_attention.out."),
    (r"\.cross_attention\.out_proj\.", ".cross_attention.out."),
    (r"\.norm1\.", ".self_norm."),
    (r"\.norm_cross\.", ".cross_norm."),
    (r"\.norm2\.", ".feed_forward_norm."),
    (r"\.linear1\.", ".up."),
    (r"\.linear2\.", ".down."),
)


def _rename_decoder(state: Weights, path: Path) -> Weights:
    """The released tensors under our names. Cross-attention's stacked projection is split: its inputs differ."""
    renamed: Weights = {}
    for name, weight in state.items():
        for pattern, replacement in DECODER_NAMES:
            name = re.sub(pattern, replacement, name)
        if name.endswith("cross_attention.in_proj_weight"):
            if weight.dim() != 2 or weight.shape[0] % 3:
                raise ModelError(f"{name} in {path} has shape {list(weight.shape)}", "Fetch it again")
            block, third = name.removesuffix("in_proj_weight"), weight.shape[0] // 3
            renamed[block + "query.weight"], renamed[block + "key_value.weight"] = weight[:third], weight[third:]
        else:
            renamed[name] = weight
    return renamed


def _fold_weight_norm(state: Weights, path: Path) -> Weights:
    """Replace each pair of direction `weight_v` and length `weight_g` by the weight they stand for."""
    folded: Weights = {}
    for name, weight in state.items():
        block = name[:-2] if name.endswith(("weight_v", "weight_g")) else None
        if block is None or not {f"{block}_v", f"{block}_g"} <= state.keys():
            folded[name] = weight
        elif name.endswith("_v"):
            length = state[f"{block}_g"]
            if weight.dim() < 2 or length.shape != (weight.shape[0], *[1] * (weight.dim() - 1)):
                raise ModelError(
                    f"{block}_g has shape {list(length.shape)} and {name} {list(weight.shape)} in {path}, "
                    "which do not go together",
                    "The file is damaged; fetch it again",
                )
            folded[block] = torch._weight_norm(weight.float(), length.float(), 0)
    return folded


# -- reading a codec in Hugging Face format ---------------------------------------------------------------------------


def read_hugging_face_codec(folder: Path) -> CodecCheckpoint:
    """Read an EnCodec in the format of `transformers`: config.json and model.safetensors or pytorch_model.bin."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _no_codec(folder, error) from error
    config = hugging_face_codec_config(settings, folder)
    path, state = read_weights(folder)
    return hugging_face_codec(config, state, path)


def hugging_face_codec(config: CodecConfig, state: Weights, path: Path) -> CodecCheckpoint:
    """The codec of these tensors of transformers' EncodecModel, which come from the file `path`."""
    return CodecCheckpoint(path, config, _fold_weight_norm(_rename_hugging_face_codec(state), path))


def hugging_face_codec_config(settings: Any, folder: Path) -> CodecConfig:
    """What the settings of transformers' EncodecConfig in a folder's config.json describe; ModelError if no codec."""
    try:
        return _hugging_face_config(settings)
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise _no_codec(folder, error) from error


def _no_codec(folder: Path, error: Exception) -> ModelError:
    return ModelError(f"{folder} has no usable config.json: {one_line(error)}", "Fetch the codec again")


def _hugging_face_config(settings: dict[str, Any]) -> CodecConfig:
    if settings["model_type"] != "encodec" or settings["normalize"] or settings["norm_type"] != "weight_norm":
        raise ValueError("it is not an EnCodec with weight normalization and without loudness normalization")
    hop = math.prod(settings["upsampling_ratios"])
    codes = settings["codebook_size"]
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
        ratios=tuple(settings["upsampling_ratios"]),
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
