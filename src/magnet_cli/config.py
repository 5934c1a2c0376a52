"""What a model is (read from its checkpoint) and what the user asks of it.

The first group has no default values: every field comes from a checkpoint's own configuration.
The second group is the user's, and is the only place where defaults are written down.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from magnet_cli.errors import UsageError

Task = Literal["music", "sound"]
Spans = Literal["nonoverlap", "stride1"]
SpanScore = Literal["max", "prod"]
Normalize = Literal["auto", "loudness", "peak", "none"]
Subtype = Literal["pcm16", "pcm24", "float32"]
DTypeName = Literal["auto", "float32", "bfloat16", "float16", "int8", "float8"]


# -- from a checkpoint ------------------------------------------------------------------------------------------------


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


# Beyond these nobody wants to go, and numbers overflow or run for days.
MOST_STEPS = 1000
MOST_GUIDANCE = 1000


# -- from the user ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SamplingConfig:
    """How codes are drawn; the defaults are those of the reference for 10-second music models.

    steps           decoding steps for each codebook
    temperature     softmax temperature at the first step of a codebook
    anneal          lower the temperature linearly over the steps of a codebook
    top_p           draw from the most probable codes that hold this much probability; None: off
    top_k           draw from the k most probable codes; None: off (never together with top_p)
    greedy          take the most probable code instead of drawing
    guidance        weight of the text, at the first step of a codebook ...
    min_guidance    ... falling to this at its last
    spans           "nonoverlap": a fixed grid of spans; "stride1": spans may start at any frame
    span_score      rank a span by its most probable code ("max") or by the product ("prod"); for nonoverlap only
    rescore_weight  where another model rescores: share of the model's own probability in the ranking, the rest is the
                    other's; 1: the other is not asked. Without a rescorer it has no meaning. No value of the paper's is
                    known (arXiv 2401.04577, no public code); ours keeps more of the model that decodes
    """

    steps: tuple[int, ...] = (20, 10, 10, 10)
    temperature: float = 3.0
    anneal: bool = True
    top_p: float | None = 0.9
    top_k: int | None = None
    greedy: bool = False
    guidance: float = 10.0
    min_guidance: float = 1.0
    spans: Spans = "nonoverlap"
    span_score: SpanScore = "max"
    rescore_weight: float = 0.7

    def __post_init__(self) -> None:
        if not self.steps or any(not 1 <= n <= MOST_STEPS for n in self.steps):
            raise UsageError(
                f"steps must be whole numbers from 1 to {MOST_STEPS}, not {','.join(map(str, self.steps))}",
                "Give e.g. 20,10,10,10",
            )
        if not 0 < self.temperature < math.inf:
            raise UsageError(
                f"temperature must be above 0, not {self.temperature}", "Give e.g. 3.0, or --greedy for no randomness"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(
                f"top-p must be above 0 and at most 1, not {self.top_p}",
                "Give e.g. 0.9, or 1 to draw from every code",
            )
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top-k must be at least 1, not {self.top_k}", "Give e.g. 250, or leave it out")
        if self.top_p is not None and self.top_k is not None:
            raise UsageError("top-p and top-k cannot be combined", "Give one of the two")
        if not (abs(self.guidance) <= MOST_GUIDANCE and abs(self.min_guidance) <= MOST_GUIDANCE):
            raise UsageError(
                f"guidance must lie between -{MOST_GUIDANCE} and {MOST_GUIDANCE}, "
                f"not {self.guidance:g} to {self.min_guidance:g}",
                "Give e.g. --guidance 10 --min-guidance 1",
            )
        if self.spans not in ("nonoverlap", "stride1"):
            raise UsageError(f"unknown spans {self.spans!r}", "Give nonoverlap or stride1")
        if self.span_score not in ("max", "prod"):
            raise UsageError(f"unknown span score {self.span_score!r}", "Give max or prod")
        if not 0 <= self.rescore_weight <= 1:
            raise UsageError(
                f"rescore weight must be from 0 to 1, not {self.rescore_weight:g}",
                "Give e.g. 0.7, or 1 to rank by the model's own probability only",
            )

    def with_preset(self, name: str) -> SamplingConfig:
        """This configuration, with the steps and spans of a preset; everything else stays."""
        if name not in PRESETS:
            raise UsageError(f"unknown preset {name!r}", f"Give one of {', '.join(PRESETS)}")
        preset = PRESETS[name]
        return replace(
            self,
            steps=preset.steps(len(self.steps)) or self.steps,
            spans=preset.spans or self.spans,
            guidance=self.guidance if preset.guidance is None else preset.guidance,
        )


@dataclass(frozen=True)
class MusicGenSampling:
    """How MusicGen draws codes; the defaults are those of its authors' library (audiocraft `models/musicgen.py`).

    temperature     softmax temperature
    top_k           draw from the k most probable codes; None: off
    top_p           draw from the most probable codes that hold this much probability; None: off (never with top_k)
    greedy          take the most probable code instead of drawing
    guidance        weight of the text; 1: none, which takes half the time
    """

    temperature: float = 1.0
    top_k: int | None = 250
    top_p: float | None = None
    greedy: bool = False
    guidance: float = 3.0

    def __post_init__(self) -> None:
        # The limits of these are the same, and so are the words for what is beyond them.
        SamplingConfig(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)
        if not abs(self.guidance) <= MOST_GUIDANCE:
            raise UsageError(
                f"guidance must lie between -{MOST_GUIDANCE} and {MOST_GUIDANCE}, not {self.guidance:g}",
                "Give e.g. --guidance 3",
            )


@dataclass(frozen=True)
class Preset:
    """A named trade of time for quality; None keeps what the checkpoint's defaults say."""

    summary: str
    first_steps: int | None = None
    later_steps: int | None = None
    spans: Spans | None = None
    guidance: float | None = None

    def steps(self, codebooks: int) -> tuple[int, ...] | None:
        """Decoding steps for each codebook."""
        if self.first_steps is None or self.later_steps is None:
            return None
        return (self.first_steps,) + (self.later_steps,) * (codebooks - 1)


PRESETS: dict[str, Preset] = {
    # The first codebook carries the structure, the later ones refine it and attend only to their neighbourhood,
    # so steps are cut hardest there.
    "fast": Preset("half the steps of a 10-second model", first_steps=12, later_steps=4),
    "balanced": Preset("what its authors chose"),
    # stride1 is what the reference's demo page uses for music; more steps mean fewer codes decided at once.
    "best": Preset("twice the steps, overlapping spans", first_steps=60, later_steps=15, spans="stride1"),
}


def check_steps(sampling: SamplingConfig, *, codebooks: int) -> None:
    """Raise UsageError unless there is a number of steps for every codebook."""
    if len(sampling.steps) != codebooks:
        raise UsageError(
            f"steps {','.join(map(str, sampling.steps))} are {len(sampling.steps)} numbers, "
            f"but the model has {codebooks} codebooks",
            f"Give one for each, e.g. --steps {','.join(['20'] + ['10'] * (codebooks - 1))}",
        )


def default_sampling(task: Task, clip_seconds: float, codebooks: int) -> SamplingConfig:
    """The sampling options a checkpoint's authors used for it.

    10-second music models: the defaults of the reference library. Longer music models and sound models: the
    evaluation settings in their training configurations (audiocraft `config/solver/magnet/*.yaml`).
    """
    if task == "sound":
        return SamplingConfig(
            steps=(20,) + (10,) * (codebooks - 1), temperature=3.5, top_p=0.8, guidance=20.0, min_guidance=1.0
        )
    first = 60 if clip_seconds >= 30 else 20
    return SamplingConfig(steps=(first,) + (10,) * (codebooks - 1))


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """What becomes of a decoded waveform.

    normalize   "loudness": gain to `lufs`, then a limiter at `true_peak`; "peak": gain to `true_peak`; "none": as is;
                "auto": loudness, but none where samples of an input stay as they are
    lufs        target loudness, LUFS (ITU-R BS.1770)
    true_peak   ceiling for the 4x oversampled peak, dBTP
    subtype     sample format of the file
    """

    normalize: Normalize = "auto"
    lufs: float = -14.0
    true_peak: float = -1.0
    subtype: Subtype = "pcm16"

    def __post_init__(self) -> None:
        if self.normalize not in ("auto", "loudness", "peak", "none"):
            raise UsageError(f"unknown normalization {self.normalize!r}", "Give auto, loudness, peak or none")
        if not -70 <= self.lufs <= 0:
            raise UsageError(f"lufs must be between -70 and 0, not {self.lufs}", "Give e.g. --lufs -14")
        if not -60 <= self.true_peak <= 0:
            raise UsageError(f"true-peak must be between -60 and 0 dB, not {self.true_peak}", "Give e.g. -1")
        if self.subtype not in ("pcm16", "pcm24", "float32"):
            raise UsageError(f"unknown subtype {self.subtype!r}", "Give pcm16, pcm24 or float32")


@dataclass(frozen=True)
class PlacesConfig:
    """Where models are looked for.

    model_dir   the folder of bundles; None: MAGNET_MODEL_DIR, else one in the user's cache folder
    cache_dir   the folder of downloads; None: the Hub cache (HF_HUB_CACHE, HF_HOME)
    offline     make no request to the Hub
    """

    model_dir: Path | None = None
    cache_dir: Path | None = None
    offline: bool = False


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how the model runs.

    device      "auto", "cpu", "cuda", "cuda:N" or "mps"
    dtype       of the decoder's weights and activations; text encoder, guidance, sampling and codec stay in float32.
                "auto": float16 on CUDA, which is what the released weights are stored in; bfloat16 on a CPU that
                computes in it; float32 elsewhere. "int8" on a CPU, "float8" on a GPU of capability 8.9 or above: the
                large matrices in 8 bits, approximate
    batch_size  clips decoded together; None: 1 on a CPU, where a batch gains nothing, what fits on a GPU
    compile     compile the decoder on a GPU, which takes tens of seconds for each size of batch: for long runs
    """

    device: str = "auto"
    dtype: DTypeName = "auto"
    batch_size: int | None = None
    compile: bool = False

    @property
    def eight_bits(self) -> bool:
        """Whether the large matrices are in 8 bits."""
        return self.dtype in ("int8", "float8")

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", self.device):
            raise UsageError(f"unknown device {self.device!r}", "Give auto, cpu, cuda, cuda:N or mps")
        if self.dtype not in get_args(DTypeName):
            raise UsageError(f"unknown dtype {self.dtype!r}", f"Give one of {', '.join(get_args(DTypeName))}")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch size must be at least 1, not {self.batch_size}", "Give e.g. 4")
