"""The user's own defaults: a TOML file with a section for each command.

    [generate]
    model = "magnet-medium-10secs"
    lufs = -16

    [train]           # of all its commands that have the option
    batch-size = 4

    [train.decoder]   # of this one
    batch-size = 2

An option on the command line wins over an environment variable, which wins over the file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from magnet_cli.disk.small_files import MissingFileError, check, read_text
from magnet_cli.errors import UsageError, did_you_mean, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


MOST_BYTES = 1 << 16  # a file with every option has 4,000; tomllib needs seconds for much larger files
HINT = "Correct it, or set MAGNET_CONFIG to another file"


def config_path() -> Path:
    """`MAGNET_CONFIG`, else `config.toml` in the user's configuration folder, whose place depends on the platform."""
    from platformdirs import user_config_path

    named = os.environ.get("MAGNET_CONFIG")
    return Path(os.path.expanduser(named)) if named else user_config_path("magnet") / "config.toml"


@dataclass(frozen=True)
class Section:
    """What a section may set: options by the parameters behind them, and the sections of the commands below it.

    A section with others below it sets the options of all of those that have them.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    below: Mapping[str, Section] = field(default_factory=dict)


def read_defaults(path: Path, sections: Mapping[str, Section]) -> dict[str, dict[str, Any]]:
    """The defaults in the file, by command and parameter; empty if there is no file.

    Raises:
        UsageError: the file is not TOML, or names a section or option that does not exist.
    """
    try:
        content = tomllib.loads(read_text(path, most=MOST_BYTES))
        check(content)
    except MissingFileError:
        return {}
    except RecursionError as error:
        raise UsageError(f"cannot read {path}: it nests too deep", HINT) from error
    except ValueError as error:
        raise UsageError(f"cannot read {path}: {error}", HINT) from error
    known = ", ".join(f"[{name}]" for name in sections)
    defaults: dict[str, dict[str, Any]] = {}
    for name, values in content.items():
        if name not in sections or not isinstance(values, dict):
            raise UsageError(
                f"{path} has {shown(name)}, which is not a section", did_you_mean(name, sections, f"Use {known}")
            )
        defaults[name] = section_defaults(path, name, values, sections[name])
    return defaults


def section_defaults(path: Path, name: str, values: Mapping[str, Any], section: Section) -> dict[str, Any]:
    """The defaults in a section by parameter; those of the commands below it under their names."""
    found: dict[str, Any] = {}
    for below, one in section.below.items():
        common = {key: value for key, value in values.items() if key.replace("_", "-") in one.options}
        own = values.get(below, {})
        if not isinstance(own, dict):
            raise UsageError(f"{path} sets {below} for {name}, which is a command", f"Write [{name}.{below}]")
        found[below] = section_defaults(path, f"{name} {below}", {**common, **own}, one)
    every = {option for one in section.below.values() for option in one.options}
    for key, value in values.items():
        option = key.replace("_", "-")
        if key in section.below:
            continue
        if option not in section.options and option not in every:
            raise UsageError(
                f"{path} sets {key} for {name}, which has no such option",
                did_you_mean(option, [*section.options, *every, *section.below], "Correct its name"),
            )
        if not isinstance(value, (str, int, float, bool)) or (isinstance(value, str) and "\0" in value):
            raise UsageError(f"{path} sets {key} to {shown(value)}", "Give a string, a number, true or false")
        if option in section.options:
            found[section.options[option]] = value
    return found
