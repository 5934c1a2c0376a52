"""Synonyms for a new tokenizer: what it reads in place of words that the captions lack.

A file of synonyms has one line for each target: `sad: gloomy, mournful, in tears`. Each word or phrase after the colon
is read as the target. Lines may be empty, and those that begin with # are comments.

    piano | keyboard: spinet    the first target whose words are all in the captions is read
    guitar: banjo(s)            letters in brackets may be missing: banjo, banjos
    : please, the               a line without a target: these words are left out

The captions decide what is in use. A word that they have is never replaced, nor is a phrase that has only such words,
nor one whose unknown words are much shorter than the target.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from magnet_cli.disk.small_files import UnreadableFileError, read_text
from magnet_cli.errors import UsageError, shown
from magnet_cli.model.known_words import words_of

FORMAT = "Write one line for each target, such as 'sad: gloomy, mournful'"
PHRASE = re.compile(r"\w(?:[\w &'-]*\w)?")  # words with spaces, hyphens, apostrophes or ampersands between them
# A target has at most so many times the characters of the unknown words that it stands for. A tokenizer that can make a
# text much longer is refused when it is read; see `model.tokenizer_file`.
MOST_GROWTH = 4.5


@dataclass(frozen=True)
class Synonyms:
    """Phrases that are read as a target: the first of `targets` that the captions have. No target: they are left out.

    line: of the file, for messages.
    """

    targets: tuple[str, ...]
    phrases: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class Replacement:
    """A step of a tokenizer: whole words and phrases, all with the same number of words, and what is read instead."""

    phrases: tuple[str, ...]
    target: str

    @property
    def pattern(self) -> str:
        """A regular expression, in which a space is also a hyphen, and the reverse."""
        ordered = sorted(self.phrases, key=lambda phrase: (-len(phrase), phrase))
        return rf"\b(?:{'|'.join(re.sub('[ -]', '[ -]', phrase) for phrase in ordered)})\b"


def read_synonyms(path: Path) -> list[Synonyms]:
    """The synonyms of a file.

    Raises: UsageError for a file that cannot be read, a line in another format, and a phrase with two targets.
    """
    try:
        text = read_text(path)
    except UnreadableFileError as error:
        raise UsageError(f"cannot read the synonyms {path}: {error}", "Give a text file in UTF-8") from error
    found: list[Synonyms] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        one = _parse(line, number, path)
        found.append(one)
        for phrase in one.phrases:
            if lines.setdefault(phrase, number) != number:
                raise UsageError(
                    f"{path} has {shown(phrase)} in line {lines[phrase]} and in line {number}", "Leave one of them out"
                )
    return found


def replacements(synonyms: Sequence[Synonyms], known: Collection[str]) -> list[Replacement]:
    """The steps that a tokenizer needs for captions with the `known` words and signs, in their order.

    Words without a target come first, then the longest phrases, then the shorter ones. As a replacement may complete a
    phrase, phrases with a word of a target have their turn again at the end.
    """
    left_out = {
        phrase
        for one in synonyms
        if not one.targets
        for phrase in one.phrases
        if phrase not in known and len(words_of(phrase)) == 1
    }
    groups: dict[tuple[int, str], set[str]] = {}
    targets = [_target(one, known) for one in synonyms]
    written = {word for target in targets if target for word in words_of(target)}
    for one, target in zip(synonyms, targets, strict=True):
        for phrase in one.phrases if target is not None else ():
            rest = _without(phrase, left_out)
            words = words_of(rest)
            if target is not None and _is_replaced(rest, target, known, written):
                groups.setdefault((len(words), target), set()).add(rest)
    first = [Replacement(tuple(sorted(left_out)), "")] if left_out else []
    others = {key: phrases - left_out for key, phrases in groups.items()}
    ordered = [
        Replacement(tuple(sorted(phrases)), target)
        for (_, target), phrases in sorted(others.items(), key=lambda item: (-item[0][0], item[0][1]))
        if phrases
    ]
    return [*first, *ordered, *_again(ordered)]


def _is_replaced(phrase: str, target: str, known: Collection[str], written: Collection[str]) -> bool:
    """Whether a phrase has unknown words or signs, and the target is not much longer; see MOST_GROWTH.

    written: the words of all targets. The phrase's other words count, as `tokenizer_file` counts them.
    """
    words = words_of(phrase)
    signs = [sign for sign in "&'" if sign in phrase]
    own = [word for word in words if word not in written]
    size = len(phrase) if own == words or not own else sum(map(len, own))
    return not all(one in known for one in (*words, *signs)) and len(target.encode()) <= MOST_GROWTH * size


def _again(ordered: Sequence[Replacement]) -> list[Replacement]:
    """The steps for phrases that another step may have completed."""
    made = {word for one in ordered for word in words_of(one.target)}
    later = []
    for one in ordered:
        phrases = tuple(phrase for phrase in one.phrases if made.intersection(words_of(phrase)))
        if phrases:
            later.append(Replacement(phrases, one.target))
    return later


def _target(one: Synonyms, known: Collection[str]) -> str | None:
    """What the phrases of a line are read as: nothing at all, or a target of known words; None if it has no such."""
    if not one.targets:
        return ""
    return next((target for target in one.targets if all(word in known for word in words_of(target))), None)


def _without(phrase: str, left_out: Collection[str]) -> str:
    """A phrase as it is after words are left out; as it was if nothing else is left."""
    rest = " ".join(word for word in phrase.split(" ") if word not in left_out)
    return rest if PHRASE.fullmatch(rest) else phrase


def _parse(line: str, number: int, path: Path) -> Synonyms:
    before, colon, after = unicodedata.normalize("NFKC", line).lower().partition(":")
    targets = tuple(" ".join(one.split()) for one in before.split("|") if one.strip())
    phrases = tuple(dict.fromkeys(form for one in after.split(",") if one.strip() for form in _forms(one)))
    wrong = [one for one in (*targets, *phrases) if not PHRASE.fullmatch(one)]
    if not colon or not phrases or wrong:
        reason = f": {shown(wrong[0])} is no word or phrase" if wrong else ""
        raise UsageError(f"line {number} of {path} is no line of synonyms{reason}", FORMAT)
    return Synonyms(targets, phrases, number)


def _forms(text: str) -> Iterator[str]:
    """A phrase with and without the letters that it has in brackets: banjo(s)."""
    before, bracket, rest = " ".join(text.split()).partition("(")
    if not bracket:
        yield before
        return
    inner, _, after = rest.partition(")")
    for end in _forms(after):
        yield before + end
        yield before + inner + end
