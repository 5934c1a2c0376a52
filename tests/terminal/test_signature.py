"""Options classes -> the options of a command -> options classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Optional

import pytest
import typer

from magnet_cli.errors import UsageError
from magnet_cli.options.declared import Option, Panel
from magnet_cli.terminal.help import HelpGroup
from magnet_cli.terminal.signature import annotated, command, given_of, only, option_of, without


@dataclass(frozen=True, kw_only=True)
class Soup:
    """Fields of every type that options have."""

    PANEL: ClassVar[Panel] = "Sampling"

    salt: float = field(default=0.5, metadata=Option(help="Grams of salt.", short="-s"))
    spoons: int | None = field(default=None, metadata=Option(help="Number of spoons.", unset="as many as guests"))
    hot: bool = field(default=False, metadata=Option(help="Serve it hot."))
    stirred: bool | None = field(default=None, metadata=Option(help="Stir it."))
    style: Literal["thick", "thin"] = field(default="thin", metadata=Option(help="Its style."))
    sizes: tuple[int, ...] = field(default=(1, 2), metadata=Option(help="Sizes of the bowls."))
    herbs: tuple[str, ...] = field(default=(), metadata=Option(help="A herb.", flag="--herb"))
    pot: Path | None = field(default=None, metadata=Option(help="The pot.", env="SOUP_POT", panel="Files"))
    secret: int = 7

    def __post_init__(self) -> None:
        if self.salt > 10:
            raise UsageError("too much salt", "Give less")


@dataclass(frozen=True, kw_only=True)
class Bread:
    """Fields with names of their own, and one that must be given."""

    PANEL: ClassVar[Panel] = "Other"

    slices: int = field(metadata=Option(help="Number of slices.", name="bread"))
    butter: float = field(default=1.0, metadata=Option(help="Butter for each.", name="bread_butter"))


THICK = Soup(style="thick", secret=8)


class Kitchen:
    """A command line with one command, and what that received."""

    def __init__(self, function: Any) -> None:
        self.app = typer.Typer(cls=HelpGroup, rich_markup_mode=None, context_settings={"auto_envvar_prefix": "KITCHEN"})
        command(self.app, "cook")(function)
        command(self.app)(idle)

    def run(self, *arguments: str) -> int:
        with pytest.raises(SystemExit) as stopped:
            self.app(["cook", *arguments])
        return int(stopped.value.code or 0)


def idle() -> None:
    """Do nothing."""


received: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_received() -> None:
    received.clear()


def cook(guest: Annotated[str, typer.Argument()] = "me", *, soup: Soup) -> None:
    """Cook a soup."""
    received.append((guest, soup))


def test_a_command_receives_the_options_class() -> None:
    kitchen = Kitchen(cook)
    assert kitchen.run() == 0
    options = "you -s 2 --spoons 3 --hot --stirred --style thick --sizes 4,5 --herb a --herb b --pot p"
    assert kitchen.run(*options.split()) == 0
    whole = Soup(
        salt=2.0, spoons=3, hot=True, stirred=True, style="thick", sizes=(4, 5), herbs=("a", "b"), pot=Path("p")
    )
    assert received == [("me", Soup()), ("you", whole)]


def test_environment_variables_are_named_after_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITCHEN_COOK_SALT", "3")
    monkeypatch.setenv("KITCHEN_COOK_HERB", "mint dill")
    monkeypatch.setenv("SOUP_POT", "big")
    assert Kitchen(cook).run() == 0
    assert received == [("me", Soup(salt=3.0, herbs=("mint", "dill"), pot=Path("big")))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--salt", "11"), "error: too much salt. Give less.\n"),
        (
            ("--sizes", "1,x"),
            "error: --sizes must be whole numbers with commas between, not '1,x'. Give e.g. 8,5,4,2.\n",
        ),
        (("--sizes", ""), "error: --sizes must be whole numbers with commas between, not ''. Give e.g. 8,5,4,2.\n"),
    ],
)
def test_what_the_options_class_refuses_is_a_usage_error(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Kitchen(cook).run(*arguments) == 2
    assert capsys.readouterr().err == message
    assert not received


def test_a_default_holds_the_defaults_of_its_options() -> None:
    def cook_thick(*, soup: Annotated[Soup, only("style", "hot")] = THICK) -> None:
        received.append(soup)

    kitchen = Kitchen(cook_thick)
    assert kitchen.run("--hot") == 0
    assert received == [Soup(style="thick", secret=8, hot=True)]
    assert kitchen.run("--salt", "1") == 2


def test_options_can_be_left_out() -> None:
    def cook_plain(*, soup: Annotated[Soup, without("salt")]) -> None:
        received.append(soup)

    kitchen = Kitchen(cook_plain)
    assert kitchen.run("--spoons", "0") == 0
    assert received == [Soup(spoons=0)]
    assert kitchen.run("--salt", "1") == 2


def test_a_mapping_holds_what_is_set() -> None:
    def cook_given(
        *, soup: Annotated[Mapping[str, Any], given_of(Soup)], bread: Annotated[Mapping[str, Any], given_of(Bread)]
    ) -> None:
        received.append((soup, bread))

    kitchen = Kitchen(cook_given)
    assert kitchen.run("--herb", "a", "--spoons", "0") == 0
    assert kitchen.run("--bread", "2") == 0
    (soup, bread), (_, two) = received
    assert soup == {"salt": 0.5, "spoons": 0, "style": "thin", "sizes": (1, 2), "herbs": ("a",)}
    assert bread == {"butter": 1.0}
    assert two == {"slices": 2, "butter": 1.0}


def test_a_field_without_a_default_must_be_given() -> None:
    def slice_bread(*, bread: Bread) -> None:
        received.append(bread)

    kitchen = Kitchen(slice_bread)
    assert kitchen.run() == 2
    assert kitchen.run("--bread", "2", "--bread-butter", "3") == 0
    assert received == [Bread(slices=2, butter=3.0)]


def test_a_field_can_be_an_option_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def season(*, salt: Annotated[float | None, option_of(Soup, "salt", unset="as it was")] = None) -> None:
        received.append(salt)

    kitchen = Kitchen(season)
    assert kitchen.run() == 0
    assert kitchen.run("-s", "2") == 0
    assert received == [None, 2.0]
    assert kitchen.run("--help") == 0
    assert "Grams of salt. [default: as it was]" in capsys.readouterr().out


def test_two_fields_of_the_same_name_are_refused() -> None:
    def cook_twice(*, one: Soup, two: Soup) -> None: ...

    with pytest.raises(ValueError, match="duplicate parameter name"):
        Kitchen(cook_twice)


# -- help -------------------------------------------------------------------------------------------------------------


def test_the_help_has_sections_in_their_order(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cook_all(guest: Annotated[str, typer.Argument(help="Who eats.")] = "me", *, bread: Bread, soup: Soup) -> None:
        """Cook everything."""

    monkeypatch.setenv("COLUMNS", "80")
    assert Kitchen(cook_all).run("--help") == 0
    page = capsys.readouterr().out
    assert re.findall(r"╭─ (.*?) ─+╮", page) == ["Arguments", "Files", "Sampling", "Other"]
    words = " ".join(page.replace("│", "").split())
    for text in (
        "-s, --salt NUMBER Grams of salt. [default: 0.5]",
        "--spoons N Number of spoons. [default: as many as guests]",
        "--hot Serve it hot. --stirred Stir it.",
        "--style thick|thin Its style. [default: thin]",
        "--sizes N,N,... Sizes of the bowls. [default: 1,2]",
        "--herb TEXT A herb.",
        "--pot PATH The pot.",
        "--bread N Number of slices. [required]",
    ):
        assert text in words
    assert "KITCHEN" not in page  # docs/cli.md lists the variables
    assert "SOUP_POT" not in page


def test_few_options_need_no_sections(capsys: pytest.CaptureFixture[str]) -> None:
    def slice_bread(*, bread: Bread) -> None:
        """Slice bread."""

    assert Kitchen(slice_bread).run("--help") == 0
    page = capsys.readouterr().out
    assert "╭─ Options ─" in page
    assert "╭─ Other ─" not in page
    assert "KITCHEN" not in page


def test_a_default_of_none_does_not_hide_what_python_3_10_wraps() -> None:
    hint = Annotated[list[str] | None, typer.Argument(metavar="GUEST...")]
    assert annotated(hint) is hint
    assert annotated(Optional[hint]) == hint  # noqa: UP045  # as typing.get_type_hints of Python 3.10 makes it
    assert annotated(Optional[int]) == Optional[int]  # noqa: UP045
    assert annotated(int) is int
