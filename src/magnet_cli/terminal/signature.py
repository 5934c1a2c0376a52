"""From the declared fields of options classes to the options of a command, and from parsed values back to the classes.

A command is a function. A parameter whose type is an options class stands for one option for each of its declared
fields (`options.declared`), and receives the class made of them:

    @command(app)
    def generate(prompt: Annotated[str, typer.Argument()], *, sampling: Overrides, runtime: RuntimeConfig) -> None: ...

The default of such a parameter holds the defaults of its options. `Annotated[RuntimeConfig, only("device")]` has some
of them only, and `Annotated[Mapping[str, Any], given_of(EditConfig)]` receives those that are set.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import typer

from magnet_cli.errors import UsageError
from magnet_cli.options.declared import Option, declared
from magnet_cli.options.times import parse_seconds
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.help import HelpCommand

Command: TypeAlias = Callable[..., None]

NONE = type(None)
METAVARS: dict[Any, str] = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}


def command(
    app: typer.Typer, name: str | None = None, *, everyday: Sequence[str] = (), panel: str | None = None
) -> Callable[[Command], Command]:
    """Add a function to an app as a command, under its own name unless another is given.

    everyday: the options that --help shows, where that is not to show all of them. panel: the section of the app's help
    that lists the command.
    """

    def register(function: Command) -> Command:
        run = expanded(function)
        run.everyday = tuple(everyday)  # type: ignore[attr-defined]  # typer copies a function's attributes
        app.command(name, cls=HelpCommand, rich_help_panel=panel)(run)
        return function

    return register


@dataclass(frozen=True)
class Selection:
    """Which fields of an options class a command takes, and whether as a mapping of those that are set.

    unset: what applies where one of a mapping is not given, if that is the same for all of them.
    """

    names: tuple[str, ...] | None = None
    left_out: tuple[str, ...] = ()
    mapped: type[Any] | None = None
    unset: str = ""

    def takes(self, name: str) -> bool:
        """Whether the field of this name is among them."""
        return name not in self.left_out if self.names is None else name in self.names


def only(*names: str) -> Selection:
    """These fields of the options class that it annotates."""
    return Selection(names)


def without(*names: str) -> Selection:
    """All fields of the options class that it annotates, but for these."""
    return Selection(left_out=names)


def given_of(kind: type[Any], *, unset: str = "") -> Selection:
    """All fields of an options class; the parameter receives a mapping of those that are set.

    unset: what applies to one that is not given, in words; by default what the options class says.
    """
    return Selection(mapped=kind, unset=unset)


def option_of(kind: type[Any], name: str, *, unset: str = "") -> Any:
    """One field of an options class, for a parameter of its own. unset: what applies when the option is not given."""
    (one,) = (offered for offered in offers(kind) if offered.field == name)
    return replace(one, declaration={**one.declaration, "unset": unset} if unset else one.declaration).typer_option()


def expanded(function: Command) -> Command:
    """The function as Typer takes it: with one parameter for each option."""
    hints = {name: annotated(hint) for name, hint in get_type_hints(function, include_extras=True).items()}
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Group] = {}
    for parameter in inspect.signature(function).parameters.values():
        group = group_of(hints[parameter.name], None if parameter.default is parameter.empty else parameter.default)
        if group is None:
            parameters.append(parameter.replace(annotation=hints[parameter.name], kind=parameter.KEYWORD_ONLY))
        else:
            groups[parameter.name] = group
            parameters += [one.parameter for one in group.offered]

    def run(**values: Any) -> None:
        with Console().reporting():
            made = {name: group.take(values) for name, group in groups.items()}
        function(**values, **made)

    run.__name__, run.__doc__, run.__module__ = function.__name__, function.__doc__, function.__module__
    run.__annotations__ = {}  # Typer would evaluate them again
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def annotated(hint: Any) -> Any:
    """A hint as it is written: Python 3.10 reads that of a parameter whose default is None as Optional[Annotated]."""
    if get_origin(hint) is not Union:
        return hint
    return next((one for one in get_args(hint) if get_origin(one) is Annotated), hint)


@dataclass(frozen=True)
class Group:
    """The options that stand for one parameter of a command. base: an instance that has their defaults."""

    kind: type[Any]
    base: Any
    offered: tuple[Offered, ...]
    mapped: bool

    def take(self, values: dict[str, Any]) -> Any:
        """Take these options out of the parsed values: as the class, or as a mapping of those set. UsageError."""
        made = {one.field: one.read(values.pop(one.name)) for one in self.offered}
        if self.mapped:
            return {name: value for name, value in made.items() if not (value is None or value is False or value == ())}
        return self.kind(**made) if self.base is None else replace(self.base, **made)


def group_of(hint: Any, base: Any) -> Group | None:
    """The options that a parameter of this type stands for; None for one that is an option or argument itself."""
    kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    selection = next((note for note in notes if isinstance(note, Selection)), Selection())
    kind = selection.mapped or kind
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return None
    offered = tuple(one for one in offers(kind, base) if selection.takes(one.field))
    if selection.mapped is not None:  # a mapping has no required options
        offered = tuple(replace(one, default=None if one.default is MISSING else one.default) for one in offered)
    if selection.unset:
        offered = tuple(one.without_default(selection.unset) for one in offered)
    return Group(kind, base, offered, selection.mapped is not None)


def offers(kind: type[Any], base: Any = None) -> list[Offered]:
    """Every declared field of an options class, with its default in an instance of it, or in the class."""
    hints, declarations = get_type_hints(kind), declared(kind)
    defaults = {one.name: one.default if base is None else getattr(base, one.name) for one in fields(kind)}
    return [Offered(name, one, hints[name], defaults[name]) for name, one in declarations.items()]


@dataclass(frozen=True)
class Offered:
    """A field of an options class as an option of a command. hint: its type; default: of the field's type."""

    field: str
    declaration: Option
    hint: Any
    default: Any

    @property
    def name(self) -> str:
        """The parameter."""
        return self.declaration["name"]

    @property
    def kind(self) -> Any:
        """The field's type, without None."""
        kinds = [one for one in get_args(self.hint) if one is not NONE] if NONE in get_args(self.hint) else [self.hint]
        return kinds[0]

    def without_default(self, unset: str) -> Offered:
        """The same option, for which nothing is known where it is not given but these words. A flag is then off."""
        if self.kind is bool:
            return replace(self, default=False)
        return replace(self, default=None, hint=self.kind | None, declaration={**self.declaration, "unset": unset})

    @property
    def parsed(self) -> Any:
        """The type that Typer parses. It knows neither numbers with commas nor times; an options class checks words."""
        if self.declaration.get("time"):
            return str | None
        if get_origin(self.kind) is tuple:
            return list[str] | None if self.repeated else str | None
        return str | None if get_origin(self.kind) is Literal else bool if self.kind is bool else self.hint

    @property
    def repeated(self) -> bool:
        """Whether the option may be given several times."""
        return get_origin(self.kind) is tuple and get_args(self.kind)[0] is str

    @property
    def parameter(self) -> inspect.Parameter:
        """What stands for it in the signature of the command."""
        default = ... if self.default is MISSING else self.default
        if self.kind is bool:
            default = bool(default)
        elif isinstance(default, tuple):
            default = ",".join(map(str, default)) or None
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=self.typer_option(default), annotation=self.parsed
        )

    def typer_option(self, *default: Any) -> Any:
        """What Typer needs to know; without a default in an annotation, which has none."""
        one, short, env = self.declaration, self.declaration.get("short"), self.declaration.get("env")
        return typer.Option(
            *default,
            *((one["flag"], short) if short else (one["flag"],)),
            metavar=one.get("metavar") or self.metavar,
            help=one["help"],
            envvar=env,
            show_default=one.get("unset", True),
            rich_help_panel=one["panel"],
        )

    @property
    def metavar(self) -> str | None:
        """What stands for a value, unless the declaration says so."""
        if get_origin(self.kind) is Literal:
            return "|".join(get_args(self.kind))
        if self.repeated:
            return METAVARS[str]
        return "N,N,..." if get_origin(self.kind) is tuple else METAVARS.get(self.kind)

    def read(self, value: Any) -> Any:
        """A parsed value as the field's; UsageError for what are no numbers with commas between."""
        if self.repeated:
            return tuple(value or ())
        if self.kind is bool:  # a flag that is not given leaves open what may be left open
            return value or (None if NONE in get_args(self.hint) else False)
        if self.declaration.get("time") and value is not None:
            try:
                return parse_seconds(value)
            except ValueError:
                raise UsageError(
                    f"{self.declaration['flag']} must be seconds or a time such as 1:30, not {value!r}",
                    f"Give e.g. {self.declaration['flag']} 5",
                ) from None
        if get_origin(self.kind) is not tuple or value is None:
            return value
        if not re.fullmatch(r"\s*-?[0-9]{1,9}\s*(,\s*-?[0-9]{1,9}\s*)*", value):
            raise UsageError(
                f"{self.declaration['flag']} must be whole numbers with commas between, not {value!r}",
                "Give e.g. 8,5,4,2",
            )
        return tuple(int(number) for number in value.split(","))
