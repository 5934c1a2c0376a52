"""Every failure that a user or a file can cause, each kind with its own exit code.

    MagnetError                1   anything else that went wrong
    ├── UsageError             2   an option, a prompt or a combination that cannot work
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

from collections.abc import Sequence

INTERRUPTED = 130
INTERRUPTION = "interrupted. Finished clips are kept, and no file is left incomplete."


class MagnetWarning(UserWarning):
    """Something that the user should know, e.g. that no GPU was found, or that a prompt is unusually long."""


class MagnetError(Exception):
    """A failure with a remedy.

    message: what was wrong, with the value. hint: what to do, as an instruction. Neither ends with a full stop.
    details: several things that were wrong, one for each line.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str, *, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = tuple(details)

    @property
    def lines(self) -> list[str]:
        """The whole text: message, details and hint, in lines."""
        if not self.details:
            return [f"{self.message}. {sentence(self.hint)}"]
        return [f"{self.message}:", *(f"  {detail}" for detail in self.details), sentence(self.hint)]

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


def sentence(text: str) -> str:
    """A text with a full stop, unless it is a question."""
    return text if text.endswith("?") else f"{text}."


def not_finite_remedy(dtype: str) -> str:
    """The hint for values that are not finite: a wider dtype than this one, where there is one."""
    wider = {"float16": "float32 (or bfloat16)", "bfloat16": "float32"}
    return f"Try --dtype {wider[dtype]}" if dtype in wider else "The weights are damaged; fetch them again"


def one_line(error: BaseException, limit: int = 300) -> str:
    """The text of another library's exception, on one line of at most `limit` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
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
