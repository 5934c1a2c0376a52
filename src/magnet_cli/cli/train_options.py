"""Options that both trainings have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="Folder of audio: metadata.jsonl or .csv, or .json or .txt beside files.")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="The folder to write; DIR.run keeps state, log, samples.")
]
Steps = Annotated[int, typer.Option("--steps", help="Updates of the weights, in all.")]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Clips in an update, over all processes together.")]
Seed = Annotated[int, typer.Option("--seed", help="Of everything random.")]
Rate = Annotated[float, typer.Option("--learning-rate", help="The highest; AdamW.")]
Warmup = Annotated[int, typer.Option("--warmup", help="Steps to get there, linearly.")]
LastRate = Annotated[float, typer.Option("--last-rate", help="Where the cosine ends, as a share of the highest.")]
SaveEvery = Annotated[int, typer.Option("--save-every", help="Steps between saved states and bundles.")]
SampleEvery = Annotated[int, typer.Option("--sample-every", help="Steps between audio samples; 0: none.")]
LogEvery = Annotated[int, typer.Option("--log-every", help="Steps between lines of log.csv.")]
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Log for TensorBoard, too.")]
Restart = Annotated[bool, typer.Option("--restart", help="Begin anew instead of going on with an earlier training.")]
OnCpu = Annotated[bool, typer.Option("--cpu", help="Train on the CPU, whatever accelerate finds.")]
