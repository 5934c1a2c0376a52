"""Compare ways to sample: quality against passes through the network, with intervals, as a table and a picture.

    python examples/sampling_study.py bundled build/bundled/data --out study
    python examples/sampling_study.py magnet-small-10secs prompts.txt --judge "python judge.py" --device cuda

Every way generates a clip for each prompt with every number of steps, always with the same seeds, so that ways are
compared pair by pair. A judge that had no part in the training measures the clips. What is finished is kept in the
folder: the same command resumes, and with further ways or steps it adds them. See docs/sampling.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.sax.saxutils import escape

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from magnet_cli import OutputConfig, Pipeline, SamplingConfig
from magnet_cli.errors import MagnetError
from magnet_cli.options.job import Job
from magnet_cli.options.keywords import SamplingOptions, change_sampling, check_keywords

sys.path.append(str(Path(__file__).parent / "bundled"))
import measures

Floats = NDArray[np.floating[Any]]
Row = dict[str, Any]  # a prompt, as "text", and what else its file says of it

REFERENCE = "reference"  # the way that the others are compared with, at the same steps
WAYS = {
    REFERENCE: "",
    "stride1": "spans=stride1",
    "corput": "span_order=corput",
    "hybrid": "span_order=hybrid",
    "noise 1": "order_noise=1",
    "noise 4.5": "order_noise=4.5",
    "constant guidance": "guidance_schedule=constant",
    "rising guidance": "guidance_schedule=rising",
    "guided in the middle": "guidance_schedule=constant guidance_start=0.2 guidance_end=0.8",
    "guided at first": "guidance_end=0.5",
    "entropy 5": "entropy_bound=5",
    "entropy 20": "entropy_bound=20",
    "entropy 80": "entropy_bound=80",
    "remask 0.1": "remask=0.1",
    "remask 0.4": "remask=0.4",
}
STEPS = ("6,2,2,2", "12,4,4,4", "20,10,10,10", "40,10,10,10")
LEARNED = 300  # rendered clips that the classifier learns from, as they are and through the codec
RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Verdict:
    """What a judge says of clips: numbers by measure, NaN where one does not apply; features [N, F] if it has any."""

    values: dict[str, Floats]
    features: Floats | None = None


class StudyJudge(Protocol):
    """Measures clips; higher is better."""

    reference: Floats | None  # features of real clips, which those of generated clips are compared with

    def judge(self, rows: Sequence[Row], clips: Sequence[Floats], rate: int) -> Verdict:
        """The verdict on clips, mono waveforms [L]."""


class RenderedJudge:
    """Knows the clips that `examples/bundled/render.py` wrote, and nothing else: tempo, style, and their features.

    It learns from them through the codec, too: a classifier that had never heard a codec would judge that.
    """

    def __init__(self, data: Path, pipeline: Pipeline) -> None:
        rate = pipeline.info.sample_rate
        shown = read_rows(data / "metadata.jsonl")[:LEARNED]
        clips = [soundfile.read(data / row["file_name"], dtype="float32")[0] for row in shown]
        vectors = np.array([measures.features(clip, rate) for clip in clips])
        dulled = np.array([measures.features(coded(pipeline, clip), rate) for clip in clips])
        labels = [str(row["style"]) for row in shown]
        self._classifier = measures.Classifier.learn(np.concatenate([vectors, dulled]), 2 * labels)
        self.reference: Floats | None = self._scaled(vectors)

    def _scaled(self, vectors: Floats) -> Floats:
        return (vectors - self._classifier.mean) / self._classifier.scale

    def judge(self, rows: Sequence[Row], clips: Sequence[Floats], rate: int) -> Verdict:
        """See StudyJudge. `follows`: the mean of what the prompt asks for and the clip has, its style and its tempo."""
        vectors = np.array([measures.features(clip, rate) for clip in clips])
        style = np.array(
            [self._classifier.kind(vector) == row["style"] for vector, row in zip(vectors, rows, strict=True)],
            dtype=float,
        )
        tempo = np.array(
            [
                measures.same_tempo(measures.tempo(clip, rate), row["bpm"]) if row.get("bpm") else np.nan
                for clip, row in zip(clips, rows, strict=True)
            ],
            dtype=float,
        )
        follows = np.where(np.isnan(tempo), style, (style + np.nan_to_num(tempo)) / 2)
        return Verdict({"follows": follows, "style": style, "tempo": tempo}, self._scaled(vectors))


class CommandJudge:
    """A program, perhaps in an environment of its own.

    It gets the path of a file of JSON lines as its last argument, each with `file`, a WAV, and all that the prompt's
    row says, such as `text`. It prints a JSON object of numbers for each, in order; null where one does not apply.
    """

    reference: Floats | None = None

    def __init__(self, command: str) -> None:
        self._command = shlex.split(command)

    def judge(self, rows: Sequence[Row], clips: Sequence[Floats], rate: int) -> Verdict:
        """See StudyJudge."""
        with tempfile.TemporaryDirectory(prefix="sampling-study-") as folder:
            lines = []
            for number, (row, clip) in enumerate(zip(rows, clips, strict=True)):
                path = Path(folder) / f"{number:04d}.wav"
                soundfile.write(path, clip, rate, subtype="PCM_16")
                lines.append(json.dumps({**row, "file": str(path)}))
            listing = Path(folder) / "clips.jsonl"
            listing.write_text("\n".join(lines) + "\n", encoding="utf-8")
            done = subprocess.run([*self._command, str(listing)], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"error: the judge {shlex.join(self._command)} ended with {done.returncode}")
        found = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
        if len(found) != len(rows) or not all(isinstance(one, dict) and one for one in found):
            raise SystemExit(f"error: the judge printed {len(found)} objects for {len(rows)} clips")
        names = list(found[0])
        return Verdict(
            {name: np.array([np.nan if one[name] is None else float(one[name]) for one in found]) for name in names}
        )


# -- clips ------------------------------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[Row]:
    """Prompts of a file: one a line, or JSON lines with `text`."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [json.loads(line) if path.suffix == ".jsonl" else {"text": line} for line in lines]


def coded(pipeline: Pipeline, waveform: Floats) -> Floats:
    """A waveform through the codec."""
    tensor = torch.from_numpy(np.asarray(waveform, np.float32))[None, None].to(pipeline.codec.device)
    result: Floats = pipeline.codec.decode(pipeline.codec.encode(tensor))[0].mean(dim=0).cpu().numpy()
    return result


def options_of(way: str) -> dict[str, Any]:
    """`span_order=corput guidance=3` as keyword arguments of `Pipeline.sampling`."""
    given: dict[str, Any] = {}
    for word in way.split():
        name, equals, value = word.partition("=")
        if not equals:
            raise SystemExit(f"error: {word!r} is no option with a value, such as guidance=3")
        try:
            given[name] = value if name == "steps" else json.loads(value)
        except ValueError:
            given[name] = value
    check_keywords("a way", given, SamplingOptions)
    return given


@dataclass(frozen=True)
class Point:
    """One way with one number of steps. passes: mean of a clip; seconds: of a clip."""

    way: str
    steps: str
    passes: float
    seconds: float
    verdict: Verdict


def measure_point(
    pipeline: Pipeline, judge: StudyJudge, rows: Sequence[Row], seeds: Sequence[int], way: tuple[str, str], steps: str
) -> Point:
    """Generate and judge all clips of a point."""
    sampling = change_sampling(pipeline.info.sampling, {"steps": steps, **options_of(way[1])})
    jobs = [Job(row["text"], seed, sampling) for row, seed in zip(rows, seeds, strict=True)]
    clips, passes, start = [], [], time.perf_counter()
    for clip in pipeline.generate(jobs, output=OutputConfig(normalize="peak")):
        clips.append(clip.waveform.mean(axis=0))
        passes.append(clip.passes or 0)
    seconds = (time.perf_counter() - start) / len(jobs)
    verdict = judge.judge(rows, clips, pipeline.info.sample_rate)
    return Point(way[0], steps, float(np.mean(passes)), seconds, verdict)


# -- what is finished -------------------------------------------------------------------------------------------------


def as_json(point: Point) -> dict[str, Any]:
    features = point.verdict.features
    return {
        "way": point.way,
        "steps": point.steps,
        "passes": point.passes,
        "seconds": point.seconds,
        "values": {
            name: [None if np.isnan(one) else float(one) for one in values]
            for name, values in point.verdict.values.items()
        },
        "features": None if features is None else features.round(4).tolist(),
    }


def from_json(values: dict[str, Any]) -> Point:
    features = values["features"]
    found = {name: np.array(column, dtype=float) for name, column in values["values"].items()}
    verdict = Verdict(found, None if features is None else np.array(features))
    return Point(values["way"], values["steps"], values["passes"], values["seconds"], verdict)


def stored_at(folder: Path, key: dict[str, Any]) -> Path:
    """The file of a point. Its name depends on all that determines the point."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    slug = re.sub(r"[^a-z0-9]+", "-", f"{key['way']} {key['steps']}".lower()).strip("-")
    return folder / f"{slug}-{digest}.json"


# -- figures ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A value with its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def by_prompt(values: Floats, rows: Sequence[Row]) -> Floats:
    """Mean of the clips of each prompt [P], NaN where none has a value: clips of one prompt are not independent."""
    groups: dict[str, list[float]] = {}
    for row, value in zip(rows, values, strict=True):
        groups.setdefault(row["text"], []).append(float(value))
    return np.array([np.nanmean(one) if not np.isnan(one).all() else np.nan for one in groups.values()])


def mean_of(values: Floats) -> Interval:
    """The mean of prompts [P], with a bootstrap interval."""
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(np.nan, np.nan, np.nan)
    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    return estimate(float(values.mean()), values[draws].mean(axis=1))


def distance_of(features: Floats, reference: Floats) -> Interval:
    """Fréchet distance of clips' features to those of real clips, with a bootstrap interval over the clips."""
    random = np.random.default_rng(0)
    draws = (features[random.integers(len(features), size=len(features))] for _ in range(RESAMPLES // 10))
    return estimate(
        measures.frechet_distance(features, reference),
        np.array([measures.frechet_distance(draw, reference) for draw in draws]),
    )


def estimate(value: float, draws: Floats) -> Interval:
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value, float(low), float(high))


def front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (passes, quality) that none with as few passes and as much quality dominates, by passes."""
    best: list[tuple[float, float]] = []
    for passes, quality in sorted(points, key=lambda one: (one[0], -one[1])):
        if not best or quality > best[-1][1]:
            best.append((passes, quality))
    return best


def table(points: Sequence[Point], rows: Sequence[Row], judge: StudyJudge, bounds: dict[str, Verdict]) -> str:
    """All figures in Markdown."""
    names = list(points[0].verdict.values)
    heads = ["way", "steps", "passes", "s", *names, f"{names[0]} against {REFERENCE}"]
    if judge.reference is not None:
        heads.append("Fréchet distance (lower is closer)")
    same = {point.steps: point for point in points if point.way == REFERENCE}
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for point in points:
        own = {name: by_prompt(values, rows) for name, values in point.verdict.values.items()}
        cells = [point.way, point.steps, f"{point.passes:.1f}", f"{point.seconds:.2f}"]
        cells += [str(mean_of(own[name])) for name in names]
        other = same.get(point.steps)
        paired = other is not None and other is not point
        cells.append(str(mean_of(own[names[0]] - by_prompt(other.verdict.values[names[0]], rows))) if paired else "")
        cells += distance_cell(point.verdict, judge)
        lines.append(f"| {' | '.join(cells)} |")
    for name, verdict in bounds.items():
        kept = rows[: len(next(iter(verdict.values.values())))]
        cells = [name, "", "", "", *(str(mean_of(by_prompt(verdict.values[one], kept))) for one in names), ""]
        lines.append(f"| {' | '.join([*cells, *distance_cell(verdict, judge)])} |")
    return "\n".join(lines) + "\n"


def distance_cell(verdict: Verdict, judge: StudyJudge) -> list[str]:
    if judge.reference is None:
        return []
    return ["" if verdict.features is None else str(distance_of(verdict.features, judge.reference))]


def picture(
    estimates: Sequence[tuple[str, float, Interval]], bounds: dict[str, float], measure: str, size: tuple[int, int]
) -> str:
    """An SVG: passes to the right, the measure upwards, a bar for each interval, and the front as a line."""
    width, height = size
    left, right, top, bottom = 60, 190, 16, 44
    most = max(passes for _, passes, _ in estimates) * 1.05
    highest = max([one.high for _, _, one in estimates] + list(bounds.values()))
    lowest = min([one.low for _, _, one in estimates] + list(bounds.values()))
    margin = 0.05 * ((highest - lowest) or 1.0)
    lowest, highest = lowest - margin, highest + margin

    def x(passes: float) -> float:
        return round(left + passes / most * (width - left - right), 1)

    def y(value: float) -> float:
        return round(height - bottom - (value - lowest) / (highest - lowest) * (height - top - bottom), 1)

    ways = list(dict.fromkeys(way for way, _, _ in estimates))
    colours = {way: f"hsl({360 * number // len(ways)} 65% 42%)" for number, way in enumerate(ways)}
    line = " ".join(f"{x(p)},{y(q)}" for p, q in front((passes, one.value) for _, passes, one in estimates))
    centre, middle = (left + width - right) / 2, height / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<path d="M{left} {top}V{height - bottom}H{width - right}" fill="none" stroke="black"/>',
        f'<text x="{centre}" y="{height - 8}" text-anchor="middle">passes through the network</text>',
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(measure)}</text>',
        f'<polyline points="{line}" fill="none" stroke="black" stroke-width="1.5"/>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        value, passes = lowest + share * (highest - lowest), share * most
        parts.append(f'<text x="{left - 6}" y="{y(value) + 4}" text-anchor="end">{value:.3g}</text>')
        parts.append(f'<text x="{x(passes)}" y="{height - bottom + 16}" text-anchor="middle">{passes:.0f}</text>')
    for name, value in bounds.items():
        parts.append(
            f'<path d="M{left} {y(value)}H{width - right}" stroke="grey" stroke-dasharray="4 3"/>'
            f'<text x="{left + 4}" y="{y(value) - 3}" fill="grey">{escape(name)}</text>'
        )
    for way, passes, one in estimates:
        parts.append(
            f'<path d="M{x(passes)} {y(one.low)}V{y(one.high)}" stroke="{colours[way]}"/>'
            f'<circle cx="{x(passes)}" cy="{y(one.value)}" r="4" fill="{colours[way]}"/>'
        )
    for number, way in enumerate(ways):
        place = top + 12 + 16 * number
        parts.append(
            f'<circle cx="{width - right + 16}" cy="{place - 4}" r="4" fill="{colours[way]}"/>'
            f'<text x="{width - right + 26}" y="{place}">{escape(way)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


# -- the command ------------------------------------------------------------------------------------------------------


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare ways to sample, with intervals.")
    parser.add_argument("model", help="a model's name or folder")
    parser.add_argument("prompts", type=Path, help="data of render.py, or a file of prompts: .txt or .jsonl")
    parser.add_argument("--judge", help="a program that judges clips; by default the rendered clips of the data do")
    parser.add_argument("--count", type=int, default=200, help="clips of each point (default: 200)")
    parser.add_argument("--steps", nargs="+", default=STEPS, help="numbers of steps, e.g. 12,4,4,4 20,10,10,10")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), help=f"any of: {', '.join(WAYS)}; or options")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--out", type=Path, default=Path("study"))
    return parser.parse_args(given)


def study(options: argparse.Namespace) -> str:
    """Measure what is missing, and write the table, the figures and the picture. Returns the table."""
    ways = {way: WAYS.get(way, way) for way in dict.fromkeys([REFERENCE, *options.ways])}
    for way in ways.values():
        options_of(way)  # a mistyped way is found before hours of work
    rendered = options.prompts.is_dir()
    if options.judge is None and not rendered:
        raise SystemExit("error: give the data of render.py, or a program that judges with --judge")
    listing = options.prompts / "held-out" / "prompts.jsonl" if rendered else options.prompts
    known = read_rows(listing)
    if not known or options.count < 1:
        raise SystemExit(f"error: there are {len(known)} prompts in {listing}, and {options.count} clips are asked for")
    rows = [known[number % len(known)] for number in range(options.count)]
    seeds = range(options.count)  # a prompt that occurs again has another seed
    loaded = {"device": options.device} | ({"batch_size": options.batch_size} if options.batch_size else {})
    pipeline = Pipeline.load(options.model, **loaded)  # type: ignore[arg-type]
    if not isinstance(pipeline.info.sampling, SamplingConfig):
        raise SystemExit(f"error: {options.model} is a MusicGen, which decodes frame after frame")
    judge: StudyJudge = CommandJudge(options.judge) if options.judge else RenderedJudge(options.prompts, pipeline)
    folder = options.out / "points"
    folder.mkdir(parents=True, exist_ok=True)
    same = {
        "model": pipeline.provenance.hashes()["model"],
        "dtype": pipeline.info.dtype,
        "rows": rows,
        "judge": options.judge,
    }
    points = []
    for steps in options.steps:
        for way in ways.items():
            path = stored_at(folder, {**same, "way": way[0], "options": way[1], "steps": steps})
            if path.is_file():
                points.append(from_json(json.loads(path.read_text())))
                continue
            points.append(measure_point(pipeline, judge, rows, seeds, way, steps))
            unfinished = path.with_suffix(".new")  # a study that is stopped now resumes without it
            unfinished.write_text(json.dumps(as_json(points[-1])))
            unfinished.replace(path)
            print(f"{way[0]}, {steps}: {points[-1].passes:.1f} passes, {points[-1].seconds:.2f} s", file=sys.stderr)
    bounds = upper_bounds(pipeline, judge, known[: options.count], listing.parent) if rendered else {}
    text = table(points, rows, judge, bounds)
    name = next(iter(points[0].verdict.values))
    estimates = [(point.way, point.passes, mean_of(by_prompt(point.verdict.values[name], rows))) for point in points]
    tops = {bound: float(np.nanmean(verdict.values[name])) for bound, verdict in bounds.items()}
    (options.out / "study.svg").write_text(picture(estimates, tops, name, (760, 420)), encoding="utf-8")
    (options.out / "study.md").write_text(text, encoding="utf-8")
    return text


def upper_bounds(pipeline: Pipeline, judge: StudyJudge, rows: Sequence[Row], folder: Path) -> dict[str, Verdict]:
    """The verdicts on what the prompts describe: as it was rendered, and through the codec."""
    rate = pipeline.info.sample_rate
    clips = [soundfile.read(folder / Path(row["file_name"]).name, dtype="float32")[0] for row in rows]
    return {
        "rendered": judge.judge(rows, clips, rate),
        "rendered, through the codec": judge.judge(rows, [coded(pipeline, clip) for clip in clips], rate),
    }


def main(given: Sequence[str] | None = None) -> None:
    try:
        print(study(arguments(given)))
    except (MagnetError, OSError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
