"""Measure a model trained on the data of `render.py`: does what it makes follow its text?

    python examples/bundled/report.py BUNDLE data --out report

For each held-out prompt the model makes a clip; the measures know only audio (`magnet_cli.evaluate`). Beside them stand
the same measures for what FluidSynth plays for these prompts, as it is and through the model's codec, and for chance.
Writes `report.json` and `report.md`, the clips, and spectrograms of the first prompts of six styles.
"""

from __future__ import annotations

import argparse
import io
import json
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from magnet_cli import OutputConfig, Pipeline, RuntimeConfig, SamplingConfig
from magnet_cli.evaluate import (
    Classifier,
    features,
    magnitudes,
    mel_distance,
    percussive_share,
    same_tempo,
    si_sdr,
    tempo,
)

SHOWN = ("piano", "drums", "disco", "rock", "strings", "flute")
LEARNED = 600  # rendered clips that the classifier learns from
OPUS = 1.0  # libsndfile's strongest compression


def read(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


def coded(pipeline: Pipeline, waveform: np.ndarray) -> np.ndarray:
    """A waveform through the codec."""
    return pipeline.codec.decode(pipeline.codec.encode(torch.from_numpy(waveform)[None, None]))[0, 0].numpy()


def opus(waveform: np.ndarray, rate: int) -> tuple[np.ndarray, float]:
    """A waveform through Opus at its lowest rate, and that rate in kbit/s."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format="OGG", subtype="OPUS", compression_level=OPUS)
    size = buffer.tell()
    buffer.seek(0)
    copy, copied_rate = soundfile.read(buffer, dtype="float32")
    if copied_rate != rate:
        raise SystemExit(f"error: Opus gave {copied_rate} Hz for {rate} Hz")
    copy = np.pad(copy, (0, max(0, len(waveform) - len(copy))))[: len(waveform)]
    return copy, 8 * size / 1000 / (len(waveform) / rate)


def follow(rows: list[dict[str, Any]], clips: list[np.ndarray], rate: int, classifier: Classifier) -> dict[str, Any]:
    """How clips keep to what their prompts ask for."""
    found = [tempo(clip, rate) for clip in clips]
    timed = [index for index, row in enumerate(rows) if row["bpm"]]
    right = [same_tempo(found[index], rows[index]["bpm"]) for index in timed]
    random = np.random.default_rng(0)
    chance = [
        np.mean([same_tempo(found[a], rows[b]["bpm"]) for a, b in zip(timed, random.permutation(timed), strict=True)])
        for _ in range(200)
    ]
    kinds = [classifier.kind(features(clip, rate)) for clip in clips]
    shares: dict[str, list[float]] = {}
    for row, clip in zip(rows, clips, strict=True):
        shares.setdefault(row["style"], []).append(percussive_share(clip, rate))
    return {
        "tempo": float(np.mean(right)),
        "tempo_chance": float(np.mean(chance)),
        "style": float(np.mean([kind == row["style"] for kind, row in zip(kinds, rows, strict=True)])),
        "style_chance": 1 / len(classifier.kinds),
        "percussive": {style: float(np.mean(values)) for style, values in shares.items()},
        "clips": [
            {"text": row["text"], "style": row["style"], "heard": kind, "bpm": row["bpm"], "tempo": bpm}
            for row, kind, bpm in zip(rows, kinds, found, strict=True)
        ],
    }


def copies(rows: list[np.ndarray], rate: int, through: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
    """How close copies are to their originals."""
    pairs = [(through(original), original) for original in rows]
    return {
        "si_sdr": float(np.mean([si_sdr(copy[: len(one)], one[: len(copy)]) for copy, one in pairs])),
        "mel_db": float(np.mean([mel_distance(copy[: len(one)], one[: len(copy)], rate) for copy, one in pairs])),
    }


def spectrogram(path: Path, waveform: np.ndarray, rate: int) -> None:
    """A grey PNG: 10 seconds across, 0 Hz to half the rate upwards, 70 dB from white to black."""
    levels = 20 * np.log10(magnitudes(waveform, rate, 0.03) + 1e-9)
    levels = levels[: levels.shape[0] // 2 * 2].reshape(-1, 2, levels.shape[1]).max(axis=1)[::-1]
    grey = (255 * np.clip((levels.max() - levels) / 70, 0, 1)).astype(np.uint8)
    lines = b"".join(b"\0" + line.tobytes() for line in grey)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines, 9)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def as_markdown(report: dict[str, Any]) -> str:
    """The figures as tables."""
    names = {"model": "the model", "coded": "rendered, through the codec", "rendered": "rendered"}
    lines = ["| | chance | " + " | ".join(names.values()) + " |", "| --- | --- | --- | --- | --- |"]
    for key, words in (("tempo", "tempo within 4 %, or its double or half"), ("style", "style recognized")):
        cells = [f"{report['model'][key + '_chance']:.0%}", *(f"{report[name][key]:.0%}" for name in names)]
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    for style in ("drums", "piano"):
        cells = ["", *(f"{report[name]['percussive'][style]:.0%}" for name in names)]
        lines.append(f"| percussive energy where {style} is asked for | " + " | ".join(cells) + " |")
    lines += ["", "| codec | kbit/s | SI-SDR, dB | mel distance, dB |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {one['kbps']:.2f} | {one['si_sdr']:.1f} | {one['mel_db']:.1f} |"
        for name, one in report["codec"].items()
    ]
    seconds = report["seconds_per_clip"]
    return "\n".join([*lines, "", f"A clip took {seconds:.1f} s with {report['threads']} threads.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a model trained on rendered music.")
    parser.add_argument("bundle")
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("report"))
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--steps")
    options = parser.parse_args()
    pipeline = Pipeline.load(options.bundle, RuntimeConfig(device="cpu"))
    rate, sampling = pipeline.info.sample_rate, pipeline.info.sampling
    sampling = SamplingConfig(
        steps=tuple(map(int, options.steps.split(","))) if options.steps else sampling.steps,
        temperature=options.temperature or sampling.temperature,
        guidance=options.guidance or sampling.guidance,
        top_p=sampling.top_p,
        min_guidance=sampling.min_guidance,
    )
    held = options.data / "held-out"
    rows = [json.loads(line) for line in (held / "prompts.jsonl").read_text().splitlines()][: options.prompts]
    rendered = [read(held / row["file_name"]) for row in rows]

    shown = [json.loads(line) for line in (options.data / "metadata.jsonl").read_text().splitlines()][:LEARNED]
    vectors = np.array([features(read(options.data / row["file_name"]), rate) for row in shown])
    classifier = Classifier.learn(vectors, [row["style"] for row in shown])

    start = time.perf_counter()
    made = []
    options.out.mkdir(parents=True, exist_ok=True)
    plain = OutputConfig(normalize="peak")
    for index, row in enumerate(rows):
        clip = next(pipeline.generate(row["text"], seed=index, sampling=sampling, output=plain))
        made.append(clip.waveform[0])
        soundfile.write(options.out / f"{index:02d}-{row['style']}.flac", clip.waveform[0], rate, subtype="PCM_16")
    seconds = (time.perf_counter() - start) / len(rows)

    copied = [coded(pipeline, one) for one in rendered]
    squeezed = [opus(one, rate) for one in rendered]
    bits = pipeline.codec.config.codebooks * np.log2(pipeline.codec.config.codes) * pipeline.codec.config.frame_rate
    stored = iter(copied), iter(squeezed)
    report: dict[str, Any] = {
        "model": follow(rows, made, rate, classifier),
        "coded": follow(rows, copied, rate, classifier),
        "rendered": follow(rows, rendered, rate, classifier),
        "codec": {
            "this codec": {"kbps": bits / 1000, **copies(rendered, rate, lambda _: next(stored[0]))},
            "Opus": {
                "kbps": float(np.mean([kbps for _, kbps in squeezed])),
                **copies(rendered, rate, lambda _: next(stored[1])[0]),
            },
        },
        "seconds_per_clip": seconds,
        "threads": torch.get_num_threads(),
    }
    (options.out / "report.json").write_text(json.dumps(report, indent=1))
    (options.out / "report.md").write_text(as_markdown(report))
    for style in SHOWN:
        index = next((index for index, row in enumerate(rows) if row["style"] == style), None)
        if index is not None:
            spectrogram(options.out / f"{style}.png", made[index], rate)
    print(as_markdown(report))


if __name__ == "__main__":
    main()
