"""Training data: a folder of audio with texts, in the audiofolder convention of Hugging Face.

Texts come from `metadata.jsonl` or `metadata.csv` (columns `file_name` and `text`). Without either, they come from a
file beside each audio file, which has its name and the suffix `.json` (key `text`, `caption` or `description`) or
`.txt`. In `metadata.jsonl` and `.json` a text may be a list, of which one is drawn at every use.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from magnet_cli.audio.reading import UNKNOWN_FRAMES, opened
from magnet_cli.audio.resampling import resample
from magnet_cli.disk.small_files import UnreadableFileError, parse_json, read_json, read_text
from magnet_cli.errors import UsageError

AUDIO = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".opus"})
TEXT_KEYS = ("text", "caption", "description")
METADATA = ("metadata.jsonl", "metadata.csv")
MOST_METADATA = 1 << 30  # bytes: a million clips with a text of a thousand characters each


@dataclass(frozen=True)
class Example:
    """One audio file and the texts that describe it, of which there may be none."""

    path: Path
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """The examples that are trained on, and those on which the loss is measured."""

    training: list[Example]
    held_out: list[Example]


def split_examples(folder: Path, held_out: str | None, *, texts: bool) -> Split:
    """The examples of a folder, without those that are held out, and these.

    held_out: a share of the files, or a folder of others. Whole files are held out: those whose relative name has a
    hash below the share, so that none changes sides when files are added. If that is none, the file with the smallest
    hash is held out.

    Raises: UsageError for a share that is not between 0 and 1, for a folder without examples, and when no file is left
    to train on.
    """
    found = find_examples(folder, texts=texts)
    other = held_out_folder(held_out)
    if held_out is None:
        return Split(found, [])
    if other is not None:
        inner = other.resolve()
        rest = [one for one in found if inner not in one.path.resolve().parents]
        split = Split(rest, find_examples(other, texts=texts))
    else:
        places = [_place(folder, one.path) for one in found]
        limit = max(float(held_out), min(places) * (1 + 1e-9))
        pairs = list(zip(places, found, strict=True))
        split = Split([one for at, one in pairs if at >= limit], [one for at, one in pairs if at < limit])
    if not split.training:
        raise UsageError(f"--held-out {held_out} leaves no file of {folder} to train on", "Hold out fewer files")
    return split


def held_out_folder(held_out: str | None) -> Path | None:
    """The folder that is held out, unless it is a share of the files. UsageError for neither."""
    if held_out is None:
        return None
    try:
        share = float(held_out)
    except ValueError:
        folder = Path(held_out)
        if held_out and folder.is_dir():
            return folder
        raise UsageError(f"--held-out {held_out!r} is neither a share nor a folder", "Give e.g. 0.1") from None
    if not 0 < share < 1:
        raise UsageError(f"the share of --held-out must be between 0 and 1, not {held_out}", "Give e.g. 0.1")
    return None


def _place(folder: Path, path: Path) -> float:
    """A number from 0 to 1 that follows from the name of a file relative to a folder."""
    name = Path(os.path.relpath(path, folder)).as_posix()
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64


def find_examples(folder: Path, *, texts: bool) -> list[Example]:
    """The examples in a folder, by name.

    Raises: UsageError when there are none, or when `texts` is set and one has no text.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", "Give a folder of audio files and metadata.jsonl")
    metadata = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if metadata is not None:
        found = _from_metadata(metadata)
    else:
        found = [Example(path, _beside(path)) for path in audio_files(folder)]
    if not found:
        raise UsageError(f"there is no audio in {folder}", f"Give files ending in {', '.join(sorted(AUDIO))}")
    for example in found:
        if not os.path.isfile(example.path):  # which takes names of any length
            raise UsageError(f"{example.path}, which {metadata} names, does not exist", "Correct the metadata")
        if texts and not example.texts:
            raise UsageError(f"{example.path} has no text", "Add it to metadata.jsonl, or a .txt file beside it")
    return found


def audio_files(folder: Path) -> list[Path]:
    """The audio files in a folder and the folders in it, by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO)


def _from_metadata(path: Path) -> list[Example]:
    try:
        content = read_text(path, most=MOST_METADATA)
        if path.suffix == ".csv":
            rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(content)))
        else:
            rows = [parse_json(line) for line in content.splitlines() if line.strip()]
        return [Example(path.parent / row["file_name"], _texts(row)) for row in rows]
    except (csv.Error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} cannot be read: {error}", 'Every row needs a "file_name", and a "text" for training the decoder'
        ) from error


def _beside(path: Path) -> tuple[str, ...]:
    """Texts in the .json or .txt file of an audio file's name."""
    described, plain = path.with_suffix(".json"), path.with_suffix(".txt")
    try:
        if described.is_file():
            row = read_json(described)
            return _texts(row) if isinstance(row, dict) else ()
        if plain.is_file():
            text = read_text(plain).strip()
            return (text,) if text else ()
    except UnreadableFileError as error:
        raise UsageError(f"the text of {path} cannot be read: {error}", "Correct the file") from error
    return ()


def _texts(row: dict[str, Any]) -> tuple[str, ...]:
    value = next((row[key] for key in TEXT_KEYS if row.get(key)), ())
    return tuple(str(one) for one in value) if isinstance(value, (list, tuple)) else (str(value),)


def read_segment(path: Path, start: float, seconds: float, sample_rate: int, channels: int) -> Tensor:
    """Part of a file, resampled, float32 [C, L]; silence where the file has ended.

    Raises: UsageError for a file that is not audio.
    """
    with opened(path) as file:
        rate = int(file.samplerate)
        samples = file.part(path, round(start * rate), round(seconds * rate))
    waveform = torch.from_numpy(np.ascontiguousarray(samples.T))
    if waveform.shape[0] != channels:
        waveform = waveform.mean(dim=0, keepdim=True).expand(channels, -1)
    if rate != sample_rate:
        waveform = torch.from_numpy(resample(waveform.numpy(), rate, sample_rate))
    length = round(seconds * sample_rate)
    return torch.nn.functional.pad(waveform[:, :length], (0, max(0, length - waveform.shape[1]))).contiguous()


def duration(path: Path) -> float:
    """Seconds of audio in a file: what its header states, or else what can be read."""
    with opened(path) as file:
        if file.frames < UNKNOWN_FRAMES:
            return float(file.frames / file.samplerate)
        return sum(len(block) for block in file.blocks_of(path, math.inf)) / float(file.samplerate)


def batch_indices(count: int, batch: int, step: int, seed: int) -> list[int]:
    """Which examples step `step` trains on: every example once in each pass, in an order of its own.

    Depends only on its arguments, so that a training that resumes draws what it would have drawn.
    """
    positions = [divmod(position, count) for position in range(step * batch, (step + 1) * batch)]
    return [_order(count, seed, turn)[place] for turn, place in positions]


@lru_cache(maxsize=4)
def _order(count: int, seed: int, turn: int) -> tuple[int, ...]:
    order = list(range(count))
    random.Random(f"order/{seed}/{turn}").shuffle(order)
    return tuple(order)


def share(items: int, process: int, processes: int) -> slice:
    """The part of a batch that one of several processes computes.

    Raises: UsageError when the batch cannot be divided.
    """
    if items % processes:
        raise UsageError(f"a batch of {items} cannot be divided among {processes} processes", "Change --batch-size")
    size = items // processes
    return slice(process * size, (process + 1) * size)
