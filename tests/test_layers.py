"""A module imports only from layers below its own, and the lowest layer, like `magnet --help`, loads nothing heavy."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import magnet_cli

ROOT = Path(magnet_cli.__file__).parent

# Every module or subpackage of magnet_cli, by layer. Within a line, `<` lets what is on its right import what is on its
# left; apart from that, modules of one layer do not import each other. Files of one subpackage may.
# `__init__` also offers names of higher layers, loaded when asked for: it may import those under `if TYPE_CHECKING:`.
LAYERS = (
    "errors < config composition < registry < prompts naming store defaults overrides plain "
    "< promptfile manifest < __init__",
    "weights settings tags t5 < transformer text codec sampling noise loudness audio metadata < loop edit < splice",
    "device batch checkpoint cache decode banded quantize < precision engine < graphs < flops < musicgen < rescore "
    "< transfer < hub < bundle < models export arrange < generators < assembly",
    "pipeline train evaluate benchmark < production",
    "console < cli < __main__",
)

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

Rank = tuple[int, int]


class Import(NamedTuple):
    line: int
    name: str  # dotted, absolute
    typing_only: bool  # under `if TYPE_CHECKING:`


def ranks() -> dict[str, Rank]:
    """Where each name of LAYERS stands: its layer, and its place within that layer. What is below has a lower rank."""
    return {
        name: (layer, place)
        for layer, line in enumerate(LAYERS)
        for place, names in enumerate(line.split("<"))
        for name in names.split()
    }


def module_name(path: Path, root: Path) -> str:
    """`cli/generate.py` -> `magnet_cli.cli.generate`; `cli/__init__.py` -> `magnet_cli.cli`."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(("magnet_cli", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def layer_name(module: str) -> str:
    """The name in LAYERS that a module belongs to: `magnet_cli.cli.generate` -> `cli`."""
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
    rank = ranks()
    found = []
    for path in sorted(root.rglob("*.py")):
        here = layer_name(module_name(path, root))
        where = path.relative_to(root).as_posix()
        if here not in rank:
            found.append(f"{where}: '{here}' is in no layer; add it to LAYERS in tests/test_layers.py")
            continue
        for line, name, typing_only in imports(path, root):
            top = name.split(".")[0]
            if top == "magnet_cli":
                there = layer_name(name)
                below = there in rank and rank[there] < rank[here]
                offered = here == "__init__" and typing_only
                if there != here and not below and not offered:
                    found.append(f"{where}:{line}: '{here}' must not import '{there}', which is not below it")
            elif top in HEAVY and rank[here][0] == 0 and not typing_only:
                found.append(f"{where}:{line}: '{here}' is in the lowest layer and must not import '{top}'")
    return found


def test_imports_follow_the_layers() -> None:
    found = violations(ROOT)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("codec.py", "from magnet_cli.errors import UsageError", None),
        ("codec.py", "from magnet_cli.text import TextEncoder", "must not import 'text'"),
        ("codec.py", "from magnet_cli import pipeline", "must not import 'pipeline'"),
        ("codec.py", "import magnet_cli.hub", "must not import 'hub'"),
        ("codec.py", "def f():\n    from . import hub", "must not import 'hub'"),
        ("codec.py", "import torch", None),
        ("config.py", "from magnet_cli.errors import UsageError", None),
        ("config.py", "from magnet_cli.registry import MODELS", "must not import 'registry'"),
        ("config.py", "def f():\n    import torch.nn", "must not import 'torch'"),
        ("config.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", None),
        ("config.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import torch", "must not import 'torch'"),
        ("codec.py", "if TYPE_CHECKING:\n    from magnet_cli import pipeline", "must not import 'pipeline'"),
        ("__init__.py", "if TYPE_CHECKING:\n    from magnet_cli.pipeline import Pipeline", None),
        ("__init__.py", "from magnet_cli.pipeline import Pipeline", "must not import 'pipeline'"),
        ("cli/generate.py", "from magnet_cli import __version__", None),
        ("cli/generate.py", "from magnet_cli.cli.options import seed", None),
        ("cli/generate.py", "from .options import seed\nfrom ..console import Console", None),
        ("cli/__init__.py", "from .generate import generate", None),
        ("console.py", "from magnet_cli.cli.generate import generate", "must not import 'cli'"),
        ("train/loop.py", "from magnet_cli.train.data import clips", None),
        ("train/loop.py", "from magnet_cli.pipeline import Pipeline", "must not import 'pipeline'"),
        ("helpers.py", "", "'helpers' is in no layer; add it to LAYERS"),
    ],
)
def test_the_rules_themselves(tmp_path: Path, file: str, text: str, expected: str | None) -> None:
    for name in ("errors.py", "hub.py", "pipeline.py", "cli/options.py", file):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text if name == file else "", encoding="utf-8")
    found = violations(tmp_path)
    if expected is None:
        assert found == []
    else:
        assert len(found) == 1
        assert expected in found[0]


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
