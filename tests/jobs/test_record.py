"""How a clip was made: what is in the file and beside it, and what makes the clip again."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from magnet_cli.audio.files import encode_audio
from magnet_cli.audio.riff_info import TAGS, read_tags
from magnet_cli.cli.info import told
from magnet_cli.errors import MagnetError, UsageError
from magnet_cli.jobs.record import differences, read_record, recipe
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.sampling import LATER, SamplingConfig
from magnet_cli.options.strict_json import from_plain
from magnet_cli.pipeline.record import FORMAT, VERSION, as_sidecar, as_tags, codes_hash
from magnet_cli.terminal.streams import visible
from support.command import Magnet, one_line_error

# So little guidance and so much randomness that every seed gives other codes.
QUICK = ("--steps", "2,1,1,1", "--temperature", "10", "--guidance", "1", "--device", "cpu", "--seed", "7")
ODD = 'slow "jazz"\\ \n\t🎵 \u202eأغنية\u202c é'  # quotes, a newline, an emoji, right to left
KINDS = [("wav", "pcm16"), ("wav", "pcm24"), ("wav", "float32"), ("flac", "pcm16"), ("flac", "pcm24"), ("ogg", "pcm16")]
WAVEFORM = np.zeros((1, 320), np.float32)


def record(**changes: Any) -> dict[str, Any]:
    """A record as `production` makes it, as far as it is read."""
    whole = {
        "format": FORMAT,
        "version": VERSION,
        "prompt": "rain",
        "seed": 7,
        "sampling": {**SamplingConfig().__dict__, "steps": [20, 10, 10, 10]},
        "edit": {**EditConfig().__dict__, "regions": []},
        "input": None,
        "output": dict(OutputConfig().__dict__),
        "helpers": {},
        "model": {"given": "m", "hashes": {"a": "b"}},
        "codes": {"sha256": "0" * 64, "shape": [4, 15]},
        "versions": {"magnet": "0"},
    }
    return {name: value for name, value in {**whole, **changes}.items() if value is not ...}


def test_the_text_that_the_model_was_given_is_given_again() -> None:
    """Versions before gave a loop's prompt without the tempo, and records of theirs have no text."""
    edit = {**EditConfig(loop=True, bpm=120).__dict__, "regions": []}
    assert recipe(record(edit=edit)).job.text == "rain"
    assert recipe(record(edit=edit, prompt="rain, 90 bpm")).job.text == "rain, 90 bpm"
    now = recipe(record(edit=edit, text="rain, 120 bpm")).job
    assert (now.prompt, now.text) == ("rain", "rain, 120 bpm")
    assert replace(now, edit=EditConfig(loop=True, bpm=90)).text == "rain, 90 bpm"  # for another clip from this one
    with pytest.raises(UsageError, match="text in the clip's record"):
        recipe(record(text=7))


def test_the_records_of_earlier_versions_have_fewer_sampling_options() -> None:
    earlier = {name: value for name, value in record()["sampling"].items() if name not in LATER}
    assert recipe(record(sampling=earlier)).job.sampling == SamplingConfig()
    with pytest.raises(UsageError, match="top_p in the clip's record"):
        recipe(record(sampling={name: value for name, value in earlier.items() if name != "top_p"}))


# -- the commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("extension", "subtype"), KINDS)
def test_a_clip_is_made_again_from_the_file_alone_and_from_the_sidecar_alone(
    magnet: Magnet, tiny: str, tmp_path: Path, extension: str, subtype: str
) -> None:
    file = f"a.{extension}"
    arguments = ("generate", ODD, "-o", file, "--model", tiny, "--subtype", subtype, "--save-codes", *QUICK)
    assert magnet(*arguments).code == 0
    assert "Traceback" not in magnet("info", file).out
    (told,) = magnet("info", file, "--json").records
    assert told == json.loads(Path("a.json").read_text())
    with np.load("a.codes.npz") as archive:
        codes = archive["codes"]
    assert told["codes"] == {"sha256": hashlib.sha256(codes.astype("<i2").tobytes()).hexdigest(), "shape": [4, 15]}
    assert (told["prompt"], told["seed"], told["output"]["subtype"]) == (ODD, 7, subtype)
    samples = soundfile.read(file)[0]

    Path("a.json").rename("alone.json")
    for source, again in ((file, f"a-replay.{extension}"), ("alone.json", "alone-replay.wav")):
        replayed = magnet("replay", source)
        assert (replayed.code, replayed.out) == (0, f"{again}\n")
        assert "the codes are the same, bit for bit" in replayed.err
        assert magnet("info", again, "--json").records[0]["codes"] == told["codes"]
        if extension == "wav":
            assert np.array_equal(soundfile.read(again)[0], samples)
    assert magnet("replay", file, "--check", "--json").records == [{"path": None, "same": True, "differences": []}]


def test_a_replay_that_differs_says_why(magnet: Magnet, tiny: str, tmp_path: Path) -> None:
    assert magnet("generate", "x", "-o", "a.wav", "--model", tiny, *QUICK).code == 0
    path = tmp_path / "a.json"
    text = path.read_text()
    path.write_text(text.replace('"sha256": "', '"sha256": "0'))
    result = magnet("replay", "a.json", "--check", "-q")
    assert (result.code, result.out) == (9, "different\n")
    assert "nothing in the record differs" in result.err
    path.write_text(text.replace('"seed": 7', '"seed": 8').replace('"torch": "', '"torch": "0.'))
    result = magnet("replay", "a.json", "-o", "b.wav", "--json")
    assert result.code == 9
    assert result.records[0]["same"] is False
    assert result.records[0]["differences"][0].startswith("torch was 0.")
    assert Path("b.wav").exists()
    assert "torch was 0." in result.err.splitlines()[-1]


def test_without_metadata_the_file_says_nothing(magnet: Magnet, tiny: str, tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac", "a.ogg"):
        assert magnet("generate", "secret", "-o", name, "--model", tiny, "--no-metadata", *QUICK).code == 0
        assert b"secret" not in Path(name).read_bytes()
        one_line_error(magnet("info", name), 2, "does not say how it was made")
        one_line_error(magnet("replay", name), 2, "does not say how it was made")
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.json", "{}", "holds no record"),
        ("a.json", "[" * 100_000, "holds no record"),
        ("a.json", '{"format": "magnet-clip", "version": 1, "x": NaN}', "holds no record"),
        ("a.json", '{"format": "magnet-clip", "version": 1, "x": 1e999}', "holds no record"),
        ("a.json", '{"format": "magnet-clip", "version": 2}', "of version 2; this magnet reads 1"),
        ("a.json", '{"format": "magnet-clip", "version": [[]]}', "of version unknown"),
        ("a.json", "\udcff", "is no record"),
        ("a.wav", "", "does not say"),
        ("a.txt", "RIFF", "does not say"),
        ("a.flac", "fLaC", "does not say"),
    ],
)
def test_files_without_a_record(magnet: Magnet, tmp_path: Path, name: str, content: str, part: str) -> None:
    (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    one_line_error(magnet("info", name), 2, part)
    one_line_error(magnet("replay", name), 2, part)
    one_line_error(magnet("info", f"no-{name}"), 2, "there is no file")


# -- tags -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("extension", "subtype"), KINDS)
def test_the_longest_prompt_is_embedded_whole(tmp_path: Path, extension: str, subtype: Any) -> None:
    prompt = "\U0001f3b5" * 10_000  # twelve bytes each in the JSON that is embedded
    tags = as_tags(record(prompt=prompt), "licence")
    path = tmp_path / f"a.{extension}"
    path.write_bytes(encode_audio(path, WAVEFORM, 32_000, subtype, tags=tags))
    assert read_record(path) == record(prompt=prompt)
    assert soundfile.info(path).frames == 320
    assert read_tags(path)["title"] == prompt[:200]
    assert read_tags(path)["copyright"] == "licence"


def test_players_find_the_tags_of_a_wav() -> None:
    """The layout of RIFF: sizes that fit, chunks at even places, and libsndfile reads it."""
    plain = encode_audio(Path("a.wav"), WAVEFORM, 32_000, "pcm16")
    tagged = encode_audio(Path("a.wav"), WAVEFORM, 32_000, "pcm16", tags={"title": "odd", "comment": "even"})
    assert tagged.startswith(plain[:4])
    assert tagged[8 : len(plain)] == plain[8:]
    assert struct.unpack("<I", tagged[4:8]) == (len(tagged) - 8,)
    rest = tagged[len(plain) :]
    assert rest == b"LIST" + struct.pack("<I", len(rest) - 8) + b"INFO" + (
        b"INAM" + struct.pack("<I", 4) + b"odd\0" + b"ICMT" + struct.pack("<I", 5) + b"even\0\0"
    )
    assert len(tagged) % 2 == 0


@settings(max_examples=200, deadline=None)
@given(
    start=st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", b"fLaC", b"OggS"]),
    content=st.binary(max_size=80)
    | st.lists(st.sampled_from([b"LIST", b"INFO", b"ICMT", b"\x08\0\0\0", b"\xff" * 4, b"\0" * 4])).map(b"".join),
)
def test_any_file_has_tags_or_none(tmp_path_factory: pytest.TempPathFactory, start: bytes, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.wav"
    path.write_bytes(start + content)
    assert read_tags(path).keys() <= TAGS.keys()


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, 2000), place=st.integers(0, 2000), byte=st.integers(0, 255), kind=st.sampled_from(KINDS))
def test_a_damaged_file_gives_its_record_or_a_usage_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, place: int, byte: int, kind: tuple[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind[0]}"
    content = bytearray(encode_audio(path, WAVEFORM, 32_000, kind[1], tags=as_tags(record(), "licence")))
    content[place % len(content)] = byte
    path.write_bytes(content[: len(content) - cut])
    try:
        found = read_record(path)
    except UsageError:
        return
    assert found["format"] == FORMAT


# -- records ----------------------------------------------------------------------------------------------------------


def test_a_record_says_what_makes_the_clip_again() -> None:
    steps = SamplingConfig(steps=(4, 2, 2, 2), top_p=None, top_k=9)
    sampling = {**steps.__dict__, "steps": [4, 2, 2, 2]}
    found = recipe(json.loads(as_sidecar(record(sampling=sampling))))
    assert (found.job.prompt, found.job.seed, found.job.sampling) == ("rain", 7, steps)
    assert (found.output, found.model, found.helpers, found.codes_sha256) == (OutputConfig(), "m", {}, "0" * 64)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"prompt": ...}, "prompt in the clip's record"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "\ud800"}, "not valid UTF-8"),
        ({"seed": -1}, "seed must be"),
        ({"seed": True}, "seed in"),
        ({"seed": 1.0}, "seed in"),
        ({"model": "m"}, "model in"),
        ({"helpers": {"rescorer": {"given": 1}}}, "helpers.rescorer in"),
        ({"edit": {**record()["edit"], "loop": 1}}, "loop in"),
        ({"edit": {**record()["edit"], "continue_from": "a.wav"}}, "input in"),
        ({"codes": {}}, "codes in"),
        ({"sampling": ...}, "all of it in"),
        ({"sampling": {**record()["sampling"], "temperature": 10**400}}, "temperature in"),
        ({"sampling": {**record()["sampling"], "temperature": -1}}, "temperature must be"),
        ({"sampling": {**record()["sampling"], "steps": [1.5]}}, "steps in"),
        ({"sampling": {**record()["sampling"], "spans": "x"}}, "unknown spans"),
        ({"sampling": {**record()["sampling"], "more": 1}}, "more in"),
        ({"output": {**record()["output"], "lufs": 5}}, "lufs must be"),
        ({"output": {**record()["output"], "duration": True}}, "duration in"),
    ],
)
def test_what_is_wrong_in_a_record_is_named(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        recipe(record(**changes))


def test_differences_are_in_words() -> None:
    then = {"device": "cpu", "batch": 1, "versions": {"torch": "1"}, "model": {"hashes": {"a": "b"}}}
    now = {"device": "cuda", "batch": 4, "versions": {"torch": "2"}, "model": {"hashes": {"a": "c"}}}
    assert differences(then, then) == differences(then, {**then, "compiled": False}) == []
    assert differences(then, {**then, "compiled": True}) == ["its decoder was not compiled, now it is"]
    assert differences({**then, "compiled": True}, then) == ["its decoder was compiled, now it is not"]
    assert differences(then, now) == [
        "the device was cpu, now it is cuda",
        "it was decoded in a batch of 1, now of 4",
        "torch was 1, now it is 2",
        "the model's weights are others",
    ]


def test_codes_are_hashed_as_they_are_stored() -> None:
    codes = np.arange(8, dtype=np.int64).reshape(2, 4)
    wanted = hashlib.sha256(bytes(b for code in range(8) for b in (code, 0))).hexdigest()
    assert codes_hash(codes) == codes_hash(codes.astype(">i2")) == codes_hash(codes.T.copy().T) == wanted


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=5), parts, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(changes=st.dictionaries(st.sampled_from([*sorted(record()), "lufs", "timings", "seconds"]), JSON))
def test_any_record_is_told_and_is_a_recipe_or_a_usage_error(changes: dict[str, Any]) -> None:
    odd = {**record(), **changes}
    for name, line in told(odd):
        assert visible(name) == name
        assert visible(line) == line
    differences(odd, record())
    differences(record(), odd)
    try:
        recipe(odd)
    except MagnetError as error:
        assert str(error).count("\n") == 0  # noqa: PT017
    with pytest.raises(ValueError, match=r".*"):
        from_plain(SamplingConfig, {**record()["sampling"], "spans": []})
