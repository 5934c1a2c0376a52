"""Loops: a clip whose end meets its beginning, decoded as a circle.

The network knows lines only, as long as the clips it was trained on. So it sees the circle unrolled into such a line:
the frames to be predicted in the middle, and before and after them as much of the rest of the circle as there is room
for, round and round. That much is the method of "LoopGen: Training-Free Loopable Music Generation"
(arXiv 2504.04466). It keeps the same frame in the middle at every step, which leaves little room around a loop that is
nearly as long as a clip, and none around one as long. Here the middle moves on with every step, and where there is
little room half of the circle is predicted at a time: no frame is ever far from the middle, and none is the seam.
Where the loop begins on the circle is drawn last, so its seam is, in law, a place like any other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from magnet_cli.decoding.philox import uniforms
from magnet_cli.errors import UsageError

Waveform = NDArray[np.float32]

# Steps around the circle by this share of it come nowhere near an earlier place for as long as can be.
GOLDEN = (math.sqrt(5) - 1) / 2
# A predicted frame sees at least this share of the window on either side of it. For 10-second models 1/8 is 1.25 s.
LEAST_ROOM = 1 / 8
# Codebook and step under which beginnings are drawn: no decoding step's (config.MOST_STEPS), nor `edit.VARY_STREAM`.
START_STREAM = 0xFFFE

SHORTEST_LOOP = 0.5  # seconds; below, rounding to whole frames shifts the pitch by more than a third of a semitone
SLOWEST, FASTEST = 20.0, 400.0  # beats per minute
MOST_BEATS = 32  # in a bar


# -- the circle, unrolled ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """The circle as the network sees it once.

    frames: int64 [W], the loop's frame at each place of the window; predicted: the places whose predictions count.
    """

    frames: Tensor
    predicted: slice


@dataclass(frozen=True)
class Loop:
    """Decode a circle. window: frames of a clip as the model was trained."""

    window: int

    def check(self, frames: int) -> None:
        """Raise UsageError for a loop that is longer than the model's clips."""
        if frames > self.window:
            raise UsageError(
                f"a loop of {frames} frames is longer than the model's clips of {self.window}",
                "Ask for fewer bars, or choose a model with longer clips, such as magnet-small-30secs",
            )

    def starts(self, seeds: Sequence[int], frames: int, device: torch.device) -> Tensor:
        """Where on the circle each loop begins, int64 [B]: any of its frames is as likely as any other."""
        random = uniforms(seeds, codebook=START_STREAM, step=START_STREAM, frames=1, codes=1, device=device)
        return (random[:, 0, 0] * frames).long()

    def origin(self, frames: int, step: int) -> int:
        """The frame that predictions begin with at this step, counted over all codebooks."""
        return int(step * GOLDEN % 1 * frames)

    def views(self, frames: int, origin: int, device: torch.device) -> list[View]:
        """Views that together predict every frame of a loop once, in the order of the circle from `origin` on."""
        count = 1 if self.window - frames >= 2 * int(LEAST_ROOM * self.window) else 2
        views = []
        for number in range(count):
            first, end = number * frames // count, (number + 1) * frames // count
            before = (self.window - (end - first)) // 2
            places = torch.arange(self.window, device=device) + (origin + first - before)
            views.append(View(places % frames, slice(before, before + end - first)))
        return views


def turn(x: Tensor, by: Tensor) -> Tensor:
    """Begin each circle x[b] `by[b]` frames later. x: [B, K, T], by: int64 [B]. Returns [B, K, T]."""
    frames = (torch.arange(x.shape[-1], device=x.device) + by.view(-1, 1, 1)) % x.shape[-1]
    return x.gather(-1, frames.expand(-1, x.shape[1], -1))


# -- its length -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoopLength:
    """How long a loop is.

    bars: whole bars in it, None without a tempo; samples: its exact period; frames: what is decoded, the nearest
    number; stretch: what `fit_period` does to the time, and inversely to the pitch.
    """

    bars: int | None
    samples: int
    frames: int
    stretch: float

    @property
    def cents(self) -> float:
        """Change of pitch, in hundredths of a semitone."""
        return -1200 * math.log2(self.stretch)


def loop_length(
    bpm: float | None,
    bars: int | None,
    *,
    sample_rate: int,
    hop: int,
    clip_frames: int,
    beats_per_bar: int = 4,
) -> LoopLength:
    """Length of a loop of whole bars.

    The period is exact to half a sample. Frames of `hop` samples do not divide it, so the nearest number of them is
    decoded, and `fit_period` takes the rest: at most half a frame in all. Without `bars`, the largest power of two
    that the model's clip of `clip_frames` has room for; without `bpm`, the whole clip. Raises UsageError.
    """
    if bpm is None:
        if bars is not None:
            raise UsageError("a number of bars needs a tempo", "Give --bpm too, e.g. --bpm 120")
        return LoopLength(None, clip_frames * hop, clip_frames, 1.0)
    if not SLOWEST <= bpm <= FASTEST:
        raise UsageError(f"a tempo lies between {SLOWEST:g} and {FASTEST:g} bpm, not {bpm:g}", "Give e.g. --bpm 120")
    if not 1 <= beats_per_bar <= MOST_BEATS:
        raise UsageError(f"a bar has 1 to {MOST_BEATS} beats, not {beats_per_bar}", "Give e.g. 4")
    bar = beats_per_bar * 60 * sample_rate / bpm  # samples
    # Half a frame more than the clip is still decoded as the clip's frames.
    fitting = int((clip_frames + 0.5) * hop / bar)
    if fitting < 1:
        raise UsageError(
            f"a bar at {bpm:g} bpm lasts {bar / sample_rate:.3g} s, "
            f"the model's clip {clip_frames * hop / sample_rate:g} s",
            "Give a higher tempo, or choose a model with longer clips, such as magnet-small-30secs",
        )
    if bars is None:
        bars = 1 << (fitting.bit_length() - 1)
    if not 1 <= bars <= fitting:
        raise UsageError(
            f"the model's clip has room for 1 to {fitting} bars at {bpm:g} bpm, not {bars}", f"Give --bars {fitting}"
        )
    samples = round(bars * bar)
    if samples < SHORTEST_LOOP * sample_rate:
        raise UsageError(
            f"{bars} bars at {bpm:g} bpm last {samples / sample_rate:.3g} s; a loop needs {SHORTEST_LOOP:g} s",
            "Give more bars",
        )
    frames = min(round(samples / hop), clip_frames)
    return LoopLength(bars, samples, frames, samples / (frames * hop))


# -- how well it closes -----------------------------------------------------------------------------------------------

PLACE = 0.020  # seconds from one place that is measured to the next: a frame, as the codec has a rhythm of its own
JUMP_WINDOW = 0.001  # seconds either way of a place: a click is at the seam, to a sample
FLUX_WINDOW = 0.040  # seconds


@dataclass(frozen=True, eq=False)
class Closure:
    """How abrupt a repeated sound is at each place of it, every PLACE seconds, the seam first.

    jump: float64 [P], how far a sample is from where its neighbours lead, as it is at a click;
    flux: float64 [P], how much the spectrum grows from just before the place to just after it.
    """

    jump: NDArray[np.float64]
    flux: NDArray[np.float64]

    @property
    def seam_jump(self) -> float:
        """Share of the places that are less abrupt than the seam, 0 to 1."""
        return _rank(self.jump)

    @property
    def seam_flux(self) -> float:
        """Share of the places at which the spectrum grows less than at the seam, 0 to 1."""
        return _rank(self.flux)


def closure(waveform: Waveform, sample_rate: int) -> Closure:
    """Measure a waveform [C, L] as it sounds when it is repeated.

    At a seam that is a place like any other both ranks are anything from 0 to 1, as often one as the other; where it
    clicks, they are near 1.
    """
    sound = waveform.mean(axis=0, dtype=np.float64)
    places = max(len(sound) // round(PLACE * sample_rate), 1)
    centres = np.arange(places) * len(sound) // places
    third = sound
    for _ in range(3):  # the third difference: next to nothing for a wave, as large as the step for a step
        third = third - np.roll(third, 1)
    third = np.abs(np.roll(third, -1))  # the largest differences at a step are those of the sample before and after it
    half = max(round(JUMP_WINDOW * sample_rate), 1)
    near = third[(centres[:, None] + np.arange(-half, half)) % len(sound)]
    width = round(FLUX_WINDOW * sample_rate)
    window = np.hanning(width)
    before = np.abs(np.fft.rfft(sound[(centres[:, None] + np.arange(-width, 0)) % len(sound)] * window))
    after = np.abs(np.fft.rfft(sound[(centres[:, None] + np.arange(width)) % len(sound)] * window))
    growth = np.maximum(after - before, 0.0)
    return Closure(near.max(axis=1), np.sqrt((growth**2).sum(axis=1)))


def _rank(values: NDArray[np.float64]) -> float:
    others = values[1:]
    return float((others < values[0]).mean()) if others.size else 0.0
