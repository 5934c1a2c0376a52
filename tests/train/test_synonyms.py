"""Synonyms: the file, and what a tokenizer reads in place of words that the captions lack."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from magnet_cli.errors import UsageError
from magnet_cli.model.known_words import words_of
from magnet_cli.model.text_encoder import TextEncoder
from magnet_cli.model.tokenizer_file import read_tokenizer
from magnet_cli.train.own_text_encoder import known_words, learn_tokenizer
from magnet_cli.train.synonyms import Synonyms, read_synonyms
from support.command import Magnet, one_line_error
from support.tiny_training import SMALL

UNTRAINED = (*SMALL, "--steps", "0")
CAPTIONS = ["sad piano, 100 bpm", "spooky film score", "drum and bass", "a summer house beat", "dark heavy metal"]
SYNONYMS = """
# moods
sad: Gloomy, in tears, tear(s)
spooky | eerie: haunted, haunted house, ghost-like

unheard of | dark: noir
drum and bass: d&b, drum & bass, break beat(s)
summer: sun tan
metal: heavy riffing, metal core
: please, the, make me
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "synonyms.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return learn_tokenizer(CAPTIONS, 400, 2, read_synonyms(write(tmp_path, SYNONYMS)))


def test_the_file_has_targets_and_phrases_in_lower_case(tmp_path: Path) -> None:
    first, second, *_, last = read_synonyms(write(tmp_path, SYNONYMS))
    assert first == Synonyms(("sad",), ("gloomy", "in tears", "tear", "tears"), 3)
    assert second.targets == ("spooky", "eerie")
    assert last == Synonyms((), ("please", "the", "make me"), 10)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("sad gloomy", "line 1"),
        ("\nsad:", "line 2"),
        ("sad: gloomy, wee!py", "'wee!py' is no word"),
        ("sa/d: gloomy", "'sa/d' is no word"),
        ("sad: gloomy\ndark: night, gloomy", "'gloomy' in line 1 and in line 2"),
    ],
)
def test_a_file_in_another_format_names_the_line(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        read_synonyms(write(tmp_path, text))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_synonyms(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("GLOOMY piano", "sad piano"),
        ("a piano in tears", "a piano sad"),
        ("gloomyness, tearful", "gloomyness, tearful"),  # whole words only
        ("a haunted house", "a spooky"),  # the longest phrase, although "house" is a known word
        ("haunted film", "spooky film"),
        ("ghost like, ghost-like", "spooky, spooky"),  # a hyphen is a space
        ("noir", "dark"),  # the first target has unknown words
        ("D&B, drum & bass, break-beats", "drum and bass, drum and bass, drum and bass"),
        ("in the heavy riffing", "in metal"),
        ("suntan", "suntan"),
        ("please make me a summer beat!", "a summer beat"),
        ("the end of the summer", "end of summer"),
    ],
)
def test_unknown_words_are_read_as_their_target(tokenizer: Tokenizer, prompt: str, read: str) -> None:
    assert tokenizer.normalizer.normalize_str(prompt).split() == read.split()
    assert tokenizer.encode(prompt).ids == tokenizer.encode(read).ids


def test_known_words_are_never_replaced(tmp_path: Path) -> None:
    path = write(tmp_path, "sad: dark\nspooky: film score, house beat, heavy metal, piano")
    tokenizer = learn_tokenizer(CAPTIONS, 400, 0, read_synonyms(path))
    for caption in CAPTIONS:
        assert tokenizer.normalizer.normalize_str(caption) == caption


def test_a_target_that_the_captions_lack_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, "kazoo: vuvuzela")
    assert learn_tokenizer(CAPTIONS, 400, 0, read_synonyms(path)).normalizer.normalize_str("vuvuzela") == "vuvuzela"


def test_a_replacement_may_complete_a_phrase(tokenizer: Tokenizer) -> None:
    normalize = tokenizer.normalizer.normalize_str
    path_to = normalize("heavy metal core")
    assert path_to == "heavy metal"
    assert normalize(path_to) == path_to


EXAMPLE = Path(__file__).parents[2] / "examples" / "bundled" / "synonyms.txt"


@pytest.fixture(scope="module")
def bundled() -> tuple[Tokenizer, list[str], set[str]]:
    """A tokenizer whose captions have all targets of the example, its phrases, and the words of its captions."""
    synonyms = read_synonyms(EXAMPLE)
    targets = [target for one in synonyms for target in one.targets]
    phrases = [phrase for one in synonyms for phrase in one.phrases]
    return learn_tokenizer(targets, 1200, 2, synonyms), phrases, known_words(targets)


def test_the_example_has_thousands_of_words_and_is_a_small_tokenizer_that_can_be_read(
    bundled: tuple[Tokenizer, list[str], set[str]], tmp_path: Path
) -> None:
    tokenizer, phrases, known = bundled
    assert len({word for phrase in phrases for word in words_of(phrase)} - known) > 3000
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert (tmp_path / "tokenizer.json").stat().st_size < 300_000
    assert read_tokenizer(tmp_path).encode("gloomy banjo").ids == tokenizer.encode("gloomy banjo").ids


def test_reading_twice_is_reading_once(bundled: tuple[Tokenizer, list[str], set[str]]) -> None:
    tokenizer, phrases, known = bundled
    normalize, rng = tokenizer.normalizer.normalize_str, random.Random(0)
    words = [*phrases, *sorted(known)]
    for prompt in [*phrases[::20], *(" ".join(rng.choices(words, k=5)) for _ in range(100))]:
        once = normalize(prompt)
        assert normalize(once) == once, prompt


def test_a_prompt_costs_milliseconds(bundled: tuple[Tokenizer, list[str], set[str]]) -> None:
    tokenizer, _, _ = bundled
    prompt = "a gloomy waltz for a haunted house, with a banjo and a music box, at 121 bpm, very slow and mysterious"
    times = []
    for _ in range(20):
        start = time.perf_counter()
        tokenizer.encode(prompt)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.02  # 1 to 2 ms on two cores of a Zen 4; the rest is for slow and busy machines


def test_synonyms_that_are_too_many_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "\n".join(f"word{number}: other{number}" for number in range(1000)))
    with pytest.raises(UsageError, match="more than 900"):
        learn_tokenizer([f"word{number}" for number in range(1000)], 400, 0, read_synonyms(path))


def test_a_training_gives_them_to_its_model(magnet: Magnet, data: Path, codec: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "hum: drone\nwhistle: pipe(s)")
    result = magnet(
        "train", "decoder", str(data), "-o", "m", "--codec", str(codec), "--synonyms", str(path), *UNTRAINED
    )
    assert result.code == 0, result.err
    encoder = TextEncoder.load(Path("m/text_encoder"), "cpu")
    assert encoder.tokenize("low DRONE") == encoder.tokenize("low hum")
    assert encoder.unknown_words("pipes and a kazoo, 77 bpm") == ["and", "a", "kazoo", "bpm"]


@pytest.mark.parametrize("options", [("--from", "bundled"), ("--codec", "c"), ("--codec", "c", "--text-encoder", "t5")])
def test_an_existing_text_encoder_takes_none(magnet: Magnet, tmp_path: Path, options: tuple[str, ...]) -> None:
    result = magnet("train", "decoder", "data", "-o", "m", *options, "--synonyms", str(write(tmp_path, SYNONYMS)))
    one_line_error(result, 2, "--synonyms", "--text-encoder own")
