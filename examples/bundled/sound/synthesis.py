"""Synthesizers and drum machines: waveforms out of band-limited tables, drums out of sines and noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from music import Note

Floats = NDArray[np.float64]
SIZE = 2048  # samples of a table
HIGHEST = 7600.0  # Hz: harmonics above would fold over at 16 kHz


@lru_cache(maxsize=4096)
def _table(shape: str, harmonics: int, cutoff: float) -> Floats:
    """One period with this many harmonics, those above `cutoff` (a harmonic's number) falling by 12 dB an octave."""
    number = np.arange(1, harmonics + 1)
    if shape == "saw":
        levels = 1 / number
    elif shape == "triangle":
        levels = np.where(number % 2, np.where(number % 4 == 1, 1, -1) / number**2, 0.0)
    else:  # a pulse; its share of the period is the name
        levels = 2 * np.sin(np.pi * number * float(shape)) / (np.pi * number)
    levels = levels / (1 + (number / cutoff) ** 4) ** 0.5
    spectrum = np.zeros(SIZE // 2 + 1, complex)
    spectrum[1 : harmonics + 1] = -0.5j * SIZE * levels
    return np.fft.irfft(spectrum)


def _wave(shape: str, phase: Floats, frequency: float, cutoff: float | None = None) -> Floats:
    """A waveform at these phases (periods). cutoff: Hz of a low-pass filter, roughly."""
    harmonics = max(1, min(SIZE // 2 - 1, int(HIGHEST / frequency)))
    limit = 1e9 if cutoff is None else max(0.5, round(2 * cutoff / frequency) / 2)
    return _table(shape, harmonics, limit)[(phase * SIZE).astype(np.int64) % SIZE]


def _time(seconds: float, rate: int) -> Floats:
    return np.arange(max(1, int(seconds * rate))) / rate


def _gate(time: Floats, length: float, attack: float, release: float) -> Floats:
    """From 0 to 1 in `attack` seconds, and down again from `length` on."""
    rise = np.minimum(1, time / attack)
    return rise * np.clip(1 - (time - length) / release, 0, 1)


def _sweep(shape: str, phase: Floats, frequency: float, cutoffs: tuple[float, float], amount: Floats) -> Floats:
    """A waveform whose filter closes from the second cutoff (amount 1) to the first (amount 0)."""
    dark, bright = (_wave(shape, phase, frequency, cutoff) for cutoff in cutoffs)
    return dark + amount * (bright - dark)


def _sub(note: Note, frequency: float, rate: int) -> Floats:
    time = _time(note.length + 0.05, rate)
    wave = np.sin(2 * np.pi * frequency * time) + 0.12 * np.sin(4 * np.pi * frequency * time)
    return np.tanh(1.3 * wave) * _gate(time, note.length, 0.008, 0.05)


def _reese(note: Note, frequency: float, rate: int) -> Floats:
    time = _time(note.length + 0.06, rate)
    wave = sum(_wave("saw", time * frequency * tune, frequency, 420) for tune in (0.994, 1.0, 1.007))
    return np.tanh(1.2 * np.asarray(wave)) * _gate(time, note.length, 0.01, 0.06) * 0.8


def _saw_bass(note: Note, frequency: float, rate: int) -> Floats:
    time = _time(note.length + 0.04, rate)
    closing = np.exp(-time / 0.12)
    wave = _sweep("saw", time * frequency, frequency, (350, 2200), closing)
    wave = wave + 0.7 * _wave("0.5", time * frequency * 0.5, frequency / 2, 300)
    return wave * _gate(time, note.length, 0.004, 0.04)


def _acid(note: Note, frequency: float, rate: int) -> Floats:
    time = _time(note.length + 0.03, rate)
    closing = np.exp(-time / 0.09) * (note.velocity / 110)
    resonance = np.sin(2 * np.pi * np.cumsum(400 + 2200 * closing) / rate) * closing * 0.35
    wave = _sweep("saw", time * frequency, frequency, (400, 3500), closing) * (1 + resonance)
    return np.tanh(1.6 * wave) * _gate(time, note.length, 0.003, 0.03)


def _pluck(note: Note, frequency: float, rate: int) -> Floats:
    time = _time(max(note.length, 0.35), rate)
    closing = np.exp(-time / 0.1)
    wave = _sweep("saw", time * frequency, frequency, (600, 5000), closing)
    wave = wave + _sweep("saw", time * frequency * 1.006, frequency, (600, 5000), closing)
    return wave * np.exp(-time / 0.22) * _gate(time, time[-1] - 0.02, 0.003, 0.02)


def _lead(note: Note, frequency: float, rate: int) -> Floats:
    time = _time(note.length + 0.12, rate)
    bend = 1 + 0.004 * np.sin(2 * np.pi * 5.5 * time) * np.clip(time / 0.3 - 0.5, 0, 1)
    phase = np.cumsum(frequency * bend) / rate
    wave = sum(_wave("saw", phase * tune, frequency, 4000) for tune in (0.996, 1.0, 1.005))
    return np.asarray(wave) * 0.6 * _gate(time, note.length, 0.01, 0.12)


def _stab(note: Note, frequency: float, rate: int) -> Floats:
    time = _time(note.length + 0.1, rate)
    closing = np.exp(-time / 0.18)
    wave = sum(
        _sweep("saw", time * frequency * tune, frequency, (900, 6000), closing) for tune in (0.99, 0.996, 1.003, 1.01)
    )
    return np.asarray(wave) * 0.4 * _gate(time, note.length, 0.006, 0.1)


def _pad(note: Note, frequency: float, rate: int) -> Floats:
    time = _time(note.length + 0.5, rate)
    slow = 0.5 + 0.5 * np.sin(2 * np.pi * 0.15 * time + note.key)
    wave = sum(
        _sweep("saw", time * frequency * tune + tune, frequency, (500, 1800), slow)
        for tune in (0.992, 0.998, 1.004, 1.01)
    )
    return np.asarray(wave) * 0.4 * _gate(time, note.length, min(0.25, note.length / 3), 0.5)


def _chip(share: str, decay: float) -> Callable[[Note, float, int], Floats]:
    def patch(note: Note, frequency: float, rate: int) -> Floats:
        time = _time(note.length, rate)
        phase = time * frequency
        if note.length > 0.3:  # the vibrato of long notes, as game music has it
            phase = phase + 0.0025 * frequency / 6 * np.clip(time / 0.2 - 1, 0, 1) * np.sin(2 * np.pi * 6 * time)
        steps = np.ceil(15 * np.exp(-time / decay)) / 15  # the four bits of loudness that those chips had
        return _wave(share, phase, frequency) * steps * _gate(time, note.length - 0.004, 0.001, 0.004)

    return patch


def _triangle(note: Note, frequency: float, rate: int) -> Floats:
    time = _time(note.length, rate)
    return _wave("triangle", time * frequency, frequency) * _gate(time, note.length - 0.004, 0.001, 0.004)


PATCHES: dict[str, Callable[[Note, float, int], Floats]] = {
    "sub bass": _sub,
    "reese bass": _reese,
    "saw bass": _saw_bass,
    "acid bass": _acid,
    "pluck synth": _pluck,
    "saw lead": _lead,
    "stab synth": _stab,
    "analog pad": _pad,
    "pulse lead": _chip("0.25", 0.6),
    "pulse arpeggio": _chip("0.125", 0.25),
    "triangle bass": _triangle,
}


def _noise(length: int, low: float, high: float, rate: int) -> Floats:
    """Noise between two frequencies, always the same, of deviation 1."""
    spectrum = np.fft.rfft(np.random.default_rng(7).normal(size=length))
    frequencies = np.fft.rfftfreq(length, 1 / rate)
    spectrum[(frequencies < low) | (frequencies > high)] = 0
    wave = np.fft.irfft(spectrum, length)
    return wave / (wave.std() + 1e-9)


@lru_cache(maxsize=256)
def drum(kit: str, key: int, rate: int) -> Floats:
    """One stroke of a drum machine, by General MIDI's keys."""
    chip = kit == "chip kit"
    if key in (35, 36):
        time = _time(0.16 if chip else 0.32, rate)
        pitch = 48 + (160 if chip else 210) * np.exp(-time / 0.022)
        wave = np.sin(2 * np.pi * np.cumsum(pitch) / rate) * np.exp(-time / (0.06 if chip else 0.13))
        click = (0.25 if chip else 0.45) * np.exp(-time / 0.006)
        return 1.5 * wave + click * _noise(len(time), 500, 7000, rate)
    if key in (38, 40):
        time = _time(0.22, rate)
        tone = 0.0 if chip else 0.6
        wave = _noise(len(time), 600, 7500, rate) * 0.3 * np.exp(-time / 0.07)
        return wave + tone * np.sin(2 * np.pi * 190 * time) * np.exp(-time / 0.05)
    if key == 39:
        time = _time(0.25, rate)
        bursts = sum(np.exp(-np.maximum(time - at, 0) / 0.006) * (time >= at) for at in (0, 0.011, 0.022))
        shape = 0.4 * np.asarray(bursts) + np.exp(-np.maximum(time - 0.03, 0) / 0.06) * (time >= 0.03)
        return _noise(len(time), 900, 4500, rate) * 0.28 * shape
    if key in (37, 75):
        time = _time(0.06, rate)
        return (0.5 * np.sin(2 * np.pi * 1700 * time) + _noise(len(time), 2000, 6000, rate) * 0.1) * np.exp(
            -time / 0.012
        )
    if key in (45, 47, 50, 41, 43, 48):
        time = _time(0.3, rate)
        pitch = (70 + 3 * (key - 40) ** 1.5) * (1 + 0.5 * np.exp(-time / 0.03))
        return 0.9 * np.sin(2 * np.pi * np.cumsum(pitch) / rate) * np.exp(-time / 0.1)
    length, decay, level = {  # cymbals, hi-hats and shakers are noise
        42: (0.08, 0.02, 0.3),
        44: (0.08, 0.02, 0.25),
        46: (0.4, 0.12, 0.3),
        49: (1.5, 0.5, 0.24),
        51: (0.6, 0.2, 0.13),
        54: (0.15, 0.04, 0.17),
        70: (0.08, 0.02, 0.16),
    }.get(key, (0.1, 0.03, 0.15))
    time = _time(length, rate)
    return _noise(len(time), 4000 if chip else 5500, 7900, rate) * level * np.exp(-time / decay)


def synthesize(
    notes: list[Note], volumes: dict[str, float], total: int, rate: int
) -> tuple[Floats, Floats, list[float]]:
    """Tones [total], drums [total], and when the bass drum is struck, in seconds."""
    tones, drums, kicks = np.zeros(total), np.zeros(total), []
    seen: dict[tuple[str, int, int, int], Floats] = {}
    for note in notes:
        volume = volumes[note.instrument] * (note.velocity / 100) ** 1.5
        at = round(note.start * rate)
        if note.instrument in PATCHES:
            length = round(note.length, 2)
            place = (
                note.instrument,
                note.key,
                round(100 * length),
                note.velocity // 8 if "acid" in note.instrument else 0,
            )
            if place not in seen:
                plain = Note(0.0, max(length, 0.03), note.instrument, note.key, note.velocity)
                seen[place] = PATCHES[note.instrument](plain, 440 * 2 ** ((note.key - 69) / 12), rate)
            wave, target = seen[place], tones
        else:
            wave, target = drum(note.instrument, note.key, rate), drums
            if note.key == 36:
                kicks.append(note.start)
        wave = wave[: total - at]
        target[at : at + len(wave)] += 0.3 * volume * wave
    return tones, drums, kicks
