"""The bar over steps, at several widths of the terminal."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console as RichConsole

from magnet_cli.cli.train import describe
from magnet_cli.terminal.console import Console
from magnet_cli.train.loop.events import Progress

LOSSES = {"loss": 4.1234, "loss_0": 4.02, "loss_1": 3.82, "loss_2": 3.82, "loss_3": 4.63}


class Screen(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def drawn(width: int, description: str, *, before: int = 0) -> str:
    """The last line that a bar draws."""
    console, screen = Console(), Screen()
    vars(console)["_stderr"] = RichConsole(file=screen, force_terminal=True, width=width, legacy_windows=False)
    with console.progress(5000) as bar:
        bar.resume(before)
        bar.advance(description, 1234 - before)
    lines = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()))
    return [line for line in lines if "1234/5000" in line][-1]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("description", ["x", "disco beat, 125 bpm " * 20])
def test_bar_count_and_time_are_whole_at_every_width(width: int, description: str) -> None:
    line = drawn(width, description)
    assert re.search(r" 1234/5000 .*left (-:--:--|[0-9]+:[0-9]{2}:[0-9]{2})$", line)
    assert len(line) <= width
    assert line.count("\u2501") + line.count("\u2578") + line.count("\u257a") >= 8  # the bar


def test_a_training_shows_its_losses_where_there_is_room() -> None:
    progress = Progress(1234, 5000, {}, LOSSES, 4.072, 0.51, 7000, 1_000_000_000)
    words = "loss 4.123 (codebooks 4.02 3.82 3.82 4.63), held-out 4.072, 1.0 GB, 0.51 steps/s"
    assert describe(progress) == words
    assert words in drawn(200, describe(progress))
    assert "loss 4.123" in drawn(80, describe(progress))


def test_steps_done_before_are_no_speed() -> None:
    line = drawn(120, "x", before=1233)
    assert line.endswith("left -:--:--")  # of one step, nothing can be said yet
