"""How a field of an options class is offered to a user: declared beside the field, once.

The command line and its help, the columns of prompt files, the configuration file, the environment variables and
`docs/cli.md` all follow from it:

    greedy: bool = field(default=False, metadata=Option(help="Take the most probable code everywhere."))
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, Literal, TypeAlias, TypedDict, cast

# Sections of the help, in their order.
Panel: TypeAlias = Literal[
    "Clips",
    "Files",
    "Batch",
    "Measurement",
    "Sampling",
    "Length and loops",
    "Stream",
    "Editing",
    "Other models",
    "Loudness and format",
    "Training",
    "Run",
    "Optimization",
    "Discriminator",
    "Shape of a new codec",
    "Shape of a new decoder",
    "Shape of a new text encoder",
    "Bundle",
    "Device",
    "Model files",
    "Other",
]


class Option(TypedDict, total=False):
    """The metadata of a field that a user may set. `help` is required; the rest has good defaults.

    help     sentences that make sense alone: what the option does, its unit and its range
    panel    section of the help; by default that of the class, its PANEL
    metavar  what stands for the value in the help; by default it follows from the field's type
    unset    what applies when the option is not given, in words, where the field's default does not say it
    flag     the long option, and so the column, the name in the configuration file and that of the environment
             variable; by default the field's name
    short    the short option, `-m`
    time     whether it is a number of seconds, which may be written 1:30, too
    name     the parameter; by default the field's name
    env      one environment variable for all commands, in place of one for each command
    """

    help: str
    panel: Panel
    metavar: str
    unset: str
    flag: str
    short: str
    time: bool
    name: str
    env: str


def short_repr(config: Any) -> str:
    """Options as Python writes them, with only those fields that differ from their default."""
    values = ((one, getattr(config, one.name)) for one in fields(config) if one.repr)
    parts = [
        f"{one.name}={value!r}"
        for one, value in values
        if value != (one.default if one.default_factory is MISSING else one.default_factory())
    ]
    return f"{type(config).__name__}({', '.join(parts)})"


def declared(kind: type[Any]) -> dict[str, Option]:
    """The declarations of an options class by field, with panel, name and flag. Fields that no user sets have none."""
    found: dict[str, Option] = {}
    for field in fields(kind):
        if "help" in field.metadata:
            name = field.metadata.get("name", field.name)
            flag = f"--{name.replace('_', '-')}"
            found[field.name] = cast(Option, {"panel": kind.PANEL, "name": name, "flag": flag, **field.metadata})
    return found
