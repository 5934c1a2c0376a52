"""What the package declares is what it uses, and its command is installed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import magnet_cli

DISTRIBUTION = "magnet-cli"


def declared() -> set[str]:
    """Names of the dependencies, those of the extras included, normalized."""
    wanted = [
        line
        for line in metadata.requires(DISTRIBUTION) or []
        if not re.search(r"extra == .(?!train|pictures|play)", line)
    ]
    required = [re.sub(r";.*", "", line) for line in wanted]
    return {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in required}


def test_every_imported_package_is_declared() -> None:
    used = set()
    for path in Path(magnet_cli.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                used.add(node.module.split(".")[0])
    used -= set(sys.stdlib_module_names) | {"magnet_cli"}
    names = {"yaml": "pyyaml"}  # where the package that is installed is called otherwise
    missing = {names.get(name, name).lower().replace("_", "-") for name in used} - declared()
    assert not missing, f"imported but not among the dependencies in pyproject.toml: {sorted(missing)}"


def test_the_command_and_its_version() -> None:
    command = Path(sysconfig.get_path("scripts")) / "magnet"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"magnet {metadata.version(DISTRIBUTION)}\n"
    assert magnet_cli.__version__ == metadata.version(DISTRIBUTION)
