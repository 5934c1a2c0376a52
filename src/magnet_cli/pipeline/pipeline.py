"""The whole chain: prompt -> text encoder -> masked decoder -> codec -> loudness -> clip."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from magnet_cli.audio.loudness import importing_meters
from magnet_cli.audio.splicing import prepare
from magnet_cli.checkpoints.bundle import Model
from magnet_cli.checkpoints.musicgen import MusicGenModel
from magnet_cli.checkpoints.open import open_any
from magnet_cli.checkpoints.parts import build_codec
from magnet_cli.decoding.likelihood import Hiding, text_likelihood
from magnet_cli.decoding.masked import Known
from magnet_cli.engines.device import (
    decoded_together,
    memory_errors,
    release_frames,
    reproducible_kernels,
    resolve_device,
    resolve_dtype,
)
from magnet_cli.engines.turn import Turn
from magnet_cli.errors import MagnetWarning, MemoryShortageError, UsageError
from magnet_cli.hub.download import Downloading
from magnet_cli.hub.registry import DEFAULT_MODEL
from magnet_cli.model.codec import Codec
from magnet_cli.model.codec import Source as CodeSource
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import Job, plan
from magnet_cli.options.keywords import (
    GenerateOptions,
    LoadOptions,
    SamplingOptions,
    change_sampling,
    changed,
    check_keywords,
)
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig
from magnet_cli.pipeline.bars import download_bars, step_bar, wants_bar
from magnet_cli.pipeline.build import ModelInfo, build_generator, check_codes, codes_source, describe
from magnet_cli.pipeline.clip import Clip
from magnet_cli.pipeline.draft import Draft, Sound, Stopwatch
from magnet_cli.pipeline.edits import Arrangement, Arranger
from magnet_cli.pipeline.events import (
    ClipFailed,
    DecodingListener,
    Listener,
    OnDownload,
    OnFailure,
    OnStep,
    StepDone,
    TextEncoded,
    listener_of,
)
from magnet_cli.pipeline.generators import Generator, MaskedGenerator
from magnet_cli.pipeline.inputs import InputFiles
from magnet_cli.pipeline.record import Provenance
from magnet_cli.pipeline.rules import check_job, default_seconds
from magnet_cli.pipeline.waveforms import check_room, decode_waveforms

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in `typing` from Python 3.11 on

# Parameters of `generate` that an unknown keyword may stand for.
_ARGUMENTS = ("seed", "variations", "sampling", "edit", "output", "known", "on_step", "on_failure", "progress")


@dataclass(frozen=True, repr=False)
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
    given: Mapping[str, str]
    # Held while a batch is decoded, never while a clip is yielded. The thread that holds it may take it again, so that
    # `on_step` may generate: the network's result for a step does not depend on the steps before.
    _turn: Turn = field(repr=False, compare=False)

    def __repr__(self) -> str:
        """Short: no weights."""
        helped = "".join(f", {role} {helper.name}" for role, helper in self.helpers.items())
        return f"<Pipeline {self.info.name}{helped} on {self.info.device} in {self.info.dtype}>"

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
        progress: bool | None = None,
        **options: Unpack[LoadOptions],
    ) -> Pipeline:
        """Load a model by its short name, folder or Hub id; download it if it is not on this machine (see `open_any`).

        rescorer: a model that helps to rank codes; hybrid: a MusicGen that generates beginnings.
        options: `device`, `dtype`, `batch_size`, `compile` as in RuntimeConfig; `model_dir`, `cache_dir`, `offline` as
        in PlacesConfig. Each changes only what it names. on_download: called with a plan and the bytes that have
        arrived. progress: show a bar over downloads; None: in notebooks. Warns with MagnetWarning when there is no GPU.

        Raises:
            UsageError: for an unknown model or option, or for models that do not go together.
            ModelError, HubError, DeviceError: as in `magnet_cli.errors`.
        """
        check_keywords("Pipeline.load", options, LoadOptions)
        runtime = changed(runtime or RuntimeConfig(), options)
        places = changed(places or PlacesConfig(), options)
        names = {"model": model, "rescorer": rescorer, "hybrid": hybrid}
        given = {role: os.fspath(name) for role, name in names.items() if name is not None}
        with download_bars(draw=wants_bar(progress)) as draw:

            def hear(event: Downloading) -> None:
                draw(event)
                if on_download is not None:
                    on_download(event.plan, event.done)

            opened = {role: open_any(name, places, listener=hear) for role, name in given.items()}
        return cls.build(opened.pop("model"), runtime, helpers=opened, given=given)

    @classmethod
    def build(
        cls,
        source: Model | MusicGenModel,
        runtime: RuntimeConfig | None = None,
        *,
        helpers: Mapping[str, Model | MusicGenModel] | None = None,
        inputs: InputFiles | None = None,
        given: Mapping[str, str] | None = None,
    ) -> Pipeline:
        """Build models whose parts have been read, on the device and in the precision that are requested.

        inputs: what is known already of the audio files that clips will start from. given: the names under which the
        models were given, by role ("model", "rescorer", "hybrid"); by default, their own.
        """
        runtime, helpers = runtime or RuntimeConfig(), helpers or {}
        device = resolve_device(runtime)
        dtype = resolve_dtype(runtime, device)
        if runtime.device == "auto" and device.type == "cpu":
            warnings.warn("no GPU found: running on the CPU, which is many times slower", MagnetWarning, stacklevel=2)
        check_codes(source, helpers)
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
        own = {"model": source.name, **{role: helper.name for role, helper in helpers.items()}}
        names = {**own, **(given or {})}
        return cls(source, dict(helpers), info, generator, codec, arranger, batch_size, names, Turn(device))

    @cached_property
    def provenance(self) -> Provenance:
        """The models of this pipeline, as the records of its clips name them."""
        sources = {"model": self.source, **self.helpers}
        return Provenance(
            self.info,
            {role: helper.origin for role, helper in self.helpers.items()},
            self.given,
            lambda: {role: source.hashes for role, source in sources.items()},
            codes_source(self.source),
        )

    def sampling(self, **options: Unpack[SamplingOptions]) -> SamplingConfig | MusicGenSampling:
        """The model's own sampling options, changed only where an option is given: `pipeline.sampling(guidance=3)`.

        Raises:
            KeywordError: for an unknown option. UsageError: for a value that is not possible.
        """
        check_keywords("Pipeline.sampling", options, SamplingOptions)
        return change_sampling(self.info.sampling, options)

    @property
    def frames(self) -> int:
        """Frames in a clip, T."""
        return int(self.info.clip_seconds * self.codec.config.frame_rate)

    @property
    def known_words(self) -> frozenset[str] | None:
        """All words that the model was trained on, in lower case; None for a text encoder that lists none, as T5."""
        return self.generator.text_encoder.known_words

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of a prompt that mean nothing to the model; none where `known_words` is None.

        A word that the model reads as a known one, its synonym, is known.
        """
        return self.generator.text_encoder.unknown_words(prompt)

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
        progress: bool | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Iterator[Clip]:
        """Generate clips, in order, each yielded as soon as its batch is finished.

        prompts: texts, or jobs with their own seeds and options. For texts, variation k has seed + k; a seed is drawn
        if none is given. options: `guidance=5, duration=4` and the like, as in SamplingConfig, EditConfig and
        OutputConfig; each changes only what it names. sampling: replaces all of the model's own sampling options
        (`info.sampling`); edit, output: replace the defaults. known: codes to keep in every clip, e.g. from
        `continuation`. progress: show a bar, on standard error or in the notebook; None: in notebooks only.

        on_step: called after every step with the clips that took it, while other threads wait for this pipeline: it
        must not wait for them. on_failure: called with a failed job's place among the jobs and its error; the other
        jobs continue. Without it, the first failure is raised. listener: called with both, and with encoded prompts, as
        the events of `pipeline.events`; it raises what is to stop the work. A batch that needs more memory than there
        is is tried again with fewer clips.

        A clip depends on its own job only. On a CPU its codes are the same in every batch and in any order, in every
        dtype, because it is computed alone. On a GPU each clip of a batch has its own random numbers and attends to its
        own text, but how its numbers are rounded depends on the size of the batch and on its longest prompt: a code can
        differ where two are about equally probable, in float16 and bfloat16 more often than in float32. Another device
        or number of threads can round differently, too.

        Raises:
            KeywordError: for an unknown option.
            UsageError: at once for options that are not possible; with the first clip for known codes or prompts that
                do not fit.
            MemoryShortageError, NumericsError, OutputError: while clips are generated.
        """
        check_keywords("Pipeline.generate", options, GenerateOptions, *_ARGUMENTS)
        items = [prompts] if isinstance(prompts, (str, Job)) else list(prompts)
        output = changed(output or OutputConfig(), options)
        if all(isinstance(item, Job) for item in items):
            jobs = [item for item in items if isinstance(item, Job)]
            own = options.keys() - {one.name for one in fields(OutputConfig)}
            if seed is not None or variations != 1 or edit is not None or own:
                raise UsageError(
                    "jobs have their own seeds and edits", "Leave out seed, variations, edit and options, or give texts"
                )
        elif all(isinstance(item, str) for item in items):
            sampling = change_sampling(sampling or self.info.sampling, options)
            edit = changed(edit or EditConfig(), options)
            jobs = plan([str(item) for item in items], sampling, seed=seed, variations=variations, edit=edit)
        else:
            raise UsageError("the prompts are neither all texts nor all jobs", "Give either texts or jobs")
        for job in jobs:
            check_job(job, self.source, self.helpers)
        if listener is not None and (on_step is not None or on_failure is not None):
            raise UsageError(
                "a listener also receives steps and failures", "Give the listener without on_step and on_failure"
            )
        listener = listener or listener_of(on_step, on_failure)
        if wants_bar(progress):
            return self._generate_with_bar(jobs, output, known, listener)
        return self._generate(jobs, output, known, listener)

    def generate_one(
        self,
        prompt: str,
        *,
        seed: int | None = None,
        sampling: SamplingConfig | MusicGenSampling | None = None,
        edit: EditConfig | None = None,
        output: OutputConfig | None = None,
        known: Known | None = None,
        on_step: OnStep | None = None,
        progress: bool | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Clip:
        """Generate one clip of one prompt, and wait for it; see `generate`, whose errors it raises."""
        check_keywords("Pipeline.generate_one", options, GenerateOptions, *_ARGUMENTS)
        (clip,) = self.generate(
            prompt,
            seed=seed,
            sampling=sampling,
            edit=edit,
            output=output,
            known=known,
            on_step=on_step,
            progress=progress,
            **options,
        )
        return clip

    def _generate_with_bar(
        self, jobs: Sequence[Job], output: OutputConfig, known: Known | None, listener: Listener
    ) -> Iterator[Clip]:
        with step_bar(self.passes(jobs), listener) as hear:
            yield from self._generate(jobs, output, known, hear)

    def _generate(
        self, jobs: Sequence[Job], output: OutputConfig, known: Known | None, listener: Listener
    ) -> Iterator[Clip]:
        for drafts in self._decode_all(jobs, output, known, listener):
            while drafts:
                index = drafts[0].index
                try:
                    clip = drafts.popleft().finish()  # a long one takes disk space until it is dropped
                except Exception as error:
                    listener(ClipFailed(index, error))
                else:
                    yield clip

    def decode(self, jobs: Sequence[Job], *, output: OutputConfig, listener: Listener) -> Iterator[deque[Draft]]:
        """Decode jobs in order, batch after batch; `Draft.finish` is left to the caller, in any thread.

        For what finishes clips while the next ones are decoded. Otherwise as `generate`, whose errors it raises.
        """
        for job in jobs:
            check_job(job, self.source, self.helpers)
        return self._decode_all(jobs, output, None, listener)

    def _decode_all(
        self, jobs: Sequence[Job], output: OutputConfig, known: Known | None, listener: Listener
    ) -> Iterator[deque[Draft]]:
        hear, size = _Heard(listener), self.batch_size
        for _, group in groupby(range(len(jobs)), key=lambda index: jobs[index].kind):
            waiting = deque(group)
            suspects = 0  # of those waiting: one of these made a batch fail, and each is tried alone
            while waiting:
                batch = [waiting.popleft() for _ in range(1 if suspects else min(size, len(waiting)))]
                suspects = max(0, suspects - 1)
                try:
                    drafts = deque(self._generate_batch(jobs, batch, output, known, hear))
                except Exception as error:
                    if hear.raised or _is_final(error):
                        raise
                    self._release(error)
                    if len(batch) == 1:
                        listener(ClipFailed(batch[0], error))
                        continue
                    waiting.extendleft(reversed(batch))
                    if isinstance(error, MemoryShortageError):
                        size = len(batch) // 2
                        fewer = f"continuing with {size} at a time"
                        warnings.warn(f"not enough memory for {len(batch)} clips at once: {fewer}", MagnetWarning, 2)
                    else:
                        suspects = len(batch)
                else:
                    yield drafts

    def _release(self, error: Exception) -> None:
        """Free what a failed batch left: buffers whose values may not be finite, and memory for the next try."""
        release_frames(error)
        with self._turn:  # nothing may be freed while another thread records a graph
            self.generator.release()
            torch.cuda.empty_cache()

    def _generate_batch(
        self,
        all_jobs: Sequence[Job],
        batch: Sequence[int],
        output: OutputConfig,
        known: Known | None,
        listener: Listener,
    ) -> Iterator[Draft]:
        """Decoded clips of the jobs whose indices `batch` holds; these jobs are of one kind."""
        jobs = [all_jobs[index] for index in batch]
        sounds: list[Sound] = []
        short = memory_errors(self.codec.device, f"for a batch of {len(jobs)}", dtype=self.info.dtype)
        with self._turn, short, reproducible_kernels(), importing_meters():
            clock = Stopwatch()
            arrangements = [self.arranger.arrange(job) for job in jobs]
            check_room(self.codec, len(jobs), arrangements[0].frames)
            size = decoded_together(self.codec.device, len(jobs))
            for first in range(0, len(jobs), size):
                part = slice(first, first + size)
                given = known if known is None or len(known.codes) != len(jobs) else known.rows(part)
                sounds += self._decode(jobs[part], arrangements[part], given, listener, clock)
        for index, job, sound, arrangement in zip(batch, jobs, sounds, arrangements, strict=True):
            yield Draft(
                index=index,
                job=job,
                batch=len(jobs),
                sound=sound,
                arrangement=arrangement,
                sample_rate=self.info.sample_rate,
                timings=clock.laps,
                output=output,
                inputs=self.arranger.inputs,
                unknown_words=tuple(dict.fromkeys(word for text in job.texts for word in self.unknown_words(text))),
                provenance=self.provenance,
            )

    def _decode(
        self,
        jobs: Sequence[Job],
        arrangements: Sequence[Arrangement],
        known: Known | None,
        listener: Listener,
        clock: Stopwatch,
    ) -> Iterator[Sound]:
        """Decode these jobs together."""

        passes = 0

        def hear(event: TextEncoded | StepDone) -> None:
            nonlocal passes
            if isinstance(event, TextEncoded):
                clock.lap("text")
            else:
                passes += 1
            listener(event)

        codes, tokens = self.generator.codes(jobs, arrangements, known=known, listener=hear)
        codes = codes.cpu()  # waits for the device, so that the lap is honest
        clock.lap("decode")
        waveforms = decode_waveforms(self.codec, codes, loop=arrangements[0].loop is not None)
        clock.lap("codec")
        arrays = codes.numpy().astype(np.int16)
        return (Sound(*sound, passes) for sound in zip(arrays, tokens, waveforms, strict=True))

    def decode_window(self, job: Job, before: Tensor | None, *, first_frame: int, listener: DecodingListener) -> Tensor:
        """One window of something that has no end: codes int64 [1, K, T] of `frames`, which begin with `before`.

        before: codes int64 [1, K, P], the end of the window before. first_frame: number of the window's first frame.
        listener: receives steps; it raises what is to stop the work.
        Raises: MemoryShortageError, NumericsError.
        """
        frames = self.frames
        known = None if before is None else Known.prefix(before.to(self.codec.device), frames)
        window = Arrangement(
            frames=frames,
            window=frames,
            overlap=0,
            whole_spans=False,
            loop=None,
            codes=None if known is None else known.codes,
            keep=None if known is None else known.keep,
            hybrid=0,
            finish=lambda waveform: (waveform, self.info.sample_rate),
            first_frame=first_frame,
        )
        with self._working("for a window"):
            codes, _ = self.generator.codes([job], [window], known=None, listener=listener)
            return codes.cpu()

    def decode_endless(self, source: CodeSource, *, piece: int) -> Iterator[NDArray[np.float32]]:
        """The waveform of codes that have no end, [C, piece * hop] at a time, at the level that the codec gives it.

        source: see `Codec.decode_endless`; it may call `decode_window`.
        """
        pieces = self.codec.decode_endless(source, piece=piece)
        while True:
            with self._working("for the codec"):
                made = next(pieces)[0].cpu().numpy()
            yield made

    @contextmanager
    def _working(self, purpose: str) -> Iterator[None]:
        """Have this pipeline to oneself, with the kernels that it needs."""
        short = memory_errors(self.codec.device, purpose, dtype=self.info.dtype)
        with self._turn, short, reproducible_kernels():
            yield

    def continuation(self, waveform: NDArray[np.floating[Any]], sample_rate: int) -> Known:
        """Known codes that make clips begin with this audio.

        waveform: floats [C, L] or [L] with full scale at 1, at any sample_rate (Hz).
        Raises: UsageError for an array that is no waveform, or is as long as a clip.
        """
        return Known.prefix(self._encode(waveform, sample_rate), self.frames)

    def encode(self, waveform: NDArray[np.floating[Any]], sample_rate: int) -> NDArray[np.int16]:
        """The codes [K, T] of this audio, in all codebooks that the model uses; see `continuation`."""
        return self._encode(waveform, sample_rate)[0].cpu().numpy().astype(np.int16)

    def _encode(self, waveform: NDArray[np.floating[Any]], sample_rate: int) -> Tensor:
        sound = prepare(waveform, sample_rate, self.codec.config)
        with self._turn, reproducible_kernels():
            codes: Tensor = self.codec.encode(sound)[:, : self.info.codebooks]
        return codes

    def text_likelihood(self, codes: NDArray[np.integer[Any]], text: str, *, hiding: Hiding | None = None) -> float:
        """How much more probable a text makes codes [K, T] than no text does: nats for each hidden code.

        The mean of log p(code | text) - log p(code); see `decoding.likelihood`. Codes of a longer clip than the model
        was trained on are taken in parts of that length. hiding: which codes are hidden.

        Raises: UsageError for a MusicGen, for codes that are not the model's, and for less than a span of them.
        """
        if not isinstance(self.generator, MaskedGenerator):
            raise UsageError(f"{self.info.name} is a MusicGen, which has no such likelihood", "Choose a MAGNeT model")
        reader = self.generator.reader
        given = torch.from_numpy(np.ascontiguousarray(codes, dtype=np.int64))[None]
        if given.dim() != 3 or given.shape[1] != self.info.codebooks:
            raise UsageError(
                f"codes are [{self.info.codebooks}, T], not {list(np.shape(codes))}",
                "Encode with the model's own codec",
            )
        if given.numel() and (given.min() < 0 or given.max() >= reader.decoder.config.codes):
            raise UsageError(f"codes must be between 0 and {reader.decoder.config.codes - 1}", "Encode them again")
        parts = [part for part in given.split(self.frames, dim=-1) if part.shape[-1] >= self.generator.span]
        with self._turn, reproducible_kernels():
            memory, _ = reader.memory([text])
            values = [text_likelihood(reader.network, memory, part, hiding) for part in parts or [given]]
        weights = [part.shape[-1] for part in parts or [given]]
        return float(np.average(values, weights=weights))


class _Heard:
    """A listener, and whether it has raised what is to stop the work: that is no failure of a clip."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.raised = False

    def __call__(self, event: Downloading | TextEncoded | StepDone | ClipFailed) -> None:
        try:
            self._listener(event)
        except Exception:
            self.raised = True
            raise


def _is_final(error: Exception) -> bool:
    """Whether no further work is possible: after a GPU fault, the process cannot use the GPU any more."""
    return isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)
