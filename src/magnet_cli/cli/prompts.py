"""The prompts of `magnet generate`, and the mistakes that many make with them: forgotten quotes, a file's name."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from magnet_cli.audio.formats import AUDIO_EXTENSIONS
from magnet_cli.errors import UsageError
from magnet_cli.options.job import check_prompt
from magnet_cli.terminal.console import Console

SOUNDS = (*AUDIO_EXTENSIONS, ".mp3", ".aif", ".aiff")
MANY = 8  # prompts; more are rarely typed, and rather one prompt without its quotes, or the words of a whole file


def read_prompts(console: Console, prompts: Sequence[str], *, unconditional: bool, sure: bool) -> list[str]:
    """Check the prompts, and read the one that is given as `-` from standard input. None: one empty one.

    sure: ask nothing, and take even what looks like a mistake.
    """
    if unconditional and not prompts:
        return [""]
    if not prompts:
        raise UsageError("there is no prompt", 'Describe the sound, e.g. magnet generate "disco beat"')
    if prompts.count("-") > 1:
        raise UsageError("standard input is named twice", "Give - once")
    if not sure:
        check_no_file(console, prompts)
        check_number(console, prompts)
    texts = [_read_standard_input() if prompt == "-" else prompt for prompt in prompts]
    for text in texts:
        check_prompt(text)
    return texts


def check_no_file(console: Console, prompts: Sequence[str]) -> None:
    """Ask whether a prompt that names a file is meant as a prompt; UsageError where nobody can be asked."""
    for prompt in prompts:
        if is_file(prompt):
            problem = f"{prompt} is a file, and generate takes its name as the prompt"
            name = shlex.quote(prompt)
            instead = f"magnet batch {name} -o clips/ takes its lines, magnet generate - < {name} its text"
            if Path(prompt).suffix.lower() in SOUNDS:
                instead = (
                    f"--continue {name} and --inpaint {name} start from its sound, magnet again {name} from its prompt"
                )
            if not console.can_ask:
                raise UsageError(problem, f"{instead}; --yes takes the name")
            console.message(f"{problem}. {instead}.")
            console.confirm("Generate from the name?")


def is_file(prompt: str) -> bool:
    """Whether a prompt looks like the name of a file, and is one."""
    try:
        return bool(Path(prompt).suffix) and Path(prompt).is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False


def check_number(console: Console, prompts: Sequence[str]) -> None:
    """Announce several prompts, and ask about many.

    Where nobody can be asked, UsageError for many that are all single words: one text without quotes. Other prompts
    are taken, since a script may have thousands.
    """
    if len(prompts) == 1:
        return
    words = all(len(prompt.split()) == 1 for prompt in prompts)
    announced = f"{len(prompts):,} prompts, so {len(prompts):,} different clips"
    if words and len(prompts) > MANY and not console.can_ask:
        raise UsageError(
            f"there are {announced}, of one word each", "Put the quotes of one prompt around all, or give --yes"
        )
    if words and len(prompts) <= MANY:
        announced += f'. If this is one prompt, put quotes around it: magnet generate "{" ".join(prompts)}"'
    elif words:
        announced += ". If this is one prompt, put quotes around it"
    console.message(announced)
    if len(prompts) > MANY and console.can_ask:
        console.confirm(f"Generate {len(prompts):,} clips?")


def _read_standard_input() -> str:
    if sys.stdin is None:
        raise UsageError("standard input is closed", "Pipe the prompt in, or give it as an argument")
    try:
        return sys.stdin.read().strip()
    except UnicodeDecodeError:
        raise UsageError(f"standard input is not valid {sys.stdin.encoding}", "Convert the text first") from None
