"""`--best-of`: several candidates for each loop, of which the one whose tempo is nearest is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from magnet_cli.cli.run_jobs import describe_clip, describe_tempo, make
from magnet_cli.errors import UsageError
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import MOST_VARIATIONS
from magnet_cli.terminal.console import Console

if TYPE_CHECKING:
    from magnet_cli.jobs.manifest import Item
    from magnet_cli.jobs.writer import Product, Production
    from magnet_cli.music.tempo import Tempo

BestOfOption = Annotated[
    int,
    typer.Option(
        "--best-of",
        metavar="N",
        help="Generate N candidates for each loop, with consecutive seeds, and keep the one whose tempo is nearest to "
        "--bpm; of several at that tempo, the one with the clearest beat.",
        rich_help_panel="Clips",
    ),
]


def check_best_of(count: int, edit: EditConfig, variations: int) -> None:
    """Raise UsageError for a number of candidates that cannot be, or clips that have no tempo to compare."""
    most = MOST_VARIATIONS // max(variations, 1)
    if count != 1 and not 1 <= count <= most:
        raise UsageError(f"best-of must be from 1 to {most:,}, not {count}", "Give e.g. --best-of 4")
    if count > 1 and edit.bpm is None:
        raise UsageError("--best-of compares the tempi of loops", "Give --loop and --bpm too, e.g. --loop --bpm 120")


def rank(tempo: Tempo | None, bpm: float) -> tuple[float, float]:
    """Less is better: how far the tempo is from `bpm`, in octaves, 0 if it is near; then how unclear the beat is."""
    if tempo is None:
        return math.inf, 0.0
    return 0.0 if tempo.is_near(bpm) else abs(math.log2(tempo.bpm / bpm)), -tempo.clarity


def make_best(
    console: Console,
    production: Production,
    items: Sequence[Item],
    count: int,
    *,
    take: Callable[[Product], object],
) -> None:
    """Generate items, `count` consecutive ones for each clip, and write the best of them, which `take` receives."""
    for first in range(0, len(items), count):
        best: list[Product] = []

        def compare(product: Product, best: list[Product] = best) -> None:
            console.detail(f"candidate of seed {product.item.job.seed}: {describe_tempo(product.clip)[:-2]}")
            bpm = product.item.job.edit.bpm
            if not best or (bpm is not None and rank(product.clip.tempo, bpm) < rank(best[0].clip.tempo, bpm)):
                best[:] = [product]

        make(console, production, items[first : first + count], take=compare, write=False)
        for product in best:
            production.write(product, production.encode(product))
            said = describe_clip(product.clip, product.item.target, production.output)
            console.message(f"{said}; the best of {count}")
            take(product)
