"""A folder imports only from folders before it, and what must start at once loads nothing heavy."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import magnet_cli

ROOT = Path(magnet_cli.__file__).parent

# The house, from the ground up: what stands in a folder imports only from its own folder and from those before it.
HOUSE = (
    "_version",
    "errors",
    "disk",
    "options",
    "model",
    "audio",
    "music",
    "hub",
    "checkpoints",
    "decoding",
    "engines",
    "pipeline",
    "jobs",
    "bench",
    "train",
    "judge",
    "terminal",
    "cli",
    "__main__",
)
# Places that import nothing heavy: listing models and showing help are immediate.
LIGHT = frozenset({"__init__", "_version", "errors", "disk", "options", "hub"})
# But for the module of huggingface_hub that names its cache folder.
LIGHT_EXCEPTIONS = frozenset({("hub", "huggingface_hub")})

# Slow to import, by at least tens of milliseconds, or importing something that is.
HEAVY = frozenset(
    {
        "encodec",
        "huggingface_hub",
        "numpy",
        "pyloudnorm",
        "safetensors",
        "scipy",
        "soundfile",
        "tokenizers",
        "torch",
        "torchaudio",
        "transformers",
    }
)


class Import(NamedTuple):
    line: int
    name: str  # dotted, absolute
    typing_only: bool  # under `if TYPE_CHECKING:`


def module_name(path: Path, root: Path) -> str:
    """`cli/generate.py` -> `magnet_cli.cli.generate`; `cli/__init__.py` -> `magnet_cli.cli`."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(("magnet_cli", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def place_of(module: str) -> str:
    """The folder, or the file beside the folders, that a module is in: `magnet_cli.cli.generate` -> `cli`."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(path: Path, root: Path) -> Iterator[Import]:
    """All imports in a file, those inside functions included."""
    package = module_name(path, root).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    modules = {module_name(p, root) for p in root.rglob("*.py")}

    def visit(node: ast.AST, typing_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:  # `from magnet_cli import errors` imports a module, `from x import name` a name
                full = f"{source}.{alias.name}"
                yield Import(node.lineno, full if full in modules else source, typing_only)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            for child in node.body:
                yield from visit(child, True)
            for child in node.orelse:
                yield from visit(child, typing_only)
        else:
            for child in ast.iter_child_nodes(node):
                yield from visit(child, typing_only)

    yield from visit(ast.parse(path.read_text(encoding="utf-8"), str(path)), False)


def violations(root: Path) -> list[str]:
    """What breaks the rules in the package at `root`, one line each."""
    found = []
    arrows: dict[str, set[str]] = {}
    for path in sorted(root.rglob("*.py")):
        module = module_name(path, root)
        here = place_of(module)
        where = path.relative_to(root).as_posix()
        if here not in (*HOUSE, "__init__"):
            found.append(f"{where}: '{here}' has no place; add it to HOUSE in tests/test_layers.py")
            continue
        for line, name, typing_only in imports(path, root):
            top = name.split(".")[0]
            if top == "magnet_cli":
                there = place_of(name)
                if there == here and name != module:
                    arrows.setdefault(module, set()).add(name)
                # The package itself offers names of every folder, imported when they are asked for.
                offered = here == "__init__" and (typing_only or there == "_version")
                before = there in HOUSE and here in HOUSE and HOUSE.index(there) <= HOUSE.index(here)
                if not before and not offered:
                    found.append(f"{where}:{line}: '{here}' must not import '{there}', which is not before it")
            elif top in HEAVY and here in LIGHT and not typing_only and (here, top) not in LIGHT_EXCEPTIONS:
                found.append(f"{where}:{line}: '{here}' must not import '{top}', which is slow to load")
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        found.append(f"files import each other in a circle: {' -> '.join(error.args[1])}")
    return found


def test_imports_go_one_way_through_the_house() -> None:
    found = violations(ROOT)
    assert not found, "\n" + "\n".join(found)


def test_every_folder_says_what_it_is_for() -> None:
    for name in HOUSE:
        if (ROOT / name).is_dir() and name != "cli":  # whose __init__ is the command itself
            tree = ast.parse((ROOT / name / "__init__.py").read_text(encoding="utf-8"))
            assert ast.get_docstring(tree), name
            assert len(tree.body) == 1, f"{name}/__init__.py holds more than a docstring"


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("model/codec.py", "from magnet_cli.errors import UsageError", None),
        ("model/codec.py", "from magnet_cli.model.t5 import T5Encoder", None),
        ("model/codec.py", "from magnet_cli.decoding.masked import decode", "must not import 'decoding'"),
        ("model/codec.py", "from magnet_cli import pipeline", "must not import 'pipeline'"),
        ("model/codec.py", "import magnet_cli.hub", "must not import 'hub'"),
        ("model/codec.py", "def f():\n    from .. import hub", "must not import 'hub'"),
        ("model/codec.py", "import torch", None),
        ("model/codec.py", "if TYPE_CHECKING:\n    from magnet_cli import pipeline", "must not import 'pipeline'"),
        ("options/job.py", "from magnet_cli.errors import UsageError", None),
        ("options/job.py", "from magnet_cli.hub.registry import MODELS", "must not import 'hub'"),
        ("options/job.py", "def f():\n    import torch.nn", "must not import 'torch'"),
        ("options/job.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", None),
        ("options/job.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import torch", "must not import 'torch'"),
        ("hub/cache.py", "from huggingface_hub import constants", None),
        ("hub/cache.py", "import torch", "must not import 'torch'"),
        ("__init__.py", "if TYPE_CHECKING:\n    from magnet_cli.pipeline.pipeline import Pipeline", None),
        ("__init__.py", "from magnet_cli.pipeline.pipeline import Pipeline", "must not import 'pipeline'"),
        ("cli/generate.py", "from magnet_cli._version import __version__", None),
        ("cli/generate.py", "from magnet_cli.cli.run_jobs import make", None),
        ("cli/generate.py", "from .run_jobs import make\nfrom ..errors import UsageError", None),
        ("cli/__init__.py", "from .generate import generate", None),
        ("train/loop.py", "from magnet_cli.train.data import clips", None),
        ("train/loop.py", "from magnet_cli.terminal.console import Console", "must not import 'terminal'"),
        ("helpers.py", "", "'helpers' has no place; add it to HOUSE"),
    ],
)
def test_the_rules_themselves(tmp_path: Path, file: str, text: str, expected: str | None) -> None:
    for name in (
        "errors.py",
        "hub/__init__.py",
        "pipeline/__init__.py",
        "cli/run_jobs.py",
        "terminal/console.py",
        file,
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text if name == file else "", encoding="utf-8")
    found = violations(tmp_path)
    if expected is None:
        assert found == []
    else:
        assert len(found) == 1
        assert expected in found[0]


def test_a_circle_of_files_is_found(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.py").write_text("from magnet_cli.model.b import x", encoding="utf-8")
    (tmp_path / "model" / "b.py").write_text("def f():\n    from magnet_cli.model.a import y", encoding="utf-8")
    assert "circle" in violations(tmp_path)[0]


@pytest.mark.parametrize("args", [["--help"], ["generate", "--help"]])
def test_help_loads_nothing_heavy(args: list[str]) -> None:
    script = f"""
import json, sys
import magnet_cli.cli
sys.argv = ["magnet", *{args!r}]
try:
    magnet_cli.cli.main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
    assert HEAVY.intersection(json.loads(done.stderr.splitlines()[-1])) == set()
