"""What belongs to an option beside its flag: the environment variable that sets it, and the values that TAB offers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from typer._click.core import Context
    from typer._click.shell_completion import CompletionItem

# Read by other parts than the command line: the configuration file, and what `--dtype auto` is.
OTHER_VARIABLES = ("MAGNET_CONFIG", "MAGNET_AUTO_DTYPE")
MODEL_NAMES = ("NAME", "NAME...", "SRC")  # words of a metavar that stand for a model


def flag_of(parameter: Any) -> str:
    """The long name of an option: `--json`."""
    return str(max(parameter.opts, key=len))


def variable_of(parameter: Any, context: Context) -> str | None:
    """The environment variable of an option, named as users type it: `MAGNET_GENERATE_JSON`.

    None for arguments, and for what acts at once (--help, --version, completion): a variable that was left set would
    make every command do that.
    """
    if parameter.param_type_name == "argument" or parameter.is_eager or not parameter.expose_value:
        return None
    if parameter.envvar is not None:
        return str(parameter.envvar)
    prefix = context.auto_envvar_prefix
    return None if prefix is None else f"{prefix}_{flag_of(parameter)[2:].replace('-', '_').upper()}"


def prepare(parameters: Sequence[Any], context: Context) -> None:
    """Have the options of a command read their variables, and offer their values to completion."""
    for parameter in parameters:
        if parameter.param_type_name == "option":
            parameter.envvar, parameter.allow_from_autoenv = variable_of(parameter, context), False
            parameter.show_envvar = False  # in messages about a value that was given otherwise
        if parameter._custom_shell_complete is None and parameter.metavar:
            parameter._custom_shell_complete = complete


def walk(command: Any, context: Context) -> Iterator[tuple[Any, Context]]:
    """A command and all below it, each with its context."""
    yield command, context
    for name, one in getattr(command, "commands", {}).items():
        yield from walk(one, typer.Context(one, parent=context, info_name=name, **one.context_settings))


def known_variables(command: Any, context: Context) -> set[str]:
    """Every environment variable that has an effect."""
    found = {variable_of(one, below) for each, below in walk(command, context) for one in each.params}
    return {*OTHER_VARIABLES, *(name for name in found if name is not None)}


def complete(context: Context, parameter: Any, incomplete: str) -> list[CompletionItem]:
    """The values of an option or argument that begin with what is typed; none where the shell offers files.

    Imports no torch.
    """
    from typer._click.shell_completion import CompletionItem

    metavar = str(parameter.metavar)
    found = values(metavar)
    if any(word in MODEL_NAMES for word in metavar.split("|")):
        found += models()
    return [CompletionItem(value) for value in found if value.startswith(incomplete)]


def values(metavar: str) -> list[str]:
    """The words that a metavar lists: `auto|cpu|cuda[:N]|mps` -> auto, cpu, cuda, mps. Capitals stand for others."""
    words = [re.sub(r"\[.*\]", "", word) for word in metavar.split("|")]
    return [word for word in words if word == word.lower()] if len(words) > 1 else []


def models() -> list[str]:
    """Every name of a model."""
    from magnet_cli.hub.locate import model_names
    from magnet_cli.hub.store import Store

    return model_names(Store.at())
