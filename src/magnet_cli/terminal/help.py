"""The facts about the options of a command, and the help page that shows them in sections."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from typer._click.exceptions import NoSuchOption
from typer._click.utils import echo
from typer.core import TyperCommand, TyperGroup, TyperOption

from magnet_cli.errors import UsageError, did_you_mean
from magnet_cli.options.declared import Panel
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.panels import Row, can_frame, panel, paragraph, terminal_width
from magnet_cli.terminal.parameters import flag_of, prepare, variable_of

if TYPE_CHECKING:
    from typer._click.core import Context
    from typer._click.formatting import HelpFormatter

ARGUMENTS = "Arguments"
COMMANDS = "Commands"  # where a command goes that has no section of its own
OTHER = "Other"  # where an option goes that has no section of its own
EVERYDAY = "Everyday options"
FEW = 10  # options that need no sections
EXAMPLE = "Example: "  # how a paragraph of a docstring begins that is a command


@dataclass(frozen=True)
class Facts:
    """What is known of an option or argument.

    flag      the option's long name, or the argument's
    names     as it is written, "-m, --model NAME"
    default   what applies when it is not given; None: nothing
    variable  its environment variable; None if it has none
    """

    flag: str
    names: str
    help: str
    panel: str
    default: str | None = None
    variable: str | None = None
    required: bool = False

    @property
    def words(self) -> str:
        """The help text, with the default and other notes."""
        notes = [] if self.default is None else [f"default: {self.default}"]
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
    return Facts(
        flag_of(parameter),
        names,
        parameter.help or "",
        parameter.rich_help_panel or OTHER,
        _default(parameter, context),
        variable_of(parameter, context),
        parameter.required,
    )


def _default(parameter: Any, context: Context) -> str | None:
    value = parameter.get_default(context, call=False)
    if value is None and isinstance(parameter.show_default, str):
        return str(parameter.show_default)
    if parameter.is_flag:
        if not parameter.secondary_opts:
            return "on" if value else None
        return (parameter.opts if value else parameter.secondary_opts)[0]
    if value is None or value == () or value == []:
        return parameter.show_default if isinstance(parameter.show_default, str) else None
    return f"{value:g}" if isinstance(value, float) else str(value)


class HelpCommand(TyperCommand):
    """A command with a help page in panels: the everyday options, or with --help-all every one."""

    @property
    def everyday(self) -> tuple[str, ...]:
        """The options that --help shows; empty: all."""
        return getattr(self.callback, "everyday", ())

    def get_params(self, ctx: Context) -> list[Any]:
        """The arguments and options, --help and --help-all included."""
        found = super().get_params(ctx)
        if self.everyday:
            found.append(self._help_all)
        prepare(found, ctx)
        return found

    @cached_property
    def _help_all(self) -> TyperOption:
        return TyperOption(
            param_decls=["--help-all"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            help="Show every option and exit.",
            callback=self._show_all,
        )

    def _show_all(self, ctx: Context, parameter: Any, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            echo(self._page(ctx, everything=True))
            ctx.exit()

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Parse the arguments; a mistyped option is a usage error with a suggestion."""
        with explaining(self, ctx):
            return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """The words of the usage line: arguments that are required stand there without brackets."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the help page."""
        formatter.write(self._page(ctx, everything=not self.everyday))

    def _page(self, ctx: Context, *, everything: bool) -> str:
        found = [facts_of(parameter, ctx) for parameter in self.get_params(ctx)]
        if everything:
            panels = [(title, [row_of(one) for one in members]) for title, members in sections(found).items()]
        else:
            shown = (*self.everyday, "--help", "--help-all")
            panels = [(ARGUMENTS, [row_of(one) for one in found if one.panel == ARGUMENTS])]
            panels += [(EVERYDAY, [row_of(one) for name in shown for one in found if one.flag == name])]
        few = len(found) <= FEW
        last = "" if few else "Environment variables and a configuration file set options, too: see docs/cli.md."
        return page(self, ctx, panels, last)


class HelpGroup(TyperGroup):
    """A command with commands of its own. Alone, it shows its help."""

    def get_params(self, ctx: Context) -> list[Any]:
        """The options, --help included."""
        found = super().get_params(ctx)
        prepare(found, ctx)
        return found

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Parse the arguments before the name of the command."""
        if not args and not ctx.resilient_parsing:
            echo(ctx.get_help())
            ctx.exit()
        with explaining(self, ctx):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command; one that is mistyped is a usage error with a suggestion."""
        if args[0] not in self.commands and not args[0].startswith("-") and not ctx.resilient_parsing:
            refuse_command(self, ctx, args[0])
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the help page."""
        panels: dict[str, list[Row]] = {}
        for name, one in self.commands.items():
            if not one.hidden:
                title = getattr(one, "rich_help_panel", None)
                rows = panels.setdefault(title if isinstance(title, str) else COMMANDS, [])
                rows.append((name, one.get_short_help_str(limit=200)))
        options = [row_of(facts_of(parameter, ctx)) for parameter in self.get_params(ctx)]
        formatter.write(page(self, ctx, [*panels.items(), ("Options", options)], self.epilog or ""))


def refuse_command(group: HelpGroup, context: Context, name: str) -> NoReturn:
    """Report that a group has no command of this name. Ends with the exit code of usage errors."""
    otherwise = f"{context.command_path} --help lists the commands"
    if " " in name and context.parent is None:
        otherwise = f'For a clip of this prompt: magnet generate "{name}"'
    with Console().reporting():
        raise UsageError(f"there is no command {name!r}", did_you_mean(name, group.commands, otherwise))
    raise AssertionError  # for the type checker: reporting raises Exit


@contextmanager
def explaining(command: Any, context: Context) -> Iterator[None]:
    """Turn an option that does not exist into a usage error that says which ones are like it."""
    try:
        yield
    except NoSuchOption as error:
        flags = [name for one in command.get_params(context) for name in (*one.opts, *one.secondary_opts)]
        every = "--help-all" if getattr(command, "everyday", ()) else "--help"
        with Console().reporting():
            raise UsageError(
                f"{context.command_path} has no option {error.option_name}",
                did_you_mean(
                    error.option_name,
                    [name for name in flags if name.startswith("--")],
                    f"{context.command_path} {every} lists the options",
                ),
            ) from None


def row_of(facts: Facts) -> Row:
    """The facts as a row of a panel."""
    return facts.names, facts.words


def parts_of(text: str) -> tuple[list[str], list[str]]:
    """The paragraphs of a docstring: those that explain, and the commands of those that are examples."""
    paragraphs = [" ".join(one.split()) for one in inspect.cleandoc(text).split("\n\n")]
    examples = [one.removeprefix(EXAMPLE) for one in paragraphs if one.startswith(EXAMPLE)]
    return [one for one in paragraphs if not one.startswith(EXAMPLE)], examples


def page(command: Any, context: Context, panels: Sequence[tuple[str, list[Row]]], last: str) -> str:
    """The help page of a command, for the width of the terminal."""
    width, framed = terminal_width(), can_frame(getattr(sys.stdout, "encoding", None))
    explained, examples = parts_of(command.help or "")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [*paragraph(f"Usage: {usage}", width), ""]
    for one in explained:
        lines += [*paragraph(one, width), ""]
    for title, rows in (("Examples", [(example, "") for example in examples]), *panels):
        if rows:
            lines += panel(title, rows, width, framed=framed)
    if last:
        lines += [*([""] if framed else []), *paragraph(last, width)]
    return "\n".join(lines).rstrip("\n")


def sections(facts: Sequence[Facts]) -> dict[str, list[Facts]]:
    """The facts by section, in the order of `Panel`; one section for all options if they are few."""
    order = [ARGUMENTS, *get_args(Panel)]
    found: dict[str, list[Facts]] = {}
    for one in sorted(facts, key=lambda one: order.index(one.panel)):
        title = "Options" if len(facts) <= FEW and one.panel != ARGUMENTS else one.panel
        found.setdefault(title, []).append(one)
    return found
