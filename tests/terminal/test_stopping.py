"""Ctrl-C and SIGTERM, whatever they interrupt: one message, one exit code, no traceback.

MAGNET_SIGNALS=100 interrupts the start of the command that often; without it a handful.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from magnet_cli.errors import INTERRUPTION
from magnet_cli.terminal.stopping import NOTICE, Stopping
from support.golden import GOLDEN

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows sends no such signals to one process")

SIGNALS = int(os.environ.get("MAGNET_SIGNALS", "4"))
SAID = f"error: {INTERRUPTION}\n"


@pytest.fixture
def stopping() -> Iterator[Stopping]:
    """What hears the signals that this process sends itself, until the test is over."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    heard = Stopping()
    heard.listen()
    yield heard
    heard.end()
    for number, handler in before.items():
        signal.signal(number, handler)


def command_with(lines: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose work is these lines, each of which may send signals to the process."""
    body = "".join(f"    {line}\n" for line in lines.splitlines())
    script = f"""
import os, signal, sys, time
import magnet_cli.cli as cli
from magnet_cli.__main__ import main
from magnet_cli.terminal.console import Console
from magnet_cli.errors import ModelError
signal.signal(signal.SIGINT, signal.default_int_handler)
console = Console()
def interrupt(number=signal.SIGINT):
    os.kill(os.getpid(), number)
def work():
{body}
cli.invoke = work
main()
"""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)


# -- what an interruption becomes on its way --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        "interrupt()",
        "for _ in range(30): interrupt()",
        # A module of C code that cannot be imported says so, whatever the reason.
        "try: interrupt(); time.sleep(1)\nexcept KeyboardInterrupt as error: raise ImportError('no') from error",
        "with console.reporting():\n    try: interrupt(); time.sleep(1)\n"
        "    except KeyboardInterrupt: raise ModelError('cannot be read', 'Fetch it again') from None",
        # It is dropped in a destructor, and by whoever catches everything.
        "class Thing:\n    def __del__(self): interrupt(); time.sleep(1)\nthing = Thing()\ndel thing\ntime.sleep(30)",
        "try: interrupt(); time.sleep(1)\nexcept BaseException: pass\nreturn 0",
        "try: interrupt(); time.sleep(1)\nfinally: interrupt(); time.sleep(0.1)",
        "with console.stoppable():\n    interrupt(); interrupt()\n    time.sleep(1)",
        "with console.stoppable() as check:\n    interrupt()\n    check()",
        "with console.stoppable():\n    interrupt()\nreturn 0",
        "with console.reporting(), console.progress(3) as bar:\n    bar.advance('x', 1)\n    interrupt()",
    ],
)
def test_an_interruption_ends_with_130_and_one_message(lines: str) -> None:
    done = command_with(lines)
    assert done.stderr in (SAID, f"{NOTICE}\n{SAID}")
    assert (NOTICE in done.stderr) == ("stoppable" in lines)
    assert done.returncode == 130


def test_cleaning_up_is_not_interrupted_again() -> None:
    done = command_with(
        "try: interrupt(); time.sleep(9)\nfinally:\n    for _ in range(50): interrupt(); time.sleep(0.001)\n"
        "    print('cleaned up')"
    )
    assert (done.stdout, done.stderr, done.returncode) == ("cleaned up\n", SAID, 130)


def test_cleaning_up_that_lasts_can_be_interrupted() -> None:
    done = command_with("try: interrupt(); time.sleep(9)\nfinally: time.sleep(2.1); interrupt(); time.sleep(30)")
    assert (done.stderr, done.returncode) == (SAID, 130)


def test_a_signal_after_the_work_is_late() -> None:
    done = command_with("import atexit\natexit.register(interrupt)\nreturn 0")
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_has_its_code_and_no_message(number: signal.Signals) -> None:
    done = command_with(f"try: interrupt({int(number)}); time.sleep(9)\nfinally: interrupt({int(number)})")
    assert (done.stderr, done.returncode) == ("", 128 + number)


def test_an_error_of_our_own_still_shows_its_traceback() -> None:
    done = command_with("raise ZeroDivisionError('a mistake')")
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("ZeroDivisionError: a mistake\n")
    assert done.returncode == 1


def test_a_signal_that_was_ignored_stays_ignored(stopping: Stopping) -> None:
    stopping.end()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    nohup = Stopping()
    nohup.listen()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert Stopping.current() is None  # SIGINT was ignored, too, since the other has ended
    nohup.end()


def test_the_first_ctrl_c_waits_for_the_step_and_the_second_does_not(
    stopping: Stopping, capfd: pytest.CaptureFixture[str]
) -> None:
    with stopping.after_step() as check:
        check()
        signal.raise_signal(signal.SIGINT)
        assert capfd.readouterr().err == f"{NOTICE}\n"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the exception is on its way
        with pytest.raises(KeyboardInterrupt):
            check()
        stopping.code = None
    assert capfd.readouterr().err == ""


# -- real commands ----------------------------------------------------------------------------------------------------


def test_interrupted_at_any_moment_of_its_start_a_command_ends_with_130(tmp_path: Path) -> None:
    """While Python, PyTorch and the model are loaded, and shortly after."""
    script = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); print('here', flush=True)\n"
    script += "from magnet_cli.__main__ import main; main()"
    arguments = ("generate", "x", "-n", "9", "--model", str(GOLDEN / "music"), "--steps", "2,1,1,1", "--device", "cpu")
    chance, lasting, ends = random.Random(int(os.environ.get("MAGNET_KILLS_SEED", "1"))), 0.0, []
    for number in range(SIGNALS + 1):
        folder = tmp_path / str(number)
        with subprocess.Popen(
            [sys.executable, "-c", script, *arguments, "-o", f"{folder}/"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            started = time.monotonic()
            if number:  # the first one says how long it takes
                time.sleep(chance.uniform(0, lasting))
                for _ in range(chance.randint(1, 3)):
                    process.send_signal(signal.SIGINT)
                    time.sleep(chance.choice((0, 0.02)))
            _, err = process.communicate(timeout=120)
            lasting = lasting or time.monotonic() - started
        ends.append(process.returncode)
        if process.returncode == 130:
            assert err.endswith(SAID)
        else:
            assert (process.returncode == 0) == (len(list(folder.glob("*.wav"))) == 9)
            assert process.returncode in (0, -signal.SIGINT)
        assert "Traceback" not in err
        assert "Exception ignored" not in err
        assert not list(folder.glob(".*"))
    print(f"ended with {ends}")
    assert 130 in ends
