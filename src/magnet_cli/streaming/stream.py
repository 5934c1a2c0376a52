"""Music without an end: window after window, each of which begins with the codes that end the one before.

Windows are decoded when the codec needs their codes, so memory does not grow. With one prompt, the codes are those of a
long clip with the same seed, window by window. A new prompt takes effect at the next window: the codes that both share
belong to the old one, and the model continues them with the new.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from magnet_cli.audio.blocks import Waveform
from magnet_cli.errors import UsageError
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import Job
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.sampling import SamplingConfig
from magnet_cli.pipeline.events import StepDone, TextEncoded
from magnet_cli.pipeline.pipeline import Pipeline
from magnet_cli.streaming.level import SteadyLevel
from magnet_cli.streaming.pace import Pace

PIECE = 1.0  # seconds that go out at once
REMEMBERED_WINDOWS = 1_000  # whose hashes are kept: more than wait to be heard at any time


class StreamStopped(Exception):  # noqa: N818, nothing is wrong
    """The stream was stopped while it decoded a window."""


@dataclass(frozen=True)
class Turning:
    """What a window and those after it are decoded with. window: its number; steps: for each codebook."""

    window: int
    prompt: str
    steps: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """What a stream is made from.

    prompt, seed, sampling  as for a clip; the prompt may be changed later
    edit                    whether there is a text to steer away from, or none at all
    overlap                 frames that two windows share
    output                  loudness and ceiling
    script                  of a replay: what each window is decoded with, from the number of the first on
    """

    prompt: str
    seed: int
    sampling: SamplingConfig
    edit: EditConfig
    overlap: int
    output: OutputConfig
    script: tuple[Turning, ...] = ()


class Stream:
    """A stream of music. One thread iterates over it; another may change its prompt and stop it.

    ahead: returns how many seconds of music wait to be heard; None: as fast as it goes, with all steps. turned: called
    with what a window is decoded with, where that differs from the one before.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        plan: StreamPlan,
        *,
        ahead: Callable[[], float | None] = lambda: None,
        turned: Callable[[Turning], None] = lambda turning: None,
    ) -> None:
        self._pipeline, self._plan, self._ahead, self._turned = pipeline, plan, ahead, turned
        self._window = pipeline.frames
        if not 0 < plan.overlap < self._window:
            raise UsageError(f"an overlap of {plan.overlap} frames does not fit", f"Give 1 to {self._window - 1}")
        self._prompt = plan.prompt
        self._codes = torch.empty(1, pipeline.info.codebooks, 0, dtype=torch.long)  # that the codec may still need
        self._first = 0  # number of the first of these frames
        self._last: Tensor | None = None  # the window before, of which the codec may have used all
        self._made = 0  # frames that are decoded
        self._windows = 0
        self._hash = hashlib.sha256()
        self._hashes: dict[int, str] = {}
        self._stopping = threading.Event()
        self._pace = Pace()
        self._busy = self._decoding = self._before = 0.0  # seconds of all work, of decoding, and of the rest until then
        self._turnings: list[Turning] = []
        self._job(plan.prompt, plan.sampling.steps)  # which raises for a prompt that cannot be

    @property
    def prompt(self) -> str:
        """What the next window plays. Setting it raises UsageError for a prompt that is not possible."""
        return self._prompt

    @prompt.setter
    def prompt(self, prompt: str) -> None:
        self._job(prompt, self._plan.sampling.steps)
        self._prompt = prompt

    @property
    def turnings(self) -> list[Turning]:
        """What the windows so far were decoded with: an entry where something changed."""
        return list(self._turnings)

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self._pipeline.info.sample_rate

    @property
    def channels(self) -> int:
        """C."""
        return self._pipeline.codec.config.channels

    def stop(self) -> None:
        """End after the decoding step that is under way. Another thread may call it."""
        self._stopping.set()

    def window_at(self, seconds: float) -> int:
        """The number of the window that the sound at this time is from."""
        frame = max(0, round(seconds * self._pipeline.codec.config.frame_rate) - 1)
        return 0 if frame < self._window else 1 + (frame - self._window) // (self._window - self._plan.overlap)

    def seconds_at(self, window: int) -> float:
        """The time at which a window is first heard."""
        frames = 0 if window == 0 else self._window + (window - 1) * (self._window - self._plan.overlap)
        return frames / self._pipeline.codec.config.frame_rate

    def codes_hash(self, window: int) -> str | None:
        """SHA-256 of the codes up to the end of a window, int16 frame by frame; None if it is not known any more."""
        return self._hashes.get(window)

    def __iter__(self) -> Iterator[Waveform]:
        """The finished waveform [C, L], a second at a time, without end. Raises StreamStopped."""
        rate = self._pipeline.codec.config.frame_rate
        level = SteadyLevel(self.sample_rate, self._plan.output)
        pieces = self._pipeline.decode_endless(self._source, piece=max(1, round(PIECE * rate)))
        while True:
            started = time.perf_counter()
            ready = level.push(next(pieces))
            self._busy += time.perf_counter() - started
            yield from ready

    def _source(self, first: int, last: int) -> Tensor:
        """The codes of frames `first` to `last`; see Codec.decode_endless."""
        while self._made < last:
            self._decode_window()
        self._codes = self._codes[..., first - self._first :]
        self._first = first
        return self._codes[..., : last - first]

    def _decode_window(self) -> None:
        number, plan = self._windows, self._plan
        turning = self._turning(number)
        before = None if self._last is None else self._last[..., -plan.overlap :]
        if not self._turnings or (turning.prompt, turning.steps) != (
            self._turnings[-1].prompt,
            self._turnings[-1].steps,
        ):
            self._turnings.append(turning)
            self._turned(turning)
        started, others = time.perf_counter(), self._busy - self._decoding
        codes = self._pipeline.decode_window(
            self._job(turning.prompt, turning.steps),
            before,
            first_frame=0 if before is None else self._made - plan.overlap,
            listener=self._hear,
        )
        # The time of a window is that of its steps, and of the codec and the level since the window before.
        took = time.perf_counter() - started
        self._pace.observe(turning.steps, took + others - self._before)
        self._decoding, self._before = self._decoding + took, others
        new = codes if before is None else codes[..., plan.overlap :]
        self._last = codes
        self._codes = torch.cat([self._codes, new], dim=-1)
        self._made += new.shape[-1]
        self._windows += 1
        self._hash.update(np.ascontiguousarray(new[0].numpy().T, dtype="<i2").tobytes())
        self._hashes[number] = self._hash.hexdigest()
        self._hashes.pop(number - REMEMBERED_WINDOWS, None)

    def _turning(self, number: int) -> Turning:
        """What a window is decoded with."""
        script = [one for one in self._plan.script if one.window <= number]
        if script:
            return replace(script[-1], window=number)
        return Turning(number, self._prompt, self._pace.choose(self._plan.sampling.steps, self._ahead()))

    def _job(self, prompt: str, steps: tuple[int, ...]) -> Job:
        return Job(prompt, self._plan.seed, replace(self._plan.sampling, steps=steps), self._plan.edit)

    def _hear(self, event: TextEncoded | StepDone) -> None:
        if self._stopping.is_set():
            raise StreamStopped
