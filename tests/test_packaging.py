"""What the package declares is what it uses; its sdist and wheel are whole, and its command is installed and runs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from packaging.metadata import Metadata

import magnet_cli
from support.command import clean_environment
from support.packaged import packaged

DISTRIBUTION = "magnet-cli"
ROOT = Path(__file__).parents[1]
LICENCE = "LICENSE"
MANUAL_PAGE = "share/man/man1/magnet.1"
MOST_BYTES = 20_000_000  # of a wheel or sdist; the bundled model takes 13 MB of them


@dataclass(frozen=True)
class Built:
    """An sdist and the wheel that was built from its content, and the files in each, by their paths there."""

    sdist: Path
    sources: dict[str, bytes]
    wheel: Path
    files: dict[str, bytes]

    def wheel_metadata(self) -> bytes:
        (found,) = (content for name, content in self.files.items() if name.endswith(".dist-info/METADATA"))
        return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build as `pip install` does with an sdist, but without downloading the build backend."""
    pytest.importorskip("hatchling", reason="the build backend is not installed")
    folder = tmp_path_factory.mktemp("dist")

    def build(kind: str, source: Path) -> None:
        command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
        done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    build("sdist", ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    build("wheel", unpacked)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        files = {name: archive.read(name) for name in archive.namelist()}
    sources = {
        path.relative_to(unpacked).as_posix(): path.read_bytes() for path in unpacked.rglob("*") if path.is_file()
    }
    return Built(sdist, sources, wheel, files)


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


def test_the_wheel_has_the_package_its_model_its_licence_and_its_manual_page(built: Built) -> None:
    expected = packaged()
    assert {name: built.files.get(name) for name in expected} == expected
    assert "magnet_cli/py.typed" in expected
    assert "magnet_cli/bundled/decoder.safetensors" in expected
    name = f"magnet_cli-{magnet_cli.__version__}"
    others = set(built.files) - set(expected)
    info = {f"{name}.dist-info/{each}" for each in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    licence, page = f"{name}.dist-info/licenses/{LICENCE}", f"{name}.data/data/{MANUAL_PAGE}"
    assert others == {*info, licence, page}  # no tests, no examples
    assert built.files[licence] == (ROOT / LICENCE).read_bytes()
    assert built.files[page] == (ROOT / "docs" / "magnet.1").read_bytes()
    assert built.wheel.name == f"{name}-py3-none-any.whl"
    assert built.wheel.stat().st_size < MOST_BYTES


def test_the_sdist_has_what_building_and_testing_needs(built: Built) -> None:
    expected = {f"src/{name}": content for name, content in packaged().items()}
    assert {name: built.sources.get(name) for name in expected} == expected
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", LICENCE, "Makefile", "docs/cli.md", "docs/magnet.1"):
        assert built.sources[name] == (ROOT / name).read_bytes()
    assert "tests/test_packaging.py" in built.sources
    assert built.sdist.stat().st_size < MOST_BYTES


def test_the_metadata_is_valid_and_describes_the_package(built: Built) -> None:
    for content in (built.wheel_metadata(), built.sources["PKG-INFO"]):
        found = Metadata.from_email(content, validate=True)  # raises for a field that an index would refuse
        assert (found.name, str(found.version)) == (DISTRIBUTION, magnet_cli.__version__)
        assert found.license_expression == "MIT"
        assert found.license_files == [LICENCE]
        assert found.description_content_type == "text/markdown"
        assert found.description is not None
        assert found.description.startswith("# magnet")
        assert str(found.requires_python) == ">=3.10"
        assert {"train", "pictures", "play"} <= set(found.provides_extra or [])
        assert "Typing :: Typed" in (found.classifiers or [])


def test_the_wheel_runs_in_a_fresh_environment(built: Built, tmp_path: Path) -> None:
    """It borrows the libraries that are here: the wheel alone is installed."""

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    environment = clean_environment()
    environment.pop("PYTHONPATH", None)
    environment |= {"HF_HOME": str(tmp_path / "hub"), "MAGNET_MODEL_DIR": str(tmp_path / "models")}
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    fresh = tmp_path / "fresh"
    run(sys.executable, "-m", "venv", "--without-pip", fresh)
    pip = [sys.executable, "-m", "pip", "--python", fresh / "bin" / "python"]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", built.wheel)
    (libraries,) = fresh.glob("lib/python*/site-packages")
    # A .pth file in a folder that a .pth file names is not read: this repository's own package stays away.
    (libraries / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    command = fresh / "bin" / "magnet"
    assert run(command, "--version") == f"magnet {magnet_cli.__version__}\n"
    where = run(fresh / "bin" / "python", "-c", "import magnet_cli; print(magnet_cli.__file__)")
    assert Path(where.strip()).is_relative_to(fresh)
    assert (fresh / MANUAL_PAGE).is_file()
    models = {line.split()[0]: line for line in run(command, "models", "list").splitlines() if line.strip()}
    assert {"magnet-small-10secs", "bundled"} <= set(models)
