"""`docs/cli.md`: every command and option, as the commands themselves know them.

python -m magnet_cli.cli.reference > docs/cli.md
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer

from magnet_cli.cli import app
from magnet_cli.errors import INTERRUPTED, MagnetError
from magnet_cli.jobs.prompt_file import COLUMNS, wanted
from magnet_cli.terminal.help import Facts, facts_of, sections

HEAD = r"""<!-- Written by `make docs` from the code: change the code instead. -->

# Command line

`magnet COMMAND --help` shows the everyday options of a command, `magnet COMMAND --help-all` all that this page has.

## Defaults of your own

An option on the command line takes precedence over an environment variable, which takes precedence over the
configuration file.

- **Environment variables** are listed below for every option, and are named after it. `magnet doctor` names those that
  are set but have no effect. `1` or `true` switches a flag on.
- **The configuration file** is `config.toml` in `~/.config/magnet` on Linux, `~/Library/Application Support/magnet` on
  macOS and `%LOCALAPPDATA%\magnet\magnet` on Windows, or the file that `MAGNET_CONFIG` names. It has a section for each
  command. `[models]` and `[train]` count for all their commands, and e.g. `[train.decoder]` for one. The keys are the
  names of the options:

  ```toml
  [generate]
  model = "magnet-medium-10secs"
  true-peak = -2
  ```

`MAGNET_AUTO_DTYPE` sets what `--dtype auto` means.

The client of the Hugging Face Hub has environment variables of its own. `HF_HUB_OFFLINE` forbids requests, as
`--offline` does. `HF_HUB_CACHE` and `HF_HOME` name the folder of downloads. `HF_TOKEN` holds an access token.
`HF_ENDPOINT` names another server.

## Exit codes

| code | meaning |
|---|---|
"""


def reference() -> str:
    """The whole page, as Markdown."""
    group: Any = typer.main.get_command(app)
    context = typer.Context(group, info_name="magnet", **group.context_settings)
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in exit_codes())
    return f"{HEAD}{codes}\n" + "\n".join(pages(group, context, "##"))


def exit_codes() -> Iterator[tuple[int, str]]:
    """Every exit code and what it means."""
    yield 0, "The command did what it was asked to."
    yield (
        MagnetError.exit_code,
        "Something unforeseen went wrong, a question was answered with no, or `magnet doctor` found a problem.",
    )
    for kind in MagnetError.__subclasses__():
        yield kind.exit_code, inspect.cleandoc(kind.__doc__ or "")
    yield 129, "The terminal was closed. Finished clips are kept."
    yield INTERRUPTED, "Ctrl-C interrupted the command. Finished clips are kept."
    yield 143, "The process was terminated (SIGTERM). Finished clips are kept."


def pages(command: Any, context: Any, heading: str) -> Iterator[str]:
    """A command and those below it, each as a section of its own."""
    yield f"{heading} {context.command_path}\n"
    yield "```text\n" + " ".join([context.command_path, *command.collect_usage_pieces(context)]) + "\n```\n"
    yield prose(command.help)
    facts = [facts_of(one, context) for one in command.params]
    for panel, members in sections(facts).items():
        yield f"**{panel}**\n"
        yield table(members)
    if command.epilog and context.parent is not None:
        yield prose(command.epilog)
    if command.name == "batch":
        yield "**Columns of a .csv or .jsonl file**\n"
        yield ", ".join(f"`{column}` ({wanted(field)})" for column, field in COLUMNS.items()) + ".\n"
    for name, one in getattr(command, "commands", {}).items():
        below = "##" if context.parent is None else heading + "#"
        yield from pages(one, typer.Context(one, parent=context, info_name=name, **one.context_settings), below)


def prose(text: str) -> str:
    """A docstring as Markdown: an example as code, each paragraph on a line."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n")]
    return "\n\n".join(re.sub(r"^Example: (.*)", r"Example: `\1`", paragraph) for paragraph in paragraphs) + "\n"


def table(facts: list[Facts]) -> str:
    """Arguments or options as a table."""
    options = any(one.variable for one in facts)
    rows: list[tuple[str, ...]] = [
        ("option", "meaning", "default", "environment variable") if options else ("argument", "meaning")
    ]
    rows.append(("---",) * len(rows[0]))
    for one in facts:
        default = "required" if one.required else one.default or ""
        cells = (f"`{one.names}`", one.help, default, f"`{one.variable}`" if one.variable else "")
        rows.append(cells[: len(rows[0])])
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |\n" for row in rows)


if __name__ == "__main__":
    print(reference(), end="")
