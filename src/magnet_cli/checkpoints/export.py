"""Writing models in the released format, which audiocraft loads: the reverse of `released`."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
import yaml

from magnet_cli.checkpoints.bundle import Model
from magnet_cli.checkpoints.released import CODEC_FILE, DECODER_FILE, released_decoder
from magnet_cli.errors import MagnetWarning, OutputError
from magnet_cli.hub.folders import EXPORT, EXPORT_FILE, TEXT_FILES, TEXT_FOLDER, check_apart, new_folder
from magnet_cli.model.config import CodecConfig, DecoderConfig
from magnet_cli.model.weights import Weights

# What the reference's text conditioner accepts (audiocraft `modules/conditioners.py`, T5Conditioner.MODELS), here
# those that also name an encoder of the Hub.
KNOWN_TEXT_ENCODERS = ("t5-", "google/flan-t5-")


def export(model: Model, target: Path, *, overwrite: bool = False) -> None:
    """Write a model in the released format, with its text encoder beside it, whole or not at all.

    The reference takes only text encoders that it knows by name. For another one there is a MagnetWarning, and only
    magnet can load the exported model.

    Raises: OutputError when `target` exists (unless `overwrite` is set and it is an earlier export), cannot be written,
    or is a folder of the model, or one above or in it.
    """
    decoder, codec = model.decoder, model.codec
    check_apart(target, [decoder.path.parent, codec.path.parent, model.text_folder])
    if not decoder.text.name.startswith(KNOWN_TEXT_ENCODERS):
        warnings.warn(
            f"the text encoder {decoder.text.name!r} is not one that audiocraft knows: only magnet can load this model",
            MagnetWarning,
            stacklevel=2,
        )
    with new_folder(target, EXPORT, overwrite=overwrite) as folder:
        settings = decoder_settings(decoder.config, codec.config, decoder.text.name, decoder.task)
        _save(folder / DECODER_FILE, settings, released_decoder(decoder.weights))
        _save(folder / CODEC_FILE, codec_settings(codec.config), released_codec(codec.weights))
        text = folder / TEXT_FOLDER
        text.mkdir()
        for path in sorted(model.text_folder.iterdir()):
            if path.is_file() and any(fnmatchcase(path.name, pattern) for pattern in TEXT_FILES):
                shutil.copyfile(path, text / path.name)
        # A later export recognizes by this file that it may replace the folder; audiocraft ignores it.
        (folder / EXPORT_FILE).write_text(json.dumps({**EXPORT.content, "version": 1}), encoding="utf-8")


def _save(path: Path, settings: dict[str, Any], weights: Weights) -> None:
    package = {
        "best_state": {name: weight.detach().cpu().contiguous().clone() for name, weight in weights.items()},
        "xp.cfg": yaml.safe_dump(settings, sort_keys=False),
        "version": "1.3.0",  # of audiocraft's format
        "exported": True,
    }
    try:
        with path.open("wb") as file:
            torch.save(package, file)
            file.flush()
            os.fsync(file.fileno())
    except RuntimeError as error:  # how PyTorch reports a full disk
        raise OutputError(f"cannot write {path.name}", "Check the space on that disk") from error


def released_codec(weights: Weights) -> Weights:
    """A codec's tensors with every convolution's weight as a direction and a length."""
    released: Weights = {}
    for name, weight in weights.items():
        if not name.endswith(("conv.weight", "convtr.weight")):
            released[name] = weight.float()
            continue
        weight = weight.float()
        length = weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.dim() - 1))
        released[f"{name}_g"] = length
        released[f"{name}_v"] = torch.where(length > 0, weight, torch.ones_like(weight))  # avoids 0 / 0
    return released


def decoder_settings(config: DecoderConfig, codec: CodecConfig, text: str, task: str) -> dict[str, Any]:
    """The configuration from which the reference, and this package, build the decoder."""
    seconds = config.clip_seconds
    return {
        "solver": "audio_magnet" if task == "sound" else "magnet",
        "device": "cuda",
        "dtype": "float32",
        "autocast": True,
        "autocast_dtype": "float16",
        "efficient_attention_backend": "xformers",
        "sample_rate": codec.sample_rate,
        "channels": codec.channels,
        "compression_model_checkpoint": None,
        "compression_model_n_q": None,
        "dataset": {"segment_duration": int(seconds) if float(seconds).is_integer() else seconds},
        "lm_model": "transformer_lm_magnet",
        "codebooks_pattern": {"modeling": "parallel", "parallel": {"empty_initial": -1}},
        "interleave_stereo_codebooks": {"use": False, "per_timestep": False},
        "classifier_free_guidance": {"training_dropout": 0.1 if task == "sound" else 0.3, "inference_coef": 3.0},
        "attribute_dropout": {},
        "fuser": {
            "cross_attention_pos_emb": False,
            "cross_attention_pos_emb_scale": 1,
            "sum": [],
            "prepend": [],
            "cross": ["description"],
            "input_interpolate": [],
        },
        "conditioners": {
            "description": {
                "model": "t5",
                "t5": {
                    "name": text,
                    "finetune": False,
                    "word_dropout": 0.0 if task == "sound" else 0.3,
                    "normalize_text": False,
                },
            }
        },
        "transformer_lm": {
            "dim": config.width,
            "num_heads": config.heads,
            "num_layers": config.layers,
            "hidden_scale": config.feed_forward / config.width,
            "n_q": config.codebooks,
            "card": config.codes,
            "dropout": 0.0,
            "emb_lr": None,
            "activation": "gelu",
            "norm_first": True,
            "bias_ff": False,
            "bias_attn": False,
            "bias_proj": False,
            "past_context": None,
            "causal": False,
            "custom": False,
            "memory_efficient": True,
            "attention_as_float32": False,
            "layer_scale": None,
            "positional_embedding": "sin",
            "max_period": config.max_period,
            "positional_scale": config.position_scale,
            "xpos": False,
            "checkpointing": "none",
            "weight_init": "gaussian",
            "depthwise_init": "current",
            "zero_bias_init": True,
            "norm": "layer_norm",
            "cross_attention": False,
            "qk_layer_norm": False,
            "qk_layer_norm_cross": False,
            "attention_dropout": None,
            "kv_repeat": 1,
            "two_step_cfg": False,
            "subcodes_context": config.context,
            "compression_model_framerate": codec.frame_rate,
            "segment_duration": 0,
            "span_len": -1,
        },
        "masking": {"span_len": config.span_length},
    }


def codec_settings(config: CodecConfig) -> dict[str, Any]:
    """The configuration from which the reference, and this package, build the codec."""
    return {
        "solver": "compression",
        "device": "cpu",
        "dtype": "float32",
        "sample_rate": config.sample_rate,
        "channels": config.channels,
        "compression_model": "encodec",
        "encodec": {
            "autoencoder": "seanet",
            "quantizer": "rvq",
            "sample_rate": config.sample_rate,
            "channels": config.channels,
            "causal": config.causal,
            "renormalize": False,
        },
        "seanet": {
            "dimension": config.dimension,
            "channels": config.channels,
            "causal": config.causal,
            "n_filters": config.n_filters,
            "n_residual_layers": config.n_residual_layers,
            "ratios": list(config.ratios),
            "activation": config.activation,
            "activation_params": config.activation_params,
            "norm": "weight_norm",
            "norm_params": {},
            "kernel_size": config.kernel_size,
            "residual_kernel_size": config.residual_kernel_size,
            "last_kernel_size": config.last_kernel_size,
            "dilation_base": config.dilation_base,
            "pad_mode": config.pad_mode,
            "true_skip": config.true_skip,
            "compress": config.compress,
            "lstm": config.lstm,
            "disable_norm_outer_blocks": 0,
            "decoder": {
                "trim_right_ratio": config.trim_right_ratio,
                "final_activation": config.final_activation,
                "final_activation_params": None,
            },
            "encoder": {},
        },
        "rvq": {
            "n_q": config.codebooks,
            "q_dropout": False,
            "bins": config.codes,
            "decay": 0.99,
            "kmeans_init": True,
            "kmeans_iters": 50,
            "threshold_ema_dead_code": 2,
            "orthogonal_reg_weight": 0.0,
            "orthogonal_reg_active_codes_only": False,
        },
    }
