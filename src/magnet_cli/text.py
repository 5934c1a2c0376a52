"""The text encoder: prompts -> T5 states.

The network comes from `transformers`, the tokenizer from `tokenizers`. Always float32, as in the reference: T5
overflows in float16.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from magnet_cli.errors import MagnetWarning, ModelError, UsageError, one_line

# T5 was trained on at most this many tokens. Its positions are relative, so it takes more, but with no promise.
TRAINED_TOKENS = 512
# Attention takes memory in the square of the tokens: about 5 GB at this many in t5-base. Only a prompt of thousands of
# one-letter words comes near; what goes beyond is an oddity of Unicode, such as letters that stand for whole phrases.
MOST_TOKENS = 10_240

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class TextStates:
    """States [B, N, W] in float32, zero beyond each prompt's own tokens, and how many tokens each prompt has."""

    states: Tensor
    lengths: list[int]


class TextEncoder:
    """T5's encoder half and its tokenizer."""

    def __init__(self, model: T5EncoderModel, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path, device: torch.device | str) -> TextEncoder:
        """Read a folder in Hugging Face format: config.json, tokenizer.json, and weights of T5 or its encoder half.

        Raises ModelError when a file is missing or damaged, or a tensor is missing or has the wrong shape.
        """
        config = T5Config.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model = T5EncoderModel(config)
        weights = _encoder_weights(folder)
        try:
            model.load_state_dict(
                {name: weight.to(device, torch.float32) for name, weight in weights.items()}, assign=True
            )
        except RuntimeError as error:
            raise ModelError(
                f"the text encoder in {folder} does not fit its config.json: {one_line(error)}", "Fetch it again"
            ) from error
        return cls(model.eval().requires_grad_(False), _read_tokenizer(folder))

    @property
    def width(self) -> int:
        """Size of a state."""
        return int(self.model.config.d_model)

    def tokenize(self, prompt: str) -> list[int]:
        """Token ids of a prompt, end token included; a warning beyond TRAINED_TOKENS, UsageError beyond MOST_TOKENS."""
        ids: list[int] = self.tokenizer.encode(prompt).ids
        if len(ids) > MOST_TOKENS:
            raise UsageError(
                f"a prompt has {len(ids)} tokens; at most {MOST_TOKENS} are possible",
                "Describe the clip in fewer words",
            )
        if len(ids) > TRAINED_TOKENS:
            warnings.warn(
                f"a prompt has {len(ids)} tokens and is used whole, but the text encoder was trained on at most "
                f"{TRAINED_TOKENS}: what a very long prompt does is unpredictable",
                MagnetWarning,
                stacklevel=2,
            )
        return ids

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> TextStates:
        """Encode prompts, each by itself, so that its states do not depend on the others."""
        device = self.model.shared.weight.device
        states = []
        for prompt in prompts:
            ids = torch.tensor([self.tokenize(prompt)], device=device)
            states.append(self.model(input_ids=ids).last_hidden_state[0])  # [N, W]
        return TextStates(torch.nn.utils.rnn.pad_sequence(states, batch_first=True), [len(state) for state in states])


def _encoder_weights(folder: Path) -> dict[str, Tensor]:
    """The encoder's tensors among those of a whole T5, under the names T5EncoderModel uses."""
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise ModelError(f"no text encoder weights in {folder}", f"It must hold one of {', '.join(WEIGHT_FILES)}")
    try:
        if path.suffix == ".safetensors":
            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (SafetensorError, RuntimeError, OSError, ValueError) as error:
        raise ModelError(f"cannot read {path}: {one_line(error)}", "Fetch it again") from error
    encoder = {
        name: weight for name, weight in weights.items() if name.startswith("encoder.") or name == "shared.weight"
    }
    if "shared.weight" not in encoder and "encoder.embed_tokens.weight" in encoder:
        encoder["shared.weight"] = encoder["encoder.embed_tokens.weight"]
    elif "shared.weight" in encoder:
        encoder["encoder.embed_tokens.weight"] = encoder["shared.weight"]
    return encoder


def _read_tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for a missing or damaged file
        raise ModelError(
            f"cannot read the tokenizer {path}: {one_line(error)}", "Fetch the text encoder again"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
