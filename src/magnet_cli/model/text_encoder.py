"""The text encoder: prompts -> T5 states.

The network is in `t5`, the tokenizer comes from `tokenizers`. Always float32, as in the reference: T5 overflows in
float16.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from magnet_cli.disk.small_files import UnreadableFileError, read_object
from magnet_cli.errors import MagnetWarning, ModelError, UsageError, one_line
from magnet_cli.model.known_words import known_words_of, words_of
from magnet_cli.model.t5 import T5Config, T5Encoder
from magnet_cli.model.tokenizer_file import normalized, read_tokenizer, token_ids
from magnet_cli.model.weights import Weights, assign, check_parts, read_weights, without_weights

# T5 was trained on at most this many tokens. Its positions are relative, so it accepts more, untested.
TRAINED_TOKENS = 512
# Attention takes memory in the square of the tokens: about 5 GB at this many in t5-base. Only a prompt of thousands of
# one-letter words comes near; more tokens come from oddities of Unicode, such as letters that stand for whole phrases.
MOST_TOKENS = 10_240

EMBEDDINGS = "encoder.embed_tokens.weight"


@dataclass(frozen=True)
class TextStates:
    """States [B, N, W] in float32, zero beyond each prompt's own tokens, and how many tokens each prompt has."""

    states: Tensor
    lengths: list[int]


class TextEncoder:
    """T5's encoder half and its tokenizer.

    known_words: all words that it was trained on, in lower case; None for one that knows any language well.
    """

    def __init__(self, model: T5Encoder, tokenizer: Tokenizer, known_words: Collection[str] | None = None) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.known_words = None if known_words is None else frozenset(known_words)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str) -> TextEncoder:
        """Read a folder in Hugging Face format: config.json, tokenizer.json, and weights of T5 or its encoder half.

        Raises: ModelError when a file is missing or damaged, or a tensor is missing or has the wrong shape.
        """
        path = folder / "config.json"
        try:
            settings = read_object(path)
        except UnreadableFileError as error:
            raise _no_t5(path, error) from error
        config = _config(settings, path)
        weights_path, weights = read_weights(folder)
        encoder = cls._assemble(config, weights, weights_path, device)
        return cls(encoder.model, encoder.tokenizer, known_words_of(settings))

    @classmethod
    def from_parts(
        cls, settings: Mapping[str, Any], weights: Weights, path: Path, *, device: torch.device | str
    ) -> TextEncoder:
        """A T5 that is part of another model, from its configuration and weights; its tokenizer is in the same folder.

        path: the file of the weights.

        Raises: ModelError as `load` does.
        """
        return cls._assemble(_config(settings, path), weights, path, device)

    @classmethod
    def _assemble(cls, config: T5Config, weights: Weights, path: Path, device: torch.device | str) -> TextEncoder:
        check_parts(weights, config.num_layers, path)
        try:
            with without_weights():
                model = T5Encoder(config)
        except Exception as error:  # torch fails in many ways for impossible sizes
            raise _no_t5(path, error) from error
        weights = {name: weight for name, weight in encoder_half(weights).items() if name != EMBEDDINGS}
        model = assign(model, weights, path, device=torch.device(device), dtype=torch.float32)
        encoder = cls(model, read_tokenizer(path.parent))
        encoder.tokenize("a")  # so that a broken tokenizer is found now, not at the hundredth clip
        return encoder

    @property
    def width(self) -> int:
        """Size of a state."""
        return int(self.model.config.d_model)

    def tokenize(self, prompt: str) -> list[int]:
        """Token ids of a prompt, end token included; a warning beyond TRAINED_TOKENS, UsageError beyond MOST_TOKENS.

        Raises: ModelError if the tokenizer fails, or returns tokens that the encoder does not have.
        """
        ids = token_ids(self.tokenizer, prompt, self.model.config.vocab_size)
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

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of a prompt that are not among the known ones, nor read as some of them, in order, each once.

        Raises: ModelError if the tokenizer fails.
        """
        if self.known_words is None or self.known_words.issuperset(words_of(prompt)):
            return []
        words = words_of(normalized(self.tokenizer, prompt))
        return [word for word in dict.fromkeys(words) if word not in self.known_words]

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> TextStates:
        """Encode prompts, each by itself, so that its states do not depend on the others; equal ones once."""
        device = self.model.shared.weight.device
        encoded: dict[str, Tensor] = {}
        for prompt in dict.fromkeys(prompts):
            ids = torch.tensor([self.tokenize(prompt)], device=device)
            encoded[prompt] = self.model(ids)[0]  # [N, W]
        states = [encoded[prompt] for prompt in prompts]
        return TextStates(torch.nn.utils.rnn.pad_sequence(states, batch_first=True), [len(state) for state in states])


def _config(settings: Mapping[str, Any], path: Path) -> T5Config:
    """The shape that settings in the format of `transformers` describe. path: their file, for messages."""
    try:
        return T5Config.from_settings(dict(settings))
    except (LookupError, TypeError, ValueError) as error:
        raise _no_t5(path, error) from error


def _no_t5(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path} does not describe a T5: {one_line(error)}", "Fetch the text encoder again")


def encoder_half(weights: Weights) -> Weights:
    """The encoder's tensors among those of a whole T5. Its embeddings have two names; files hold either or both."""
    encoder = {
        name: weight for name, weight in weights.items() if name.startswith("encoder.") or name == "shared.weight"
    }
    for name, other in (("shared.weight", EMBEDDINGS), (EMBEDDINGS, "shared.weight")):
        if other in encoder:
            encoder.setdefault(name, encoder[other])
    return encoder
