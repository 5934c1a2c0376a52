"""Turn the edit of a job into the input of the decoder, and the decoded sound into the finished one.

Every edit is a length, given codes, and a mask of the codes that are kept; see `masked.Known`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.looping import fit_period
from magnet_cli.audio.loudness import trim
from magnet_cli.audio.splicing import FADE, blend, blend_loop, check_waveform, conform, join, prepare, prepare_ending
from magnet_cli.decoding.circle import Loop
from magnet_cli.decoding.masked import Known
from magnet_cli.decoding.masks import region_mask, vary_mask
from magnet_cli.errors import UsageError
from magnet_cli.model.codec import Codec
from magnet_cli.model.config import CodecConfig
from magnet_cli.music.bars import LoopLength, period_of
from magnet_cli.options.edit import KEPT_SHARE, EditConfig, Length
from magnet_cli.options.job import Job
from magnet_cli.options.regions import Region, check_regions, parse_region
from magnet_cli.pipeline.inputs import InputFiles, signature

Finish = Callable[[Waveform], tuple[Waveform, int]]

# Encoded inputs that are cached; a batch may have thousands. A minute takes 100 kB.
MOST_ENCODED = 256


@dataclass(frozen=True, eq=False)
class Arrangement:
    """What to decode for a job.

    frames: T; window: frames that are decoded at once if T is larger; overlap: frames that two windows share;
    whole_spans: cut T as the reference does; loop: decode a circle; codes: int64 [1, K, T], keep: bool [1, K, T], given
    codes, or None; hybrid: frames that the other model generates; finish: the decoded waveform [C, L] -> the finished
    one and its rate; period: the length of a loop; turns: the loop may begin at any place of its circle;
    first_frame: number of the first frame in something longer, of which this is a window.
    """

    frames: int
    window: int
    overlap: int
    whole_spans: bool
    loop: Loop | None
    codes: Tensor | None
    keep: Tensor | None
    hybrid: int
    finish: Finish
    period: LoopLength | None = None
    turns: bool = False
    first_frame: int = 0


def hybrid_frames(seconds: float, frame_rate: int) -> int:
    """Frames that a hybrid's other model generates."""
    return max(round(seconds * frame_rate), 1)


class Arranger:
    """Arranges jobs for one model, reading and encoding each input once.

    clip_seconds: length of the model's clips. default_seconds: for a model whose clips have any length up to
    clip_seconds, their default length. inputs: the files that were read before.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        codebooks: int,
        clip_seconds: float,
        span: int,
        default_seconds: float | None = None,
        inputs: InputFiles | None = None,
    ) -> None:
        self.codec = codec
        self.config: CodecConfig = codec.config
        self.codebooks = codebooks
        self.clip_seconds = clip_seconds
        self.span = span
        self.default_seconds = default_seconds
        self.clip_frames = int(clip_seconds * codec.config.frame_rate)
        self.inputs = inputs or InputFiles()
        self._read = self.inputs.read
        # A file that has changed is encoded anew.
        self._encoded = lru_cache(MOST_ENCODED)(lambda path, signature: self._encode(path))
        self._circle = lru_cache(MOST_ENCODED)(lambda path, frames, signature: self._encode_loop(path, frames))
        self._ending = lru_cache(MOST_ENCODED)(lambda path, keep, signature: self._encode_ending(path, keep))

    def arrange(self, job: Job) -> Arrangement:
        """What to decode for a job; UsageError for what does not fit the model or the input."""
        edit = job.edit
        if edit.inpaint is not None:
            return self._inpaint(edit, edit.inpaint, job.seed)
        if edit.loop:
            return self._loop(edit)
        return self._line(edit)

    def length(self, edit: EditConfig) -> Length:
        """How much to decode; see EditConfig.length."""
        return edit.length(self.clip_seconds, self.config.frame_rate, default_seconds=self.default_seconds)

    def _line(self, edit: EditConfig) -> Arrangement:
        """A clip with a beginning and an end: of usual length, a continuation, or longer."""
        duration, rate = edit.duration, self.config.sample_rate
        length = self.length(edit)
        frames = length.frames
        codes = keep = None
        if edit.continue_from is not None:
            clip = min(frames, self.clip_frames) / self.config.frame_rate
            given = self._ending(
                edit.continue_from, edit.keep or KEPT_SHARE * min(clip, duration or clip), signature(edit.continue_from)
            )
            codes, keep = _prefix(given, frames, self.clip_frames)
        hybrid = 0 if edit.hybrid is None else hybrid_frames(edit.hybrid, self.config.frame_rate)

        def finish(waveform: Waveform) -> tuple[Waveform, int]:
            # Whole spans can make a clip a few frames shorter than its nominal length, which a user may ask for.
            if duration is not None and duration < waveform.shape[-1] / rate:
                waveform = trim(waveform, rate, duration)
            if not edit.join or edit.continue_from is None or codes is None or keep is None:
                return waveform, rate
            before, before_rate = self._read(Path(edit.continue_from))
            after = conform(waveform, rate, before_rate, channels=before.shape[0])
            kept = round(int(keep[0, 0].sum()) * self.config.hop * before_rate / rate)
            return join(before, after, kept=min(kept, before.shape[1]), fade=round(FADE * before_rate)), before_rate

        whole_spans = frames <= self.clip_frames
        return Arrangement(frames, length.window, length.overlap, whole_spans, None, codes, keep, hybrid, finish)

    def _inpaint(self, edit: EditConfig, path: str, seed: int) -> Arrangement:
        """The input, with parts of it regenerated."""
        original, rate = self._read(Path(path))
        seconds = original.shape[1] / rate
        period = self._period(edit, seconds) if edit.loop else None
        if period is None:
            codes = self._encoded(path, signature(path))
        else:
            codes = self._circle(path, period.frames, signature(path))
        frames = codes.shape[-1]
        # Of a loop, a whole number of frames is decoded, which last as long as it does.
        frame_rate = self.config.sample_rate / self.config.hop if period is None else frames / seconds
        regions = check_regions([parse_region(one) for one in edit.regions], seconds) if edit.regions else []
        keep = region_mask(regions, frame_rate=frame_rate, frames=frames, codebooks=self.codebooks)
        if edit.vary is not None:
            varied = vary_mask(edit.vary, [seed], frames=frames, span=self.span, codebooks=self.codebooks)
            regions = check_regions([*regions, *_runs(~varied[0, 0], frame_rate, seconds)], seconds)
            keep &= varied

        def finish(waveform: Waveform) -> tuple[Waveform, int]:
            if period is not None:
                if not edit.blend:
                    return fit_period(waveform, period.samples), self.config.sample_rate
                mixed = conform(waveform, rate, rate, channels=original.shape[0])
                new = fit_period(mixed, original.shape[1])
                return blend_loop(original, new, regions, sample_rate=rate, fade=FADE), rate
            if edit.blend:
                new = conform(waveform, self.config.sample_rate, rate, channels=original.shape[0])
                return blend(original, new, regions, sample_rate=rate, fade=FADE), rate
            return waveform[:, : round(seconds * self.config.sample_rate)], self.config.sample_rate

        overlap = self.length(edit).overlap
        loop = None if period is None else Loop(self.clip_frames)
        return Arrangement(frames, self.clip_frames, overlap, False, loop, codes, keep, 0, finish, period)

    def _loop(self, edit: EditConfig) -> Arrangement:
        """A circle."""
        config = self.config
        length = self._period(edit)
        return Arrangement(
            frames=length.frames,
            window=self.clip_frames,
            overlap=0,
            whole_spans=False,
            loop=Loop(self.clip_frames),
            codes=None,
            keep=None,
            hybrid=0,
            finish=lambda waveform: (fit_period(waveform, length.samples), config.sample_rate),
            period=length,
            turns=True,
        )

    def _period(self, edit: EditConfig, input_seconds: float | None = None) -> LoopLength:
        rate, frame_rate = self.config.sample_rate, self.config.frame_rate
        clip = self.clip_frames
        return period_of(edit, sample_rate=rate, frame_rate=frame_rate, clip_frames=clip, input_seconds=input_seconds)

    def _encode(self, path: str) -> Tensor:
        waveform, rate = self._read(Path(path))
        return self.codec.encode(prepare(waveform, rate, self.config))[:, : self.codebooks]

    def _encode_loop(self, path: str, frames: int) -> Tensor:
        waveform, rate = self._read(Path(path))
        mixed = conform(check_waveform(waveform, rate, self.config), rate, rate, channels=self.config.channels)
        # The period of the file becomes one of whole frames at the codec's rate.
        fitted = torch.from_numpy(fit_period(mixed, frames * self.config.hop))
        return self.codec.encode(fitted.unsqueeze(0), loop=True)[:, : self.codebooks]

    def _encode_ending(self, path: str, keep: float) -> Tensor:
        waveform, rate = self._read(Path(path))
        sound, frames = prepare_ending(waveform, rate, self.config, keep=keep)
        return self.codec.encode(sound)[:, : self.codebooks, -frames:]


def _prefix(given: Tensor, frames: int, window: int) -> tuple[Tensor, Tensor]:
    """Codes [1, K, P] at the beginning of T `frames`, and the mask of those that are kept."""
    if given.shape[-1] >= window:
        raise UsageError(
            f"{given.shape[-1]} frames are to be kept, but the model's clips have only {window}",
            "Give a smaller --keep",
        )
    known = Known.prefix(given, frames)
    return known.codes, known.keep


def _runs(chosen: Tensor, frame_rate: float, seconds: float) -> list[Region]:
    """The stretches of time in which frames are chosen, bool [T]."""
    flags = np.concatenate([[False], chosen.numpy(), [False]])
    edges = np.flatnonzero(flags[1:] != flags[:-1])
    runs = [Region(first / frame_rate, min(end / frame_rate, seconds)) for first, end in edges.reshape(-1, 2)]
    return [run for run in runs if run.start < run.end]
