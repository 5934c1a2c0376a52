"""Tokenizers of strangers: what may be in the file, and what happens when the library fails."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from magnet_cli.errors import ModelError
from magnet_cli.model.text_encoder import TextEncoder
from magnet_cli.model.tokenizer_file import MOST_GROWTH, read_tokenizer, token_ids
from magnet_cli.train.own_text_encoder import learn_tokenizer
from support.golden import GOLDEN

T5 = GOLDEN / "music" / "t5-base"
A_STEP = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


def write(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = json.loads((T5 / "tokenizer.json").read_text(encoding="utf-8"))
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize("round_to", [0, 2, 5, 25, 50])
def test_tokenizers_of_our_own_training_pass(tmp_path: Path, round_to: int) -> None:
    learn_tokenizer(["slow piano, 97 bpm"], 300, round_to).save(str(tmp_path / "tokenizer.json"))
    assert token_ids(read_tokenizer(tmp_path), "slow piano", 300)


@pytest.mark.parametrize(
    "normalizer",
    [
        None,
        sequence(replace({"Regex": " {2,}"}, "▁"), {"type": "NFKC"}),
        sequence({"type": "Prepend", "prepend": "▁"}, replace({"String": " "}, "▁")),
        {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
    ],
)
def test_usual_steps_pass(tmp_path: Path, normalizer: dict[str, Any] | None) -> None:
    tokenizer = read_tokenizer(write(tmp_path, lambda content: content.update(normalizer=normalizer)))
    assert token_ids(tokenizer, "slow  piano", 187)


def test_many_replacements_of_words_pass_if_none_feeds_another(tmp_path: Path) -> None:
    steps = [replace({"Regex": rf"\b(?:word{n}|sad[ -]word{n})\b"}, f"sad and very long {n}") for n in range(400)]
    tokenizer = read_tokenizer(write(tmp_path, lambda content: content.update(normalizer=sequence(*steps))))
    assert tokenizer.normalizer.normalize_str("sad-word7, word9 8") == "sad and very long 7, sad and very long 9 8"


@pytest.mark.parametrize(
    ("normalizer", "part"),
    [
        (sequence(*[A_STEP] * 40), "times as long"),  # 2^40 bytes of an `a`, which end the process
        (sequence(sequence(*[A_STEP] * 20), sequence(*[A_STEP] * 20)), "times as long"),
        (replace({"String": "a"}, "x" * 5000), "times as long"),
        (replace({"String": ""}, "x" * 5000), "times as long"),
        (sequence(*[replace({"Regex": "(?=a)"}, "aaaa")] * 8), "times as long"),
        (sequence(*[replace({"Regex": r"\b(?:1|22)\b"}, "1 1")] * 8), "times as long"),
        # a becomes "b b", b "c c", and so on
        (sequence(*[replace({"Regex": rf"\b(?:{chr(n)})\b"}, f"{chr(n + 1)} " * 2) for n in range(97, 110)]), "times"),
        (sequence(replace({"Regex": r"\b(?:nes|dnb[ -]beat)\b"}, "x" * 600)), "times as long"),
        (sequence(*[{"type": "Prepend", "prepend": "aaaa"}] * 8), "times as long"),
        (replace({"String": "a"}, "x" * 50_000), "50,000 characters"),
        (sequence(*[{"type": "NFC"}] * 1000), "more than"),
        ({"type": "Explode"}, "unknown step 'Explode'"),
        ({"type": "Sequence"}, "no normalizers"),
        ({"type": "Replace", "pattern": {"String": "a"}}, "adds no text"),
        ([1], "no step"),
        ({"type": "Precompiled", "precompiled_charsmap": "%%%"}, "table"),
        ({"type": "Precompiled", "precompiled_charsmap": "AAAA"}, "table"),
        ({"type": "Precompiled", "precompiled_charsmap": None}, "table"),
    ],
)
def test_steps_that_grow_a_text_or_are_none_are_refused(tmp_path: Path, normalizer: Any, part: str) -> None:
    with pytest.raises(ModelError, match=part):
        read_tokenizer(write(tmp_path, lambda content: content.update(normalizer=normalizer)))


def test_a_table_of_characters_with_a_long_text_is_refused(tmp_path: Path) -> None:
    def lengthen(content: dict[str, Any]) -> None:
        table = base64.b64decode(content["normalizer"]["precompiled_charsmap"])
        content["normalizer"]["precompiled_charsmap"] = base64.b64encode(
            table + b"x" * (MOST_GROWTH + 1) + b"\0"
        ).decode()

    with pytest.raises(ModelError, match="times as long"):
        read_tokenizer(write(tmp_path, lengthen))


@pytest.mark.parametrize(
    "single",
    [
        [{"Sequence": {"id": "A", "type_id": 0}}] * 2,
        [{"SpecialToken": {"id": "nope", "type_id": 0}}],
        [{"SpecialToken": {"id": "</s>", "type_id": 0}}] * 1000,
        [7],
        None,
    ],
)
def test_a_template_that_repeats_or_lacks_something_is_refused(tmp_path: Path, single: Any) -> None:
    with pytest.raises(ModelError, match="template"):
        read_tokenizer(write(tmp_path, lambda content: content["post_processor"].update(single=single)))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["model"].update(type="Neural"),
        lambda content: content["model"].update(vocab=[]),
        lambda content: content["model"].update(unk_id=10**6),
        lambda content: content["model"].update(continuing_subword_prefix="x" * 10**6),
        lambda content: content.update(pre_tokenizer={"type": "Nope"}),
        lambda content: content.update(post_processor={"type": "Nope"}),
        lambda content: content.update(added_tokens=7),
        lambda content: content.pop("model"),
    ],
)
def test_other_damage_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        read_tokenizer(write(tmp_path, change))


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="deep"):
        read_tokenizer(tmp_path)


def test_a_panic_of_the_library_is_an_error_of_ours(tmp_path: Path) -> None:
    def damage(content: dict[str, Any]) -> None:
        table = base64.b64decode(content["normalizer"]["precompiled_charsmap"])
        size = int.from_bytes(table[:4], "little")
        trie = b"\xff" * size  # every unit of it points beyond its end
        content["normalizer"]["precompiled_charsmap"] = base64.b64encode(table[:4] + trie + table[4 + size :]).decode()

    with pytest.raises(ModelError):  # noqa: PT012
        tokenizer = read_tokenizer(write(tmp_path, damage))
        token_ids(tokenizer, "é " * 100, 187)


def test_a_tokenizer_without_a_token_for_the_unknown_is_an_error(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(write(tmp_path, lambda content: content["model"].update(unk_id=None)))
    with pytest.raises(ModelError, match="the tokenizer fails on the prompt '漢字'"):
        token_ids(tokenizer, "漢字", 187)


def test_tokens_beyond_the_embeddings_are_an_error_when_the_model_is_loaded(tmp_path: Path) -> None:
    shutil.copytree(T5, tmp_path, dirs_exist_ok=True)
    TextEncoder.load(tmp_path, "cpu")
    write(tmp_path, lambda content: content["post_processor"]["special_tokens"]["</s>"].update(ids=[4000]))
    with pytest.raises(ModelError, match="token 4000, but the text encoder has 187"):
        TextEncoder.load(tmp_path, "cpu")
