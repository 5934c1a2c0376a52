"""The paths of results in one file, a folder or a template, valid on all systems and all different."""

from __future__ import annotations

import os
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from magnet_cli.errors import UsageError

FOLDER_TEMPLATE = "{index}-{slug}-{seed}.wav"
SINGLE_TEMPLATE = "{slug}-{seed}.wav"
FIELDS = ("index", "slug", "seed", "model", "bpm", "bars")
OF_LOOPS = ("bpm", "bars")
# File systems allow names of 255 bytes; this leaves room for the other fields and `.codes.npz`.
LONGEST_SLUG = 60
LONGEST_NAME = 200
LONGEST_PATH = 1000  # bytes within the folder of a batch
# The beginning of a template, up to its first field.
LITERAL = re.compile(r"(?:[^{}]|\{\{|\}\})*")
# Names that Windows reserves whatever their extension.
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)
# Not allowed in names on every system: control characters, and what Windows reserves.
UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*\ud800-\udfff]')


@dataclass(frozen=True)
class ClipName:
    """The fields of a file name.

    output: the clip's own name or template within the folder. swept: names and values of the options that a sweep
    changes, the same names for all clips. bpm, bars: those of a loop with a tempo; bars is None, too, if only opening
    the model can tell it.
    """

    prompt: str
    seed: int
    output: str | None = None
    swept: tuple[tuple[str, str], ...] = ()
    bpm: float | None = None
    bars: int | None = None


def slug(text: str) -> str:
    """A short, safe file name from any text: lower-case ASCII letters, digits and hyphens; never empty.

    Accents are removed. A text without a Latin letter or digit becomes "clip".
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if len(words) > LONGEST_SLUG:
        cut = words[: LONGEST_SLUG + 1].rfind("-")
        words = words[: cut if cut > LONGEST_SLUG // 2 else LONGEST_SLUG].strip("-")
    if RESERVED.fullmatch(words):
        words += "-clip"
    return words or "clip"


def plan_paths(
    output: str | None, items: Sequence[ClipName], *, model: str, extensions: Sequence[str]
) -> tuple[Path | None, list[Path]]:
    """The folder that was named, and a path in it for every item; or None and the one file that was named.

    output: a file (for one item), a folder, or a template with FIELDS and those of the swept options; None is the
    working directory.

    Raises:
        UsageError: for an unknown field or extension, or several items for one file.
    """
    if output == "-":
        raise UsageError(
            "this command does not write audio to standard output, which carries the paths", "Name a file or folder"
        )
    if output is not None and not output.strip():
        raise UsageError("the output path is empty", "Name a file, a folder or a template, or omit -o")
    output = os.path.expanduser(output or ".")
    swept = tuple(name for name, _ in items[0].swept)
    if "{" in output or "}" in output:
        template = output
    elif output.endswith(("/", "\\")) or os.path.isdir(output) or not Path(output).suffix:
        template = str(Path(output) / with_swept(FOLDER_TEMPLATE if len(items) > 1 else SINGLE_TEMPLATE, swept))
    elif len(items) == 1:
        _check_extension(Path(output), extensions)
        return None, [Path(output)]
    else:
        stem = Path(output)
        raise UsageError(
            f"{len(items)} clips do not fit into the one file {output}",
            f"Give a folder ({stem.with_suffix('')}/) or a template ({stem.stem}-{{index}}{stem.suffix})",
        )
    _check_template(template, FIELDS + swept)
    _check_extension(Path(template), extensions)
    return _without_braces(_fixed_part(template)), _name_all([template] * len(items), items, model)


def with_swept(template: str, swept: Sequence[str], suffix: str | None = None) -> str:
    """A template with the values of swept options at its end. suffix: the extension, if it is to be another."""
    name = Path(template)
    values = "".join(f"-{option}-{{{option}}}" for option in swept)
    return str(name.with_name(f"{name.stem}{values}{suffix or name.suffix}"))


def plan_folder(
    output: str, items: Sequence[ClipName], *, model: str, extensions: Sequence[str]
) -> tuple[Path, list[Path]]:
    """The folder of a batch, and a path in it for every item.

    output: a folder, or a template whose first field is in or below the folder. An item's own `output` is relative to
    the folder. Names that occur again are numbered.

    Raises:
        UsageError: as `plan_paths` does.
    """
    if not output.strip() or output == "-":
        raise UsageError("a batch writes into a folder", "Name it, e.g. -o clips/")
    output = os.path.expanduser(output)
    if Path(output).suffix.lower() in extensions and "{" not in output and not os.path.isdir(output):
        stem = Path(output).with_suffix("")
        raise UsageError(f"{output} is a file, but a batch writes into a folder", f"Name one, e.g. -o {stem}/")
    if "{" in output or "}" in output:
        _check_template(output)
        fixed = _fixed_part(output)
        default = str(Path(output).relative_to(fixed)) if fixed != Path() else output
        if ".." in Path(default).parts:
            raise UsageError(f"{output} leads out of its folder", "Write .. before the first field only")
        folder = _without_braces(fixed)
    else:
        folder = fixed = Path(output)
        default = FOLDER_TEMPLATE
    _check_extension(Path(default), extensions)
    own = {item.output for item in items if item.output is not None}
    checked = {name: check_name(name, extensions) for name in sorted(own)}
    templates = [str(fixed / (default if item.output is None else checked[item.output])) for item in items]
    return folder, _name_all(templates, items, model)


def check_name(name: str, extensions: Sequence[str]) -> str:
    """A template within a folder, with an extension.

    Raises:
        UsageError: for a name that leads out of the folder, or that some system does not allow.
    """
    _check_template(name)
    parts = re.split(r"[/\\]", name)
    if any(not part or part.startswith(".") or part.endswith((".", " ")) or UNSAFE.search(part) for part in parts):
        raise UsageError(
            f"{name!r} is not a valid name for a file within the folder", "Give e.g. kick-01.wav or drums/kick.wav"
        )
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in parts) or len(os.fsencode(name)) > LONGEST_PATH:
        raise UsageError(f"the file name {name[:40]}… is too long", f"Keep it under {LONGEST_NAME} bytes")
    if any(RESERVED.fullmatch(part.split(".")[0]) for part in parts):
        raise UsageError(f"{name!r} is a name that Windows reserves", "Choose another")
    path = Path(*parts)
    if path.suffix.lower() not in extensions:
        path = path.with_name(f"{path.name}{Path(FOLDER_TEMPLATE).suffix}")
    return path.as_posix()


def _name_all(templates: Sequence[str], items: Sequence[ClipName], model: str) -> list[Path]:
    digits = max(2, len(str(len(items))))
    paths = [
        _fill(template, item, str(number).zfill(digits), model)
        for number, (template, item) in enumerate(zip(templates, items, strict=True), 1)
    ]
    return _distinct(paths)


def _fixed_part(template: str) -> Path:
    """The folder before the first field, with braces still written as {{ and }}."""
    literal = LITERAL.match(template)
    return Path(("" if literal is None else literal[0]) + "x").parent


def _without_braces(fixed: Path) -> Path:
    """The folder of a template with {{ and }} replaced by braces, as on the disk."""
    return Path(str(fixed).format())


def _check_template(template: str, fields: Sequence[str] = FIELDS) -> None:
    known = " ".join(f"{{{field}}}" for field in fields)
    try:
        parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise UsageError(f"{template} is not a template: {error}", f"Use {known}") from error
    for _, field, spec, conversion in parts:
        if field not in fields:
            raise UsageError(f"unknown field {{{field}}} in {template}", f"Use {known}")
        if spec or conversion:
            raise UsageError(f"{{{field}}} in {template} has a format", f"Write {{{field}}}, which is already padded")


def _check_extension(path: Path, extensions: Sequence[str]) -> None:
    if path.suffix.lower() not in extensions:
        found = f"the extension {path.suffix}" if path.suffix else "no extension"
        raise UsageError(
            f"{path} has {found}, which names no audio format that magnet writes",
            f"End it in {', '.join(extensions)}, or in / for a folder",
        )


def _fill(template: str, item: ClipName, index: str, model: str) -> Path:
    values = {"index": index, "slug": slug(item.prompt), "seed": str(item.seed), "model": slug(model)}
    for name in OF_LOOPS:
        value = getattr(item, name)
        if value is None and f"{{{name}}}" in template.replace("{{", "").replace("}}", ""):
            raise UsageError(
                f"{{{name}}} in {template} needs a loop with a tempo",
                "Give --loop --bpm 120" if item.bpm is None else "Give --bars, too",
            )
        values[name] = "" if value is None else f"{value:g}"
    values |= {name: _swept(value) for name, value in item.swept}
    path = Path(template.format(**values))
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise UsageError(f"the file name {path.name[:40]}… is too long", f"Keep it under {LONGEST_NAME} bytes")
    return path


def _swept(value: str) -> str:
    """A value of a swept option in a file name: `3.5` as it is, `20,10,10,10` with hyphens, a text as a slug."""
    if not re.fullmatch(r"[0-9.,+-]+", value):
        return slug(value)
    return f"{'0' if value.startswith('.') else ''}{value.replace(',', '-')}".rstrip(".")


def _distinct(paths: Sequence[Path]) -> list[Path]:
    """Number the names that occur again, even with another extension: the files beside them share the stem.

    Some file systems do not distinguish upper from lower case, or composed from decomposed accents.
    """

    def key(path: Path) -> str:
        return unicodedata.normalize("NFC", str(path.with_suffix("")).casefold())

    taken = {key(path) for path in paths}
    seen: set[str] = set()
    numbers: Counter[str] = Counter()
    distinct = []
    for path in paths:
        candidate = path
        while key(candidate) in seen or (candidate != path and key(candidate) in taken):
            numbers[key(path)] += 1
            candidate = path.with_name(f"{path.stem}-{numbers[key(path)] + 1}{path.suffix}")
        seen.add(key(candidate))
        distinct.append(candidate)
    return distinct
