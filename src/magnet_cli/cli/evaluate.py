"""`magnet evaluate`: measures of finished clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magnet_cli.cli.run_jobs import load, open_parts
from magnet_cli.errors import BatchError, MagnetError, UsageError
from magnet_cli.options.runtime import PlacesConfig, RuntimeConfig
from magnet_cli.terminal import options
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.options import Speech
from magnet_cli.terminal.panels import aligned
from magnet_cli.terminal.signature import only

if TYPE_CHECKING:
    from magnet_cli.judge.clips import FoundClip
    from magnet_cli.judge.evaluation import Comparison, Evaluation
    from magnet_cli.judge.reference import SetDistances, SetEncoder
    from magnet_cli.judge.statistics import Estimate
    from magnet_cli.pipeline.pipeline import Pipeline


def evaluate(
    clips: Annotated[
        list[Path],
        typer.Argument(metavar="CLIPS...", help="Audio files, folders of them, or the manifest.jsonl of a batch."),
    ],
    *,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="CLIPS",
            help="Folder, file or manifest of other clips. Prints the mean differences between the clips of the same "
            "name, or else of the same prompt: first set minus this one.",
            rich_help_panel="Measurement",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            metavar="CLIPS",
            help="Folder, file or manifest of clips of the kind that is wanted. Prints the Fréchet and the kernel "
            "distance between the two sets, of the embeddings by --encoder.",
            rich_help_panel="Measurement",
        ),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder",
            metavar="spectrum|vggish",
            help="Encoder that computes the embeddings for --reference. spectrum: levels of bands, second by second. "
            "vggish: the network of the published Fréchet audio distance; needs --weights.",
            rich_help_panel="Measurement",
        ),
    ] = "spectrum",
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="Weights of --encoder vggish, the file vggish-10086976.pth of the torchvggish package.",
            show_default="none",
            rich_help_panel="Measurement",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="Prompts of the clips: a .csv, .tsv or .jsonl file with the columns path and prompt, a .txt file with "
            "one prompt for each clip in the order of their names, or the manifest.jsonl of a batch.",
            show_default="as the clips' records say",
            rich_help_panel="Measurement",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="NAME,NAME,...",
            help="Measures to take: tempo, tempo_right, silence, clipping, lufs, true_peak, bandwidth, stereo_width, "
            "repetition; with --model also comb and likelihood.",
            show_default="all",
            rich_help_panel="Measurement",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar=options.MODEL_METAVAR,
            help="MAGNeT model that judges how well each clip fits its prompt. Its codec encodes the clips.",
            show_default="none",
            rich_help_panel="Measurement",
        ),
    ] = None,
    runtime: Annotated[RuntimeConfig, only("device", "dtype")],
    places: PlacesConfig,
    speech: Annotated[Speech, only("json", "quiet", "log_file")],
) -> None:
    """Measure clips: tempo, loudness, faults, repetition, and how well they fit the text.

    Prints the measures of each clip and their means, with 95 % bootstrap intervals. With --json, the last object is the
    summary. Clips that cannot be measured are named, and the exit code is then 8.

    Example: magnet evaluate clips/

    Example: magnet evaluate clips/ --model small --metrics tempo_right,likelihood --json
    """
    console = speech.console
    with console.reporting():
        from magnet_cli.judge.clips import find_clips
        from magnet_cli.judge.measures import chosen
        from magnet_cli.judge.reference import SetEncoder

        wanted = None if metrics is None else [name.strip() for name in metrics.split(",") if name.strip()]
        names = chosen(wanted, has_model=model is not None)
        found = find_clips(clips, prompts)
        others = None if against is None else find_clips([against], prompts)
        wanted_kind = None if reference is None else find_clips([reference])
        judge = SetEncoder.of(encoder, weights)
        if others is not None and wanted_kind is not None:
            raise UsageError("--against and --reference cannot be combined", "Evaluate each set with --reference")
        pipeline = None if model is None else judging(console, model, runtime, places)
        first = measured(console, found, names, pipeline)
        if others is None:
            distances = None if wanted_kind is None else apart(console, found, wanted_kind, judge)
            show(console, first, distances, as_json=speech.json)
            check_complete(first)
        else:
            second = measured(console, others, names, pipeline)
            compare(console, first.against(second), as_json=speech.json)
            check_complete(first, second)


def judging(console: Console, model: str, runtime: RuntimeConfig, places: PlacesConfig) -> Pipeline:
    """The model that judges. UsageError for a MusicGen."""
    from magnet_cli.hub.locate import resolve

    resolved = resolve(model, places)
    if resolved.is_musicgen:
        raise UsageError(f"{model} is a MusicGen, which cannot judge clips", "Choose a MAGNeT model")
    return load(console, open_parts(console, resolved, {}), runtime)


def measured(
    console: Console, clips: Sequence[FoundClip], names: tuple[str, ...], pipeline: Pipeline | None
) -> Evaluation:
    """The measures of clips, with a bar and a warning about each that cannot be measured.

    Raises: the error itself if it is the only clip.
    """
    from magnet_cli.judge.evaluation import FailedClip, collected, judged

    if "likelihood" in names and (without := sum(clip.text is None for clip in clips)):
        console.warning(
            f"{without:,} of {len(clips):,} clips have no known prompt, and so no likelihood. Give --prompts."
        )
    with console.progress(len(clips)) as bar:

        def watched() -> Any:
            for done, one in enumerate(judged(clips, names, pipeline), 1):
                bar.advance(f"clip {done}/{len(clips)} · {one.clip.name}", 1)
                if isinstance(one, FailedClip):
                    if len(clips) == 1:
                        raise one.error
                    console.warning(f"{one.clip.path} was not measured: {one.error.message}.")
                elif one.scores.get("silence") == 1.0:
                    console.warning(f"{one.clip.path} is silent.")
                yield one

        return collected(names, watched())


def apart(
    console: Console, clips: Sequence[FoundClip], reference: Sequence[FoundClip], encoder: SetEncoder
) -> SetDistances:
    """How far clips are from a reference, with a warning about each distance that is refused."""
    from magnet_cli.judge.reference import embedded, set_distances

    def left_out(clip: FoundClip, error: MagnetError) -> None:
        console.warning(f"{clip.path} is left out of the distances: {error.message}.")

    with console.busy("embedding the clips"):
        sets = [embedded(one, encoder, left_out) for one in (clips, reference)]
        found = set_distances(sets[0], sets[1], encoder)
    for reason in dict.fromkeys(found.refused.values()):
        console.warning(f"{reason}.")
    return found


def check_complete(*evaluations: Evaluation) -> None:
    """Raise BatchError if clips could not be measured."""
    failed = sum(len(one.failed) for one in evaluations)
    if failed:
        total = failed + sum(len(one.clips) for one in evaluations)
        raise BatchError(f"{failed:,} of {total:,} clips could not be measured", "See the warnings above")


# -- what is printed --------------------------------------------------------------------------------------------------


def show(console: Console, evaluation: Evaluation, distances: SetDistances | None, *, as_json: bool) -> None:
    """Print the measures of every clip, their means, and the distances to a reference."""
    summary = evaluation.summary
    if as_json:
        for one in evaluation.clips:
            console.result(one.plain)
        reference = {} if distances is None else {"reference": distances.plain}
        console.result({"summary": {"clips": len(evaluation.clips), **plain(summary), **reference}})
        return
    if not evaluation.clips:
        return
    from magnet_cli.judge.measures import MEASURES

    names = [name for name in evaluation.names if any(one.scores[name] is not None for one in evaluation.clips)]
    rows = [["file", *(MEASURES[name].heading for name in names)]]
    for one in evaluation.clips:
        cells = [(MEASURES[name], one.scores[name]) for name in names]
        rows.append([one.clip.name, *("-" if value is None else measure.form(value) for measure, value in cells)])
    for line in aligned(rows):
        console.result(line)
    console.result("")
    show_means(console, "mean", summary)
    if distances is not None:
        console.result("")
        named = {"Fréchet": distances.frechet, "Fréchet of infinite": distances.frechet_infinite}
        named["kernel"] = distances.kernel
        rows = [["distance to the reference", distances.encoder]]
        rows += [[name, f"{value:.4g}"] for name, value in named.items() if value is not None]
        for line in aligned(rows):
            console.result(line)


def compare(console: Console, comparison: Comparison, *, as_json: bool) -> None:
    """Print the differences between two sets of clips."""
    summary = comparison.summary
    if comparison.unpaired or comparison.others_unpaired:
        console.warning(
            f"clips without a partner were left out: {comparison.unpaired:,} of the first set, "
            f"{comparison.others_unpaired:,} of the other."
        )
    if as_json:
        for first, second in comparison.pairs:
            console.result({"path": str(first.clip.path), "against": str(second.clip.path), **_pair(first, second)})
        console.result({"differences": {"pairs": len(comparison.pairs), **plain(summary)}})
        return
    show_means(console, "mean difference", summary)


def _pair(first: Any, second: Any) -> dict[str, Any]:
    return {name: [value, second.scores.get(name)] for name, value in first.scores.items()}


def show_means(console: Console, heading: str, summary: dict[str, Estimate | None]) -> None:
    """Print a table of means and their intervals."""
    from magnet_cli.judge.measures import MEASURES

    rows = [["measure", heading, "95 % interval", "clips"]]
    for name, one in summary.items():
        if one is not None:
            form = MEASURES[name].form
            bounds = "-" if one.low is None or one.high is None else f"{form(one.low)} to {form(one.high)}"
            rows.append([name, form(one.mean), bounds, f"{one.count:,}"])
    for line in aligned(rows):
        console.result(line)


def plain(summary: dict[str, Estimate | None]) -> dict[str, Any]:
    """Means as JSON has them."""
    return {name: None if one is None else asdict(one) for name, one in summary.items()}
