"""The manual is true: its commands parse and run, its Python runs, its links lead somewhere.

In ```console blocks a line that begins with `$ ` is a command, and the lines after it are its output. `cat FILE` shows
a file that later commands of the page read. Commands that need neither the Hub nor minutes are run, in order, with the
bundled model and few steps; all others only have to parse. ```python blocks run likewise. The comment
`<!-- needs a download -->` before a block says that it cannot be run here.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import typer

import magnet_cli
from magnet_cli import Pipeline, SamplingConfig, errors
from magnet_cli.cli import app
from support.command import Magnet

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"))
)
GENERATED = "docs/cli.md"  # its commands are templates; tests/cli/test_reference.py compares it with the code
# What the manual leaves to its default; as environment variables, so that the commands stay as they are written.
QUICK = {
    f"MAGNET_{command}_{option}": value
    for command in ("GENERATE", "BATCH", "BENCH", "ENCODE", "DECODE")
    for option, value in (("MODEL", "bundled"), ("STEPS", "2,1,1,1"), ("RUNS", "1"))
}
# Commands that need the Hub, minutes, or what only a user has.
NEEDS_MORE = re.compile(
    r"magnet-(small|medium)|musicgen|--hybrid|--random-weights|--impact|--install-completion|\btrain\b|\bdoctor\b"
    r"|\bmagnet (play|stream)\b"  # which need a player, and have no end
)
ACT_AT_ONCE = {"--install-completion", "--version"}  # when they are parsed; the value of the former is optional
NOT_HERE = "<!-- needs a download -->"
OTHER_PROGRAMS = {"make", "pip", "git", "accelerate", "sudo", "rm", "cp", ".venv/bin/python"}
OTHER_PROGRAMS |= {"docker", "mkdir", "pipx", "python", "twine", "uv", "uvx"}
OTHER_OPTIONS = {"--gpus", "--try", "--user"}  # of docker, of examples/bundled and of pip, where the text mentions them
FEW_STEPS = SamplingConfig(steps=(2, 1, 1, 1), temperature=1.0, guidance=3.0)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its lines, the line that it begins on, and the line of text before it."""

    language: str
    lines: list[str]
    line: int
    before: str


@dataclass(frozen=True)
class Command:
    """A command of a console block, and what it prints there."""

    text: str
    output: list[str]
    line: int
    runs: bool


@lru_cache
def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@lru_cache
def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page."""
    found: list[Block] = []
    current: Block | None = None
    before = ""
    for number, line in enumerate(read(page).splitlines(), 1):
        if line.startswith("```"):
            if current is None:
                current = Block(line[3:].strip(), [], number, before)
            else:
                found.append(current)
                current = None
        elif current is not None:
            current.lines.append(line)
        elif line.strip():
            before = line.strip()
    assert current is None, f"{page} has a block without an end"
    return found


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", read(page), flags=re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[Command]:
    """The commands of a page's console blocks, in order; a backslash continues a line."""
    found: list[Command] = []
    for block in blocks(page):
        if block.language != "console":
            continue
        assert block.lines, f"{page}:{block.line}: an empty block"
        assert block.lines[0].startswith("$ "), f"{page}:{block.line}: a console block begins with a command"
        for number, line in enumerate(block.lines, block.line + 1):
            if line.startswith("$ "):
                found.append(Command(line[2:], [], number, block.before != NOT_HERE and not NEEDS_MORE.search(line)))
            elif found[-1].text.endswith("\\"):
                found[-1] = replace(found[-1], text=found[-1].text[:-1] + line.strip())
            else:
                found[-1].output.append(line)
    return found


@dataclass(frozen=True)
class Call:
    """One use of magnet: its arguments, the variables before it, and the words of what is piped into it."""

    arguments: list[str]
    variables: dict[str, str]
    piped: list[str]


def call(text: str) -> Call | None:
    """The use of magnet in a command; None where it is another program."""
    words = shlex.split(text, comments=True)
    piped: list[str] = []
    if "|" in words:
        before, after = words[: words.index("|")], words[words.index("|") + 1 :]
        piped, words = ([], before) if before[0] == "magnet" else (before, after)
    variables = {}
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    if words[0] == "accelerate":
        return Call(words[words.index("magnet_cli") + 1 :], variables, piped)
    if words[0] in ("magnet", ".venv/bin/magnet"):
        return Call(words[1:], variables, piped)
    return None


@lru_cache
def magnet_command() -> Any:
    return typer.main.get_command(app)


def parse(arguments: list[str]) -> None:
    """Parse a command line as magnet does, without running it."""
    command = magnet_command()
    context = command.make_context("magnet", list(arguments))
    while hasattr(command, "commands"):
        # What a group leaves over are the subcommand and its arguments; the attribute depends on the version.
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        _, command, rest = command.resolve_command(context, rest)
        context = command.make_context(command.name, rest, parent=context)


@lru_cache
def all_options() -> set[str]:
    """Every option of every command."""

    def of(command: Any) -> Iterator[str]:
        for parameter in command.params:
            yield from (*parameter.opts, *parameter.secondary_opts)
        for one in getattr(command, "commands", {}).values():
            yield from of(one)

    return {option for option in of(magnet_command()) if option.startswith("--")} | {"--help", "--help-all"}


WITH_COMMANDS = [page for page in PAGES if page != GENERATED and commands(page)]
RUN = [page for page in WITH_COMMANDS if any(one.runs and call(one.text) is not None for one in commands(page))]


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_every_command_parses(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    monkeypatch.setenv("MAGNET_CONFIG", "no-config.toml")
    for command in commands(page):
        where = f"{page}:{command.line}: {command.text}"
        used = call(command.text)
        program = command.text.split()[0]
        if used is None:
            assert program in OTHER_PROGRAMS or program == "cat", where
            if program == "make":
                named = [word for word in shlex.split(command.text, comments=True)[1:] if "=" not in word]
                assert set(named) <= targets, where
        elif not ACT_AT_ONCE & set(used.arguments):
            try:
                parse(used.arguments)
            except Exception as error:  # of the library that parses, whichever it is
                pytest.fail(f"{where}: {type(error).__name__}: {getattr(error, 'message', error)}")


@pytest.mark.parametrize("page", RUN)
def test_commands_run(page: str, magnet: Magnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "prompts.txt", tmp_path / "examples")
    for command in commands(page):
        if shown := re.fullmatch(r"cat (\S+)", command.text):
            Path(shown[1]).write_text("\n".join(command.output) + "\n", encoding="utf-8")
        used = call(command.text)
        if used is None or not command.runs:
            continue
        stdin = "" if not used.piped else piped_text(used.piped)
        with monkeypatch.context() as patch:
            for name, value in used.variables.items():
                patch.setenv(name, value)
            result = magnet(*used.arguments, stdin=stdin)
        fails = any(line.startswith("error: ") for line in command.output)
        where = f"{page}:{command.line}: {command.text}\n{result.out}{result.err}"
        assert (result.code != 0) == fails, where
        assert ("error: " in result.err) == fails, where


def piped_text(words: list[str]) -> str:
    """What `echo TEXT` or `cat FILE` would print."""
    if words[0] == "echo":
        return " ".join(words[1:]) + "\n"
    assert words[0] == "cat"
    return Path(words[1]).read_text(encoding="utf-8")


def python_blocks() -> Iterator[tuple[str, Block]]:
    for page in PAGES:
        for block in blocks(page):
            if block.language == "python":
                yield page, block


PYTHON = list(python_blocks())


@pytest.mark.filterwarnings("ignore::magnet_cli.errors.MagnetWarning")  # that there is no GPU
@pytest.mark.parametrize(("page", "block"), PYTHON, ids=[f"{page}:{block.line}" for page, block in PYTHON])
def test_python_runs(
    page: str, block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = ast.parse("\n".join(block.lines), f"{page}:{block.line}")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "magnet_cli":
            missing = [alias.name for alias in node.names if not hasattr(magnet_cli, alias.name)]
            assert not missing, f"{page}:{block.line} imports what is not there"
    if block.before == NOT_HERE:
        return
    monkeypatch.chdir(tmp_path)
    load, generate = Pipeline.load, Pipeline.generate

    def load_bundled(model: str, *arguments: Any, **named: Any) -> Pipeline:
        return load("bundled" if model in ("small", "magnet-small-10secs") else model, *arguments, **named)

    def generate_quickly(self: Pipeline, prompts: Any, **named: Any) -> Any:
        return generate(self, prompts, **{"sampling": FEW_STEPS, **named})

    monkeypatch.setattr(Pipeline, "load", staticmethod(load_bundled))
    monkeypatch.setattr(Pipeline, "generate", generate_quickly)
    exec(compile(tree, f"{page}:{block.line}", "exec"), {})
    assert list(tmp_path.iterdir()) or capsys.readouterr().out


def slugs(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.append(slug if slug not in found else f"{slug}-{found.count(slug)}")
    return set(found)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        aim = (ROOT / page).parent / path if path else ROOT / page
        assert aim.resolve().is_relative_to(ROOT), f"{page} links to {target}, which is outside the project"
        assert aim.exists(), f"{page} links to {target}, which is not there"
        if anchor:
            other = aim.resolve().relative_to(ROOT).as_posix()
            assert anchor in slugs(other), f"{page} links to {target}; headings there: {sorted(slugs(other))}"


@pytest.mark.parametrize("page", PAGES)
def test_options_in_the_text_exist(page: str) -> None:
    quoted = " ".join(re.findall(r"`([^`\n]+)`", prose(page)))
    mentioned = set(re.findall(r"(?<![\w-])--[a-z0-9][\w-]*", quoted))
    assert mentioned - all_options() <= OTHER_OPTIONS


def test_every_page_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(([\w.]+\.md)\)", read("docs/README.md")))
    assert {Path(page).name for page in PAGES if page.startswith("docs/")} - {"README.md"} <= linked


def test_every_exit_code_has_a_section() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MagnetError)]
    codes = {str(kind.exit_code) for kind in kinds}
    assert codes == set(re.findall(r"^## Exit code (\d+)", read("docs/troubleshooting.md"), re.MULTILINE))


def test_the_tree_names_what_is_there() -> None:
    (tree,) = [block for block in blocks("README.md") if block.lines[0].startswith("src/magnet_cli/")]
    names = [(len(line) - len(line.lstrip()), line.split()[0]) for line in tree.lines]
    missing = [name for indent, name in names if not (ROOT / ("src/magnet_cli" if indent else "") / name).exists()]
    assert not missing
    shown = {name.rstrip("/") for indent, name in names if indent}
    folders = {path.name for path in (ROOT / "src" / "magnet_cli").iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders <= shown
