"""Make the data of the bundled model: generated notes, played by FluidSynth with a free General MIDI soundfont.

    python examples/bundled/render.py data --clips 3000

writes `data/*.flac` and `data/metadata.jsonl` (the audiofolder convention), whose `text` is a list of captions for
each clip; and `data/held-out/`, prompts that are no caption of a clip, with what they ask for. Needs `pyfluidsynth`,
FluidSynth and a soundfont: FluidR3 GM (MIT licence), which is Debian's package fluid-soundfont-gm.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import fluidsynth
import numpy as np
import soundfile
from scipy.signal import resample_poly

import captions
import music

RATE = 16_000
PLAYED = 48_000  # FluidSynth repeats no filter when it transposes a sample; what folds over stays above 8 kHz here
PEAK = 0.7


def open_synth(soundfont: Path) -> tuple[Any, int]:
    """A synthesizer without reverberation or chorus, which would only blur what a small model has to learn."""
    synth = fluidsynth.Synth(gain=0.4, samplerate=float(PLAYED))
    synth.setting("synth.reverb.active", 0)
    synth.setting("synth.chorus.active", 0)
    number = synth.sfload(str(soundfont))
    if number < 0:
        raise SystemExit(f"error: cannot read the soundfont {soundfont}")
    return synth, number


def play(synth: Any, number: int, notes: tuple[music.Note, ...]) -> np.ndarray:
    """The waveform of the notes, float32 [L] at RATE."""
    synth.system_reset()
    programs = sorted({note.program for note in notes if note.program != music.DRUMS})
    channels = {program: index for index, program in enumerate(programs)} | {music.DRUMS: 9}
    for program in programs:
        synth.program_select(channels[program], number, 0, program)
    synth.program_select(9, number, 128, 0)
    events = [(note.start, 1, note) for note in notes] + [(note.start + note.length, 0, note) for note in notes]
    total, done, blocks = int(music.SECONDS * PLAYED), 0, []
    for time, on, note in sorted(events, key=lambda event: event[:2]):
        until = min(round(time * PLAYED), total)
        if until > done:
            blocks.append(synth.get_samples(until - done))
            done = until
        if done >= total:
            break
        if on:
            synth.noteon(channels[note.program], note.key, note.velocity)
        else:
            synth.noteoff(channels[note.program], note.key)
    if done < total:
        blocks.append(synth.get_samples(total - done))
    mono = np.concatenate(blocks).reshape(-1, 2).astype(np.float64).mean(axis=1)
    wave = resample_poly(mono, RATE, PLAYED)
    return (wave * (PEAK / max(np.abs(wave).max(), 1.0))).astype(np.float32)


def render_some(indices: range, *, seed: int, simple: bool, folder: Path, soundfont: Path) -> list[dict[str, Any]]:
    """Render these clips; their rows of metadata."""
    synth, number = open_synth(soundfont)
    rows = []
    for index in indices:
        piece, texts = captions.piece_of(index, seed, simple=simple)
        name = f"{index:05d}.flac"
        soundfile.write(folder / name, play(synth, number, piece.notes), RATE, subtype="PCM_16")
        facts = {"style": piece.style, "bpm": piece.bpm, "minor": piece.minor, "density": piece.density}
        rows.append({"file_name": name, "text": texts, **facts})
    synth.delete()
    return rows


def write_prompts(folder: Path, prompts: list[tuple[str, music.Piece]], soundfont: Path) -> None:
    """`held-out/prompts.jsonl`, and what FluidSynth makes of each: the best that a model could do."""
    folder.mkdir(exist_ok=True)
    synth, number = open_synth(soundfont)
    with (folder / "prompts.jsonl").open("w", encoding="utf-8") as file:
        for index, (text, piece) in enumerate(prompts):
            name = f"{index:02d}.flac"
            soundfile.write(folder / name, play(synth, number, piece.notes), RATE, subtype="PCM_16")
            row = {"file_name": name, "text": text, "style": piece.style}
            file.write(json.dumps(row | {"bpm": None if piece.style == "pad" else piece.bpm}) + "\n")
    synth.delete()


def main() -> None:
    parser = argparse.ArgumentParser(description="Render the data of the bundled model.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=3000)
    parser.add_argument("--simple", action="store_true", help="one root, and notes on a grid: for a short training")
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--soundfont", type=Path, default=Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if not options.soundfont.is_file():
        raise SystemExit(
            f"error: no soundfont {options.soundfont}; apt-get install fluid-soundfont-gm, or name another"
        )
    options.folder.mkdir(parents=True, exist_ok=True)
    parts = [range(start, min(start + 50, options.clips)) for start in range(0, options.clips, 50)]
    work = partial(
        render_some,
        seed=options.seed,
        simple=options.simple,
        folder=options.folder,
        soundfont=options.soundfont,
    )
    with ProcessPoolExecutor(options.jobs) as pool:
        rows = [row for part in pool.map(work, parts) for row in part]
    with (options.folder / "metadata.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    known = {text for row in rows for text in row["text"]}
    prompts = captions.held_out(known, count=options.prompts, seed=options.seed, simple=options.simple)
    write_prompts(options.folder / "held-out", prompts, options.soundfont)
    print(f"{len(rows)} clips and {len(prompts)} prompts in {options.folder}")


if __name__ == "__main__":
    main()
