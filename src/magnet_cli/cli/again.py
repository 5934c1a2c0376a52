"""`magnet again`: more clips like one that is liked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from magnet_cli.audio.formats import AUDIO_EXTENSIONS
from magnet_cli.cli.hear import PlayOption
from magnet_cli.cli.info import Download, File, check_download
from magnet_cli.cli.new_clips import Order, SweepOption, make_new_clips
from magnet_cli.jobs.naming import SINGLE_TEMPLATE, with_swept
from magnet_cli.jobs.sweep import Combination, combinations
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import check_prompt
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.options.sampling_overrides import Overrides
from magnet_cli.terminal import options
from magnet_cli.terminal.options import ClipOptions, FileOptions, HelperOptions, Speech
from magnet_cli.terminal.signature import given_of, without

AS_RECORDED = "the clip's own"


def again(
    file: File,
    *,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            "-p",
            metavar="TEXT",
            help="Text that describes the sound.",
            show_default=AS_RECORDED,
            rich_help_panel="Clips",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar=options.MODEL_METAVAR,
            help=options.MODEL_HELP,
            show_default=AS_RECORDED,
            rich_help_panel="Clips",
        ),
    ] = None,
    clips: ClipOptions,
    sweep: SweepOption = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="File to write, folder, - for a WAV file on standard output, or "
            "template with {index}, {slug}, {seed}, {model} and swept options.",
            show_default="new files beside FILE",
            rich_help_panel="Files",
        ),
    ] = None,
    files: FileOptions,
    play: PlayOption = False,
    overrides: Annotated[Mapping[str, Any], given_of(Overrides, unset=AS_RECORDED)],
    edit: Annotated[Mapping[str, Any], given_of(EditConfig, unset=AS_RECORDED)],
    helpers: Annotated[Mapping[str, Any], given_of(HelperOptions, unset=AS_RECORDED)],
    finish: Annotated[Mapping[str, Any], given_of(OutputConfig, unset=AS_RECORDED)],
    download: Download = False,
    runtime: Annotated[RuntimeConfig, without("batch_size")],
    places: PlacesConfig,
    speech: Speech,
) -> None:
    """Generate more clips like one that magnet generated.

    The prompt, the model and all options are those of the clip, but for those that you give. The seeds are new.
    Prints the path of each file it writes.

    Example: magnet again disco-beat.wav -n 8 --guidance 5
    """
    console = speech.console
    with console.reporting():
        from magnet_cli.hub.locate import resolve
        from magnet_cli.jobs.record import read_record, recipe

        then = recipe(read_record(file))
        if prompt is not None:
            check_prompt(prompt)
        named = resolve(model or then.model, places)
        swept = combinations(sweep or [])
        changed = replace(then.job.edit, **edit)
        recorded = {"rescorer": then.helpers.get("rescorer"), "hybrid_model": then.helpers.get("hybrid")}
        helping = HelperOptions(**{name: one for name, one in recorded.items() if one is not None} | dict(helpers))
        names = helping.names(hybrid=changed.hybrid is not None)
        order = Order(
            texts=[then.job.prompt if prompt is None else prompt],
            clips=clips,
            model=named,
            helpers=names,
            sampling=then.job.sampling,
            overrides=Overrides(**overrides),
            edit=changed,
            combinations=swept,
            finish=replace(then.output, **finish),
            output=new_names_beside(file, swept[0]) if output is None else output,
            files=files,
            play=play,
            fallback=None,
        )
        if not download:
            for one in [*(resolve(name, places) for name in names.values()), *([named] if model is None else [])]:
                check_download(console, one)
        make_new_clips(console, order, runtime, speech)


def new_names_beside(file: Path, swept: Combination) -> str:
    """The template of new files in the folder of a clip, in its format."""
    suffix = file.suffix if file.suffix.lower() in AUDIO_EXTENSIONS else AUDIO_EXTENSIONS[0]
    folder = str(file.parent).replace("{", "{{").replace("}", "}}")
    return f"{folder}/{with_swept(SINGLE_TEMPLATE, [name for name, _ in swept.words], suffix)}"
