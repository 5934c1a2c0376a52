"""Commands in processes of their own, forked from one that has imported everything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Importing PyTorch and transformers takes seconds; this does it once. Every command runs in a process of its own,
# forked from it.
SERVER = """
import json, os, resource, signal, subprocess, sys
import magnet_cli.cli
import magnet_cli.jobs.writer
from transformers import T5Config, T5EncoderModel  # which this package imports as late as it can
from magnet_cli.__main__ import main

for line in sys.stdin:
    asked = json.loads(line)
    if "run" in asked:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command itself hears it
            for descriptor, path in ((1, asked["out"]), (2, asked["err"])):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.chdir(asked["folder"])
            if asked["largest"] is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest"], resource.RLIM_INFINITY))
            sys.argv = ["magnet", *asked["run"]]
            code = 1
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            try:
                main()
            except SystemExit as stopped:
                code = stopped.code or 0
            finally:
                sys.stdout.flush()
                os._exit(code)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        answer = pid
    elif "wait" in asked:
        answer = os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])
    else:
        answer = subprocess.run(asked["shell"], shell=True, capture_output=True, text=True).stdout
    print(json.dumps(answer), flush=True)
"""


class Server:
    """Starts commands without the seconds that importing takes. prefix: what the server itself runs in."""

    def __init__(self, folder: Path, *prefix: str, environment: dict[str, str] | None = None) -> None:
        self._folder = folder
        self._runs = 0
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, **asked: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, folder: Path, *arguments: str, largest: int | None = None) -> Run:
        """Run a command in a folder. largest: bytes that a file may have, as the system sees to it."""
        self._runs += 1
        out, err = (self._folder / f"{self._runs}.{name}" for name in ("out", "err"))
        out.touch()
        err.touch()
        pid = self.ask(run=arguments, folder=str(folder), out=str(out), err=str(err), largest=largest)
        return Run(self, pid, out, err)

    def stop(self) -> None:
        self._process.communicate()


class Run:
    """A command that runs in a process of its own."""

    def __init__(self, server: Server, pid: int, out: Path, err: Path) -> None:
        self._server, self._pid, self._out, self._err = server, pid, out, err

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def send(self, number: int) -> None:
        """Harmless after its end: the server has not yet been asked for the exit code, so the pid is still its own."""
        os.kill(self._pid, number)

    def wait(self) -> int:
        return int(self._server.ask(wait=self._pid))

    def wait_for(self, clips: int) -> None:
        """Until so many clips are reported."""
        until = time.monotonic() + 60
        while self.out.count("\n") < clips:
            assert time.monotonic() < until, self.err
            time.sleep(0.002)
