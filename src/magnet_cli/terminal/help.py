"""The facts about the options of a command, and the help page that shows them in sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from typer.core import TyperCommand, TyperGroup

from magnet_cli.options.declared import Panel

if TYPE_CHECKING:
    from typer._click.core import Context
    from typer._click.formatting import HelpFormatter

ARGUMENTS = "Arguments"
OTHER = "Other"  # where an option goes that has no section of its own
FEW = 10  # options that need no sections


@dataclass(frozen=True)
class Facts:
    """What is known of an option or argument.

    flag      the option's long name, or the argument's
    names     as it is written, "-m, --model NAME"
    default   what applies when it is not given; None: nothing
    variable  its environment variable; None if it has none
    obvious   whether the name of the variable follows from the flag
    """

    flag: str
    names: str
    help: str
    panel: str
    default: str | None = None
    variable: str | None = None
    obvious: bool = True
    required: bool = False

    @property
    def words(self) -> str:
        """The help text, with the default and other notes."""
        notes = [] if self.default is None else [f"default: {self.default}"]
        if self.variable is not None and not self.obvious:
            notes.append(f"environment: {self.variable}")
        if self.required:
            notes.append("required")
        return f"{self.help} [{'; '.join(notes)}]" if notes else self.help


def facts_of(parameter: Any, context: Context) -> Facts:
    """The facts of a command's parameter. Defaults that the context has from a configuration file count."""
    if parameter.param_type_name == "argument":
        name = parameter.make_metavar(ctx=context).strip("[]{}")
        return Facts(name, name, parameter.help or "", ARGUMENTS)
    names = ", ".join(sorted([*parameter.opts, *parameter.secondary_opts], key=lambda name: name.startswith("--")))
    if not parameter.is_flag:
        names += f" {parameter.make_metavar(ctx=context)}"
    automatic = f"{context.auto_envvar_prefix}_{parameter.name.upper()}"
    flag = max(parameter.opts, key=len)
    return Facts(
        flag,
        names,
        parameter.help or "",
        parameter.rich_help_panel or OTHER,
        _default(parameter, context),
        None if parameter.is_eager else parameter.envvar or automatic,
        parameter.envvar is None and flag == f"--{parameter.name.replace('_', '-')}",
        parameter.required,
    )


def _default(parameter: Any, context: Context) -> str | None:
    value = parameter.get_default(context, call=False)
    if parameter.is_flag:
        if not parameter.secondary_opts:
            return "on" if value else None
        return (parameter.opts if value else parameter.secondary_opts)[0]
    if value is None or value == () or value == []:
        return parameter.show_default if isinstance(parameter.show_default, str) else None
    return f"{value:g}" if isinstance(value, float) else str(value)


class HelpCommand(TyperCommand):
    """A command whose help has sections."""

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """The words of the usage line: arguments that are required stand there without brackets."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the arguments and options, and how the options get other defaults."""
        found = [facts_of(parameter, ctx) for parameter in self.get_params(ctx)]
        write_sections(found, formatter)
        if len(found) > FEW:
            example = next(one for one in found if one.variable is not None and one.obvious)
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(
                    "Environment variables set options, too: "
                    f"{example.variable} sets {example.flag}. So does the configuration file; see docs/cli.md."
                )


class HelpGroup(TyperGroup):
    """A command with commands of its own."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the options, then the commands."""
        write_sections([facts_of(parameter, ctx) for parameter in self.get_params(ctx)], formatter)
        self.format_commands(ctx, formatter)


def sections(facts: Sequence[Facts]) -> dict[str, list[Facts]]:
    """The facts by section, in the order of `Panel`; one section for all options if they are few."""
    order = [ARGUMENTS, *get_args(Panel)]
    found: dict[str, list[Facts]] = {}
    for one in sorted(facts, key=lambda one: order.index(one.panel)):
        panel = "Options" if len(facts) <= FEW and one.panel != ARGUMENTS else one.panel
        found.setdefault(panel, []).append(one)
    return found


def write_sections(facts: Sequence[Facts], formatter: HelpFormatter) -> None:
    """Write the facts as lists, each under the heading of its section."""
    for panel, members in sections(facts).items():
        with formatter.section(panel):
            formatter.write_dl([(one.names, one.words) for one in members])
