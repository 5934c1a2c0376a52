"""From plain JSON values to a dataclass, strictly: every field there, of its type, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import fields
from typing import Any, TypeVar

T = TypeVar("T")

NONE = type(None)
LARGEST = 2**53  # JSON has whole numbers of any size where floats are wanted; beyond this none makes sense
# What JSON gives for each type that a field may have.
JSON_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "tuple[int, ...]": (list,),
    "tuple[str, ...]": (list,),
    "tuple[tuple[float, float], ...]": (list,),
    "dict[str, Any]": (dict,),
    "str | None": (str, NONE),
    "int | None": (int, NONE),
    "float | None": (int, float, NONE),
    "Spans": (str,),
    "SpanScore": (str,),
    "GuidanceSchedule": (str,),
    "SpanOrder": (str,),
    "Normalize": (str,),
    "Subtype": (str,),
    "Subtype | None": (str, NONE),
}


def from_plain(kind: Callable[..., T], values: Any, *, later: Collection[str] = ()) -> T:
    """A dataclass from a JSON object; ValueError names the first field that is missing, unknown or of another type."""
    if not isinstance(values, dict):
        raise ValueError("all of it")
    wanted = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type]
    for name, annotation in wanted.items():
        if name in later and name not in values:
            continue
        value = values.get(name, ...)
        if not isinstance(value, JSON_TYPES[annotation]) or (isinstance(value, bool) and annotation != "bool"):
            raise ValueError(name)
        if isinstance(value, int) and annotation.startswith("float") and abs(value) > LARGEST:
            raise ValueError(name)
        if isinstance(value, list) and not _of_type(value, annotation):
            raise ValueError(name)
    if unknown := values.keys() - wanted.keys():
        raise ValueError(min(map(str, unknown)))
    return kind(**{name: _tuples(value) for name, value in values.items()})


def _of_type(values: list[Any], annotation: str) -> bool:
    """Whether the parts of a list are what a tuple of this type holds."""
    part = annotation.removeprefix("tuple[").removesuffix("]").removesuffix(", ...")
    if part == "tuple[float, float]":
        return all(isinstance(value, list) and len(value) == 2 and _of_type(value, "tuple[float]") for value in values)
    return all(isinstance(value, JSON_TYPES[part]) and not isinstance(value, bool) for value in values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value
