"""Everything that only a GPU can show, in one command of at most nine minutes; nothing is downloaded.

    python benchmarks/gpu_check.py results.json
    python benchmarks/gpu_check.py results.json --small --only codes kernels    # sizes for a CPU

Each step runs in a process of its own, within its own time limit: a fault of the GPU ends one step and no more. The
file is written again after each step, so that what is known stays when a machine is taken away. The exit code is 1 if a
step failed, ran out of time, or found codes that differ where they must not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from magnet_cli.bench.speed import PROMPT, BenchParts, benchmark, parts_of, shapes
from magnet_cli.decoding.masked import Network, decode
from magnet_cli.engines.choose import fastest
from magnet_cli.engines.cuda import GraphTransformer
from magnet_cli.engines.device import computes_float8, reproducible_kernels
from magnet_cli.model.config import RELEASED_CODEC, DecoderConfig
from magnet_cli.model.decoder import MaskedTransformer
from magnet_cli.options.runtime import DTypeName, RuntimeConfig
from magnet_cli.options.sampling import SamplingConfig

ROOT = Path(__file__).parents[1]
TOTAL = 9 * 60.0  # seconds
DTYPES: tuple[DTypeName, ...] = ("float32", "float16", "bfloat16")
SAMPLING = SamplingConfig(steps=(20, 10, 10, 10))
FEW = SamplingConfig(steps=(2, 1, 1, 1))


class Check:
    """Where the steps run, and at which sizes. small: sizes that a CPU computes in seconds."""

    def __init__(self, *, small: bool) -> None:
        self.small = small
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.sampling = FEW if small else SAMPLING

    def shape(self, name: str) -> DecoderConfig:
        """A released shape, or a narrow one in its place."""
        found = shapes()[name]
        if not self.small:
            return found
        return replace(found, width=64, heads=4, layers=2, feed_forward=128, codes=64, text_width=64, clip_seconds=1.0)

    def parts(
        self, name: str, dtype: DTypeName, *, network: Callable[[MaskedTransformer], Network] | None = None
    ) -> Any:
        """A decoder with random weights, its text encoder and codec. network: by default the fastest."""
        runtime = RuntimeConfig(str(self.device), dtype)
        inner = torch.bfloat16 if dtype == "float8" else getattr(torch, dtype)
        codec = replace(RELEASED_CODEC, n_filters=4, dimension=16) if self.small else RELEASED_CODEC
        parts = parts_of(
            name,
            self.shape(name),
            codec,
            device=self.device,
            dtype=inner,
            network=network or (lambda decoder: fastest(decoder, runtime)),
        )
        return replace(parts, eight_bits=runtime.eight_bits)


# -- the steps: each returns what goes into the file -------------------------------------------------------------------


def environment(check: Check) -> dict[str, Any]:
    """What the machine is."""
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "device": str(check.device),
        "threads": torch.get_num_threads(),
    }
    if check.device.type == "cuda":
        properties = torch.cuda.get_device_properties(check.device)
        found |= {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory": properties.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def codes(check: Check) -> dict[str, Any]:
    """The share of codes that equal the plain decoder's, in three clips: without, while and after recording."""
    found: dict[str, Any] = {}
    for dtype in DTYPES:
        parts = check.parts("small-10secs", dtype, network=GraphTransformer)
        for batch in (1, 3):
            memory = _memory(parts, batch)
            seeds = list(range(batch))
            options: dict[str, Any] = {"frames": parts.frames}
            with reproducible_kernels():
                plain = decode(parts.model, memory, seeds, check.sampling, **options)
                shares = [
                    float((decode(parts.network, memory, seeds, check.sampling, **options) == plain).float().mean())
                    for _ in range(3)
                ]
            if len(set(shares)) != 1:
                raise ValueError(f"replays differ from what was recorded in {dtype}, batch {batch}: {shares}")
            if dtype == "float32" and shares[0] < 0.99:
                raise ValueError(
                    f"only {shares[0]:.1%} of the codes are the plain decoder's, in float32, batch {batch}"
                )
            found[f"{dtype}, batch {batch}"] = shares[0]
    return found


def attention(check: Check) -> dict[str, Any]:
    """Seconds of a clip under each kind of attention, and the share of codes that equal the first's."""
    found: dict[str, Any] = {}
    first: torch.Tensor | None = None
    kinds = {
        "flash, efficient, math": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
        "cudnn first": [SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
        "math": [SDPBackend.MATH],
    }
    for name, backends in kinds.items():
        parts = check.parts(
            "small-10secs", "float16" if check.device.type == "cuda" else "float32", network=GraphTransformer
        )
        memory = _memory(parts, 1)
        with sdpa_kernel(backends, set_priority=name != "math"):
            clips, seconds = [], []
            for _ in range(4):
                started = time.perf_counter()
                clips.append(decode(parts.network, memory, [0], check.sampling, frames=parts.frames).cpu())
                seconds.append(time.perf_counter() - started)
        first = clips[-1] if first is None else first
        found[name] = {"seconds": seconds, "equal": float((clips[-1] == first).float().mean())}
    return found


def tests(check: Check) -> dict[str, Any]:
    """The tests that need a GPU."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        str(ROOT / "tests" / "engines"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode not in (0, 5):  # 5: none was selected
        raise ValueError(done.stdout[-3000:])
    return {"last line": done.stdout.strip().splitlines()[-1]}


def speed(check: Check) -> dict[str, Any]:
    """Reports of `magnet bench` at the released sizes."""
    forms: list[tuple[str, DTypeName, int]] = [("small-10secs", "float16", 1), ("small-10secs", "float16", 8)]
    if check.device.type == "cuda" and computes_float8(check.device):
        forms += [("small-10secs", "float8", 1), ("small-10secs", "float8", 8), ("medium-10secs", "float8", 1)]
    forms += [("medium-10secs", "float16", 1), ("small-30secs", "float16", 1)]
    if check.small:
        forms = [("small-10secs", "float32", 1), ("small-10secs", "float32", 2)]
    found = {}
    for shape, dtype, batch in forms:
        report = benchmark(check.parts(shape, dtype), check.sampling, batch=batch, runs=2 if check.small else 5)
        found[f"{shape}, {dtype}, batch {batch}"] = asdict(report)
        if check.device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def compiled(check: Check) -> dict[str, Any]:
    """The same for compiled decoders, which take a minute to compile."""
    if check.device.type != "cuda":
        return {"left out": "only decoders on GPUs are compiled"}
    found = {}
    for dtype in ("float16", *(("float8",) if computes_float8(check.device) else ())):
        runtime = RuntimeConfig("cuda", dtype, compile=True)
        parts = check.parts("small-10secs", dtype, network=lambda decoder, one=runtime: fastest(decoder, one))  # type: ignore[misc]
        report = benchmark(parts, check.sampling, batch=1, runs=5)
        found[dtype] = asdict(report) | {"compiled": parts.network.compiled}
    return found


def kernels(check: Check) -> dict[str, Any]:
    """Operations of one clip, counted by the profiler, the most frequent by name; on a GPU kernels, with their time."""
    from torch.profiler import ProfilerActivity, profile

    dtype: DTypeName = "float16" if check.device.type == "cuda" else "float32"
    parts = check.parts("small-10secs", dtype, network=GraphTransformer)
    memory = _memory(parts, 1)
    for _ in range(2):
        decode(parts.network, memory, [0], check.sampling, frames=parts.frames)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if check.device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        decode(parts.network, memory, [0], check.sampling, frames=parts.frames)
    on_gpu = check.device.type == "cuda"
    counts: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for event in profiler.key_averages():
        took = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if took:
            counts[event.key] += event.count
            times[event.key] += int(took)
    return {
        "steps": sum(check.sampling.steps),
        "operations": sum(counts.values()),
        "most frequent": dict(counts.most_common(15)),
        "microseconds": dict(times.most_common(15)),
    }


def _memory(parts: BenchParts, batch: int) -> Any:
    """The text that a batch attends to."""
    text = parts.text.encode([PROMPT] * batch)
    with torch.inference_mode():
        return parts.model.text_memory(text.states, text.lengths)


# In this order: the first to fail tells most. Seconds that each may take.
STEPS: dict[str, tuple[Callable[[Check], dict[str, Any]], float]] = {
    "environment": (environment, 40),
    "codes": (codes, 120),
    "tests": (tests, 120),
    "attention": (attention, 60),
    "speed": (speed, 150),
    "kernels": (kernels, 60),
    "compiled": (compiled, 180),
}


# -- running them ------------------------------------------------------------------------------------------------------


def run_step(name: str, *, small: bool, seconds: float) -> dict[str, Any]:
    """A step in a process of its own: its result, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, __file__, str(path), "--step", name, *(["--small"] if small else [])]
        started = time.monotonic()
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                env={**os.environ, "PYTHONWARNINGS": ""},
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"more than {seconds:.0f} s"}
        took = round(time.monotonic() - started, 1)
        if done.returncode != 0:
            return {"failed": done.stderr[-3000:], "took": took}
        return {"result": json.loads(path.read_text()), "took": took}


def main() -> int:
    """Run the steps that are asked for, and write the file after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("output", type=Path, help="JSON file to write")
    parser.add_argument("--small", action="store_true", help="sizes that a CPU computes in seconds")
    parser.add_argument("--only", nargs="+", choices=list(STEPS), help="these steps alone")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)  # in this process
    given = parser.parse_args()
    if given.step is not None:
        given.output.write_text(json.dumps(STEPS[given.step][0](Check(small=given.small))))
        return 0
    found: dict[str, Any] = {}
    started = time.monotonic()
    for name in given.only or STEPS:
        left = TOTAL - (time.monotonic() - started)
        if left > 5:
            found[name] = run_step(name, small=given.small, seconds=min(STEPS[name][1], left))
        else:
            found[name] = {"failed": "no time was left"}
        print(
            f"{name}: {'failed: ' + found[name]['failed'] if 'failed' in found[name] else found[name]['took']}",
            flush=True,
        )
        given.output.write_text(json.dumps(found, indent=1))
    return int(any("failed" in one for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
