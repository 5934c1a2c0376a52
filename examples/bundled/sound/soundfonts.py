"""FluidSynth with the soundfonts that Debian packages under the MIT licence."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import fluidsynth
import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from music import Note
from sound.instruments import INSTRUMENTS, KIT

Floats = NDArray[np.float64]
PLAYED = 32_000  # Hz; FluidSynth repeats no filter when it transposes a sample: what folds over stays high
ALL_SOUND_OFF = 120  # MIDI's controller
# Debian's packages fluid-soundfont-gm and musescore-general-soundfont-small (README.md: rights).
SOUNDFONTS = (
    ("fluid-soundfont-gm", Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")),
    ("musescore-general-soundfont-small", Path("/usr/share/sounds/sf3/MuseScore_General_Lite.sf3")),
)

write_float = fluidsynth.cfunc(
    "fluid_synth_write_float",
    ctypes.c_int,
    ("synth", ctypes.c_void_p, 1),
    ("count", ctypes.c_int, 1),
    *(
        one
        for side in ("left", "right")
        for one in ((side, ctypes.c_void_p, 1), (f"{side}_offset", ctypes.c_int, 1), (f"{side}_step", ctypes.c_int, 1))
    ),
)


def missing() -> list[str]:
    """The Debian packages whose soundfonts are not here."""
    return [package for package, path in SOUNDFONTS if not path.is_file()]


class SoundfontPlayer:
    """A synthesizer with one soundfont, without reverberation or chorus: `effects.py` adds the first."""

    def __init__(self, soundfont: Path) -> None:
        self.synth: Any = fluidsynth.Synth(gain=0.4, samplerate=float(PLAYED))
        self.synth.setting("synth.reverb.active", 0)
        self.synth.setting("synth.chorus.active", 0)
        self.number = self.synth.sfload(str(soundfont))
        if self.number < 0:
            raise SystemExit(f"error: cannot read the soundfont {soundfont}")

    def close(self) -> None:
        self.synth.delete()

    def play(self, notes: list[Note], seconds: float, rate: int) -> Floats:
        """The waveform of the notes, [L] at `rate`."""
        total = int(seconds * rate)
        if not notes:
            return np.zeros(total)
        for channel in range(16):  # FluidSynth's reset alone would let the last clip ring on into this one
            self.synth.cc(channel, ALL_SOUND_OFF, 0)
        self._samples(64)  # takes notice of it at the end of a block
        self.synth.system_reset()
        names = list(dict.fromkeys(note.instrument for note in notes))
        free = iter(channel for channel in range(16) if channel != 9)
        channels = {name: 9 if INSTRUMENTS[name].bank == KIT else next(free) for name in names}
        for name, channel in channels.items():
            self.synth.program_select(channel, self.number, INSTRUMENTS[name].bank, INSTRUMENTS[name].program)
            self.synth.cc(channel, 7, min(127, round(90 * INSTRUMENTS[name].volume)))
        events = [(round(note.start * PLAYED), 1, note) for note in notes]
        events += [(round((note.start + note.length) * PLAYED), 0, note) for note in notes]
        end, done, blocks = int(seconds * PLAYED), 0, []
        for time, on, note in sorted(events, key=lambda event: event[:2]):
            until = min(time, end)
            if until - done >= 64:  # FluidSynth computes blocks of 64 samples anyway
                blocks.append(self._samples(until - done))
                done = until
            if done >= end:
                break
            if on:
                self.synth.noteon(channels[note.instrument], note.key, note.velocity)
            else:
                self.synth.noteoff(channels[note.instrument], note.key)
        if done < end:
            blocks.append(self._samples(end - done))
        return np.asarray(resample_poly(np.concatenate(blocks), rate, PLAYED))[:total]

    def _samples(self, count: int) -> Floats:
        """The next samples, folded to mono. As floats: whole numbers come with dither, which depends on the past."""
        left, right = np.zeros(count, np.float32), np.zeros(count, np.float32)
        write_float(self.synth.synth, count, left.ctypes.data, 0, 1, right.ctypes.data, 0, 1)
        return (left.astype(np.float64) + right) / 2
