"""What became of every clip of a batch, as a table for spreadsheets, and the files that show it beside the manifest.

The manifest is the truth, and these files only show it. They are rewritten now and then while clips are generated, and
at the end. A process that is killed leaves them complete, but not up to date; the next run rewrites them.
"""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from magnet_cli.jobs.manifest import Item, Manifest, Measured
from magnet_cli.jobs.plan import BatchPlan, Request
from magnet_cli.jobs.prompt_file import NAMES, PromptFile, Row
from magnet_cli.options.sampling_overrides import Overrides

State: TypeAlias = Literal["done", "failed", "waiting"]
RESULTS_FILE = "results.csv"
# Excel takes a file without this mark for one in the local code page.
ENCODING = "utf-8-sig"
# Seconds from one rewriting to the next, and the share of the time that rewriting may take: of 100,000 clips it takes
# seconds, and after each clip it would be quadratic.
INTERVAL, MOST_SHARE = 30.0, 0.02
# A cell that begins with one of these is a formula to a spreadsheet, and so is what follows a separator of another
# locale's CSV. A program that the formula names runs on the computer of whoever opens the file.
FORMULA = re.compile(r"(^[\s\0]*|[;\t\r\n]|,(?=[=@]))(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")
NUMBER = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+)?")  # which no spreadsheet takes for a formula
FRACTION = re.compile(r"[+-]?[0-9]+\.[0-9]+")
DIGITS = 2  # after the point: 0.01 s, 0.01 LU


@dataclass(frozen=True)
class ClipResult:
    """What became of one clip. path: within the batch's folder. options: those that are set, by column."""

    row: Row
    prompt: str
    path: str
    seed: int
    options: Mapping[str, str]
    state: State = "waiting"
    error: str | None = None
    measured: Measured | None = None
    generation_seconds: float | None = None


@dataclass(frozen=True)
class BatchResults:
    """What became of all clips, in the order of the rows. own: the user's columns. delimiter: as in the prompt file."""

    title: str
    clips: Sequence[ClipResult]
    own: Sequence[str]
    delimiter: str


Renderer: TypeAlias = Callable[[BatchResults], bytes]


class BatchReport:
    """Files about a batch beside its manifest, each of which a function renders from the results."""

    def __init__(
        self, plan: BatchPlan, request: Request, file: PromptFile, manifest: Manifest, pages: Mapping[str, Renderer]
    ) -> None:
        self._manifest, self._pages, self._file = manifest, pages, file
        self._items = {item.key: item for item in plan.items}
        self._done = {item.key for item, _ in plan.done}
        given = {name: word for name, word in _options(request.overrides, request.edits).items() if word != "false"}
        self._clips = {key: _clip(item, plan.rows[key], given, manifest.folder) for key, item in self._items.items()}
        self._written, self._took = time.monotonic(), 0.0

    def add(self, item: Item) -> None:
        """Count an item as done."""
        self._done.add(item.key)

    @property
    def results(self) -> BatchResults:
        """What became of every clip, as far as it is known now."""
        clips = [self._now(key, clip) for key, clip in self._clips.items()]
        delimiter = ";" if self._file.delimiter == ";" else ","  # as the user's spreadsheet has it
        return BatchResults(self._manifest.folder.absolute().name, clips, self._file.own, delimiter)

    def _now(self, key: str, clip: ClipResult) -> ClipResult:
        entry = self._manifest.entries.get(key)
        if key in self._done and entry is not None:
            return replace(
                clip,
                state="done",
                seed=clip.seed if entry.seed is None else entry.seed,
                measured=self._manifest.measured(entry),
                generation_seconds=entry.seconds,
            )
        if entry is not None and entry.error is not None:
            return replace(clip, state="failed", error=entry.error)
        return clip

    def is_due(self) -> bool:
        """Whether it is time to rewrite the files."""
        return time.monotonic() - self._written >= max(INTERVAL, self._took / MOST_SHARE)

    def write(self) -> list[Path]:
        """Rewrite the files. One that somebody has changed is renamed first; returns the new names.

        Raises:
            OutputError: if they cannot be written.
        """
        started = time.monotonic()
        try:
            results = self.results
            return self._manifest.publish([(name, render(results)) for name, render in self._pages.items()])
        finally:
            self._written = time.monotonic()
            self._took = self._written - started


def _clip(item: Item, row: Row, given: Mapping[str, str], folder: Path) -> ClipResult:
    options = {**given, **_options(row.overrides, row.edits)}
    path = item.target.audio.relative_to(folder).as_posix()
    return ClipResult(row, item.job.prompt, path, item.job.seed, options)


def _options(overrides: Overrides, edits: Mapping[str, Any]) -> dict[str, str]:
    """The options that are set, by column, as a prompt file has them."""
    values = {one.name: getattr(overrides, one.name) for one in fields(overrides)} | dict(edits)
    return {NAMES[name]: _word(value) for name, value in values.items() if value is not None and value != ()}


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(value) if isinstance(value, (tuple, list)) else str(value)


# -- the table --------------------------------------------------------------------------------------------------------


def as_csv(results: BatchResults) -> bytes:
    """The results as CSV that spreadsheets open: with a byte order mark, and without formulas."""
    used = {name for clip in results.clips for name in clip.options}
    options = [name for name in NAMES.values() if name in used]
    before = ["prompt", "path", "seed", *options]
    after = ["lufs", "true-peak", "seconds", "generation-seconds", "state", "error"]
    header = [*before, *after, *_free_names(results.own, {*before, *after})]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=results.delimiter, lineterminator="\r\n")
    writer.writerow(map(harmless, header))
    for clip in results.clips:
        writer.writerow(map(harmless, _cells(clip, options, results)))
    return text.getvalue().encode(ENCODING, "backslashreplace")


def _cells(clip: ClipResult, options: Sequence[str], results: BatchResults) -> Iterator[str]:
    yield from (clip.prompt, clip.path, str(clip.seed))
    for name in options:
        yield _localized(clip.options.get(name, ""), results.delimiter)
    measured = clip.measured or Measured(None, None, None)
    for value in (measured.lufs, measured.true_peak, measured.seconds, clip.generation_seconds):
        yield "" if value is None else _localized(f"{value:.{DIGITS}f}", results.delimiter)
    yield from (clip.state, clip.error or "")
    for name in results.own:
        yield clip.row.own.get(name, "")


def _localized(cell: str, delimiter: str) -> str:
    """A number as spreadsheets read it: those that separate cells by semicolons take 14.09 for a day in September."""
    return cell.replace(".", ",") if delimiter == ";" and FRACTION.fullmatch(cell) else cell


def _free_names(names: Sequence[str], taken: set[str]) -> list[str]:
    """The names of the user's own columns, marked where the results have a column of the same name."""
    taken, free = {name.lower() for name in taken}, []
    for name in names:
        one, number = name, 1
        while one.lower() in taken or (one != name and one in names):
            one = f"{name} (prompt file)" if number == 1 else f"{name} (prompt file {number})"
            number += 1
        taken.add(one.lower())
        free.append(one)
    return free


def harmless(text: str) -> str:
    """A text with an apostrophe before what a spreadsheet would take for a formula."""
    if NUMBER.fullmatch(text):
        return text
    return FORMULA.sub(r"\1'", text)
