"""Write the training data of the bundled model: ten-second clips of many styles, with captions.

    python examples/bundled/render.py data --clips 9000 --prompts 120

writes `data/*.flac` and `data/metadata.jsonl` (the audiofolder convention), whose `text` is a list of captions for
each clip; and `data/held-out/`, pieces that are not among them, with a prompt each and what it asks for. A
rendering that was stopped resumes where it stopped. Needs `pyfluidsynth`, FluidSynth and Debian's packages
fluid-soundfont-gm and musescore-general-soundfont-small.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

import captions
from music import SECONDS, Piece
from sound import effects, soundfonts
from sound.instruments import INSTRUMENTS, is_kit
from sound.synthesis import synthesize
from styles import STYLES

RATE = 16_000
PEAK = 0.7
LEVELS = (0.04, 0.052, 0.065)  # of soft, medium and loud pieces (effects.finish)
DRIVEN = {"overdriven guitar": 1.5, "distorted guitar": 2.5}  # and how much their amplifier distorts
GUITARS = 0.15  # their level
PART = 50  # clips that one job renders before it writes down their metadata


def sound_of(piece: Piece, players: list[soundfonts.SoundfontPlayer], rng: random.Random) -> NDArray[np.float32]:
    """The waveform of a piece, [L] at RATE: one of the soundfonts, the synthesizers, a room, and a mixing desk."""
    style = STYLES[piece.style]
    player = rng.choice(players)
    total = int(SECONDS * RATE)
    own = [note for note in piece.notes if INSTRUMENTS[note.instrument].program < 0]
    others = [note for note in piece.notes if INSTRUMENTS[note.instrument].program >= 0]
    tones, drums, kicks = synthesize(own, {name: INSTRUMENTS[name].volume for name in piece.instruments}, total, RATE)
    driven = [note for note in others if note.instrument in DRIVEN]
    played = player.play([note for note in others if note.instrument not in DRIVEN], SECONDS, RATE)
    if driven:
        drive = max(DRIVEN[note.instrument] for note in driven)
        played += GUITARS * effects.amplify(player.play(driven, SECONDS, RATE), drive, RATE)
    if kicks and style.sidechain:
        depth = style.sidechain * rng.uniform(0.4, 1)
        tones, played = effects.duck(tones, kicks, depth, RATE), effects.duck(played, kicks, depth, RATE)
    room, amount = round(rng.uniform(*style.rooms), 1), rng.uniform(0.03, 0.22)
    if style.rooms[1] >= 2:
        amount += 0.12
    wave = effects.reverberate(tones + played + 0.3 * drums, room, amount, RATE) + 0.7 * drums
    if rng.random() < 0.4:
        wave = effects.compress(wave, rng.uniform(1.5, 3), RATE)
    return effects.finish(wave, LEVELS[piece.energy], PEAK).astype(np.float32)


def facts(piece: Piece) -> dict[str, Any]:
    """What is true of a piece, for metadata."""
    pitched = any(not is_kit(name) for name in piece.instruments)
    return {
        "style": piece.style,
        "bpm": piece.bpm if piece.pulse else None,
        "key": f"{piece.root} {piece.scale}" if pitched else None,
        "instruments": list(piece.instruments),
        "drums": any(is_kit(name) for name in piece.instruments),
        "density": piece.density,
        "energy": piece.energy,
        "piece": piece.fingerprint,
    }


def render_part(indices: range, *, seed: int, folder: Path) -> None:
    """Render these clips; their rows of metadata are written last, so that a part is there or is done again."""
    rows_file = folder / ".parts" / f"{indices.start:06d}-{indices.stop:06d}.jsonl"
    if rows_file.is_file():
        return
    rows = []
    with fresh_players() as players:
        for index in indices:
            piece, texts = captions.piece_of(index, seed)
            name = f"{index:05d}.flac"
            wave = sound_of(piece, players, random.Random(f"sound/{seed}/{index}"))
            soundfile.write(folder / name, wave, RATE, subtype="PCM_16")
            rows.append(json.dumps({"file_name": name, "text": texts, **facts(piece)}) + "\n")
    temporary = rows_file.with_suffix(".new")
    temporary.write_text("".join(rows), encoding="utf-8")
    temporary.replace(rows_file)


def open_players() -> list[soundfonts.SoundfontPlayer]:
    return [soundfonts.SoundfontPlayer(path) for _, path in soundfonts.SOUNDFONTS]


@lru_cache(maxsize=1)
def _kept() -> list[soundfonts.SoundfontPlayer]:
    """Players that never play: while a soundfont is open, FluidSynth opens it again in no time."""
    return open_players()


@contextmanager
def fresh_players() -> Iterator[list[soundfonts.SoundfontPlayer]]:
    """New players. A voice of FluidSynth begins at the loudness with which it last played, so the past can be heard.

    So the bytes of a clip depend on those before it in its part, and on nothing else.
    """
    _kept()
    players = open_players()
    try:
        yield players
    finally:
        for player in players:
            player.close()


def write_prompts(folder: Path, prompts: list[tuple[str, Piece]], seed: int) -> None:
    """`held-out/prompts.jsonl` and the clips of its pieces: the best that a model could do."""
    folder.mkdir(exist_ok=True)
    rows = []
    with fresh_players() as players:
        for index, (text, piece) in enumerate(prompts):
            name = f"{index:03d}.flac"
            wave = sound_of(piece, players, random.Random(f"held-out sound/{seed}/{index}"))
            soundfile.write(folder / name, wave, RATE, subtype="PCM_16")
            rows.append(json.dumps({"file_name": name, "text": text, **facts(piece)}) + "\n")
    (folder / "prompts.jsonl").write_text("".join(rows), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Render the data of the bundled model.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=9000)
    parser.add_argument("--prompts", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if packages := soundfonts.missing():
        raise SystemExit(f"error: no soundfont; apt-get install {' '.join(packages)}")
    (options.folder / ".parts").mkdir(parents=True, exist_ok=True)
    parts = [range(start, min(start + PART, options.clips)) for start in range(0, options.clips, PART)]
    with ProcessPoolExecutor(options.jobs) as pool:
        for _ in pool.map(partial(render_part, seed=options.seed, folder=options.folder), parts):
            pass
    names = [options.folder / ".parts" / f"{part.start:06d}-{part.stop:06d}.jsonl" for part in parts]
    rows = [line for name in names for line in name.read_text(encoding="utf-8").splitlines()]
    (options.folder / "metadata.jsonl").write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    known = {json.loads(row)["piece"] for row in rows}
    prompts = captions.held_out(known, count=options.prompts, seed=options.seed)
    write_prompts(options.folder / "held-out", prompts, options.seed)
    print(
        f"{len(rows)} clips, of which {len(known)} are different pieces, and {len(prompts)} prompts in {options.folder}"
    )


if __name__ == "__main__":
    main()
