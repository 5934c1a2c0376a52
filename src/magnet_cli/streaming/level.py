"""The level of a stream, of which nobody knows the whole.

A clip is measured first and amplified then. A stream cannot be. So its gain follows slowly what has been heard: it is
set from the first seconds, then moves by at most a quarter of a decibel a second towards the gain that brings the last
seconds to the target. A limiter that looks ahead keeps the true peak below the ceiling, as it does for clips. Both
depend on the samples alone, so a replay has the same level.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.limiter import Limiter
from magnet_cli.audio.meters import integrated
from magnet_cli.options.output import OutputConfig

FIRST = 4.0  # seconds that are measured before the first sample goes out
REMEMBERED = 20.0  # seconds of the past whose loudness counts: a few bars, so that a pause does not raise the gain
FASTEST = 0.25  # dB a second: 1 dB, about the least that listeners notice, takes 4 s
MOST_GAIN = 30.0  # dB either way
# Seconds to either side of a piece that the limiter sees. Its gain recovers to 1/e in 50 ms, so what is further away
# changes it by less than 0.001 dB.
AROUND = 0.5
# Below the ceiling: the limiter's gain moves from sample to sample, which can raise what lies between them a trace.
MARGIN = 0.15  # dB


class SteadyLevel:
    """Sets the level of a stream, piece by piece; what it returns is a piece behind what it is given."""

    def __init__(self, sample_rate: int, output: OutputConfig) -> None:
        self._rate, self._output = sample_rate, output
        self._gain: float | None = None  # dB, at the end of what was amplified
        self._heard: deque[Waveform] = deque()
        self._waiting: list[Waveform] = []  # until the first gain is known
        self._amplified = np.empty((0, 0), np.float32)  # not limited yet, but for what is kept as surroundings
        self._before = 0  # samples at its beginning that went out already

    def push(self, piece: Waveform) -> list[Waveform]:
        """The pieces [C, L] that can go out, after the next one has come."""
        self._remember(piece)
        if self._gain is None:
            self._waiting.append(piece)
            if sum(one.shape[1] for one in self._waiting) < FIRST * self._rate:
                return []
            self._gain = self._wanted() or 0.0
            pieces, self._waiting = self._waiting, []
        else:
            pieces = [piece]
        return [made for one in pieces if (made := self._limited(self._with_gain(one))) is not None]

    def finish(self) -> list[Waveform]:
        """The pieces that are left, at the end."""
        if self._gain is None:
            self._gain = self._wanted() or 0.0
        made = [self._limited(self._with_gain(one)) for one in self._waiting]
        self._waiting = []
        last = self._limited(np.empty((self._amplified.shape[0], 0), np.float32))
        return [one for one in (*made, last) if one is not None and one.shape[1]]

    @property
    def gain(self) -> float | None:
        """The gain at present, in dB; None before the first seconds are known."""
        return self._gain

    def _remember(self, piece: Waveform) -> None:
        self._heard.append(piece)
        while sum(one.shape[1] for one in self._heard) > REMEMBERED * self._rate + piece.shape[1]:
            self._heard.popleft()

    def _wanted(self) -> float | None:
        """The gain that brings what was heard to the target; None for silence."""
        if not self._heard:
            return None
        lufs = integrated(np.concatenate(self._heard, axis=1), self._rate)
        return None if lufs is None else float(np.clip(self._output.lufs - lufs, -MOST_GAIN, MOST_GAIN))

    def _with_gain(self, piece: Waveform) -> Waveform:
        start = self._gain or 0.0
        wanted, most = self._wanted(), FASTEST * piece.shape[1] / self._rate
        end = start if wanted is None else start + float(np.clip(wanted - start, -most, most))
        self._gain = end
        ramp = 10.0 ** (np.linspace(start, end, piece.shape[1], endpoint=False) / 20.0)
        return (piece * ramp).astype(np.float32)

    def _limited(self, amplified: Waveform) -> Waveform | None:
        """The piece before this one, at its final level; None before there is one."""
        channels = amplified.shape[0]
        known = self._amplified if self._amplified.shape[0] == channels else np.empty((channels, 0), np.float32)
        around = round(AROUND * self._rate)
        ready = known.shape[1] - self._before
        whole = np.concatenate([known, amplified], axis=1)
        made = None
        if ready:
            seen = whole[:, : self._before + ready + around]
            gains = np.concatenate(
                [gain for _, gain, _ in Limiter.of(seen, self._rate).gains(0.0, self._output.true_peak - MARGIN)]
            )
            part = slice(self._before, self._before + ready)
            made = (seen[:, part] * gains[part]).astype(np.float32)
        start = max(0, self._before + ready - around)
        self._amplified, self._before = whole[:, start:], self._before + ready - start
        return made
