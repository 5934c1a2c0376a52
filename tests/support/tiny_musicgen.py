"""Tiny MusicGens with random weights, in the format of the released ones, that go with the golden music model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    EncodecConfig,
    GenerationConfig,
    MusicgenConfig,
    MusicgenDecoderConfig,
    MusicgenForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
)

from magnet_cli.checkpoints.parts import CodecCheckpoint
from magnet_cli.checkpoints.released import read_codec
from support.golden import GOLDEN

CODES = 64  # as many as the golden models have
PAD = CODES


def write_musicgen(
    folder: Path,
    *,
    seed: int = 0,
    width: int = 32,
    positions: int = 256,
    sample_rate: int = 32_000,
    own_codebooks: bool = False,
) -> MusicgenForConditionalGeneration:
    """Write a MusicGen into a folder; returns it as transformers has it.

    width: 24 is that of its text encoder, which needs no projection then. Its codec has the codebooks of the golden
    music model, unless `own_codebooks`.
    """
    text = T5Config(vocab_size=187, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    codec = EncodecConfig(
        sampling_rate=sample_rate,
        audio_channels=1,
        num_filters=4,
        hidden_size=16,
        codebook_size=CODES,
        upsampling_ratios=[8, 5, 4, sample_rate // 8000],
        target_bandwidths=[1.2],  # 4 codebooks of 6 bits at 50 frames a second
        use_causal_conv=False,
        normalize=False,
        use_conv_shortcut=False,
        pad_mode="constant",
    )
    decoder = MusicgenDecoderConfig(
        vocab_size=CODES,
        max_position_embeddings=positions,
        num_hidden_layers=2,
        ffn_dim=64,
        num_attention_heads=4,
        hidden_size=width,
        pad_token_id=PAD,
        bos_token_id=PAD,
    )
    config = MusicgenConfig(text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=decoder.to_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MusicgenForConditionalGeneration(config).eval()
        # As transformers initializes it, all logits are nearly equal and the text hardly matters.
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and not name.startswith("audio_encoder."):
                torch.nn.init.normal_(weight, std=0.3)
        golden = read_codec(GOLDEN / "music")
        assert isinstance(golden, CodecCheckpoint)
        for k, layer in enumerate(model.audio_encoder.quantizer.layers):
            if own_codebooks:
                layer.codebook.embed.normal_()
            else:
                layer.codebook.embed.copy_(golden.weights[f"quantizer.vq.layers.{k}._codebook.embed"])
    model.generation_config = GenerationConfig(
        bos_token_id=PAD, pad_token_id=PAD, decoder_start_token_id=PAD, guidance_scale=3.0, max_length=positions
    )
    model.save_pretrained(folder)
    shutil.copyfile(GOLDEN / "music" / "t5-base" / "tokenizer.json", folder / "tokenizer.json")
    return model


class Oracle:
    """A MusicGen of transformers and its tokenizer."""

    def __init__(self, folder: Path, model: MusicgenForConditionalGeneration) -> None:
        self.model = model
        self.tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(folder, pad_token="<pad>")

    def generate(self, prompts: list[str] | None, frames: int, **options: Any) -> Tensor:
        """Codes [B, K, T] of greedy decoding, caught on their way to the codec."""
        caught: list[Tensor] = []

        def decode(codes: Tensor, audio_scales: object) -> Any:
            caught.append(codes[0])
            return type("Output", (), {"audio_values": None})

        inputs = (
            self.model.get_unconditional_inputs(1)
            if prompts is None
            else self.tokenizer(prompts, padding=True, return_tensors="pt")
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.model.audio_encoder, "decode", decode)
            # The first column is given, and the last codebook ends 3 columns after the first.
            self.model.generate(**{**inputs, **options}, do_sample=False, max_length=frames + 4)
        return caught[0]


def change_settings(folder: Path, part: str | None, **values: object) -> None:
    """Change values in config.json, at its top level or in one of its parts."""
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    (settings if part is None else settings[part]).update(values)
    path.write_text(json.dumps(settings))


def store_as_released(folder: Path) -> None:
    """Rename and add tensors as the released MusicGens have them, which an old version of transformers wrote."""
    path = folder / "model.safetensors"
    state = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): weight
        for name, weight in load_file(path).items()
    }
    width = state["decoder.lm_heads.0.weight"].shape[1]
    state["decoder.model.decoder.embed_positions.weights"] = torch.zeros(256, width)
    state["text_encoder.encoder.embed_tokens.weight"] = state.pop("text_encoder.shared.weight")
    save_file(state, path)
