"""The notebook of the examples runs from top to bottom, and shows what it says."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from magnet_cli import Clip, Pipeline, SamplingConfig

NOTEBOOK = Path(__file__).parents[2] / "examples" / "tour.ipynb"
FEW_STEPS = SamplingConfig(steps=(2, 1, 1, 1), temperature=1.0, guidance=3.0)


def run(cell: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does; what its last expression is."""
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # type: ignore[attr-defined]


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What cells display, without a notebook to do so."""
    found: list[Any] = []
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    display.display = found.append  # type: ignore[attr-defined]
    ipython.display, ipython.get_ipython = display, lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return found


@pytest.mark.filterwarnings("ignore::magnet_cli.errors.MagnetWarning")  # that there is no GPU
def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, displayed: list[Any]) -> None:
    generate = Pipeline.generate

    def generate_quickly(self: Pipeline, prompts: Any, **named: Any) -> Any:
        return generate(self, prompts, **{**named, "sampling": FEW_STEPS})

    monkeypatch.setattr(Pipeline, "generate", generate_quickly)
    monkeypatch.chdir(tmp_path)
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (book["nbformat"], len({cell["id"] for cell in book["cells"]})) == (4, len(book["cells"]))
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells)
    names: dict[str, Any] = {}
    shown = [run("".join(cell["source"]), names) for cell in cells]
    clips = [one for one in (*shown, *displayed) if isinstance(one, Clip)]
    assert len(clips) == 5
    assert all("<audio controls" in clip._repr_html_() for clip in clips[:2])
    assert shown[-1] == ["disco.json", "disco.wav", "loop.codes.npz", "loop.json", "loop.wav"]
    assert shown[-2][1] > 0


def test_the_prose_names_what_is_there() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "pip install '.[pictures]'" in text
    assert str(Path.home()) not in text
