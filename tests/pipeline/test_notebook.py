"""What a notebook shows: a page of its own, safe with any prompt, and bars that move."""

from __future__ import annotations

import base64
import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from magnet_cli import Clip, Pipeline, RuntimeConfig, SamplingConfig
from magnet_cli.options.edit import EditConfig
from magnet_cli.pipeline import notebook
from magnet_cli.pipeline.notebook import in_notebook
from support.golden import GOLDEN

QUICK = SamplingConfig(steps=(2, 1, 1, 1))


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load(str(GOLDEN / "music"), RuntimeConfig(device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def clip(pipeline: Pipeline) -> Clip:
    return pipeline.generate_one("<script>alert(1)</script> & rain", seed=7, sampling=QUICK)


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, wanted: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == wanted]


def test_a_clip_has_a_player_and_a_picture_and_needs_nothing_else(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    page = Elements(clip._repr_html_())
    assert page.text.startswith("<script>alert(1)</script> & rain")
    assert page.of("script") == []
    (player,), (image,) = page.of("audio"), page.of("img")
    assert "loop" not in player
    samples, rate = soundfile.read(io.BytesIO(decoded(player["src"], "audio/wav")), dtype="float32")
    assert rate == clip.sample_rate
    assert np.abs(samples - clip.waveform[0]).max() <= 0.5 / 32768 + 1e-7  # rounded to 16 bits
    assert decoded(image["src"], "image/png").startswith(b"\x89PNG")
    assert not re.search(r"https?:", clip._repr_html_())
    monkeypatch.setattr(notebook, "can_draw", lambda: False)
    bare = Elements(clip._repr_html_())
    assert (len(bare.of("audio")), bare.of("img")) == (1, [])


def decoded(source: str | None, kind: str) -> bytes:
    start = f"data:{kind};base64,"
    assert source is not None
    assert source.startswith(start)
    return base64.b64decode(source.removeprefix(start), validate=True)


def test_a_loop_repeats_and_a_long_clip_has_no_player(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "can_draw", lambda: False)
    loop = replace(clip, job=replace(clip.job, edit=EditConfig(loop=True)))
    assert "loop" in Elements(loop._repr_html_()).of("audio")[0]
    monkeypatch.setattr(notebook, "LONGEST_PLAYER", 1.0)
    long = Elements(clip._repr_html_())
    assert long.of("audio") == []
    assert "clip.save" in long.text


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A module with the parts of IPython that a kernel has; every state of its displays."""
    states: list[str] = []

    def show(thing: Any, *, display_id: bool) -> SimpleNamespace:
        assert display_id
        states.append(thing._repr_html_())
        return SimpleNamespace(update=lambda thing: states.append(thing._repr_html_()))

    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    display.display = show  # type: ignore[attr-defined]
    ipython.display = display  # type: ignore[attr-defined]
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(notebook, "EVERY", 0.0)
    return states


def test_a_notebook_has_a_bar_and_a_program_has_none(
    pipeline: Pipeline, kernel: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert in_notebook()
    pipeline.generate_one("<b>rain", seed=7, sampling=QUICK)
    values = [float(value) for state in kernel for value in re.findall(r'<progress value="([\d.]+)" max="5"', state)]
    assert values[0] == 0.0
    assert values[-1] == 5.0
    assert values == sorted(values)
    assert len(values) >= 6
    assert "&lt;b&gt;rain · codebook 4/4" in kernel[-1]
    kernel.clear()
    pipeline.generate_one("rain", seed=7, sampling=QUICK, progress=False)
    assert kernel == []
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()
    pipeline.generate_one("rain", seed=7, sampling=QUICK)
    assert capfd.readouterr() == ("", "")


def test_ipython_in_a_terminal_is_no_notebook(kernel: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: SimpleNamespace(), raising=False)
    assert not in_notebook()
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None, raising=False)
    assert not in_notebook()
