"""What the user asks of a training; every default is written down here, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from magnet_cli.errors import OutputError, UsageError
from magnet_cli.hub.folders import BUNDLE, CODEC_FOLDER, FolderKind, TrainingKind, check_apart, check_run, check_target

Precision = Literal["float32", "float16", "bfloat16"]
Device = Literal["auto", "cpu"]
Begin = Literal["random", "transform"]

OUTPUTS: dict[TrainingKind, FolderKind] = {"decoder": BUNDLE, "codec": CODEC_FOLDER}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How long a training runs and what it leaves behind.

    steps         updates of the weights in all; 0: write what training would begin with
    batch_size    examples in an update, over all processes together
    seed          of everything random
    save_every    steps between saved states, from which a training that was stopped goes on
    sample_every  steps between audio samples; 0: none
    log_every     steps between lines of the log
    tensorboard   log for TensorBoard, too (`log.csv` is always written)
    restart       begin anew, whatever an earlier training of the same output left
    device        "auto": what accelerate finds; "cpu"
    """

    steps: int
    batch_size: int
    seed: int = 0
    save_every: int = 500
    sample_every: int = 2000
    log_every: int = 10
    tensorboard: bool = False
    restart: bool = False
    device: Device = "auto"

    def __post_init__(self) -> None:
        for name in ("batch_size", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name.replace('_', ' ')} must be at least 1, not {getattr(self, name)}", "Give more")
        if min(self.steps, self.sample_every, self.seed) < 0:
            raise UsageError("steps, sample-every and seed must not be negative", "Give 0 or more")


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """AdamW with a linear warm-up and a cosine to `last_rate` times the learning rate, and an average of the weights.

    The defaults are the decoder's: the reference's solver trains with D-Adaptation, which has no rate of its own; these
    are audiocraft's for AdamW (`config/solver/musicgen/default.yaml`), with the warm-up and average of
    `config/solver/magnet/magnet_32khz.yaml`.
    """

    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    warmup: int = 4000
    last_rate: float = 0.0
    max_norm: float = 1.0
    ema: float = 0.99
    ema_every: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < 1:
            raise UsageError(f"learning rate must be between 0 and 1, not {self.learning_rate:g}", "Give e.g. 1e-4")
        if self.warmup < 0 or self.max_norm < 0 or self.weight_decay < 0:
            raise UsageError("warmup, clipping and weight decay must not be negative", "Give 0 to switch one off")
        if not 0 <= self.ema < 1 or self.ema_every < 1:
            raise UsageError(f"the decay of the average must be at least 0 and below 1, not {self.ema}", "Give 0.99")


# The codec's, as published (audiocraft `config/solver/compression/default.yaml`), where the rate stays as it is.
CODEC_OPTIMIZATION = Optimization(
    learning_rate=3e-4, betas=(0.5, 0.9), weight_decay=0.0, warmup=0, last_rate=1.0, max_norm=0.0, ema=0.99, ema_every=1
)


@dataclass(frozen=True, kw_only=True)
class CodecShape:
    """Size of a new codec; the defaults are those of the released 16 kHz codec. `ratios` are the decoder's strides."""

    sample_rate: int = 16_000
    channels: int = 1
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    filters: int = 64
    dimension: int = 128
    lstm: int = 2
    codebooks: int = 4
    codes: int = 2048


@dataclass(frozen=True, kw_only=True)
class CodecTraining:
    """EnCodec's training; defaults as published (audiocraft `config/solver/compression/default.yaml`).

    begin                 of a new codec: "random" weights, or a "transform" that codes the data at once: `mdct_init`
    decoder_only          leave encoder and codebooks, and so the codes, as they are: for a codec whose codes are in use
    seconds               length of the crops
    weights               of the balanced losses: waveform L1, multi-scale mel, adversarial, feature matching
    dead_codes            a code is replaced when it is used less than this share of its equal part
    adversarial_from      the first step with a discriminator; beyond the last one: none
    adversarial_every     steps between updates that involve the discriminator
    discriminator_filters, discriminator_windows  its width, and its STFT windows in samples
    """

    begin: Begin = "random"
    decoder_only: bool = False
    seconds: float = 1.0
    l1_weight: float = 0.1
    mel_weight: float = 2.0
    adversarial_weight: float = 4.0
    feature_weight: float = 4.0
    dead_codes: float = 0.1
    adversarial_from: int = 0
    adversarial_every: int = 1
    discriminator_filters: int = 32
    discriminator_windows: tuple[int, ...] = (2048, 1024, 512, 256, 128)


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """Size of a new decoder; the defaults are those of the released small model.

    max_period  longest period of the sinusoidal positions, in frames over 2 pi. Those far beyond a clip's length say
                nothing: a narrow network can tell rhythms apart better when all lie between a note and a clip
    """

    width: int = 1024
    heads: int = 16
    layers: int = 24
    feed_forward: int = 4096
    span_length: int = 3
    context: int = 5
    clip_seconds: float = 10.0
    max_period: float = 10_000.0

    def __post_init__(self) -> None:
        if self.max_period <= 1:
            raise UsageError(f"the longest period must be above 1, not {self.max_period:g}", "Give e.g. 10000")


@dataclass(frozen=True, kw_only=True)
class TextShape:
    """Size of a new text encoder, which is trained with the decoder.

    vocabulary     of its own tokenizer, learned from the texts
    round_numbers  read numbers that can be a tempo as their nearest multiple of this; 0: as they are
    """

    width: int = 192
    heads: int = 4
    layers: int = 3
    feed_forward: int = 512
    vocabulary: int = 1200
    round_numbers: int = 0


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Low-rank adapters on every projection of the decoder, merged into its weights when the bundle is written."""

    rank: int
    alpha: int = 32
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DecoderTraining:
    """MAGNeT's training.

    text_dropout     probability that a clip is trained without its text, for guidance: 0.3 for music, 0.1 for sound
    codebook_shares  how often each codebook is drawn; None: uniformly, as published
    precision        of the network's arithmetic; weights stay float32
    """

    text_dropout: float = 0.3
    codebook_shares: tuple[float, ...] | None = None
    precision: Precision = "float32"
    lora: LoraOptions | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.text_dropout <= 1:
            raise UsageError(f"text dropout must be between 0 and 1, not {self.text_dropout}", "Give e.g. 0.3")


@dataclass(frozen=True)
class Places:
    """Where a training keeps things: beside `output`, which becomes the model, `output.run` holds everything else."""

    output: Path

    @property
    def run(self) -> Path:
        """State, logs and samples."""
        return self.output.with_name(self.output.name + ".run")

    @property
    def state(self) -> Path:
        """What a stopped training goes on from."""
        return self.run / "state.pt"

    def check(self, kind: TrainingKind, inputs: Sequence[Path]) -> None:
        """Raise OutputError unless a training of this kind may write here; called before any work.

        What is replaced is the output of an earlier training, with its run beside it, and nothing else. Neither folder
        may be one of the inputs, nor a folder above or in one.
        """
        check_target(self.output, OUTPUTS[kind], overwrite=True)
        for folder in (self.output, self.run):
            check_apart(folder, inputs)
        if not check_run(self.run, kind) and self.output.is_dir() and any(self.output.iterdir()):
            raise OutputError(
                f"{self.output} is not of a training: there is no {self.run} beside it",
                "Choose another output, or move that folder away",
            )


# By task, as published.
TEXT_DROPOUT = {"music": 0.3, "sound": 0.1}
