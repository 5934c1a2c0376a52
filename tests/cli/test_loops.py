"""Loops as the command makes them: their tempo, their beginning, their marks, their names, and edits of them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from magnet_cli.music.tempo import measure_tempo
from support.closure import closure
from support.command import Magnet, one_line_error
from support.drums import ROCK, rhythm
from support.golden import GOLDEN

MUSIC = str(GOLDEN / "music")  # clips of 2 s
RATE = 32_000
QUICK = ("--model", MUSIC, "--device", "cpu", "--steps", "2,1,1,1", "--seed", "1")


def made(magnet: Magnet, prompt: str, path: str, *options: str) -> dict[str, Any]:
    result = magnet("generate", prompt, "-o", path, "--json", "--force", *QUICK, *options)
    assert result.code == 0, result.err
    return dict(result.records[0])


def samples(path: str) -> NDArray[np.float32]:
    return np.asarray(soundfile.read(path, dtype="float32", always_2d=True)[0].T)


def drums(path: str, *, rate: int = RATE, subtype: str = "FLOAT", channels: int = 1) -> NDArray[np.float32]:
    """A loop of one bar at 130 bpm, of 1.846 s."""
    sound = np.tile(0.5 * rhythm(ROCK, 130, bars=1, rate=rate), (channels, 1))
    soundfile.write(path, sound.T, rate, subtype=subtype)
    return sound


# -- the tempo --------------------------------------------------------------------------------------------------------


def test_the_tempo_goes_into_the_text_and_the_prompt_stays(magnet: Magnet) -> None:
    loop = ("--loop", "--bpm", "130")
    added, named = made(magnet, "rock", "a.wav", *loop), made(magnet, "rock, 130 bpm", "b.wav", *loop)
    assert (added["prompt"], added["text"]) == ("rock", "rock, 130 bpm")
    assert (named["prompt"], named["text"]) == ("rock, 130 bpm", "rock, 130 bpm")
    plain = made(magnet, "rock", "c.wav", "--loop", "--duration", str(240 / 130))
    assert plain["text"] == "rock"
    assert added["codes"] == named["codes"] != plain["codes"]
    assert magnet("replay", "a.wav", "--check", "--device", "cpu").out == "same\n"


def test_a_clip_of_an_earlier_version_is_made_again_without_the_tempo(magnet: Magnet) -> None:
    made(magnet, "rock", "a.wav", "--loop", "--duration", str(240 / 130))  # the text was the prompt alone
    record = json.loads(Path("a.json").read_text())
    del record["text"]
    record["edit"] |= {"bpm": 130, "duration": None}
    Path("old.json").write_text(json.dumps(record))
    assert magnet("replay", "old.json", "--check", "--device", "cpu").out == "same\n"


def test_a_prompt_of_another_tempo_is_refused(magnet: Magnet) -> None:
    result = magnet("generate", "rock, 90 bpm", "--loop", "--bpm", "130", *QUICK)
    one_line_error(result, 2, "the prompt names 90 bpm, but --bpm is 130", "leave it out of the prompt")
    Path("rows.csv").write_text("prompt,loop,bpm\nrock,true,130\n90 bpm rock,true,130\n")
    result = magnet("batch", "rows.csv", "-o", "clips", "--model", MUSIC)
    assert result.code == 2
    assert "line 3: the prompt names 90 bpm" in result.err


def test_the_measured_tempo_is_said_and_recorded(magnet: Magnet) -> None:
    """Of a loop whose input has a beat: the tiny models' own loops are noise."""
    drums("in.wav")
    edit = ("--loop", "--inpaint", "in.wav", "--region", "0:0.05", "--blend")
    result = magnet("generate", "rock", "-o", "x.wav", "--bpm", "130", *edit, *QUICK)
    assert result.code == 0, result.err
    assert "x.wav: 1.85 s, seed 1, 130.0 bpm, " in result.err
    recorded = json.loads(Path("x.json").read_text())["tempo"]
    assert recorded["bpm"] == pytest.approx(130, abs=0.1)
    assert recorded["clarity"] > 0.5
    assert "130" in next(line for line in magnet("info", "x.wav").out.splitlines() if line.startswith("tempo"))
    noise = magnet("generate", "rock", "-o", "y.wav", "--loop", "--bpm", "130", *QUICK)
    assert "no clear beat (asked for 130 bpm)" in noise.err
    assert json.loads(Path("y.json").read_text())["tempo"] is None
    assert "bpm" not in magnet("generate", "rock", "-o", "z.wav", *QUICK).err


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_loop_is_marked_and_named(magnet: Magnet) -> None:
    result = magnet(
        "generate", "rock", "-o", "{slug}-{bpm}-{bars}.wav", "--loop", "--bpm", "130", "--bars", "1", *QUICK
    )
    assert result.out == "rock-130-1.wav\n"
    content = Path("rock-130-1.wav").read_bytes()
    acid = content[content.index(b"acid") + 8 :][:24]
    assert struct.unpack("<IHHfIHHf", acid)[4:] == (4, 4, 4, 130.0)
    Path("rows.csv").write_text("prompt,loop,bpm,bars\nrock,true,130,1\nrock,true,240,2\n")
    options = ("-o", "clips/{bpm}bpm-{bars}.wav", "--device", "cpu", "--steps", "2,1,1,1")
    result = magnet("batch", "rows.csv", "--model", MUSIC, *options)
    assert result.code == 0, result.err
    assert result.out.split() == ["clips/130bpm-1.wav", "clips/240bpm-2.wav"]
    one_line_error(magnet("generate", "rock", "-o", "{bpm}.wav", *QUICK), 2, "{bpm} in {bpm}.wav needs a loop")
    unknown = magnet("generate", "rock", "-o", "{bars}.wav", "--loop", "--bpm", "130", *QUICK)
    one_line_error(unknown, 2, "Give --bars, too")  # of a checkpoint in a folder, only opening it says how long it is
    quick = ("--model", "bundled", "--steps", "1,1,1,1")
    assert magnet("generate", "rock", "-o", "{bars}.wav", "--loop", "--bpm", "130", *quick).out == "4.wav\n"


# -- edits of loops ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blend", [(), ("--blend",)], ids=["whole", "blend"])
@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (44_100, 2)])
def test_a_loop_is_edited_as_a_loop(magnet: Magnet, blend: tuple[str, ...], rate: int, channels: int) -> None:
    """Regions at the seam, which is then a place like any other, and the beats stay where they were."""
    sound = drums("in.wav", rate=rate, channels=channels)
    edit = ("--inpaint", "in.wav", "--region", "0:0.2", "--region", "1.6:", *blend, "--subtype", "float32")
    ranks: dict[bool, list[float]] = {True: [], False: []}
    for loop in (True, False):
        for seed in range(4):
            options = (*(("--loop", "--bpm", "130") if loop else ()), "--seed", str(seed))
            record = made(magnet, "rock", "x.wav", *edit, *options)
            found = samples("x.wav")
            seam = closure(found, record["sample_rate"])
            ranks[loop].append(seam.seam_jump)
            if loop:
                assert found.shape[1] == round(240 / 130 * (rate if blend else RATE))
                if blend:  # far from regions and fades, the samples are the file's
                    assert np.array_equal(found[:, rate // 2 : rate], sound[:, rate // 2 : rate])
    assert min(ranks[True]) < 0.95  # as in test_a_loop_closes_where_a_clip_does_not
    assert magnet("replay", "x.wav", "--check", "--device", "cpu").out == "same\n"


def test_a_loop_is_varied_as_a_loop(magnet: Magnet) -> None:
    sound = drums("in.wav")
    ranks = []
    for seed in range(4):
        options = ("--inpaint", "in.wav", "--vary", "0.3", "--loop", "--subtype", "float32")
        record = made(magnet, "rock", "x.wav", *options, "--seed", str(seed))
        assert samples("x.wav").shape == sound.shape
        ranks.append(closure(samples("x.wav"), RATE).seam_jump)
        assert record["edit"]["loop"]
    assert min(ranks) < 0.95


def test_an_edited_loop_keeps_its_place(magnet: Magnet) -> None:
    """Its beginning is the input's, wherever its downbeat is."""
    sound = np.roll(drums("in.wav"), 10_000, axis=1)
    soundfile.write("in.wav", sound.T, RATE, subtype="FLOAT")
    options = ("--inpaint", "in.wav", "--region", "0:0.1", "--loop", "--blend", "--subtype", "float32")
    made(magnet, "rock", "x.wav", *options)
    assert np.array_equal(samples("x.wav")[:, 8_000:-8_000], sound[:, 8_000:-8_000])
    assert measure_tempo(samples("x.wav"), RATE, loop=True) is not None


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--bpm", "120"], "the loop lasts 1.84616 s, which is not a whole number of bars at 120 bpm"),
        (["--bpm", "130", "--bars", "2"], "not 2 bars at 130 bpm"),
        (["--duration", "1"], "--inpaint cannot be combined with --duration"),
        (["--inpaint", "long.wav"], "a loop lasts from 0.5 s to the 2 s of the model's clips, not 3"),
    ],
)
def test_loops_that_cannot_be_edited(magnet: Magnet, options: list[str], part: str) -> None:
    drums("in.wav")
    soundfile.write("long.wav", np.ones(3 * RATE) * 0.1, RATE)
    one_line_error(
        magnet("generate", "rock", "--loop", "--inpaint", "in.wav", "--vary", "0.3", *options, *QUICK), 2, part
    )
