"""Two ways from prompts to codes: MAGNeT's masked decoding, alone or with another model, and MusicGen's decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from magnet_cli.decoding.masked import Known, Network, Rescorer, Step, decode
from magnet_cli.decoding.musicgen import MusicGen
from magnet_cli.decoding.rescoring import MagnetRescorer, MusicGenRescorer
from magnet_cli.decoding.windows import decode_windows, plan_windows
from magnet_cli.engines.device import automatic_batch_size
from magnet_cli.errors import UsageError
from magnet_cli.model.config import CodecConfig
from magnet_cli.model.decoder import MaskedTransformer, TextMemory
from magnet_cli.model.text_encoder import TextEncoder
from magnet_cli.options.edit import Length
from magnet_cli.options.job import Job
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig
from magnet_cli.pipeline.edits import Arrangement, hybrid_frames
from magnet_cli.pipeline.events import DecodingListener, StepDone, TextEncoded


class Generator(Protocol):
    """Generates codes for jobs that share their `kind`."""

    def codes(
        self,
        jobs: Sequence[Job],
        arrangements: Sequence[Arrangement],
        *,
        known: Known | None,
        listener: DecodingListener,
    ) -> tuple[Tensor, list[int]]:
        """Codes int64 [B, K, T], and the number of tokens in each prompt."""

    def release(self) -> None:
        """Free all that the networks have built for clips: after a failure."""

    @property
    def text_encoder(self) -> TextEncoder:
        """What reads the prompts."""

    @property
    def span(self) -> int:
        """The smallest number of frames that are decoded together."""

    def fitting(self, codec: CodecConfig, device: torch.device, dtype: torch.dtype) -> int:
        """How many clips fit into the free memory together."""

    def passes(self, job: Job, length: Length) -> int:
        """How many passes through the network a job takes, as far as is known beforehand."""


class RescoringModel(Protocol):
    """Another model that helps to rank codes."""

    def rescorer(self, prompts: Sequence[str | None]) -> Rescorer:
        """Its rescorer for clips with these prompts; None: no text."""

    def forget(self) -> None:
        """Free what is stored between steps."""

    def release(self) -> None:
        """Free all that is stored."""


@dataclass(frozen=True)
class MusicGenHelper:
    """A MusicGen that helps a MAGNeT."""

    model: MusicGen

    def rescorer(self, prompts: Sequence[str | None]) -> Rescorer:
        """See RescoringModel."""
        return MusicGenRescorer(self.model, self.model.condition(prompts))

    def forget(self) -> None:
        """Do nothing: it stores nothing between steps."""

    def release(self) -> None:
        """Do nothing: it stores nothing."""


@dataclass(frozen=True)
class Reader:
    """A MAGNeT's text encoder and decoder. network: what computes its logits, the decoder itself or a faster form."""

    text_encoder: TextEncoder
    decoder: MaskedTransformer
    network: Network

    def rescorer(self, prompts: Sequence[str | None]) -> Rescorer:
        """See RescoringModel."""
        texts = [prompt for prompt in prompts if prompt is not None]
        return MagnetRescorer(self.network, self.memory(texts)[0] if texts else None)

    def forget(self) -> None:
        """Free what is stored between steps: the codec needs the memory, and every clip must be computed alike."""
        self.network.forget()

    def release(self) -> None:
        """Free all that is stored."""
        self.network.release()

    def memory(self, prompts: Sequence[str]) -> tuple[TextMemory, list[int]]:
        """What the decoder attends to, and the number of tokens in each prompt."""
        text = self.text_encoder.encode(prompts)
        return self.decoder.text_memory(text.states, text.lengths), text.lengths


@dataclass(frozen=True)
class MaskedGenerator:
    """MAGNeT. rescorer: helps to rank codes; beginner: generates the beginnings of hybrids."""

    reader: Reader
    rescorer: RescoringModel | None = None
    beginner: MusicGen | None = None

    def codes(
        self,
        jobs: Sequence[Job],
        arrangements: Sequence[Arrangement],
        *,
        known: Known | None,
        listener: DecodingListener,
    ) -> tuple[Tensor, list[int]]:
        """See Generator."""
        first, edit = arrangements[0], jobs[0].edit
        if len(jobs) > 1 and first.frames > first.window and edit.inpaint is not None:
            # Windows lie where something is regenerated, which differs from clip to clip.
            return self._one_by_one(jobs, arrangements, listener)
        sampling = jobs[0].sampling
        if not isinstance(sampling, SamplingConfig):
            raise UsageError("these sampling options are for MusicGen", "Give a SamplingConfig")
        memory, tokens = self._memory(jobs)
        run = MaskedRun(self.reader.network, memory, jobs, sampling, self._rescorer(jobs, sampling), listener)
        listener(TextEncoded(jobs))
        if first.hybrid:
            known = self._beginning(jobs, first, listener)
        elif first.codes is not None:
            known = _stacked(arrangements)
        try:
            codes = run.windows(first, known) if first.frames > first.window else run.once(first, known, first.frames)
        finally:
            self.reader.forget()
            if self.rescorer is not None:
                self.rescorer.forget()
        return codes, [0] * len(jobs) if edit.unconditional else tokens

    def release(self) -> None:
        """See Generator."""
        self.reader.release()
        if self.rescorer is not None:
            self.rescorer.release()

    @property
    def text_encoder(self) -> TextEncoder:
        """See Generator."""
        return self.reader.text_encoder

    @property
    def span(self) -> int:
        """See Generator."""
        return self.reader.decoder.config.span_length

    def fitting(self, codec: CodecConfig, device: torch.device, dtype: torch.dtype) -> int:
        """See Generator."""
        return automatic_batch_size(self.reader.decoder.config, codec, device, dtype)

    def passes(self, job: Job, length: Length) -> int:
        """See Generator."""
        steps = sum(job.sampling.steps) if isinstance(job.sampling, SamplingConfig) else 0
        frames, window = length.frames, length.window
        windows = len(plan_windows([True] * frames, window, length.overlap)) if frames > window else 1
        first = 0
        if job.edit.hybrid is not None and self.beginner is not None:
            first = hybrid_frames(job.edit.hybrid, self.beginner.frame_rate) + self.beginner.codebooks - 1
        return first + steps * windows

    def _one_by_one(
        self,
        jobs: Sequence[Job],
        arrangements: Sequence[Arrangement],
        listener: DecodingListener,
    ) -> tuple[Tensor, list[int]]:
        codes, tokens = [], []
        for job, arrangement in zip(jobs, arrangements, strict=True):

            def hear(event: TextEncoded | StepDone, job: Job = job) -> None:
                # A reported pass counts for the whole batch.
                if isinstance(event, TextEncoded) or job is jobs[-1]:
                    listener(replace(event, jobs=jobs))

            made, lengths = self.codes([job], [arrangement], known=None, listener=hear)
            codes.append(made)
            tokens += lengths
        return torch.cat(codes), tokens

    def _memory(self, jobs: Sequence[Job]) -> tuple[TextMemory | None, list[int]]:
        if jobs[0].edit.unconditional:
            return None, []
        memory, tokens = self.reader.memory([job.text for job in jobs])
        negatives = [job.edit.negative for job in jobs if job.edit.negative is not None]
        if negatives:
            memory = memory.against(self.reader.memory(negatives)[0])
        return memory, tokens

    def _rescorer(self, jobs: Sequence[Job], sampling: SamplingConfig) -> Rescorer | None:
        if self.rescorer is None or sampling.rescore_weight == 1:
            return None
        return self.rescorer.rescorer([None if job.edit.unconditional else job.text for job in jobs])

    def _beginning(self, jobs: Sequence[Job], arrangement: Arrangement, listener: DecodingListener) -> Known:
        """The beginning of a hybrid, by the autoregressive model."""
        if self.beginner is None:
            raise UsageError("a hybrid needs a second model", "Load one, e.g. --hybrid-model musicgen-small")
        own = jobs[0].sampling
        prefix = self.beginner.generate(
            [None if job.edit.unconditional else job.text for job in jobs],
            [job.seed for job in jobs],
            arrangement.hybrid,
            sampling=MusicGenSampling(greedy=own.greedy),
            on_step=lambda step: listener(StepDone("beginning", step.done, step.total, jobs)),
        )
        return Known.prefix(prefix, arrangement.frames)


@dataclass(frozen=True)
class MaskedRun:
    """One batch through MAGNeT."""

    decoder: Network
    memory: TextMemory | None
    jobs: Sequence[Job]
    sampling: SamplingConfig
    rescorer: Rescorer | None
    listener: DecodingListener

    def once(self, arrangement: Arrangement, known: Known | None, frames: int, *, first_frame: int = 0) -> Tensor:
        """Decode `frames` together."""
        return decode(
            self.decoder,
            self.memory,
            [job.seed for job in self.jobs],
            self.sampling,
            frames=frames,
            known=known,
            loop=arrangement.loop,
            whole_spans=arrangement.whole_spans,
            first_frame=first_frame,
            on_step=self._on_step,
            rescorer=self.rescorer,
        )

    def windows(self, arrangement: Arrangement, known: Known | None) -> Tensor:
        """Decode window after window."""
        if known is None:
            shape = (len(self.jobs), self.decoder.config.codebooks, arrangement.frames)
            codes = torch.zeros(shape, dtype=torch.long, device=self.decoder.device)
            known = Known(codes, torch.zeros_like(codes, dtype=torch.bool))
        codes, keep = (one.to(self.decoder.device).expand(len(self.jobs), -1, -1) for one in (known.codes, known.keep))

        def window(part: Tensor, kept: Tensor, start: int) -> Tensor:
            return self.once(arrangement, Known(part, kept), frames=part.shape[-1], first_frame=start)

        return decode_windows(codes, keep, window, window=arrangement.window, overlap=arrangement.overlap)

    def _on_step(self, step: Step) -> None:
        total = self.decoder.config.codebooks
        self.listener(StepDone(f"codebook {step.codebook + 1}/{total}", step.step + 1, step.steps, self.jobs))


@dataclass(frozen=True)
class AutoregressiveGenerator:
    """MusicGen."""

    model: MusicGen

    def codes(
        self,
        jobs: Sequence[Job],
        arrangements: Sequence[Arrangement],
        *,
        known: Known | None,
        listener: DecodingListener,
    ) -> tuple[Tensor, list[int]]:
        """See Generator."""
        sampling, first = jobs[0].sampling, arrangements[0]
        if not isinstance(sampling, MusicGenSampling):
            raise UsageError("these sampling options are for MAGNeT", "Give a MusicGenSampling")
        if known is not None:
            raise UsageError("MusicGen cannot keep codes", "Give a file to continue, EditConfig(continue_from=...)")
        prefix = None
        if first.codes is not None and first.keep is not None:
            prefix = first.codes[..., : int(first.keep[0, 0].sum())]
        prompts = [None if job.edit.unconditional else job.text for job in jobs]
        listener(TextEncoded(jobs))
        codes = self.model.generate(
            prompts,
            [job.seed for job in jobs],
            first.frames,
            sampling=sampling,
            prefix=prefix,
            on_step=lambda step: listener(StepDone("frame", step.done, step.total, jobs)),
        )
        tokenize = self.model.text_encoder.tokenize
        return codes, [0 if prompt is None else len(tokenize(prompt)) for prompt in prompts]

    def release(self) -> None:
        """See Generator. It stores nothing."""

    @property
    def text_encoder(self) -> TextEncoder:
        """See Generator."""
        return self.model.text_encoder

    @property
    def span(self) -> int:
        """See Generator."""
        return 1

    def fitting(self, codec: CodecConfig, device: torch.device, dtype: torch.dtype) -> int:
        """See Generator: one, because no measurement has shown a batch to be faster."""
        return 1

    def passes(self, job: Job, length: Length) -> int:
        """See Generator."""
        return length.frames + self.model.codebooks - 1


def _stacked(arrangements: Sequence[Arrangement]) -> Known:
    """The given codes of all rows."""
    codes = [one.codes for one in arrangements if one.codes is not None]
    keeps = [one.keep for one in arrangements if one.keep is not None]
    device = codes[0].device
    return Known(torch.cat(codes), torch.cat([keep.to(device) for keep in keeps]))
