"""The measures, on signals whose values are known."""

from __future__ import annotations

import numpy as np
import pytest

from measures import (
    Classifier,
    features,
    frechet_distance,
    mel_distance,
    percussive_share,
    same_tempo,
    si_sdr,
    tempo,
)

RATE = 16_000
TIME = np.arange(10 * RATE) / RATE
RANDOM = np.random.default_rng(0)
NOISE = RANDOM.normal(0, 0.2, len(TIME))


def clicks(bpm: float) -> np.ndarray:
    return NOISE * np.exp(-80 * (TIME % (60 / bpm)))


def notes(bpm: float) -> np.ndarray:
    beat = (TIME / (60 / bpm)).astype(int)
    pitch = np.array([220, 277, 330, 415])[beat % 4]
    return 0.3 * np.sin(2 * np.pi * pitch * TIME) * np.exp(-2 * (TIME % (60 / bpm)))


@pytest.mark.parametrize("bpm", [62, 90, 117, 150, 178])
def test_tempo_of_clicks_and_of_notes(bpm: float) -> None:
    assert same_tempo(tempo(clicks(bpm), RATE), bpm, 0.02)
    assert same_tempo(tempo(notes(bpm), RATE), bpm, 0.02)


def test_silence_has_no_tempo() -> None:
    assert tempo(np.zeros(RATE), RATE) == 0


def test_which_tempi_are_the_same() -> None:
    assert same_tempo(103.9, 100)
    assert same_tempo(51, 100)
    assert not same_tempo(106, 100)
    assert not same_tempo(150, 100)


def test_clicks_are_percussive_and_chords_are_not() -> None:
    chord = sum(np.sin(2 * np.pi * pitch * TIME) for pitch in (220, 277, 330))
    assert percussive_share(clicks(100), RATE) > 0.9
    assert percussive_share(chord, RATE) < 0.15  # a partial is a few bins wide, which the median over bins sees


def test_distortion_is_measured_whatever_the_scale() -> None:
    wave = notes(100)
    noisy = wave + 0.1 * wave.std() * NOISE / NOISE.std()
    assert si_sdr(noisy, wave) == pytest.approx(20, abs=0.1)  # independent noise is not quite orthogonal
    assert si_sdr(3 * noisy, wave) == pytest.approx(si_sdr(noisy, wave))
    assert mel_distance(wave, wave, RATE) == 0
    assert mel_distance(0.9 * NOISE, NOISE, RATE) == pytest.approx(0.915, abs=0.01)  # 20 log10 0.9, in every band


def test_the_classifier_tells_what_it_was_shown() -> None:
    bpms = RANDOM.integers(60, 180, 12)
    short = slice(0, 2 * RATE)
    shown = [features(make(bpm)[short], RATE) for bpm in bpms[:8] for make in (clicks, notes)]
    classifier = Classifier.learn(np.array(shown), ["clicks", "notes"] * 8)
    for bpm in bpms[8:]:
        assert classifier.kind(features(clicks(bpm)[short], RATE)) == "clicks"
        assert classifier.kind(features(notes(bpm)[short], RATE)) == "notes"


def test_frechet_distance_of_known_gaussians() -> None:
    random = np.random.default_rng(0)
    some = random.normal(0, [3.0, 1.0, 0.1], (20_000, 3))
    assert frechet_distance(some[:10_000], some[10_000:], dimensions=2) < 0.01
    # Uncorrelated: the squared distance of the means, and of the deviations, in each direction that counts.
    other = random.normal([1.0, 0.0, 50.0], [3.0, 2.5, 0.1], (20_000, 3))
    expected = 1.0**2 + (2.5 - 1.0) ** 2  # the third varies too little to be looked at
    assert frechet_distance(other, some, dimensions=2) == pytest.approx(expected, rel=0.1)
    turned = np.linalg.qr(random.normal(size=(3, 3)))[0]
    assert frechet_distance(other @ turned, some @ turned, dimensions=2) == pytest.approx(
        frechet_distance(other, some, dimensions=2), rel=1e-6
    )
