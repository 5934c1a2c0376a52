"""The user's own defaults."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from magnet_cli.errors import UsageError
from magnet_cli.terminal.config_file import Section, config_path, read_defaults

OPTIONS = {
    "generate": Section({"true-peak": "true_peak", "model": "model", "json": "as_json"}),
    "doctor": Section(),
    "models": Section(
        below={
            "download": Section({"model-dir": "model_dir", "all": "everything"}),
            "list": Section({"model-dir": "model_dir", "json": "as_json"}),
        }
    ),
}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return path


def test_no_file_means_no_defaults(tmp_path: Path) -> None:
    assert read_defaults(tmp_path / "nothing.toml", OPTIONS) == {}


def test_options_go_by_their_names_on_the_command_line(tmp_path: Path) -> None:
    path = write(tmp_path, '[generate]\ntrue-peak = -2\ntrue_peak = -2\nmodel = "x"\njson = true\n')
    assert read_defaults(path, OPTIONS) == {"generate": {"true_peak": -2, "model": "x", "as_json": True}}


def test_a_section_sets_the_options_of_the_commands_below_it(tmp_path: Path) -> None:
    path = write(tmp_path, '[models]\nmodel-dir = "a"\njson = true\n[models.download]\nmodel-dir = "b"\n')
    assert read_defaults(path, OPTIONS) == {
        "models": {"download": {"model_dir": "b"}, "list": {"model_dir": "a", "as_json": True}}
    }


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[models]\ncolour = 1", "sets colour for models"),
        ("[models]\nmodel-dri = 1", "Did you mean model-dir?"),
        ("[models.lits]\njson = true", "Did you mean list?"),
        ("[models.list]\nall = true", "sets all for models list"),
        ("[models]\nlist = 3", "Write [models.list]"),
        ("[modles]\njson = true", "Did you mean models?"),
        ("[gen", "cannot read"),
        ("[nope]\nx = 1", "[generate]"),
        ("generate = 3", "not a section"),
        ("[generate]\ncolour = 1", "colour"),
        ("[generate]\nmodel = [1]", "[1]"),
        ("\x00", "cannot read"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(UsageError) as error:
        read_defaults(write(tmp_path, text), OPTIONS)
    assert part in str(error.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[generate]\nmodel = " + "[" * 10_000, "nests too deep"),
        ("[generate]\nmodel = " + "{a = " * 10_000, "nests too deep"),
        ("x = " + "[" * 40 + "]" * 40, "nests more than"),
        ('[generate]\nmodel = "a\\u0000b"', "sets model to 'a\\x00b'"),
        ("[generate]\ntrue-peak = nan", "the number nan"),
        ("[generate]\ntrue-peak = inf", "the number inf"),
        ("[generate]\ntrue-peak = " + "9" * 4000, "64 bits"),
        ("[generate]\ntrue-peak = " + "9" * 5000, "cannot read"),
        ("[generate]\nmodel = 1979-05-27", "datetime.date(1979, 5, 27)"),
        ("# " + "x" * 100_000, "bytes"),
    ],
)
def test_what_no_settings_need_is_refused(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(UsageError) as error:
        read_defaults(write(tmp_path, text), OPTIONS)
    assert part in str(error.value)


def test_a_pipe_is_no_file_of_settings(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no pipes in the file system")
    os.mkfifo(tmp_path / "config.toml")
    with pytest.raises(UsageError, match="no regular file"):
        read_defaults(tmp_path / "config.toml", OPTIONS)


def test_the_file_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGNET_CONFIG", "~/my.toml")
    assert config_path() == Path("~/my.toml").expanduser()
    monkeypatch.delenv("MAGNET_CONFIG")
    assert config_path().name == "config.toml"
