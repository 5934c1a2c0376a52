"""Which engine computes the logits of a decoder fastest."""

from __future__ import annotations

import warnings

from magnet_cli.decoding.masked import Network
from magnet_cli.engines.cpu import FastTransformer
from magnet_cli.engines.cuda import EAGER, GraphTransformer, Stages
from magnet_cli.errors import MagnetWarning
from magnet_cli.model.decoder import MaskedTransformer
from magnet_cli.options.runtime import RuntimeConfig


def fastest(decoder: MaskedTransformer, runtime: RuntimeConfig) -> Network:
    """The fastest engine for a decoder on its device.

    The codes are the same, except in 8 bits, and where compiled code rounds differently. Warns with MagnetWarning where
    nothing can be compiled.
    """
    if decoder.device.type == "cuda":
        stages = Stages.compiled() if runtime.compile else EAGER
        return GraphTransformer(decoder, float8=runtime.dtype == "float8", stages=stages)
    if runtime.compile:
        warnings.warn(
            f"only decoders on GPUs are compiled: --compile changes nothing on {decoder.device}",
            MagnetWarning,
            stacklevel=3,
        )
    return FastTransformer(decoder, int8=runtime.dtype == "int8") if decoder.device.type == "cpu" else decoder
