"""The audio formats that can be written, and the names of the files beside an audio file."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from magnet_cli.errors import UsageError
from magnet_cli.options.output import Subtype

AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg")


def check_format(path: Path, subtype: Subtype) -> None:
    """Raise UsageError unless `files.write_audio` can write this kind of file. Call it before any work.

    The extension, one of AUDIO_EXTENSIONS in upper or lower case, names the format. Ogg Vorbis (.ogg) has no sample
    format, so `subtype` does not apply to it.
    """
    extension = path.suffix.lower()
    if extension not in AUDIO_EXTENSIONS:
        kind = f"files ending in {path.suffix!r}" if path.suffix else "files without an extension"
        raise UsageError(f"cannot write {kind}: {path}", f"Use one of {', '.join(AUDIO_EXTENSIONS)}")
    if subtype not in get_args(Subtype):
        raise UsageError(f"unknown subtype {subtype!r}", f"Give one of {', '.join(get_args(Subtype))}")
    if extension == ".flac" and subtype == "float32":
        raise UsageError("FLAC stores whole numbers only, not float32", "Choose pcm24, or a .wav file")


def sidecar(audio: Path) -> Path:
    """The JSON file that says how an audio file was generated."""
    return audio.with_name(f"{audio.stem}.json")


def codes_beside(audio: Path) -> Path:
    """The file of the codes of an audio file."""
    return audio.with_name(f"{audio.stem}.codes.npz")
