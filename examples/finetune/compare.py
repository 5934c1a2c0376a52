"""How close the clips of several models are to those of a folder: does fine-tuning bring the style nearer?

    python examples/finetune/compare.py chiptune bundled mine

Each model generates a clip for the first caption of each file in the folder, with seed 0. Printed is the Fréchet
distance of their features (`examples/bundled/measures.py`) to those of the files after the codec of the first model:
the smaller, the closer. What the codec loses is in neither, because no training of a decoder can bring it back.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import soundfile
import torch

from magnet_cli import Pipeline, RuntimeConfig

sys.path.append(str(Path(__file__).parents[1] / "bundled"))
from measures import features, frechet_distance


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare what models generate with the clips of a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+")
    options = parser.parse_args()
    lines = (options.folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    wanted = np.zeros((0, 0))
    for name in options.models:
        pipeline = Pipeline.load(name, RuntimeConfig(device="cpu"))
        if not len(wanted):
            paths = [options.folder / row["file_name"] for row in rows]
            wanted = np.array([features(coded(pipeline, path), pipeline.codec.config.sample_rate) for path in paths])
        clips = pipeline.generate([row["text"][0] for row in rows], seed=0)
        found = np.array([features(clip.waveform[0], clip.sample_rate) for clip in clips])
        print(f"{frechet_distance(found, wanted):8.1f}  {name}")


def coded(pipeline: Pipeline, path: Path) -> np.ndarray:
    """The waveform of a file, which has the codec's sample rate, after the codec."""
    waveform = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    return pipeline.codec.decode(pipeline.codec.encode(waveform[None, None]))[0, 0].numpy()


if __name__ == "__main__":
    main()
