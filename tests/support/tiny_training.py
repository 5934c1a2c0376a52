"""Trainings of a moment: what the tests of `magnet train decoder` share. The data is in `train/conftest.py`."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

from magnet_cli.options.runtime import RuntimeConfig
from magnet_cli.pipeline.pipeline import Pipeline

RATE, SECONDS = 8000, 2.4
TEXTS = ("low hum", "high whistle", "soft noise", "loud clicks")
# A decoder of 30 thousand weights on clips of 48 frames.
SMALL = shlex.split(
    "--width 32 --heads 2 --layers 2 --feed-forward 64 --clip-seconds 2.4 --text-encoder own --text-width 16 "
    "--text-layers 1 --text-heads 2 --vocabulary 300 --batch-size 4 --learning-rate 5e-3 --warmup 10 --log-every 1 "
    "--sample-every 0 --seed 3 --dtype float32 --cpu -q"
)


def load(folder: Path) -> Pipeline:
    return Pipeline.load(str(folder), RuntimeConfig(device="cpu"))


def losses(run: Path) -> dict[int, float]:
    with (run / "log.csv").open() as file:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file) if row["loss"]}
