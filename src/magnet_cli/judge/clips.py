"""The clips to judge: audio files in folders, by name or of a batch, and the texts that they were made from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from magnet_cli.errors import UsageError
from magnet_cli.jobs.manifest import MANIFEST_FILE, Manifest
from magnet_cli.jobs.prompt_file import Problems, read_prompt_file
from magnet_cli.jobs.record import read_record
from magnet_cli.options.tempo import named_tempi
from magnet_cli.train.data import find_examples

# Columns of prompt files that name an audio file: of results.csv, of the audiofolder convention, of other programs.
FILE_COLUMNS = ("path", "file_name", "file", "audio", "filename")


@dataclass(frozen=True)
class FoundClip:
    """An audio file to judge.

    name: relative to the folder in which it was found. prompt: as its record or a file of prompts has it. text: what
    the model was given, which may have a tempo in addition; None: not known, or no text at all. bpm: of a loop, as it
    was asked for. loop: whether it is one.
    """

    path: Path
    name: str
    prompt: str | None = None
    text: str | None = None
    bpm: float | None = None
    loop: bool = False

    @property
    def asked(self) -> list[tuple[float, float]]:
        """The tempi that were asked for, slowest and fastest of each."""
        return [(self.bpm, self.bpm)] if self.bpm is not None else named_tempi(self.text or "")


def find_clips(places: Sequence[Path], prompts: Path | None = None) -> list[FoundClip]:
    """The clips in folders, of batches' manifests, and by name, each once, in this order.

    Their texts are those of `prompts`, if that is given; else those of the records in or beside them; else those that
    the audiofolder convention has.

    Raises: UsageError for a place that is not there or has no audio, and for prompts that belong to none of the clips.
    """
    found: dict[str, FoundClip] = {}
    for place in places:
        for clip in _clips_at(place):
            found.setdefault(os.path.abspath(clip.path), clip)
    clips = list(found.values())
    return clips if prompts is None else _with_prompts(clips, prompts)


def _clips_at(place: Path) -> Iterable[FoundClip]:
    if place.is_dir():
        for example in find_examples(place, texts=False):
            name = Path(os.path.relpath(example.path, place)).as_posix()
            yield _with_record(FoundClip(example.path, name, *(next(iter(example.texts), None),) * 2))
    elif place.name == MANIFEST_FILE:
        for path in _batch_audio(place):
            yield _with_record(FoundClip(path, path.relative_to(place.parent).as_posix()))
    elif place.is_file():
        yield _with_record(FoundClip(place, place.name))
    else:
        raise UsageError(f"there is no file or folder {place}", "Give audio files, or a folder of them")


def _batch_audio(path: Path) -> list[Path]:
    """The audio files of a batch. UsageError for a manifest that names none."""
    manifest = Manifest.read(path.parent)
    made = [manifest.folder / entry.files[-1].path for entry in manifest.entries.values() if entry.files]
    if not made:
        raise UsageError(f"{path} names no clips", "Give the manifest of a batch, or its folder")
    return made


def _with_record(clip: FoundClip) -> FoundClip:
    """The clip with what its record says, if it has one."""
    try:
        record = read_record(clip.path)
    except UsageError:
        return clip
    edit = record.get("edit")
    edit = edit if isinstance(edit, dict) else {}
    bpm, prompt = edit.get("bpm"), record.get("prompt")
    text = None if edit.get("unconditional") is True else record.get("text", prompt)
    return replace(
        clip,
        prompt=prompt if isinstance(prompt, str) else None,
        text=text if isinstance(text, str) and text.strip() else None,
        bpm=float(bpm) if isinstance(bpm, (int, float)) and bpm > 0 else None,
        loop=edit.get("loop") is True,
    )


# -- prompts of a file ------------------------------------------------------------------------------------------------


def _with_prompts(clips: Sequence[FoundClip], path: Path) -> list[FoundClip]:
    if path.name == MANIFEST_FILE:
        named = [(audio, _with_record(FoundClip(audio, audio.name))) for audio in _batch_audio(path)]
        texts = _by_name([(audio, one.text) for audio, one in named if one.text is not None])
        return _matched(clips, texts, path)
    problems = Problems(str(path))
    file = read_prompt_file(str(path), None, problems)
    problems.check()
    column = next((name for name in FILE_COLUMNS if name in file.own), None)
    if column is not None:
        rows = [(path.parent / row.own[column], row.prompt) for row in file.rows if column in row.own]
        return _matched(clips, _by_name(rows), path)
    if len(file.rows) != len(clips):
        raise UsageError(
            f"{path} has {len(file.rows):,} prompts for {len(clips):,} clips",
            f"Give one prompt for each clip, in the order of their names, or a column {FILE_COLUMNS[0]}",
        )
    return [_with_text(clip, row.prompt) for clip, row in zip(clips, file.rows, strict=True)]


def _by_name(rows: Iterable[tuple[Path, str]]) -> Mapping[str, str]:
    """Texts by the whole path, by the file's name and by its name without the suffix; a name that is not unique: none.

    Whole paths come last, so that none is hidden by a name.
    """
    rows = list(rows)
    found: dict[str, str] = {}
    for names in ([path.stem for path, _ in rows], [path.name for path, _ in rows]):
        texts: dict[str, set[str]] = {}
        for name, (_, text) in zip(names, rows, strict=True):
            texts.setdefault(name, set()).add(text)
        found |= {name: next(iter(those)) for name, those in texts.items() if len(those) == 1}
    return found | {os.path.abspath(path): text for path, text in rows}


def _matched(clips: Sequence[FoundClip], texts: Mapping[str, str], path: Path) -> list[FoundClip]:
    def text_of(clip: FoundClip) -> Any:
        keys = (os.path.abspath(clip.path), clip.path.name, clip.path.stem)
        return next((texts[key] for key in keys if key in texts), None)

    if not any(text_of(clip) for clip in clips):
        raise UsageError(
            f"the prompts in {path} belong to none of the {len(clips):,} clips: no name of a file is the same",
            "Give the prompts of these clips, with their file names",
        )
    return [_with_text(clip, text_of(clip)) for clip in clips]


def _with_text(clip: FoundClip, text: str | None) -> FoundClip:
    return replace(clip, prompt=text, text=text, bpm=None)
