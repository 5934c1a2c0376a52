"""The parts of a checkpoint as they are read, and the networks that are built from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from magnet_cli.errors import ModelError, one_line
from magnet_cli.model.codec import Codec
from magnet_cli.model.config import CodecConfig, DecoderConfig, TextConfig
from magnet_cli.model.decoder import MaskedTransformer
from magnet_cli.model.weights import Weights, assign, check_parts, without_weights
from magnet_cli.options.sampling import Task


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
    """A codec as read from disk: weights under the names of Codec, with weight normalization folded in."""

    path: Path
    config: CodecConfig
    weights: Weights


@dataclass(frozen=True)
class CodecPointer:
    """A checkpoint without its own codec. name: the codec that it was trained with."""

    path: Path
    name: str


def build_decoder(checkpoint: DecoderCheckpoint, device: torch.device, dtype: torch.dtype) -> MaskedTransformer:
    """The network with the checkpoint's weights. On the CPU and in the stored dtype, the weights stay memory-mapped."""
    config = checkpoint.config
    check_parts(checkpoint.weights, config.layers + 2 * config.codebooks, checkpoint.path)
    with without_weights():
        model = MaskedTransformer(config)
    return assign(model, checkpoint.weights, checkpoint.path, device=device, dtype=dtype)


def build_codec(checkpoint: CodecCheckpoint, device: torch.device) -> Codec:
    """The codec with the checkpoint's weights, in float32."""
    try:
        with without_weights():
            codec = Codec(checkpoint.config)
    except (TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError, LookupError) as error:
        raise ModelError(
            f"the configuration of {checkpoint.path} describes an impossible codec: {one_line(error)}",
            "Its configuration is damaged; fetch it again",
        ) from error
    codec = assign(codec, checkpoint.weights, checkpoint.path, device=device, dtype=torch.float32)
    for module in codec.modules():
        if isinstance(module, nn.LSTM):
            module.flatten_parameters()  # one block of memory, as cuDNN wants it
    return codec
