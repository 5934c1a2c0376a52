"""Rescoring, MusicGen, hybrids, continuation, inpainting, windows, loops, negative prompts and the codec alone, as the
command has them. What each does to the codes is tested where it is made; here, that the command does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from magnet_cli.audio.splicing import prepare
from magnet_cli.model.codec import Codec
from support.closure import closure
from support.command import Magnet, Result, one_line_error
from support.golden import GOLDEN, Golden
from support.tiny_musicgen import Oracle, write_musicgen

MUSIC, SOUND = str(GOLDEN / "music"), str(GOLDEN / "sound")
STEPS = ("--steps", "2,1,1,1")
QUICK = (*STEPS, "--device", "cpu")
RATE, HOP, FRAMES, CLIP = 32_000, 640, 100, 2.0  # of the golden music model; whole spans make it 99 frames
FADE = 0.030  # seconds of a cross-fade


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Oracle]:
    """The folder of a tiny MusicGen that goes with the golden music model, and that as transformers has it."""
    folder = tmp_path_factory.mktemp("musicgen")
    return str(folder), Oracle(folder, write_musicgen(folder))


@pytest.fixture(scope="module")
def musicgen(oracle: tuple[str, Oracle]) -> str:
    """The folder of the tiny MusicGen."""
    return oracle[0]


def records(
    magnet: Magnet, *arguments: str, model: str = MUSIC, command: str = "generate", steps: tuple[str, ...] = STEPS
) -> list[dict[str, Any]]:
    """What --json says; the command must succeed."""
    quick = steps if model in (MUSIC, SOUND) else ()
    result = magnet(command, *arguments, "--model", model, "--json", "--device", "cpu", *quick)
    assert result.code == 0, result.err
    return result.records


def record(magnet: Magnet, *arguments: str, model: str = MUSIC, steps: tuple[str, ...] = STEPS) -> dict[str, Any]:
    """That of one clip."""
    seed = () if "--seed" in arguments else ("--seed", "1")
    (one,) = records(magnet, *arguments, *seed, "--force", model=model, steps=steps)
    return one


def sha(made: dict[str, Any]) -> str:
    return str(made["codes"]["sha256"])


def codes_of(path: str) -> NDArray[np.int16]:
    with np.load(path) as archive:
        return np.asarray(archive["codes"])


def failure(magnet: Magnet, *arguments: str) -> Result:
    """A command that is to fail, and quickly if it does not."""
    return magnet("generate", "x", "-o", "out.wav", "--device", "cpu", *arguments)


def sound(seconds: float, rate: int, channels: int = 1, *, seed: int = 0) -> NDArray[np.float64]:
    """A few tones and a little noise, [L, C]."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate))[:, None] / rate
    waves = sum(np.sin(2 * np.pi * pitch * time + random.random(channels)) for pitch in (110, 275, 440))
    return np.asarray(0.2 * waves + 0.02 * random.standard_normal((len(time), channels)))


def write(path: str, waveform: NDArray[np.float64], rate: int, subtype: str = "PCM_16") -> str:
    soundfile.write(path, waveform, rate, subtype=subtype)
    return path


def write_coded(path: str, seconds: float, *, seed: int = 0) -> str:
    """A file that the golden codec, whose weights are random, gives other codes in every frame: noise, and loud."""
    random = np.random.default_rng(seed)
    return write(path, 1000 * random.uniform(-1, 1, (round(seconds * RATE), 1)), RATE, "FLOAT")


def whole_numbers(path: str) -> NDArray[np.int32]:
    """Samples [L, C] as they are in the file, in the upper bits."""
    return np.asarray(soundfile.read(path, dtype="int32", always_2d=True)[0])


def encoded(golden: Golden, path: str) -> NDArray[np.int64]:
    """The codes [K, T] of a file, by the library."""
    waveform, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(golden.codec.encode(prepare(waveform.T, rate, golden.codec.config))[0])


def replays(magnet: Magnet, path: str) -> None:
    result = magnet("replay", path, "--check", "-q")
    assert (result.code, result.out) == (0, "same\n"), result.err


# -- rescoring --------------------------------------------------------------------------------------------------------


def test_musicgen_rescores_but_with_weight_1_has_no_say(magnet: Magnet, musicgen: str) -> None:
    steps = ("--steps", "6,3,3,3")  # only what a codebook's steps but the last propose is ranked
    plain = record(magnet, "x", "-o", "x.wav", steps=steps)
    rescored = record(magnet, "x", "-o", "r.wav", "--rescorer", musicgen, "--rescore-weight", "0.2", steps=steps)
    silent = record(magnet, "x", "-o", "s.wav", "--rescorer", musicgen, "--rescore-weight", "1", steps=steps)
    assert sha(silent) == sha(plain) != sha(rescored)
    assert plain["helpers"] == {}
    helper = rescored["helpers"]["rescorer"]
    assert (helper["name"], helper["given"]) == (Path(musicgen).name, musicgen)
    assert helper["hashes"].keys() == {"model.safetensors"}
    assert rescored["sampling"]["rescore_weight"] == 0.2
    replays(magnet, "r.wav")
    assert Path(musicgen).name in magnet("info", "r.wav").out


@pytest.mark.parametrize("model", [MUSIC, SOUND], ids=["music", "sound"])
def test_a_second_magnet_rescores(magnet: Magnet, model: str) -> None:
    found = [
        sha(record(magnet, "x", "-o", "x.wav", *options, model=model, steps=("--steps", "6,3,3,3")))
        for options in (
            (),
            ("--rescorer", model, "--rescore-weight", "1"),
            ("--rescorer", model, "--rescore-weight", "0"),
        )
    ]
    assert found[0] == found[1] != found[2]


def test_a_weight_without_a_rescorer_is_warned_of(magnet: Magnet) -> None:
    result = magnet("generate", "x", "-o", "x.wav", "--model", MUSIC, "--rescore-weight", "0.5", *QUICK)
    assert result.code == 0
    assert "has no effect without --rescorer" in result.err


# -- what does not go together ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        # None of these is here, and nothing can be downloaded: what is refused is refused before that.
        (["--model", "audio-magnet-small", "--rescorer", "musicgen-small"], ["sound", "audio-magnet-medium"]),
        (["--model", "audio-magnet-small", "--hybrid", "2"], ["sound", "music"]),
        (["--model", "musicgen-small", "--rescorer", "magnet-small-10secs"], ["alone"]),
        (["--model", "musicgen-small", "--loop"], ["--loop", "frame after frame"]),
        (["--model", "musicgen-small", "--duration", "31"], ["31 s", "30 s"]),
        (["--model", "musicgen-small", "--steps", "1,1,1,1"], ["--steps"]),
        (["--hybrid", "10"], ["hybrid 10 s leaves nothing"]),
        (["--hybrid", "2", "--loop"], ["--hybrid", "--loop"]),
        (["--continue", "no.wav"], ["no.wav"]),
        (["--inpaint", "no.wav", "--vary", "0.5"], ["no.wav"]),
        (["--inpaint", "no.wav"], ["--region"]),
        (["--region", "1:2"], ["--region needs --inpaint"]),
        (["--blend"], ["--blend needs --inpaint"]),
        (["--join"], ["--join needs --continue"]),
        (["--overlap", "1"], ["--overlap needs --duration"]),
        (["--duration", "20", "--overlap", "10"], ["overlap 10 s leaves nothing"]),
        (["--bpm", "120"], ["--bpm needs --loop"]),
        (["--loop", "--bars", "2"], ["--bars needs --bpm"]),
        (["--loop", "--bpm", "120", "--duration", "2"], ["--bpm", "--duration"]),
        (["--negative", "y", "--unconditional"], ["--negative", "--unconditional"]),
        (["--negative", " "], ["empty"]),
        (["--vary", "0.5"], ["--vary needs --inpaint"]),
        (["--inpaint", "no.wav", "--vary", "1.5"], ["vary must be above 0"]),
        (["--rescore-weight", "2"], ["rescore weight must be from 0 to 1"]),
    ],
    ids=lambda value: " ".join(value)[:50],
)
def test_what_cannot_work_is_refused_before_anything_is_opened(
    magnet: Magnet, options: list[str], parts: list[str]
) -> None:
    one_line_error(failure(magnet, *options), 2, *parts)


def test_sound_and_musicgen_do_not_mix(magnet: Magnet, musicgen: str) -> None:
    one_line_error(failure(magnet, "--model", SOUND, "--rescorer", musicgen), 2, "16000 Hz", "MusicGen is for music")
    one_line_error(failure(magnet, "--model", SOUND, "--hybrid", "0.5", "--hybrid-model", musicgen), 2, "16000 Hz")
    one_line_error(failure(magnet, "--model", MUSIC, "--rescorer", SOUND), 2, "16000 Hz")
    one_line_error(failure(magnet, "--model", MUSIC, "--hybrid", "0.5", "--hybrid-model", MUSIC), 2, "only a MusicGen")
    one_line_error(failure(magnet, "--model", musicgen, "--rescorer", MUSIC), 2, "alone")


# -- MusicGen ---------------------------------------------------------------------------------------------------------


def test_musicgen_generates_what_transformers_does(magnet: Magnet, oracle: tuple[str, Oracle]) -> None:
    folder, reference = oracle
    options = ("--greedy", "--save-codes", "--duration", "0.4", "--dtype", "float32")
    made = record(magnet, "disco", "-o", "x.wav", *options, model=folder)
    assert (made["seconds"], made["tokens"]) == (0.4, len(reference.tokenizer("disco")["input_ids"]))
    wanted = reference.generate(["disco"], 20, guidance_scale=3.0)
    assert np.array_equal(codes_of("x.codes.npz"), wanted[0].numpy())
    assert made["sampling"] == {"temperature": 1.0, "top_k": 250, "top_p": None, "greedy": True, "guidance": 3.0}
    replays(magnet, "x.wav")


def test_musicgen_makes_the_same_clip_alone_and_in_a_batch(magnet: Magnet, musicgen: str) -> None:
    rows = [{"prompt": "a", "seed": 5}, {"prompt": "b", "seed": 5, "unconditional": True}, {"prompt": "a", "top_k": 9}]
    Path("p.jsonl").write_text("".join(json.dumps({"duration": 0.3, **row}) + "\n" for row in rows))
    made = records(magnet, "p.jsonl", "-o", "out/", "--same-seed", "--seed", "7", model=musicgen, command="batch")
    by = {(one["prompt"], one["seed"]): sha(one) for one in made}
    alone = {
        ("a", 5): record(magnet, "a", "-o", "x.wav", "--seed", "5", "--duration", "0.3", model=musicgen),
        ("b", 5): record(magnet, "-o", "x.wav", "--seed", "5", "--duration", "0.3", "--unconditional", model=musicgen),
        ("a", 7): record(
            magnet, "a", "-o", "x.wav", "--seed", "7", "--duration", "0.3", "--top-k", "9", model=musicgen
        ),
    }
    assert by == {key: sha(one) for key, one in alone.items()}
    assert len(set(by.values())) == 3


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--steps", "2,1,1,1"], "--steps"),
        (["--preset", "fast"], "--preset"),
        (["--min-guidance", "1"], "--min-guidance"),
        (["--spans", "stride1"], "--spans"),
        (["--span-score", "prod"], "--span-score"),
        (["--no-anneal"], "--no-anneal"),
        (["--rescore-weight", "0.5"], "--rescore-weight"),
        (["--loop"], "--loop"),
        (["--dtype", "int8"], "MusicGen cannot run in int8"),
        (["--negative", "y"], "--negative"),
        (["--hybrid", "0.5", "--hybrid-model", "MUSICGEN"], "alone"),
        (["--duration", "6", "--overlap", "1"], "--overlap"),
        (["--duration", "6"], "6 s exceed the 5.06 s that the model can generate"),
        (["--inpaint", "in.wav", "--vary", "0.5"], "--inpaint"),
        (["--continue", "in.wav", "--keep", "5.06"], "keep 5.06 s leaves nothing"),
        (["--continue", "in.wav", "--keep", "0.5", "--duration", "0.5"], "nothing of a duration of 0.5 s"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_musicgen_cannot_do_is_refused(magnet: Magnet, musicgen: str, options: list[str], part: str) -> None:
    write("in.wav", sound(1, RATE), RATE)
    options = [option.replace("MUSICGEN", musicgen) for option in options]
    one_line_error(failure(magnet, "--model", musicgen, *options), 2, part)
    assert not Path("out.wav").exists()


def test_musicgen_continues(magnet: Magnet, musicgen: str) -> None:
    write("in.wav", sound(1.5, RATE), RATE)
    options = ("--continue", "in.wav", "--save-codes", "--duration", "1")
    made = record(magnet, "x", "-o", "x.wav", *options, "--keep", "0.2", "--join", "--subtype", "pcm24", model=musicgen)
    # 10 frames, which are those of the end of the file; the join begins with all of it.
    assert made["codes"]["shape"] == [4, 50]
    assert made["seconds"] == pytest.approx(1.5 + 1 - 0.2)
    before = round((1.5 - FADE) * RATE)
    assert np.array_equal(whole_numbers("x.wav")[:before], whole_numbers("in.wav")[:before])
    write_coded("in.wav", 1.5)
    # The codec hears a second more before what is kept: see splice.prepare_ending.
    for keep, frames in ((("--keep", "0.2"), 10), ((), 16)):  # by default a third of what is asked for
        write("tail.wav", soundfile.read("in.wav", always_2d=True)[0][-(frames + 50) * HOP :], RATE, "FLOAT")
        assert magnet("encode", "tail.wav", "-o", "tail.npz", "--model", musicgen, "--force").code == 0
        record(magnet, "x", "-o", "x.wav", *options, *keep, model=musicgen)
        assert np.array_equal(codes_of("x.codes.npz")[:, :frames], codes_of("tail.npz")[:, -frames:])
        assert len(np.unique(codes_of("tail.npz"))) > 20
    replays(magnet, "x.wav")


# -- hybrids ----------------------------------------------------------------------------------------------------------


def test_a_hybrid_begins_as_musicgen_does(magnet: Magnet, musicgen: str) -> None:
    options = ("--hybrid", "0.5", "--hybrid-model", musicgen, "--save-codes")
    whole = record(magnet, "x", "-o", "h.wav", *options)
    record(magnet, "x", "-o", "m.wav", "--duration", "0.5", "--save-codes", model=musicgen)
    beginning = codes_of("m.codes.npz")
    assert beginning.shape == (4, 25)
    assert np.array_equal(codes_of("h.codes.npz")[:, :25], beginning)
    assert whole["codes"]["shape"] == [4, 99]
    assert whole["helpers"]["hybrid"]["hashes"].keys() == {"model.safetensors"}
    replays(magnet, "h.wav")
    both = record(magnet, "x", "-o", "b.wav", *options, "--rescorer", musicgen, "--rescore-weight", "0")
    assert np.array_equal(codes_of("b.codes.npz")[:, :25], beginning)
    assert sha(both) != sha(whole)


# -- continuation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("subtype", "wanted"), [("PCM_16", "pcm16"), ("PCM_24", "pcm24")])
def test_a_join_keeps_every_sample_up_to_the_fade(magnet: Magnet, subtype: str, wanted: str) -> None:
    write("in.wav", sound(1.2, 44_100, 2), 44_100, subtype)
    made = record(magnet, "x", "-o", "x.wav", "--continue", "in.wav", "--keep", "0.5", "--join", "--subtype", wanted)
    before, after = whole_numbers("in.wav"), whole_numbers("x.wav")
    assert (made["sample_rate"], after.shape[1]) == (44_100, 2)
    same = len(before) - round(FADE * 44_100)
    assert np.array_equal(after[:same], before[:same])
    assert not np.array_equal(after[same : len(before)], before[same:])
    # Two roundings: of the new part to this rate, and of what is kept.
    assert abs(len(after) - (len(before) + (99 - 25) * HOP / RATE * 44_100)) <= 1


def test_a_continuation_begins_with_the_codes_of_the_end(magnet: Magnet, music: Golden) -> None:
    write_coded("in.wav", 0.9)
    for keep, frames in ((("--keep", "0.4"), 20), ((), 33), (("--keep", "1.9"), 45)):  # all of a short input
        made = record(magnet, "x", "-o", "x.wav", "--continue", "in.wav", "--save-codes", *keep)
        assert made["codes"]["shape"] == [4, 99]
        # Shorter than what is kept and the second that the codec hears before it, so the whole file was encoded.
        assert np.array_equal(codes_of("x.codes.npz")[:, :frames], encoded(music, "in.wav")[:, -frames:])
    assert made["input"]["path"] == str(Path("in.wav").absolute())
    replays(magnet, "x.wav")
    write_coded("in.wav", 0.9, seed=1)
    result = magnet("replay", "x.wav", "--check")
    assert result.code == 9
    assert "the input file has changed" in result.err


def test_what_is_kept_must_leave_something(magnet: Magnet) -> None:
    write("in.wav", sound(3, RATE), RATE)
    options = ("--model", MUSIC, "--continue", "in.wav")
    one_line_error(failure(magnet, *options, "--keep", "2"), 2, "keep 2 s leaves nothing of the 2 s")
    one_line_error(failure(magnet, *options, "--keep", "1", "--duration", "1"), 2, "nothing of a duration of 1 s")
    # By default a third of what is asked for, not of the model's clip, so that something is new.
    heard = []
    for prompt in "xy":
        assert record(magnet, prompt, "-o", "x.wav", *options[2:], "--duration", "0.5")["seconds"] == 0.5
        heard.append(soundfile.read("x.wav")[0])
    assert not np.array_equal(*heard)


# -- inpainting and variations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "channels", "subtype", "wanted"),
    [(44_100, 2, "PCM_16", "pcm16"), (48_000, 1, "PCM_24", "pcm24"), (22_050, 3, "PCM_16", "pcm24")],
)
def test_a_blend_keeps_every_sample_but_those_of_regions_and_fades(
    magnet: Magnet, rate: int, channels: int, subtype: str, wanted: str
) -> None:
    write("in.wav", sound(1.5, rate, channels), rate, subtype)
    options = ("--inpaint", "in.wav", "--region", "0.4:0.6", "--region", "1.3:", "--blend", "--subtype", wanted)
    made = record(magnet, "x", "-o", "x.wav", *options)
    before, after = whole_numbers("in.wav"), whole_numbers("x.wav")
    assert (made["sample_rate"], after.shape) == (rate, before.shape)
    time = np.arange(len(before)) / rate
    kept = (time < 0.4 - FADE - 1 / rate) | ((time > 0.6 + FADE + 1 / rate) & (time < 1.3 - FADE - 1 / rate))
    assert np.array_equal(after[kept], before[kept])
    assert not np.array_equal(after[(time > 0.4) & (time < 0.6)], before[(time > 0.4) & (time < 0.6)])
    assert not np.array_equal(after[time > 1.3], before[time > 1.3])
    assert made["edit"]["regions"] == ["0.4:0.6", "1.3:"]
    replays(magnet, "x.wav")


def test_inpainting_keeps_the_codes_outside_the_regions(magnet: Magnet, music: Golden) -> None:
    write_coded("in.wav", 1.5)
    made = record(magnet, "x", "-o", "x.wav", "--inpaint", "in.wav", "--region", "0.4:0.6", "--save-codes")
    before, after = encoded(music, "in.wav"), codes_of("x.codes.npz")
    assert made["seconds"] == 1.5
    kept = np.r_[0:20, 30:75]
    assert np.array_equal(after[:, kept], before[:, kept])
    assert (after[:, 20:30] != before[:, 20:30]).any(axis=1).all()


@pytest.mark.parametrize(
    ("regions", "part"),
    [
        (["1:3"], "region 1:3 is not within the 1.5 s"),
        (["1.5:"], "not within"),
        (["1:1"], "empty"),
        (["1:0.5"], "reversed"),
        (["a:b"], "not a region"),
        (["1"], "not a region"),
        (["-1:1"], "does not begin at a time"),
        (["0:1", "2:3"], "region 2:3 is not within"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_regions_that_cannot_be(magnet: Magnet, regions: list[str], part: str) -> None:
    write("in.wav", sound(1.5, RATE), RATE)
    options = [option for region in regions for option in ("--region", region)]
    one_line_error(failure(magnet, "--model", MUSIC, "--inpaint", "in.wav", *options), 2, part)


def test_regions_that_overlap_are_one(magnet: Magnet) -> None:
    write("in.wav", sound(1.5, RATE), RATE)
    made = [
        sha(record(magnet, "x", "-o", "x.wav", "--inpaint", "in.wav", *options))
        for options in (("--region", "0.2:0.6", "--region", "0.4:0.8"), ("--region", "0.2:0.8"))
    ]
    assert made[0] == made[1]


def test_vary_decodes_a_share_anew_elsewhere_for_every_seed(magnet: Magnet, music: Golden) -> None:
    write_coded("in.wav", 1.5)
    before, places = encoded(music, "in.wav"), []
    for seed in ("1", "2"):
        record(magnet, "x", "-o", "v.wav", "--inpaint", "in.wav", "--vary", "0.3", "--save-codes", "--seed", seed)
        changed = (codes_of("v.codes.npz") != before).any(axis=0)
        # 0.3 of 25 spans of 3 frames are 8; a span may by chance become what it was.
        assert 20 <= changed.sum() <= 24
        places.append(changed)
    assert not np.array_equal(*places)
    options = ("--vary", "0.3", "--region", "0:0.3", "--save-codes", "--seed", "2")
    record(magnet, "x", "-o", "v.wav", "--inpaint", "in.wav", *options)
    both = (codes_of("v.codes.npz") != before).any(axis=0)
    assert not (both & ~places[1])[15:].any()
    assert both[:15].sum() >= 12
    replays(magnet, "v.wav")


def test_an_input_longer_than_the_models_clip_is_done_in_windows(magnet: Magnet, music: Golden) -> None:
    write_coded("in.wav", 5)
    made = record(
        magnet, "x", "-o", "x.wav", "--inpaint", "in.wav", "--region", "4:4.5", "--vary", "0.1", "--save-codes"
    )
    assert (made["seconds"], made["codes"]["shape"]) == (5, [4, 250])
    same = (codes_of("x.codes.npz") == encoded(music, "in.wav")).all(axis=0)
    assert 0.75 * 225 < same[np.r_[0:200, 225:250]].sum() < 225  # 0.9 of the spans, and those in the region too
    assert same[200:225].sum() < 5
    replays(magnet, "x.wav")


def test_odd_inputs_have_a_clear_outcome(magnet: Magnet) -> None:
    def result(path: str, *options: str) -> Result:
        arguments = options or ("--inpaint", path, "--vary", "0.5")
        return magnet("generate", "x", "-o", "out.wav", "--force", "--model", MUSIC, *arguments, *QUICK)

    write("silent.wav", np.zeros((RATE, 1)), RATE)
    assert result("silent.wav").code == 0
    assert "the audio is silent" in result("silent.wav").err
    write("eight.wav", sound(0.5, 44_100, 8), 44_100)
    assert result("eight.wav").code == 0
    write("fast.wav", sound(0.5, 192_000, 2), 192_000)
    assert result("fast.wav", "--continue", "fast.wav", "--join").code == 0
    assert soundfile.info("out.wav").samplerate == 192_000
    Path("out.wav").unlink()
    one_line_error(result("eight.wav", "--continue", "eight.wav", "--join"), 2, "8 channels", "--join")
    write("short.wav", sound(0.015, RATE), RATE)
    one_line_error(result("short.wav"), 2, "less than one frame")
    one_line_error(result("short.wav", "--continue", "short.wav"), 2, "less than one frame")
    write("span.wav", sound(0.03, RATE), RATE)
    one_line_error(result("span.wav"), 2, "less than one span")
    Path("text.wav").write_text("no audio")
    one_line_error(result("text.wav"), 2, "text.wav is not an audio file")
    write("empty.wav", np.zeros((0, 1)), RATE)
    one_line_error(result("empty.wav"), 2, "no samples")
    Path("folder").mkdir()
    one_line_error(result("folder"), 2, "folder")
    assert not Path("out.wav").exists()


# -- windows ----------------------------------------------------------------------------------------------------------


def test_more_than_a_clip_is_decoded_in_windows(magnet: Magnet) -> None:
    made = record(magnet, "x", "-o", "x.wav", "--duration", "5.01", "--no-metadata")
    again = record(magnet, "x", "-o", "y.wav", "--duration", "5.01", "--save-codes")
    assert soundfile.info("x.wav").frames == round(5.01 * RATE)
    assert sha(made) == sha(again)
    assert (made["codes"]["shape"], made["seconds"]) == ([4, 251], 5.01)
    replays(magnet, "y.wav")
    other = record(magnet, "x", "-o", "z.wav", "--duration", "5.01", "--overlap", "0.5", "--save-codes")
    assert sha(other) != sha(made)
    first = [codes_of(name)[:, :100] for name in ("y.codes.npz", "z.codes.npz")]
    assert np.array_equal(*first)  # the first window overlaps with nothing


# -- loops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subtype", ["pcm16", "float32"])
def test_a_loop_of_a_tempo_lasts_whole_bars(magnet: Magnet, subtype: str) -> None:
    made = record(magnet, "x", "-o", "x.wav", "--loop", "--bpm", "130", "--bars", "1", "--subtype", subtype)
    assert soundfile.info("x.wav").frames == round(4 * 60 / 130 * RATE)
    assert made["lufs"] == pytest.approx(-14, abs=0.5)
    replays(magnet, "x.wav")


def test_a_loop_closes_where_a_clip_does_not(magnet: Magnet) -> None:
    """The limiter works hard here, and must do so across the seam, too."""
    level = ("--lufs", "-4", "--true-peak", "-3", "--subtype", "float32")
    ranks = {}
    for name, options in (("loop", ("--loop", "--duration", "1.5")), ("plain", ("--duration", "1.5"))):
        closures = []
        for seed in range(4):
            made = record(magnet, "x", "-o", "x.wav", *options, *level, "--seed", str(seed))
            assert made["limited"]
            waveform, rate = soundfile.read("x.wav", dtype="float32", always_2d=True)
            closures.append(closure(waveform.T, rate))
        ranks[name] = np.array([[one.seam_jump, one.seam_flux] for one in closures])
    # Where the sound closes, the seam ranks anywhere among 75 places. Four in a row above 0.95 come by chance once in
    # 160,000 times; the plain clips' fades make for a step in level.
    assert ranks["loop"].min(axis=0).max() < 0.95
    assert ranks["loop"].mean() < ranks["plain"].mean()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--bpm", "130", "--bars", "2"], "room for 1 to 1 bars"),
        (["--bpm", "10"], "tempo"),
        (["--bpm", "60"], "a bar at 60 bpm lasts 4 s"),
        (["--duration", "2.5"], "a loop lasts from 0.5 s to the 2 s"),
        (["--duration", "0.3"], "a loop lasts"),
    ],
)
def test_loops_that_cannot_be(magnet: Magnet, options: list[str], part: str) -> None:
    one_line_error(failure(magnet, "--model", MUSIC, "--loop", *options), 2, part)


# -- text -------------------------------------------------------------------------------------------------------------


def test_no_text_and_text_to_steer_away_from(magnet: Magnet) -> None:
    plain = record(magnet, "x", "-o", "x.wav")
    negative = record(magnet, "x", "-o", "n.wav", "--negative", "noise")
    named = record(magnet, "x", "-o", "u1.wav", "--unconditional")
    other = record(magnet, "y", "-o", "u2.wav", "--unconditional")
    nameless = record(magnet, "-o", "u3.wav", "--unconditional")
    assert len({sha(plain), sha(negative), sha(named)}) == 3
    assert sha(named) == sha(other) == sha(nameless)
    assert (named["prompt"], nameless["prompt"], named["tokens"]) == ("x", "", 0)
    assert negative["edit"]["negative"] == "noise"
    assert record(magnet, "--unconditional", "-o", "new/")["path"].startswith("new/")
    for path in ("n.wav", "u1.wav", "u3.wav"):
        replays(magnet, path)


def test_nameless_clips_have_names_of_their_own(magnet: Magnet) -> None:
    made = records(magnet, "--unconditional", "-n", "2", "--seed", "3", "-o", "out/")
    assert [one["path"] for one in made] == ["out/01-clip-3.wav", "out/02-clip-4.wav"]
    (lone,) = records(magnet, "--unconditional", "--seed", "3")
    assert lone["path"] == "clip-3.wav"


# -- batches ----------------------------------------------------------------------------------------------------------


def test_rows_of_all_kinds_are_what_generate_makes_alone(magnet: Magnet, musicgen: str) -> None:
    write("in.wav", sound(1.5, 44_100, 2), 44_100)
    rows: list[dict[str, Any]] = [
        {"prompt": "plain"},
        {"prompt": "continued", "continue": "in.wav", "keep": 0.4, "join": True},
        {"prompt": "inpainted", "inpaint": "in.wav", "region": "0.2:0.4 1:", "blend": True},
        {"prompt": "varied", "inpaint": "in.wav", "vary": 0.5},
        {"prompt": "long", "duration": 3.1, "overlap": 0.5},
        {"prompt": "circle", "loop": True, "bpm": 140, "bars": 1},
        {"prompt": "hybrid", "hybrid": 0.3},
        {"prompt": "negative", "negative": "noise"},
        {"prompt": "unconditional", "unconditional": True},
        {"prompt": "own", "rescore_weight": 0.1},
    ]
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    helpers = ("--rescorer", musicgen, "--hybrid-model", musicgen)
    made = records(magnet, "p.jsonl", "-o", "out/", "--same-seed", "--seed", "3", *helpers, command="batch")
    found = {one["prompt"]: one for one in made}
    assert len(found) == len(rows)
    for row in rows:
        arguments = [row["prompt"], "-o", "alone.wav", "--seed", "3", *helpers]
        for name, value in row.items():
            if name == "region":
                arguments += [part for one in value.split() for part in ("--region", one)]
            elif name != "prompt":
                arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        alone = record(magnet, *arguments)
        assert sha(alone) == sha(found[row["prompt"]]), row
        assert alone["edit"] == found[row["prompt"]]["edit"]
        frames = {name: soundfile.info(name).frames for name in ("alone.wav", found[row["prompt"]]["path"])}
        assert len(set(frames.values())) == 1, frames
    assert len({sha(one) for one in made}) == len(rows)
    again = magnet("batch", "p.jsonl", "-o", "out/", "--same-seed", "--seed", "3", "--model", MUSIC, *helpers, *QUICK)
    assert "nothing to generate" in again.err
    write("in.wav", sound(1.5, 44_100, 2, seed=1), 44_100)
    changed = records(magnet, "p.jsonl", "-o", "out/", "--same-seed", "--seed", "3", *helpers, "--mix", command="batch")
    assert {one["prompt"] for one in changed} == {"continued", "inpainted", "varied"}


def test_columns_of_a_csv(magnet: Magnet) -> None:
    write("in.wav", sound(1.5, RATE), RATE)
    Path("p.csv").write_text(
        "prompt,regions,inpaint,unconditional,seed\nx,0.2:0.4;0.6:0.8,in.wav,,1\n,,,yes,2\ny,,,no,3\n"
    )
    made = records(magnet, "p.csv", "-o", "out/", command="batch")
    assert [one["prompt"] for one in sorted(made, key=lambda one: int(one["seed"]))] == ["x", "", "y"]
    options = ("--inpaint", "in.wav", "--region", "0.2:0.4", "--region", "0.6:0.8")
    wanted = {sha(record(magnet, "x", "-o", "a.wav", *options))}
    wanted.add(sha(record(magnet, "-o", "b.wav", "--unconditional", "--seed", "2")))
    wanted.add(sha(record(magnet, "y", "-o", "c.wav", "--seed", "3")))
    assert {sha(one) for one in made} == wanted


def test_unconditional_rows_need_no_prompt(magnet: Magnet) -> None:
    Path("p.jsonl").write_text('{"unconditional": true, "seed": 1}\n{"prompt": "", "unconditional": true, "seed": 2}\n')
    assert [one["prompt"] for one in records(magnet, "p.jsonl", "-o", "out/", command="batch")] == ["", ""]
    Path("p.jsonl").write_text('{"seed": 1}\n{"prompt": "x", "region": "1:2"}\n')
    error = magnet("batch", "p.jsonl", "-o", "other/", "--model", MUSIC)
    assert error.code == 2
    assert "line 1: no column is named prompt" in error.err


def test_a_wrong_row_is_named(magnet: Magnet) -> None:
    write("in.wav", sound(1.5, RATE), RATE)
    rows = [
        {"prompt": "a", "region": "1:2"},
        {"prompt": "b", "inpaint": "in.wav", "region": "1:2"},
        {"prompt": "c", "continue": "no.wav"},
        {"prompt": "d", "loop": True, "duration": 1, "bpm": 120},
        {"prompt": "e", "hybrid": 2},
        {"prompt": "f"},
    ]
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = magnet("batch", "p.jsonl", "-o", "out/", "--model", MUSIC)
    assert (result.code, Path("out").exists()) == (2, False)
    for part in ("line 1: --region needs --inpaint", "line 3: there is no file no.wav", "line 4: --bpm cannot"):
        assert part in result.err, result.err
    assert "line 6" not in result.err


def test_ten_thousand_rows_read_an_input_once(magnet: Magnet, monkeypatch: pytest.MonkeyPatch) -> None:
    write("in.wav", sound(1.5, RATE), RATE)
    Path("p.csv").write_text("prompt,seed\n" + "".join(f"x,{seed}\n" for seed in range(10_000)))
    from magnet_cli.pipeline import inputs

    read: list[Path] = []
    plain = inputs.measure_audio
    monkeypatch.setattr(inputs, "measure_audio", lambda path: (read.append(path), plain(path))[1])
    options = ("--inpaint", "in.wav", "--vary", "0.3", "--dry-run", "-q", "--model", MUSIC, *QUICK)
    result = magnet("batch", "p.csv", "-o", "out/", *options)
    assert (result.code, len(result.out.splitlines())) == (0, 10_000), result.err
    assert read == [Path("in.wav")]


# -- the codec alone --------------------------------------------------------------------------------------------------


def test_encode_and_decode_are_the_codec(magnet: Magnet, music: Golden) -> None:
    write_coded("in.wav", 1.1)
    result = magnet("encode", "in.wav", "-o", "c.npz", "--model", MUSIC)
    assert (result.code, result.out) == (0, "c.npz\n"), result.err
    assert np.array_equal(codes_of("c.npz"), encoded(music, "in.wav"))
    assert magnet("decode", "c.npz", "-o", "out.wav", "--model", MUSIC, "--subtype", "float32").code == 0
    waveform, rate = soundfile.read("out.wav", dtype="float32", always_2d=True)
    codes = music_codes("c.npz")
    assert rate == RATE
    assert np.array_equal(waveform.T, decoded(music.codec, codes, loop=False))
    assert magnet("decode", "c.npz", "-o", "l.wav", "--model", MUSIC, "--subtype", "float32", "--loop").code == 0
    assert np.array_equal(
        soundfile.read("l.wav", dtype="float32", always_2d=True)[0].T, decoded(music.codec, codes, loop=True)
    )


def test_decode_reads_what_generate_saves(magnet: Magnet) -> None:
    record(magnet, "x", "-o", "x.wav", "--save-codes", "--normalize", "none", "--subtype", "float32", "--no-metadata")
    assert magnet("decode", "x.codes.npz", "-o", "y.wav", "--model", MUSIC, "--subtype", "float32").code == 0
    assert Path("x.wav").read_bytes() == Path("y.wav").read_bytes()


def test_musicgens_codec_encodes_too(magnet: Magnet, musicgen: str) -> None:
    write("in.wav", sound(0.5, RATE), RATE)
    assert magnet("encode", "in.wav", "-o", "c.npz", "--model", musicgen).code == 0
    assert codes_of("c.npz").shape == (4, 25)


@pytest.mark.parametrize(
    ("codes", "part"),
    [
        (np.zeros((5, 9), np.int16), "5 codebooks"),
        (np.full((4, 9), 64, np.int16), "0 to 63"),
        (np.full((4, 9), -1, np.int16), "from -1"),
        (np.zeros((4, 9)), "whole numbers"),
        (np.zeros(9, np.int16), "whole numbers"),
        (np.zeros((4, 0), np.int16), "whole numbers"),
        (np.array([[None]]), "holds no codes"),
    ],
    ids=["codebooks", "too large", "negative", "floats", "flat", "empty", "pickled"],
)
def test_codes_that_are_not_the_codecs_are_refused(magnet: Magnet, codes: NDArray[Any], part: str) -> None:
    np.savez("c.npz", codes=codes)
    one_line_error(magnet("decode", "c.npz", "-o", "x.wav", "--model", MUSIC), 2, part)
    assert not Path("x.wav").exists()


def test_codes_name_their_model_and_decode_compares_it(magnet: Magnet) -> None:
    write_coded("in.wav", 1.1)
    assert magnet("encode", "in.wav", "-o", "c.npz", "--model", MUSIC).code == 0
    one_line_error(
        magnet("decode", "c.npz", "-o", "x.wav", "--model", "bundled"),
        2,
        "holds codes of the codec of music",
        "--model",
    )
    assert not Path("x.wav").exists()
    named = magnet("decode", "c.npz", "-o", "x.wav", "--model", MUSIC)
    assert (named.code, "name" in named.err) == (0, False)
    np.savez("old.npz", codes=codes_of("c.npz"))  # as earlier versions wrote it
    old = magnet("decode", "old.npz", "-o", "y.wav", "--model", MUSIC)
    assert (old.code, "old.npz does not name its model" in old.err) == (0, True)
    assert Path("x.wav").read_bytes() == Path("y.wav").read_bytes()


def test_files_that_hold_no_codes_are_refused(magnet: Magnet) -> None:
    decode = ("-o", "x.wav", "--model", MUSIC)
    one_line_error(magnet("decode", "no.npz", *decode), 2, "cannot read no.npz")
    np.savez("c.npz", other=np.zeros(3))
    one_line_error(magnet("decode", "c.npz", *decode), 2, "holds no codes")
    np.savez_compressed("d.npz", codes=np.random.default_rng(0).integers(0, 64, (4, 999)))
    content = bytearray(Path("d.npz").read_bytes())
    content[200:260] = bytes(60)
    Path("d.npz").write_bytes(content)
    one_line_error(magnet("decode", "d.npz", *decode), 2, "holds no codes")
    np.save("c.npy", np.zeros((4, 9), np.int16))
    for name, content in (("text", b"no archive"), ("empty", b""), ("array", Path("c.npy").read_bytes())):
        Path(f"{name}.npz").write_bytes(content)
        one_line_error(magnet("decode", f"{name}.npz", *decode), 2, "holds no codes")
    Path("x.wav").write_text("mine")
    np.savez("c.npz", codes=np.zeros((4, 9), ">i4"))
    one_line_error(magnet("decode", "c.npz", *decode), 7, "--force")
    assert magnet("decode", "c.npz", *decode, "--force").code == 0
    one_line_error(magnet("decode", "c.npz", "-o", "x.mp3", "--model", MUSIC), 2, ".wav")
    one_line_error(magnet("encode", "x.wav", "-o", "codes", "--model", MUSIC), 2, "codes.npz")
    one_line_error(magnet("encode", "x.wav", "-o", "", "--model", MUSIC), 2, ".npz")
    one_line_error(magnet("encode", "c.npy", "-o", "e.npz", "--model", MUSIC), 2, "c.npy is not an audio file")
    one_line_error(magnet("encode", "x.wav", "-o", "c.npz", "--model", MUSIC), 7, "--force")
    one_line_error(magnet("encode", "x.wav", "-o", "e.npz", "--device", "tpu"), 2, "cuda")
    assert not Path("e.npz").exists()


def music_codes(path: str) -> torch.Tensor:
    return torch.from_numpy(codes_of(path).astype(np.int64)).unsqueeze(0)


def decoded(codec: Codec, codes: torch.Tensor, *, loop: bool) -> NDArray[np.float32]:
    return np.asarray(codec.decode(codes, loop=loop)[0])
