"""Measure a model trained on the data of `render.py`: does what it makes follow its text?

    python examples/bundled/report.py BUNDLE data --out report
    python examples/bundled/report.py BUNDLE data --out report --try fast best "temperature=2 guidance=5"

For each held-out prompt the model makes a clip; the measures know only audio (`measures.py`). Beside them stand
the same measures for what FluidSynth plays for these prompts, as it is and through the model's codec, and for chance.
Writes `report.json` and `report.md`, the clips, and spectrograms of the first prompts of six styles. With `--try` it
compares ways to sample instead: each is a preset, or options with their values, among them a rescorer.
"""

from __future__ import annotations

import argparse
import io
import json
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from magnet_cli import OutputConfig, Pipeline, RuntimeConfig, SamplingConfig
from magnet_cli.options.sampling import PRESETS
from magnet_cli.options.sampling_overrides import Overrides
from measures import (
    Classifier,
    features,
    frechet_distance,
    magnitudes,
    mel_distance,
    percussive_share,
    same_tempo,
    si_sdr,
    tempo,
)

SHOWN = ("piano", "drums", "disco", "rock", "strings", "flute")
LEARNED = 880  # rendered clips that the classifier learns from, as they are and through the codec
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


@dataclass(frozen=True)
class Judge:
    """What tells how well clips keep to what their prompts ask for, from rendered clips and nothing else.

    rows: the prompts with what they ask for; vectors: features of rendered clips; rate: Hz.
    """

    rows: list[dict[str, Any]]
    classifier: Classifier
    vectors: np.ndarray
    rate: int

    @classmethod
    def learn(cls, data: Path, prompts: int, pipeline: Pipeline) -> Judge:
        """The codec dulls every sound: a classifier that had never heard it would judge that and not the music."""
        rate = pipeline.info.sample_rate
        rows = [json.loads(line) for line in (data / "held-out" / "prompts.jsonl").read_text().splitlines()]
        shown = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()][:LEARNED]
        clips = [read(data / row["file_name"]) for row in shown]
        vectors = np.array([features(clip, rate) for clip in clips])
        dulled = np.array([features(coded(pipeline, clip), rate) for clip in clips])
        classifier = Classifier.learn(np.concatenate([vectors, dulled]), 2 * [row["style"] for row in shown])
        return cls(rows[:prompts], classifier, vectors, rate)

    def figures(self, clips: list[np.ndarray]) -> dict[str, Any]:
        return follow(self.rows, clips, self.rate, self.classifier, self.vectors)


def follow(
    rows: list[dict[str, Any]], clips: list[np.ndarray], rate: int, classifier: Classifier, vectors: np.ndarray
) -> dict[str, Any]:
    """How clips keep to what their prompts ask for, and how near all of them are to rendered ones."""
    found = [tempo(clip, rate) for clip in clips]
    timed = [index for index, row in enumerate(rows) if row["bpm"]]
    right = [same_tempo(found[index], rows[index]["bpm"]) for index in timed]
    random = np.random.default_rng(0)
    chance = [
        np.mean([same_tempo(found[a], rows[b]["bpm"]) for a, b in zip(timed, random.permutation(timed), strict=True)])
        for _ in range(200)
    ]
    own = np.array([features(clip, rate) for clip in clips])
    kinds = [classifier.kind(vector) for vector in own]
    shares: dict[str, list[float]] = {}
    for row, clip in zip(rows, clips, strict=True):
        shares.setdefault(row["style"], []).append(percussive_share(clip, rate))
    return {
        "tempo": float(np.mean(right)),
        "tempo_chance": float(np.mean(chance)),
        "style": float(np.mean([kind == row["style"] for kind, row in zip(kinds, rows, strict=True)])),
        "style_chance": 1 / len(classifier.kinds),
        "distance": frechet_distance(
            (own - classifier.mean) / classifier.scale, (vectors - classifier.mean) / classifier.scale
        ),
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
    cells = ["", *(f"{report[name]['distance']:.1f}" for name in names)]
    lines.append("| Fréchet distance of features to rendered clips | " + " | ".join(cells) + " |")
    lines += ["", "| codec | kbit/s | SI-SDR, dB | mel distance, dB |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {one['kbps']:.2f} | {one['si_sdr']:.1f} | {one['mel_db']:.1f} |"
        for name, one in report["codec"].items()
    ]
    seconds = report["seconds_per_clip"]
    return "\n".join([*lines, "", f"A clip took {seconds:.1f} s with {report['threads']} threads.", ""])


def generate(
    pipeline: Pipeline, rows: list[dict[str, Any]], sampling: SamplingConfig
) -> tuple[list[np.ndarray], float]:
    """A clip for each prompt, and the seconds that one takes."""
    start = time.perf_counter()
    plain = OutputConfig(normalize="peak")
    clips = [
        next(pipeline.generate(row["text"], seed=index, sampling=sampling, output=plain)).waveform[0]
        for index, row in enumerate(rows)
    ]
    return clips, (time.perf_counter() - start) / len(rows)


def parse_way(way: str) -> tuple[Overrides, str | None]:
    """`fast`, or `temperature=2 rescorer=FOLDER`: options over a model's own, and what rescores."""
    given: dict[str, Any] = dict(word.split("=", 1) if "=" in word else ("preset", word) for word in way.split())
    rescorer = given.pop("rescorer", None)
    numbers = {"temperature": float, "top_p": float, "top_k": int, "guidance": float, "min_guidance": float}
    kinds = {**numbers, "rescore_weight": float}
    return Overrides(**{name: kinds.get(name, str)(value) for name, value in given.items()}), rescorer


def compare_ways(bundle: str, judge: Judge, ways: list[str], out: Path) -> str:
    """A table of ways to sample, the model's own first."""
    lines = ["| | tempo | style | Fréchet distance | s per clip |", "| --- | --- | --- | --- | --- |"]
    records = {}
    for way in ["", *ways]:
        overrides, rescorer = parse_way(way)
        pipeline = Pipeline.load(bundle, RuntimeConfig(device="cpu"), rescorer=rescorer)
        sampling = pipeline.info.sampling
        assert isinstance(sampling, SamplingConfig)
        clips, seconds = generate(pipeline, judge.rows, overrides.apply(sampling))
        records[way] = found = {**judge.figures(clips), "seconds": seconds}
        row = [f"{found['tempo']:.0%}", f"{found['style']:.0%}", f"{found['distance']:.1f}", f"{seconds:.2f}"]
        lines.append(f"| {way or 'as it is'} | " + " | ".join(row) + " |")
        print(lines[-1], flush=True)
    (out / "ways.json").write_text(json.dumps(records, indent=1))
    return "\n".join(lines) + "\n"


def codec_figures(pipeline: Pipeline, rendered: list[np.ndarray], copied: list[np.ndarray]) -> dict[str, Any]:
    """The codec beside Opus at its lowest rate."""
    config, rate = pipeline.codec.config, pipeline.info.sample_rate
    squeezed = [opus(one, rate) for one in rendered]
    stored = iter(copied), iter(squeezed)
    return {
        "this codec": {
            "kbps": config.codebooks * float(np.log2(config.codes)) * config.frame_rate / 1000,
            **copies(rendered, rate, lambda _: next(stored[0])),
        },
        "Opus": {
            "kbps": float(np.mean([kbps for _, kbps in squeezed])),
            **copies(rendered, rate, lambda _: next(stored[1])[0]),
        },
    }


def write_report(pipeline: Pipeline, judge: Judge, data: Path, out: Path) -> str:
    """All of the report, as the model samples by itself."""
    rate, sampling = pipeline.info.sample_rate, pipeline.info.sampling
    assert isinstance(sampling, SamplingConfig)
    rendered = [read(data / "held-out" / row["file_name"]) for row in judge.rows]
    made, seconds = generate(pipeline, judge.rows, sampling)
    for index, (row, clip) in enumerate(zip(judge.rows, made, strict=True)):
        soundfile.write(out / f"{index:02d}-{row['style']}.flac", clip, rate, subtype="PCM_16")
    copied = [coded(pipeline, one) for one in rendered]
    report: dict[str, Any] = {
        "model": judge.figures(made),
        "coded": judge.figures(copied),
        "rendered": judge.figures(rendered),
        "codec": codec_figures(pipeline, rendered, copied),
        "seconds_per_clip": seconds,
        "threads": torch.get_num_threads(),
    }
    (out / "report.json").write_text(json.dumps(report, indent=1))
    for style in SHOWN:
        index = next((index for index, row in enumerate(judge.rows) if row["style"] == style), None)
        if index is not None:
            spectrogram(out / f"{style}.png", made[index], rate)
    return as_markdown(report)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a model trained on rendered music.")
    parser.add_argument("bundle")
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("report"))
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--try", dest="ways", nargs="+", help=f"{', '.join(PRESETS)}, or NAME=VALUE ...")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline.load(options.bundle, RuntimeConfig(device="cpu"))
    judge = Judge.learn(options.data, options.prompts, pipeline)
    if options.ways:
        text = compare_ways(options.bundle, judge, options.ways, options.out)
        (options.out / "ways.md").write_text(text)
    else:
        text = write_report(pipeline, judge, options.data, options.out)
        (options.out / "report.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
