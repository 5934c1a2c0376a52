"""The checkpoints this package knows by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig, Task, default_sampling

NON_COMMERCIAL = "CC-BY-NC-4.0"
UNKNOWN_LICENCE = "unknown"

Family = Literal["magnet", "musicgen"]


@dataclass(frozen=True)
class ModelFacts:
    """What a model can do and what it costs, as far as that is known without its weights.

    family          "magnet" decodes masked spans, "musicgen" frame after frame
    seconds         length of a MAGNeT's clips, or of the longest clip of a MusicGen
    frame_rate      frames in a second
    sample_rate     Hz
    parameters      of the decoder with its embeddings and heads
    text_encoder    its name in the model's configuration
    sampling        the options that suit it
    """

    family: Family
    task: Task
    seconds: float
    frame_rate: int
    sample_rate: int
    codebooks: int
    parameters: int
    text_encoder: str
    licence: str
    sampling: SamplingConfig | MusicGenSampling


# Of every released model.
FRAME_RATE, CODEBOOKS = 50, 4


@dataclass(frozen=True)
class ModelSpec:
    """A released checkpoint.

    repository: its Hub id. seconds: length of a clip. parameters: of the decoder with its embeddings and heads.
    text_encoder, sample_rate (Hz): as in its own configuration.
    """

    name: str
    repository: str
    task: Task
    seconds: int
    parameters: int
    text_encoder: str
    sample_rate: int
    licence: str = NON_COMMERCIAL

    @property
    def download_bytes(self) -> int:
        """Approximate size of a download: decoder in float16, codec and the whole text encoder in float32."""
        return 2 * self.parameters + CODEC_BYTES + TEXT_ENCODER_BYTES[self.text_encoder]

    @property
    def sampling(self) -> SamplingConfig:
        """The sampling options that its authors used."""
        return default_sampling(self.task, self.seconds, codebooks=CODEBOOKS)

    @property
    def facts(self) -> ModelFacts:
        """What is known of it before it is downloaded."""
        return ModelFacts(
            family="magnet",
            task=self.task,
            seconds=self.seconds,
            frame_rate=FRAME_RATE,
            sample_rate=self.sample_rate,
            codebooks=CODEBOOKS,
            parameters=self.parameters,
            text_encoder=self.text_encoder,
            licence=self.licence,
            sampling=self.sampling,
        )


CODEC_BYTES = 240_000_000
TEXT_ENCODER_BYTES = {"t5-base": 892_000_000, "t5-large": 2_951_000_000}  # model.safetensors, decoder half included
SMALL, MEDIUM = 419_000_000, 1_840_000_000

MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec("magnet-small-10secs", "facebook/magnet-small-10secs", "music", 10, SMALL, "t5-base", 32_000),
        ModelSpec("magnet-medium-10secs", "facebook/magnet-medium-10secs", "music", 10, MEDIUM, "t5-base", 32_000),
        ModelSpec("magnet-small-30secs", "facebook/magnet-small-30secs", "music", 30, SMALL, "t5-base", 32_000),
        ModelSpec("magnet-medium-30secs", "facebook/magnet-medium-30secs", "music", 30, MEDIUM, "t5-base", 32_000),
        ModelSpec("audio-magnet-small", "facebook/audio-magnet-small", "sound", 10, SMALL, "t5-large", 16_000),
        ModelSpec("audio-magnet-medium", "facebook/audio-magnet-medium", "sound", 10, MEDIUM, "t5-large", 16_000),
    )
}


@dataclass(frozen=True)
class RescorerSpec:
    """A released MusicGen, which generates, rescores and begins hybrids. Its files are not converted.

    parameters: the number that its authors give. seconds: length of its longest clip. download_bytes: about what its
    download takes; decoder, text encoder and codec are in float32.
    """

    name: str
    repository: str
    parameters: int
    download_bytes: int
    task: Task = "music"
    seconds: int = 30
    licence: str = NON_COMMERCIAL

    @property
    def facts(self) -> ModelFacts:
        """What is known of it before it is downloaded."""
        return ModelFacts(
            family="musicgen",
            task=self.task,
            seconds=self.seconds,
            frame_rate=FRAME_RATE,
            sample_rate=32_000,
            codebooks=CODEBOOKS,
            parameters=self.parameters,
            text_encoder="t5",
            licence=self.licence,
            sampling=MusicGenSampling(),
        )


RESCORERS: dict[str, RescorerSpec] = {
    spec.name: spec
    for spec in (
        RescorerSpec("musicgen-small", "facebook/musicgen-small", 300_000_000, 2_400_000_000),
        RescorerSpec("musicgen-medium", "facebook/musicgen-medium", 1_500_000_000, 8_000_000_000),
        RescorerSpec("musicgen-large", "facebook/musicgen-large", 3_300_000_000, 13_700_000_000),
    )
}


# What people call them. A folder of that name, and a bundle in the store, come first.
ALIASES = {"small": "magnet-small-10secs", "medium": "magnet-medium-10secs", "audio": "audio-magnet-small"}


def registered(name: str) -> ModelSpec | RescorerSpec | None:
    """The released model of this short name or Hub id."""
    specs: list[ModelSpec | RescorerSpec] = [*MODELS.values(), *RESCORERS.values()]
    return next((spec for spec in specs if name in (spec.name, spec.repository)), None)


MUSICGEN_SECONDS = 10.0  # of a clip, unless a duration is given; the longest is 30 s

DEFAULT_MODEL = "magnet-small-10secs"
BUNDLED = "bundled"  # the small model inside this package
DEFAULT_BEGINNER = "musicgen-small"  # generates the beginning of hybrids
