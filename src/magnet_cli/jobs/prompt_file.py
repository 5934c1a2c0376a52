"""Prompt files: text, CSV or JSON lines -> rows, with every problem of the file told at once."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from magnet_cli.errors import MagnetError, UsageError, shown
from magnet_cli.options.declared import declared
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.sampling_overrides import Overrides

Format: TypeAlias = Literal["txt", "csv", "jsonl"]
SHOWN = 100  # problems listed; more would push the first ones off the screen
SHOWN_COLUMNS = 20  # of those that are not known, in one row
LONGEST_FIELD = 1 << 20

# What the cells of a row hold, by field: those of the row itself, and the options of these classes.
KINDS: dict[str, str] = {"prompt": "str", "seed": "int", "variations": "int", "output": "str"} | {
    one.name: str(one.type).removesuffix(" | None")
    for kind in (Overrides, EditConfig)
    for one in fields(kind)
    if one.name in declared(kind)
}
EDITS = set(declared(EditConfig))
FLAGS = {name: one["flag"] for kind in (Overrides, EditConfig) for name, one in declared(kind).items()}
# The columns and their fields: a column is named as its option is.
COLUMNS = {FLAGS.get(name, name).removeprefix("--"): name for name in KINDS}
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Row:
    """A row of a prompt file: `line` is where it ends in the file. None means: as the command says."""

    line: int
    prompt: str
    seed: int | None = None
    variations: int | None = None
    output: str | None = None
    overrides: Overrides = field(default_factory=Overrides)
    edits: Mapping[str, Any] = field(default_factory=dict)


class Problems:
    """What is wrong with a prompt file, collected row by row."""

    def __init__(self, file: str) -> None:
        self.name = "standard input" if file == "-" else file
        self._found: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, line: int, problem: str) -> None:
        """A problem of the row on this line."""
        self._found.append((line, problem))

    @contextmanager
    def of(self, line: int) -> Iterator[None]:
        """What is raised in this is a problem of the row on this line."""
        try:
            yield
        except MagnetError as error:
            self.add(line, f"{error.message} ({error.hint})")

    def check(self) -> None:
        """Raise UsageError with all of them, if there are any."""
        if not self._found:
            return
        lines = [f"line {line}: {text}" for line, text in sorted(self._found, key=lambda one: one[0])[:SHOWN]]
        if len(self._found) > SHOWN:
            lines.append(f"and {len(self._found) - SHOWN:,} more")
        count = "a problem" if len(self._found) == 1 else f"{len(self._found):,} problems"
        raise UsageError(f"{self.name} has {count}", "Nothing was made. Correct the file", details=lines)


def read_rows(file: str, kind: str | None, problems: Problems) -> list[Row]:
    """The rows of a prompt file. `-` is standard input, a prompt a line unless `kind` says otherwise.

    kind: "txt", "csv" or "jsonl"; None takes the extension. Prompts are not checked further than that there is one.
    problems: where rows that cannot be read go. Raises UsageError for a file that cannot be read, or holds nothing.
    """
    if kind is not None and kind not in get_args(Format):
        raise UsageError(f"unknown format {kind!r}", f"Give one of {', '.join(get_args(Format))}")
    if kind is None:
        kind = "txt" if file == "-" else Path(file).suffix.lower().removeprefix(".")
        if kind not in get_args(Format):
            raise UsageError(f"{file} is neither .txt, .csv nor .jsonl", "Say what it is, e.g. --format txt")
    text = _read(file, problems.name)
    reader = {"txt": _text_rows, "csv": _csv_rows, "jsonl": _json_rows}[kind]
    rows = list(reader(text, problems))
    if not rows:
        problems.check()
        raise UsageError(
            f"{problems.name} holds no prompts", "Write one on each line" if kind == "txt" else "Add a row"
        )
    return rows


def _read(file: str, name: str) -> str:
    if file == "-" and sys.stdin is None:
        raise UsageError("standard input is closed", "Pipe the prompts in, or name a file")
    try:
        if file == "-":
            # Bytes where there are any, so that the terminal's encoding does not matter.
            content = sys.stdin.buffer.read() if hasattr(sys.stdin, "buffer") else sys.stdin.read().encode()
        else:
            content = Path(file).expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a NUL in the name; RuntimeError: no such home
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read {name}: {reason}", "Check the path and its permissions") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name} is not valid UTF-8 on line {line}", "Convert it to UTF-8 first") from None
    if "\0" in text:  # UTF-16 without a mark at its beginning is valid UTF-8
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UsageError(f"{name} is no text: there is a NUL on line {line}", "Convert it to UTF-8 first")
    return text


def _text_rows(text: str, problems: Problems) -> Iterator[Row]:
    # Not splitlines(): it takes rarer characters, which prompts may hold, for ends of lines.
    for line, content in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        prompt = content.strip()
        if prompt and not prompt.startswith("#"):
            yield Row(line, prompt)


def _csv_rows(text: str, problems: Problems) -> Iterator[Row]:
    before = csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        names = [field_of(name) for name in header]
        if not _check_columns(names, reader.line_num, problems):
            return
        for cells in reader:
            if len(cells) > len(names):
                problems.add(reader.line_num, f"{len(cells)} cells, but the header names {len(names)} columns")
            elif any(cell.strip() for cell in cells):
                filled = {name: cell for name, cell in zip(names, cells, strict=False) if cell.strip()}
                yield from _row(reader.line_num, filled, problems)
    except csv.Error as error:
        problems.add(reader.line_num, f"not valid CSV: {error}")
    finally:
        csv.field_size_limit(before)


def _check_columns(names: list[str], line: int, problems: Problems) -> bool:
    unknown = [name for name in names if name not in KINDS]
    wrong = [f"unknown column {shown(name)}; there are {', '.join(COLUMNS)}" for name in unknown[:SHOWN_COLUMNS]]
    if len(unknown) > SHOWN_COLUMNS:
        wrong.append(f"{len(unknown) - SHOWN_COLUMNS:,} more unknown columns")
    wrong += [f"two columns are named {shown(name)}" for name, found in Counter(names).items() if found > 1][
        :SHOWN_COLUMNS
    ]
    if "prompt" not in names and "unconditional" not in names:
        wrong.append("no column is named prompt")
    for problem in wrong:
        problems.add(line, problem)
    return not wrong


def _json_rows(text: str, problems: Problems) -> Iterator[Row]:
    for line, content in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        if not content.strip():
            continue
        try:
            pairs = json.loads(content, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as error:
            problems.add(line, f"not valid JSON: {error}")
            continue
        if not isinstance(pairs, _Pairs):
            problems.add(line, 'not a JSON object such as {"prompt": "disco beat"}')
        elif _check_columns([field_of(name) for name, _ in pairs], line, problems):
            given = {field_of(name): cell for name, cell in pairs if cell is not None}
            yield from _row(line, given, problems)


class _Pairs(tuple[tuple[str, Any], ...]):
    """A JSON object as it is written: a dict would keep only the last of equal keys."""


def field_of(name: str) -> str:
    """The field of a column, which is written as the option is, `top-p`, or as the field is, `top_p`."""
    plain = name.strip().lower().replace("_", "-")
    return COLUMNS.get(plain, plain.replace("-", "_"))


def _row(line: int, given: dict[str, Any], problems: Problems) -> Iterator[Row]:
    """The row these cells make, or none when one of them is wrong."""
    values: dict[str, Any] = {}
    for name, cell in given.items():
        try:
            values[name] = value_of(name, cell)
        except ValueError:
            problems.add(line, f"{name} is {shown(cell)}, not {wanted(name)}")
    if values.get("unconditional"):
        values.setdefault("prompt", "")  # it would only name the clip
    elif "prompt" not in given:
        problems.add(line, "there is no prompt")
    if values.keys() >= given.keys() and "prompt" in values:
        of_row = {name: values.pop(name, None) for name in ("prompt", "seed", "variations", "output")}
        edits = {name: values.pop(name) for name in list(values) if name in EDITS}
        yield Row(
            line, of_row["prompt"], of_row["seed"], of_row["variations"], of_row["output"], Overrides(**values), edits
        )


WANTED = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple[str, ...]": "a list such as 2.5:5 8:9",
}


def wanted(name: str) -> str:
    """What a cell of this field holds, in words."""
    return "whole numbers such as 20,10,10,10" if name == "steps" else WANTED[KINDS[name]]


def value_of(name: str, cell: Any) -> Any:
    """A cell as what its column holds; ValueError if it is something else."""
    kind = KINDS[name]
    if name == "steps" and isinstance(cell, list):
        if not all(isinstance(one, int) and not isinstance(one, bool) for one in cell):
            raise ValueError
        return ",".join(map(str, cell))
    if kind == "tuple[str, ...]":
        parts = cell.replace(",", " ").replace(";", " ").split() if isinstance(cell, str) else cell
        if not isinstance(parts, list) or not all(isinstance(one, str) for one in parts):
            raise ValueError
        return tuple(parts)
    if kind == "str":
        if not isinstance(cell, str):
            raise ValueError
        return cell.strip()
    if isinstance(cell, str):
        cell = cell.strip().lower()
        if kind == "bool":
            if cell not in WORDS:
                raise ValueError
            return WORDS[cell]
        if not re.fullmatch(r"[+-]?[0-9]{1,30}" if kind == "int" else r"[+-]?[0-9.]{1,30}(e[+-]?[0-9]{1,3})?", cell):
            raise ValueError
        return int(cell) if kind == "int" else float(cell)
    if isinstance(cell, bool) != (kind == "bool") or not isinstance(cell, (bool, int, float)):
        raise ValueError
    if kind == "int" and not isinstance(cell, int):
        raise ValueError
    if kind == "float" and not (abs(cell) < 1e300 and math.isfinite(cell)):
        raise ValueError
    return float(cell) if kind == "float" else cell
