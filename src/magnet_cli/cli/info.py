"""`magnet info` and `magnet replay`: how a clip was generated, and regenerating it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magnet_cli.audio.formats import AUDIO_EXTENSIONS
from magnet_cli.cli.run_jobs import decibels, load, make, open_parts, resolve_helpers
from magnet_cli.errors import ReplayError, UsageError
from magnet_cli.hub.registry import registered
from magnet_cli.jobs.naming import ClipName, plan_paths
from magnet_cli.jobs.targets import Target
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.terminal import options
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.options import FileOptions, Speech, licence_note
from magnet_cli.terminal.signature import only, option_of
from magnet_cli.terminal.streams import visible

if TYPE_CHECKING:
    from magnet_cli.hub.locate import ResolvedModel

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="Audio file that magnet generated, or the .json file beside it.")
]
Download = Annotated[
    bool,
    typer.Option(
        "--download",
        help="Download models that the clip's record names, without a question, even if they are not released ones.",
        rich_help_panel="Model files",
    ),
]


def info(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Audio files that magnet generated, or the .json files beside them."),
    ],
    *,
    picture: Annotated[
        bool,
        typer.Option(
            "--picture",
            help="Draw each clip: NAME.png beside it, with its waveform, mel spectrogram, loudness and edited regions. "
            "Needs matplotlib, the extra pictures.",
        ),
    ] = False,
    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", metavar="FILE.png", help="Draw all clips on one sheet, with one scale of loudness."),
    ] = None,
    force: Annotated[bool, option_of(FileOptions, "force")] = False,
    json: options.AsJson = False,
) -> None:
    """Show how a clip was generated.

    Prints its prompt, seed, options, model, licence and machine, from the audio file or the .json file beside it.

    Example: magnet info disco.wav

    Example: magnet info clips/*.wav --sheet sheet.png
    """
    console = Console()
    with console.reporting():
        from magnet_cli.jobs.record import read_record

        records = [read_record(file) for file in files]
        for place, (file, record) in enumerate(zip(files, records, strict=True)):
            if json:
                console.result(record)
                continue
            if len(files) > 1:
                if place:
                    console.result("")
                console.result(f"{'file':<10} {file}")
            for name, value in told(record):
                console.result(f"{name:<10} {value}")
        if picture or sheet is not None:
            from magnet_cli.cli.picture import draw_files

            for path in draw_files(list(zip(files, records, strict=True)), each=picture, sheet=sheet, overwrite=force):
                console.message(f"drew {path}")


def told(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines that describe a record. What is missing is left out, and what has another type is shown as it is."""
    model, codes, output = (_part(record, name) for name in ("model", "codes", "output"))
    yield "prompt", _word(record.get("prompt"))
    if record.get("text", record.get("prompt")) != record.get("prompt"):
        yield "text", _word(record.get("text"))
    yield "seed", _word(record.get("seed"))
    yield "model", _words(model, "name", "repository", "revision") + f" ({licence_note(_word(model.get('licence')))})"
    yield "sampling", _options(_part(record, "sampling"))
    yield "edit", _options({name: value for name, value in _part(record, "edit").items() if value not in (False, [])})
    for role, helper in _part(record, "helpers").items():
        yield _word(role), _words(helper, "name", "repository", "revision") if isinstance(helper, dict) else ""
    yield "output", _options(output)
    clip = f"{_word(record.get('seconds'))} s, {_word(record.get('sample_rate'))} Hz"
    for name, unit in (("lufs", "LUFS"), ("true_peak", "dBTP")):
        value = record.get(name)
        clip += f", {decibels(value)} {unit}" if isinstance(value, float) else ""
    yield "clip", clip
    if tempo := _part(record, "tempo"):
        yield "tempo", f"{_word(tempo.get('bpm'))} bpm measured, clarity {_word(tempo.get('clarity'))}"
    yield "codes", f"{_word(codes.get('shape'))} sha256 {_word(codes.get('sha256'))}"
    yield "made", _words(record, "created", "device", "processor", "dtype")
    yield "seconds", _options(_part(record, "timings"))
    yield "versions", _options(_part(record, "versions"))


def _part(record: dict[str, Any], name: str) -> dict[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _words(values: dict[str, Any], *names: str) -> str:
    return " · ".join(_word(values[name]) for name in names if values.get(name) is not None)


def _options(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{_word(name).replace('_', '-')} {_word(value)}" for name, value in values.items() if value is not None
    )


def _word(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)  # never deep: see record._parse
    return visible(text)


def replay(
    file: File,
    *,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="File to write, folder, or template with {slug}, {seed} and {model}.",
            show_default="NAME-replay beside FILE",
            rich_help_panel="Files",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the codes and write no file.", rich_help_panel="Files")
    ] = False,
    files: Annotated[FileOptions, only("force")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar=options.MODEL_METAVAR,
            help="Model that generated the clip, where it has another name or place now.",
            show_default="as the clip's record says",
            rich_help_panel="Model files",
        ),
    ] = None,
    download: Download = False,
    places: PlacesConfig,
    device: Annotated[str | None, option_of(RuntimeConfig, "device", unset="the clip's own if it is here")] = None,
    dtype: Annotated[str | None, option_of(RuntimeConfig, "dtype", unset="the clip's own")] = None,
    speech: Speech,
) -> None:
    """Regenerate a clip and compare its codes, bit for bit.

    The exit code is 9 if the codes differ; the message then names what has changed.

    Example: magnet replay disco.wav --check
    """
    console = speech.console
    with console.reporting():
        from magnet_cli.hub.locate import resolve
        from magnet_cli.jobs.record import read_record, recipe
        from magnet_cli.pipeline.inputs import InputFiles

        record = read_record(file)
        wanted = recipe(record)
        target = plan_replay(file, output, wanted.job.prompt, wanted.job.seed)
        if not check:
            from magnet_cli.jobs.targets import check_targets

            check_targets([target], wanted.output, overwrite=files.force)
        runtime = runtime_as_then(record, device, dtype)
        named, helpers = resolve(model or wanted.model, places), resolve_helpers(wanted.helpers, places)
        if not download:
            for one in [*helpers.values(), *([named] if model is None else [])]:
                check_download(console, one)
        opened = open_parts(console, named, helpers)
        inputs = InputFiles()
        opened.group.checker(inputs)(wanted.job)
        pipeline = load(console, opened, runtime, inputs)

        from magnet_cli.jobs.manifest import Item
        from magnet_cli.jobs.record import differences
        from magnet_cli.jobs.writer import Product, Production
        from magnet_cli.pipeline.record import codes_hash

        production = Production(pipeline, named.given, wanted.output, overwrite=files.force, helpers=wanted.helpers)
        products: list[Product] = []
        make(console, production, [Item(wanted.job, target)], take=products.append, write=not check)
        (product,) = products
        same = codes_hash(product.clip.codes) == wanted.codes_sha256
        reasons = differences(record, product.record)
        if speech.json:
            console.result({"path": None if check else str(target.audio), "same": same, "differences": reasons})
        elif check:
            console.result("same" if same else "different")
        else:
            console.result(target.audio)
        if not same:
            why = "; ".join(reasons) or "nothing in the record differs, so the machine itself must"
            hint = "Rounding differs between devices and versions: replay on the machine and versions that generated it"
            raise ReplayError(f"the codes are not those of {file} ({why})", hint)
        console.message("the codes are the same, bit for bit")


def check_download(console: Console, model: ResolvedModel) -> None:
    """Ask before a download from a repository that only a clip's record names: others may have written that.

    UsageError where nobody can be asked. Released models, and what is on this machine, need no question.
    """
    from magnet_cli.hub.cache import MODEL, cached

    repository, places = model.repository, model.places
    if repository is None or model.folder is not None or places.offline or registered(repository) is not None:
        return
    if cached(repository, MODEL, places.cache_dir) is not None:
        return
    said = f"the clip's record names {repository}, which is neither a released model nor on this machine"
    if not console.can_ask:
        raise UsageError(said, "Check that you trust it and give --download, or name another one with --model")
    console.confirm(f"{said}. Download it?")


def plan_replay(file: Path, output: str | None, prompt: str, seed: int) -> Target:
    """The files of a replay."""
    if output is None:
        suffix = file.suffix if file.suffix.lower() in AUDIO_EXTENSIONS else AUDIO_EXTENSIONS[0]
        folder: Path | None = file.parent
        path = file.with_name(f"{file.stem}-replay{suffix}")
    else:
        folder, (path,) = plan_paths(output, [ClipName(prompt, seed)], model="replay", extensions=AUDIO_EXTENSIONS)
    return Target.beside(path, metadata=True, codes=False, folder=folder)


def runtime_as_then(record: dict[str, Any], device: str | None, dtype: str | None) -> RuntimeConfig:
    """The device and precision that a clip was generated with, unless others are given; compiled if it was then."""
    then = [record.get(name) if isinstance(record.get(name), str) else "auto" for name in ("device", "dtype")]
    try:
        wanted = RuntimeConfig(str(then[0]), then[1], compile=record.get("compiled") is True)  # type: ignore[arg-type]
    except UsageError:
        wanted = RuntimeConfig()
    if device is None:
        from magnet_cli.engines.device import is_available

        device = wanted.device if is_available(wanted.device) else "auto"
    precision = wanted.dtype if dtype is None else dtype
    return RuntimeConfig(device, precision, compile=wanted.compile and device.startswith("cuda"))  # type: ignore[arg-type]
