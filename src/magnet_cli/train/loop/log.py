"""`log.csv`, and TensorBoard's files."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from magnet_cli.disk.atomic import write_atomic

LOG = "log.csv"


class Log:
    """`log.csv`, cut at the step that the training resumes from, and TensorBoard's files if `tensorboard` is set."""

    def __init__(self, folder: Path, first: int, *, tensorboard: bool) -> None:
        self._path = folder / LOG
        self._first = first
        self._columns: list[str] = []
        self._board: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # found by `check_packages`

            self._board = SummaryWriter(folder / "tensorboard", purge_step=first)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._board is not None:
            with suppress(OSError) if kind else nullcontext():  # a failed write fails here again
                self._board.close()

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Append the line of a step."""
        row = {"step": step, **figures}
        if not row.keys() <= set(self._columns):
            self._columns = self._begin(row)
        text = StringIO()
        csv.DictWriter(text, self._columns, restval="", extrasaction="ignore", lineterminator="\n").writerow(row)
        self._append(text.getvalue().encode())
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(name, value, step)

    def write_if(self, step: int, figures: Mapping[str, float]) -> None:
        """Append the line of a step that has any figures."""
        if figures:
            self.write(step, figures)

    def _append(self, line: bytes) -> None:
        """Append a line, whole or not at all: part of a line would be read as the figures of another step."""
        with self._path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                written = file.write(line)
                if written != len(line):
                    file.write(line[written:])  # raises what stopped the first write
            except OSError:
                file.truncate(before)
                raise

    def _begin(self, row: Mapping[str, Any]) -> list[str]:
        """Rewrite the file with a column for every figure of a line, keeping earlier lines. Returns the columns."""
        kept: list[dict[str, str]] = []
        if (self._first or self._columns) and self._path.is_file():
            with self._path.open(encoding="utf-8", newline="") as file:
                kept = [one for one in csv.DictReader(file) if (one.get("step") or "").isdigit()]
        if not self._columns:
            kept = [one for one in kept if int(one["step"]) <= self._first]
        columns = list(dict.fromkeys([*(kept[0] if kept else ()), *row]))
        text = StringIO()
        writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        write_atomic(self._path, lambda file: file.write(text.getvalue().encode()), overwrite=True)
        return columns
