"""A new text encoder: a T5 encoder of any size, with a tokenizer learned from the captions."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from magnet_cli.checkpoints.bundle import save_weights
from magnet_cli.disk.atomic import write_atomic
from magnet_cli.disk.small_files import UnreadableFileError
from magnet_cli.errors import UsageError
from magnet_cli.model.known_words import KNOWN_WORDS, WORD, words_of
from magnet_cli.model.t5 import T5Config, T5Encoder
from magnet_cli.model.text_encoder import TextEncoder, encoder_half
from magnet_cli.model.tokenizer_file import check_steps
from magnet_cli.train.options import TextShape
from magnet_cli.train.synonyms import Synonyms, replacements

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SMALLEST, LARGEST = 30, 300  # numbers that can be a tempo: they are rounded, and each is a token
WORD_START = "Ġ"  # the byte-level alphabet's space, with which every word begins
# Frequencies of the features of a number's logarithm, in radians: the lowest separate 40 from 160, the highest 100 from
# 102. Evenly spaced ones make the similarity of two numbers fall like sin(x) / x, to near 0 within an octave.
LOWEST_FREQUENCY, HIGHEST_FREQUENCY = 1.0, 32.0


def learn_tokenizer(
    texts: Sequence[str], vocabulary: int, round_to: int, synonyms: Sequence[Synonyms] = ()
) -> Tokenizer:
    """Byte-pair encoding of the captions, in lower case, over bytes, so that any text has tokens.

    Every number that can be a tempo has a token of its own, beside the `vocabulary`. Punctuation that the captions
    lack is read as a space.

    round_to: read whole numbers that can be a tempo as their nearest multiple of this; 0: as they are. synonyms: what
    is read in place of words that the captions lack.

    Raises: UsageError for synonyms that are too many for a tokenizer.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = _normalizer(texts, round_to, synonyms)
    # Every part becomes " part", so a word has the same tokens wherever it stands.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END, UNKNOWN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    numbers = _tempi(round_to)
    written = re.compile(rf"\b(?:{'|'.join(map(str, range(SMALLEST, LARGEST + 1)))})\b")
    tokenizer.train_from_iterator((written.sub(" ", text) for text in sorted(set(texts))), trainer)
    tokenizer = _with_words(tokenizer, [f"{WORD_START}{number}" for number in numbers])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    try:
        check_steps(tokenizer.to_str())
    except UnreadableFileError as error:
        raise UsageError(f"the tokenizer could not be read again: {error}", "Give fewer or other synonyms") from error
    return tokenizer


def known_words(texts: Sequence[str]) -> set[str]:
    """The words that a model with a text encoder of its own knows: those of its captions, and all tempi."""
    return {word for text in set(texts) for word in words_of(text)} | {
        str(number) for number in range(SMALLEST, LARGEST + 1)
    }


def _normalizer(texts: Sequence[str], round_to: int, synonyms: Sequence[Synonyms]) -> normalizers.Normalizer:
    """Lower case; tempi apart from their unit, and rounded; synonyms; no punctuation that the captions lack."""
    steps: list[normalizers.Normalizer] = [
        normalizers.NFKC(),
        normalizers.Lowercase(),
        normalizers.Replace(Regex(r"(?<=[0-9])[ -]?bpm\b"), " bpm"),  # 120bpm, 120-bpm
    ]
    for middle in _tempi(round_to) if round_to > 1 else ():
        below, above = middle - (round_to - 1) // 2, middle + round_to // 2
        others = [str(number) for number in range(below, above + 1) if number != middle]
        steps.append(normalizers.Replace(Regex(rf"\b(?:{'|'.join(others)})\b"), str(middle)))
    characters = {sign for text in set(texts) for sign in unicodedata.normalize("NFKC", text)}
    signs = {sign for sign in characters if not sign.isspace() and not WORD.match(sign)}
    for one in replacements(synonyms, known_words(texts) | signs):
        steps.append(normalizers.Replace(Regex(one.pattern), one.target))
    kept = "".join(re.escape(sign) for sign in sorted(signs))
    steps.append(normalizers.Replace(Regex(rf"[^\w\s{kept}]"), " "))
    return normalizers.Sequence(steps)


def _tempi(round_to: int) -> range:
    """The numbers that can be a tempo, as they are read."""
    step = max(1, round_to)
    return range(-(-SMALLEST // step) * step, LARGEST + 1, step)


def _with_words(tokenizer: Tokenizer, words: Sequence[str]) -> Tokenizer:
    """A tokenizer in which these words are tokens, whatever the merges that it learned."""
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    for word in words:
        vocabulary.setdefault(word, len(vocabulary))
    content["model"]["ignore_merges"] = True  # a word that is a token is read as one
    return Tokenizer.from_str(json.dumps(content))


def number_features(numbers: Tensor, width: int) -> Tensor:
    """Embeddings of numbers [N] with variance 1, alike for numbers of like magnitude: float32 [N, width].

    They are cosines and sines of the logarithm at frequencies from LOWEST_FREQUENCY to HIGHEST_FREQUENCY.
    """
    frequencies = torch.linspace(LOWEST_FREQUENCY, HIGHEST_FREQUENCY, -(-width // 2))
    phases = numbers.float().log().unsqueeze(-1) * frequencies  # [N, width / 2]
    return math.sqrt(2) * torch.cat([phases.cos(), phases.sin()], dim=-1)[:, :width]


def new_text_encoder(shape: TextShape, tokenizer: Tokenizer, known: Collection[str] | None = None) -> TextEncoder:
    """A T5 encoder with random weights, but for the embeddings of tempi: `number_features`. known: its words."""
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
    tokens = {token: int(token[1:]) for token in tokenizer.get_vocab() if re.fullmatch(f"{WORD_START}[0-9]+", token)}
    tempi = {token: number for token, number in tokens.items() if SMALLEST <= number <= LARGEST}
    rows = torch.tensor([tokenizer.token_to_id(token) for token in tempi], dtype=torch.int64)
    with torch.no_grad():
        model.shared.weight[rows] = number_features(torch.tensor(list(tempi.values())), shape.width)
    return TextEncoder(model, tokenizer, known)


def write_text_encoder(encoder: TextEncoder, folder: Path, dtype: torch.dtype) -> None:
    """Write a folder that `TextEncoder.load` reads.

    Raises: OutputError, OSError.
    """
    settings = {"model_type": "t5", "architectures": ["T5EncoderModel"], **asdict(encoder.model.config)}
    if encoder.known_words is not None:
        settings[KNOWN_WORDS] = sorted(encoder.known_words)
    texts = {"config.json": json.dumps(settings, indent=2), "tokenizer.json": encoder.tokenizer.to_str(pretty=True)}
    for name, text in texts.items():
        write_atomic(folder / name, lambda file, text=text: file.write(text.encode()), overwrite=True)  # type: ignore[misc]
    half = encoder_half(dict(encoder.model.state_dict()))
    half.pop("encoder.embed_tokens.weight", None)
    weights = {name: tensor.detach().to("cpu", dtype).contiguous().clone() for name, tensor in half.items()}
    save_weights(weights, folder / "model.safetensors")
