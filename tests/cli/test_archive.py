"""`magnet models export-archive` and `import-archive`, from one machine to another without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.command import Magnet, one_line_error
from support.golden import GOLDEN


def test_a_model_is_carried_to_another_machine(magnet: Magnet) -> None:
    assert magnet("models", "convert", str(GOLDEN / "music"), "here/magnet-small-10secs").code == 0
    out = magnet("models", "export-archive", "small", "small.tar", "--model-dir", "here")
    assert (out.code, out.out) == (0, "small.tar\n"), out.err
    assert "small.tar: magnet-small-10secs" in out.err
    there = ("--model-dir", "there")
    back = magnet("models", "import-archive", "small.tar", *there)
    assert (back.code, back.out) == (0, "there/magnet-small-10secs\n"), back.err
    quick = ("--steps", "2,1,1,1", "--device", "cpu", "--offline")
    assert magnet("generate", "x", "-o", "x.wav", *quick, *there).code == 0
    again = magnet("models", "import-archive", "small.tar", *there)
    assert (again.code, "here already" in again.err) == (0, True)


def test_what_cannot_be_exported(magnet: Magnet) -> None:
    one_line_error(magnet("models", "export-archive", "bundled", "x.tar"), 2, "on every machine")
    one_line_error(
        magnet("models", "export-archive", "medium", "x.tar"),
        2,
        "First run magnet models download magnet-medium-10secs",
    )
    one_line_error(magnet("models", "export-archive", "musicgen-small", "x.tar"), 2, "models--facebook--musicgen-small")
    one_line_error(magnet("models", "export-archive", str(GOLDEN / "music"), "x.tar"), 2, "magnet models convert")
    Path("text.tar").write_text("text")
    one_line_error(magnet("models", "import-archive", "text.tar"), 3, "not an archive of magnet", "export-archive")
    one_line_error(magnet("models", "import-archive", "none.tar"), 3, "there is no such file")
    assert not Path("x.tar").exists()


@pytest.mark.parametrize(
    ("model", "carry"),
    [
        ("small", "magnet models import-archive model.tar"),
        ("facebook/audio-magnet-medium", "magnet models export-archive facebook/audio-magnet-medium model.tar"),
        ("musicgen-small", "copy the folder models--facebook--musicgen-small of its Hub cache to "),
    ],
)
def test_offline_says_what_to_carry(magnet: Magnet, model: str, carry: str) -> None:
    one_line_error(magnet("generate", "x", "-o", "a.wav", "--offline", "--model", model), 4, carry)
