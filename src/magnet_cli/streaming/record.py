"""The record of a stream, which plays it again: seed, model, and which window had which prompt and steps."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from magnet_cli.disk.small_files import UnreadableFileError, read_object
from magnet_cli.errors import MagnetError, UsageError
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import check_prompt
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.sampling import LATER, SamplingConfig
from magnet_cli.options.strict_json import from_plain
from magnet_cli.pipeline.record import Provenance, versions
from magnet_cli.streaming.stream import Stream, StreamPlan, Turning

FORMAT, VERSION = "magnet-stream", 1
MOST_BYTES = 1 << 26  # an entry for each change, of some 100 bytes: months of changes at every window

StreamRecord = dict[str, Any]


def record_of(stream: Stream, plan: StreamPlan, provenance: Provenance, *, seconds: float) -> StreamRecord:
    """What plays a stream again, after so many seconds of it have gone out."""
    info, last = provenance.info, stream.window_at(seconds)
    return {
        "format": FORMAT,
        "version": VERSION,
        "seed": plan.seed,
        "sampling": asdict(plan.sampling),
        "edit": asdict(plan.edit),
        "overlap": plan.overlap,
        "output": asdict(plan.output),
        "model": {
            "name": info.name,
            "given": provenance.given["model"],
            "repository": info.repository,
            "revision": info.revision,
            "licence": info.licence,
            "hashes": provenance.hashes()["model"],
        },
        "windows": [
            {"window": one.window, "seconds": stream.seconds_at(one.window), "prompt": one.prompt, "steps": one.steps}
            for one in stream.turnings
            if one.window <= last
        ],
        "codes": {"windows": last + 1, "sha256": stream.codes_hash(last)},
        "seconds": seconds,
        "sample_rate": stream.sample_rate,
        "channels": stream.channels,
        "device": info.device,
        "dtype": info.dtype,
        "processor": info.processor,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def as_json(record: StreamRecord) -> bytes:
    """The content of the file."""
    return (json.dumps(record, indent=2, allow_nan=False) + "\n").encode()


@dataclass(frozen=True)
class StreamRecipe:
    """What plays a stream again. model: a value for --model; codes_sha256: of all windows that were heard."""

    plan: StreamPlan
    model: str
    seconds: float
    codes_sha256: str
    device: str
    dtype: str


def read_stream_record(path: Path) -> StreamRecipe:
    """Read the record of a stream.

    Raises: UsageError for a file that is none, or whose entries are missing or wrong.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}", "Give the record that magnet stream wrote when it ended")
    try:
        record = read_object(path, most=MOST_BYTES)
    except UnreadableFileError as error:
        raise UsageError(f"{path} is no record of a stream: {error}", "Give the file as magnet wrote it") from error
    if record.get("format") != FORMAT or record.get("version") != VERSION or record.get("version") is True:
        raise UsageError(f"{path} holds no record of a stream of version {VERSION}", "Give one that magnet has written")
    try:
        return _recipe(record)
    except ValueError as error:
        raise UsageError(f"{error} in {path} is missing or wrong", "Give the file as magnet wrote it") from None
    except MagnetError as error:
        raise UsageError(f"{path} is wrong: {error.message}", "Give the file as magnet wrote it") from error


def _recipe(record: Mapping[str, Any]) -> StreamRecipe:
    edit = from_plain(EditConfig, record.get("edit"))
    sampling = from_plain(SamplingConfig, record.get("sampling"), later=LATER)
    output = from_plain(OutputConfig, record.get("output"))
    overlap, seed, seconds = (record.get(name) for name in ("overlap", "seed", "seconds"))
    if not isinstance(overlap, int) or isinstance(overlap, bool):
        raise ValueError("overlap")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError("seed")
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 < seconds < math.inf:
        raise ValueError("seconds")
    if not all(math.isfinite(value) for value in (output.lufs, output.true_peak)):
        raise ValueError("output")
    script = _script(record.get("windows"), sampling, unconditional=edit.unconditional)
    model, codes = record.get("model"), record.get("codes")
    if not isinstance(model, dict) or not isinstance(model.get("given"), str):
        raise ValueError("model")
    if not isinstance(codes, dict) or not isinstance(codes.get("sha256"), str):
        raise ValueError("codes")
    words = [str(record.get(name)) if isinstance(record.get(name), str) else "auto" for name in ("device", "dtype")]
    plan = StreamPlan(
        prompt=script[0].prompt,
        seed=seed,
        sampling=sampling,
        edit=edit,
        overlap=overlap,
        output=output,
        script=script,
    )
    return StreamRecipe(plan, model["given"], float(seconds), codes["sha256"], words[0], words[1])


def _script(values: Any, sampling: SamplingConfig, *, unconditional: bool) -> tuple[Turning, ...]:
    """The prompts and steps of windows; ValueError for what they cannot be."""
    if not isinstance(values, list) or not values:
        raise ValueError("windows")
    found: list[Turning] = []
    for value in values:
        if not isinstance(value, dict):
            raise ValueError("windows")
        window, prompt, steps = value.get("window"), value.get("prompt"), value.get("steps")
        after = found[-1].window if found else -1
        if type(window) is not int or window <= after or (not found and window != 0):
            raise ValueError("windows")
        if not isinstance(prompt, str) or not isinstance(steps, list) or len(steps) != len(sampling.steps):
            raise ValueError("windows")
        if any(type(one) is not int for one in steps):
            raise ValueError("windows")
        if prompt or not unconditional:
            check_prompt(prompt)
        found.append(Turning(window, prompt, replace(sampling, steps=tuple(steps)).steps))
    return tuple(found)
