"""Data and a codec for trainings of a moment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from support.tiny_training import RATE, SECONDS, TEXTS


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips that sound different, with a text each."""
    folder = tmp_path_factory.mktemp("data")
    time_axis = np.arange(int(RATE * SECONDS)) / RATE
    random = np.random.default_rng(0)
    waves = (
        np.sin(2 * np.pi * 110 * time_axis),
        np.sin(2 * np.pi * (900 + 300 * time_axis) * time_axis),
        random.normal(0, 0.3, len(time_axis)) * np.linspace(0, 1, len(time_axis)),
        (time_axis % 0.3 < 0.02) * random.normal(0, 0.5, len(time_axis)),
    )
    rows = []
    for index, (wave, text) in enumerate(zip(waves, TEXTS, strict=True)):
        soundfile.write(folder / f"{index}.wav", 0.5 * wave, RATE)
        rows.append(json.dumps({"file_name": f"{index}.wav", "text": [text]}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="session")
def codec(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec trained for a moment: its codes differ between the clips, which is all that is asked of it."""
    from magnet_cli.train.codec import train_codec
    from magnet_cli.train.options import CodecShape, CodecTraining, RunOptions

    folder = tmp_path_factory.mktemp("codec") / "codec"
    shape = CodecShape(sample_rate=RATE, ratios=(8, 5, 5, 2), filters=2, dimension=8, lstm=0, codebooks=2, codes=16)
    run = RunOptions(steps=8, batch_size=4, sample_every=0, device="cpu")
    train_codec(data, folder, shape=shape, run=run, options=CodecTraining(adversarial_from=99))
    return folder
