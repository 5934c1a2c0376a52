"""One batch at a time: a lock that threads share, and that a forked process does not inherit."""

from __future__ import annotations

import os
import threading

import torch

from magnet_cli.errors import DeviceError


class Turn:
    """A lock for a `with` block. The thread that holds it may take it again.

    A forked process has only the thread that forked. It gets a lock of its own, since no other thread could release the
    inherited one, and computes on one thread: OpenMP would wait for ever for the threads of its pool, which are not
    there any more. A GPU cannot be used after a fork at all.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start()

    def _start(self) -> None:
        self._process, self._lock = os.getpid(), threading.RLock()

    def __enter__(self) -> None:
        if self._process != os.getpid():
            if self._device.type != "cpu":
                raise DeviceError(
                    f"a model on {self._device} cannot be used in a forked process",
                    'Start processes with multiprocessing.get_context("spawn"), and load the model in each',
                )
            torch.set_num_threads(1)
            self._start()
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()
