"""The training configuration inside a checkpoint: YAML whose values may refer to others, as in `${encodec.causal}`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from magnet_cli.disk.small_files import DEEPEST, UnreadableFileError, check
from magnet_cli.errors import ModelError, one_line, shown
from magnet_cli.model.config import ShapeError

DEEPEST_REFERENCE = 10
# A released configuration has 6,000 characters and 700 keys and values. PyYAML needs a second for 25,000 of them.
MOST_CHARACTERS = 1 << 16
MOST_EVENTS = 10_000
_REQUIRED = object()


class Settings:
    """Values by dotted key, each checked when it is read; ModelError for what is missing or of the wrong kind.

    References are resolved then, so a reference that is never read (`${oc.env:USER}`) does no harm.
    """

    def __init__(self, tree: Mapping[str, Any], path: Path) -> None:
        self.tree = tree
        self.path = path

    @classmethod
    def parse(cls, text: object, path: Path) -> Settings:
        """Read the configuration of the checkpoint at `path`; ModelError if it is not a YAML mapping."""
        if isinstance(text, str) and len(text) > MOST_CHARACTERS:
            raise ModelError(f"the configuration (xp.cfg) in {path} has {len(text):,} characters", "Fetch it again")
        try:
            tree = _parse(text) if isinstance(text, str) else None
        except Exception as error:  # PyYAML fails in many ways at `!!bool x`, `!!int ''` and the like
            raise ModelError(
                f"the configuration (xp.cfg) in {path} is not valid: {one_line(error, 100)}",
                "Fetch it again",
            ) from error
        if not isinstance(tree, Mapping):
            raise ModelError(f"{path} has no configuration (xp.cfg) that is a mapping", "Fetch it again")
        return cls(tree, path)

    def value(self, key: str, default: Any = _REQUIRED, *, depth: int = 0) -> Any:
        """The value at a key, with references resolved."""
        node: Any = self.tree
        for part in key.split("."):
            if not isinstance(node, Mapping) or part not in node:
                if default is _REQUIRED:
                    raise ModelError(f"the configuration in {self.path} lacks {key}", "Use a MAGNeT checkpoint")
                return default
            node = node[part]
        reference = re.fullmatch(r"\$\{([\w.]+)\}", node) if isinstance(node, str) else None
        if reference is None:
            return node
        if depth == DEEPEST_REFERENCE:
            raise ModelError(f"{key} in the configuration in {self.path} refers to itself", "Fetch it again")
        return self.value(reference[1], depth=depth + 1)

    def number(self, key: str, default: Any = _REQUIRED) -> float:
        """The value at a key as a positive, finite float."""
        value = self.value(key, default)
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not 0 < number < math.inf:
            raise self._wrong(key, value, "a positive number")
        return number

    def integer(self, key: str, *, least: int = 1) -> int:
        """The value at a key as a whole number of at least `least`."""
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self._wrong(key, value, f"a whole number of at least {least}")
        return value

    def text(self, key: str) -> str:
        """The value at a key as a string."""
        value = self.value(key)
        if not isinstance(value, str) or not value:
            raise self._wrong(key, value, "a text")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """The value at a key as a dictionary."""
        value = self.value(key)
        if not isinstance(value, Mapping):
            raise self._wrong(key, value, "a mapping")
        return dict(value)

    def require(self, supported: Mapping[str, Any]) -> None:
        """Raise ModelError if a value differs from what is supported. An absent value has the reference's default."""
        for key, wanted in supported.items():
            found = self.value(key, wanted)
            if found != wanted:
                raise ModelError(
                    f"{self.path} has {key} = {shown(found)}, which is not supported (only {wanted!r} is)",
                    "Choose one of the MAGNeT checkpoints",
                )

    @contextmanager
    def naming_itself(self) -> Iterator[None]:
        """Within this block, an impossible shape is a ModelError that names the file."""
        try:
            yield
        except ShapeError as error:
            raise ModelError(f"{error}, in the configuration in {self.path}", "Fetch it again") from error

    def _wrong(self, key: str, value: Any, wanted: str) -> ModelError:
        return ModelError(
            f"{key} in the configuration in {self.path} is {shown(value)}, not {wanted}", "Fetch it again"
        )


def _parse(text: str) -> Any:
    """The values in a YAML text without aliases, with which 500 bytes can stand for gigabytes."""
    depth = 0
    for number, event in enumerate(yaml.parse(text)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise UnreadableFileError("it has aliases")
        if number > MOST_EVENTS or depth > DEEPEST:
            raise UnreadableFileError(f"it has more than {MOST_EVENTS:,} values, or nests more than {DEEPEST} deep")
    values = yaml.safe_load(text)
    check(values)
    return values
