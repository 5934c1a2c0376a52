"""Text in columns and frames, for any width of the terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

NARROWEST, WIDEST = 40, 120  # characters; longer lines are hard to read
TWO_COLUMNS = 60  # from this width on, explanations stand beside names; below it, under them
NAMES_SHARE = 0.36  # of the width, at most, for the names
FRAME = "╭─╮│╰╯"
TIED = "\u00a0"  # a space at which no line ends

Row = tuple[str, str]  # a name and its explanation


def terminal_width() -> int:
    """The width to write for: that of the terminal, or COLUMNS, or 80."""
    return max(NARROWEST, min(shutil.get_terminal_size().columns, WIDEST))


def can_frame(encoding: str | None) -> bool:
    """Whether a stream of this encoding can show frames."""
    try:
        FRAME.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def paragraph(text: str, width: int) -> list[str]:
    """A text as lines."""
    lines = textwrap.wrap(text, width, break_on_hyphens=False) or [""]
    return [line.replace(TIED, " ") for line in lines]


def listed(rows: Sequence[Row], width: int) -> list[str]:
    """Names with their explanations, side by side where the width allows it. A row without a name is a text."""
    beside = [name for name, text in rows if name and text]
    column = min(max(map(len, beside), default=0), int(NAMES_SHARE * width))
    lines: list[str] = []
    for name, text in rows:
        if not name or not text:
            lines += paragraph(name or text, width)
        elif width < TWO_COLUMNS:
            lines += [*paragraph(name, width), *(f"    {line}" for line in paragraph(text, width - 4))]
        else:
            explained = paragraph(text, width - column - 2)
            if len(name) > column:
                lines += paragraph(name, width)
                explained = ["", *explained]
            else:
                lines.append(f"{name:<{column}}  {explained[0]}")
            lines += [f"{'':<{column}}  {line}" for line in explained[1:]]
    return lines


def panel(title: str, rows: Sequence[Row], width: int, *, framed: bool) -> list[str]:
    """Rows under a title: in a frame, or indented."""
    if not framed:
        return [f"{title}:", *(f"  {line}".rstrip() for line in listed(rows, width - 2)), ""]
    left_top, rule, right_top, side, left_bottom, right_bottom = tuple(FRAME)
    inner = width - 4
    return [
        f"{left_top}{rule} {title} ".ljust(width - 1, rule) + right_top,
        *(f"{side} {line:<{inner}} {side}" for line in listed(rows, inner)),
        left_bottom + rule * (width - 2) + right_bottom,
    ]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, in columns that are as wide as their longest cell."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
