from __future__ import annotations

import errno
import io
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

import numpy as np
import pytest
import soundfile

from magnet_cli.audio.files import read_audio, write_audio
from magnet_cli.audio.formats import AUDIO_EXTENSIONS, check_format
from magnet_cli.disk.atomic import check_writable, write_atomic, write_together
from magnet_cli.errors import NumericsError, OutputError, UsageError

RATE = 32_000


def noise(channels: int = 2, samples: int = 4_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (channels, samples)).astype(np.float32)


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(entry.name for entry in folder.iterdir())


# -- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [".wav", ".flac", ".WAV"])
@pytest.mark.parametrize(("subtype", "bits"), [("pcm16", 16), ("pcm24", 24)])
@pytest.mark.parametrize("channels", [1, 2])
def test_pcm_is_the_nearest_whole_number(
    tmp_path: Path, extension: str, subtype: str, bits: int, channels: int
) -> None:
    path = tmp_path / f"clip{extension}"
    waveform = noise(channels)
    write_audio(path, waveform, RATE, subtype)  # type: ignore[arg-type]
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.frames) == (RATE, channels, waveform.shape[1])
    assert info.subtype == f"PCM_{bits}"
    back, _ = soundfile.read(path, dtype="float64", always_2d=True)
    step = 2.0 ** (1 - bits)
    assert np.abs(back.T - waveform).max() <= step / 2  # exactly: rounding is off by half a step at most
    assert np.array_equal(back.T, np.rint(waveform / step) * step)
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize(("subtype", "bits"), [("pcm16", 16), ("pcm24", 24)])
def test_pcm_clips_and_never_wraps_around(tmp_path: Path, subtype: str, bits: int) -> None:
    values = [1.0, -1.0, 1.5, -1.5, 1e9, -1e9, np.nextafter(np.float32(1), np.float32(0)), 0.0, -0.0]
    write_audio(tmp_path / "a.wav", np.array([values], dtype=np.float32), RATE, subtype)  # type: ignore[arg-type]
    back, _ = soundfile.read(tmp_path / "a.wav", dtype="int32")
    top = 2 ** (bits - 1)
    # the float32 just below 1 is 0.5 * 2**-23 away: it rounds to the top step of either format, which does not exist
    assert (back >> (32 - bits)).tolist() == [top - 1, -top, top - 1, -top, top - 1, -top, top - 1, 0, 0]


def test_float32_keeps_every_bit(tmp_path: Path) -> None:
    waveform = 3 * noise()
    write_audio(tmp_path / "a.wav", waveform, RATE, "float32")
    assert soundfile.info(tmp_path / "a.wav").subtype == "FLOAT"
    back, rate = read_audio(tmp_path / "a.wav")
    assert rate == RATE
    assert np.array_equal(back, waveform)


def test_vorbis_holds_the_sound(tmp_path: Path) -> None:
    sine = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)[None]
    write_audio(tmp_path / "a.ogg", sine, RATE, "pcm16")
    info = soundfile.info(tmp_path / "a.ogg")
    assert (info.format, info.subtype, info.channels) == ("OGG", "VORBIS", 1)
    back, _ = soundfile.read(tmp_path / "a.ogg")
    # its level within 0.5 dB (6 %): lossy, but a sine is easy
    assert np.sqrt(np.mean(back**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.06)


def test_two_minutes_of_vorbis_do_not_crash(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.ogg", 0.1 * noise(2, 120 * 8_000), 8_000, "pcm16")  # libsndfile does, in a single write
    assert soundfile.info(tmp_path / "a.ogg").frames == 120 * 8_000


@pytest.mark.parametrize(("name", "subtype"), [("a.wav", "pcm16"), ("a.wav", "float32"), ("a.flac", "pcm24")])
def test_the_same_waveform_gives_the_same_bytes(tmp_path: Path, name: str, subtype: str) -> None:
    write_audio(tmp_path / name, noise(), RATE, subtype)  # type: ignore[arg-type]
    first = (tmp_path / name).read_bytes()
    time.sleep(1.1)  # a time of day in a file would count seconds
    write_audio(tmp_path / name, noise(), RATE, subtype, overwrite=True)  # type: ignore[arg-type]
    assert (tmp_path / name).read_bytes() == first


@pytest.mark.parametrize("name", ["a.aac", "a", "a.wav.txt", ".wav"])
def test_another_extension_names_those_that_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        write_audio(tmp_path / name, noise(), RATE, "pcm16")
    for extension in AUDIO_EXTENSIONS:
        assert extension in caught.value.hint
    assert names(tmp_path) == []


def test_formats_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="float32") as caught:
        check_format(Path("a.flac"), "float32")
    assert "pcm24" in caught.value.hint
    for name in ("a.wav", "a.flac", "a.ogg", "b.FLAC"):
        check_format(Path(name), "pcm16")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_written(tmp_path: Path, bad: float) -> None:
    waveform = noise()
    waveform[1, 5] = bad
    with pytest.raises(NumericsError):
        write_audio(tmp_path / "a.wav", waveform, RATE, "float32")
    assert names(tmp_path) == []


@pytest.mark.parametrize("shape", [(0,), (5,), (1, 0)])
def test_a_waveform_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[C, L\]"):
        write_audio(tmp_path / "a.wav", np.zeros(shape, dtype=np.float32), RATE, "pcm16")


def test_what_libsndfile_refuses_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a\.flac"):
        write_audio(tmp_path / "a.flac", noise(9), RATE, "pcm16")  # FLAC has at most 8 channels
    assert names(tmp_path) == []


# -- atomic writing ---------------------------------------------------------------------------------------------------


def put(content: bytes) -> object:
    return lambda file: file.write(content)


def test_parents_are_made_and_others_may_read(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.npz"
    write_atomic(path, put(b"x"))  # type: ignore[arg-type]
    assert path.read_bytes() == b"x"
    assert names(path.parent) == ["c.npz"]
    if os.name != "nt":
        mask = os.umask(0)
        os.umask(mask)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_an_existing_file_stays_unless_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="already exists") as caught:
        write_atomic(path, put(b"new"))  # type: ignore[arg-type]
    assert "--force" in caught.value.hint
    assert path.read_bytes() == b"old"
    write_atomic(path, put(b"new"), overwrite=True)  # type: ignore[arg-type]
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    path = tmp_path / "a.wav"
    if not links:
        monkeypatch.setattr(os, "link", no_links)

    def write(file: BinaryIO) -> None:
        file.write(b"new")
        path.write_bytes(b"another program's")

    with pytest.raises(OutputError, match="already exists"):
        write_atomic(path, write)
    assert path.read_bytes() == b"another program's"
    assert names(tmp_path) == ["a.wav"]


def no_links(source: object, target: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    write_atomic(tmp_path / "a", put(b"x"))  # type: ignore[arg-type]
    assert (tmp_path / "a").read_bytes() == b"x"
    assert names(tmp_path) == ["a"]
    monkeypatch.setattr(os, "replace", no_links)
    with pytest.raises(OutputError):
        write_atomic(tmp_path / "b", put(b"x"))  # type: ignore[arg-type]
    assert names(tmp_path) == ["a"]  # nor an empty b


class UnforeseenError(Exception):
    pass


@pytest.mark.parametrize("failure", [UnforeseenError, KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_failure_half_way_leaves_nothing(tmp_path: Path, failure: type[BaseException], overwrite: bool) -> None:
    path = tmp_path / "a.wav"
    if overwrite:
        path.write_bytes(b"old")
    during: list[str] = []

    def write(file: BinaryIO) -> None:
        file.write(b"x" * 100_000)
        during.extend(names(tmp_path))
        raise failure

    with pytest.raises(failure):
        write_atomic(path, write, overwrite=overwrite)
    hidden = [name for name in during if name != "a.wav"]
    assert len(hidden) == 1
    assert hidden[0].startswith(".")
    assert hidden[0].endswith(".wav")
    assert names(tmp_path) == (["a.wav"] if overwrite else [])
    assert not overwrite or path.read_bytes() == b"old"


@pytest.mark.parametrize(("call", "code"), [("fsync", errno.ENOSPC), ("fsync", errno.EIO), ("replace", errno.EACCES)])
def test_a_failing_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OutputError, match=os.strerror(code)) as caught:
        write_audio(path, noise(), RATE, "pcm16", overwrite=True)
    assert ("space" in caught.value.hint) == (code == errno.ENOSPC)
    assert names(tmp_path) == ["a.wav"]
    assert path.read_bytes() == b"old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's own")
def test_a_full_disk_as_the_system_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The hidden file leads to /dev/full, so that every write to it really fails with ENOSPC.
    def full(self: Path, mode: str = "r") -> io.BufferedWriter:
        assert mode == "xb"
        os.symlink("/dev/full", self)
        return open("/dev/full", "wb")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        write_audio(tmp_path / "a.wav", noise(), RATE, "pcm16")
    assert "space" in caught.value.hint
    assert names(tmp_path) == []


def test_ctrl_c_while_the_file_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", interrupt)
    monkeypatch.setattr(os, "rename", interrupt)  # on Windows
    with pytest.raises(KeyboardInterrupt):
        write_audio(tmp_path / "a.wav", noise(), RATE, "pcm16")
    assert names(tmp_path) == []


def test_the_longest_name_works(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".wav")  # 255 bytes, the limit of most file systems
    write_audio(path, noise(), RATE, "pcm16")
    assert names(tmp_path) == [path.name]
    with pytest.raises(OutputError, match="cannot write") as caught:
        write_audio(tmp_path / ("a" * 300 + ".wav"), noise(), RATE, "pcm16")
    assert "shorter" in caught.value.hint or sys.platform == "win32"
    assert names(tmp_path) == [path.name]


# -- before any work --------------------------------------------------------------------------------------------------


def test_check_writable_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable([tmp_path / "a.wav"])
    check_writable([tmp_path / "not" / "yet" / "there" / "a.wav"])
    assert names(tmp_path) == []


def test_check_writable_with_a_file_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="already exists") as caught:
        check_writable([path])
    assert "--force" in caught.value.hint
    check_writable([path], overwrite=True)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_is_never_written_to(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_writable([tmp_path / "a.wav"], overwrite=overwrite)
    with pytest.raises(OutputError, match="is a folder"):
        write_audio(tmp_path / "a.wav", noise(), RATE, "pcm16", overwrite=overwrite)


@pytest.mark.parametrize("below", ["a.wav", "b/a.wav"])
def test_below_a_file_nothing_can_be_written(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path / "file" / below
    with pytest.raises(OutputError, match="not a folder"):
        check_writable([path])
    with pytest.raises(OutputError, match="cannot write"):
        write_audio(path, noise(), RATE, "pcm16")
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that even root cannot write to is Linux's own")
def test_a_folder_that_takes_no_files() -> None:
    for path in (Path("/proc/a.wav"), Path("/proc/none/such/a.wav")):
        with pytest.raises(OutputError, match="cannot write") as caught:
            check_writable([path])
        assert "folder" in caught.value.hint
        with pytest.raises(OutputError, match="cannot write"):
            write_audio(path, noise(), RATE, "pcm16")


@pytest.mark.skipif(os.name == "nt", reason="links need privileges on Windows")
def test_a_link_that_leads_nowhere_has_taken_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.wav").symlink_to(tmp_path / "none")
    with pytest.raises(OutputError, match="already exists"):
        check_writable([tmp_path / "a.wav"])
    with pytest.raises(OutputError, match="already exists"):
        write_audio(tmp_path / "a.wav", noise(), RATE, "pcm16")
    assert names(tmp_path) == ["a.wav"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a special file")
def test_a_special_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(OutputError, match="not a regular file"):
        check_writable([tmp_path / "a.wav"], overwrite=True)
    with pytest.raises(OutputError, match="not a regular file"):
        write_atomic(tmp_path / "a.wav", lambda file: None, overwrite=True)
    assert stat.S_ISFIFO((tmp_path / "a.wav").lstat().st_mode)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_stays_a_link_when_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real.wav").write_text("old")
    (tmp_path / "link.wav").symlink_to("real.wav")
    write_audio(tmp_path / "link.wav", noise(), RATE, "pcm16", overwrite=True)
    assert (tmp_path / "link.wav").is_symlink()
    assert soundfile.info(tmp_path / "real.wav").samplerate == RATE


def test_an_unknown_subtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pcm8"):
        write_audio(tmp_path / "a.wav", noise(), RATE, "pcm8")  # type: ignore[arg-type]


# -- reading ----------------------------------------------------------------------------------------------------------


def test_reading_gives_channels_first(tmp_path: Path) -> None:
    waveform = noise(2, 1_000)
    soundfile.write(tmp_path / "a.flac", np.rint(waveform.T * 2**15).astype(np.int16), 44_100)
    back, rate = read_audio(tmp_path / "a.flac")
    assert rate == 44_100
    assert back.dtype == np.float32
    assert back.flags.c_contiguous
    assert np.array_equal(back, np.rint(waveform * 2**15) / 2**15)


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1, 100).T, RATE)
    (tmp_path / "a.wav").rename(tmp_path / "a.raw")
    assert read_audio(tmp_path / "a.raw")[0].shape == (1, 100)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"hello world" * 100])
def test_what_is_not_audio(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.wav is not an audio file"):
        read_audio(tmp_path / "a.wav")


def test_missing_folder_empty_and_not_finite(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.wav"):
        read_audio(tmp_path / "none.wav")
    with pytest.raises(UsageError, match="cannot read"):
        read_audio(tmp_path)
    soundfile.write(tmp_path / "a.wav", np.zeros((0, 1), dtype=np.int16), RATE)
    with pytest.raises(UsageError, match="no samples"):
        read_audio(tmp_path / "a.wav")
    soundfile.write(tmp_path / "b.wav", np.array([0.0, np.nan]), RATE, subtype="FLOAT")
    with pytest.raises(UsageError, match="not finite"):
        read_audio(tmp_path / "b.wav")


def test_every_extension_can_be_written(tmp_path: Path) -> None:
    for extension in AUDIO_EXTENSIONS:
        write_audio(tmp_path / f"a{extension}", noise(1), 16_000, "pcm16")
        assert read_audio(tmp_path / f"a{extension}")[0].shape[0] == 1


# -- several files at once --------------------------------------------------------------------------------------------


def interrupt_at(line: int) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that sends SIGINT before the line-th line that runs in atomic.py."""
    left = [line]

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.endswith("magnet_cli/disk/atomic.py"):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                signal.raise_signal(signal.SIGINT)
        return trace

    return trace


# An open file whose `with` is interrupted before it begins is closed by its destructor, which warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_at_any_line_leaves_all_files_or_none(tmp_path: Path) -> None:
    """Whatever is interrupted, and never a hidden file; afterwards Ctrl-C works as before."""
    before, ends = sys.gettrace(), set()
    for line in range(1, 500):
        folder = tmp_path / str(line)
        folder.mkdir()
        contents = [(folder / "a.json", b"record"), (folder / "a.wav", b"sound")]
        sys.settrace(interrupt_at(line))
        try:
            write_together(contents)
        except KeyboardInterrupt:
            interrupted = True
        else:
            interrupted = False
        finally:
            sys.settrace(before)
        left = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert left in ({}, {"a.json": b"record", "a.wav": b"sound"}), line
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ends.add((interrupted, len(left)))
        if not interrupted:
            break
    assert ends == {(True, 0), (True, 2), (False, 2)}
