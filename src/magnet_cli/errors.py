"""Every failure that a user or a file can cause, each kind with its own exit code.

    MagnetError                1   anything else that went wrong
    ├── UsageError             2   an option, a prompt or a combination that cannot work
    ├── ModelError             3   a checkpoint that is missing, damaged, unsafe or unsupported
    ├── HubError               4   the Hub cannot be reached, or has no such repository or file
    ├── DeviceError            5   no such device, or not enough memory on it
    │   └── MemoryShortageError
    ├── NumericsError          6   the model computed a value that is not finite
    ├── OutputError            7   a file exists already or cannot be written
    ├── BatchError             8   some clips of a batch failed; the others are there
    └── ReplayError            9   a clip made again has other codes

130 is the exit code after Ctrl-C, as shells expect. What is worth knowing but stops nothing is a MagnetWarning.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

INTERRUPTED = 130
INTERRUPTION = "interrupted; finished clips are kept, nothing is left half-written."


class MagnetWarning(UserWarning):
    """Something the user should know: the CPU stands in for a GPU, a prompt is longer than the model was trained on."""


class MagnetError(Exception):
    """A failure with a remedy.

    `message` says what was wrong and with which value; `hint` is an imperative sentence saying what to do about it.
    Neither ends with a full stop. `details` are several things that were wrong, each on a line.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str, *, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = tuple(details)

    @property
    def lines(self) -> list[str]:
        """The whole text, line by line."""
        hint = sentence(self.hint)
        if not self.details:
            return [f"{self.message}. {hint}"]
        return [f"{self.message}:", *(f"  {detail}" for detail in self.details), hint]

    def __str__(self) -> str:
        return "\n".join(self.lines)


class UsageError(MagnetError):
    """An option, a prompt or a combination of them that cannot work."""

    exit_code = 2


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
    """Too little memory for what was tried at once; with less it may work."""


class NumericsError(MagnetError):
    """A value that is not finite came out of the model."""

    exit_code = 6


class OutputError(MagnetError):
    """A result that cannot be written, or would overwrite something."""

    exit_code = 7


class BatchError(MagnetError):
    """Some clips of a batch failed. The others are there."""

    exit_code = 8


class ReplayError(MagnetError):
    """A clip that was made again has other codes than the first time."""

    exit_code = 9


def sentence(text: str) -> str:
    """A text with a full stop, unless it is a question."""
    return text if text.endswith("?") else f"{text}."


def near(word: str, known: Iterable[str], most: int = 2) -> list[str]:
    """The known words that a mistyped one may stand for, the likeliest first: those that it begins, else those like it.

    The part before the first hyphen is a family, as of `musicgen-small`: a word whose family is known keeps to it.
    """
    names = list(dict.fromkeys(known))
    family, hyphen, _ = word.partition("-")
    own = [name for name in names if hyphen and name.partition("-")[0] == family]
    longer = [name for name in names if word and name.startswith(word)]
    return (longer or difflib.get_close_matches(word, own or names, n=most, cutoff=0.6))[:most]


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """The hint for a word that means nothing: what was perhaps meant, followed by `otherwise`, or that alone."""
    found = " or ".join(near(word, known))
    return f"Did you mean {found}? {otherwise}" if found else otherwise


def not_finite_remedy(dtype: str) -> str:
    """What to do about values that are not finite in a network of this dtype: another dtype, if that can help."""
    wider = {"float16": "float32 (or bfloat16)", "bfloat16": "float32"}
    return f"Try --dtype {wider[dtype]}" if dtype in wider else "The weights are damaged; fetch them again"


def one_line(error: BaseException, limit: int = 300) -> str:
    """The text of another library's exception, on one line and not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shown(value: object, limit: int = 40) -> str:
    """A value of a file as a message quotes it: as Python writes it, and not too long."""
    try:
        text = repr(value)
    except RecursionError:
        text = "a list in lists"
    except ValueError:  # Python writes no number of more than 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= limit else text[: limit - 1] + "…"
