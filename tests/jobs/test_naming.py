"""Where results go."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magnet_cli.errors import UsageError
from magnet_cli.jobs.naming import LONGEST_SLUG, ClipName, plan_folder, plan_paths, slug

EXTENSIONS = (".wav", ".flac", ".ogg")


def names(output: str | None, *items: tuple[str, int]) -> list[str]:
    _, paths = plan_paths(
        output, [ClipName(prompt, seed) for prompt, seed in items], model="magnet-small", extensions=EXTENSIONS
    )
    return [path.as_posix() for path in paths]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Disco beat!", "disco-beat"),
        ("a/b\\c:d*e?f", "a-b-c-d-e-f"),
        ("../../etc/passwd", "etc-passwd"),
        ("café au lait", "cafe-au-lait"),
        ("🎵🎶", "clip"),
        ("مرحبا", "clip"),
        ("line\nbreak\ttab", "line-break-tab"),
        ("CON", "con-clip"),
        ("", "clip"),
    ],
)
def test_slugs_are_safe(text: str, wanted: str) -> None:
    assert slug(text) == wanted


def test_long_slugs_end_at_a_word() -> None:
    found = slug("word " * 2000)
    assert len(found) <= LONGEST_SLUG
    assert set(found.split("-")) == {"word"}


@given(st.text())
def test_any_text_makes_a_safe_slug(text: str) -> None:
    found = slug(text)
    assert 0 < len(found) <= LONGEST_SLUG + len("-clip")
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not found.startswith("-")


def test_one_clip_goes_to_the_file_named(tmp_path: Path) -> None:
    assert names(f"{tmp_path}/out.flac", ("a", 1)) == [f"{tmp_path}/out.flac"]


def test_a_folder_gets_a_name_for_each_clip(tmp_path: Path) -> None:
    for folder in (str(tmp_path), f"{tmp_path}/new/", f"{tmp_path}/new"):
        found = names(folder, ("disco beat", 7), ("disco beat", 8))
        assert [Path(name).name for name in found] == ["01-disco-beat-7.wav", "02-disco-beat-8.wav"]


def test_without_an_output_a_clip_is_named_after_prompt_and_seed() -> None:
    assert names(None, ("disco beat", 7)) == ["disco-beat-7.wav"]


def test_templates() -> None:
    found = names("x/{model}/{index}_{slug}_{seed}.ogg", ("Disco", 7), ("Rain", 9))
    assert found == ["x/magnet-small/01_disco_7.ogg", "x/magnet-small/02_rain_9.ogg"]


def test_items_never_collide_even_when_case_is_ignored() -> None:
    found = names("{slug}.wav", ("Disco", 1), ("disco", 2), ("disco 2", 3), ("DISCO", 4))
    assert found == ["disco.wav", "disco-3.wav", "disco-2.wav", "disco-4.wav"]


@given(st.lists(st.tuples(st.sampled_from(["a", "A", "a 2", "a-2", "b"]), st.integers(0, 2)), min_size=1, max_size=12))
def test_no_two_paths_are_the_same(items: list[tuple[str, int]]) -> None:
    found = [name.casefold() for name in names("{slug}.wav", *items)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("output", "count", "part"),
    [
        ("out.wav", 2, "out-{index}.wav"),  # several clips, one file: the remedy is spelled out
        ("out.mp3", 1, ".wav, .flac, .ogg"),
        ("{slug}.mp3", 1, ".wav, .flac, .ogg"),
        ("{slug}", 1, "no extension"),
        ("{colour}.wav", 1, "{colour}"),
        ("{slug.upper}.wav", 1, "{slug.upper}"),
        ("{slug.wav", 1, "template"),
        ("{seed:05d}.wav", 1, "format"),
        ("{slug!r}.wav", 1, "format"),
        ("-", 1, "standard output"),
        ("", 1, "empty"),
        ("x" * 250 + "{slug}.wav", 1, "too long"),
    ],
)
def test_bad_outputs_are_refused_with_a_remedy(output: str, count: int, part: str) -> None:
    with pytest.raises(UsageError) as error:
        names(output, *[("a", k) for k in range(count)])
    assert part in str(error.value)


@pytest.mark.parametrize(
    ("output", "folder", "path"),
    [
        ("x}}y/{slug}.wav", "x}y", "x}y/rain.wav"),
        ("{{x}}/{index}/{slug}.wav", "{x}", "{x}/01/rain.wav"),
        ("{{x}}-{slug}.wav", ".", "{x}-rain.wav"),
        ("../a/{slug}.wav", "../a", "../a/rain.wav"),
        ("a/{{b}}.wav", "a", "a/{b}.wav"),
        ("{slug}/{index}.wav", ".", "rain/01.wav"),
    ],
)
def test_the_folder_of_a_batch_is_where_its_clips_are(output: str, folder: str, path: str) -> None:
    found, (only,) = plan_folder(output, [ClipName("rain", 7)], model="m", extensions=EXTENSIONS)
    assert (found, only) == (Path(folder), Path(path))
    assert only.is_relative_to(found)


@pytest.mark.parametrize("output", ["{slug}/../../x.wav", "a/{slug}/../{index}.wav", "{slug}/...wav/../x.wav"])
def test_a_template_that_leads_out_of_its_folder_is_refused(output: str) -> None:
    with pytest.raises(UsageError, match="leads out of its folder"):
        plan_folder(output, [ClipName("rain", 7)], model="m", extensions=EXTENSIONS)


def swept_names(output: str | None, *values: tuple[tuple[str, str], ...]) -> list[str]:
    _, paths = plan_paths(output, [ClipName("rain", 7, swept=one) for one in values], model="m", extensions=EXTENSIONS)
    return [path.as_posix() for path in paths]


def test_clips_of_a_sweep_are_named_after_its_values() -> None:
    found = swept_names(
        None, (("guidance", "1"), ("steps", "20,10,10,10")), (("guidance", "2.5"), ("steps", "20,10,10,10"))
    )
    assert found == ["01-rain-7-guidance-1-steps-20-10-10-10.wav", "02-rain-7-guidance-2.5-steps-20-10-10-10.wav"]


def test_a_template_may_have_the_swept_options() -> None:
    assert swept_names("x/{top-p}-{slug}.flac", (("top-p", ".5"),), (("top-p", "-1"),)) == [
        "x/0.5-rain.flac",
        "x/-1-rain.flac",
    ]
    assert swept_names("x/{negative}.wav", (("negative", "CON"),), (("negative", "../x y"),)) == [
        "x/con-clip.wav",
        "x/x-y.wav",
    ]


def test_a_template_has_no_option_that_is_not_swept() -> None:
    with pytest.raises(UsageError, match=r"unknown field \{steps\}"):
        swept_names("{steps}.wav", (("guidance", "1"),))
