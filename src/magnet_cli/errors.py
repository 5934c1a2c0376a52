"""Every failure that a user or a file can cause, each kind with its own exit code.

    MagnetError                1   anything else that went wrong
    ├── UsageError             2   an option, a prompt or a combination that cannot work
    │   └── KeywordError           a keyword argument that does not exist; a TypeError, too
    ├── ModelError             3   a checkpoint that is missing, damaged, unsafe or unsupported
    ├── HubError               4   the Hub cannot be reached, or has no such repository or file
    ├── DeviceError            5   no such device, or not enough memory on it
    │   └── MemoryShortageError
    ├── NumericsError          6   the model computed a value that is not finite
    ├── OutputError            7   a file already exists or cannot be written
    ├── BatchError             8   some clips of a batch failed; the others are complete
    └── ReplayError            9   a clip that was generated again has other codes

130 is the exit code after Ctrl-C, as shells expect. A MagnetWarning reports something that does not stop the work.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

INTERRUPTED = 130
INTERRUPTION = "interrupted. Finished clips are kept, and no file is left incomplete."


class MagnetWarning(UserWarning):
    """Something that the user should know, e.g. that no GPU was found, or that a prompt is unusually long.

    Its text names options as the command has them. `str(warning)` names them as keyword arguments, as for errors.
    """

    def __str__(self) -> str:
        return in_python(super().__str__())


class MagnetError(Exception):
    """A failure with a remedy.

    message: what was wrong, with the value. hint: what to do, as an instruction. Neither ends with a full stop.
    details: several things that were wrong, one for each line. All of them name options as the command has them,
    `--true-peak -1`. The command prints `lines`; `str(error)`, which Python shows, names them as keyword arguments,
    `true_peak=-1`.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str, *, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = tuple(details)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), details=self.details), (self.message, self.hint)  # for other processes

    @property
    def lines(self) -> list[str]:
        """The whole text as the command prints it: message, details and hint, in lines."""
        hint = sentence(self.hint)
        if not self.details:
            return [f"{self.message}. {hint}"]
        return [f"{self.message}:", *(f"  {detail}" for detail in self.details), hint]

    def __str__(self) -> str:
        return in_python("\n".join(self.lines))


class UsageError(MagnetError):
    """An option, a prompt or a combination of them that cannot work."""

    exit_code = 2


class KeywordError(UsageError, TypeError):
    """A keyword argument that the function does not have."""


class ModelError(MagnetError):
    """A checkpoint that is missing, damaged, unsafe to read, or of a kind this package does not support."""

    exit_code = 3


class HubError(MagnetError):
    """The Hub cannot be reached, refuses access, or has no such repository or file."""

    exit_code = 4


class DeviceError(MagnetError):
    """A device that is not there, cannot do what was asked, or has too little memory."""

    exit_code = 5


class MemoryShortageError(DeviceError):
    """Too little memory for the clips that were decoded together; a smaller batch may fit."""


class NumericsError(MagnetError):
    """The model computed a value that is not finite."""

    exit_code = 6


class OutputError(MagnetError):
    """A result that cannot be written, or that would overwrite something."""

    exit_code = 7


class BatchError(MagnetError):
    """Some clips of a batch failed. The others are complete."""

    exit_code = 8


class ReplayError(MagnetError):
    """A clip that was generated again has other codes than the first time."""

    exit_code = 9


# Options whose keyword argument has another name, and those without a value.
KEYWORDS = {
    **{"continue": "continue_from", "region": "regions", "hybrid-model": "hybrid", "n": "variations"},
    **{"force": "overwrite=True", "no-anneal": "anneal=False", "no-metadata": "metadata=False"},
    **{"save-codes": "codes=True"},
    **{name: f"{name}=True" for name in ("greedy", "join", "blend", "loop", "unconditional", "compile", "offline")},
}
_FLAG = re.compile(
    r"(?<![\w-])(?:--(?P<long>[a-z][a-z-]*[a-z])|-(?P<short>n))\b"
    r"(?: (?P<number>-?\d(?:[\d.,:]*\d)?)\b"
    r"| (?P<word>auto|cpu|cuda|mps|(?:b?float|int)\d+|(?:magnet|musicgen)-[\w-]+)\b)?"
)


def in_python(text: str) -> str:
    """A text whose options are keyword arguments: `--true-peak -1` becomes `true_peak=-1`."""
    return _FLAG.sub(_keyword, text)


def _keyword(found: re.Match[str]) -> str:
    name = found["long"] or found["short"]
    keyword = KEYWORDS.get(name, name.replace("-", "_"))
    number, word = found["number"], found["word"]
    if "=" in keyword or (number is None and word is None):
        return keyword + found[0][len(name) + (2 if found["long"] else 1) :]
    if keyword == "regions":
        return f'regions=["{number}"]'
    if number is None:
        return f'{keyword}="{word}"'
    return f"{keyword}=({number.replace(',', ', ')})" if "," in number else f"{keyword}={number}"


def sentence(text: str) -> str:
    """A text with a full stop, unless it is a question."""
    return text if text.endswith("?") else f"{text}."


def near(word: str, known: Iterable[str], most: int = 2, *, least: float = 0.6) -> list[str]:
    """The known words that a mistyped one may stand for, the likeliest first: those that it begins, else those like it.

    The part before the first hyphen is a family, as of `musicgen-small`: a word whose family is known keeps to it.
    least: how alike two words must be, 0 to 1; see `difflib.SequenceMatcher.ratio`.
    """
    names = list(dict.fromkeys(known))
    family, hyphen, _ = word.partition("-")
    own = [name for name in names if hyphen and name.partition("-")[0] == family]
    longer = [name for name in names if word and name.startswith(word)]
    return (longer or difflib.get_close_matches(word, own or names, n=most, cutoff=least))[:most]


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """The hint for a word that means nothing: what was perhaps meant, followed by `otherwise`, or that alone."""
    found = " or ".join(near(word, known))
    return f"Did you mean {found}? {otherwise}" if found else otherwise


def not_finite_remedy(dtype: str) -> str:
    """The hint for values that are not finite: a wider dtype than this one, where there is one."""
    wider = {"float16": "float32 (or bfloat16)", "bfloat16": "float32"}
    return f"Try --dtype {wider[dtype]}" if dtype in wider else "The weights are damaged; fetch them again"


def one_line(error: BaseException, limit: int = 300) -> str:
    """The text of another library's exception, on one line of at most `limit` characters."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__  # messages get their full stop later
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shown(value: object, limit: int = 40) -> str:
    """A value from a file, as a message quotes it: its `repr`, in at most `limit` characters."""
    try:
        text = repr(value)
    except RecursionError:
        text = "deeply nested lists"
    except ValueError:  # Python writes no number of more than 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= limit else text[: limit - 1] + "…"
