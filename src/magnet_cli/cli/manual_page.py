"""`docs/magnet.1`: the manual page that `man magnet` shows, every command and option as the commands know them.

python -m magnet_cli.cli.manual_page > docs/magnet.1
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from magnet_cli._version import __version__
from magnet_cli.cli import app
from magnet_cli.cli.reference import exit_codes
from magnet_cli.terminal.help import Facts, facts_of, parts_of, sections
from magnet_cli.terminal.parameters import OTHER_VARIABLES

# No date: the page is to be the same whenever it is written. No hyphenation, which would divide names of models.
HEAD = rf""".\" Written by `make docs` from the code: change the code instead.
.TH MAGNET 1 "" "magnet {__version__}" "User Commands"
.nh
.ad l
.SH NAME
magnet \- text to music and sound effects with Meta's MAGNeT models
"""
SPECIAL = {"\\": r"\e", "-": r"\-", '"': r"\(dq", "^": r"\(ha", "~": r"\(ti"}
FILES = (
    ("~/.config/magnet/config.toml", "The configuration file on Linux; MAGNET_CONFIG names another one."),
    ("~/.cache/huggingface", "Downloads of the Hugging Face Hub; HF_HOME or HF_HUB_CACHE names another folder."),
)


def manual_page() -> str:
    """The whole page, in roff with the macros of man."""
    group: Any = typer.main.get_command(app)
    context = typer.Context(group, info_name="magnet", **group.context_settings)
    return HEAD + "".join(f"{line}\n" for line in _lines(group, context))


def _lines(group: Any, context: Any) -> Iterator[str]:
    yield ".SH SYNOPSIS"
    yield from _usage(group, context)
    yield ".SH DESCRIPTION"
    yield from _explained(group.help)
    yield ".SH OPTIONS"
    yield from _entries([facts_of(one, context) for one in group.params])
    yield ".SH COMMANDS"
    yield from _commands(group, context)
    yield ".SH EXIT STATUS"
    for code, meaning in exit_codes():
        yield from _entry(f"{code}", meaning)
    yield ".SH ENVIRONMENT"
    yield ".PP"
    yield roff(
        "Each option names its variable above. An option on the command line takes precedence over a variable, and a "
        f"variable over the configuration file. Besides, {' and '.join(OTHER_VARIABLES)} are read."
    )
    yield ".SH FILES"
    for path, meaning in FILES:
        yield from _entry(path, meaning)


def _commands(group: Any, context: Any) -> Iterator[str]:
    for name, one in group.commands.items():
        below = typer.Context(one, parent=context, info_name=name, **one.context_settings)
        yield f'.SS "{roff(below.command_path)}"'
        yield from _usage(one, below)
        yield from _explained(one.help)
        for panel, members in sections([facts_of(each, below) for each in one.params]).items():
            yield ".PP"
            yield rf"\fB{roff(panel)}\fR"
            yield from _entries(members)
        if hasattr(one, "commands"):
            yield from _commands(one, below)


def _usage(command: Any, context: Any) -> Iterator[str]:
    yield ".PP"
    yield " ".join([rf"\fB{roff(context.command_path)}\fR", *map(roff, command.collect_usage_pieces(context))])


def _explained(text: str) -> Iterator[str]:
    explained, examples = parts_of(text)
    for one in explained:
        yield ".PP"
        yield roff(one)
    for one in examples:
        yield from (".PP", ".nf", roff(f"    {one}"), ".fi")


def _entries(facts: list[Facts]) -> Iterator[str]:
    for one in facts:
        variable = [f"Environment variable: {one.variable}."] if one.variable else []
        yield from _entry(one.names, one.words, *variable)


def _entry(term: str, *texts: str) -> Iterator[str]:
    """A term and what it means; each text begins on a line of its own."""
    yield ".TP"
    yield rf"\fB{roff(term)}\fR"
    for index, text in enumerate(texts):
        if index:
            yield ".br"
        yield roff(text)


def roff(text: str) -> str:
    """A text as roff prints it: no character of it is a command, and hyphens can be copied. `...` is printed bold."""
    found = "".join(SPECIAL.get(character, character) for character in text)
    found = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", found)
    found = re.sub(r"[^\x00-\x7f]", lambda character: rf"\[u{ord(character[0]):04X}]", found)
    return rf"\&{found}" if found.startswith((".", "'")) else found


if __name__ == "__main__":
    print(manual_page(), end="")
