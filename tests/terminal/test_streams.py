"""Text of others does nothing to the terminal, and streams that are full or closed end in the documented way."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import soundfile

from magnet_cli.errors import UsageError
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.streams import visible
from support.command import Magnet, Result
from support.golden import GOLDEN

MUSIC = str(GOLDEN / "music")
QUICK = ("--model", MUSIC, "--steps", "1,1,1,1", "--device", "cpu", "--duration", "0.3")
# Clears the screen; names the window; asks the terminal to type; C1's CSI; turns text around; hides it; ends the line.
EVIL = "a\x1b[2J\x1b]0;owned\x07\x9b6n\u202egpj\u2066\u200fb\ufeff\U000e0041\u2028"


def harmless(text: str) -> bool:
    """Whether nothing in it acts on a terminal, but for the ends of lines."""
    return not any(
        unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") for one in text.replace("\n", "") if one != "\u200d"
    )


# -- text -------------------------------------------------------------------------------------------------------------


def test_what_acts_on_a_terminal_is_shown_as_an_escape() -> None:
    assert visible("\x1b[31m\a\r\n\t\x7f\x9b") == r"\x1b[31m\x07\r\n\t\x7f\x9b"
    assert visible("\u202e\u2066\u200f\u2028\ufeff\U000e0041") == r"\u202e\u2066\u200f\u2028\ufeff\U000e0041"
    assert visible(os.fsdecode(b"\xff.wav")) == r"\udcff.wav"
    for text in ("plain", "Grüße, 東京 שלום مرحبا", "👩‍🎤", "50 %", "می‌خواهم", r"C:\x1b"):
        assert visible(text) == text


@pytest.mark.parametrize("say", ["message", "detail", "warning", "error", "essential"])
def test_everything_that_is_said_is_harmless(say: str, capfd: pytest.CaptureFixture[str]) -> None:
    getattr(Console(verbose=True), say)(f"{EVIL}\nerror: not ours")
    told = capfd.readouterr().err
    assert harmless(told)
    assert told.count("\n") == 1
    assert r"\x1b[2J" in told


def test_the_lines_of_an_error_are_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    error = UsageError("x\ny", "Do", details=["line 1: \x1b[2J", "line 2: a\nb"])
    Console().error(*error.lines)
    assert capfd.readouterr().err == "error: x\\ny:\n  line 1: \\x1b[2J\n  line 2: a\\nb\nDo.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "x", "--seed", EVIL),
        ("generate", "x", f"--{EVIL}"),
        (EVIL,),
        ("models", EVIL),
        ("models", "remove", EVIL),
        ("models", "show", EVIL),
        ("generate", "x", "--model", EVIL),
        ("generate", "x", "--preset", EVIL),
        ("generate", "x", "--steps", EVIL),
        ("generate", "x", "--input", EVIL),
        ("generate", "x", "-o", f"{EVIL}.mp3"),
        ("generate", EVIL, *QUICK, "-o", f"{EVIL}.wav"),
        ("generate", EVIL, *QUICK, "-o", f"{EVIL}.wav", "-v"),
        ("encode", EVIL, "-o", "x.npz"),
        ("info", EVIL),
        ("replay", EVIL),
        ("batch", EVIL, "-o", "x"),
        ("train", "decoder", "--data", EVIL, "-o", "x"),
    ],
)
def test_what_is_given_is_shown_harmless(magnet: Magnet, arguments: tuple[str, ...]) -> None:
    done = magnet(*arguments)
    assert harmless(done.err)
    if arguments[0] != "generate" or "-o" not in arguments:
        assert harmless(done.out)


@pytest.mark.parametrize("column", ["prompt", "continue", "inpaint", "style", "seed", "output", "duration", EVIL])
def test_a_prompt_file_is_shown_harmless(magnet: Magnet, tmp_path: Path, column: str) -> None:
    rows = [{"prompt": "x", column: EVIL}, {"prompt": EVIL, "seed": -1}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for last in ((), ("--dry-run",)):
        done = magnet("batch", "p.jsonl", *QUICK, "-o", f"{EVIL}clips", *last)
        assert harmless(done.err)
        assert done.code == 2


def test_a_plan_is_shown_harmless(magnet: Magnet, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": EVIL}))
    done = magnet("batch", "p.jsonl", *QUICK, "-o", f"{EVIL}clips", "--dry-run")
    assert done.code == 0
    assert harmless(done.out + done.err)
    assert "\\x1b[2J" in done.out


def poison(value: Any) -> Any:
    """A record in which every text is hostile."""
    if isinstance(value, dict):
        return {f"{name}": poison(inner) for name, inner in value.items()} | {EVIL: EVIL}
    return EVIL if isinstance(value, str) else value


def test_a_received_record_is_shown_harmless(magnet: Magnet, tmp_path: Path) -> None:
    assert magnet("generate", "x", *QUICK, "-o", "clip.wav").code == 0
    path = tmp_path / "clip.json"
    record = json.loads(path.read_text())
    for part in ("sampling", "edit", "output", "model", "prompt", "device", "versions"):
        path.write_text(json.dumps({**record, part: poison(record[part])}))
        for command in ("info", "replay"):
            done = magnet(command, "clip.json")
            assert harmless(done.out + done.err), (part, command)
    path.write_text(json.dumps(record | {"prompt": EVIL}))
    assert "\\x1b[2J" in magnet("info", "clip.json").out


def test_a_bundle_is_shown_harmless(magnet: Magnet, tmp_path: Path, tiny: str) -> None:
    store = tmp_path / "store"
    shutil.copytree(tiny, store / f"{EVIL}x")
    path = store / f"{EVIL}x" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"licence": EVIL, "name": EVIL, "source": poison(config.get("source") or {})}))
    for arguments in (
        ("models", "list"),
        ("models", "show", f"{EVIL}x"),
        ("models", "path", f"{EVIL}x"),
        ("models", "verify", f"{EVIL}x"),
        ("models", "remove", f"{EVIL}x"),
    ):
        done = magnet(*arguments, "--model-dir", str(store))
        assert harmless(done.err), arguments
        assert harmless(done.out) or arguments[1] == "path"  # not a terminal: the path as it is


def on_terminal(*arguments: str, folder: Path) -> tuple[int, bytes]:
    """What a command writes to a terminal that is its standard output and error."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "magnet_cli", *arguments], stdout=slave, stderr=slave, cwd=folder, env=environment
    )
    os.close(slave)
    shown = b""
    with process, suppress(OSError):  # which Linux raises at the end
        while chunk := os.read(master, 65536):
            shown += chunk
    os.close(master)
    return process.returncode, shown


def test_a_terminal_gets_only_the_escapes_of_our_own_bars(tmp_path: Path) -> None:
    name = os.fsdecode(b"\x1b]0;owned\x07\xff.wav")
    code, shown = on_terminal("generate", "[/b] \x1b]0;owned\x07 [bold]", *QUICK, "-o", name, folder=tmp_path)
    assert code == 0, shown
    assert (tmp_path / name).is_file()
    assert b"\x1b]" not in shown
    assert b"\x07" not in shown
    assert rb"\x1b]0;owned\x07\udcff.wav" in shown


def test_a_path_goes_out_as_the_bytes_it_has(tmp_path: Path) -> None:
    name = b"\x1b[2J\xff.wav"
    arguments = [sys.executable, "-m", "magnet_cli", "generate", "x", *QUICK, "-q", "--seed", "1", "-o"]
    done = subprocess.run([*map(os.fsencode, arguments), name], capture_output=True, cwd=tmp_path, check=True)
    assert done.stdout == name + b"\n"
    assert done.stderr == b""


# -- streams ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(tmp_path: Path) -> Callable[[str], Result]:
    """Run `magnet` with redirections, as a shell does it."""

    def run(line: str) -> Result:
        line = line.replace("magnet", f"{sys.executable} -m magnet_cli", 1).replace("QUICK", " ".join(QUICK))
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, check=False)
        return Result(done.returncode, done.stdout, done.stderr)

    return run


needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's own")


@needs_full
@pytest.mark.parametrize("to", ["2>/dev/full", "2>&-"])
def test_without_standard_error_a_batch_is_made_all_the_same(
    shell: Callable[[str], Result], tmp_path: Path, to: str
) -> None:
    (tmp_path / "p.txt").write_text("a\nb\nc\n")
    done = shell(f"magnet batch p.txt QUICK -o clips {to}")
    assert done.code == 0
    assert len(done.out.splitlines()) == len(list(tmp_path.glob("clips/*.wav"))) == 3
    for path in tmp_path.glob("clips/*.wav"):
        assert soundfile.info(path).frames > 0


@needs_full
@pytest.mark.parametrize("to", ["2>/dev/full", "2>&-"])
def test_without_standard_error_a_failure_has_its_code(shell: Callable[[str], Result], to: str) -> None:
    assert shell(f"magnet generate x --model nowhere {to}").code == 2
    assert shell(f"magnet generate x --seed nothing {to}").code == 2
    assert shell(f"magnet info nothing.wav {to}").code == 2


def test_a_reader_of_standard_error_that_goes_stops_nothing(shell: Callable[[str], Result], tmp_path: Path) -> None:
    done = shell("magnet generate x -n 2 QUICK -o clips/ 2> >(exec true); echo $?")
    assert done.out.splitlines()[-1] == "0"
    assert len(list(tmp_path.glob("clips/*.wav"))) == 2


@needs_full
@pytest.mark.parametrize("to", [">/dev/full", ">&-"])
@pytest.mark.parametrize("arguments", ["--version", "models list", "models list --json", "generate x QUICK"])
def test_what_cannot_be_printed_is_an_error(shell: Callable[[str], Result], arguments: str, to: str) -> None:
    done = shell(f"magnet {arguments} {to}")
    assert done.code == 7
    last = done.err.splitlines()[-1]
    said = "standard output is closed" if to == ">&-" else "cannot write to standard output: No space left on device"
    assert last.startswith(f"error: {said}. ")
    assert "Exception ignored" not in done.err


@needs_full
def test_help_that_cannot_be_printed_is_an_error(shell: Callable[[str], Result]) -> None:
    done = shell("magnet --help >/dev/full")
    assert done.code == 7
    assert done.err.startswith("error: cannot write to standard output: No space left on device. ")


@needs_full
def test_both_streams_may_fail(shell: Callable[[str], Result]) -> None:
    assert shell("magnet models list >/dev/full 2>/dev/full").code == 7
    assert shell("magnet models list >&- 2>&-").code == 7


def test_no_file_takes_the_place_of_a_closed_stream(shell: Callable[[str], Result], tmp_path: Path) -> None:
    done = shell("magnet generate x QUICK -o x.wav <&- >&- 2>&-")
    assert done.code == 7
    assert soundfile.info(tmp_path / "x.wav").frames > 0
    assert json.loads((tmp_path / "x.json").read_text())["prompt"] == "x"
