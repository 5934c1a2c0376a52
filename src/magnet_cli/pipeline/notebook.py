"""What notebooks show: a clip with its player and picture, and a bar over the work."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from magnet_cli.audio.files import encode_audio
from magnet_cli.audio.loudness import Normalized
from magnet_cli.options.job import Job
from magnet_cli.pictures.installed import can_draw

if TYPE_CHECKING:
    from rich.progress import TaskID

LONGEST_PLAYER = 300.0  # seconds of a clip that is embedded: its samples are in the notebook's file, as text
EVERY = 0.1  # seconds between two states of a bar


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook, which shows HTML."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def clip_html(job: Job, audio: Normalized, sample_rate: int, picture: Callable[[], bytes]) -> str:
    """A clip as a part of a page that needs nothing else: its prompt, its player and, with matplotlib, its picture.

    picture: draws it, as a PNG.
    """
    seconds = audio.waveform.shape[-1] / sample_rate
    facts = [f"seed {job.seed}", f"{seconds:.2f} s"]
    if audio.after.lufs is not None:
        facts.append(f"{audio.after.lufs:.1f} LUFS")
    parts = [f"<div><b><bdi>{escape(job.prompt)}</bdi></b><br><small>{' · '.join(facts)}</small></div>"]
    if seconds <= LONGEST_PLAYER:
        content = encode_audio(Path("clip.wav"), audio.waveform, sample_rate, "pcm16")
        loop = " loop" if job.edit.loop else ""
        parts.append(
            f'<audio controls{loop} preload="metadata" style="width: 100%" src="{_data("audio/wav", bytes(content))}">'
            "</audio>"
        )
    else:
        parts.append("<p>The clip is too long for a player in a notebook: save it with clip.save.</p>")
    if can_draw():
        image = _data("image/png", picture())
        parts.append(f'<img style="max-width: 100%" alt="waveform and mel spectrogram" src="{image}">')
    return f'<div style="max-width: 60rem">{"".join(parts)}</div>'


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


class _Html:
    """A text that a notebook shows as HTML."""

    def __init__(self, text: str, plain: str) -> None:
        self._text, self._plain = text, plain

    def _repr_html_(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._plain


class NotebookBars:
    """Bars in a notebook, with the few methods of rich's `Progress` that are used here.

    rich has bars for notebooks, too, which need ipywidgets and show nothing without.
    """

    def __init__(self) -> None:
        self._bars: list[_Bar] = []

    def __enter__(self) -> NotebookBars:
        return self

    def __exit__(self, *exception: object) -> None:
        for bar in self._bars:
            bar.show()

    def add_task(self, description: str, *, total: float) -> TaskID:
        """Show another bar; its number."""
        self._bars.append(_Bar(description, total))
        return cast("TaskID", len(self._bars) - 1)

    def update(
        self, task: Any, *, description: str | None = None, advance: float = 0.0, completed: float | None = None
    ) -> None:
        """Move a bar."""
        self._bars[task].move(description, advance, completed)


class _Bar:
    def __init__(self, description: str, total: float) -> None:
        self._words, self._total, self._done = description, total, 0.0
        self._started = self._shown = time.monotonic()
        self._handle = sys.modules["IPython"].display.display(self._page(), display_id=True)

    def move(self, description: str | None, advance: float, completed: float | None) -> None:
        self._words = self._words if description is None else description
        self._done = self._done + advance if completed is None else completed
        if time.monotonic() - self._shown >= EVERY:
            self.show()

    def show(self) -> None:
        self._shown = time.monotonic()
        self._handle.update(self._page())

    def _page(self) -> _Html:
        total, done = max(self._total, 1e-9), min(self._done, self._total)
        left = ""
        if 0 < done < total:
            left = f" · about {(time.monotonic() - self._started) * (total - done) / done:.0f} s left"
        plain = f"{self._words} {done:.0f}/{total:.0f}{left}"
        bar = f'<progress value="{done:g}" max="{total:g}" style="width: 20rem"></progress>'
        return _Html(f"<div>{bar} {escape(plain)}</div>", plain)
