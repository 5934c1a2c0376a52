"""The whole chain: prompt -> text encoder -> masked decoder -> codec -> loudness -> clip."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from torch import Tensor

from magnet_cli.audio import write_audio
from magnet_cli.bundle import Model
from magnet_cli.checkpoint import CodecCheckpoint, DecoderCheckpoint, build_codec, build_decoder
from magnet_cli.codec import Codec
from magnet_cli.config import (
    OutputConfig,
    PlacesConfig,
    RuntimeConfig,
    SamplingConfig,
    Subtype,
    Task,
    check_duration,
    check_steps,
)
from magnet_cli.decode import Known, Step, decode
from magnet_cli.device import automatic_batch_size, memory_errors, processor_name, resolve_device, resolve_dtype
from magnet_cli.errors import MagnetWarning, MemoryShortageError, ModelError, UsageError
from magnet_cli.loudness import Normalized, normalize, remove_offset, trim
from magnet_cli.models import OnDownload, open_model
from magnet_cli.prompts import Job, plan
from magnet_cli.registry import DEFAULT_MODEL
from magnet_cli.text import TextEncoder
from magnet_cli.transformer import MaskedTransformer

MOST_CHANNELS = 64  # more, and the array is likely [L, C]

OnStep = Callable[[Step, Sequence[Job]], None]
OnFailure = Callable[[int, Exception], None]


@dataclass(frozen=True)
class ModelInfo:
    """What is loaded and where it runs. `clip_seconds` is the length its checkpoint names; `sample_rate` is in Hz."""

    name: str
    folder: Path
    repository: str | None
    revision: str | None
    licence: str
    task: Task
    clip_seconds: float
    sample_rate: int
    codebooks: int
    text_encoder: str
    sampling: SamplingConfig
    device: str
    dtype: str
    processor: str


@dataclass(frozen=True, eq=False)
class Clip:
    """One finished clip.

    index: its job's place among the jobs; batch: how many clips were decoded together; codes: int16 [K, T]; audio: the
    waveform float32 [C, L], with loudness and true peak before and after; sample_rate: Hz; tokens: those of the prompt;
    timings: seconds for each stage, shared by the clips of a batch.
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
    """A loaded model: load once, generate many."""

    source: Model
    info: ModelInfo
    text_encoder: TextEncoder
    decoder: MaskedTransformer
    codec: Codec
    batch_size: int

    @classmethod
    def load(
        cls,
        model: str = DEFAULT_MODEL,
        runtime: RuntimeConfig | None = None,
        *,
        places: PlacesConfig | None = None,
        on_download: OnDownload | None = None,
    ) -> Pipeline:
        """Load a model by its short name, folder or Hub id, downloading it unless it is here (see `open_model`).

        Raises ModelError, HubError or DeviceError. Warns with MagnetWarning when the CPU stands in for a GPU.
        """
        return cls.build(open_model(model, places, on_download=on_download), runtime)

    @classmethod
    def build(cls, source: Model, runtime: RuntimeConfig | None = None) -> Pipeline:
        """Build a model whose parts have been read, on the device and in the precision that are asked for."""
        runtime = runtime or RuntimeConfig()
        device = resolve_device(runtime)
        dtype = resolve_dtype(runtime, device)
        if runtime.device == "auto" and device.type == "cpu":
            warnings.warn("no GPU found: running on the CPU, which is many times slower", MagnetWarning, stacklevel=2)
        checkpoint, text_folder = source.decoder, source.text_folder
        _check_codec(checkpoint, source.codec)
        config = checkpoint.config
        with memory_errors(device, "to load the model"):
            text_encoder = TextEncoder.load(text_folder, device)
            _check_text(checkpoint, text_encoder.width, text_folder)
            decoder = build_decoder(checkpoint, device, dtype)
            codec = build_codec(source.codec, device)
        info = ModelInfo(
            name=source.origin.name,
            folder=checkpoint.path.parent,
            repository=source.origin.repository,
            revision=source.origin.revision,
            licence=source.origin.licence,
            task=checkpoint.task,
            clip_seconds=config.clip_seconds,
            sample_rate=codec.config.sample_rate,
            codebooks=config.codebooks,
            text_encoder=checkpoint.text.name,
            sampling=source.sampling,
            device=str(device),
            dtype=str(dtype).removeprefix("torch."),
            processor=processor_name(device),
        )
        batch_size = runtime.batch_size or automatic_batch_size(config, codec.config, device, dtype)
        return cls(source, info, text_encoder, decoder, codec, batch_size)

    @property
    def frames(self) -> int:
        """Frames in a clip, T."""
        return int(self.info.clip_seconds * self.codec.config.frame_rate)

    def generate(
        self,
        prompts: str | Job | Iterable[str | Job],
        *,
        seed: int | None = None,
        variations: int = 1,
        sampling: SamplingConfig | None = None,
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
            if seed is not None or variations != 1:
                raise UsageError("jobs carry their own seeds", "Leave out seed and variations, or give texts")
        elif all(isinstance(item, str) for item in items):
            jobs = plan([str(item) for item in items], sampling, seed=seed, variations=variations)
        else:
            raise UsageError("prompts are neither all texts nor all jobs", "Make a Job of every prompt")
        for job in jobs:
            check_steps(job.sampling, codebooks=self.info.codebooks)
        check_duration(output.duration, self.info.clip_seconds, self.info.name)
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
        for _, group in groupby(range(len(jobs)), key=lambda index: jobs[index].sampling):
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
        """Clips of those jobs that the batch names, which share their sampling options."""
        clock = Stopwatch()
        jobs = [all_jobs[index] for index in batch]
        with memory_errors(self.decoder.device, f"for a batch of {len(jobs)}"):
            text = self.text_encoder.encode([job.prompt for job in jobs])
            memory = self.decoder.text_memory(text.states, text.lengths)
            clock.lap("text")
            codes = decode(
                self.decoder,
                memory,
                [job.seed for job in jobs],
                jobs[0].sampling,
                frames=self.frames,
                known=known,
                on_step=None if on_step is None else lambda step: on_step(step, jobs),
            )
            codes = codes.cpu()  # waits for the device, so that the lap is honest
            clock.lap("decode")
            waveforms = self.codec.decode(codes).cpu().numpy()  # [B, C, L]
            clock.lap("codec")
        for row, job in enumerate(jobs):
            clock.start()
            audio = self._finish(waveforms[row], output)
            clock.lap("loudness")
            yield Clip(
                index=batch[row],
                job=job,
                batch=len(jobs),
                codes=codes[row].numpy().astype(np.int16),
                audio=audio,
                sample_rate=self.info.sample_rate,
                tokens=text.lengths[row],
                timings=dict(clock.laps),
            )

    def _finish(self, waveform: NDArray[np.float32], output: OutputConfig) -> Normalized:
        """Trim and normalize a waveform [C, L]."""
        if output.normalize == "loudness":
            waveform = remove_offset(waveform, self.info.sample_rate)
        # Whole spans can make a clip a few frames shorter than its nominal length; asking for that is no error.
        if output.duration is not None and output.duration < waveform.shape[-1] / self.info.sample_rate:
            waveform = trim(waveform, self.info.sample_rate, output.duration)
        return normalize(waveform, self.info.sample_rate, output)

    def continuation(self, waveform: NDArray[np.floating[Any]], sample_rate: int) -> Known:
        """Known codes that make clips begin with this audio.

        waveform: floats [C, L] or [L] with full scale at 1, at any sample_rate (Hz). Raises UsageError for what is no
        waveform, or is as long as a clip.
        """
        config = self.codec.config
        audio = np.atleast_2d(np.asarray(waveform))
        if audio.ndim != 2 or not np.issubdtype(audio.dtype, np.floating) or audio.shape[0] > MOST_CHANNELS:
            raise UsageError(f"a waveform is floats [C, L], not {audio.dtype} {list(audio.shape)}", "Transpose it?")
        if sample_rate < 1 or audio.shape[1] * config.sample_rate < config.hop * sample_rate:
            raise UsageError(f"{audio.shape[1]} samples at {sample_rate} Hz are less than one frame", "Give more audio")
        if not np.isfinite(audio).all():
            raise UsageError("the waveform has samples that are not finite", "Export it again")
        sound = torch.from_numpy(audio.astype(np.float32))
        if sound.shape[0] != config.channels:
            sound = sound.mean(dim=0, keepdim=True).expand(config.channels, -1)
        sound = torchaudio.functional.resample(sound, sample_rate, config.sample_rate)
        codes: Tensor = self.codec.encode(sound.unsqueeze(0))[:, : self.info.codebooks]
        return Known.prefix(codes, self.frames)


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


def _check_codec(decoder: DecoderCheckpoint, codec: CodecCheckpoint) -> None:
    """Raise ModelError unless the two halves of a checkpoint go together."""
    if decoder.config.clip_seconds * codec.config.frame_rate < decoder.config.span_length:
        raise ModelError(
            f"a clip of {decoder.path} lasts {decoder.config.clip_seconds:g} s, less than one span",
            "Its configuration is damaged; fetch it again",
        )
    if codec.config.codebooks < decoder.config.codebooks or codec.config.codes != decoder.config.codes:
        raise ModelError(
            f"{decoder.path} writes {decoder.config.codebooks} codebooks of {decoder.config.codes} codes, but "
            f"{codec.path} reads {codec.config.codebooks} of {codec.config.codes}",
            "The two files belong to different models; fetch both again",
        )


def _check_text(decoder: DecoderCheckpoint, width: int, folder: Path) -> None:
    """Raise ModelError unless the text encoder is of the size the decoder was trained with."""
    if width != decoder.config.text_width:
        raise ModelError(
            f"the text encoder in {folder} has states of {width}, but {decoder.path} was trained with "
            f"{decoder.config.text_width}",
            f"Put the encoder it names, {decoder.text.name}, in its place",
        )
