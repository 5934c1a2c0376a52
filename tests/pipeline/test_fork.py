"""Forking after a model is loaded: no thread is left behind, and the child generates instead of hanging."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from magnet_cli import Pipeline
from magnet_cli.engines.turn import Turn
from magnet_cli.errors import DeviceError
from support.golden import GOLDEN

# In a process of its own: threads of other tests must not be forked, and a hanging child must not stop them.
SCRIPT = """
import os, sys, threading, time, warnings
import torch
torch.set_num_threads(2)
from magnet_cli import Pipeline
warnings.simplefilter("ignore")
used, path = sys.argv[1] == "used", sys.argv[2]
pipeline = Pipeline.load(path, device="cpu", dtype="float32")
assert [one.name for one in threading.enumerate()] == ["MainThread"], threading.enumerate()
def generate():
    return pipeline.generate_one("disco beat", seed=7, steps=(4, 2, 2, 2), greedy=True)
if used:
    generate()
    torch.randn(500, 500) @ torch.randn(500, 500)  # starts OpenMP's pool
    assert [one.name for one in threading.enumerate()] == ["MainThread"], threading.enumerate()
child = os.fork()
if child == 0:
    try:
        clip = generate()
        clip.save(sys.argv[3])
    except BaseException as error:
        print(type(error).__name__, error, flush=True)
        os._exit(1)
    os._exit(0)
end = time.monotonic() + 100
while time.monotonic() < end:
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.05)
os.kill(child, 9)
sys.exit("the child hangs")
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
@pytest.mark.parametrize("state", ["fresh", "used"])
def test_a_forked_process_generates(state: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = tmp_path_factory.mktemp("fork") / "x.wav"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, state, str(GOLDEN / "music"), str(target)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert target.is_file()


def test_a_gpu_is_refused_after_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Turn(torch.device("cuda", 0))
    with turn, turn:
        pass
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(DeviceError, match=r"cuda:0 cannot be used in a forked process.*spawn"), turn:
        pass


def test_a_lock_of_a_lost_thread_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, turn = torch.get_num_threads(), Turn(torch.device("cpu"))
    lost = threading.Thread(target=turn.__enter__)
    lost.start()
    lost.join()
    monkeypatch.setattr("os.getpid", lambda: -1)
    try:
        with turn:
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)


def _codes(prompt: str) -> bytes:
    torch.set_num_threads(1)
    pipeline = Pipeline.load(str(GOLDEN / "music"), device="cpu", dtype="float32")
    return pipeline.generate_one(prompt, seed=7, steps=(4, 2, 2, 2)).codes.tobytes()


def test_spawned_processes_generate_what_this_one_does() -> None:
    prompts = ["disco beat", "rain"]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(_codes, prompts, timeout=200))
    threads = torch.get_num_threads()
    try:
        assert found == [_codes(prompt) for prompt in prompts]
    finally:
        torch.set_num_threads(threads)
