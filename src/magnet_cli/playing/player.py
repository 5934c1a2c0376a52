"""Play sound through a program of this machine, or through the library sounddevice.

A program is started with its standard input as a pipe. It takes samples as fast as it plays them, so whoever writes
them keeps its pace.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.files import write_audio
from magnet_cli.errors import DeviceError, one_line
from magnet_cli.playing.pcm import endless_wav_header, pcm16

INSTALL = (
    "Install one of paplay (pulseaudio-utils), aplay (alsa-utils), ffplay (ffmpeg) and play (sox), or the library "
    "sounddevice: run pip install '.[play]' in a clone of the repository"
)
PIECE = 0.25  # seconds that are handed to a player at once
PROBE = 0.05  # seconds of silence that show whether a player works


class PlayerError(Exception):
    """A player that is installed could not play."""


class Playback(Protocol):
    """Sound that is being played."""

    def write(self, waveform: Waveform) -> None:
        """Play a waveform [C, L] after what was written before; waits while the player has enough. PlayerError."""

    def finish(self) -> None:
        """Wait until all of it is heard. PlayerError."""

    def stop(self) -> None:
        """End at once. May be called at any time, and again."""


class Player(Protocol):
    """A way to play sound."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def streams(self) -> bool:
        """Whether sound is heard while more of it is written."""

    def start(self, channels: int, sample_rate: int) -> Playback:
        """Begin to play. PlayerError."""


@dataclass(frozen=True)
class Program:
    """A program that plays what it reads. takes: raw samples, a WAV stream, or the name of a file."""

    name: str
    arguments: tuple[str, ...]
    takes: Literal["raw", "wav", "file"] = "raw"

    @property
    def streams(self) -> bool:
        """See Player."""
        return self.takes != "file"

    def start(self, channels: int, sample_rate: int) -> Playback:
        """See Player."""
        if self.takes == "file":
            return _FilePlayback(self, sample_rate)
        playback = _PipePlayback(self, [one.format(rate=sample_rate, channels=channels) for one in self.arguments])
        if self.takes == "wav":
            playback.send(endless_wav_header(channels, sample_rate))
        return playback


# In the order in which they are tried.
PROGRAMS = (
    Program("paplay", ("--raw", "--format=s16le", "--rate={rate}", "--channels={channels}")),
    Program("aplay", ("-q", "-t", "raw", "-f", "S16_LE", "-r", "{rate}", "-c", "{channels}", "-")),
    Program("play", ("-q", "-t", "raw", "-r", "{rate}", "-e", "signed", "-b", "16", "-L", "-c", "{channels}", "-")),
    Program("ffplay", ("-nodisp", "-autoexit", "-loglevel", "error", "-i", "-"), "wav"),
    Program("afplay", ("{file}",), "file"),
)


class _PipePlayback:
    def __init__(self, program: Program, arguments: Sequence[str]) -> None:
        self._name = program.name
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, until it has ended; a pipe could fill up
        try:
            self._process = subprocess.Popen(
                [program.name, *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors
            )
        except OSError as error:
            self._errors.close()
            raise PlayerError(f"{program.name}: {error.strerror}") from error

    def write(self, waveform: Waveform) -> None:
        self.send(pcm16(waveform))

    def send(self, content: bytes) -> None:
        pipe = self._process.stdin
        try:
            if pipe is not None:
                pipe.write(content)
                pipe.flush()
        except OSError:
            self.finish()
            raise PlayerError(f"{self._name} ended before the sound did") from None

    def finish(self) -> None:
        self._close()
        code = self._process.wait()
        said = self._said()
        if code != 0:
            raise PlayerError(f"{self._name}: {said or f'exit code {code}'}")

    def stop(self) -> None:
        self._process.kill()
        self._close()
        self._process.wait()
        self._errors.close()

    def _close(self) -> None:
        if self._process.stdin is not None:
            with suppress(OSError):  # it ended before it had read all
                self._process.stdin.close()

    def _said(self) -> str:
        """The last line of its errors."""
        if self._errors.closed:
            return ""
        with self._errors:
            self._errors.seek(0)
            lines = self._errors.read(10_000).decode("utf-8", "replace").split("\n")
        return next((" ".join(line.split()).rstrip(".") for line in reversed(lines) if line.strip()), "")


class _FilePlayback:
    """For a program that reads files only: it begins when all is written."""

    def __init__(self, program: Program, sample_rate: int) -> None:
        self._program, self._rate = program, sample_rate
        self._pieces: list[Waveform] = []
        self._process: subprocess.Popen[bytes] | None = None

    def write(self, waveform: Waveform) -> None:
        self._pieces.append(waveform)

    def finish(self) -> None:
        import numpy as np

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.wav"
            write_audio(path, np.concatenate(self._pieces, axis=1), self._rate, "pcm16")
            command = [self._program.name, *(one.format(file=path) for one in self._program.arguments)]
            try:
                self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            except OSError as error:
                raise PlayerError(f"{self._program.name}: {error.strerror}") from error
            if self._process.wait() != 0:
                raise PlayerError(f"{self._program.name}: exit code {self._process.returncode}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True)
class Library:
    """The library sounddevice, which speaks to the system itself."""

    name: str = "sounddevice"
    streams: bool = True

    def start(self, channels: int, sample_rate: int) -> Playback:
        """See Player."""
        try:
            import sounddevice

            stream = sounddevice.RawOutputStream(samplerate=sample_rate, channels=channels, dtype="int16")
            stream.start()
        except Exception as error:  # PortAudio may be missing (OSError), or have no device (an error of its own)
            raise PlayerError(f"{self.name}: {one_line(error)}") from error
        return _LibraryPlayback(stream)


class _LibraryPlayback:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, waveform: Waveform) -> None:
        try:
            self._stream.write(pcm16(waveform))
        except Exception as error:  # as above
            raise PlayerError(f"sounddevice: {one_line(error)}") from error

    def finish(self) -> None:
        self._stream.stop()  # plays what is in its buffer
        self._stream.close()

    def stop(self) -> None:
        self._stream.abort()
        self._stream.close()


def players() -> list[Player]:
    """The players of this machine, in the order in which they are tried."""
    found: list[Player] = [one for one in PROGRAMS if shutil.which(one.name) is not None]
    return [*found, *([Library()] if find_spec("sounddevice") is not None else [])]


def check_players() -> None:
    """Raise DeviceError if this machine has no player."""
    if not players():
        raise DeviceError("no player was found on this machine", INSTALL)


def play(waveform: Waveform, sample_rate: int, *, times: int = 1) -> str:
    """Play a waveform [C, L] so many times without a gap, and wait until it is over. Returns the player's name.

    Raises: DeviceError if there is no player, or none that works.
    """
    check_players()
    failures = []
    for player in players():
        try:
            _play_all(player, waveform, sample_rate, times)
        except PlayerError as error:
            failures.append(str(error))
        else:
            return player.name
    raise DeviceError(f"no player worked ({'; '.join(failures)})", "Check the sound output of this machine")


def _play_all(player: Player, waveform: Waveform, sample_rate: int, times: int) -> None:
    playback = player.start(waveform.shape[0], sample_rate)
    piece = max(1, round(PIECE * sample_rate))
    try:
        for _ in range(times):
            for start in range(0, waveform.shape[1], piece):
                playback.write(waveform[:, start : start + piece])
        playback.finish()
    except BaseException:
        playback.stop()
        raise


def start_stream(channels: int, sample_rate: int) -> tuple[Playback, str]:
    """Begin to play something endless with the first player that works; its name, too. DeviceError if none does."""
    import numpy as np

    check_players()
    failures = []
    silence = np.zeros((channels, max(1, round(PROBE * sample_rate))), np.float32)
    for player in players():
        if not player.streams:
            failures.append(f"{player.name} plays files only")
            continue
        try:
            _play_all(player, silence, sample_rate, 1)
            return player.start(channels, sample_rate), player.name
        except PlayerError as error:
            failures.append(str(error))
    raise DeviceError(f"no player worked ({'; '.join(failures)})", INSTALL)
