"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer

from magnet_cli.hub.registry import DEFAULT_MODEL, NON_COMMERCIAL, UNKNOWN_LICENCE
from magnet_cli.options.runtime import DTypeName
from magnet_cli.options.sampling import PRESETS

T = TypeVar("T")

ModelDir = Annotated[
    Path | None,
    typer.Option(
        "--model-dir",
        envvar="MAGNET_MODEL_DIR",
        metavar="DIR",
        help="The folder of converted models. [default: in the user's cache folder]",
        show_default=False,
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        envvar="MAGNET_CACHE_DIR",
        metavar="DIR",
        help="The folder of downloads. [default: the Hub cache]",
        show_default=False,
    ),
]
Offline = Annotated[bool, typer.Option("--offline", envvar="MAGNET_OFFLINE", help="Make no request to the Hub.")]
Model = Annotated[str, typer.Option("--model", "-m", metavar="NAME|HUB_ID|FOLDER", help="Which checkpoint.")]
OptionalModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|HUB_ID|FOLDER",
        help=f"Which checkpoint. [default: {DEFAULT_MODEL}; the bundled one where that cannot be had]",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None, typer.Option(help="Same seed, same clip. [default: drawn, and reported]", show_default=False)
]
Variations = Annotated[
    int, typer.Option("--variations", "-n", help="Clips for each prompt, with seeds SEED, SEED+1, ...")
]
PresetName = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(PRESETS), help="; ".join(f"{name}: {one.summary}" for name, one in PRESETS.items()) + "."
    ),
]
Steps = Annotated[str | None, typer.Option(metavar="N,N,N,N", help="Decoding steps for each codebook.")]
Temperature = Annotated[float | None, typer.Option(help="Softmax temperature.")]
TopP = Annotated[float | None, typer.Option(help="Draw from the codes that hold this probability.")]
TopK = Annotated[int | None, typer.Option(help="Draw from the K most probable codes instead.")]
Greedy = Annotated[bool, typer.Option("--greedy", help="Take the most probable code.")]
Guidance = Annotated[float | None, typer.Option(help="How strongly the text guides, at first.")]
MinGuidance = Annotated[float | None, typer.Option(help="... and at last.")]
SpansName = Annotated[str | None, typer.Option(metavar="nonoverlap|stride1", help="Where spans lie.")]
SpanScoreName = Annotated[str | None, typer.Option(metavar="max|prod", help="How spans are ranked.")]
NoAnneal = Annotated[bool, typer.Option("--no-anneal", help="Keep the temperature constant.")]
Duration = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Less than the model's clip: cut. More: go on in windows. [default: a clip]"),
]
Overlap = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="What each window shares with the one before. [default: half a clip]"),
]
Continue = Annotated[
    str | None, typer.Option("--continue", metavar="FILE", help="Begin with the end of this audio file.")
]
Keep = Annotated[float | None, typer.Option(metavar="SECONDS", help="How much of it. [default: a third of the clip]")]
Join = Annotated[bool, typer.Option("--join", help="Put the clip behind the file, as one sound.")]
Inpaint = Annotated[str | None, typer.Option(metavar="FILE", help="Make parts of this audio file anew.")]
Regions = Annotated[
    list[str] | None,
    typer.Option(
        "--region", metavar="FROM:TO", help="Which parts, in seconds; give it again for more.", show_default=False
    ),
]
Vary = Annotated[float | None, typer.Option(metavar="SHARE", help="Which share of the rest, 0 to 1.")]
Blend = Annotated[bool, typer.Option("--blend", help="Keep the file's own samples everywhere else.")]
LoopFlag = Annotated[bool, typer.Option("--loop", help="The end of the clip meets its beginning.")]
Bpm = Annotated[float | None, typer.Option(help="Make the loop whole bars at this tempo.")]
Bars = Annotated[int | None, typer.Option(help="How many bars. [default: 1, 2, 4, ... as many as fit]")]
Hybrid = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="Let a MusicGen make the beginning, frame after frame.")
]
HybridModel = Annotated[str, typer.Option("--hybrid-model", metavar="NAME|FOLDER", help="Which MusicGen.")]
Negative = Annotated[str | None, typer.Option(metavar="TEXT", help="What it should not sound like. Experimental.")]
Unconditional = Annotated[bool, typer.Option("--unconditional", help="Without any text.")]
RescorerName = Annotated[
    str | None,
    typer.Option("--rescorer", metavar="NAME|HUB_ID|FOLDER", help="A second model that helps to choose what is kept."),
]
RescoreWeight = Annotated[
    float | None, typer.Option(metavar="W", help="The model's own share in that, 0 to 1. [default: 0.7]")
]
NormalizeName = Annotated[
    str,
    typer.Option(metavar="auto|loudness|peak|none", help="What to normalize; auto: loudness, but not what is kept."),
]
Lufs = Annotated[float, typer.Option(help="Target loudness, LUFS.")]
TruePeak = Annotated[float, typer.Option(help="Ceiling for the true peak, dBTP.")]
SubtypeName = Annotated[str, typer.Option(metavar="pcm16|pcm24|float32", help="Sample format.")]
SaveCodes = Annotated[bool, typer.Option("--save-codes", help="Write <name>.codes.npz, too.")]
NoMetadata = Annotated[
    bool, typer.Option("--no-metadata", help="Neither write <name>.json nor embed how the clip was made.")
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]|mps", help="Which device.")]
DTYPES = "|".join(get_args(DTypeName))
DType = Annotated[str, typer.Option(metavar=DTYPES, help="Precision of the decoder.")]
Compile = Annotated[
    bool, typer.Option("--compile", help="On a GPU, for long runs: compile the decoder, which takes tens of seconds.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and results only.")]


def chosen(kind: Callable[..., T], context: typer.Context) -> T:
    """The options of a command that are fields of this dataclass."""
    return kind(**given(kind, context))


def given(kind: Callable[..., object], context: typer.Context) -> dict[str, Any]:
    """Those options of a command that are fields of a dataclass and are set."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in context.params.items()
        if name in names and value is not None and value is not False and value != []
    }


def licence_note(licence: str) -> str:
    """What the weights allow, in words."""
    if licence == UNKNOWN_LICENCE:
        return "weights of unknown licence"
    return f"weights {licence}, non-commercial use only" if licence == NON_COMMERCIAL else f"weights {licence}"


def human(size: float) -> str:
    """Bytes in words: 1.9 GB."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
