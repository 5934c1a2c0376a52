"""Help fits any width, names the everyday options first, and leads from a mistake to what was meant."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from magnet_cli.cli import app
from magnet_cli.terminal.panels import listed, panel
from magnet_cli.terminal.parameters import flag_of, walk
from support.command import Magnet, one_line_error

BUNDLED = Path(__file__).parents[2] / "src" / "magnet_cli" / "bundled"


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("arguments", [("--help",), ("generate", "--help-all"), ("models", "download", "--help")])
def test_help_fits_the_terminal(
    magnet: Magnet, monkeypatch: pytest.MonkeyPatch, columns: int, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = magnet(*arguments)
    assert (result.code, result.err) == (0, "")
    assert max(map(len, result.out.splitlines())) <= columns
    assert "╭─ Examples ─" in result.out


def test_everyday_options_come_first_and_all_of_them_on_request(magnet: Magnet) -> None:
    page, everything = magnet("generate", "--help").out, magnet("generate", "--help-all").out
    shown, all_shown = (re.findall(r"│ (?:-\w, )?(--[\w-]+)", one) for one in (page, everything))
    assert shown[:2] == ["--model", "--seed"]
    assert len(shown) <= 16
    assert set(shown) < set(all_shown)
    assert {"--top-k", "--hybrid", "--cache-dir"} <= set(all_shown) - set(shown)
    assert "MAGNET_" not in page + everything


def test_everyday_options_exist() -> None:
    group: Any = typer.main.get_command(app)
    context = typer.Context(group, info_name="magnet", **group.context_settings)
    chosen = 0
    for one, below in walk(group, context):
        flags = {flag_of(parameter) for parameter in one.params}
        everyday = getattr(one, "everyday", ())
        chosen += bool(everyday)
        assert set(everyday) <= flags, below.command_path
    assert chosen >= 5


def test_a_frame_closes_on_both_sides() -> None:
    rows = [("--a NAME", "A text of some words."), ("--a-much-longer-name", "Another."), ("", "A line.")]
    lines = panel("Title", rows, 40, framed=True)
    assert {len(line) for line in lines} == {40}
    assert lines[0].startswith("╭─ Title ─")
    assert panel("Title", rows, 40, framed=False)[0] == "Title:"
    assert listed(rows, 80)[:2] == ["--a NAME              A text of some words.", "--a-much-longer-name  Another."]


def test_without_unicode_there_are_no_frames(magnet: Magnet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magnet_cli.terminal.panels.FRAME", "\ud800")  # which no encoding has
    page = magnet("--help").out
    assert "\nGenerate:\n  generate " in page


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",), ("-h",)])
def test_magnet_alone_shows_its_help(magnet: Magnet, arguments: tuple[str, ...]) -> None:
    result = magnet(*arguments)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Usage: magnet [OPTIONS] COMMAND")


def test_help_of_a_command(magnet: Magnet) -> None:
    assert magnet("help", "generate").out == magnet("generate", "--help").out
    assert magnet("help", "models", "list").out == magnet("models", "list", "--help").out
    assert magnet("models").out == magnet("help", "models").out
    one_line_error(magnet("help", "modles"), 2, "Did you mean models?")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("genrate", "x"), ["'genrate'", "Did you mean generate?"]),
        (("models", "downlod"), ["Did you mean download?", "magnet models --help"]),
        (("disco beat",), ['magnet generate "disco beat"']),
        (("generate", "x", "--gudance", "3"), ["has no option --gudance", "Did you mean --guidance"]),
        (("generate", "x", "--no-meta"), ["Did you mean --no-metadata?"]),
        (("generate", "x", "--seed", "one"), ["'--seed'", "See magnet generate --help"]),
        (("generate", "x", "--preset", "fats"), ["Did you mean fast?"]),
        (("batch",), ["missing argument", "See magnet batch --help"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_one_line_that_says_what_was_perhaps_meant(
    magnet: Magnet, arguments: tuple[str, ...], parts: list[str]
) -> None:
    one_line_error(magnet(*arguments), 2, *parts)


def test_no_variable_makes_every_command_show_something_else(magnet: Magnet, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VERSION", "HELP", "INSTALL_COMPLETION", "SHOW_COMPLETION"):
        monkeypatch.setenv(f"MAGNET_{name}", "1")
    monkeypatch.setenv("MAGNET_MODELS_PATH_HELP", "1")
    assert magnet("models", "path", "bundled").out == f"{BUNDLED}\n"


def test_variables_are_named_as_options_are_typed(magnet: Magnet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGNET_MODELS_LIST_AS_JSON", "1")  # the parameter's name
    assert magnet("models", "list").out.startswith("NAME")
    monkeypatch.setenv("MAGNET_MODELS_LIST_JSON", "1")
    assert magnet("models", "list").records


def test_the_configuration_file_has_sections_for_models(
    magnet: Magnet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text("[models]\njson = true\n[models.show]\njson = false\n")
    monkeypatch.setenv("MAGNET_CONFIG", str(tmp_path / "config.toml"))
    assert magnet("models", "list").records
    assert magnet("models", "show", "bundled").out.startswith("name ")


def test_completion_leaves_files_to_the_shell_and_imports_no_torch() -> None:
    script = (
        "import sys; sys.argv = ['magnet']; from magnet_cli.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'numpy', 'transformers', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    for words, offered in (("magnet info di", ""), ("magnet generate --model bundl", "bundled\n")):
        environment = {**os.environ, "_MAGNET_COMPLETE": "complete_bash", "COMP_WORDS": words}
        environment["COMP_CWORD"] = str(words.count(" "))
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert (done.stdout.strip(), done.stderr) == (offered.strip(), "[]\n")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("magnet generate --model mag", {"magnet-small-10secs", "magnet-medium-30secs"}),
        ("magnet generate --model musicgen-l", {"musicgen-large"}),
        ("magnet generate --preset ", {"fast", "balanced", "best"}),
        ("magnet generate --device c", {"cpu", "cuda"}),
        ("magnet generate --dtype f", {"float32", "float16"}),
        ("magnet models show bund", {"bundled"}),
        ("magnet batch x.txt --format j", {"jsonl"}),
        ("magnet gen", {"generate"}),
    ],
)
def test_values_complete_on_tab(magnet: Magnet, monkeypatch: pytest.MonkeyPatch, words: str, offered: set[str]) -> None:
    monkeypatch.setenv("_MAGNET_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    result = magnet()
    assert offered <= set(result.out.split())
    assert result.err == ""


def test_doctor_notices_variables_without_effect(magnet: Magnet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGNET_GENERATE_GUIDENCE", "3")
    monkeypatch.setenv("MAGNET_GENERATE_GUIDANCE", "3")
    checks = [one for one in magnet("doctor", "--offline", "--json").records if one["check"] == "variable"]
    (found,) = [one for one in checks if "GUID" in one["found"]]
    assert (found["status"], found["found"]) == ("warning", "MAGNET_GENERATE_GUIDENCE is set, but has no effect")
    assert found["remedy"].startswith("Did you mean MAGNET_GENERATE_GUIDANCE")
    assert not [one for one in checks if "MODEL_DIR" in one["found"] or "MAGNET_CONFIG" in one["found"]]
