"""The record of how a clip was generated: JSON beside the audio file and inside it, which `recipe` reads back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from magnet_cli.audio.formats import sidecar
from magnet_cli.audio.riff_info import read_tags
from magnet_cli.disk.small_files import UnreadableFileError, parse_json, read_text
from magnet_cli.errors import MagnetError, UsageError
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import Job
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.sampling import LATER, MusicGenSampling, SamplingConfig
from magnet_cli.options.strict_json import from_plain
from magnet_cli.options.tempo import with_tempo
from magnet_cli.pipeline.record import FORMAT, VERSION, Record

SUFFIX = ".json"
MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class Recipe:
    """What regenerates a clip. `model` is a value for --model; `helpers` are names of the helping models, by role."""

    job: Job
    output: OutputConfig
    model: str
    helpers: dict[str, str]
    codes_sha256: str


def read_record(path: Path) -> Record:
    """The record in an audio file, beside it, or in a JSON file.

    Raises:
        UsageError: for a file that cannot be read, or holds no record that this version understands.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}", "Give an audio file that magnet has made, or its .json")
    if path.suffix.lower() == SUFFIX:
        return _parse(_text(path), path)
    comment = read_tags(path).get("comment", "")
    if FORMAT in comment:
        return _parse(comment, path)
    if sidecar(path).is_file():
        return _parse(_text(sidecar(path)), sidecar(path))
    raise UsageError(
        f"{path} does not say how it was made, and there is no {sidecar(path).name} beside it",
        "Give a file that magnet has written without --no-metadata",
    )


def _text(path: Path) -> str:
    try:
        return read_text(path, most=MOST_BYTES)
    except UnreadableFileError as error:
        raise UsageError(f"{path} is no record of a clip: {error}", "Give the .json beside an audio file") from error


def _parse(text: str, path: Path) -> Record:
    try:
        record = parse_json(text)
    except UnreadableFileError:
        record = None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UsageError(f"{path} holds no record of a clip", "Give a file that magnet has written")
    version = record.get("version")
    if version != VERSION or isinstance(version, bool):
        shown = version if isinstance(version, int) else "unknown"
        raise UsageError(f"{path} holds a record of version {shown}; this magnet reads {VERSION}", "Update magnet")
    return record


def recipe(record: Mapping[str, Any]) -> Recipe:
    """What regenerates a record's clip.

    Raises:
        UsageError: that names the entry of the record that is wrong.
    """
    try:
        model, codes = record.get("model"), record.get("codes")
        if not isinstance(codes, dict) or not isinstance(codes.get("sha256"), str):
            raise ValueError("codes")
        prompt, seed = record.get("prompt"), record.get("seed")
        if not isinstance(prompt, str):
            raise ValueError("prompt")
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise ValueError("seed")
        output = from_plain(OutputConfig, record.get("output"), later=("sample_rate",))
        if not all(math.isfinite(value) for value in (output.lufs, output.true_peak)):
            raise ValueError("output")
        sampling = record.get("sampling")
        masked = isinstance(sampling, dict) and "steps" in sampling
        drawn = from_plain(SamplingConfig, sampling, later=LATER) if masked else from_plain(MusicGenSampling, sampling)
        edit = _edit(record)
        job = Job(prompt, seed, drawn, edit, _other_text(record.get("text", prompt), prompt, edit))
        helpers = record.get("helpers")
        if not isinstance(helpers, dict):
            raise ValueError("helpers")
        given = {str(role): _given(helper, f"helpers.{role}") for role, helper in helpers.items()}
        return Recipe(job, output, _given(model, "model"), given, codes["sha256"])
    except ValueError as error:
        raise UsageError(
            f"{error} in the clip's record is missing or wrong", "Give the file as magnet wrote it"
        ) from None
    except MagnetError as error:
        raise UsageError(f"the clip's record is wrong: {error.message}", "Give the file as magnet wrote it") from error


def _other_text(text: Any, prompt: str, edit: EditConfig) -> str | None:
    """The text that the model was given, unless it is what the prompt and the tempo give now.

    Records of earlier versions have none: there, it was the prompt.
    """
    if not isinstance(text, str):
        raise ValueError("text")
    try:
        now = prompt if edit.unconditional else with_tempo(prompt, edit.bpm)
    except UsageError:
        return text
    return None if text == now else text


def _given(model: Any, name: str) -> str:
    if not isinstance(model, dict) or not isinstance(model.get("given"), str):
        raise ValueError(name)
    return str(model["given"])


def _edit(record: Mapping[str, Any]) -> EditConfig:
    """The edit of a record, with the path of its input at that time."""
    edit, source = from_plain(EditConfig, record.get("edit")), record.get("input")
    if edit.input is None:
        return edit
    if not isinstance(source, dict) or not isinstance(source.get("path"), str):
        raise ValueError("input")
    name = "inpaint" if edit.continue_from is None else "continue_from"
    return replace(edit, **{name: source["path"]})


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs now from when a clip was generated, of all that can change its codes; each in words."""
    found = [
        f"the {name} was {then.get(name)}, now it is {now.get(name)}"
        for name in ("device", "dtype", "processor", "threads")
        if then.get(name) != now.get(name)
    ]
    compiled = bool(then.get("compiled"))  # missing in older records
    if compiled != bool(now.get("compiled")):
        found.append(f"its decoder was {'compiled, now it is not' if compiled else 'not compiled, now it is'}")
    if then.get("batch") != now.get("batch"):
        found.append(f"it was decoded in a batch of {then.get('batch')}, now of {now.get('batch')}")
    before, after = then.get("versions"), now.get("versions")
    if isinstance(before, dict) and isinstance(after, dict):
        found += [
            f"{name} was {before.get(name)}, now it is {version}"
            for name, version in after.items()
            if before.get(name) != version
        ]
    for name, parts in (("model", "hashes"), ("input", "sha256")):
        pair = [one.get(parts) if isinstance(one, dict) else None for one in (then.get(name), now.get(name))]
        if pair[0] != pair[1]:
            found.append("the model's weights are others" if name == "model" else "the input file has changed")
    return found
