"""Time the decoder side by side with the reference, audiocraft: same weights, same text, same steps, in turn.

    python3.11 -m venv /tmp/reference
    /tmp/reference/bin/pip install torch==2.1.0 torchaudio==2.1.0 'numpy<2' 'transformers<4.41' av einops encodec \
        flashy hydra-core hydra_colorlog julius librosa num2words protobuf sentencepiece soundfile spacy torchdiffeq \
        torchmetrics
    /tmp/reference/bin/pip install --no-deps audiocraft
    .venv/bin/python benchmarks/random_checkpoint.py small-10secs /tmp/small    # or a folder with the real files
    .venv/bin/python benchmarks/compare_reference.py /tmp/small --reference-python /tmp/reference/bin/python

The reference runs in a process of its own, in its own environment. (`pip install audiocraft` alone builds PyAV 11,
which needs FFmpeg's headers.) Where that has no xformers, which is published for few versions of PyTorch, PyTorch's
attention takes its place: the first line says so. Text encoder and codec, the same on both sides, are left out. Before
anything is timed, greedy decoding in float32 has to give the same codes. `--only fast "fast int8"` leaves others out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

TOKENS = 12


# -- the reference's side: nothing of magnet_cli is imported here -----------------------------------------------------


def stand_in_for_xformers() -> None:
    """The two functions of xformers that the reference calls, by PyTorch's own attention."""

    def attention(query: Any, key: Any, value: Any, attn_bias: Any = None, p: float = 0.0) -> Any:
        heads = (x.transpose(1, 2) for x in (query, key, value))  # [B, T, H, D/H] -> [B, H, T, D/H]
        return torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=attn_bias).transpose(1, 2)

    package, operators = types.ModuleType("xformers"), types.ModuleType("xformers.ops")
    operators.memory_efficient_attention = attention  # type: ignore[attr-defined]
    operators.unbind = torch.unbind  # type: ignore[attr-defined]
    operators.LowerTriangularMask = type("LowerTriangularMask", (), {})  # type: ignore[attr-defined]
    package.ops = operators  # type: ignore[attr-defined]
    sys.modules.update({"xformers": package, "xformers.ops": operators})


def build_reference(job: dict[str, Any]) -> Any:
    """The reference's model with the checkpoint's weights, and a conditioner that returns given states."""
    from audiocraft.models.lm_magnet import MagnetLMModel
    from audiocraft.modules import transformer
    from audiocraft.modules.codebooks_patterns import ParallelPatternProvider
    from audiocraft.modules.conditioners import ConditionFuser, ConditioningProvider, TextConditioner

    class Given(TextConditioner):
        def __init__(self, states: torch.Tensor) -> None:
            super().__init__(states.shape[-1], job["width"])
            self.states = states.to(job["device"])

        def tokenize(self, x: Any) -> Any:
            return x

        def forward(self, x: Any) -> Any:
            given = torch.tensor([[float(text is not None)] for text in x], device=job["device"])
            mask = given.expand(-1, self.states.shape[1])
            projected = self.output_proj(self.states.expand(len(x), -1, -1).to(self.output_proj.weight.dtype))
            return projected * mask.unsqueeze(-1).to(projected.dtype), mask

    transformer.set_efficient_attention_backend("xformers")
    transformer._verify_xformers_memory_efficient_compat = lambda: None
    states = torch.load(job["states"], weights_only=True)
    dtype = getattr(torch, job["dtype"])
    model = MagnetLMModel(
        pattern_provider=ParallelPatternProvider(job["codebooks"]),
        condition_provider=ConditioningProvider({"description": Given(states)}, device=job["device"]),
        fuser=ConditionFuser({"cross": ["description"], "sum": [], "prepend": [], "input_interpolate": []}),
        n_q=job["codebooks"],
        card=job["codes"],
        dim=job["width"],
        num_heads=job["heads"],
        num_layers=job["layers"],
        hidden_scale=4,
        norm="layer_norm",
        norm_first=True,
        bias_proj=False,
        bias_ff=False,
        bias_attn=False,
        dropout=0.0,
        activation="gelu",
        causal=False,
        memory_efficient=True,
        cross_attention=True,
        positional_embedding="sin",
        segment_duration=job["seconds"],
        compression_model_framerate=job["frame_rate"],
        span_len=job["span_length"],
        subcodes_context=job["context"],
        device=job["device"],
        dtype=dtype,
    )
    weights = torch.load(job["checkpoint"], map_location="cpu", weights_only=True)["best_state"]
    model.load_state_dict({name: weight.to(dtype) for name, weight in weights.items()})
    return model.to(job["device"]).eval()


def serve_reference(job: dict[str, Any]) -> None:
    """Decode once for every line read, which holds its options; answer with seconds, and codes when greedy."""
    torch.set_num_threads(job["threads"])
    missing = importlib.util.find_spec("xformers") is None
    if missing:
        stand_in_for_xformers()
    model = build_reference(job)
    from audiocraft.modules.conditioners import ConditioningAttributes

    print(json.dumps({"ready": "PyTorch's attention" if missing else "xformers", "torch": torch.__version__}))
    sys.stdout.flush()
    for line in sys.stdin:
        options = json.loads(line)
        conditions = [ConditioningAttributes(text={"description": "given"}) for _ in range(job["batch"])]
        started = now(job["device"])
        codes = model.generate(
            conditions=conditions,
            max_gen_len=job["frames"],
            use_sampling=not options["greedy"],
            temp=3.0,
            top_p=0.9,
            top_k=0,
            max_cfg_coef=10.0,
            min_cfg_coef=1.0,
            decoding_steps=options["steps"],
        )
        seconds = now(job["device"]) - started
        print(json.dumps({"seconds": seconds, "codes": codes.tolist() if options["greedy"] else None}))
        sys.stdout.flush()


def now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


# -- this side --------------------------------------------------------------------------------------------------------

if "--serve" not in sys.argv:
    from magnet_cli.checkpoints.parts import build_decoder
    from magnet_cli.checkpoints.released import read_decoder
    from magnet_cli.decoding.masked import decode
    from magnet_cli.engines.cpu import FastTransformer
    from magnet_cli.engines.cuda import GraphTransformer
    from magnet_cli.options.sampling import SamplingConfig


class Reference:
    """The process that `serve_reference` runs in."""

    def __init__(self, python: str, job: dict[str, Any]) -> None:
        command = [python, __file__, "--serve", json.dumps(job)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ready = self._answer()

    def _answer(self) -> dict[str, Any]:
        for line in self.process.stdout or ():  # its libraries print too
            if line.startswith("{"):
                return dict(json.loads(line))
        sys.exit("error: the reference stopped; see above")

    def run(self, steps: Sequence[int], *, greedy: bool) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"greedy": greedy, "steps": steps}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Ours:
    """The networks of magnet_cli, and the text they decode."""

    def __init__(self, arguments: argparse.Namespace, states: torch.Tensor) -> None:
        self.device = arguments.device
        checkpoint = read_decoder(arguments.checkpoint)
        self.config = checkpoint.config
        model = build_decoder(checkpoint, torch.device(self.device), getattr(torch, arguments.dtype))
        self.networks: dict[str, Any] = {"plain": model}
        if self.device.startswith("cuda"):
            self.networks["graphs"] = GraphTransformer(model)
        elif arguments.dtype == "float32":
            self.networks |= {"fast": FastTransformer(model), "fast int8": FastTransformer(model, int8=True)}
        else:
            self.networks["fast"] = FastTransformer(model)
        if unknown := set(arguments.only or ()) - set(self.networks):
            sys.exit(f"error: there is no {', '.join(unknown)} here; there are {', '.join(self.networks)}")
        self.networks = {name: one for name, one in self.networks.items() if name in (arguments.only or self.networks)}
        self.batch, self.frames = arguments.batch, int(self.config.clip_seconds * arguments.frame_rate)
        with torch.inference_mode():
            self.memory = model.text_memory(states.expand(self.batch, -1, -1), [TOKENS] * self.batch)

    def run(self, name: str, sampling: SamplingConfig) -> tuple[float, torch.Tensor]:
        started = now(self.device)
        codes = decode(self.networks[name], self.memory, range(self.batch), sampling, frames=self.frames)
        return now(self.device) - started, codes.cpu()


def compare(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    width = read_decoder(arguments.checkpoint).config.text_width
    states = torch.randn(1, TOKENS, width, generator=torch.Generator().manual_seed(0))
    ours = Ours(arguments, states)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(states, Path(folder) / "states.pt")
        of_config = ("width", "heads", "layers", "codebooks", "codes", "span_length", "context")
        of_arguments = ("device", "dtype", "threads", "batch", "frame_rate")
        job = {
            **{name: getattr(ours.config, name) for name in of_config},
            **{name: getattr(arguments, name) for name in of_arguments},
            "checkpoint": str(arguments.checkpoint / "state_dict.bin"),
            "states": str(Path(folder) / "states.pt"),
            "seconds": int(ours.config.clip_seconds),
            "frames": ours.frames,
        }
        reference = Reference(arguments.reference_python, job)
        print(
            f"reference: audiocraft with {reference.ready['ready']}, PyTorch {reference.ready['torch']}; "
            f"here PyTorch {torch.__version__}; {arguments.threads} threads on {arguments.device}"
        )
        seconds = measure(ours, reference, tuple(arguments.steps), arguments.runs)
        reference.close()
    base = statistics.median(seconds["reference"])
    for name, found in seconds.items():
        median = statistics.median(found)
        print(f"{name}: {median:.3f} s, {base / median:.2f} times as fast as the reference")


def measure(ours: Ours, reference: Reference, steps: tuple[int, ...], runs: int) -> dict[str, list[float]]:
    """Seconds of each, in turn; first all decode greedily, which warms them up and shows that they do the same."""
    short = (2,) * ours.config.codebooks
    wanted = torch.tensor(reference.run(short, greedy=True)["codes"])
    for name in ours.networks:
        _, codes = ours.run(name, SamplingConfig(steps=short, greedy=True))
        print(f"greedy, {name}: {float((codes == wanted).float().mean()):.2%} of the codes are equal")
    seconds: dict[str, list[float]] = {name: [] for name in ("reference", *ours.networks)}
    for _ in range(runs):
        seconds["reference"].append(reference.run(steps, greedy=False)["seconds"])
        for name in ours.networks:
            seconds[name].append(ours.run(name, SamplingConfig(steps=steps))[0])
    return seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time the decoder side by side with the reference.")
    parser.add_argument("checkpoint", type=Path, nargs="?", help="folder with state_dict.bin")
    parser.add_argument("--reference-python", help="the Python of an environment with audiocraft")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", help="of both; float16 on a GPU")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=lambda text: [int(n) for n in text.split(",")], default=[20, 10, 10, 10])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--frame-rate", type=int, default=50)
    parser.add_argument("--only", nargs="+", help="of our networks; all of them unless given")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_reference(json.loads(options.serve))
    elif options.checkpoint and options.reference_python:
        compare(options)
    else:
        parser.error("give a checkpoint and --reference-python")
