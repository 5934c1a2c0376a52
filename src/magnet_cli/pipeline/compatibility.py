"""Which models go together: a rescorer and the first model of a hybrid must use the same codes as the generator."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass

import torch

from magnet_cli.checkpoints.musicgen import MusicGenCheckpoint
from magnet_cli.checkpoints.parts import CodecCheckpoint, DecoderCheckpoint
from magnet_cli.errors import MagnetWarning, UsageError
from magnet_cli.options.sampling import Task
from magnet_cli.pipeline.rules import code_differences, refuse_other_codes

# Two copies of one codec differ by no more than rounding to float16; two codecs by about the size of their values.
ROUNDING = 1e-2


@dataclass(frozen=True)
class Vocabulary:
    """The codes of a model: its codebooks, its codec, and the seconds of its longest clip."""

    name: str
    task: Task
    codebooks: int
    seconds: float
    codec: CodecCheckpoint

    @classmethod
    def of_magnet(cls, name: str, decoder: DecoderCheckpoint, codec: CodecCheckpoint) -> Vocabulary:
        """That of a MAGNeT model."""
        return cls(name, decoder.task, decoder.config.codebooks, decoder.config.clip_seconds, codec)

    @classmethod
    def of_musicgen(cls, name: str, checkpoint: MusicGenCheckpoint) -> Vocabulary:
        """That of a MusicGen."""
        seconds = checkpoint.most_frames / checkpoint.codec.config.frame_rate
        return cls(name, "music", checkpoint.decoder.num_codebooks, seconds, checkpoint.codec)


def check_compatible(generator: Vocabulary, other: Vocabulary, *, seconds: float | None = None) -> None:
    """Raise UsageError unless the other model can rescore the generator's codes, or begin its clips.

    seconds: how much it has to score or generate; None: a whole clip of the generator. Warns with MagnetWarning if the
    values of the two codecs' codebooks differ.
    """
    own, others = generator.codec.config, other.codec.config
    differences = code_differences((own.sample_rate, others.sample_rate), (generator.codebooks, other.codebooks))
    if own.hop != others.hop:
        differences.append((f"frames of {others.hop} samples", f"{own.hop}"))
    if own.codes != others.codes:
        differences.append((f"codebooks of {others.codes} codes", f"{own.codes}"))
    refuse_other_codes(generator.name, generator.task, other.name, differences)
    seconds = generator.seconds if seconds is None else seconds
    if seconds > other.seconds:
        raise UsageError(
            f"{other.name} handles {other.seconds:g} s, but {generator.name} generates {seconds:g} s",
            "Choose a model with longer clips",
        )
    if not same_codebooks(generator, other):
        warnings.warn(
            f"{other.name} was trained with another codec than {generator.name}: its probabilities may be meaningless",
            MagnetWarning,
            stacklevel=2,
        )


def codebooks_hash(one: Vocabulary) -> str:
    """SHA-256 of the values that a model's codes stand for, rounded to float16: the same in every copy of the codec."""
    digest = hashlib.sha256()
    for name in _codebook_names(one):
        if name in one.codec.weights:
            digest.update(one.codec.weights[name].to("cpu", torch.float16).numpy().tobytes())
    return digest.hexdigest()


def _codebook_names(one: Vocabulary) -> list[str]:
    return [f"quantizer.vq.layers.{k}._codebook.embed" for k in range(one.codebooks)]


def same_codebooks(one: Vocabulary, other: Vocabulary) -> bool:
    """Whether the codes of two models stand for the same values, apart from rounding."""
    pairs = [(one.codec.weights.get(name), other.codec.weights.get(name)) for name in _codebook_names(one)]
    return all(
        # The strict loading of the codec reports a missing or misshapen tensor.
        a is None or b is None or a.shape != b.shape or torch.allclose(a.float(), b.float(), ROUNDING, ROUNDING)
        for a, b in pairs
    )
