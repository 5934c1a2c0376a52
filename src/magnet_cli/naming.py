"""Where results go: one file, a folder, or a template, with names that are safe everywhere and never collide."""

from __future__ import annotations

import os
import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from magnet_cli.errors import UsageError

FOLDER_TEMPLATE = "{index}-{slug}-{seed}.wav"
SINGLE_TEMPLATE = "{slug}-{seed}.wav"
FIELDS = ("index", "slug", "seed", "model")
# Leaves room for the other fields and `.codes.npz` in the 255 bytes that file systems allow a name.
LONGEST_SLUG = 60
LONGEST_NAME = 200
# Names that Windows reserves whatever their extension.
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """What a file's name can tell of its content."""

    prompt: str
    seed: int


def slug(text: str) -> str:
    """A short, safe file name from any text: lower-case ASCII letters, digits and hyphens; never empty.

    Accents are dropped; a text without any Latin letter or digit becomes "clip".
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if len(words) > LONGEST_SLUG:
        cut = words[: LONGEST_SLUG + 1].rfind("-")
        words = words[: cut if cut > LONGEST_SLUG // 2 else LONGEST_SLUG].strip("-")
    if RESERVED.fullmatch(words):
        words += "-clip"
    return words or "clip"


def plan_paths(output: str | None, items: Sequence[Item], *, model: str, extensions: Sequence[str]) -> list[Path]:
    """A path for every item.

    output: a file (for one item), a folder, or a template with the fields {index} {slug} {seed} {model}; None is the
    working directory. Raises UsageError for an unknown field or extension, or several items for one file.
    """
    if output == "-":
        raise UsageError("audio is not written to standard output, which carries the paths", "Name a file or folder")
    if output is not None and not output.strip():
        raise UsageError("the output path is empty", "Name a file, a folder or a template, or leave -o out")
    output = os.path.expanduser(output or ".")
    if "{" in output or "}" in output:
        template = output
    elif output.endswith(("/", "\\")) or os.path.isdir(output) or not Path(output).suffix:
        template = str(Path(output) / (FOLDER_TEMPLATE if len(items) > 1 else SINGLE_TEMPLATE))
    elif len(items) == 1:
        _check_extension(Path(output), extensions)
        return [Path(output)]
    else:
        stem = Path(output)
        raise UsageError(
            f"{len(items)} clips do not fit into the one file {output}",
            f"Give a folder ({stem.with_suffix('')}/) or a template ({stem.stem}-{{index}}{stem.suffix})",
        )
    _check_template(template)
    _check_extension(Path(template), extensions)
    digits = max(2, len(str(len(items))))
    paths = [_fill(template, item, str(number).zfill(digits), model) for number, item in enumerate(items, 1)]
    return _distinct(paths)


def _check_template(template: str) -> None:
    known = " ".join(f"{{{field}}}" for field in FIELDS)
    try:
        parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise UsageError(f"{template} is not a template: {error}", f"Use {known}") from error
    for _, field, spec, conversion in parts:
        if field not in FIELDS:
            raise UsageError(f"unknown field {{{field}}} in {template}", f"Use {known}")
        if spec or conversion:
            raise UsageError(f"{{{field}}} in {template} has a format", f"Write {{{field}}}, which is padded already")


def _check_extension(path: Path, extensions: Sequence[str]) -> None:
    if path.suffix.lower() not in extensions:
        found = f"the extension {path.suffix}" if path.suffix else "no extension"
        raise UsageError(
            f"{path} has {found}, which says no audio format that can be written",
            f"End it in {', '.join(extensions)}, or in / for a folder",
        )


def _fill(template: str, item: Item, index: str, model: str) -> Path:
    values = {"index": index, "slug": slug(item.prompt), "seed": str(item.seed), "model": slug(model)}
    path = Path(template.format(**values))
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise UsageError(f"the file name {path.name[:40]}… is too long", f"Keep it under {LONGEST_NAME} bytes")
    return path


def _distinct(paths: Sequence[Path]) -> list[Path]:
    """Number the paths that occur again; file systems may not tell upper from lower case."""
    taken = {str(path).casefold() for path in paths}
    seen: set[str] = set()
    distinct = []
    for path in paths:
        candidate, number = path, 2
        while str(candidate).casefold() in seen or (candidate != path and str(candidate).casefold() in taken):
            candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
            number += 1
        seen.add(str(candidate).casefold())
        distinct.append(candidate)
    return distinct
