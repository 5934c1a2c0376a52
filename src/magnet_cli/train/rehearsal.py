"""What a training will need, before anything is written: data, schedule, memory, disk and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magnet_cli.engines.device import peak_memory
from magnet_cli.train.code_cache import Piece
from magnet_cli.train.data import METADATA, Split, audio_files, duration
from magnet_cli.train.loop.run import Trainer, resume
from magnet_cli.train.loop.schedule import Schedule
from magnet_cli.train.options import Optimization, Places, RunOptions


@dataclass(frozen=True)
class Survey:
    """The data of a training.

    files, seconds: to train on. held_out, held_out_seconds: not to train on. clips: of `clip_seconds` each, into which
    the files are cut; 0 where excerpts are drawn at random. padded: files shorter than a clip. left_out: seconds at the
    ends of files that are too short for a clip. unnamed: audio files in the folder that its metadata does not name.
    """

    files: int
    seconds: float
    held_out: int
    held_out_seconds: float
    clip_seconds: float
    clips: int = 0
    padded: int = 0
    left_out: float = 0.0
    unnamed: int = 0

    @property
    def words(self) -> str:
        """The files to train on."""
        clips = f", {counted(self.clips, 'clip')} of {self.clip_seconds:g} s" if self.clips else ""
        return f"{counted(self.files, 'file')}, {length(self.seconds)} of audio{clips}"

    @property
    def skipped(self) -> list[str]:
        """What is not used as it is, and why."""
        found = []
        if self.left_out >= 1:
            found.append(f"{length(self.left_out)} at the ends of files left out: shorter than half a clip")
        if self.padded:
            found.append(f"{counted(self.padded, 'file')} padded with silence: shorter than a clip")
        if self.unnamed:
            found.append(f"{counted(self.unnamed, 'audio file')} left out: not named in the metadata")
        return found


def survey(data: Path, split: Split, clip_seconds: float, pieces: Sequence[Piece] | None = None) -> Survey:
    """Survey the data. pieces: the clips into which the files to train on are cut, if they are."""
    lengths = [duration(example.path) for example in split.training]
    named = any((data / name).is_file() for name in METADATA)
    used = {one.path.resolve() for one in (*split.training, *split.held_out)}
    return Survey(
        files=len(lengths),
        seconds=sum(lengths),
        held_out=len(split.held_out),
        held_out_seconds=sum(duration(example.path) for example in split.held_out),
        clip_seconds=clip_seconds,
        clips=len(pieces or ()),
        padded=sum(one < clip_seconds - 1e-3 for one in lengths),
        left_out=0.0 if pieces is None else max(0.0, sum(lengths) - sum(piece.seconds for piece in pieces)),
        unnamed=sum(path.resolve() not in used for path in audio_files(data)) if named else 0,
    )


@dataclass(frozen=True)
class Rehearsal:
    """What a training will need.

    first: steps that an earlier run has done. step_seconds: of one step, measured. encoding: seconds, extrapolated from
    one clip. memory: bytes, the most in use in two steps. disk: bytes by what they are for.
    """

    survey: Survey
    run: RunOptions
    schedule: Schedule
    first: int
    step_seconds: float
    encoding: float
    memory: int
    on_gpu: bool
    disk: Mapping[str, int]

    def rows(self, human: Callable[[float], str]) -> list[tuple[str, str]]:
        """The rehearsal as a table. human: formats a number of bytes."""
        steps, size = self.run.steps - self.first, self.run.batch_size
        uses = self.run.steps * size / (self.survey.clips or self.survey.files)
        done = f" after {self.first} that are done" if self.first else ""
        parts = ", ".join(f"{name} {human(number)}" for name, number in self.disk.items())
        seconds = steps * self.step_seconds + self.encoding
        encoding = f", {length(self.encoding)} to encode the audio (from one clip)" if self.encoding else ""
        held_out = f"{counted(self.survey.held_out, 'file')}, {length(self.survey.held_out_seconds)} of audio"
        return [
            ("examples", self.survey.words),
            ("held out", held_out if self.survey.held_out else "none"),
            *(("note", one) for one in self.survey.skipped),
            ("steps", f"{steps}{done}, of {counted(size, 'clip')} each: every clip is used about {uses:.3g} times"),
            ("schedule", self.schedule.words),
            ("memory", f"{human(self.memory)} of {'the GPU' if self.on_gpu else 'the process'}, measured in two steps"),
            ("disk", f"{human(sum(self.disk.values()))}: {parts}"),
            ("time", f"about {length(seconds)}: {self.step_seconds:.2g} s a step (measured){encoding}"),
        ]


def rehearse(
    trainer: Trainer,
    device: torch.device,
    run: RunOptions,
    places: Places,
    settings: Mapping[str, Any],
    optimization: Optimization,
    *,
    found: Survey,
    encoding: float,
    model: int,
    codes: int,
    second: int = 1,
) -> Rehearsal:
    """Train two steps, and measure the second, which is number `second`. Nothing is written.

    encoding: seconds to encode the audio. model, codes: bytes of the output and of the codes of the audio.

    Raises: UsageError for settings that differ from those of an earlier training of the same output.
    """
    resumed = resume(trainer, run, places, settings, optimization)
    trainer.step(0, 0.0)
    start = time.perf_counter()
    trainer.step(second, 0.0)
    seconds = time.perf_counter() - start
    disk = {"the model": model, "the state": tensor_bytes(trainer.state()), "codes": codes}
    if found.held_out:
        disk["the best model"] = model
    return Rehearsal(
        survey=found,
        run=run,
        schedule=resumed.schedule,
        first=min(resumed.step, run.steps),
        step_seconds=seconds,
        encoding=encoding,
        memory=peak_memory(device),
        on_gpu=device.type == "cuda",
        disk={name: size for name, size in disk.items() if size},
    )


def tensor_bytes(value: object) -> int:
    """Bytes of the tensors in nested mappings and sequences."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(tensor_bytes, value.values()))
    return sum(map(tensor_bytes, value)) if isinstance(value, (list, tuple)) else 0


def length(seconds: float) -> str:
    """A time in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def counted(number: int, thing: str) -> str:
    """A number of things in words."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
