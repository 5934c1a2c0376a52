"""Reading the released format: two files written by torch.save.

`state_dict.bin` (the decoder) and `compression_state_dict.bin` (the codec) each hold a dictionary with the weights in
`best_state` and the training configuration in `xp.cfg`, a YAML string. The second file may instead name a codec in
Hugging Face format. A tensor that is missing, unexpected or of the wrong shape is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from magnet_cli.checkpoints.parts import CodecCheckpoint, CodecPointer, DecoderCheckpoint
from magnet_cli.checkpoints.released_yaml import Settings
from magnet_cli.errors import ModelError, shown
from magnet_cli.model.config import LONGEST_NAME, MOST_HIDDEN, CodecConfig, DecoderConfig, TextConfig
from magnet_cli.model.weights import Weights, as_weights, check_memory, read_package
from magnet_cli.options.sampling import Task

DECODER_FILE = "state_dict.bin"
CODEC_FILE = "compression_state_dict.bin"
# Bytes of memory that a codec's weights may take beyond the size of its file; the released one has 0.24 GB in all.
MOST_FOLDED = 1 << 29

# What this package's network supports; a checkpoint with another configuration is refused.
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


def read_decoder(folder: Path) -> DecoderCheckpoint:
    """Read `state_dict.bin` of a checkpoint folder."""
    path, package = _read_part(folder, DECODER_FILE)
    settings = Settings.parse(package.get("xp.cfg"), path)
    settings.require(SUPPORTED_DECODER)
    weights = own_decoder(as_weights(package.get("best_state"), path, "best_state"), path)
    projection = weights.get("text_projection.weight")
    if projection is None or projection.dim() != 2:
        raise ModelError(f"{path} has no text projection", "It is not a MAGNeT checkpoint; choose another")
    config, text = decoder_shape(settings, text_width=projection.shape[1])
    task: Task = "sound" if settings.value("solver", None) == "audio_magnet" else "music"
    return DecoderCheckpoint(path, config, text, task, weights)


def decoder_shape(settings: Settings, *, text_width: int) -> tuple[DecoderConfig, TextConfig]:
    """The decoder and the text encoder that a training configuration describes; ModelError for impossible ones."""
    width = settings.integer("transformer_lm.dim")
    hidden = settings.number("transformer_lm.hidden_scale") * width
    with settings.naming_itself():
        config = DecoderConfig(
            width=width,
            heads=settings.integer("transformer_lm.num_heads"),
            layers=settings.integer("transformer_lm.num_layers"),
            feed_forward=int(min(hidden, MOST_HIDDEN + 1)),  # a value that is not finite is refused as too large
            codebooks=settings.integer("transformer_lm.n_q"),
            codes=settings.integer("transformer_lm.card"),
            text_width=text_width,
            span_length=settings.integer("masking.span_len"),
            context=settings.integer("transformer_lm.subcodes_context", least=-1),
            clip_seconds=settings.number("dataset.segment_duration"),
            max_period=settings.number("transformer_lm.max_period", 10_000),  # the reference's default, seldom written
            position_scale=settings.number("transformer_lm.positional_scale", 1),  # likewise
        )
        config.check()
        text = TextConfig(settings.text("conditioners.description.t5.name"))
        text.check()
    return config, text


def read_codec(folder: Path) -> CodecCheckpoint | CodecPointer:
    """Read `compression_state_dict.bin` of a checkpoint folder."""
    path, package = _read_part(folder, CODEC_FILE)
    if "pretrained" in package:
        return CodecPointer(path, _codec_name(package["pretrained"], path))
    config = codec_shape(Settings.parse(package.get("xp.cfg"), path))
    return CodecCheckpoint(
        path, config, fold_weight_norm(as_weights(package.get("best_state"), path, "best_state"), path)
    )


def codec_shape(settings: Settings) -> CodecConfig:
    """The codec that a training configuration describes; ModelError for an impossible one."""
    settings.require(SUPPORTED_CODEC)
    ratios = settings.value("seanet.ratios")
    if not (isinstance(ratios, list) and ratios and all(isinstance(ratio, int) and ratio > 0 for ratio in ratios)):
        raise ModelError(f"seanet.ratios in the configuration in {settings.path} is {shown(ratios)}", "Fetch it again")
    with settings.naming_itself():
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
            causal=settings.value("seanet.causal"),
            pad_mode=settings.text("seanet.pad_mode"),
            true_skip=settings.value("seanet.true_skip"),
            activation=settings.text("seanet.activation"),
            activation_params=settings.mapping("seanet.activation_params"),
            trim_right_ratio=settings.number("seanet.decoder.trim_right_ratio"),
            final_activation=settings.value("seanet.decoder.final_activation"),
        )
        config.check()
    return config


def _codec_name(name: object, path: Path) -> str:
    """The name of the codec that a checkpoint refers to."""
    if not isinstance(name, str) or not name.isprintable() or not 1 <= len(name) <= LONGEST_NAME:
        raise ModelError(f"{path} refers to the codec {shown(name)}, which cannot be a name", "Fetch it again")
    return name


def _read_part(folder: Path, name: str) -> tuple[Path, Mapping[Any, Any]]:
    path = folder / name
    if not path.is_file():
        raise ModelError(f"{folder} has no {name}", f"A checkpoint folder holds {DECODER_FILE} and {CODEC_FILE}")
    return path, read_package(path)


DESCRIPTION = "condition_provider.conditioners.description.output_proj."
# Names of the decoder's tensors in the released format, and here. The first table holds prefixes.
RELEASED_BEGINNINGS = (
    ("emb.", "embeddings."),
    ("transformer.layers.", "layers."),
    ("linears.", "output_heads."),
    (DESCRIPTION, "text_projection."),
)
RELEASED_PARTS = (
    (".self_attn.in_proj_weight", ".self_attention.qkv.weight"),
    (".self_attn.out_proj.", ".self_attention.out."),
    (".cross_attention.out_proj.", ".cross_attention.out."),
    (".norm1.", ".self_norm."),
    (".norm_cross.", ".cross_norm."),
    (".norm2.", ".feed_forward_norm."),
    (".linear1.", ".up."),
    (".linear2.", ".down."),
)
# Cross-attention's stacked projection, of which ours is split: its inputs differ.
STACKED, QUERY, KEY_VALUE = (
    f".cross_attention.{name}" for name in ("in_proj_weight", "query.weight", "key_value.weight")
)


def _renamed(name: str, *, before: int, after: int) -> str:
    """A tensor's name, from one column of the tables to the other."""
    for names in RELEASED_BEGINNINGS:
        if name.startswith(names[before]):
            name = names[after] + name.removeprefix(names[before])
            break
    for names in RELEASED_PARTS:
        name = name.replace(names[before], names[after])
    return name


def own_decoder(state: Weights, path: Path) -> Weights:
    """The released tensors of a decoder, of the file `path`, under our names."""
    own: Weights = {}
    for released, weight in state.items():
        name = _renamed(released, before=0, after=1)
        if not name.endswith(STACKED):
            own[name] = weight
            continue
        if weight.dim() != 2 or weight.shape[0] % 3:
            raise ModelError(f"{name} in {path} has shape {list(weight.shape)}", "Fetch it again")
        block, third = name.removesuffix(STACKED), weight.shape[0] // 3
        own[block + QUERY], own[block + KEY_VALUE] = weight[:third], weight[third:]
    return own


def released_decoder(weights: Weights) -> Weights:
    """A decoder's tensors under their released names: the reverse of `own_decoder`."""
    released: Weights = {}
    for name, weight in weights.items():
        block = name.removesuffix(QUERY)
        if name.endswith(QUERY):
            name, weight = block + STACKED, torch.cat([weight, weights[block + KEY_VALUE]])
        if not name.endswith(KEY_VALUE):
            released[_renamed(name, before=1, after=0)] = weight
    return released


def fold_weight_norm(state: Weights, path: Path) -> Weights:
    """Replace each pair of direction `weight_v` and length `weight_g` by the weight they stand for."""
    check_memory(state, path, most=MOST_FOLDED)
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
