"""The options of a training. Every default is declared here, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal, get_args

from magnet_cli.errors import MagnetError, OutputError, UsageError
from magnet_cli.hub.folders import BUNDLE, CODEC_FOLDER, FolderKind, TrainingKind, check_apart, check_run, check_target
from magnet_cli.options.declared import Option, Panel

Precision = Literal["float32", "float16", "bfloat16"]
Device = Literal["auto", "cpu"]
Begin = Literal["random", "transform", "phase-free"]
BeginDecoder = Literal["random", "context"]
SMALL_WIDTH = 512  # of a decoder, up to which it begins with context

# No index has the package, so its extras are installed from a clone.
INSTALL = "Run pip install '.[train]' in a clone of the repository"

OUTPUTS: dict[TrainingKind, FolderKind] = {"decoder": BUNDLE, "codec": CODEC_FOLDER}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How long a training runs and what it writes. device: "auto" is the device that accelerate finds."""

    PANEL: ClassVar[Panel] = "Run"

    steps: int = field(
        metadata=Option(
            help="Number of updates of the weights, in all. With 0, the model is written untrained.",
            panel="Training",
        )
    )
    batch_size: int = field(
        metadata=Option(help="Number of clips in an update, over all processes together, at least 1.", panel="Training")
    )
    seed: int = field(
        default=0,
        metadata=Option(
            help="Seed of all random numbers: initial weights, order of the clips, and what is masked; 0 or more.",
            panel="Training",
        ),
    )
    save_every: int = field(
        default=500,
        metadata=Option(
            help="Steps between saved states, from which a training that was stopped resumes; at least 1. The "
            "output is written with each."
        ),
    )
    sample_every: int | None = field(
        default=None,
        metadata=Option(help="Steps between audio samples; 0: no samples.", unset="half of the steps, at most 2000"),
    )
    held_out: str | None = field(
        default=None,
        metadata=Option(
            help="Share of the files, such as 0.1, or a folder of other files that training does not use. The loss on "
            "them is measured and logged, and the model with the lowest is kept in DIR.run/best. A file is chosen by "
            "a hash of its name, so it stays held out when files are added.",
            metavar="SHARE|DIR",
            unset="none",
            panel="Training",
        ),
    )
    validate_every: int | None = field(
        default=None,
        metadata=Option(
            help="Steps between measurements of the loss on the held-out files, at least 1.",
            unset="a tenth of the steps, at most 500",
        ),
    )
    log_every: int = field(default=10, metadata=Option(help="Steps between lines of log.csv, at least 1."))
    tensorboard: bool = field(default=False, metadata=Option(help="Log for TensorBoard, too."))
    restart: bool = field(
        default=False,
        metadata=Option(help="Start again from step 0 instead of resuming the earlier training of the same output."),
    )
    device: Device = "auto"

    def __post_init__(self) -> None:
        for name in ("batch_size", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"{name.replace('_', ' ')} must be at least 1, not {getattr(self, name)}", "Give 1 or more"
                )
        if self.validate_every is not None and self.validate_every < 1:
            raise UsageError(f"validate every must be at least 1, not {self.validate_every}", "Give 1 or more")
        if min(self.steps, self.sample_every or 0, self.seed) < 0:
            raise UsageError("steps, sample-every and seed must not be negative", "Give 0 or more")

    @property
    def sampling(self) -> int:
        """Steps between audio samples; 0: none."""
        return max(1, min(2000, self.steps // 2)) if self.sample_every is None else self.sample_every

    @property
    def validation(self) -> int:
        """Steps between measurements on the held-out files."""
        return max(1, min(500, self.steps // 10)) if self.validate_every is None else self.validate_every


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """AdamW with a linear warm-up and a cosine to `last_rate` times the learning rate, and an average of the weights.

    The defaults are the decoder's: the reference's solver trains with D-Adaptation, which has no rate of its own; these
    are audiocraft's for AdamW (`config/solver/musicgen/default.yaml`), with the warm-up and average of
    `config/solver/magnet/magnet_32khz.yaml`.
    """

    PANEL: ClassVar[Panel] = "Optimization"

    learning_rate: float = field(
        default=1e-4, metadata=Option(help="Highest learning rate of AdamW, between 0 and 1.", metavar="RATE")
    )
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = field(default=0.1, metadata=Option(help="Weight decay of AdamW; 0: none.", metavar="DECAY"))
    warmup: int | None = field(
        default=None,
        metadata=Option(
            help="Number of steps over which the learning rate rises linearly to its highest value.",
            unset="a twentieth of the steps, at most 4000",
        ),
    )
    last_rate: float = field(
        default=0.0,
        metadata=Option(
            help="Learning rate at the last step, as a share of the highest; the rate falls to it along a "
            "cosine. 1: the rate stays as it is.",
            metavar="SHARE",
        ),
    )
    max_norm: float = field(
        default=1.0,
        metadata=Option(help="Norm to which longer gradients are clipped; 0: they are never clipped.", metavar="NORM"),
    )
    ema: float = field(
        default=0.99,
        metadata=Option(
            help="Decay of the moving average of the weights, at least 0 and below 1. The average is what is written.",
            metavar="DECAY",
        ),
    )
    ema_every: int = field(
        default=10, metadata=Option(help="Steps between updates of the moving average of the weights, at least 1.")
    )

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < 1:
            raise UsageError(f"learning rate must be between 0 and 1, not {self.learning_rate:g}", "Give e.g. 1e-4")
        if (self.warmup or 0) < 0 or self.max_norm < 0 or self.weight_decay < 0:
            raise UsageError("warmup, clipping and weight decay must not be negative", "Give 0 to switch one off")
        if not 0 <= self.ema < 1 or self.ema_every < 1:
            raise UsageError(
                f"the decay of the average must be at least 0 and below 1, not {self.ema}", "Give e.g. 0.99"
            )


REFERENCE_WARMUP = 4000  # steps, in trainings of the reference that take a hundred thousand steps and more
WARMUP_SHARE = 20  # one warm-up step in so many steps, where that is less


def warmup_of(optimization: Optimization, steps: int) -> int:
    """The number of warm-up steps of a training of so many steps."""
    given = optimization.warmup
    return min(REFERENCE_WARMUP, steps // WARMUP_SHARE) if given is None else given


# The codec's, as published (audiocraft `config/solver/compression/default.yaml`), where the rate stays as it is.
CODEC_OPTIMIZATION = Optimization(
    learning_rate=3e-4, betas=(0.5, 0.9), weight_decay=0.0, warmup=0, last_rate=1.0, max_norm=0.0, ema=0.99, ema_every=1
)


@dataclass(frozen=True, kw_only=True)
class CodecShape:
    """Size of a new codec; the defaults are those of the released 16 kHz codec. `ratios` are the decoder's strides."""

    PANEL: ClassVar[Panel] = "Shape of a new codec"

    sample_rate: int = field(default=16_000, metadata=Option(help="Sample rate of a new codec in Hz.", metavar="HZ"))
    channels: int = field(
        default=1, metadata=Option(help="Number of channels of a new codec. 1: mono, 2: stereo.", metavar="1|2")
    )
    ratios: tuple[int, ...] = field(
        default=(8, 5, 4, 2),
        metadata=Option(help="Strides of a new codec's decoder. Their product is the number of samples in a frame."),
    )
    filters: int = field(
        default=64, metadata=Option(help="Number of channels of the layer of a new codec that is next to the waveform.")
    )
    dimension: int = field(
        default=128,
        metadata=Option(help="Latent dimension of a new codec: the width of the vectors that are quantized."),
    )
    lstm: int = field(default=2, metadata=Option(help="Number of LSTM layers of a new codec."))
    codebooks: int = field(
        default=4, metadata=Option(help="Number of codebooks of a new codec, and so of codes in a frame.")
    )
    codes: int = field(default=2048, metadata=Option(help="Number of codes in each codebook of a new codec."))


@dataclass(frozen=True, kw_only=True)
class CodecTraining:
    """EnCodec's training; defaults as published (audiocraft `config/solver/compression/default.yaml`).

    The weights are those of the balanced losses: waveform L1, multi-scale mel, adversarial and feature matching.
    dead_codes: a code is replaced when it is used less often than this share of what it would be used if all codes were
    used equally often.
    """

    PANEL: ClassVar[Panel] = "Training"

    begin: Begin = field(
        default="random",
        metadata=Option(
            help="Initial weights of a new codec. random: drawn at random. transform: an MDCT in the principal"
            " components of the data, which codes audio from the first step. phase-free: codes say how loud each tone"
            " is and nothing of its phase, which a masked transformer learns more easily, and the decoder begins as a"
            " synthesizer of these tones."
        ),
    )
    decoder_only: bool = field(
        default=False,
        metadata=Option(
            help="Train the decoder of the codec alone. Encoder and codebooks, and so all codes, stay as they are."
        ),
    )
    seconds: float = field(
        default=1.0, metadata=Option(help="Length of the excerpts of audio to train on, in seconds.", metavar="SECONDS")
    )
    l1_weight: float = 0.1
    mel_weight: float = 2.0
    adversarial_weight: float = 4.0
    feature_weight: float = 4.0
    dead_codes: float = 0.1
    adversarial_from: int = field(
        default=0,
        metadata=Option(
            help="First step that uses the discriminator. A number beyond the last step switches it off.",
            panel="Discriminator",
            metavar="STEP",
        ),
    )
    adversarial_every: int = field(
        default=1, metadata=Option(help="Steps between updates that use the discriminator.", panel="Discriminator")
    )
    discriminator_filters: int = field(
        default=32, metadata=Option(help="Number of channels of the discriminator.", panel="Discriminator")
    )
    discriminator_windows: tuple[int, ...] = field(
        default=(2048, 1024, 512, 256, 128),
        metadata=Option(help="Lengths of the discriminator's STFT windows, in samples.", panel="Discriminator"),
    )


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """Size of a new decoder; the defaults are those of the released small model.

    max_period  longest period of the sinusoidal positions, in frames over 2 pi. Periods far beyond a clip's length
                carry no information: a narrow network tells rhythms apart better when all periods lie between the
                length of a note and that of a clip
    """

    PANEL: ClassVar[Panel] = "Shape of a new decoder"

    width: int = field(default=1024, metadata=Option(help="Width of a new decoder."))
    heads: int = field(default=16, metadata=Option(help="Number of attention heads of a new decoder."))
    layers: int = field(default=24, metadata=Option(help="Number of layers of a new decoder."))
    feed_forward: int = field(default=4096, metadata=Option(help="Width of the feed-forward layers of a new decoder."))
    span_length: int = 3
    context: int = 5
    clip_seconds: float = field(
        default=10.0, metadata=Option(help="Length of the clips of a new decoder, in seconds.", metavar="SECONDS")
    )
    begin: BeginDecoder | None = field(
        default=None,
        metadata=Option(
            help="Initial weights of a new decoder. random: as the reference has them. context: the first layers begin"
            " with attention to the codes nearby, without which a small decoder may never learn to use them.",
            unset=f"context up to width {SMALL_WIDTH}, random above",
        ),
    )
    max_period: float = field(
        default=10_000.0,
        metadata=Option(
            help="Longest period of the sinusoidal position embedding of a new decoder, in frames divided by 2"
            " pi; above 1. A narrow decoder learns rhythm better when it is about the number of frames in"
            " a clip.",
            metavar="FRAMES",
        ),
    )

    def __post_init__(self) -> None:
        if self.begin not in (None, *get_args(BeginDecoder)):
            raise UsageError(f"unknown value for --begin: {self.begin!r}", "Give random or context")
        if self.max_period <= 1:
            raise UsageError(f"the longest period must be above 1, not {self.max_period:g}", "Give e.g. 10000")


@dataclass(frozen=True, kw_only=True)
class TextShape:
    """Size of a new text encoder, which is trained with the decoder."""

    PANEL: ClassVar[Panel] = "Shape of a new text encoder"

    width: int = field(
        default=192,
        metadata=Option(help="Width of a text encoder of the model's own (--text-encoder own).", name="text_width"),
    )
    heads: int = field(
        default=4,
        metadata=Option(help="Number of attention heads of a text encoder of the model's own.", name="text_heads"),
    )
    layers: int = field(
        default=3, metadata=Option(help="Number of layers of a text encoder of the model's own.", name="text_layers")
    )
    feed_forward: int = 512
    vocabulary: int = field(
        default=1200,
        metadata=Option(
            help="Number of tokens in the tokenizer of the model's own text encoder, which is learned from the texts."
        ),
    )
    round_numbers: int = field(
        default=0,
        metadata=Option(
            help="Have the tokenizer of the model's own text encoder round numbers that can be a tempo to "
            "multiples of this; 0: no rounding."
        ),
    )
    synonyms: Path | None = field(
        default=None,
        metadata=Option(
            help="File of synonyms for the tokenizer of the model's own text encoder, one line for each target, such "
            "as 'sad: gloomy, mournful': a word that no text has is read as the target.",
            metavar="FILE",
            unset="none",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Low-rank adapters on every projection of the decoder, merged into its weights when the bundle is written."""

    PANEL: ClassVar[Panel] = "Training"

    rank: int = field(
        metadata=Option(
            help="Train low-rank adapters (LoRA) of this rank instead of all weights of the decoder.",
            name="lora",
            metavar="RANK",
            unset="all weights are trained",
        )
    )
    alpha: int = field(
        default=32,
        metadata=Option(
            help="Scale of the low-rank adapters: they are multiplied by ALPHA / RANK.",
            name="lora_alpha",
            metavar="ALPHA",
        ),
    )
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DecoderTraining:
    """MAGNeT's training.

    text_dropout is the probability that a clip is trained without its text, for guidance. Weights stay float32.
    """

    PANEL: ClassVar[Panel] = "Training"

    text_dropout: float = 0.3
    codebook_shares: tuple[float, ...] | None = field(
        default=None,
        metadata=Option(
            help="How often each codebook is trained, in proportion to the others, e.g. 3,1,1,1.",
            unset="all equally often",
        ),
    )
    all_hidden: float = field(
        default=0.0,
        metadata=Option(
            help="Share of the clips of a step in which the whole codebook is hidden, so that the decoder learns what "
            "follows from the text alone. Helps a short training with many kinds of sound; e.g. 0.4.",
            metavar="SHARE",
        ),
    )
    precision: Precision = field(
        default="float32", metadata=Option(help="Precision of the arithmetic in training. The weights stay float32.")
    )
    lora: LoraOptions | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.text_dropout <= 1:
            raise UsageError(f"text dropout must be between 0 and 1, not {self.text_dropout}", "Give e.g. 0.3")
        if not 0 <= self.all_hidden <= 1:
            raise UsageError(
                f"the share of hidden clips must be between 0 and 1, not {self.all_hidden}", "Give e.g. 0.4"
            )


@dataclass(frozen=True)
class Places:
    """Where a training writes: `output` becomes the model, and `output.run` beside it holds everything else."""

    output: Path

    @property
    def run(self) -> Path:
        """State, logs and samples."""
        return self.output.with_name(self.output.name + ".run")

    @property
    def state(self) -> Path:
        """The saved state, from which a training resumes."""
        return self.run / "state.pt"

    def check(self, kind: TrainingKind, inputs: Sequence[Path]) -> None:
        """Check, before any work, that a training of this kind may write here.

        Only the output of an earlier training, with its run beside it, is ever replaced. Neither folder may be one of
        the inputs, nor a folder above or in one.

        Raises: OutputError if it may not.
        """
        check_target(self.output, OUTPUTS[kind], overwrite=True)
        for folder in (self.output, self.run):
            check_apart(folder, inputs)
        if not check_run(self.run, kind) and self.output.is_dir() and any(self.output.iterdir()):
            raise OutputError(
                f"{self.output} was not written by a training: there is no {self.run} beside it",
                "Choose another output, or move that folder away",
            )


# Shares of clips trained without their text, by task, as published.
TEXT_DROPOUT = {"music": 0.3, "sound": 0.1}


def check_packages(*, lora: bool = False, tensorboard: bool = False) -> None:
    """Check, before any work, that the packages that a training needs are installed.

    Raises: MagnetError for one that is missing.
    """
    needed = {"accelerate": ("training", True), "peft": ("--lora", lora), "tensorboard": ("--tensorboard", tensorboard)}
    for name, (purpose, is_needed) in needed.items():
        if is_needed and find_spec(name) is None:
            raise MagnetError(f"{purpose} needs the package {name}, which is not installed", INSTALL)
