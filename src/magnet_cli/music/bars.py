"""The length of a loop: whole bars at a tempo, in samples and in frames."""

from __future__ import annotations

import math
from dataclasses import dataclass

from magnet_cli.errors import UsageError
from magnet_cli.options.edit import EditConfig

SHORTEST_LOOP = 0.5  # seconds; below, rounding to whole frames shifts the pitch by more than a third of a semitone
SLOWEST, FASTEST = 20.0, 400.0  # beats per minute
MOST_BEATS = 32  # in a bar
ROUNDED = 0.02  # seconds by which a file of whole bars may be longer or shorter: other programs round to frames


@dataclass(frozen=True)
class LoopLength:
    """How long a loop is.

    bars: whole bars in it, None without a tempo; seconds: its exact period; samples: the period in samples, rounded;
    frames: the nearest number of frames, which is decoded; stretch: the factor by which `fit_period` lengthens the
    decoded frames, and lowers their pitch.
    """

    bars: int | None
    seconds: float
    samples: int
    frames: int
    stretch: float

    @property
    def cents(self) -> float:
        """Change of pitch, in hundredths of a semitone."""
        return -1200 * math.log2(self.stretch)


def period_of(
    edit: EditConfig, *, sample_rate: int, frame_rate: float, clip_frames: int, input_seconds: float | None = None
) -> LoopLength:
    """Length of the loop that an edit asks for, of a model with clips of `clip_frames`.

    input_seconds: length of the --inpaint file, which is the loop.
    Raises: UsageError for a loop that does not fit the model, or a file that has other than whole bars.
    """
    hop = round(sample_rate / frame_rate)
    seconds = edit.duration if edit.inpaint is None else input_seconds
    if seconds is None:
        return loop_length(edit.bpm, edit.bars, sample_rate=sample_rate, hop=hop, clip_frames=clip_frames)
    samples = round(seconds * sample_rate)
    frames = round(samples / hop)
    if not SHORTEST_LOOP * sample_rate <= samples or frames > clip_frames:
        longest = clip_frames * hop / sample_rate
        raise UsageError(
            f"a loop lasts from {SHORTEST_LOOP:g} s to the {longest:g} s of the model's clips, not {seconds:g}",
            "Give another --duration" if edit.inpaint is None else "Give a shorter loop, or leave --loop out",
        )
    bars = None if edit.bpm is None else whole_bars(edit.bpm, edit.bars, seconds)
    return LoopLength(bars, seconds, samples, frames, samples / (frames * hop))


def whole_bars(bpm: float, bars: int | None, seconds: float) -> int:
    """Bars of four beats in a loop of so many seconds. UsageError unless they are whole, and as many as asked for."""
    found = round(seconds * bpm / 240)
    if found < 1 or abs(found * 240 / bpm - seconds) > ROUNDED or bars not in (None, found):
        wanted = "a whole number of bars" if bars is None else f"{bars} bars"
        raise UsageError(
            f"the loop lasts {seconds:g} s, which is not {wanted} at {bpm:g} bpm", "Give the tempo that the loop has"
        )
    return found


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
    that fits into the model's clip of `clip_frames`; without `bpm`, the whole clip.
    Raises: UsageError for a tempo or a number of bars that does not fit.
    """
    if bpm is None:
        if bars is not None:
            raise UsageError("a number of bars needs a tempo", "Give --bpm too, e.g. --bpm 120")
        return LoopLength(None, clip_frames * hop / sample_rate, clip_frames * hop, clip_frames, 1.0)
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
    largest = 1 << (fitting.bit_length() - 1)  # phrases have 1, 2, 4, 8, ... bars
    bars = largest if bars is None else bars
    if not 1 <= bars <= fitting:
        raise UsageError(
            f"the model's clip has room for 1 to {fitting} bars at {bpm:g} bpm, not {bars}",
            f"Give --bars {largest}, or choose a model with longer clips"
            if bars > fitting
            else "Give at least --bars 1",
        )
    samples = round(bars * bar)
    if samples < SHORTEST_LOOP * sample_rate:
        raise UsageError(
            f"{bars} bars at {bpm:g} bpm last {samples / sample_rate:.3g} s; a loop needs {SHORTEST_LOOP:g} s",
            "Give more bars",
        )
    frames = min(round(samples / hop), clip_frames)
    return LoopLength(bars, bars * bar / sample_rate, samples, frames, samples / (frames * hop))
