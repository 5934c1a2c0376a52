"""How fast a model is on this machine: seconds for each stage, audio per second, share of the device's peak, memory.

With `random_parts` a network of a released model's shape runs without its weights: it generates noise in the same
time.
"""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from magnet_cli.audio.files import write_audio
from magnet_cli.audio.loudness import normalize
from magnet_cli.bench.flops import minimum_flops
from magnet_cli.bench.precision import Deviation, deviation
from magnet_cli.decoding.masked import Network, Step, decode
from magnet_cli.engines.device import (
    decoded_together,
    matmul_rate,
    memory_errors,
    peak_memory,
    reproducible_kernels,
)
from magnet_cli.engines.linear import eight_bit_rate
from magnet_cli.errors import MemoryShortageError, UsageError
from magnet_cli.model.codec import Codec
from magnet_cli.model.config import RELEASED_CODEC, CodecConfig, DecoderConfig
from magnet_cli.model.decoder import MaskedTransformer
from magnet_cli.model.t5 import T5Config, T5Encoder
from magnet_cli.model.text_encoder import TextEncoder
from magnet_cli.model.weights import without_weights
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import EightBits
from magnet_cli.options.sampling import SamplingConfig

PROMPT = "80s electronic track with melodic synthesizers, catchy beat and groovy bass"
RANDOM_SCALE = 0.02  # small enough for float16, whatever the depth


@dataclass(frozen=True)
class BenchParts:
    """The networks that a clip passes through.

    network: the one that decodes, which is the model itself or a faster form of it; in_float32: builds the model from
    its stored weights, in float32 on the CPU. eight_bits: the form of the network's large matrices; None: that of the
    model.
    """

    name: str
    text: TextEncoder
    model: MaskedTransformer
    network: Network
    codec: Codec
    in_float32: Callable[[], MaskedTransformer]
    eight_bits: EightBits | None = None

    @property
    def frames(self) -> int:
        """Frames in a clip."""
        return int(self.model.config.clip_seconds * self.codec.config.frame_rate)

    @property
    def dtype(self) -> str:
        """The precision of the large matrices."""
        return self.eight_bits or str(self.model.dtype).removeprefix("torch.")

    def peak(self) -> float:
        """Operations per second of a plain matrix product in this precision, measured now."""
        device = self.model.device
        if self.eight_bits is not None:
            return eight_bit_rate(device, self.eight_bits)
        return matmul_rate(device, self.model.dtype)


@dataclass(frozen=True)
class Report:
    """What was measured; medians over runs that were interleaved with the measurement of the peak.

    stages              seconds for each stage of a batch, in order; "codebook 1" is the first
    cold                the same of the very first run, in which libraries choose kernels and allocate memory
    latency             seconds from the prompts to the files of the whole batch
    throughput          seconds of audio for each second
    flops               operations of the decoder that a batch needs at least (`flops.minimum_flops`)
    flops_per_second    those, by the seconds of its codebooks
    peak                operations per second of a plain matrix product in the same dtype, 8 bits included
    peak_memory         bytes: reserved on a GPU; of the process, weights and libraries included, on a CPU
    compared            whether the logits were to be compared with float32
    logits              how far they are from float32; None where there is no memory for the model in float32
    """

    model: str
    device: str
    dtype: str
    network: str
    torch: str
    threads: int
    batch: int
    steps: tuple[int, ...]
    audio_seconds: float
    runs: int
    stages: dict[str, float]
    cold: float
    latency: float
    slowest: float
    throughput: float
    flops: int
    flops_per_second: float
    peak: float
    peak_memory: int
    compared: bool
    logits: Deviation | None

    @property
    def rows(self) -> list[tuple[str, str]]:
        """The report as a table of names and values."""
        seconds = [(stage, f"{value:.3f} s") for stage, value in self.stages.items()]
        share = self.flops_per_second / self.peak
        short = "not compared with float32: too little memory"
        logits = [("logits", short if self.logits is None else self.logits.words)] if self.compared else []
        return [
            ("model", f"{self.model}, {self.network} in {self.dtype}"),
            ("device", f"{self.device}, {self.threads} threads, PyTorch {self.torch}"),
            ("clips", f"{self.batch} of {self.audio_seconds:g} s, steps {','.join(map(str, self.steps))}"),
            *seconds,
            ("latency", f"{self.latency:.3f} s (median of {self.runs}, slowest {self.slowest:.3f} s)"),
            ("cold", f"{self.cold:.3f} s (the first run)"),
            ("throughput", f"{self.throughput:.2f} s of audio per second"),
            ("arithmetic", f"{self.flops_per_second / 1e9:,.1f} GFLOP/s, {share:.0%} of {self.peak / 1e9:,.0f}"),
            ("peak memory", f"{self.peak_memory / 1e9:.2f} GB"),
            *logits,
        ]


def benchmark(
    parts: BenchParts, sampling: SamplingConfig, *, batch: int = 1, runs: int = 3, compare_logits: bool = True
) -> Report:
    """Generate `batch` clips `runs` times, after one run that is reported as cold; on a GPU, another records graphs.

    compare_logits: with those of the plain decoder in float32, on the CPU.
    """
    if batch < 1 or runs < 1:
        raise UsageError(f"cannot measure {runs} runs of {batch} clips", "Give at least 1 of each")
    device = parts.model.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    laps, peaks = [], []
    with reproducible_kernels():
        codes, cold = _generate(parts, sampling, batch)
        if device.type == "cuda":
            _generate(parts, sampling, batch)
        for _ in range(runs):
            peaks.append(parts.peak())
            laps.append(_generate(parts, sampling, batch)[1])
    stages = {stage: statistics.median(lap[stage] for lap in laps) for stage in laps[0]}
    totals = [sum(lap.values()) for lap in laps]
    config, frames = parts.model.config, parts.frames
    tokens = len(parts.text.tokenize(PROMPT))
    flops = batch * minimum_flops(config, sampling, frames=frames, tokens=tokens)
    decoding = sum(seconds for stage, seconds in stages.items() if stage.startswith("codebook"))
    latency = statistics.median(totals)
    return Report(
        model=parts.name,
        device=device_name(device),
        dtype=parts.dtype,
        network=type(parts.network).__name__,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        batch=batch,
        steps=sampling.steps,
        audio_seconds=config.clip_seconds,
        runs=runs,
        stages=stages,
        cold=sum(cold.values()),
        latency=latency,
        slowest=max(totals),
        throughput=batch * config.clip_seconds / latency,
        flops=flops,
        flops_per_second=flops / decoding,
        peak=statistics.median(peaks),
        peak_memory=peak_memory(device),  # before anything is compared
        compared=compare_logits,
        logits=_deviation(parts, sampling, codes[:1]) if compare_logits else None,
    )


def _deviation(parts: BenchParts, sampling: SamplingConfig, codes: Tensor) -> Deviation | None:
    """How far the logits for this clip [1, K, T] are from float32; None without enough memory for the comparison."""
    exact = parts.model
    try:
        with memory_errors(torch.device("cpu"), "to compare with float32", dtype="float32"):
            if exact.dtype != torch.float32 or exact.device.type != "cpu":
                exact = parts.in_float32()
            text = parts.text.encode([PROMPT])
            return deviation(parts.network, parts.model, exact, text=text, codes=codes, sampling=sampling)
    except MemoryShortageError:
        return None


def _generate(parts: BenchParts, sampling: SamplingConfig, batch: int) -> tuple[Tensor, dict[str, float]]:
    """One batch from prompts to files. Returns its codes [B, K, T], and seconds for each stage."""
    clock = StageClock(parts.model.device)
    size = decoded_together(parts.model.device, batch)
    groups = [range(first, min(first + size, batch)) for first in range(0, batch, size)]
    codes, waveforms = zip(*(_decode(parts, sampling, seeds, clock) for seeds in groups), strict=True)
    rate, output = parts.codec.config.sample_rate, OutputConfig()
    finals = [normalize(waveform, rate, output).waveform for group in waveforms for waveform in group]
    clock.lap("loudness")
    with tempfile.TemporaryDirectory(prefix="magnet-bench-") as folder:
        for row, final in enumerate(finals):
            write_audio(Path(folder) / f"{row}.wav", final, rate, output.samples, overwrite=False)
        clock.lap("write")
    return torch.cat(codes), clock.laps


def _decode(
    parts: BenchParts, sampling: SamplingConfig, seeds: Sequence[int], clock: StageClock
) -> tuple[Tensor, NDArray[np.float32]]:
    """Codes [B, K, T] and waveforms [B, C, L] of clips that are decoded together."""
    text = parts.text.encode([PROMPT] * len(seeds))
    with torch.inference_mode():
        memory = parts.model.text_memory(text.states, text.lengths)
    clock.lap("text")

    def finished(step: Step) -> None:
        if step.step + 1 == step.steps:
            clock.lap(f"codebook {step.codebook + 1}")

    codes = decode(parts.network, memory, seeds, sampling, frames=parts.frames, on_step=finished)
    waveforms: NDArray[np.float32] = parts.codec.decode(codes).cpu().numpy()
    clock.lap("codec")
    return codes, waveforms


class StageClock:
    """Seconds for each stage; waits for the device at the end of each."""

    def __init__(self, device: torch.device) -> None:
        self.laps: dict[str, float] = {}
        self._device = device
        self._started = self._now()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def lap(self, stage: str) -> None:
        """The time since the last lap was this stage's, too."""
        now = self._now()
        self.laps[stage] = self.laps.get(stage, 0.0) + now - self._started
        self._started = now


def device_name(device: torch.device) -> str:
    """The GPU's own name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


# -- the released shapes, with random weights -------------------------------------------------------------------------


def _decoder(width: int, layers: int, seconds: float) -> DecoderConfig:
    return DecoderConfig(
        width=width,
        heads=width // 64,
        layers=layers,
        feed_forward=4 * width,
        codebooks=4,
        codes=2048,
        text_width=768,
        span_length=3,
        context=5,
        clip_seconds=seconds,
        max_period=10_000.0,
        position_scale=1.0,
    )


def shapes() -> dict[str, DecoderConfig]:
    """The decoders of the released music models. Those of the sound models differ in the text's width only."""
    return {
        "small-10secs": _decoder(1024, 24, 10),
        "small-30secs": _decoder(1024, 24, 30),
        "medium-10secs": _decoder(1536, 48, 10),
        "medium-30secs": _decoder(1536, 48, 30),
    }


def random_decoder(config: DecoderConfig, device: torch.device, dtype: torch.dtype) -> MaskedTransformer:
    """A decoder of this shape with random weights, which are drawn on the device and always from the same seed."""
    with without_weights():
        model = MaskedTransformer(config)
    model = model.to_empty(device=device) if dtype == torch.float32 else model.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                drawn = torch.empty(weight.shape, device=device)
                weight.copy_(drawn.normal_(0, RANDOM_SCALE, generator=generator))
    return model.eval().requires_grad_(False)


def random_text_encoder(width: int, device: torch.device) -> TextEncoder:
    """The encoder of T5-base, or T5-large of width 1024, with random weights, and a tokenizer that counts words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    with device:
        encoder = T5Encoder(
            T5Config(d_model=width, d_ff=4 * width, num_layers=24 if width == 1024 else 12, num_heads=width // 64)
        )
    return TextEncoder(encoder.eval().requires_grad_(False), tokenizer)


def random_parts(
    shape: str,
    device: torch.device,
    dtype: torch.dtype,
    network: Callable[[MaskedTransformer], Network],
) -> BenchParts:
    """A released model's shape with random weights. network: what decodes, made from the model."""
    known = shapes()
    if shape not in known:
        raise UsageError(f"unknown shape {shape!r}", f"Give one of {', '.join(known)}")
    return parts_of(shape, known[shape], RELEASED_CODEC, device=device, dtype=dtype, network=network)


def parts_of(
    name: str,
    config: DecoderConfig,
    codec: CodecConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    network: Callable[[MaskedTransformer], Network],
) -> BenchParts:
    """BenchParts of any shape, with random weights."""
    model = random_decoder(config, device, dtype)
    with device:
        random_codec = Codec(codec).eval().requires_grad_(False)
    return BenchParts(
        name,
        random_text_encoder(config.text_width, device),
        model,
        network(model),
        random_codec,
        lambda: random_decoder(config, device, torch.float32).cpu(),
    )


def compare(reports: Sequence[Report]) -> list[tuple[str, float]]:
    """How many times as fast as the first each report is, by latency of a clip."""
    base = reports[0].latency / reports[0].batch
    return [(f"{report.network} {report.dtype}", base / (report.latency / report.batch)) for report in reports]
