"""docs/cli.md is what the code writes, and what texts say of options is true."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import magnet_cli
from magnet_cli.cli import app
from magnet_cli.cli.reference import exit_codes, reference
from support.command import Magnet

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
# Options of other programs that texts name.
FOREIGN = {"--raw", "--rate", "--channels", "--index-url", "--gpus"}


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its path."""

    def walk(path: str, one: Any) -> Iterator[tuple[str, Any]]:
        yield path, one
        for name, below in getattr(one, "commands", {}).items():
            yield from walk(f"{path} {name}", below)

    return walk("magnet", typer.main.get_command(app))


def test_the_page_is_what_the_code_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "docs/cli.md is not up to date: run make docs"


def test_the_page_does_not_depend_on_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    before = reference()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("MAGNET_GENERATE_LUFS", "-20")
    monkeypatch.setenv("MAGNET_MODEL_DIR", "/somewhere/else")
    assert reference() == before


def test_every_command_and_every_option_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    parts = dict(zip(*[iter(re.split(r"^##+ (magnet.*)$", page, flags=re.MULTILINE)[1:])] * 2, strict=True))
    for path, one in commands():
        for parameter in one.params:
            if parameter.param_type_name == "option":
                for name in (*parameter.opts, *parameter.secondary_opts):
                    assert re.search(rf"`.*{name}\b.*` \|", parts[path]), (path, name)
                assert parameter.help, (path, parameter.name)


def test_the_help_names_every_exit_code(magnet: Magnet) -> None:
    page = magnet("--help").out
    told = {int(code) for code in re.findall(r"(\d+) \w", page[page.index("Exit codes:") :])}
    assert told | {1, 129, 143} == {code for code, _ in exit_codes()}


def test_the_options_that_a_text_names_exist() -> None:
    known = {name for _, one in commands() for each in one.params for name in (*each.opts, *each.secondary_opts)}
    for path in Path(magnet_cli.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", node.value))
                assert named <= known | FOREIGN | {"--help", "--help-all"}, (path.name, node.lineno)
