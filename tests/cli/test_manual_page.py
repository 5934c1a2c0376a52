"""docs/magnet.1 is what the code writes, has every option, and is roff that groff reads without a warning."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from magnet_cli.cli import app
from magnet_cli.cli.manual_page import manual_page, roff
from magnet_cli.cli.reference import exit_codes
from magnet_cli.terminal.parameters import variable_of, walk

PAGE = Path(__file__).parents[2] / "docs" / "magnet.1"
GROFF = shutil.which("groff")


def printed(text: str) -> str:
    """A page as groff prints it, without bold letters; a warning of groff fails."""
    assert GROFF
    command = [GROFF, "-ww", "-man", "-Tutf8", "-P-c", "-P-b", "-P-u", "-rLL=500n"]
    done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", check=True)
    assert done.stderr == ""
    return done.stdout


def test_the_page_is_what_the_code_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == manual_page(), "docs/magnet.1 is not up to date: run make docs"


def test_the_page_does_not_depend_on_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    before = manual_page()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("MAGNET_GENERATE_LUFS", "-20")
    assert manual_page() == before


def test_every_command_option_variable_and_exit_code_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8").replace(r"\-", "-")
    assert page.isascii()
    group = typer.main.get_command(app)
    root = typer.Context(group, info_name="magnet", **group.context_settings)
    seen = 0
    for command, context in walk(group, root):
        heading = "SH OPTIONS" if context is root else f'SS "{context.command_path}"'
        part = page.partition(f".{heading}\n")[2]
        assert part, heading
        part = re.split(r"^\.S[SH] ", part, flags=re.MULTILINE)[0]
        for one in command.params:
            if one.param_type_name == "option":
                assert re.search(rf"^\\fB.*{one.opts[0]}\b", part, re.MULTILINE), (context.command_path, one.name)
                assert (variable_of(one, context) or "") in part
                seen += 1
    assert seen > 200
    for code, _ in exit_codes():
        assert f"\n\\fB{code}\\fR\n" in page


@pytest.mark.skipif(GROFF is None, reason="no groff")
def test_groff_reads_it_without_a_warning() -> None:
    page = printed(PAGE.read_text(encoding="utf-8"))
    assert "magnet - text to music and sound effects" in page
    assert 'magnet generate "disco beat, 125 bpm" -o disco.wav' in page
    assert re.search(r"^ +-m, --model NAME\|HUB_ID\|FOLDER$", page, re.MULTILINE)


@pytest.mark.skipif(GROFF is None, reason="no groff")
@pytest.mark.parametrize(
    "text", [".wav files", "'tis", r"a \n b", "--flag-name", "2^64 ~ `x`", 'say "no"', "Fréchet ½", r"\\server"]
)
def test_no_text_is_a_command_of_roff(text: str) -> None:
    assert text.replace("`", "") in printed(f".TH X 1\n.SH NAME\n{roff(text)}\n")
