"""The user's own defaults: a TOML file with a section for each command.

    [generate]
    model = "magnet-medium-10secs"
    lufs = -16

An option on the command line wins over an environment variable, which wins over the file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magnet_cli.disk.small_files import MissingFileError, check, read_text
from magnet_cli.errors import UsageError, shown

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


def read_defaults(path: Path, options: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """The defaults in the file, by command and parameter; empty if there is no file.

    `options` maps, for each command, the options it has (`true-peak`) to its parameters (`true_peak`).

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
    defaults: dict[str, dict[str, Any]] = {}
    for command, values in content.items():
        if command not in options or not isinstance(values, dict):
            known = ", ".join(f"[{name}]" for name in options)
            raise UsageError(f"{path} has {shown(command)}, which is not a section", f"Use {known}")
        for name, value in values.items():
            option = name.replace("_", "-")
            if option not in options[command]:
                raise UsageError(f"{path} sets {name} for {command}, which has no such option", "Correct its name")
            if not isinstance(value, (str, int, float, bool)) or (isinstance(value, str) and "\0" in value):
                raise UsageError(f"{path} sets {name} to {shown(value)}", "Give a string, a number, true or false")
            defaults.setdefault(command, {})[options[command][option]] = value
    return defaults
