"""The whole chain: prompt -> text encoder -> masked decoder -> codec -> loudness -> clip."""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from magnet_cli.audio.files import write_audio
from magnet_cli.audio.loudness import Normalized, import_meters, normalize, remove_offset
from magnet_cli.audio.splicing import prepare
from magnet_cli.checkpoints.bundle import Model
from magnet_cli.checkpoints.musicgen import MusicGenModel
from magnet_cli.checkpoints.open import OnDownload, open_any
from magnet_cli.checkpoints.parts import build_codec
from magnet_cli.decoding.masked import Known
from magnet_cli.engines.device import automatic_batch_size, memory_errors, resolve_device, resolve_dtype
from magnet_cli.errors import MagnetWarning, MemoryShortageError, UsageError
from magnet_cli.hub.registry import DEFAULT_MODEL, MUSICGEN_SECONDS
from magnet_cli.model.codec import Codec
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import Job, plan
from magnet_cli.options.output import OutputConfig, Subtype
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig
from magnet_cli.pipeline.build import ModelInfo, build_generator, check_helpers, check_job, codec_of, describe
from magnet_cli.pipeline.edits import Arranger
from magnet_cli.pipeline.generators import Generator, Progress
from magnet_cli.pipeline.waveforms import check_room, decode_waveforms

OnStep = Callable[[Progress, Sequence[Job]], None]
OnFailure = Callable[[int, Exception], None]


@dataclass(frozen=True, eq=False)
class Clip:
    """One finished clip.

    index: its job's place among the jobs; batch: how many clips were decoded together; codes: int16 [K, T]; audio: the
    waveform float32 [C, L], with loudness and true peak before and after, which of a long clip lies in a temporary
    file; sample_rate: Hz; tokens: those of the prompt; timings: seconds for each stage, shared by the clips of a batch.
    """

    index: int
    job: Job
    batch: int
    codes: NDArray[np.int16]
    audio: Normalized
    sample_rate: int
    tokens: int
    timings: dict[str, float]

    @property
    def waveform(self) -> NDArray[np.float32]:
        """The finished waveform, [C, L] between -1 and 1."""
        return self.audio.waveform

    @property
    def seconds(self) -> float:
        """Length of the waveform."""
        return self.waveform.shape[-1] / self.sample_rate

    def save(self, path: str | Path, *, subtype: Subtype = "pcm16", overwrite: bool = False) -> None:
        """Write the waveform, in the format of the path's extension. OutputError if it exists or cannot be written."""
        write_audio(Path(path), self.waveform, self.sample_rate, subtype, overwrite=overwrite)


@dataclass(frozen=True)
class Pipeline:
    """A loaded model: load once, generate many.

    helpers: models that help it, by what they do ("rescorer", "hybrid").
    """

    source: Model | MusicGenModel
    helpers: Mapping[str, Model | MusicGenModel]
    info: ModelInfo
    generator: Generator
    codec: Codec
    arranger: Arranger
    batch_size: int

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
        """Load a model by its short name, folder or Hub id, downloading it unless it is here (see `open_any`).

        rescorer: a model that helps to rank what is kept; hybrid: a MusicGen that makes beginnings. Raises UsageError
        for models that do not go together, ModelError, HubError or DeviceError. Warns with MagnetWarning when the CPU
        stands in for a GPU.
        """
        names = {"rescorer": rescorer, "hybrid": hybrid}
        source = open_any(model, places, on_download=on_download)
        opened = {
            role: open_any(name, places, on_download=on_download) for role, name in names.items() if name is not None
        }
        return cls.build(source, runtime, helpers=opened)

    @classmethod
    def build(
        cls,
        source: Model | MusicGenModel,
        runtime: RuntimeConfig | None = None,
        *,
        helpers: Mapping[str, Model | MusicGenModel] | None = None,
    ) -> Pipeline:
        """Build models whose parts have been read, on the device and in the precision that are asked for."""
        runtime, helpers = runtime or RuntimeConfig(), helpers or {}
        device = resolve_device(runtime)
        dtype = resolve_dtype(runtime, device)
        if runtime.device == "auto" and device.type == "cpu":
            warnings.warn("no GPU found: running on the CPU, which is many times slower", MagnetWarning, stacklevel=2)
        check_helpers(source, helpers)
        threading.Thread(target=import_meters).start()  # they are used at the very end
        with memory_errors(device, "to load the model"):
            generator = build_generator(source, helpers, device, dtype, runtime)
            codec = build_codec(codec_of(source), device)
        info = describe(source, device, dtype, runtime)
        decoder = source.decoder.config if isinstance(source, Model) else None
        arranger = Arranger(
            codec,
            codebooks=info.codebooks,
            clip_seconds=info.clip_seconds,
            span=decoder.span_length if decoder else 1,
            default_seconds=None if decoder else MUSICGEN_SECONDS,
        )
        automatic = automatic_batch_size(decoder, codec.config, device, dtype) if decoder else 1
        return cls(source, dict(helpers), info, generator, codec, arranger, runtime.batch_size or automatic)

    @property
    def frames(self) -> int:
        """Frames in a clip, T."""
        return int(self.info.clip_seconds * self.codec.config.frame_rate)

    def passes(self, jobs: Iterable[Job]) -> int:
        """How many passes through the network these jobs take, as far as that is known beforehand."""
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
    ) -> Iterator[Clip]:
        """Generate clips, in order, each yielded as soon as its batch is done.

        prompts: texts, or jobs that carry their own seed and sampling options. For texts, variation k takes
        seed + k, and a seed is drawn when none is given; sampling defaults to what suits the model (`info.sampling`).
        known: codes to keep in every clip, e.g. from `continuation`. on_failure: called for a job that fails, with its
        place among the jobs; the others go on. Without it the first failure is raised. Where a batch needs more memory
        than there is, its clips are tried again, fewer at a time. Raises UsageError: at once for options that cannot
        work, with the first clip for known codes or a prompt that do not fit.
        """
        sampling, output = sampling or self.info.sampling, output or OutputConfig()
        items = [prompts] if isinstance(prompts, (str, Job)) else list(prompts)
        if all(isinstance(item, Job) for item in items):
            jobs = [item for item in items if isinstance(item, Job)]
            if seed is not None or variations != 1 or edit is not None:
                raise UsageError("jobs carry their own seeds and edits", "Leave them out, or give texts")
        elif all(isinstance(item, str) for item in items):
            jobs = plan([str(item) for item in items], sampling, seed=seed, variations=variations, edit=edit)
        else:
            raise UsageError("prompts are neither all texts nor all jobs", "Make a Job of every prompt")
        for job in jobs:
            check_job(job, self.source, self.helpers)
        return self._generate(jobs, output, known, on_step, on_failure)

    def _generate(
        self,
        jobs: Sequence[Job],
        output: OutputConfig,
        known: Known | None,
        on_step: OnStep | None,
        on_failure: OnFailure | None,
    ) -> Iterator[Clip]:
        size = self.batch_size
        for _, group in groupby(range(len(jobs)), key=lambda index: jobs[index].kind):
            waiting = deque(group)
            suspects = 0  # of those waiting: one of these made a batch fail, and each is tried alone
            while waiting:
                batch = [waiting.popleft() for _ in range(1 if suspects else min(size, len(waiting)))]
                suspects = max(0, suspects - 1)
                try:
                    clips = list(self._generate_batch(jobs, batch, output, known, on_step))
                except Exception as error:
                    if len(batch) == 1 and on_failure is not None and not _is_final(error):
                        on_failure(batch[0], error)
                        continue
                    if len(batch) == 1 or _is_final(error):
                        raise
                    waiting.extendleft(reversed(batch))
                    if isinstance(error, MemoryShortageError):
                        size = len(batch) // 2
                        torch.cuda.empty_cache()
                        fewer = f"going on with {size} at a time"
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
        on_step: OnStep | None,
    ) -> Iterator[Clip]:
        """Clips of those jobs that the batch names, which are of one kind."""
        clock = Stopwatch()
        jobs = [all_jobs[index] for index in batch]
        with memory_errors(self.codec.device, f"for a batch of {len(jobs)}"):
            arrangements = [self.arranger.arrange(job) for job in jobs]
            check_room(self.codec, len(jobs), arrangements[0].frames)
            codes, tokens = self.generator.codes(
                jobs,
                arrangements,
                known=known,
                on_progress=lambda progress: None if on_step is None else on_step(progress, jobs),
                on_text=lambda: clock.lap("text"),
            )
            codes = codes.cpu()  # waits for the device, so that the lap is honest
            clock.lap("decode")
            waveforms = decode_waveforms(self.codec, codes, loop=arrangements[0].loop is not None)
            clock.lap("codec")
        for row, job in enumerate(jobs):
            clock.start()
            kind = output.normalize
            if kind == "auto":
                kind = "none" if job.edit.keeps_samples else "loudness"
            # The offset goes first, so that fades end at zero.
            raw = waveforms.pop(0)  # a long one takes room on the disk
            if kind == "loudness":
                raw = remove_offset(raw, self.info.sample_rate)
            waveform, rate = arrangements[row].finish(raw)
            audio = level(waveform, rate, replace(output, normalize=kind), loop=job.edit.loop)
            clock.lap("loudness")
            yield Clip(
                index=batch[row],
                job=job,
                batch=len(jobs),
                codes=codes[row].numpy().astype(np.int16),
                audio=audio,
                sample_rate=rate,
                tokens=tokens[row],
                timings=dict(clock.laps),
            )

    def continuation(self, waveform: NDArray[np.floating[Any]], sample_rate: int) -> Known:
        """Known codes that make clips begin with this audio.

        waveform: floats [C, L] or [L] with full scale at 1, at any sample_rate (Hz). Raises UsageError for what is no
        waveform, or is as long as a clip.
        """
        sound = prepare(waveform, sample_rate, self.codec.config)
        codes: Tensor = self.codec.encode(sound)[:, : self.info.codebooks]
        return Known.prefix(codes, self.frames)


def level(waveform: NDArray[np.float32], sample_rate: int, output: OutputConfig, *, loop: bool) -> Normalized:
    """Bring a waveform [C, L] to its level; a loop as it sounds when it is repeated."""
    if not loop:
        return normalize(waveform, sample_rate, output)
    # The limiter looks ahead and recovers: in the middle of three rounds it does so across the seam.
    rounds = normalize(np.tile(waveform, (1, 3)), sample_rate, output)
    return replace(rounds, waveform=np.ascontiguousarray(np.split(rounds.waveform, 3, axis=1)[1]))


class Stopwatch:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.start()

    def start(self) -> None:
        """Leave out the time until now."""
        self._started = time.perf_counter()

    def lap(self, stage: str) -> None:
        """The time since the last lap was this stage's."""
        now = time.perf_counter()
        self.laps[stage] = now - self._started
        self._started = now


def _is_final(error: Exception) -> bool:
    """Whether nothing can be computed after it: a fault of the GPU stays with the process."""
    return isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)
