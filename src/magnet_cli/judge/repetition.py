"""How much a sound repeats itself, bar by bar or second by second."""

from __future__ import annotations

import numpy as np

from magnet_cli.music.onsets import Onsets

SECONDS = 1.0  # of a segment where no beat is clear
BEATS = 4  # of a segment, a bar, where one is


def repetition(onsets: Onsets, *, bpm: float | None = None) -> float | None:
    """How alike the segments of a sound are to their nearest other segment: 1 is an exact repetition, 0 chance.

    The spectra of each segment, in bands a third of an octave wide and 10 ms apart, are correlated with those of every
    other one, after the mean of each band over the whole sound is taken from them. The mean over all segments of the
    highest correlation is the result. bpm: of the beat that is heard; a segment is then a bar of four beats. None for
    silence, and for a sound of fewer than two segments.
    """
    seconds = SECONDS if bpm is None else BEATS * 60 / bpm
    levels = onsets.spectrum - onsets.spectrum.mean(axis=0)
    length = round(seconds * onsets.rate)
    # Segments begin where they should, to the nearest moment, so that the error of one does not add up.
    count = int(len(levels) / (seconds * onsets.rate) + 1e-6)
    starts = [min(round(place * seconds * onsets.rate), len(levels) - length) for place in range(count)]
    if len(starts) < 2 or not levels.any():
        return None
    parts = np.stack([levels[start : start + length].ravel() for start in starts])
    norms = np.linalg.norm(parts, axis=1)
    parts = parts[norms > 0] / norms[norms > 0, None]
    if len(parts) < 2:
        return None
    alike = parts @ parts.T
    np.fill_diagonal(alike, -np.inf)
    return float(alike.max(axis=1).mean())
