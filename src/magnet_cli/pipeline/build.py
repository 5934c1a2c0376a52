"""Build models that were read: check that they go together, and put them on a device."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from magnet_cli.audio.codes_file import CodesSource
from magnet_cli.checkpoints.bundle import Model
from magnet_cli.checkpoints.musicgen import MusicGenModel
from magnet_cli.checkpoints.parts import CodecCheckpoint, DecoderCheckpoint, build_decoder
from magnet_cli.decoding.musicgen import MusicGen
from magnet_cli.engines.choose import fastest
from magnet_cli.engines.device import processor_name
from magnet_cli.errors import MagnetWarning, ModelError, UsageError
from magnet_cli.model.config import MOST_FRAMES
from magnet_cli.model.text_encoder import TextEncoder
from magnet_cli.options.runtime import RuntimeConfig
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig, Task
from magnet_cli.pipeline.compatibility import Vocabulary, check_compatible, codebooks_hash
from magnet_cli.pipeline.generators import AutoregressiveGenerator, Generator, MaskedGenerator, MusicGenHelper, Reader
from magnet_cli.pipeline.rules import check_helpers


@dataclass(frozen=True)
class ModelInfo:
    """What is loaded and where it runs. `clip_seconds` is the length its checkpoint names; `sample_rate` is in Hz."""

    name: str
    folder: Path
    repository: str | None
    revision: str | None
    licence: str
    task: Task
    clip_seconds: float
    sample_rate: int
    codebooks: int
    text_encoder: str
    sampling: SamplingConfig | MusicGenSampling
    device: str
    dtype: str
    processor: str
    compiled: bool


def describe(
    source: Model | MusicGenModel, device: torch.device, dtype: torch.dtype, runtime: RuntimeConfig
) -> ModelInfo:
    """What a model is, on this device and in this precision."""
    facts, origin = source.facts, source.origin
    return ModelInfo(
        name=origin.name,
        folder=source.folder,
        repository=origin.repository,
        revision=origin.revision,
        licence=facts.licence,
        task=facts.task,
        clip_seconds=facts.seconds,
        sample_rate=facts.sample_rate,
        codebooks=facts.codebooks,
        text_encoder=facts.text_encoder,
        sampling=facts.sampling,
        device=str(device),
        dtype=runtime.dtype if runtime.eight_bits else str(dtype).removeprefix("torch."),
        processor=processor_name(device),
        compiled=runtime.compile and device.type == "cuda" and not source.is_musicgen,
    )


def check_codes(source: Model | MusicGenModel, helpers: Mapping[str, Model | MusicGenModel]) -> None:
    """Raise UsageError unless the models go together and their codes have the same meaning."""
    check_helpers(source, helpers)
    for role, helper in helpers.items():
        # A hybrid's beginning may have any length; its limit is checked when the length is known.
        check_compatible(vocabulary(source), vocabulary(helper), seconds=0.0 if role == "hybrid" else None)


def build_generator(
    source: Model | MusicGenModel,
    helpers: Mapping[str, Model | MusicGenModel],
    device: torch.device,
    dtype: torch.dtype,
    runtime: RuntimeConfig,
) -> Generator:
    """The models, ready to generate. A helper in two roles is built once; none is in 8 bits or compiled."""
    if isinstance(source, MusicGenModel):
        if runtime.eight_bits:
            raise UsageError(f"MusicGen cannot run in {runtime.dtype}", "Give --dtype auto, or choose a MAGNeT model")
        if runtime.compile:
            warnings.warn("--compile has no effect: MusicGen is not compiled", MagnetWarning, stacklevel=3)
        return AutoregressiveGenerator(MusicGen.build(source.checkpoint, device, dtype))
    built: dict[str, MusicGenHelper | Reader] = {}
    for role, helper in helpers.items():
        same = next((built[other] for other in built if helpers[other].codec.path == helper.codec.path), None)
        built[role] = same or _build(helper, device, dtype)
    beginner = built.get("hybrid")
    return MaskedGenerator(
        build_reader(source, device, dtype, runtime),
        built.get("rescorer"),
        beginner.model if isinstance(beginner, MusicGenHelper) else None,
    )


def build_reader(
    source: Model, device: torch.device, dtype: torch.dtype, runtime: RuntimeConfig | None = None
) -> Reader:
    """A MAGNeT's text encoder and decoder. Raises ModelError unless they go together. runtime: see `fastest`."""
    _check_codec(source.decoder, source.codec)
    text_encoder = TextEncoder.load(source.text_folder, device)
    _check_text(source.decoder, text_encoder.width, source.text_folder)
    decoder = build_decoder(source.decoder, device, dtype)
    return Reader(text_encoder, decoder, fastest(decoder, runtime or RuntimeConfig()))


def _build(source: Model | MusicGenModel, device: torch.device, dtype: torch.dtype) -> MusicGenHelper | Reader:
    if isinstance(source, MusicGenModel):
        return MusicGenHelper(MusicGen.build(source.checkpoint, device, dtype))
    return build_reader(source, device, dtype)


def vocabulary(source: Model | MusicGenModel) -> Vocabulary:
    """What a model's codes are."""
    facts = source.facts
    return Vocabulary(source.name, facts.task, facts.codebooks, facts.seconds, source.codec)


def codes_source(source: Model | MusicGenModel) -> CodesSource:
    """How files of codes name a model and its codec."""
    return CodesSource(source.name, codebooks_hash(vocabulary(source)))


def _check_codec(decoder: DecoderCheckpoint, codec: CodecCheckpoint) -> None:
    """Raise ModelError unless the two halves of a checkpoint go together."""
    if decoder.config.clip_seconds * codec.config.frame_rate < decoder.config.span_length:
        raise ModelError(
            f"a clip of {decoder.path} lasts {decoder.config.clip_seconds:g} s, less than one span",
            "Its configuration is damaged; fetch it again",
        )
    frames = decoder.config.clip_seconds * codec.config.frame_rate
    if frames > MOST_FRAMES:
        raise ModelError(
            f"a clip of {decoder.path} has {frames:,.0f} frames; at most {MOST_FRAMES:,} are possible",
            "Its configuration is damaged; fetch it again",
        )
    if codec.config.codebooks < decoder.config.codebooks or codec.config.codes != decoder.config.codes:
        raise ModelError(
            f"{decoder.path} writes {decoder.config.codebooks} codebooks of {decoder.config.codes} codes, but "
            f"{codec.path} reads {codec.config.codebooks} of {codec.config.codes}",
            "The two files belong to different models; fetch both again",
        )


def _check_text(decoder: DecoderCheckpoint, width: int, folder: Path) -> None:
    """Raise ModelError unless the text encoder is of the size the decoder was trained with."""
    if width != decoder.config.text_width:
        raise ModelError(
            f"the text encoder in {folder} has states of {width}, but {decoder.path} was trained with "
            f"{decoder.config.text_width}",
            f"Put the encoder that it names, {decoder.text.name}, in its place",
        )
