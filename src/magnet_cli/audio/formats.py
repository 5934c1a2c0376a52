"""The audio formats that can be written, and the names of the files beside an audio file."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from magnet_cli.errors import UsageError
from magnet_cli.options.output import Subtype

AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # Hz


def check_format(path: Path, subtype: Subtype | None, sample_rate: int | None = None) -> None:
    """Raise UsageError unless `files.write_audio` can write this kind of file. Call it before any work.

    The extension, one of AUDIO_EXTENSIONS in upper or lower case, names the format. Ogg Vorbis (.ogg)
    and MP3 have no sample format, so `subtype` does not apply to them. sample_rate: Hz; None: not known yet.
    """
    extension = path.suffix.lower()
    if extension not in AUDIO_EXTENSIONS:
        kind = f"files ending in {path.suffix!r}" if path.suffix else "files without an extension"
        raise UsageError(f"cannot write {kind}: {path}", f"Use one of {', '.join(AUDIO_EXTENSIONS)}")
    if extension == ".mp3":
        check_mp3(path, sample_rate)
    if subtype not in (None, *get_args(Subtype)):
        raise UsageError(f"unknown subtype {subtype!r}", f"Give one of {', '.join(get_args(Subtype))}")
    if extension == ".flac" and subtype == "float32":
        raise UsageError("FLAC stores whole numbers only, not float32", "Choose pcm24, or a .wav file")


def check_mp3(path: Path, sample_rate: int | None) -> None:
    """Raise UsageError unless this machine's libsndfile writes MP3 at this rate (Hz); None: it is not known yet."""
    import soundfile  # only here: most commands write other formats, and help must be quick

    if "MP3" not in soundfile.available_formats():
        raise UsageError(
            f"cannot write {path}: libsndfile {soundfile.__libsndfile_version__} cannot write MP3",
            "Use .ogg, .flac or .wav, or update soundfile: libsndfile 1.1 can",
        )
    if sample_rate not in (None, *MP3_RATES):
        raise UsageError(f"an MP3 file cannot have {sample_rate} Hz", "Give --sample-rate 44100, or use .flac or .wav")


def sidecar(audio: Path) -> Path:
    """The JSON file that says how an audio file was generated."""
    return audio.with_name(f"{audio.stem}.json")


def picture_beside(audio: Path) -> Path:
    """The picture of an audio file."""
    return audio.with_name(f"{audio.stem}.png")


def codes_beside(audio: Path) -> Path:
    """The file of the codes of an audio file."""
    return audio.with_name(f"{audio.stem}.codes.npz")
