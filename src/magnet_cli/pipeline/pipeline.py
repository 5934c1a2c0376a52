"""The whole chain: prompt -> text encoder -> masked decoder -> codec -> loudness -> clip."""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from magnet_cli.audio.files import write_audio
from magnet_cli.audio.loudness import Normalized, import_meters, normalize, remove_offset
from magnet_cli.audio.riff_info import LoopMarks
from magnet_cli.audio.splicing import prepare
from magnet_cli.checkpoints.bundle import Model
from magnet_cli.checkpoints.musicgen import MusicGenModel
from magnet_cli.checkpoints.open import open_any
from magnet_cli.checkpoints.parts import build_codec
from magnet_cli.decoding.masked import Known
from magnet_cli.engines.device import (
    decoded_together,
    memory_errors,
    resolve_device,
    resolve_dtype,
)
from magnet_cli.errors import MagnetWarning, MemoryShortageError, UsageError
from magnet_cli.hub.download import Downloading
from magnet_cli.hub.registry import DEFAULT_MODEL
from magnet_cli.model.codec import Codec
from magnet_cli.music.tempo import Tempo
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import Job, plan
from magnet_cli.options.output import OutputConfig, Subtype
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig
from magnet_cli.pipeline.build import ModelInfo, build_generator, check_codes, describe
from magnet_cli.pipeline.edits import Arrangement, Arranger
from magnet_cli.pipeline.events import (
    ClipFailed,
    Listener,
    OnDownload,
    OnFailure,
    OnStep,
    StepDone,
    TextEncoded,
    listener_of,
)
from magnet_cli.pipeline.generators import Generator
from magnet_cli.pipeline.inputs import InputFiles
from magnet_cli.pipeline.loops import at_rate, in_time, loop_marks
from magnet_cli.pipeline.rules import check_job, default_seconds
from magnet_cli.pipeline.waveforms import check_room, decode_waveforms


@dataclass(frozen=True, eq=False)
class Clip:
    """One finished clip.

    index: its job's place among the jobs; batch: how many clips were decoded together; codes: int16 [K, T]; audio: the
    waveform float32 [C, L], in a temporary file if it is long, with loudness and true peak before and after;
    sample_rate: Hz; tokens: number of tokens in the prompt; timings: seconds for each stage, shared by the clips of a
    batch; tempo: that of a loop as measured, None if no beat is clear; marks: what a WAV file says of a loop.
    """

    index: int
    job: Job
    batch: int
    codes: NDArray[np.int16]
    audio: Normalized
    sample_rate: int
    tokens: int
    timings: dict[str, float]
    tempo: Tempo | None = None
    marks: LoopMarks | None = None

    @property
    def waveform(self) -> NDArray[np.float32]:
        """The finished waveform, [C, L] between -1 and 1."""
        return self.audio.waveform

    @property
    def seconds(self) -> float:
        """Length of the waveform."""
        return self.waveform.shape[-1] / self.sample_rate

    def save(self, path: str | Path, *, subtype: Subtype = "pcm16", overwrite: bool = False) -> None:
        """Write the waveform, in the format that the extension of `path` names.

        Raises: OutputError for a file that exists (unless `overwrite`) or cannot be written.
        """
        write_audio(Path(path), self.waveform, self.sample_rate, subtype, overwrite=overwrite, marks=self.marks)


@dataclass(frozen=True)
class _Sound:
    """A decoded job: codes int16 [K, T]; tokens in its prompt; waveform float32 [C, L], before its level is set."""

    codes: NDArray[np.int16]
    tokens: int
    waveform: NDArray[np.float32]


@dataclass(frozen=True)
class Pipeline:
    """A loaded model: load once, generate many.

    helpers: models that help it, by role ("rescorer", "hybrid"). Threads may share a pipeline: it decodes one batch at
    a time while the others wait. Each batch needs memory of its own, and one batch uses all cores anyway.
    """

    source: Model | MusicGenModel
    helpers: Mapping[str, Model | MusicGenModel]
    info: ModelInfo
    generator: Generator
    codec: Codec
    arranger: Arranger
    batch_size: int
    # Held while a batch is decoded, never while a clip is yielded. The thread that holds it may take it again, so that
    # `on_step` may generate: the network's result for a step does not depend on the steps before.
    _turn: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)

    @classmethod
    def load(
        cls,
        model: str = DEFAULT_MODEL,
        runtime: RuntimeConfig | None = None,
        *,
        rescorer: str | None = None,
        hybrid: str | None = None,
        places: PlacesConfig | None = None,
        on_download: OnDownload | None = None,
    ) -> Pipeline:
        """Load a model by its short name, folder or Hub id; download it if it is not on this machine (see `open_any`).

        rescorer: a model that helps to rank codes; hybrid: a MusicGen that generates beginnings. Warns with
        MagnetWarning when there is no GPU.
        Raises: UsageError for models that do not go together, ModelError, HubError or DeviceError.
        """
        names = {"rescorer": rescorer, "hybrid": hybrid}

        def hear(event: Downloading) -> None:
            if on_download is not None:
                on_download(event.plan, event.done)

        source = open_any(model, places, listener=hear)
        opened = {role: open_any(name, places, listener=hear) for role, name in names.items() if name is not None}
        return cls.build(source, runtime, helpers=opened)

    @classmethod
    def build(
        cls,
        source: Model | MusicGenModel,
        runtime: RuntimeConfig | None = None,
        *,
        helpers: Mapping[str, Model | MusicGenModel] | None = None,
        inputs: InputFiles | None = None,
    ) -> Pipeline:
        """Build models whose parts have been read, on the requested device and in the requested precision.

        inputs: cached facts of the input files of clips.
        """
        runtime, helpers = runtime or RuntimeConfig(), helpers or {}
        device = resolve_device(runtime)
        dtype = resolve_dtype(runtime, device)
        if runtime.device == "auto" and device.type == "cpu":
            warnings.warn("no GPU found: running on the CPU, which is many times slower", MagnetWarning, stacklevel=2)
        check_codes(source, helpers)
        threading.Thread(target=import_meters).start()  # they are used at the very end
        info = describe(source, device, dtype, runtime)
        with memory_errors(device, "to load the model", dtype=info.dtype):
            generator = build_generator(source, helpers, device, dtype, runtime)
            codec = build_codec(source.codec, device)
        arranger = Arranger(
            codec,
            codebooks=info.codebooks,
            clip_seconds=info.clip_seconds,
            span=generator.span,
            default_seconds=default_seconds(source),
            inputs=inputs,
        )
        batch_size = runtime.batch_size or generator.fitting(codec.config, device, dtype)
        return cls(source, dict(helpers), info, generator, codec, arranger, batch_size)

    @property
    def frames(self) -> int:
        """Frames in a clip, T."""
        return int(self.info.clip_seconds * self.codec.config.frame_rate)

    def passes(self, jobs: Iterable[Job]) -> int:
        """How many passes through the network these jobs take, as far as is known beforehand."""
        return sum(self.generator.passes(job, self.arranger.length(job.edit)) for job in jobs)

    def generate(
        self,
        prompts: str | Job | Iterable[str | Job],
        *,
        seed: int | None = None,
        variations: int = 1,
        sampling: SamplingConfig | MusicGenSampling | None = None,
        edit: EditConfig | None = None,
        output: OutputConfig | None = None,
        known: Known | None = None,
        on_step: OnStep | None = None,
        on_failure: OnFailure | None = None,
        listener: Listener | None = None,
    ) -> Iterator[Clip]:
        """Generate clips, in order, each yielded as soon as its batch is done.

        prompts: texts, or jobs that carry their own seed and sampling options. For texts, variation k takes
        seed + k, and a seed is drawn when none is given; sampling defaults to what suits the model (`info.sampling`).
        known: codes to keep in every clip, e.g. from `continuation`. on_step: called after every step, with the clips
        that took it, while other threads wait for this pipeline: it must not wait for them. on_failure: called for a
        job that fails, with its place among the jobs; the others go on. Without it the first failure is raised.
        listener: hears of both, and of encoded prompts, as the events of `pipeline.events`; it raises what is to stop
        the rest. Where a batch needs more memory
        than there is, its clips are tried again, fewer at a time. Raises UsageError: at once for options that cannot
        work, with the first clip for known codes or a prompt that do not fit.

        A clip depends on its own job only. On a CPU its codes are the same in every batch and in any order, in every
        dtype, because it is computed alone. On a GPU each clip of a batch has its own random numbers and attends to its
        own text, but how its numbers are rounded depends on the size of the batch and on its longest prompt: a code can
        differ where two are about equally probable, in float16 and bfloat16 more often than in float32. Another device
        or number of threads can round differently, too.
        """
        sampling, output = sampling or self.info.sampling, output or OutputConfig()
        items = [prompts] if isinstance(prompts, (str, Job)) else list(prompts)
        if all(isinstance(item, Job) for item in items):
            jobs = [item for item in items if isinstance(item, Job)]
            if seed is not None or variations != 1 or edit is not None:
                raise UsageError(
                    "jobs have their own seeds and edits", "Leave out seed, variations and edit, or give texts"
                )
        elif all(isinstance(item, str) for item in items):
            jobs = plan([str(item) for item in items], sampling, seed=seed, variations=variations, edit=edit)
        else:
            raise UsageError("the prompts are neither all texts nor all jobs", "Give either texts or jobs")
        for job in jobs:
            check_job(job, self.source, self.helpers)
        if listener is not None and (on_step is not None or on_failure is not None):
            raise UsageError(
                "a listener also receives steps and failures", "Give the listener without on_step and on_failure"
            )
        return self._generate(jobs, output, known, listener or listener_of(on_step, on_failure))

    def _generate(
        self,
        jobs: Sequence[Job],
        output: OutputConfig,
        known: Known | None,
        listener: Listener,
    ) -> Iterator[Clip]:
        size = self.batch_size
        for _, group in groupby(range(len(jobs)), key=lambda index: jobs[index].kind):
            waiting = deque(group)
            suspects = 0  # of those waiting: one of these made a batch fail, and each is tried alone
            while waiting:
                batch = [waiting.popleft() for _ in range(1 if suspects else min(size, len(waiting)))]
                suspects = max(0, suspects - 1)
                try:
                    clips = list(self._generate_batch(jobs, batch, output, known, listener))
                except Exception as error:
                    if _is_final(error):
                        raise
                    if len(batch) == 1:
                        listener(ClipFailed(batch[0], error))
                        continue
                    waiting.extendleft(reversed(batch))
                    if isinstance(error, MemoryShortageError):
                        size = len(batch) // 2
                        with self._turn:  # nothing may be freed while another thread records a graph
                            torch.cuda.empty_cache()
                        fewer = f"continuing with {size} at a time"
                        warnings.warn(f"not enough memory for {len(batch)} clips at once: {fewer}", MagnetWarning, 2)
                    else:
                        suspects = len(batch)
                else:
                    yield from clips

    def _generate_batch(
        self,
        all_jobs: Sequence[Job],
        batch: Sequence[int],
        output: OutputConfig,
        known: Known | None,
        listener: Listener,
    ) -> Iterator[Clip]:
        """Clips of the jobs whose indices `batch` holds; these jobs are of one kind."""
        jobs = [all_jobs[index] for index in batch]
        sounds: list[_Sound] = []
        with self._turn, memory_errors(self.codec.device, f"for a batch of {len(jobs)}", dtype=self.info.dtype):
            clock = Stopwatch()
            arrangements = [self.arranger.arrange(job) for job in jobs]
            check_room(self.codec, len(jobs), arrangements[0].frames)
            size = decoded_together(self.codec.device, len(jobs))
            for first in range(0, len(jobs), size):
                part = slice(first, first + size)
                given = known if known is None or len(known.codes) != len(jobs) else known.rows(part)
                sounds += self._decode(jobs[part], arrangements[part], given, listener, clock)
        for row, job in enumerate(jobs):
            own, sound = Stopwatch(), sounds.pop(0)  # a long one takes disk space until it is dropped
            kind = output.normalize
            if kind == "auto":
                kind = "none" if job.edit.keeps_samples else "loudness"
            # The offset goes first, so that fades end at zero.
            raw = remove_offset(sound.waveform, self.info.sample_rate) if kind == "loudness" else sound.waveform
            waveform, rate = arrangements[row].finish(raw)
            tempo = None
            if arrangements[row].loop is not None:
                waveform, tempo = in_time(waveform, rate, arrangements[row], job.edit.bpm)
            if output.sample_rate is not None:
                waveform, rate = at_rate(waveform, rate, output.sample_rate, arrangements[row]), output.sample_rate
            audio = level(waveform, rate, replace(output, normalize=kind), loop=job.edit.loop)
            own.lap("loudness")
            yield Clip(
                index=batch[row],
                job=job,
                batch=len(jobs),
                codes=sound.codes,
                audio=audio,
                sample_rate=rate,
                tokens=sound.tokens,
                timings=clock.laps | own.laps,
                tempo=tempo,
                marks=loop_marks(arrangements[row], job.edit.bpm),
            )

    def _decode(
        self,
        jobs: Sequence[Job],
        arrangements: Sequence[Arrangement],
        known: Known | None,
        listener: Listener,
        clock: Stopwatch,
    ) -> Iterator[_Sound]:
        """Decode these jobs together."""

        def hear(event: TextEncoded | StepDone) -> None:
            if isinstance(event, TextEncoded):
                clock.lap("text")
            listener(event)

        codes, tokens = self.generator.codes(jobs, arrangements, known=known, listener=hear)
        codes = codes.cpu()  # waits for the device, so that the lap is honest
        clock.lap("decode")
        waveforms = decode_waveforms(self.codec, codes, loop=arrangements[0].loop is not None)
        clock.lap("codec")
        arrays = codes.numpy().astype(np.int16)
        return (_Sound(*sound) for sound in zip(arrays, tokens, waveforms, strict=True))

    def continuation(self, waveform: NDArray[np.floating[Any]], sample_rate: int) -> Known:
        """Known codes that make clips begin with this audio.

        waveform: floats [C, L] or [L] with full scale at 1, at any sample_rate (Hz).
        Raises: UsageError for an array that is no waveform, or is as long as a clip.
        """
        sound = prepare(waveform, sample_rate, self.codec.config)
        with self._turn:
            codes: Tensor = self.codec.encode(sound)[:, : self.info.codebooks]
        return Known.prefix(codes, self.frames)


def level(waveform: NDArray[np.float32], sample_rate: int, output: OutputConfig, *, loop: bool) -> Normalized:
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


def _is_final(error: Exception) -> bool:
    """Whether no further work is possible: after a GPU fault, the process cannot use the GPU any more."""
    return isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)
