"""The golden models, and what the reference computed from them."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from magnet_cli import Pipeline, RuntimeConfig
from magnet_cli.checkpoints.parts import build_codec, build_decoder
from magnet_cli.checkpoints.released import read_codec, read_decoder
from magnet_cli.errors import MagnetWarning
from magnet_cli.model.codec import Codec
from magnet_cli.model.decoder import MaskedTransformer, TextMemory
from magnet_cli.model.text_encoder import TextEncoder
from magnet_cli.options.runtime import DTypeName
from magnet_cli.options.sampling import SamplingConfig

GOLDEN = Path(__file__).parents[1] / "golden"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Golden:
    """A golden model and what the reference computed from it."""

    folder: Path
    decoder: MaskedTransformer
    codec: Codec
    text: TextEncoder
    prompts: list[str]
    cases: list[SamplingConfig]
    arrays: dict[str, torch.Tensor]

    @property
    def frames(self) -> int:
        return int(self.decoder.config.clip_seconds * self.codec.config.frame_rate)

    def memory(self, *prompts: str) -> TextMemory:
        text = self.text.encode(prompts)
        with torch.inference_mode():
            return self.decoder.text_memory(text.states, text.lengths)


def _case(options: dict[str, Any]) -> SamplingConfig:
    return SamplingConfig(
        steps=tuple(options["decoding_steps"]),
        temperature=options["temperature"],
        guidance=options["max_cfg_coef"],
        min_guidance=options["min_cfg_coef"],
        spans=options["span_arrangement"],
        greedy=True,
    )


def load_golden(kind: str) -> Golden:
    folder = GOLDEN / kind
    decoder = read_decoder(folder)
    codec = read_codec(folder)
    description = json.loads((folder / "golden.json").read_text())
    with np.load(folder / "golden.npz") as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays}
    return Golden(
        folder=folder,
        decoder=build_decoder(decoder, CPU, torch.float32),
        codec=build_codec(codec, CPU),
        text=TextEncoder.load(folder / decoder.text.name, CPU),
        prompts=description["prompts"],
        cases=[_case(options) for options in description["cases"]],
        arrays={name: t.long() if t.dtype == torch.int16 else t for name, t in tensors.items()},
    )


def load_in(
    dtype: DTypeName,
    model: str,
    *,
    batch_size: int | None = None,
    rescorer: str | None = None,
    hybrid: str | None = None,
) -> Pipeline:
    """A model on the CPU in this dtype, whether or not the CPU has instructions for it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "this CPU has no fast", MagnetWarning)
        runtime = RuntimeConfig(device="cpu", dtype=dtype, batch_size=batch_size)
        return Pipeline.load(model, runtime, rescorer=rescorer, hybrid=hybrid)
