"""The shapes of the networks, read from a checkpoint. No field has a default value.

Code that reads a shape from a file must call its `check`: a few bytes there can ask for a million layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from magnet_cli.errors import shown

# Least and largest value of each size; whole numbers where the limits are whole. The limits are at least ten times
# those of any known model: a number beyond them is damaged, or meant to exhaust the machine.
Limits = Mapping[str, tuple[float, float]]
MOST_LAYERS = 1000  # the largest text encoder has 24, the largest decoder 48
MOST_WIDTH = 65_536  # 2048 in the largest
MOST_HIDDEN = 2**20  # 8192 in the largest
MOST_CODEBOOKS = 256  # EnCodec has up to 32
MOST_CODES = 2**15  # codes are kept as int16
# Seconds; models are trained on 10 and 30. A clip is one window of attention, whose mask has 0.9 GB at 600 s.
LONGEST_CLIP = 600
MOST_FRAMES = 45_000  # of such a clip at the 75 a second of the fastest codec

DECODER_LIMITS: Limits = {
    "width": (4, MOST_WIDTH),  # two sines and two cosines
    "heads": (1, MOST_WIDTH),
    "layers": (1, MOST_LAYERS),
    "feed_forward": (1, MOST_HIDDEN),
    "codebooks": (1, MOST_CODEBOOKS),
    "codes": (1, MOST_CODES),
    "text_width": (1, MOST_WIDTH),
    "span_length": (1, 10_000),
    "context": (-1, 1_000_000),
    "clip_seconds": (1e-3, float(LONGEST_CLIP)),
    "max_period": (1e-6, 1e12),
    "position_scale": (1e-6, 1e12),
}
CODEC_LIMITS: Limits = {
    "sample_rate": (1, 768_000),  # the highest that converters have
    "channels": (1, 64),
    "codebooks": (1, MOST_CODEBOOKS),
    "codes": (1, MOST_CODES),
    "dimension": (1, MOST_WIDTH),
    "n_filters": (1, MOST_WIDTH),
    "n_residual_layers": (0, 32),
    "kernel_size": (1, 1000),
    "residual_kernel_size": (1, 1000),
    "last_kernel_size": (1, 1000),
    "dilation_base": (1, 1000),
    "compress": (1, 1000),
    "lstm": (0, 32),
    "trim_right_ratio": (0.0, 1.0),
}
MOST_RATIOS = 16
LONGEST_NAME = 200  # of another model; file systems allow 255 bytes
LONGEST_RATIO = 1000
WIDEST_DILATION = 100_000  # frames
PAD_MODES = ("constant", "reflect", "replicate", "circular")
# Names in `torch.nn` that are functions of one tensor; many others are not.
ACTIVATIONS = (
    "ELU",
    "ReLU",
    "LeakyReLU",
    "SELU",
    "CELU",
    "GELU",
    "SiLU",
    "Mish",
    "Softplus",
    "Tanh",
    "Sigmoid",
    "Identity",
)


class ShapeError(ValueError):
    """An impossible shape: the name of the field, its value, and what is possible."""


def check_sizes(values: Mapping[str, Any], limits: Limits) -> None:
    """Raise ShapeError for the first value that is not a number within its limits."""
    for name, (least, most) in limits.items():
        value = values[name]
        whole = isinstance(least, int)
        fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not fits or not least <= value <= most:
            kind = "a whole number" if whole else "a number"
            raise ShapeError(f"{name} is {shown(value)}, not {kind} from {least:g} to {most:,}")


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
    span_length     frames in a span, which is masked and scored as a whole
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

    def check(self) -> None:
        """Raise ShapeError for a decoder that cannot be built."""
        check_sizes(asdict(self), DECODER_LIMITS)
        if self.width % 2 or self.width % self.heads:
            raise ShapeError(f"width {self.width} and heads {self.heads} do not go together")

    @property
    def mask_code(self) -> int:
        """The token that stands for a code yet to be predicted."""
        return self.codes

    @property
    def parameters(self) -> int:
        """Number of weights of the decoder, embeddings, heads and norms included."""
        width, tables = self.width, self.codebooks * self.codes * self.width  # embeddings; the heads have as many
        attention = 2 * 4 * width * width  # to the clip itself, and to the text
        layer = attention + 2 * width * self.feed_forward + 3 * 2 * width
        return 2 * tables + self.codebooks * width + (self.text_width + 1) * width + self.layers * layer + 2 * width


@dataclass(frozen=True)
class TextConfig:
    """The text encoder that a decoder was trained with, by the name in its configuration, such as `t5-base`."""

    name: str

    def check(self) -> None:
        """Raise ShapeError for an impossible name."""
        # The name becomes part of paths and of Hub ids.
        if not isinstance(self.name, str) or not self.name.isprintable() or not 1 <= len(self.name) <= LONGEST_NAME:
            raise ShapeError(f"name is {shown(self.name)}, not the name of a text encoder")


@dataclass(frozen=True)
class CodecConfig:
    """Shape of the EnCodec autoencoder; field names follow the `encodec` package where it has one.

    sample_rate: Hz. ratios: strides of the decoder; their product is the number of samples in a frame.
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

    def check(self) -> None:
        """Raise ShapeError for a codec that cannot be built."""
        check_sizes(asdict(self), CODEC_LIMITS)
        ratios = self.ratios
        if not 1 <= len(ratios) <= MOST_RATIOS:
            raise ShapeError(f"ratios are {len(ratios)} numbers, not 1 to {MOST_RATIOS}")
        for ratio in ratios:
            check_sizes({"one of the ratios": ratio}, {"one of the ratios": (0, LONGEST_RATIO)})
        if not 0 < self.hop <= self.sample_rate:
            raise ShapeError(
                f"ratios make frames of {self.hop:,} samples at {self.sample_rate:,} Hz, not one a second or more"
            )
        if self.dilation_base ** max(self.n_residual_layers - 1, 0) > WIDEST_DILATION:
            raise ShapeError(
                f"dilation_base {self.dilation_base} is too large for {self.n_residual_layers} residual layers"
            )
        for name in ("causal", "true_skip"):
            if not isinstance(getattr(self, name), bool):
                raise ShapeError(f"{name} is {shown(getattr(self, name))}, neither true nor false")
        if self.pad_mode not in PAD_MODES:
            raise ShapeError(f"pad_mode is {shown(self.pad_mode)}, not one of {', '.join(PAD_MODES)}")
        self._check_activations()
        if not self.causal and self.trim_right_ratio != 1:
            raise ShapeError(f"trim_right_ratio is {self.trim_right_ratio:g}, which only causal codecs can have")

    def _check_activations(self) -> None:
        for name, allowed in (("activation", ACTIVATIONS), ("final_activation", (None, *ACTIVATIONS))):
            if getattr(self, name) not in allowed:
                raise ShapeError(f"{name} is {shown(getattr(self, name))}, not one of {', '.join(ACTIVATIONS)}")
        if not isinstance(self.activation_params, dict):
            raise ShapeError(f"activation_params are {shown(self.activation_params)}, not a mapping")
        for name, value in self.activation_params.items():
            if not isinstance(value, (bool, int, float)) or not abs(value) <= 1e6:
                raise ShapeError(f"{shown(name)} in activation_params is {shown(value)}, not a number")

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
