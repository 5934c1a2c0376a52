"""The cache of codes: the codec encodes each audio file once, and training reads the codes.

Each cache file holds a thousand clips, so that an interrupted encoding resumes and several processes share the work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from magnet_cli.disk.atomic import write_atomic
from magnet_cli.errors import ModelError, OutputError, UsageError
from magnet_cli.model.codec import Codec
from magnet_cli.model.weights import Weights, read_safetensors
from magnet_cli.train.data import Example, duration, read_segment
from magnet_cli.train.tones import Analysis

if TYPE_CHECKING:
    from accelerate import Accelerator

SHARD = 1000
SHORTEST = 0.5  # of a clip; the rest of a longer file that falls short of it is left out

OnTokens = Callable[[int, int], None]


@dataclass(frozen=True)
class Piece:
    """A part of a file as long as a clip: the example, its start and its length in seconds."""

    example: int
    start: float
    seconds: float


@dataclass(frozen=True)
class Tokens:
    """Codes of all pieces, int16 [E, K, T]; how many frames of each are audio and not padding; the example of each."""

    codes: NDArray[np.int16]
    valid: NDArray[np.int64]
    example: NDArray[np.int64]


def cut(examples: Sequence[Example], clip_seconds: float) -> list[Piece]:
    """Consecutive clips of every file. A file shorter than a clip gives one clip, which is padded."""
    pieces = []
    for index, example in enumerate(examples):
        length = duration(example.path)
        whole = int(length / clip_seconds + 1e-6)
        pieces += [Piece(index, number * clip_seconds, clip_seconds) for number in range(whole)]
        rest = length - whole * clip_seconds
        if not whole or rest >= SHORTEST * clip_seconds:
            pieces.append(Piece(index, whole * clip_seconds, rest))
    return pieces


def tokenize(
    examples: Sequence[Example],
    codec: Codec,
    folder: Path,
    *,
    codebooks: int,
    clip_seconds: float,
    accelerator: Accelerator,
    analysis: Analysis | None = None,
    on_tokens: OnTokens | None = None,
) -> Tokens:
    """Codes of all examples, from the cache in `folder` where it has them. `on_tokens` receives the number of
    pieces done and of all pieces.

    analysis: that of a codec with phase-free codes, which its encoder only imitates: codes then come from it. The name
    of a cache file is a hash of the audio files and of what encodes them, so other audio or another codec never uses
    old codes.
    """
    pieces = cut(examples, clip_seconds)
    if max(codec.config.codes, 1) > np.iinfo(np.int16).max:
        raise UsageError(f"{codec.config.codes} codes do not fit the cache", "Use a codec of at most 32767 codes")
    identity = _identity(codec, analysis)
    groups = [pieces[start : start + SHARD] for start in range(0, len(pieces), SHARD)]
    paths = [folder / f"{_key(group, examples, clip_seconds, identity, codebooks)}.safetensors" for group in groups]
    done = 0
    for index, (group, path) in enumerate(zip(groups, paths, strict=True)):
        if index % accelerator.num_processes != accelerator.process_index:
            continue
        if not path.is_file():
            _write(path, group, examples, codec, codebooks, clip_seconds, analysis)
        done += len(group)
        if on_tokens is not None and accelerator.is_main_process:
            on_tokens(min(len(pieces), done * accelerator.num_processes), len(pieces))
    accelerator.wait_for_everyone()
    shards = [_read(path, len(group), codebooks, codec.config.codes) for group, path in zip(groups, paths, strict=True)]
    return Tokens(
        np.concatenate([shard["codes"].numpy() for shard in shards]),
        np.concatenate([shard["valid"].numpy() for shard in shards]),
        np.asarray([piece.example for piece in pieces]),
    )


def _read(path: Path, pieces: int, codebooks: int, most: int) -> Weights:
    """The codes of some pieces, as `_write` has written them; OutputError for any others.

    most: how many codes a codebook has.
    """
    hint = f"Delete {path.name}; the same command encodes the audio again"
    try:
        shard = read_safetensors(path)
        codes, valid = shard["codes"], shard["valid"]
    except (ModelError, KeyError) as error:
        raise OutputError(f"{path} is damaged", hint) from error
    whole = codes.dtype == torch.int16 and codes.dim() == 3 and codes.shape[:2] == (pieces, codebooks)
    whole = whole and valid.dtype == torch.int64 and valid.shape == (pieces,) and codes.numel() > 0
    if not whole or codes.min() < 0 or codes.max() >= most or valid.min() < 1 or valid.max() > codes.shape[2]:
        raise OutputError(f"{path} does not hold the codes that were written to it", hint)
    return shard


def _write(
    path: Path,
    pieces: Sequence[Piece],
    examples: Sequence[Example],
    codec: Codec,
    codebooks: int,
    clip_seconds: float,
    analysis: Analysis | None,
) -> None:
    rate = codec.config.frame_rate
    frames = int(clip_seconds * rate)
    codes, valid = [], []
    for piece in pieces:
        codes.append(encode(piece, examples, codec, codebooks=codebooks, clip_seconds=clip_seconds, analysis=analysis))
        valid.append(min(frames, max(1, int(piece.seconds * rate + 1e-6))))
    shard: Weights = {"codes": torch.stack(codes), "valid": torch.tensor(valid)}
    content = save(shard)
    write_atomic(path, lambda file: file.write(content), overwrite=True)


def encode(
    piece: Piece,
    examples: Sequence[Example],
    codec: Codec,
    *,
    codebooks: int,
    clip_seconds: float,
    analysis: Analysis | None,
) -> torch.Tensor:
    """Codes of a piece, int16 [K, T]."""
    config = codec.config
    path = examples[piece.example].path
    waveform = read_segment(path, piece.start, clip_seconds, config.sample_rate, config.channels)
    frames = int(clip_seconds * config.frame_rate)
    codes = codec.encode(waveform[None]) if analysis is None else analysis.encode(codec, waveform[None])
    return codes[0, :codebooks, :frames].to("cpu", torch.int16)


def _identity(codec: Codec, analysis: Analysis | None) -> str:
    digest = hashlib.sha256()
    encoding = [codec] if analysis is None else [codec.quantizer, analysis]
    for tensor in (tensor for module in encoding for tensor in module.state_dict().values()):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _key(
    pieces: Sequence[Piece], examples: Sequence[Example], clip_seconds: float, identity: str, codebooks: int
) -> str:
    files = []
    for piece in pieces:
        stat = examples[piece.example].path.stat()
        files.append([str(examples[piece.example].path.resolve()), stat.st_size, stat.st_mtime_ns, piece.start])
    return hashlib.sha256(json.dumps([identity, codebooks, clip_seconds, files]).encode()).hexdigest()[:24]
