"""A decoded clip that is not finished, and what is left to do for it: its length, its place in time and its level."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from magnet_cli.audio.blocks import BLOCK, Waveform
from magnet_cli.audio.loudness import Normalized, normalize, remove_offset
from magnet_cli.options.job import Job
from magnet_cli.options.output import OutputConfig
from magnet_cli.pipeline.clip import Clip
from magnet_cli.pipeline.edits import Arrangement
from magnet_cli.pipeline.inputs import InputFiles
from magnet_cli.pipeline.loops import at_rate, in_time, loop_marks
from magnet_cli.pipeline.record import Provenance, input_of


@dataclass(frozen=True, eq=False)
class Sound:
    """A decoded job: codes int16 [K, T]; tokens in its prompt; waveform float32 [C, L], before its level is set.

    passes: steps that the networks took for it and for those that were decoded with it.
    """

    codes: NDArray[np.int16]
    tokens: int
    waveform: Waveform
    passes: int


@dataclass(frozen=True, eq=False)
class Draft:
    """A decoded clip. `finish` needs no model: any thread may call it while the model decodes other clips.

    index, job, batch: as in Clip. sample_rate: of the sound, Hz. timings: seconds for each stage so far. output: as it
    was asked for. inputs: the files that clips start from. unknown_words: of its
    texts. provenance: the models.
    """

    index: int
    job: Job
    batch: int
    sound: Sound
    arrangement: Arrangement
    sample_rate: int
    timings: Mapping[str, float]
    output: OutputConfig
    inputs: InputFiles
    unknown_words: tuple[str, ...]
    provenance: Provenance

    @property
    def is_long(self) -> bool:
        """Whether it is longer than one block: finishing it takes seconds, and may take disk space."""
        return self.sound.waveform.shape[1] > BLOCK

    def finish(self) -> Clip:
        """The finished clip: NumericsError or OutputError where that is not possible."""
        clock, edit, output, arrangement = Stopwatch(), self.job.edit, self.output, self.arrangement
        kind = output.normalize
        if kind == "auto":
            kind = "none" if edit.keeps_samples else "loudness"
        raw = self.sound.waveform
        # The offset goes first, so that fades end at zero.
        waveform, rate = arrangement.finish(remove_offset(raw, self.sample_rate) if kind == "loudness" else raw)
        tempo = None
        if arrangement.loop is not None:
            waveform, tempo = in_time(waveform, rate, arrangement, edit.bpm)
        if output.sample_rate is not None:
            waveform, rate = at_rate(waveform, rate, output.sample_rate, arrangement), output.sample_rate
        audio = level(waveform, rate, replace(output, normalize=kind), loop=edit.loop)
        clock.lap("loudness")
        return Clip(
            index=self.index,
            job=self.job,
            batch=self.batch,
            codes=self.sound.codes,
            audio=audio,
            sample_rate=rate,
            tokens=self.sound.tokens,
            timings={**self.timings, **clock.laps},
            unknown_words=self.unknown_words,
            tempo=tempo,
            passes=self.sound.passes,
            marks=loop_marks(arrangement, edit.bpm),
            output=self.inputs.output(output, edit.input, ".wav"),
            input=input_of(edit, self.inputs),
            provenance=self.provenance,
        )


def level(waveform: Waveform, sample_rate: int, output: OutputConfig, *, loop: bool) -> Normalized:
    """Set the level of a waveform [C, L]; that of a loop as it sounds when it is repeated."""
    if not loop:
        return normalize(waveform, sample_rate, output)
    # The limiter looks ahead and recovers: in the middle of three rounds it does so across the seam.
    rounds = normalize(np.tile(waveform, (1, 3)), sample_rate, output)
    return replace(rounds, waveform=np.ascontiguousarray(np.split(rounds.waveform, 3, axis=1)[1]))


class Stopwatch:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._started = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Add the time since the last lap to this stage."""
        now = time.perf_counter()
        self.laps[stage] = self.laps.get(stage, 0.0) + now - self._started
        self._started = now
