"""Reading and writing audio files, so that a file is either there and complete, or not there.

`write_atomic` is what every file this package leaves behind goes through, whatever is in it.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import signal
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from magnet_cli.errors import NumericsError, OutputError, UsageError
from magnet_cli.naming import Target, check_format
from magnet_cli.options.output import Subtype
from magnet_cli.tags import add_riff_tags

LONGEST_PART = 255  # bytes that file systems allow a name
CHUNK = 1 << 16  # samples handed to libsndfile at a time: it overflows the stack on a Vorbis clip of 2 minutes at once

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
OVERWRITE_HINT = "Pass --force to overwrite it, or choose another name"


# -- audio ------------------------------------------------------------------------------------------------------------


def encode_audio(
    path: Path,
    waveform: NDArray[np.float32],
    sample_rate: int,
    subtype: Subtype,
    *,
    tags: Mapping[str, str] | None = None,
) -> bytes:
    """The content of an audio file: a waveform, float32 [C, L] with full scale at 1, as the extension of `path` says.

    What exceeds full scale is clipped, except in float32 files, which keep it. Nothing is random, so the same waveform
    gives the same bytes, except for .ogg, whose stream number libsndfile draws.
    tags: what to embed, by soundfile's names, see `tags.TAGS`.
    Raises UsageError for a format that cannot be (see `check_format`), NumericsError for values that are not finite.
    """
    check_format(path, subtype)
    if waveform.ndim != 2 or waveform.size == 0:
        raise ValueError(f"a waveform is [C, L] and not empty, not {waveform.shape}")
    if not np.isfinite(waveform).all():
        raise NumericsError(
            "the waveform holds samples that are not finite, nothing was written",
            "Try --dtype float32, or another seed",
        )
    # Encoded in memory: from inside libsndfile's callbacks an error of the disk, or Ctrl-C, would be printed and lost.
    try:
        return _encode(waveform.T, sample_rate, path.suffix.lower(), subtype, tags or {})
    except soundfile.SoundFileError as error:
        raise OutputError(
            f"cannot encode {path}: {getattr(error, 'error_string', error)}",
            "Try a .wav file; if that fails too, report the message",
        ) from error


def write_audio(
    path: Path, waveform: NDArray[np.float32], sample_rate: int, subtype: Subtype, *, overwrite: bool = False
) -> None:
    """Write an audio file; see `encode_audio`. OutputError for one that exists (unless `overwrite`) or cannot be."""
    encoded = encode_audio(path, waveform, sample_rate, subtype)
    write_atomic(path, lambda file: file.write(encoded), overwrite=overwrite)


def read_audio(path: Path) -> tuple[NDArray[np.float32], int]:
    """Read an audio file: float32 [C, L], full scale at 1, and its sample rate in Hz.

    Reads whatever libsndfile does (WAV, FLAC, Ogg, MP3, AIFF and more). Raises UsageError for a file that is missing,
    is not audio, holds no samples, or holds values that are not finite.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {_reason(error)}", "Check the path and its permissions") from error
    try:
        # From memory, without a name: soundfile would take a name that ends in .raw for a request to read anything.
        samples, sample_rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)  # [L, C]
    except soundfile.SoundFileError as error:
        raise UsageError(
            f"{path} is not an audio file that can be read", "Give a WAV, FLAC, Ogg or MP3 file"
        ) from error
    if samples.size == 0:
        raise UsageError(f"{path} holds no samples", "Give a file with audio in it")
    if not np.isfinite(samples).all():
        raise UsageError(f"{path} holds samples that are not finite", "Export it again, as pcm16 or pcm24")
    return np.ascontiguousarray(samples.T), int(sample_rate)


def _encode(
    frames: NDArray[np.float32], sample_rate: int, extension: str, subtype: Subtype, tags: Mapping[str, str]
) -> bytes:
    """Samples [L, C] -> the bytes of a file."""
    buffer = io.BytesIO()
    if extension == ".wav" and subtype == "float32":
        from scipy.io import wavfile  # takes longer to import than to write

        # libsndfile would put the time of day into the file (its PEAK chunk).
        wavfile.write(buffer, sample_rate, np.ascontiguousarray(frames, dtype=np.float32))
        return add_riff_tags(buffer.getvalue(), tags)
    if extension == ".ogg":
        container, coding = "OGG", "VORBIS"
        data: NDArray[Any] = np.clip(frames, -1.0, 1.0).astype(np.float32)
    else:
        container, coding = extension[1:].upper(), "PCM_16" if subtype == "pcm16" else "PCM_24"
        data = _quantize(frames, 16 if subtype == "pcm16" else 24)
    data = np.ascontiguousarray(data)
    with soundfile.SoundFile(
        buffer, "w", samplerate=sample_rate, channels=data.shape[1], format=container, subtype=coding
    ) as file:
        if extension != ".wav":
            for name, text in tags.items():
                setattr(file, name, text)
        for start in range(0, len(data), CHUNK):
            file.write(data[start : start + CHUNK])
    return add_riff_tags(buffer.getvalue(), tags) if extension == ".wav" else buffer.getvalue()


def _quantize(waveform: NDArray[np.float32], bits: int) -> NDArray[Any]:
    """Nearest whole numbers of 16 or 24 bits, clipped; in the upper bits of int16 or int32, as libsndfile wants them.

    Done here because libsndfile truncates. Without dither: it would have to be random, and the codec's own noise lies
    well above -98 dBFS, where 16 bits put theirs.
    """
    scale = 2 ** (bits - 1)
    # float64: float32 holds 24 bits, so that rounding and the bound scale - 1 would be lost on it
    whole: NDArray[np.float64] = np.clip(np.rint(waveform.astype(np.float64) * scale), -scale, scale - 1)
    if bits == 16:
        return whole.astype(np.int16)
    return whole.astype(np.int32) << (32 - bits)


# -- any file ---------------------------------------------------------------------------------------------------------


def check_targets(targets: Sequence[Target], subtype: Subtype, *, overwrite: bool) -> None:
    """Raise UsageError for a format that cannot be, OutputError for a file that exists or cannot be written."""
    for target in targets:
        check_format(target.audio, subtype)
    check_writable([path for target in targets for path in target.files], overwrite=overwrite)


def check_writable(paths: Sequence[Path], *, overwrite: bool = False) -> None:
    """Raise OutputError if writing to one of these is bound to fail; called before any work, and leaves nothing behind.

    A path must not exist (unless `overwrite`, and then be a regular file), and its nearest existing parent must be a
    folder that takes a new file. This is tried rather than asked: os.access knows nothing of Windows ACLs.
    """
    tried: set[Path] = set()
    for path in paths:
        for part in path.parts:
            if len(os.fsencode(part)) > LONGEST_PART:
                raise OutputError(f"cannot write {path}: a name in it is too long", "Choose a shorter name")
        try:
            _check_target(path, overwrite=overwrite)
            parent = path.absolute().parent
        except OSError as error:  # such as a working directory that is gone
            raise _output_error(path, error) from error
        while not _exists(parent) and parent != parent.parent:
            parent = parent.parent
        if parent not in tried:
            _try_folder(parent, path)
            tried.add(parent)


def _try_folder(folder: Path, path: Path) -> None:
    """Raise OutputError unless a file can be made in this folder; `path` is what it is wanted for."""
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: {folder} is not a folder", "Choose another folder")
    probe = _temporary(folder, "")
    try:
        probe.touch(exist_ok=False)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        with suppress(OSError):
            probe.unlink()


def write_atomic(path: Path, write: Callable[[BinaryIO], object], *, overwrite: bool = False) -> None:
    """Create a file, with its folders, from what `write` puts into the binary file it is given: all of it, or nothing.

    `write` fills a hidden file beside `path`, which is flushed to the disk and takes its name only then. On any
    failure, Ctrl-C among them, the hidden file is removed and whatever was at `path` stays. Without `overwrite` an
    existing file is never replaced, even if it appeared during the work. Raises OutputError; what `write` raises passes
    through, except OSError, which becomes an OutputError. A symbolic link stays one: its target is replaced.
    """
    with _Unpublished(overwrite=overwrite) as files:
        files.add(path, write)
        files.publish()


def write_together(
    contents: Sequence[tuple[Path, bytes]],
    *,
    overwrite: bool = False,
    before_publishing: Callable[[dict[Path, os.stat_result]], object] | None = None,
) -> None:
    """Create several files as `write_atomic` does one: all of them, or none.

    They take their names in order, so the last is there only if all are. before_publishing: called once all are
    complete on the disk and none has its name, with the size and time that each will have.
    """
    with _Unpublished(overwrite=overwrite) as files:
        for path, content in contents:
            files.add(path, lambda file, content=content: file.write(content))  # type: ignore[misc]
        if before_publishing is not None:
            before_publishing(files.stats())
        files.publish()


class _Unpublished:
    """Complete files that do not have their names yet; what is left of them at the end is removed."""

    def __init__(self, *, overwrite: bool) -> None:
        self._overwrite = overwrite
        self._files: list[tuple[Path, Path, Path]] = []  # as named, where it really is, its temporary file

    def __enter__(self) -> _Unpublished:
        return self

    def __exit__(self, *exception: object) -> None:
        with _signals_wait():
            self._remove()

    def _remove(self) -> None:
        while self._files:
            with suppress(OSError):  # gone already after a rename
                self._files.pop()[2].unlink()

    def add(self, name: Path, write: Callable[[BinaryIO], object]) -> None:
        """Fill a hidden file beside the one it is to become, and flush it to the disk."""
        path = Path(os.path.realpath(name)) if self._overwrite and name.is_symlink() else name
        _check_target(path, overwrite=self._overwrite)
        temporary = _temporary(path.parent, path.suffix)
        self._files.append((name, path, temporary))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _output_error(path, error) from error

    def stats(self) -> dict[Path, os.stat_result]:
        """What the system says of each file."""
        try:
            return {name: temporary.stat() for name, _, temporary in self._files}
        except OSError as error:
            raise _output_error(self._files[-1][1], error) from error

    def publish(self) -> None:
        """Give every file its name, in order; if one cannot have it, none keeps one it did not have before.

        Signals wait meanwhile: between two files is no place to stop.
        """
        folders = {path.parent for _, path, _ in self._files}
        with _signals_wait():
            self._name_all()
            self._remove()
        for folder in folders:
            _sync_folder(folder)

    def _name_all(self) -> None:
        published: list[Path] = []
        try:
            for _, path, temporary in self._files:
                existed = _exists(path)
                try:
                    _publish(temporary, path, overwrite=self._overwrite)
                except OSError as error:
                    raise _output_error(path, error) from error
                if not existed:
                    published.append(path)
        except BaseException:
            for path in published:
                with suppress(OSError):
                    path.unlink()
            raise


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Let whatever asks the program to stop wait until the end of this, which is to take milliseconds."""
    if threading.current_thread() is not threading.main_thread():  # only that one is interrupted by signals
        yield
        return
    came: list[int] = []
    before: dict[int, Any] = {}
    try:
        for number in STOPPING:
            handler = signal.getsignal(number)
            if handler is not None:  # None: not set by Python, which could not put it back
                before[number] = handler
                signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _publish(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Give the finished file its name; OutputError if that is taken and must stay."""
    if overwrite:
        os.replace(temporary, path)
        return
    try:
        if os.name == "nt":
            os.rename(temporary, path)  # on Windows alone this refuses a name that is taken
        else:
            os.link(temporary, path)
    except FileExistsError as error:
        raise OutputError(f"{path} already exists", OVERWRITE_HINT) from error
    except OSError:
        if os.name == "nt":
            raise
        _claim(temporary, path)


def _claim(temporary: Path, path: Path) -> None:
    """As `_publish`, on a file system without hard links, such as FAT: take the name with an empty file first."""
    try:
        path.open("xb").close()
    except FileExistsError as error:
        raise OutputError(f"{path} already exists", OVERWRITE_HINT) from error
    try:
        os.replace(temporary, path)
    except BaseException:
        path.unlink()
        raise


def _temporary(folder: Path, suffix: str) -> Path:
    # Not made from the file's own name, which may have the greatest length already; nor by tempfile, whose files only
    # their owner may read.
    return folder / f".magnet-{secrets.token_hex(8)}{suffix}"


def _check_target(path: Path, *, overwrite: bool) -> None:
    if not _exists(path):
        return
    if path.is_dir():
        raise OutputError(f"{path} is a folder", "Give the name of a file")
    if not overwrite:
        raise OutputError(f"{path} already exists", OVERWRITE_HINT)
    if not stat.S_ISREG(path.lstat().st_mode) and not path.is_symlink():  # replacing /dev/null would break the system
        raise OutputError(f"{path} is not a regular file", "Choose another name")


def _exists(path: Path) -> bool:
    return os.path.lexists(path)  # a link that leads nowhere has taken the name too


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a loss of power, where the system lets a folder be opened; Windows does not."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _output_error(path: Path, error: OSError) -> OutputError:
    hints = {
        "ENOSPC": "Free some space, or choose a folder on another disk",
        "EDQUOT": "Free some space, or choose a folder on another disk",
        "EROFS": "Choose a folder that is not read-only",
        "ENAMETOOLONG": "Choose a shorter name",
    }
    hint = hints.get(
        errno.errorcode.get(error.errno or 0, ""), "Check the folder and its permissions, or choose another"
    )
    return OutputError(f"cannot write {path}: {_reason(error)}", hint)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
