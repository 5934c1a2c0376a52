"""The sound of the bundled model's data: synthesis and effects, and FluidSynth where it is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from music import Note
from sound import effects
from sound.instruments import INSTRUMENTS
from sound.synthesis import PATCHES, synthesize

RATE = 16_000
RENDER = Path(__file__).parents[2] / "examples" / "bundled" / "render.py"


def volumes() -> dict[str, float]:
    return {name: instrument.volume for name, instrument in INSTRUMENTS.items()}


@pytest.mark.parametrize("name", PATCHES)
def test_a_patch_plays_its_pitch_and_then_stops(name: str) -> None:
    notes = [Note(0.5, 0.5, name, 57, 100)]
    tones, drums, kicks = synthesize(notes, volumes(), 2 * RATE, RATE)
    assert not drums.any()
    assert kicks == []
    assert np.abs(tones[: RATE // 2]).max() == 0
    assert np.abs(tones[-RATE // 10 :]).max() < 0.01
    spectrum = np.abs(np.fft.rfft(tones))
    near = np.arange(-8, 9) + 220 * 2  # half a hertz a bin, and detuned by a little
    assert max(spectrum[near].max(), spectrum[near * 2].max()) > 0.3 * spectrum.max()


def test_a_bass_drum_makes_the_others_duck() -> None:
    notes = [Note(0.25, 0.1, "club kit", 36, 100), Note(0.75, 0.1, "club kit", 42, 100)]
    tones, drums, kicks = synthesize(notes, volumes(), RATE, RATE)
    assert not tones.any()
    assert np.abs(drums[RATE // 4 :]).max() > 0.1
    assert kicks == [0.25]
    ducked = effects.duck(np.ones(RATE), kicks, 0.6, RATE)
    assert ducked[: RATE // 4].min() == 1
    assert ducked[RATE // 4] == pytest.approx(0.4)
    assert ducked[-1] == 1


def test_loudness_and_peak_of_a_finished_clip() -> None:
    noise = np.random.default_rng(0).normal(0, 3, RATE)
    noise[100] = 500.0
    finished = effects.finish(noise, 0.05, 0.7)
    assert np.abs(finished).max() <= 0.7
    twice = effects.finish(2 * noise, 0.05, 0.7)
    np.testing.assert_allclose(twice, finished, atol=1e-9)


def test_a_room_adds_a_tail_and_compression_takes_away_range() -> None:
    click = np.zeros(RATE)
    click[0] = 1.0
    tail = effects.reverberate(click, 0.5, 0.2, RATE)
    assert tail[0] == 1
    early, late = (np.abs(tail[part]).max() for part in (slice(400, 1200), slice(6400, 7200)))
    assert 0 < late < early / 10
    levels = np.repeat([0.1] * 7 + [1.0], RATE // 4)
    wave = levels * np.sin(np.arange(2 * RATE) * 0.3)
    squeezed = effects.compress(wave, 3, RATE)
    assert squeezed[-2000:].std() / squeezed[:2000].std() < 0.7 * wave[-2000:].std() / wave[:2000].std()


def test_the_same_seed_gives_the_same_bytes_and_no_clip_hears_the_one_before(tmp_path: Path) -> None:
    pytest.importorskip("fluidsynth")
    from sound import soundfonts

    if soundfonts.missing():
        pytest.skip("no soundfonts")
    for name, jobs in (("one", "1"), ("two", "2")):
        arguments = ["--clips", "54", "--prompts", "2", "--seed", "3", "--jobs", jobs]
        subprocess.run([sys.executable, RENDER, tmp_path / name, *arguments], check=True, timeout=200)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)
    rows = [json.loads(line) for line in (tmp_path / "one" / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 54
    for row in rows:
        wave, rate = soundfile.read(tmp_path / "one" / row["file_name"])
        assert (len(wave), rate) == (160_000, RATE)
        assert 0.1 < np.abs(wave).max() <= 0.7001
    player = soundfonts.SoundfontPlayer(soundfonts.SOUNDFONTS[0][1])
    player.play([Note(0.0, 3.0, "organ", 60, 100)], 1.0, RATE)
    after = player.play([Note(0.5, 0.4, "organ", 60, 100)], 1.0, RATE)
    assert np.abs(after[: RATE // 3]).max() < 1e-4
