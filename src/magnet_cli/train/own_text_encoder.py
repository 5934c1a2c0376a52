"""A new text encoder: a T5 encoder of any size, with a tokenizer learned from the captions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from magnet_cli.checkpoints.bundle import save_weights
from magnet_cli.disk.atomic import write_atomic
from magnet_cli.model.t5 import T5Config, T5Encoder
from magnet_cli.model.text_encoder import TextEncoder, encoder_half
from magnet_cli.train.options import TextShape

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SMALLEST, LARGEST = 30, 300  # numbers that are rounded: those that can be a tempo


def learn_tokenizer(texts: Sequence[str], vocabulary: int, round_to: int) -> Tokenizer:
    """Byte-pair encoding of the captions, in lower case, over bytes, so that any text has tokens.

    round_to: read whole numbers that can be a tempo as their nearest multiple of this; 0: as they are.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    steps: list[normalizers.Normalizer] = [normalizers.NFKC(), normalizers.Lowercase()]
    if round_to > 1:
        for middle in range(-(-SMALLEST // round_to) * round_to, LARGEST + 1, round_to):
            below, above = middle - (round_to - 1) // 2, middle + round_to // 2
            others = [str(number) for number in range(below, above + 1) if number != middle]
            steps.append(normalizers.Replace(Regex(rf"\b(?:{'|'.join(others)})\b"), str(middle)))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation("isolated"), pre_tokenizers.ByteLevel(add_prefix_space=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END, UNKNOWN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return tokenizer


def new_text_encoder(shape: TextShape, tokenizer: Tokenizer) -> TextEncoder:
    """A T5 encoder with random weights."""
    config = T5Config(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=shape.width,
        d_kv=shape.width // shape.heads,
        d_ff=shape.feed_forward,
        num_layers=shape.layers,
        num_heads=shape.heads,
        eos_token_id=tokenizer.token_to_id(END) or 0,
    )
    model = T5Encoder(config)
    # Embeddings of variance 1, as in T5. Smaller ones vanish beside what the layers add, and words that are used alike,
    # such as numbers, get nearly the same states: a model that began with 0.01 never learned to follow a tempo.
    model.initialize()
    return TextEncoder(model, tokenizer)


def write_text_encoder(encoder: TextEncoder, folder: Path, dtype: torch.dtype) -> None:
    """Write a folder that `TextEncoder.load` reads.

    Raises: OutputError, OSError.
    """
    settings = {"model_type": "t5", "architectures": ["T5EncoderModel"], **asdict(encoder.model.config)}
    texts = {"config.json": json.dumps(settings, indent=2), "tokenizer.json": encoder.tokenizer.to_str(pretty=True)}
    for name, text in texts.items():
        write_atomic(folder / name, lambda file, text=text: file.write(text.encode()), overwrite=True)  # type: ignore[misc]
    half = encoder_half(dict(encoder.model.state_dict()))
    half.pop("encoder.embed_tokens.weight", None)
    weights = {name: tensor.detach().to("cpu", dtype).contiguous().clone() for name, tensor in half.items()}
    save_weights(weights, folder / "model.safetensors")
