"""Measures that know only audio: tempo, what is percussive, how close a copy is, and which kind of music it resembles.

Plain signal processing and least squares, so that a score depends on nothing that was trained elsewhere. Waveforms are
float arrays [L] with full scale at 1, rates in Hz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.signal import get_window, stft

Floats = NDArray[np.floating[Any]]

SLOWEST, FASTEST = 50.0, 200.0  # bpm
ONSET_HOP = 0.005  # seconds
WINDOW = 0.064  # seconds
BANDS = 40
FLOOR = 1e-5
MEDIAN = 17  # frames or bins; Fitzgerald, "Harmonic/percussive separation using median filtering" (2010)


def magnitudes(waveform: Floats, rate: int, hop: float) -> Floats:
    """Magnitude spectrogram [F, T] with frames `hop` seconds apart."""
    size = int(WINDOW * rate)
    step = max(1, int(hop * rate))
    _, _, spectrum = stft(waveform, rate, get_window("hann", size), size, size - step, boundary=None, padded=False)
    return np.abs(spectrum)


def mel_bands(magnitude: Floats, rate: int) -> Floats:
    """Energy in bands of equal width on the mel scale, in decibels, [BANDS, T]."""
    frequencies = np.linspace(0, rate / 2, magnitude.shape[0])
    mels = 2595 * np.log10(1 + frequencies / 700)
    edges = np.linspace(mels[0], mels[-1], BANDS + 2)
    bank = np.clip(
        np.minimum((mels - edges[:-2, None]) / (edges[1] - edges[0]), (edges[2:, None] - mels) / (edges[1] - edges[0])),
        0,
        None,
    )
    return 10 * np.log10(bank @ magnitude**2 + FLOOR**2)


def onsets(waveform: Floats, rate: int) -> Floats:
    """How much begins at each moment, [T], ONSET_HOP seconds apart: rises in mel bands, less those around them."""
    bands = np.maximum(mel_bands(magnitudes(waveform, rate, ONSET_HOP), rate), -60)
    rises = np.maximum(bands[:, 2:] - bands[:, :-2], 0).mean(axis=0)
    around = np.convolve(rises, np.ones(41) / 41, mode="same")
    return np.maximum(rises - around, 0)


def tempo(waveform: Floats, rate: int) -> float:
    """The tempo in bpm, or its double or half: the period at which onsets repeat best. 0 for what has no onsets."""
    strength = onsets(waveform, rate)
    if not strength.any():
        return 0.0
    size = 2 * len(strength)
    spectrum = np.fft.rfft(strength, size)
    repeats = np.fft.irfft(np.abs(spectrum) ** 2, size)[: len(strength)]
    repeats = repeats / np.arange(len(strength), 0, -1)  # by the overlap, which long lags have less of
    lags = np.arange(len(repeats))
    best, chosen = -1.0, 0.0
    for bpm in np.arange(SLOWEST, FASTEST, 0.25):
        period = 60 / bpm / ONSET_HOP
        multiples = period * np.arange(1, int(0.6 * len(repeats) / period) + 1)
        score = float(np.interp(multiples, lags, repeats).mean()) if len(multiples) > 1 else 0.0
        # People, and composers, prefer tempi around 110 bpm; among a tempo, its double and half this decides.
        score *= np.exp(-0.5 * (np.log2(bpm / 110) / 1.2) ** 2)
        if score > best:
            best, chosen = score, float(bpm)
    return chosen


def same_tempo(found: float, wanted: float, tolerance: float = 0.04) -> bool:
    """Whether a tempo is the wanted one, its double or its half."""
    return any(abs(found / (wanted * factor) - 1) <= tolerance for factor in (0.5, 1.0, 2.0))


def percussive_share(waveform: Floats, rate: int) -> float:
    """Share of the energy that is short in time and broad in frequency rather than the reverse, 0 to 1."""
    magnitude = magnitudes(waveform, rate, 0.016)
    harmonic, percussive = median_filter(magnitude, (1, MEDIAN)), median_filter(magnitude, (MEDIAN, 1))
    mask = percussive**2 / (harmonic**2 + percussive**2 + 1e-20)
    energy = magnitude**2
    return float((mask * energy).sum() / max(energy.sum(), 1e-20))


def si_sdr(copy: Floats, original: Floats) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., 2019)."""
    original, copy = original - original.mean(), copy - copy.mean()
    target = original * float(copy @ original / (original @ original + 1e-20))
    return float(10 * np.log10((target @ target + 1e-20) / (((copy - target) ** 2).sum() + 1e-20)))


def mel_distance(copy: Floats, original: Floats, rate: int) -> float:
    """Mean difference of mel bands in dB, over what is within 60 dB of the loudest."""
    one, other = (mel_bands(magnitudes(waveform, rate, 0.016), rate) for waveform in (copy, original))
    lowest = other.max() - 60
    return float(np.abs(np.maximum(one, lowest) - np.maximum(other, lowest)).mean())


def features(waveform: Floats, rate: int) -> Floats:
    """What a clip sounds like, [3 * BANDS + 2]: mel bands' means, deviations and rises; percussion; onsets."""
    bands = mel_bands(magnitudes(waveform, rate, 0.016), rate)
    bands = np.maximum(bands - bands.max(), -80)
    rises = np.maximum(np.diff(bands, axis=1), 0).mean(axis=1)
    strength = onsets(waveform, rate)
    more = [percussive_share(waveform, rate), float(strength.max() / (strength.mean() + 1e-9))]
    return np.concatenate([bands.mean(axis=1), bands.std(axis=1), rises, more])


def frechet_distance(vectors: Floats, others: Floats, dimensions: int = 8) -> float:
    """Fréchet distance between Gaussians fitted to features [M, F] and [N, F]; smaller is more alike.

    As in the Fréchet audio distance (Kilgour et al., 2019), in the `dimensions` directions along which `others` vary
    most: with few clips there is no covariance of more. How large it is depends on the features: compare only.
    """
    centre = others.mean(axis=0)
    _, _, directions = np.linalg.svd(others - centre, full_matrices=False)
    one, other = ((part - centre) @ directions[:dimensions].T for part in (vectors, others))
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    # The trace of the root of a product of covariances is the sum of the roots of its eigenvalues.
    roots = np.sqrt(np.maximum(np.linalg.eigvals(first @ second).real, 0))
    apart = one.mean(axis=0) - other.mean(axis=0)
    return float(apart @ apart + np.trace(first) + np.trace(second) - 2 * roots.sum())


@dataclass(frozen=True)
class Classifier:
    """Regularized linear discriminants, one for each kind."""

    kinds: tuple[str, ...]
    mean: Floats
    scale: Floats
    weights: Floats

    @classmethod
    def learn(cls, vectors: Floats, labels: Sequence[str], ridge: float = 0.05) -> Classifier:
        """From features [M, F] and their kinds."""
        kinds = tuple(sorted(set(labels)))
        mean, scale = vectors.mean(axis=0), vectors.std(axis=0) + 1e-6
        inputs = np.c_[(vectors - mean) / scale, np.ones(len(vectors))]
        targets = np.array([[1.0 if label == kind else 0.0 for kind in kinds] for label in labels])
        gram = inputs.T @ inputs + ridge * len(vectors) * np.eye(inputs.shape[1])
        return cls(kinds, mean, scale, np.linalg.solve(gram, inputs.T @ targets))

    def kind(self, vector: Floats) -> str:
        """The kind that a clip with these features resembles most."""
        inputs = np.r_[(vector - self.mean) / self.scale, 1.0]
        return self.kinds[int((inputs @ self.weights).argmax())]
