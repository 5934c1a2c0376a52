"""What appears on a screen: a bar that fits, each clip once, a line now and then in a log; and the log file."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from magnet_cli.terminal import progress
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.log_file import without_secrets
from magnet_cli.terminal.progress import ProgressBar, steps_bar
from support.command import Magnet, one_line_error

QUICK = ("--steps", "1,1,1,1", "--device", "cpu", "--seed", "1")
PROMPT = "a very long prompt of a piano in a large hall, with rain on the windows and a distant train"


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_the_bar_fits_and_the_description_alone_shrinks(columns: int) -> None:
    screen = StringIO()
    console = RichConsole(file=screen, width=columns, force_terminal=True, color_system=None, soft_wrap=True)
    bar = steps_bar(console, hidden=False)
    task = bar.add_task(f"clip 12/300 · codebook 1 · {PROMPT}", total=15_000)
    bar.update(task, advance=1234)
    with console.capture() as capture:
        console.print(bar.get_renderable())
    line = capture.get().removesuffix("\n")
    assert "\n" not in line
    assert len(line) <= columns
    bar_part = re.search(r" ([━╸][━╸ ]{9,})  1234/15000 .*-:--:-- left$", line)
    assert bar_part is not None
    assert len(bar_part[1]) == progress.bar_width(columns)
    assert line.startswith("cl")
    assert ("…" in line) == (columns < 200)


def run_on_terminal(*arguments: str, columns: int) -> str:
    """What a terminal shows that has both streams."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "magnet_cli", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns)},
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # how Linux reports that the other side has closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(master)
    assert process.wait() == 0, shown.decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def test_a_terminal_shows_each_clip_once(tiny: str, tmp_path: Path) -> None:
    target = tmp_path / "x.wav"
    shown = run_on_terminal("generate", PROMPT, "-o", str(target), "--model", tiny, *QUICK, columns=80)
    assert shown.count(str(target)) == 1
    assert f"{target}: 0.30 s, seed 1" in shown
    shown = run_on_terminal("generate", "x", "-o", str(target), "--model", tiny, *QUICK, "-f", "-q", columns=80)
    assert shown.strip() == str(target)


def test_without_a_terminal_there_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Console().progress(100) as bar:
        for _ in range(100):
            now[0] += 1
            bar.advance("clip 1/1", 1)
    assert capfd.readouterr().err.splitlines() == [
        "clip 1/1: 30 of 100 steps, about 70 s left",
        "clip 1/1: 60 of 100 steps, about 40 s left",
        "clip 1/1: 90 of 100 steps, about 10 s left",
    ]
    with Console(quiet=True).progress(100) as bar:
        now[0] += 1000
        bar.advance("clip 1/1", 1)
    assert capfd.readouterr().err == ""


def test_a_drawn_bar_writes_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    console = RichConsole(file=StringIO(), width=80)
    ProgressBar(steps_bar(console, hidden=True), 10, None).advance("x", 1)


def test_the_log_has_everything_with_its_time(
    magnet: Magnet, tiny: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "opensesame")
    options = ("--model", tiny, *QUICK, "--log-file", "log.txt", "-q")
    assert magnet("generate", "opensesame and hf_abcdefgh", "-o", "x.wav", *options).err == ""
    one_line_error(magnet("generate", "x", "-o", "x.wav", *options), 7, "already exists")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d"
    kinds = [re.fullmatch(rf"{time} (\w+) +(.*)", line) for line in lines]
    assert all(kinds)
    found = [(one[1], one[2]) for one in kinds if one is not None]
    assert found[0][0] == "command"
    assert found[0][1].startswith("magnet generate '(hidden) and (hidden)' -o x.wav")
    assert ("result", "x.wav") in found
    assert any(kind == "detail" and text.startswith("sampling: ") for kind, text in found)
    assert any(kind == "message" and text.startswith("x.wav: 0.30 s, seed 1") for kind, text in found)
    assert found[-1][0] == "error"
    assert "already exists" in found[-1][1]
    assert "opensesame" not in (tmp_path / "log.txt").read_text()


def test_a_log_that_cannot_be_written_stops_before_any_work(magnet: Magnet, tiny: str) -> None:
    one_line_error(magnet("generate", "x", "--model", tiny, "--log-file", "no/such/log.txt"), 7, "--log-file")
    assert not list(Path().iterdir())


def test_secrets_are_hidden() -> None:
    text = "https://me:pass@proxy:80 hf_abcdef123 sesame-open word"
    environment = {"MY_PASSWORD": "sesame-open", "SHORT_KEY": "word"}
    assert without_secrets(text, environment) == "https://(hidden)@proxy:80 (hidden) (hidden) word"
