"""Reading a MusicGen in the format of `transformers`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magnet_cli.checkpoints.bundle import Origin
from magnet_cli.checkpoints.hugging_face_codec import hugging_face_codec, hugging_face_codec_config
from magnet_cli.checkpoints.parts import CodecCheckpoint
from magnet_cli.disk.small_files import read_object
from magnet_cli.errors import ModelError, one_line, shown
from magnet_cli.hub.registry import ModelFacts
from magnet_cli.hub.store import sha256
from magnet_cli.model.config import (
    MOST_CODEBOOKS,
    MOST_CODES,
    MOST_HIDDEN,
    MOST_LAYERS,
    MOST_WIDTH,
    Limits,
    check_sizes,
)
from magnet_cli.model.weights import Weights, read_weights
from magnet_cli.options.sampling import MusicGenSampling

if TYPE_CHECKING:
    from transformers import MusicgenDecoderConfig
# The released models were trained on clips of this length, whatever their configuration allows.
TRAINED_SECONDS = 30
PARTS = ("text_encoder", "audio_encoder", "decoder", "enc_to_dec_proj")
# A table of sines that old versions of transformers stored with the weights; new ones compute it.
COMPUTED = "model.decoder.embed_positions.weights"
# Limits of the decoder; see model.config.
DECODER_LIMITS: Limits = {
    "vocab_size": (1, MOST_CODES),
    "num_codebooks": (1, MOST_CODEBOOKS),
    "hidden_size": (4, MOST_WIDTH),
    "num_hidden_layers": (1, MOST_LAYERS),
    "num_attention_heads": (1, MOST_WIDTH),
    "ffn_dim": (1, MOST_HIDDEN),
    "max_position_embeddings": (2, 100_000),
}
OTHER_MODEL = "Choose musicgen-small, musicgen-medium or musicgen-large"


@dataclass(frozen=True)
class MusicGenCheckpoint:
    """A MusicGen as read from disk, checked but not built: weights are memory-mapped, by part of the model."""

    path: Path
    decoder: MusicgenDecoderConfig
    text: dict[str, Any]
    codec: CodecCheckpoint
    weights: dict[str, Weights]

    @property
    def most_frames(self) -> int:
        """Frames in the longest clip that it can generate or score."""
        # The last column is never an input.
        columns = self.decoder.max_position_embeddings + 1
        return min(TRAINED_SECONDS * self.codec.config.frame_rate, columns - self.decoder.num_codebooks)


def read_musicgen(folder: Path) -> MusicGenCheckpoint:
    """Read a folder in Hugging Face format: config.json, tokenizer.json, and weights of the whole model.

    Raises: ModelError when a file is missing or damaged, or for a MusicGen for stereo or melodies.
    """
    settings = _read_settings(folder)
    decoder = _decoder_config(settings, folder)
    codec = _codec_config(settings, folder)
    if codec.codebooks < decoder.num_codebooks or codec.codes != decoder.vocab_size:
        raise ModelError(
            f"{folder / 'config.json'} has a decoder of {decoder.num_codebooks} codebooks of {decoder.vocab_size} "
            f"codes, but a codec of {codec.codebooks} of {codec.codes}",
            "Its configuration is damaged; fetch it again",
        )
    path, state = read_weights(folder)
    weights: dict[str, Weights] = {part: {} for part in PARTS}
    for name, weight in state.items():
        part, _, rest = name.partition(".")
        if part not in weights:
            raise ModelError(f"{name} in {path} does not belong to a MusicGen", OTHER_MODEL)
        weights[part][rest] = weight
    weights["decoder"].pop(COMPUTED, None)
    return MusicGenCheckpoint(
        path=path,
        decoder=decoder,
        text=settings["text_encoder"],
        codec=hugging_face_codec(codec, weights["audio_encoder"], path),
        weights=weights,
    )


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        settings = read_object(path)
        kind = settings["model_type"]
        parts = [settings[part] for part in ("text_encoder", "audio_encoder", "decoder")] if kind == "musicgen" else []
        if not all(isinstance(part, dict) for part in parts):
            raise ValueError("a part of it is no mapping")
    except (ValueError, LookupError, TypeError) as error:
        raise ModelError(f"{path} does not describe a MusicGen: {one_line(error)}", "Fetch it again") from error
    if kind == "musicgen_melody":
        raise ModelError(f"{folder} is a MusicGen that follows melodies, which is not supported", OTHER_MODEL)
    if kind != "musicgen":
        raise ModelError(f"{path} describes a model of type {shown(kind)}, not 'musicgen'", OTHER_MODEL)
    return settings


def _decoder_config(settings: dict[str, Any], folder: Path) -> MusicgenDecoderConfig:
    from transformers import MusicgenDecoderConfig  # seconds to import

    path = folder / "config.json"
    try:
        config = MusicgenDecoderConfig.from_dict(settings["decoder"])
        check_sizes(vars(config), DECODER_LIMITS)
    except Exception as error:  # the library checks little of what it is given, and fails in as many ways
        raise ModelError(f"{path} does not describe a MusicGen: {one_line(error)}", "Fetch it again") from error
    if config.audio_channels != 1:
        raise ModelError(f"{folder} is a stereo MusicGen, which is not supported: MAGNeT is mono", OTHER_MODEL)
    if config.pad_token_id != config.vocab_size:
        raise ModelError(
            f"the padding token in {path} is {config.pad_token_id}, not the one behind the {config.vocab_size} codes",
            OTHER_MODEL,
        )
    return config


def _codec_config(settings: dict[str, Any], folder: Path) -> Any:
    from transformers import EncodecConfig

    # transformers leaves out what equals its defaults in some versions.
    return hugging_face_codec_config({**EncodecConfig().to_dict(), **settings["audio_encoder"]}, folder)


SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class MusicGenModel:
    """A MusicGen, read but not built."""

    origin: Origin
    checkpoint: MusicGenCheckpoint

    @property
    def name(self) -> str:
        """Its name."""
        return self.origin.name

    @property
    def is_musicgen(self) -> bool:
        """It is."""
        return True

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return self.checkpoint.path.parent

    @property
    def codec(self) -> CodecCheckpoint:
        """The codec that decodes its codes."""
        return self.checkpoint.codec

    @cached_property
    def facts(self) -> ModelFacts:
        """What it can do and what it costs."""
        codec = self.codec.config
        return ModelFacts(
            family="musicgen",
            task="music",
            seconds=self.checkpoint.most_frames / codec.frame_rate,
            frame_rate=codec.frame_rate,
            sample_rate=codec.sample_rate,
            codebooks=self.checkpoint.decoder.num_codebooks,
            parameters=sum(one.numel() for one in self.checkpoint.weights["decoder"].values()),
            text_encoder="t5",
            licence=self.origin.licence,
            sampling=MusicGenSampling(),
        )

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of its file of weights; the Hub cache names large files by it."""
        path = self.checkpoint.path.resolve()
        return {self.checkpoint.path.name: path.name if SHA256.fullmatch(path.name) else sha256(path)}
