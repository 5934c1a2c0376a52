"""A stream that is made ahead of what is heard, in a thread beside whoever hears it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from magnet_cli.audio.blocks import Waveform
from magnet_cli.streaming.stream import Stream, StreamStopped

PATIENCE = 0.1  # seconds after which a waiting thread looks whether it is to stop


class HearingClock:
    """Measures how far the music is ahead of what is heard.

    The player is taken to play in real time what it has received, from the first piece on. If it takes pieces more
    slowly, for example because it is paused, the clock waits for it.
    """

    def __init__(self) -> None:
        self._made = self._given = 0.0  # seconds of music
        self._started: float | None = None  # when the music would have begun that is heard now
        self._broken = False
        self.breaks = 0

    def add(self, seconds: float) -> None:
        """So much more music is there."""
        self._made += seconds

    def heard(self, seconds: float) -> None:
        """The player got so much more of it."""
        now = time.monotonic()
        if self._started is None or now - self._started > self._given:  # all before it is over
            self._started = now - self._given
        self._given += seconds
        self._broken = False

    def late(self) -> None:
        """There is nothing to give to the player. If it has played all that it got, this is a break."""
        if self._started is None or self._broken or time.monotonic() - self._started <= self._given:
            return
        self._broken = True
        self.breaks += 1

    def ahead(self) -> float | None:
        """Seconds of music that are there and not heard yet; None before anything was heard."""
        if self._started is None:
            return None
        return self._made - min(time.monotonic() - self._started, self._given)


class Ahead:
    """The pieces of a stream, of which some wait."""

    def __init__(self, stream: Stream, waiting: int, clock: HearingClock) -> None:
        self._stream, self._clock = stream, clock
        self._pieces: queue.Queue[Waveform | BaseException] = queue.Queue(maxsize=max(1, waiting))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="magnet-stream", daemon=True)

    def _work(self) -> None:
        try:
            for piece in self._stream:
                self._clock.add(piece.shape[1] / self._stream.sample_rate)
                self._put(piece)
        except StreamStopped:
            pass
        except BaseException as error:  # which the other thread raises
            self._put(error)

    def _put(self, one: Waveform | BaseException) -> None:
        while not self._over.is_set():
            try:
                self._pieces.put(one, timeout=PATIENCE)
            except queue.Full:
                continue
            return
        raise StreamStopped

    def __iter__(self) -> Iterator[Waveform]:
        """The pieces, each as soon as it is there."""
        while True:
            try:
                one = self._pieces.get(timeout=PATIENCE)
            except queue.Empty:
                self._clock.late()
                continue
            if isinstance(one, BaseException):
                raise one
            yield one

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the decoding step that is under way, and wait for that."""
        self._over.set()
        self._stream.stop()
        self._thread.join()


@contextmanager
def made_ahead(stream: Stream, seconds: float, clock: HearingClock) -> Iterator[Iterator[Waveform]]:
    """The pieces of a stream; about so many seconds of them wait to be taken."""
    ahead = Ahead(stream, round(seconds), clock)
    ahead.start()
    try:
        yield iter(ahead)
    finally:
        ahead.stop()
