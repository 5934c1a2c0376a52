"""The words that a text encoder of a model's own knows: those of the captions that it was trained on.

They are in its config.json, beside the shape. A text encoder that has read far more than any prompt holds, such as T5,
lists none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magnet_cli.disk.small_files import UnreadableFileError, read_object

KNOWN_WORDS = "known_words"  # in config.json
WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text as a tokenizer of `magnet train` reads them: in lower case, hyphens apart."""
    return WORD.findall(unicodedata.normalize("NFKC", text).lower())


def known_words_of(settings: Mapping[str, Any]) -> list[str] | None:
    """The words that a text encoder's settings list; None if they list none."""
    words = settings.get(KNOWN_WORDS)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return None
    return words


def read_known_words(folder: Path) -> list[str] | None:
    """The words that the config.json of a text encoder's folder lists; None if it lists none or cannot be read."""
    try:
        return known_words_of(read_object(folder / "config.json"))
    except UnreadableFileError:
        return None


def with_ranges(words: list[str]) -> list[str]:
    """Words in order of the alphabet, then numbers, with one entry for consecutive ones: 30-300."""
    numbers = sorted({int(word) for word in words if word.isdecimal()})
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    short = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return [*sorted(word for word in words if not word.isdecimal()), *short]
