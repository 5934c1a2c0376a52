"""FluidSynth with the soundfonts that Debian packages under the MIT licence."""

from __future__ import annotations

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
# Debian's packages fluid-soundfont-gm and musescore-general-soundfont-small (README.md: rights).
SOUNDFONTS = (
    ("fluid-soundfont-gm", Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")),
    ("musescore-general-soundfont-small", Path("/usr/share/sounds/sf3/MuseScore_General_Lite.sf3")),
)


def missing() -> list[str]:
    """The Debian packages whose soundfonts are not here."""
    return [package for package, path in SOUNDFONTS if not path.is_file()]


class Player:
    """A synthesizer with one soundfont, without reverberation or chorus: `effects.py` adds the first."""

    def __init__(self, soundfont: Path) -> None:
        self.synth: Any = fluidsynth.Synth(gain=0.4, samplerate=float(PLAYED))
        self.synth.setting("synth.reverb.active", 0)
        self.synth.setting("synth.chorus.active", 0)
        self.number = self.synth.sfload(str(soundfont))
        if self.number < 0:
            raise SystemExit(f"error: cannot read the soundfont {soundfont}")

    def play(self, notes: list[Note], seconds: float, rate: int) -> Floats:
        """The waveform of the notes, [L] at `rate`."""
        total = int(seconds * rate)
        if not notes:
            return np.zeros(total)
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
                blocks.append(self.synth.get_samples(until - done))
                done = until
            if done >= end:
                break
            if on:
                self.synth.noteon(channels[note.instrument], note.key, note.velocity)
            else:
                self.synth.noteoff(channels[note.instrument], note.key)
        if done < end:
            blocks.append(self.synth.get_samples(end - done))
        mono = np.concatenate(blocks).reshape(-1, 2).astype(np.float64).mean(axis=1) / 32768
        return np.asarray(resample_poly(mono, rate, PLAYED))[:total]
