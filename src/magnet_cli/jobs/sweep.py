"""Sweeps: the same prompts and seeds again under every combination of some options' values."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from magnet_cli.errors import UsageError, near, shown
from magnet_cli.jobs.prompt_file import COLUMNS, EDITS, value_of, wanted
from magnet_cli.options.sampling_overrides import Overrides

MOST_COMBINATIONS = 1_000
# Not swept: what stands for a clip, which variations are for, and lists of files and places.
_NOT_SWEPT = ("prompt", "seed", "variations", "output", "continue_from", "inpaint", "regions")
SWEEPABLE = tuple(column for column, name in COLUMNS.items() if name not in _NOT_SWEPT)


@dataclass(frozen=True)
class SweptOption:
    """An option and the values that a sweep gives it: as typed, and as the field of the options class holds them."""

    column: str
    field: str
    values: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Combination:
    """One value for each swept option. `words` are the names and values as typed, in the order of the options."""

    words: tuple[tuple[str, str], ...] = ()
    fields: tuple[tuple[str, Any], ...] = ()

    def over(self, overrides: Overrides) -> Overrides:
        """Sampling options with these values in place of the given ones."""
        return replace(overrides, **{name: value for name, value in self.fields if name not in EDITS})

    def edits(self) -> Mapping[str, Any]:
        """The values among these that belong to EditConfig, by field."""
        return {name: value for name, value in self.fields if name in EDITS}


def combinations(sweeps: Sequence[str]) -> list[Combination]:
    """`guidance=1,3` and `steps=20,10,10,10/60,10,10,10` -> four combinations; the last option changes fastest.

    Without a sweep there is one combination, which changes nothing. Raises UsageError for what cannot be swept.
    """
    options = [parse_sweep(text) for text in sweeps]
    for place, option in enumerate(options):
        if option.field in [other.field for other in options[:place]]:
            raise UsageError(f"--sweep names {option.column} twice", "Give all of its values in one --sweep")
    found = [
        Combination(
            tuple((option.column, text) for option, (text, _) in zip(options, chosen, strict=True)),
            tuple((option.field, value) for option, (_, value) in zip(options, chosen, strict=True)),
        )
        for chosen in itertools.islice(itertools.product(*(one.values for one in options)), MOST_COMBINATIONS + 1)
    ]
    if len(found) > MOST_COMBINATIONS:
        raise UsageError(f"the sweep has more than {MOST_COMBINATIONS:,} combinations", "Give fewer values")
    return found


def parse_sweep(text: str) -> SweptOption:
    """`guidance=1,3,6`: an option and its values. A slash separates values that have commas in them, as --steps does.

    Raises UsageError for an unknown option, a value that the option cannot have, or one given twice.
    """
    name, equals, listed = text.partition("=")
    column = name.strip().removeprefix("--").lower().replace("_", "-")
    if not equals:
        raise UsageError(f"--sweep {text!r} has no values", "Give an option and its values, e.g. --sweep guidance=1,3")
    if column not in SWEEPABLE:
        meant = near(column, SWEEPABLE, most=1)
        hint = f"Did you mean {meant[0]}?" if meant else f"Give one of {', '.join(SWEEPABLE)}"
        raise UsageError(f"{name.strip()!r} is no option that can be swept", hint)
    field = COLUMNS[column]
    separator = "/" if "/" in listed or field == "steps" else ","
    texts = [one.strip() for one in listed.split(separator)]
    values = []
    for one in texts:
        try:
            if not one:
                raise ValueError
            values.append((one, value_of(field, one)))
        except ValueError:
            raise UsageError(
                f"--sweep {column}: {shown(one)} is not {wanted(field)}",
                _HINTS[separator],
            ) from None
    parsed = [value for _, value in values]
    if len({str(value) for value in parsed}) < len(parsed):
        raise UsageError(f"--sweep {column} names a value twice", "Give each value once")
    return SweptOption(column, field, tuple(values))


_HINTS = {
    ",": "Separate the values by commas, e.g. --sweep guidance=1,3,6",
    "/": "Separate the values by slashes, e.g. --sweep steps=20,10,10,10/60,10,10,10",
}
