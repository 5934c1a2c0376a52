"""Reading `tokenizer.json` safely, and tokenizing with it.

The library that runs it is native code. A damaged file can make it panic, which is no Exception in Python. A file that
makes text longer and longer can exhaust the memory and end the process. So the steps of a file, and how much longer
each can make a text, are checked before the library reads them.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from tokenizers import Tokenizer

from magnet_cli.disk.small_files import UnreadableFileError, read_text
from magnet_cli.errors import ModelError, one_line, shown

T = TypeVar("T")

MOST_BYTES = 1 << 25  # t5-base's has 1.4 MB, the largest of a T5 (with 256,000 tokens) 17 MB
MOST_STEPS = 900  # a normalizer that rounds numbers to multiples of 2 and has synonyms has about 400; others a few
LONGEST_STRING = 10_000  # in a step; the longest that is known, in one with synonyms, has 2,000
LONGEST_TABLE = 1 << 21  # of characters and their replacements; T5's has 0.3 MB
MOST_PIECES = 64  # of the template that puts tokens at the beginning and the end
# Bytes for each byte of a prompt. T5's can reach 132: there are letters that stand for phrases. Those of `magnet train`
# can reach 396 with synonyms for very short words, and little more for signs. A prompt has at most 10,000 characters,
# and the library needs about 30 bytes for each byte of a text.
MOST_GROWTH = 600

HINT = "Fetch the text encoder again"

# How many times longer a step can make a text, in bytes; None: see `_growth_of`. NFKC turns the 3 bytes of
# U+FDFA into 33. A prefix is added to every part of a text, and the shortest part has one byte.
NORMALIZERS: dict[str, float | None] = {
    **{"NFC": 3, "NFD": 3, "NFKC": 11, "NFKD": 11, "Lowercase": 2, "Nmt": 1, "Strip": 1, "StripAccents": 1},
    **{"BertNormalizer": 10, "ByteLevel": 2, "Replace": None, "Prepend": None, "Precompiled": None},
}
PRE_TOKENIZERS: dict[str, float | None] = {
    **{"BertPreTokenizer": 1, "ByteLevel": 3, "CharDelimiterSplit": 1, "Digits": 1, "FixedLength": 1, "Metaspace": 4},
    **{"Punctuation": 1, "Split": 1, "UnicodeScripts": 1, "Whitespace": 1, "WhitespaceSplit": 1},
}
POST_PROCESSORS = ("BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing")
MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in a folder's tokenizer.json, without truncation and padding; ModelError if it is unsafe."""
    path = folder / "tokenizer.json"
    try:
        text = read_text(path, most=MOST_BYTES)
        check_steps(text)
        tokenizer = _without_panic(lambda: Tokenizer.from_str(text))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    except Exception as error:  # the library raises bare Exception for a damaged file
        raise ModelError(f"cannot read the tokenizer {path}: {one_line(error)}", HINT) from error
    return tokenizer


def token_ids(tokenizer: Tokenizer, text: str, vocabulary: int) -> list[int]:
    """The tokens of a text, all below `vocabulary`; ModelError if the tokenizer fails."""
    try:
        ids: list[int] = _without_panic(lambda: tokenizer.encode(text).ids)
    except Exception as error:
        raise ModelError(f"the tokenizer fails on the prompt {shown(text)}: {one_line(error)}", HINT) from error
    if ids and max(ids) >= vocabulary:
        raise ModelError(f"the tokenizer returns token {max(ids)}, but the text encoder has {vocabulary}", HINT)
    return ids


def normalized(tokenizer: Tokenizer, text: str) -> str:
    """A text as the tokenizer reads it, with its synonyms replaced; ModelError if the tokenizer fails."""
    if tokenizer.normalizer is None:
        return text
    try:
        return _without_panic(lambda: str(tokenizer.normalizer.normalize_str(text)))
    except Exception as error:
        raise ModelError(f"the tokenizer fails on the prompt {shown(text)}: {one_line(error)}", HINT) from error


def _without_panic(call: Callable[[], T]) -> T:
    """The result of a call of the native library. Its panics, which are no Exception, become RuntimeError."""
    try:
        return call()
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(one_line(error)) from error


# -- what is in the file ----------------------------------------------------------------------------------------------


def _parse(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)  # not `parse_json`, which is slow with hundreds of thousands of tokens
    except RecursionError as error:
        raise UnreadableFileError("it nests too deep") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UnreadableFileError("it names no model")
    return content


def check_steps(text: str) -> None:
    """Check a tokenizer in JSON: that its steps are known, few enough, and cannot make a text too long.

    Raises: UnreadableFileError for others; ValueError for text that is not JSON.
    """
    content = _parse(text)
    if content["model"].get("type", "BPE") not in MODELS:
        raise UnreadableFileError(f"its model is {shown(content['model'].get('type'))}")
    growth = 1.0
    for part, inner, known in (
        ("normalizer", "normalizers", NORMALIZERS),
        ("pre_tokenizer", "pretokenizers", PRE_TOKENIZERS),
    ):
        found = [(step, _phrases_of(step)) for step in _steps(content.get(part), inner)]
        for step, phrases in found:
            if step["type"] not in known:
                raise UnreadableFileError(f"its {part} has the unknown step {shown(step['type'])}")
            factor = known[step["type"]]
            if not phrases:
                growth *= _growth_of(step) if factor is None else factor
        for replaces_words, group in groupby(found, lambda one: bool(one[1])):
            growth *= _growth_of_words(list(group)) if replaces_words else 1.0
    if growth > MOST_GROWTH:
        raise UnreadableFileError(f"it can make a text {growth:,.0f} times as long; at most {MOST_GROWTH} make sense")
    for step in _steps(content.get("post_processor"), "processors"):
        if step["type"] not in POST_PROCESSORS:
            raise UnreadableFileError(f"its post_processor has the unknown step {shown(step['type'])}")
        if step["type"] == "TemplateProcessing":
            _check_template(step)
    _check_strings({name: value for name, value in content["model"].items() if name not in ("vocab", "merges")})


def _steps(part: object, inner: str) -> Iterator[dict[str, Any]]:
    """The steps of a part of the file, with sequences flattened."""
    waiting, found = [] if part is None else [part], 0
    while waiting:
        step = waiting.pop(0)
        found += 1
        if not isinstance(step, dict) or not isinstance(step.get("type"), str) or found > MOST_STEPS:
            raise UnreadableFileError(f"{shown(step)} in it is no step, or one of more than {MOST_STEPS}")
        if step["type"] != "Sequence":
            _check_strings(step)
            yield step
        elif isinstance(step.get(inner), list):
            waiting[:0] = step[inner]
        else:
            raise UnreadableFileError(f"a sequence in it has no {inner}")


def _check_strings(step: dict[str, Any]) -> None:
    for name, value in step.items():
        if isinstance(value, str) and name != "precompiled_charsmap" and len(value) > LONGEST_STRING:
            raise UnreadableFileError(f"{name} in it has {len(value):,} characters")


def _phrases_of(step: dict[str, Any]) -> list[str]:
    """The words and phrases that a step replaces, if it replaces whole ones: those that `magnet train` writes."""
    pattern = step.get("pattern")
    expression = pattern.get("Regex") if step["type"] == "Replace" and isinstance(pattern, dict) else None
    found = re.fullmatch(r"\\b\(\?:(.+)\)\\b", expression) if isinstance(expression, str) else None
    phrases = found[1].replace("[ -]", " ").split("|") if found else []
    return phrases if all(re.fullmatch(r"\w(?:[\w &'-]*\w)?", phrase) for phrase in phrases) else []


def _growth_of_words(steps: list[tuple[dict[str, Any], list[str]]]) -> float:
    """How many times longer steps in a row that replace whole words and phrases can make a text, in bytes.

    A word that no step writes is in the text once. So what is written for a phrase with such words takes their place,
    and what is written for other phrases can be replaced again, step after step.
    """
    for step, _ in steps:
        if not isinstance(step.get("content"), str):
            raise UnreadableFileError(f"{shown(step)} in it adds no text")
    written = {word for step, _ in steps for word in re.findall(r"\w+", step["content"])}
    once, again = 1.0, 1.0
    for step, phrases in steps:
        size, repeated = len(step["content"].encode("utf-8", "surrogatepass")), 1.0
        for phrase in phrases:
            words = re.findall(r"\w+", phrase)
            own = [word for word in words if word not in written]
            if own:
                once = max(once, size / (len(phrase) if own == words else sum(map(len, own))))
            else:
                repeated = max(repeated, size / len(phrase))
        again *= repeated
    return once * again


def _growth_of(step: dict[str, Any]) -> float:
    """How many times longer a step can make a text, in bytes."""
    if step["type"] == "Precompiled":
        return _longest_replacement(step.get("precompiled_charsmap"))
    added = step.get("content" if step["type"] == "Replace" else "prepend")
    if not isinstance(added, str):
        raise UnreadableFileError(f"{shown(step)} in it adds no text")
    width = _least_width(step.get("pattern")) if step["type"] == "Replace" else 0
    length = len(added.encode("utf-8", "surrogatepass"))
    return max(1.0, length / width) if width else 1.0 + length


def _least_width(pattern: object) -> int:
    """Fewest characters that a pattern matches, where that is easily seen; else 0."""
    if not isinstance(pattern, dict):
        return 0
    if isinstance(pattern.get("String"), str):
        return len(pattern["String"])
    expression = pattern.get("Regex")
    if not isinstance(expression, str):
        return 0
    if re.fullmatch(r"\[(?:\\.|[^\[\]\\])+\]", expression):  # one of several characters
        return 1
    if found := re.fullmatch(r"\(\?<=\[0-9\]\)\[ -\]\?(\w+)\\b", expression):  # a unit after a number
        return len(found[1])
    found = re.fullmatch(r"[ \w](?:\{([0-9]{1,4}),\})?", expression)  # several spaces
    return int(found[1] or 1) if found else 0


def _longest_replacement(table: object) -> int:
    """Bytes of the longest text in a table of characters and their replacements, in SentencePiece's format.

    The format: four bytes with the size of a trie, the trie, and the texts, each followed by a zero.
    """
    if not isinstance(table, str) or len(table) > LONGEST_TABLE:
        raise UnreadableFileError("its table of characters is too large, or none")
    try:
        content = base64.b64decode(table, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnreadableFileError("its table of characters is damaged") from error
    size = int.from_bytes(content[:4], "little")
    texts = content[4 + size :]
    if size % 4 or not texts or texts[-1]:
        raise UnreadableFileError("its table of characters is damaged")
    return max(map(len, texts.split(b"\0")), default=1) or 1


def _check_template(step: dict[str, Any]) -> None:
    """Raise UnreadableFileError for a template that repeats the text, or has a token that it does not define."""
    pieces, tokens = step.get("single"), step.get("special_tokens")
    if not isinstance(pieces, list) or not isinstance(tokens, dict) or len(pieces) > MOST_PIECES:
        raise UnreadableFileError("its template is damaged")
    texts = 0
    for piece in pieces:
        if not isinstance(piece, dict):
            raise UnreadableFileError("its template is damaged")
        texts += "Sequence" in piece
        special = piece.get("SpecialToken")
        name = special.get("id") if isinstance(special, dict) else None
        token = tokens.get(name) if isinstance(name, str) else None
        ids = token.get("ids") if isinstance(token, dict) else None
        if "Sequence" not in piece and (not isinstance(ids, list) or len(ids) > MOST_PIECES):
            raise UnreadableFileError(f"its template has {shown(piece)}, which it does not define")
    if texts > 1:
        raise UnreadableFileError("its template repeats the text")
