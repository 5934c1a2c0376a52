"""Prompt files: text, CSV, tab-separated values or JSON Lines -> rows, with all problems of a file reported at once.

Spreadsheets write CSV in many ways: with semicolons or tabs, in UTF-16 or Windows-1252, with whole numbers as 1.0.
They also have columns of their own, which are carried through to the results of the batch.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from magnet_cli.errors import MagnetError, UsageError, shown
from magnet_cli.options.candidates import CandidateOptions
from magnet_cli.options.declared import declared
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.sampling_overrides import Overrides
from magnet_cli.options.times import parse_seconds

Format: TypeAlias = Literal["txt", "csv", "tsv", "jsonl"]
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
DELIMITERS = (",", ";", "\t")
SEPARATOR_LINE = re.compile(r"sep=([,;\t|])(?:\r\n|\n|\r|\Z)", re.IGNORECASE)  # Excel's own, before the header
MARKS = {  # at the beginning of a file; UTF-32's first, because it begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SHOWN = 100  # problems listed; more would push the first ones off the screen
SHOWN_COLUMNS = 20  # listed in one message
MOST_OWN_COLUMNS = 1000  # Excel has 16,384; but every one of them is a cell in every row of the results
LONGEST_FIELD = 1 << 20

# The types of a row's cells by field: of the row itself, and of the options of these classes.
KINDS: dict[str, str] = {"prompt": "str", "seed": "int", "variations": "int", "best_of": "int", "output": "str"} | {
    one.name: "time" if declared(kind)[one.name].get("time") else str(one.type).removesuffix(" | None")
    for kind in (Overrides, EditConfig)
    for one in fields(kind)
    if one.name in declared(kind)
}
EDITS = set(declared(EditConfig))
FLAGS = {
    name: one["flag"] for kind in (Overrides, EditConfig, CandidateOptions) for name, one in declared(kind).items()
}
# The columns and their fields: a column is named as its option is.
COLUMNS = {FLAGS.get(name, name).removeprefix("--"): name for name in KINDS}
NAMES = {name: column for column, name in COLUMNS.items()}
# Data sets call the prompt so. One of them is read as the prompt where no column is named prompt.
PROMPT_NAMES = ("text", "caption", "description")
# What other programs call an option, and nobody a column of their own.
OTHER_NAMES = {"negative-prompt": "negative", "guidance-scale": "guidance", "cfg-scale": "guidance"}
# As difflib measures it: guidence and guidance 0.88, seeds and seed 0.89; key and keep 0.57.
NEAR_MISS = 0.8
LONGEST_NEAR_MISS = 2 * max(map(len, COLUMNS))
MOST_EXACT = 2**53  # whole numbers up to this are exact as 1.0 is written
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Row:
    """A row of a prompt file: `line` is where it ends in the file. None means: as the command says.

    own: the cells of the user's own columns, by name; those that are empty are left out.
    """

    line: int
    prompt: str
    seed: int | None = None
    variations: int | None = None
    output: str | None = None
    overrides: Overrides = field(default_factory=Overrides)
    edits: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)
    best_of: int | None = None


@dataclass(frozen=True)
class PromptFile:
    """What a prompt file holds.

    own: the names of the user's own columns, in order. delimiter: between cells, a comma for files without any.
    prompt_columns: columns of other names that were read as the prompt. warning: how it had to be decoded.
    """

    rows: list[Row]
    own: tuple[str, ...] = ()
    delimiter: str = ","
    prompt_columns: tuple[str, ...] = ()
    warning: str | None = None

    @property
    def notices(self) -> list[str]:
        """What a user should know of how the file was read, a sentence each."""
        found = []
        if self.prompt_columns:
            found.append(f"no column is named prompt: {_listed(self.prompt_columns)} was read instead")
        if self.own:
            found.append(f"columns that are no options are copied to results.csv: {_listed(self.own)}")
        return found


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(shown(name) for name in names[:SHOWN_COLUMNS])
    return listed if len(names) <= SHOWN_COLUMNS else f"{listed} and {len(names) - SHOWN_COLUMNS:,} more"


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
        raise UsageError(f"{self.name} has {count}", "Nothing was generated. Correct the file", details=lines)


def read_prompt_file(file: str, kind: str | None, problems: Problems) -> PromptFile:
    """Read a prompt file. `-` is standard input, which has a prompt on each line unless `kind` says otherwise.

    kind: one of Format; None means by the file's extension. Of prompts only the presence is checked.
    problems: collects rows that cannot be read.

    Raises:
        UsageError: for a file that cannot be read, or holds nothing.
    """
    if kind is not None and kind not in get_args(Format):
        raise UsageError(f"unknown format {kind!r}", f"Give one of {', '.join(get_args(Format))}")
    kind = kind or _kind_of(file)
    text, warning = _read(file, problems.name)
    columns, delimiter = _Columns(), ","
    if kind == "txt":
        rows = list(_text_rows(text))
    elif kind == "jsonl":
        rows = list(_json_rows(text, columns, problems))
    else:
        table = _Table.of(text, DELIMITERS if kind == "csv" else ("\t",))
        rows, delimiter = list(table.rows(columns, problems)), table.delimiter
    if not rows:
        problems.check()
        raise UsageError(
            f"{problems.name} holds no prompts", "Write one on each line" if kind == "txt" else "Add a row"
        )
    return PromptFile(rows, tuple(columns.own), delimiter, tuple(columns.as_prompt), warning)


def _kind_of(file: str) -> str:
    """The format of a file, by its extension."""
    suffix = Path(file).suffix.lower()
    kind = "txt" if file == "-" else suffix.removeprefix(".")
    if kind in get_args(Format):
        return kind
    if suffix in SPREADSHEETS:
        raise UsageError(f"{file} is a spreadsheet's own format", "Save it as CSV, and give that file")
    problem, hint = f"{file} is neither .txt, .csv, .tsv nor .jsonl", "Say what it is, e.g. --format txt"
    if not os.path.exists(os.path.expanduser(file)):
        problem, hint = f"{problem}, and no file", f'For a clip of this prompt: magnet generate "{file}"'
    raise UsageError(problem, hint)


# -- text -------------------------------------------------------------------------------------------------------------


def _read(file: str, name: str) -> tuple[str, str | None]:
    """The text of a file, and a warning about how it had to be decoded."""
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
    text, warning = _decoded(content, name)
    if "\0" in text:  # UTF-16 without a mark at its beginning is valid UTF-8
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UsageError(f"{name} is not text: there is a NUL on line {line}", "Convert it to UTF-8 first")
    return text, warning


def _decoded(content: bytes, name: str) -> tuple[str, str | None]:
    """The text that bytes stand for: UTF-16 or UTF-32 with its mark, UTF-8, or else Windows-1252 with a warning."""
    encoding = next((encoding for mark, encoding in MARKS.items() if content.startswith(mark)), None)
    try:
        return content.decode(encoding or "utf-8-sig"), None
    except UnicodeDecodeError as error:
        wrong = error
    line = content.count(b"\n", 0, wrong.start) + 1
    if encoding is not None:
        raise UsageError(
            f"{name} is not valid {encoding.upper()} on line {line}", "Convert it to UTF-8 first"
        ) from wrong
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:  # five bytes have no meaning in it
        raise UsageError(
            f"{name} is not valid UTF-8 on line {line}, nor Windows-1252", "Convert it to UTF-8 first"
        ) from None
    read = f"{name} is not valid UTF-8 on line {line}; it was read as Windows-1252"
    return text, f"{read}. If letters are wrong, save it as UTF-8"


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines(): it takes rarer characters, which prompts may hold, for ends of lines.
    return enumerate(re.split(r"\r\n|\n|\r", text), 1)


def _text_rows(text: str) -> Iterator[Row]:
    for line, content in _lines(text):
        prompt = content.strip()
        if prompt and not prompt.startswith("#"):
            yield Row(line, prompt)


# -- columns ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """A column: its name as written, and its field; None for a column of the user's own."""

    name: str
    field: str | None


class _Columns:
    """The columns of a file, as they are met: in one header, or in one JSON object after the other."""

    def __init__(self) -> None:
        self.own: dict[str, None] = {}  # as an ordered set
        self.as_prompt: dict[str, None] = {}
        self._latest: tuple[Sequence[str], list[_Column]] = ((), [])

    def find(self, names: Sequence[str], line: int, problems: Problems) -> list[_Column] | None:
        """The columns of these names; None after a problem."""
        if names != self._latest[0] or not names:  # most JSON objects have the names of the one before
            columns = self._find(names, line, problems)
            if columns is None:
                return None
            self._latest = (names, columns)
        return self._latest[1]

    def _find(self, names: Sequence[str], line: int, problems: Problems) -> list[_Column] | None:
        columns = [_Column(name.strip(), one if (one := field_of(name)) in KINDS else None) for name in names]
        wrong = self._find_prompt(columns)
        new = [one.name for one in columns if one.field is None and one.name and one.name not in self.own]
        if len(self.own) + len(new) > MOST_OWN_COLUMNS:
            known = f"at most {MOST_OWN_COLUMNS:,} can be copied to the results"
            wrong.append(f"{len(self.own) + len(new):,} columns are no options; {known}")
        else:
            wrong += [
                f"unknown column {shown(name)}: did you mean {option}? Rename it if it is a column of your own"
                for name in new
                if (option := _nearest(name)) is not None
            ][:SHOWN_COLUMNS]
        counts = Counter(NAMES.get(one.field or "", one.name) for one in columns if one.name)
        wrong += [f"two columns are named {shown(name)}" for name, count in counts.items() if count > 1][:SHOWN_COLUMNS]
        for problem in wrong:
            problems.add(line, problem)
        if wrong:
            return None
        self.own.update(dict.fromkeys(new))
        return columns

    def _find_prompt(self, columns: list[_Column]) -> list[str]:
        """Read the one column that can be the prompt as that, if none is named so; returns what is wrong."""
        known = {one.field for one in columns}
        if "prompt" in known:
            return []
        able = [place for place, one in enumerate(columns) if one.name.lower() in PROMPT_NAMES]
        if len(able) == 1:
            columns[able[0]] = replace(columns[able[0]], field="prompt")
            self.as_prompt[columns[able[0]].name] = None
            return []
        if able:
            which = " and ".join(shown(columns[place].name) for place in able[:SHOWN_COLUMNS])
            return [f"no column is named prompt, but {which} could be it: rename one of them to prompt"]
        if "unconditional" in known:
            return []
        named = [one.name for one in columns if one.name]
        return [f"no column is named prompt; there are {_listed(named)}" if named else "no column is named prompt"]


def field_of(name: str) -> str:
    """The field of a column, which is written as the option is, `top-p`, or as the field is, `top_p`."""
    plain = _plain(name)
    return COLUMNS.get(plain, plain.replace("-", "_"))


def _plain(name: str) -> str:
    """A column's name in lower case, with hyphens for blanks and underscores."""
    return re.sub(r"[\s_]+", "-", name.strip().lower())


def _nearest(name: str) -> str | None:
    """The option that a name is a near miss of."""
    plain = _plain(name)
    if plain in OTHER_NAMES:
        return OTHER_NAMES[plain]
    if len(plain) > LONGEST_NEAR_MISS:
        return None
    return next(iter(difflib.get_close_matches(plain, COLUMNS, n=1, cutoff=NEAR_MISS)), None)


# -- CSV --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """The text of a CSV file after a separator line, which takes `before` lines."""

    text: str
    delimiter: str
    before: int = 0

    @classmethod
    def of(cls, text: str, delimiters: Sequence[str]) -> _Table:
        """The table with the delimiter that its separator line names, or else with which its header makes most sense.

        That is with most known columns, then with most columns.
        """
        if separator := SEPARATOR_LINE.match(text):
            return cls(text[separator.end() :], separator[1], before=1)

        def sense(delimiter: str) -> tuple[int, int]:
            try:
                with _long_cells():
                    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
                    names: list[str] = next(filter(_has_content, reader), [])
            except csv.Error:
                return -1, 0
            return sum(field_of(one) in KINDS or one.strip().lower() in PROMPT_NAMES for one in names), len(names)

        return cls(text, max(delimiters, key=sense))

    def rows(self, columns: _Columns, problems: Problems) -> Iterator[Row]:
        """The rows below the header."""
        reader = csv.reader(io.StringIO(self.text, newline=""), strict=True, delimiter=self.delimiter)
        found = None
        try:
            with _long_cells():
                for cells in filter(_has_content, reader):
                    line = self.before + reader.line_num
                    if found is not None:
                        yield from self._row(line, found, cells, problems)
                    elif (found := columns.find(cells, line, problems)) is None:
                        return
        except csv.Error as error:
            problems.add(self.before + reader.line_num, f"not valid CSV: {error}")

    def _row(self, line: int, columns: list[_Column], cells: list[str], problems: Problems) -> Iterator[Row]:
        while len(cells) > len(columns) and not cells[-1].strip():
            cells.pop()  # spreadsheets fill up rows
        if len(cells) > len(columns):
            problems.add(line, f"{len(cells)} cells, but the header names {len(columns)} columns")
            return
        given: dict[str, Any] = {}
        own: dict[str, str] = {}
        for place, (column, cell) in enumerate(zip(columns, cells, strict=False), 1):
            if not cell.strip():
                continue
            if column.field is not None:
                given[column.field] = self._number(cell) if KINDS[column.field] == "float" else cell
            elif column.name:
                own[column.name] = cell.strip()
            else:
                problems.add(line, f"cell {place} is {shown(cell)}, but its column has no name")
        yield from _row(line, given, own, problems)

    def _number(self, cell: str) -> str:
        """A number with a point: where commas do not separate cells, spreadsheets may write them into numbers."""
        decimal = self.delimiter != "," and re.fullmatch(r"\s*[+-]?[0-9]{1,30},[0-9]{1,30}\s*", cell)
        return cell.replace(",", ".") if decimal else cell


def _has_content(cells: list[str]) -> bool:
    return any(cell.strip() for cell in cells)


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let the csv module read cells of up to LONGEST_FIELD characters."""
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


# -- JSON Lines -------------------------------------------------------------------------------------------------------


def _json_rows(text: str, columns: _Columns, problems: Problems) -> Iterator[Row]:
    for line, content in _lines(text):
        if not content.strip():
            continue
        try:
            pairs = json.loads(content, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as error:
            problems.add(line, f"not valid JSON: {error}")
            continue
        if not isinstance(pairs, _Pairs):
            problems.add(line, 'not a JSON object such as {"prompt": "disco beat"}')
            continue
        found = columns.find([name for name, _ in pairs], line, problems)
        if found is None:
            continue
        cells = [(column, cell) for column, (_, cell) in zip(found, pairs, strict=True) if cell is not None]
        given = {column.field: cell for column, cell in cells if column.field is not None}
        try:
            own = {column.name: _as_text(cell) for column, cell in cells if column.field is None}
        except (ValueError, RecursionError):
            problems.add(line, "a value of a column of your own nests too deep, or has too many digits")
            continue
        yield from _row(line, given, own, problems)


class _Pairs(tuple[tuple[str, Any], ...]):
    """A JSON object as it is written: a dict would keep only the last of equal keys."""


def _as_text(value: Any) -> str:
    """A value of a JSON object as the cell of a table: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(_as_plain(value), ensure_ascii=False)


def _as_plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {name: _as_plain(one) for name, one in value}
    return [_as_plain(one) for one in value] if isinstance(value, list) else value


# -- rows -------------------------------------------------------------------------------------------------------------


def _row(line: int, given: dict[str, Any], own: dict[str, str], problems: Problems) -> Iterator[Row]:
    """The row that these cells give, or none if one of them is wrong."""
    values: dict[str, Any] = {}
    for name, cell in given.items():
        try:
            values[name] = value_of(name, cell)
        except ValueError:
            problems.add(line, f"{NAMES[name]} is {shown(cell)}, not {wanted(name)}")
    if values.get("unconditional"):
        values.setdefault("prompt", "")  # it would only name the clip
    elif "prompt" not in given:
        problems.add(line, "there is no prompt")
    if values.keys() >= given.keys() and "prompt" in values:
        of_row = {name: values.pop(name, None) for name in ("prompt", "seed", "variations", "output", "best_of")}
        edits = {name: values.pop(name) for name in list(values) if name in EDITS}
        yield Row(line, **of_row, overrides=Overrides(**values), edits=edits, own=own)


WANTED = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "time": "seconds, or a time such as 1:30",
    "bool": "true or false",
    "tuple[str, ...]": "a list such as 2.5:5 8:9",
}


def wanted(name: str) -> str:
    """What a cell of this field holds, in words."""
    return "whole numbers such as 20,10,10,10" if name == "steps" else WANTED[KINDS[name]]


def value_of(name: str, cell: Any) -> Any:
    """A cell as what its column holds; ValueError if it is something else."""
    kind = KINDS[name]
    if kind == "time":
        if isinstance(cell, str) and ":" in cell:
            return parse_seconds(cell)
        kind = "float"
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
        # Spreadsheets write the whole number 1 as 1.0, too.
        whole, number = r"([+-]?[0-9]{1,30})(?:\.0*)?", r"([+-]?[0-9.]{1,30}(?:e[+-]?[0-9]{1,3})?)"
        found = re.fullmatch(whole if kind == "int" else number, cell)
        if found is None:
            raise ValueError
        return int(found[1]) if kind == "int" else float(found[1])
    if isinstance(cell, bool) != (kind == "bool") or not isinstance(cell, (bool, int, float)):
        raise ValueError
    if kind == "int" and not isinstance(cell, int):
        if not cell.is_integer() or abs(cell) > MOST_EXACT:
            raise ValueError
        return int(cell)
    if kind == "float" and not (abs(cell) < 1e300 and math.isfinite(cell)):
        raise ValueError
    return float(cell) if kind == "float" else cell
