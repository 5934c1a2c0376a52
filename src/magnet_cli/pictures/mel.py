"""What a picture shows of a waveform: its outline, and its energy over time and pitch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magnet_cli.audio.blocks import Waveform

BANDS = 128  # of the mel scale
LOWEST = 30.0  # Hz
WINDOW = 0.064  # seconds: separates notes a semitone apart from 250 Hz on, and beats at any tempo
HOP_SHARE = 4  # hops in a window
FLOOR = 1e-12  # power, -120 dB of full scale, which no format of 16 bits reaches
AT_ONCE = 256  # windows


@dataclass(frozen=True, eq=False)
class MelSpectrogram:
    """levels: float32 [bands, columns], dB of a sine at full scale; edges: Hz [bands + 1]; seconds: its length."""

    levels: NDArray[np.float32]
    edges: NDArray[np.float64]
    seconds: float


def mel(hertz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Hz -> mel, as O'Shaughnessy defines it (Speech Communication, 1987)."""
    return np.asarray(2595.0 * np.log10(1.0 + np.asarray(hertz) / 700.0))


def hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mel -> Hz."""
    return np.asarray(700.0 * (10.0 ** (mels / 2595.0) - 1.0))


def mel_spectrogram(waveform: Waveform, sample_rate: int, *, columns: int) -> MelSpectrogram:
    """The mel spectrogram of a waveform [C, L], all channels together, in at most this many columns.

    Each column is the mean power of its windows. Memory does not grow with the length of the waveform.
    """
    samples = waveform.shape[1]
    size = 1 << round(np.log2(WINDOW * sample_rate))
    hop = size // HOP_SHARE
    windows = -(-samples // hop)
    columns = min(columns, windows)
    edges = hertz(np.linspace(mel(LOWEST), mel(sample_rate / 2), BANDS + 1))
    bank = _bank(edges, size, sample_rate)
    shape = np.hanning(size + 1)[:-1].astype(np.float32)
    scale = (2.0 / shape.sum()) ** 2  # a sine at full scale has power 1
    total, count = np.zeros((columns, BANDS)), np.zeros((columns, 1))
    for first in range(0, windows, AT_ONCE):
        numbers = np.arange(first, min(first + AT_ONCE, windows))
        part = _padded(waveform, int(numbers[0]) * hop - size // 2, (len(numbers) - 1) * hop + size)
        cut = np.lib.stride_tricks.sliding_window_view(part, size, axis=1)[:, ::hop]
        power = (np.abs(np.fft.rfft(cut * shape)) ** 2).mean(axis=0) * scale  # [windows, bins]
        column = numbers * columns // windows
        np.add.at(total, column, power @ bank)
        np.add.at(count, column, 1.0)
    levels = 10.0 * np.log10(np.maximum(total / count, FLOOR))
    return MelSpectrogram(levels.T.astype(np.float32), edges, samples / sample_rate)


def outline(waveform: Waveform, *, columns: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The lowest and the highest sample of a waveform [C, L] in each of at most this many columns."""
    samples = waveform.shape[1]
    starts = np.unique(np.arange(columns) * samples // columns)
    lowest = np.minimum.reduceat(waveform.min(axis=0), starts)
    highest = np.maximum.reduceat(waveform.max(axis=0), starts)
    return lowest, highest


def _bank(edges: NDArray[np.float64], size: int, sample_rate: int) -> NDArray[np.float64]:
    """The share of each bin of a Fourier transform in each band, [bins, bands].

    A band is a triangle that reaches to the middles of its neighbours. One that is narrower than two bins takes them
    from the nearest, so that no band is empty.
    """
    middles = (edges[:-1] + edges[1:]) / 2
    width = np.maximum(np.diff(edges), sample_rate / size)
    bins = np.arange(size // 2 + 1) * sample_rate / size
    return np.maximum(1.0 - np.abs(bins[:, None] - middles) / width, 0.0)


def _padded(waveform: Waveform, start: int, length: int) -> Waveform:
    """Samples from `start` on, with silence where there are none."""
    first, end = max(start, 0), min(start + length, waveform.shape[1])
    part = np.asarray(waveform[:, first:end], dtype=np.float32)
    return np.pad(part, ((0, 0), (first - start, start + length - max(end, first))))
