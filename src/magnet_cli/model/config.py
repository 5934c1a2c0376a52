"""The shapes of the networks, read from a checkpoint. No field has a default value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of the masked transformer.

    width           D, size of a token's state
    heads           H, attention heads
    layers          transformer layers
    feed_forward    hidden size of a feed-forward block
    codebooks       K
    codes           V, codes in a codebook; code V itself is the mask token
    text_width      size of the text encoder's states, before projection to D
    span_length     frames in a span, the unit that is masked and scored
    context         in codebooks above the first, frame i attends to frame j only if |i-j| <= context; -1: to all
    clip_seconds    length of a clip
    max_period      longest period of the sinusoidal positions
    position_scale  factor on the positions
    """

    width: int
    heads: int
    layers: int
    feed_forward: int
    codebooks: int
    codes: int
    text_width: int
    span_length: int
    context: int
    clip_seconds: float
    max_period: float
    position_scale: float

    @property
    def mask_code(self) -> int:
        """The token that stands for a code yet to be predicted."""
        return self.codes

    @property
    def parameters(self) -> int:
        """Number of weights of the decoder, embeddings, heads and norms included."""
        width, tables = self.width, self.codebooks * self.codes * self.width  # embeddings, and as many for the heads
        attention = 2 * 4 * width * width  # to the clip itself, and to the text
        layer = attention + 2 * width * self.feed_forward + 3 * 2 * width
        return 2 * tables + self.codebooks * width + (self.text_width + 1) * width + self.layers * layer + 2 * width


@dataclass(frozen=True)
class TextConfig:
    """Which text encoder a decoder was trained with: the name its configuration gives, such as `t5-base`."""

    name: str


@dataclass(frozen=True)
class CodecConfig:
    """Shape of the EnCodec autoencoder; field names follow the `encodec` package where it has one.

    `sample_rate` is in Hz; `ratios` are the strides of the decoder, whose product is the samples in a frame.
    """

    sample_rate: int
    channels: int
    codebooks: int
    codes: int
    dimension: int
    n_filters: int
    n_residual_layers: int
    ratios: tuple[int, ...]
    kernel_size: int
    residual_kernel_size: int
    last_kernel_size: int
    dilation_base: int
    compress: int
    lstm: int
    causal: bool
    pad_mode: str
    true_skip: bool
    activation: str
    activation_params: dict[str, Any]
    trim_right_ratio: float
    final_activation: str | None

    @property
    def hop(self) -> int:
        """Samples in a frame."""
        return math.prod(self.ratios)

    @property
    def frame_rate(self) -> int:
        """Frames in a second, as the reference counts them (whole frames)."""
        return self.sample_rate // self.hop


# The 32 kHz EnCodec of the music models.
RELEASED_CODEC = CodecConfig(
    sample_rate=32_000,
    channels=1,
    codebooks=4,
    codes=2048,
    dimension=128,
    n_filters=64,
    n_residual_layers=1,
    ratios=(8, 5, 4, 4),
    kernel_size=7,
    residual_kernel_size=3,
    last_kernel_size=7,
    dilation_base=2,
    compress=2,
    lstm=2,
    causal=False,
    pad_mode="constant",
    true_skip=True,
    activation="ELU",
    activation_params={"alpha": 1.0},
    trim_right_ratio=1.0,
    final_activation=None,
)
