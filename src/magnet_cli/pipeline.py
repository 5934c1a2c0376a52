"""The whole chain: prompt -> text encoder -> masked decoder -> codec -> loudness -> clip."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from torch import Tensor

from magnet_cli import hub
from magnet_cli.audio import write_audio
from magnet_cli.checkpoint import (
    CodecCheckpoint,
    CodecPointer,
    DecoderCheckpoint,
    build_codec,
    build_decoder,
    read_codec,
    read_decoder,
    read_hugging_face_codec,
)
from magnet_cli.codec import Codec
from magnet_cli.config import OutputConfig, RuntimeConfig, SamplingConfig, Subtype, Task, default_sampling
from magnet_cli.decode import Known, Step, check_steps, decode
from magnet_cli.errors import DeviceError, MagnetWarning, ModelError, UsageError, one_line
from magnet_cli.loudness import Normalized, normalize, remove_offset, trim
from magnet_cli.prompts import Job, plan
from magnet_cli.registry import DEFAULT_MODEL
from magnet_cli.text import TextEncoder
from magnet_cli.transformer import MaskedTransformer

GPU_BATCH = 4

OnStep = Callable[[Step, Sequence[Job]], None]


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


@dataclass(frozen=True)
class Clip:
    """One finished clip.

    codes: int16 [K, T]; audio: the waveform float32 [C, L], with loudness and true peak before and after;
    sample_rate: Hz; tokens: those of the prompt; timings: seconds for each stage, shared by the clips of a batch.
    """

    job: Job
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

    info: ModelInfo
    text_encoder: TextEncoder
    decoder: MaskedTransformer
    codec: Codec
    batch_size: int

    @classmethod
    def load(cls, model: str = DEFAULT_MODEL, runtime: RuntimeConfig | None = None) -> Pipeline:
        """Load a model by its short name, folder or Hub id, downloading what is not in the cache.

        Raises ModelError, HubError or DeviceError. Warns with MagnetWarning when the CPU stands in for a GPU.
        """
        runtime = runtime or RuntimeConfig()
        device = resolve_device(runtime)
        dtype = resolve_dtype(runtime, device)
        source = hub.locate_model(model)
        if runtime.device == "auto" and device.type == "cpu":
            warnings.warn("no GPU found: running on the CPU, which is many times slower", MagnetWarning, stacklevel=2)
        checkpoint = read_decoder(source.folder)
        codec_checkpoint = read_codec(source.folder)
        if isinstance(codec_checkpoint, CodecPointer):
            codec_checkpoint = read_hugging_face_codec(hub.locate_codec(source.folder, codec_checkpoint.name))
        _check_codec(checkpoint, codec_checkpoint)
        text_folder = hub.locate_text_encoder(source.folder, checkpoint.text.name)
        config = checkpoint.config
        with _memory_errors(device, "to load the model"):
            text_encoder = TextEncoder.load(text_folder, device)
            if text_encoder.width != config.text_width:
                raise ModelError(
                    f"the text encoder in {text_folder} has states of {text_encoder.width}, but {checkpoint.path} "
                    f"was trained with {config.text_width}",
                    f"Put the encoder it names, {checkpoint.text.name}, in its place",
                )
            decoder = build_decoder(checkpoint, device, dtype)
            codec = build_codec(codec_checkpoint, device)
        info = ModelInfo(
            name=source.name,
            folder=source.folder,
            repository=source.repository,
            revision=source.revision,
            licence=source.licence,
            task=checkpoint.task,
            clip_seconds=config.clip_seconds,
            sample_rate=codec.config.sample_rate,
            codebooks=config.codebooks,
            text_encoder=checkpoint.text.name,
            sampling=default_sampling(checkpoint.task, config.clip_seconds, config.codebooks),
            device=str(device),
            dtype=str(dtype).removeprefix("torch."),
        )
        batch_size = runtime.batch_size or (1 if device.type == "cpu" else GPU_BATCH)
        return cls(info, text_encoder, decoder, codec, batch_size)

    @property
    def frames(self) -> int:
        """Frames in a clip, T."""
        return int(self.info.clip_seconds * self.codec.config.frame_rate)

    def generate(
        self,
        prompts: str | Iterable[str | Job],
        *,
        seed: int | None = None,
        variations: int = 1,
        sampling: SamplingConfig | None = None,
        output: OutputConfig | None = None,
        known: Known | None = None,
        on_step: OnStep | None = None,
    ) -> Iterator[Clip]:
        """Generate clips, in order, each yielded as soon as its batch is done.

        prompts: texts, or jobs that carry their own seed and sampling options. For texts, variation k takes
        seed + k, and a seed is drawn when none is given; sampling defaults to what suits the model (`info.sampling`).
        known: codes to keep in every clip, e.g. from `continuation`. Raises UsageError at once for what cannot work.
        """
        sampling, output = sampling or self.info.sampling, output or OutputConfig()
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        jobs = [prompt for prompt in prompts if isinstance(prompt, Job)]
        if len(jobs) != len(prompts):
            texts = [prompt for prompt in prompts if isinstance(prompt, str)]
            if jobs:
                raise UsageError("texts and jobs cannot be mixed", "Make a Job of every prompt")
            jobs = plan(texts, sampling, seed=seed, variations=variations)
        for job in jobs:
            check_steps(job.sampling, self.info.codebooks)
        if output.duration is not None and output.duration > self.info.clip_seconds:
            raise UsageError(
                f"duration {output.duration:g} s is more than the {self.info.clip_seconds:g} s of {self.info.name}",
                "Ask for less, or choose a model with longer clips, such as magnet-small-30secs",
            )
        return self._generate(jobs, output, known, on_step)

    def _generate(
        self, jobs: Sequence[Job], output: OutputConfig, known: Known | None, on_step: OnStep | None
    ) -> Iterator[Clip]:
        for _, group in groupby(jobs, key=lambda job: job.sampling):
            while batch := list(islice(group, self.batch_size)):
                yield from self._generate_batch(batch, output, known, on_step)

    def _generate_batch(
        self, jobs: Sequence[Job], output: OutputConfig, known: Known | None, on_step: OnStep | None
    ) -> Iterator[Clip]:
        """Clips of jobs that share their sampling options."""
        clock = Stopwatch()
        with _memory_errors(self.decoder.device, f"for a batch of {len(jobs)}"):
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
                job=job,
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

    def continuation(self, waveform: NDArray[np.float32], sample_rate: int) -> Known:
        """Known codes that make clips begin with this audio [C, L] at any sample rate (Hz) and number of channels."""
        config = self.codec.config
        audio = torch.from_numpy(np.atleast_2d(waveform).astype(np.float32))
        if audio.shape[0] != config.channels:
            audio = audio.mean(dim=0, keepdim=True).expand(config.channels, -1)
        audio = torchaudio.functional.resample(audio, sample_rate, config.sample_rate)
        codes: Tensor = self.codec.encode(audio.unsqueeze(0))[:, : self.info.codebooks]
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


def resolve_device(runtime: RuntimeConfig) -> torch.device:
    """The device to run on: for "auto" a GPU if there is one, else the CPU."""
    wanted = runtime.device
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no usable CUDA device"
        raise DeviceError(
            f"{wanted} was asked for, but PyTorch finds {found}", "Check the driver, or give --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("mps was asked for, but this machine has none", "Give --device cpu")
    return device


def resolve_dtype(runtime: RuntimeConfig, device: torch.device) -> torch.dtype:
    """The decoder's dtype; see RuntimeConfig."""
    if runtime.dtype == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if device.type == "cpu" and runtime.dtype != "float32":
        # Measured on a CPU without bfloat16 arithmetic: a pass takes 6 to 8 times as long as in float32.
        native = runtime.dtype == "bfloat16" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        if not native:
            warnings.warn(f"this CPU has no fast {runtime.dtype}: float32 is quicker", MagnetWarning, stacklevel=3)
    dtype: torch.dtype = getattr(torch, runtime.dtype)
    return dtype


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


@contextmanager
def _memory_errors(device: torch.device, purpose: str) -> Iterator[None]:
    """Turn running out of memory into a DeviceError with a remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # PyTorch has an exception for GPUs; on the CPU only the message tells.
        if isinstance(error, RuntimeError) and not (
            isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
        ):
            raise
        raise DeviceError(
            f"not enough memory on {device} {purpose}: {one_line(error, 120)}",
            "Use a smaller model or batch, --dtype bfloat16, or another --device",
        ) from error
