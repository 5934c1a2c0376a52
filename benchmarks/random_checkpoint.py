"""Write a checkpoint in the released format and size with random weights: speed and memory without a download.

    .venv/bin/python benchmarks/random_checkpoint.py small-10secs /tmp/small
    .venv/bin/magnet generate x --model /tmp/small -o /tmp/x.wav -v

What it generates is noise. The configuration is that of tests/golden/music with the sizes of the released models.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from magnet_cli.bench.speed import shapes
from magnet_cli.model.codec import Codec
from magnet_cli.model.config import CodecConfig

TEMPLATE = Path(__file__).parents[1] / "tests" / "golden" / "music"
SIZES = shapes()
CODEBOOKS, CODES, TEXT_WIDTH = 4, 2048, 768
SCALE = 0.02  # small enough for float16, whatever the depth


def normal(*shape: int) -> Tensor:
    return (torch.randn(*shape) * SCALE).half()


def decoder_state(width: int, layers: int) -> dict[str, Tensor]:
    """Tensors under their released names."""
    projection = "condition_provider.conditioners.description.output_proj"
    state = {f"{projection}.weight": normal(width, TEXT_WIDTH), f"{projection}.bias": normal(width)}
    for k in range(CODEBOOKS):
        state[f"emb.{k}.weight"] = normal(CODES + 1, width)
        state[f"linears.{k}.weight"] = normal(CODES, width)
    for i in range(layers):
        layer = f"transformer.layers.{i}"
        for attention in ("self_attn", "cross_attention"):
            state[f"{layer}.{attention}.in_proj_weight"] = normal(3 * width, width)
            state[f"{layer}.{attention}.out_proj.weight"] = normal(width, width)
        state[f"{layer}.linear1.weight"] = normal(4 * width, width)
        state[f"{layer}.linear2.weight"] = normal(width, 4 * width)
        for norm in ("norm1", "norm_cross", "norm2"):
            state |= norm_state(f"{layer}.{norm}", width)
    return state | norm_state("out_norm", width)


def norm_state(name: str, width: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.ones(width).half(), f"{name}.bias": torch.zeros(width).half()}


def codec_state(settings: dict[str, Any]) -> dict[str, Tensor]:
    """A codec with the initialization of the encodec package; a weight's length is its own norm."""
    seanet = settings["seanet"]
    names = (
        "dimension n_filters n_residual_layers kernel_size residual_kernel_size last_kernel_size dilation_base "
        "compress lstm pad_mode true_skip activation activation_params"
    )
    config = CodecConfig(
        sample_rate=settings["sample_rate"],
        channels=settings["channels"],
        codebooks=CODEBOOKS,
        codes=CODES,
        ratios=tuple(seanet["ratios"]),
        causal=False,
        trim_right_ratio=1.0,
        final_activation=None,
        **{name: seanet[name] for name in names.split()},
    )
    state: dict[str, Tensor] = {}
    for name, weight in Codec(config).state_dict().items():
        if name.endswith(("conv.weight", "convtr.weight")):
            state[f"{name}_v"] = weight
            state[f"{name}_g"] = weight.flatten(1).norm(dim=1).view(-1, 1, 1)
        else:
            state[name] = torch.randn_like(weight) if name.endswith("embed") else weight
    return state


def write(size: str, folder: Path) -> None:
    """Write the three parts of a checkpoint into a new folder."""
    config = SIZES[size]
    width, heads, layers, seconds = config.width, config.heads, config.layers, int(config.clip_seconds)
    folder.mkdir(parents=True)
    package = torch.load(TEMPLATE / "state_dict.bin", weights_only=True)
    settings = yaml.safe_load(package["xp.cfg"])
    settings["transformer_lm"] |= {"dim": width, "num_heads": heads, "num_layers": layers, "card": CODES}
    settings["dataset"]["segment_duration"] = seconds
    package |= {"xp.cfg": yaml.safe_dump(settings), "best_state": decoder_state(width, layers)}
    torch.save(package, folder / "state_dict.bin")

    package = torch.load(TEMPLATE / "compression_state_dict.bin", weights_only=True)
    settings = yaml.safe_load(package["xp.cfg"])
    settings["seanet"] |= {"dimension": 128, "n_filters": 64}
    settings["rvq"] |= {"bins": CODES}
    package |= {"xp.cfg": yaml.safe_dump(settings), "best_state": codec_state(settings)}
    torch.save(package, folder / "compression_state_dict.bin")

    encoder = T5EncoderModel(T5Config(d_model=TEXT_WIDTH, d_kv=64, d_ff=3072, num_layers=12, num_heads=12))
    encoder.save_pretrained(folder / "t5-base")
    shutil.copy(TEMPLATE / "t5-base" / "tokenizer.json", folder / "t5-base")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write a checkpoint with random weights.")
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    write(arguments.size, arguments.folder)
