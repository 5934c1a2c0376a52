"""`magnet bench`, and the model inside the package that stands in where the Hub cannot be reached."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from magnet_cli.bench import impact
from magnet_cli.bench.speed import shapes
from magnet_cli.hub import store
from magnet_cli.terminal.console import Console
from support.command import Magnet, one_line_error
from support.golden import GOLDEN

MUSIC = str(GOLDEN / "music")
QUICK = ("--steps", "2,1,1,1", "--device", "cpu")
FLOAT32 = ("--dtype", "float32")


@pytest.mark.parametrize(
    "options", [(*FLOAT32, "--compile"), (*FLOAT32, "--plain"), ("--dtype", "int8", "--batch", "2")]
)
def test_bench_tells_every_stage(magnet: Magnet, options: tuple[str, ...]) -> None:
    result = magnet("bench", "--model", MUSIC, "--runs", "1", "--json", *QUICK, *options)
    (report,) = result.records
    assert ("--compile changes nothing on cpu" in result.err) == ("--compile" in options)
    assert report["dtype"] == ("int8" if "int8" in options else "float32")
    stages = ["text", *(f"codebook {k}" for k in (1, 2, 3, 4)), "codec", "loudness", "write"]
    assert list(report["stages"]) == stages
    assert report["latency"] == pytest.approx(sum(report["stages"].values()))
    assert report["network"] == ("MaskedTransformer" if "--plain" in options else "FastTransformer")
    assert report["batch"] == (2 if "--batch" in options else 1)
    assert report["flops"] > 0
    assert report["peak"] > report["flops_per_second"] > 0


def test_bench_prints_a_table(magnet: Magnet) -> None:
    result = magnet("bench", "--model", MUSIC, "--runs", "1", *QUICK, *FLOAT32)
    assert result.code == 0
    names = [line[:12].strip() for line in result.out.splitlines()]
    assert names[:3] == ["model", "device", "clips"]
    assert names[-6:] == ["latency", "cold", "throughput", "arithmetic", "peak memory", "logits"]
    assert re.search(
        r"^logits +\S+ of their RMS from float32, the same code first in 100% of frames$", result.out, re.M
    )


def test_the_logits_are_left_out_if_asked(magnet: Magnet) -> None:
    result = magnet("bench", "--model", MUSIC, "--runs", "1", "--no-precision", *QUICK, *FLOAT32)
    assert result.code == 0, result.err
    assert "peak memory" in result.out
    assert "logits" not in result.out


@pytest.fixture
def tiny_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The released sizes, but tiny, and small batches."""
    small = replace(shapes()["small-10secs"], width=32, heads=2, layers=1, feed_forward=32, codes=16, clip_seconds=0.3)
    monkeypatch.setattr(impact, "shapes", lambda: {"small-10secs": small})
    monkeypatch.setattr(impact, "TEXT_WIDTH", 64)
    monkeypatch.setitem(impact.PUBLISHED, "small", {1: 1.6, 3: 6.9})
    monkeypatch.setattr(impact, "SOUND_CODEC", replace(impact.SOUND_CODEC, n_filters=4, dimension=16, codes=16))


@pytest.mark.usefixtures("tiny_sound")
def test_published_seconds_are_shown_beside(magnet: Magnet) -> None:
    asked = ("bench", "--impact", "small", "--runs", "1", *QUICK, *FLOAT32)
    table = magnet(*asked)
    assert table.code == 0, table.err
    assert re.findall(r"^clips +(\d+) of", table.out, re.M) == ["1", "3"]
    assert re.findall(r"^published +(\S+) s on a V100 \(IMPACT\)", table.out, re.M) == ["1.6", "6.9"]
    assert table.out.count("logits") == 1
    printed = magnet(*asked, "--json")
    assert printed.code == 0, printed.err
    reports = printed.records
    assert [(one["batch"], one["published"]["seconds"]) for one in reports] == [(1, 1.6), (3, 6.9)]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--impact", "large"), "unknown size 'large'"),
        (("--impact", "small", "-b", "2"), "--impact sets the model and the batches"),
        (("--random-weights", "huge"), "unknown shape 'huge'"),
        (("--model", MUSIC, "--runs", "0"), "0 runs"),
        (("--model", MUSIC, "--steps", "1,1"), "4 codebooks"),
    ],
)
def test_bench_refuses_what_cannot_be_measured(magnet: Magnet, options: tuple[str, ...], part: str) -> None:
    one_line_error(magnet("bench", "--device", "cpu", *options), 2, part)


@pytest.fixture
def bundled(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model in the place of the one inside the package."""
    monkeypatch.setattr(store, "BUNDLED_FOLDER", Path(tiny))


@pytest.mark.usefixtures("bundled")
def test_without_the_hub_the_model_inside_the_package_stands_in_if_asked(magnet: Magnet) -> None:
    result = magnet("generate", "x", "-o", "{model}.wav", "--json", "--offline", "--fallback", *QUICK)
    assert result.code == 0, result.err
    assert "Falling back to the small model bundled" in result.err
    (record,) = result.records
    assert record["path"] == "bundled.wav"
    assert record["model"]["given"] == "bundled"
    assert "offline" in record["model"]["fallback"]
    assert magnet("replay", "bundled.wav", "--check").out == "same\n"
    assert "bundled" in magnet("models", "list").out


@pytest.mark.usefixtures("bundled")
def test_without_a_terminal_nothing_stands_in(magnet: Magnet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    generate = ("generate", "x", "-o", "a.wav", "--offline", *QUICK)
    parts = ("magnet models download magnet-small-10secs", "--model bundled")
    one_line_error(magnet(*generate), 4, *parts)
    assert not Path("a.wav").exists()
    monkeypatch.setattr(Console, "is_watched", True)
    one_line_error(magnet(*generate, "--no-fallback"), 4, *parts)
    (tmp_path / "config.toml").write_text("[generate]\nfallback = false\n")
    monkeypatch.setenv("MAGNET_CONFIG", str(tmp_path / "config.toml"))
    one_line_error(magnet(*generate), 4, *parts)
    assert magnet(*generate, "--fallback").code == 0
    monkeypatch.delenv("MAGNET_CONFIG")
    assert magnet(*generate, "--force").code == 0


@pytest.mark.usefixtures("bundled")
def test_a_model_that_is_asked_for_is_never_replaced(magnet: Magnet) -> None:
    for arguments in (("generate", "x", "-o", "a.wav"), ("batch", "p.txt", "-o", "out/")):
        Path("p.txt").write_text("x\n")
        named = ("--model", "magnet-small-10secs") if arguments[0] == "generate" else ()
        one_line_error(magnet(*arguments, *named, "--offline", *QUICK), 4, "magnet models download")
    one_line_error(magnet("models", "remove", "bundled", "--yes"), 2, "part of this package")


def test_without_one_the_hub_s_error_stays(magnet: Magnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BUNDLED_FOLDER", tmp_path / "none")
    one_line_error(magnet("generate", "x", "-o", "a.wav", "--offline", *QUICK), 4, "magnet models download")
