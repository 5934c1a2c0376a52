"""Time and memory at real sizes, each measured in a process of its own: this file is also the script that it runs."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from magnet_cli.checkpoints.parts import build_decoder
from magnet_cli.checkpoints.released import DECODER_FILE, read_decoder
from magnet_cli.decoding.masked import decode
from magnet_cli.model.config import DecoderConfig
from magnet_cli.model.decoder import MaskedTransformer
from magnet_cli.options.sampling import SamplingConfig

GOLDEN = Path(__file__).parents[1] / "golden"
CPU = torch.device("cpu")

# facebook/magnet-small-10secs
SMALL = DecoderConfig(
    width=1024,
    heads=16,
    layers=24,
    feed_forward=4096,
    codebooks=4,
    codes=2048,
    text_width=768,
    span_length=3,
    context=5,
    clip_seconds=10.0,
    max_period=10_000.0,
    position_scale=1.0,
)
# Weights of 1.7 GB and some activations take 2.4 GB, measured. 6 GB is what a laptop with 8 GB can spare.
PEAK_BYTES = 6 * 10**9

# About 0.1 billion parameters: enough that nothing else in the process counts, small enough for CI.
PROBE = {"dim": 768, "num_heads": 12, "num_layers": 11, "hidden_scale": 4, "n_q": 4, "card": 512}


# -- in the process that is measured ----------------------------------------------------------------------------------


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def decode_a_clip() -> dict[str, Any]:
    """A 10-second clip from random weights in the shape of the small model."""
    with torch.device("meta"):
        model = MaskedTransformer(SMALL)
    model = model.to_empty(device=CPU).eval().requires_grad_(False)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.uniform_(-0.05, 0.05)
        else:
            parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
    memory = model.text_memory(torch.randn(1, 12, SMALL.text_width), [12])
    codes = decode(model, memory, [0], SamplingConfig(steps=(1, 1, 1, 1)), frames=500)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "shape": list(codes.shape),
        "distinct": len(codes.unique()),
        "largest": int(codes.max()),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def load_a_decoder(folder: str, dtype: str) -> dict[str, Any]:
    """How much memory reading and building a decoder takes, beyond what the file's pages are."""
    target: torch.dtype = getattr(torch, dtype)
    # What torch sets up once is not the model's: 60 MB of modules that it imports when a device is "meta".
    build_decoder(read_decoder(GOLDEN / "music"), CPU, target)
    before = anonymous_bytes()
    model = build_decoder(read_decoder(Path(folder)), CPU, target)
    loaded = anonymous_bytes()
    checksum = float(sum(parameter.float().abs().sum() for parameter in model.parameters()))  # every page is read
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "grown": loaded - before,
        "checksum": checksum,
    }


def write_a_decoder(folder: str) -> dict[str, Any]:
    """A decoder of the probe's shape in the released format, in float16."""
    package = torch.load(GOLDEN / "music" / DECODER_FILE, weights_only=True)
    tree = yaml.safe_load(package["xp.cfg"])
    tree["transformer_lm"].update(PROBE)
    width, codes = PROBE["dim"], PROBE["card"]
    torch.manual_seed(0)

    def resized(name: str, weight: torch.Tensor) -> torch.Tensor:
        sizes = {32: width, 64: codes, 65: codes + 1, 96: 3 * width, 128: 4 * width}
        shape = [sizes.get(size, size) for size in weight.shape]
        if name.endswith("output_proj.weight"):
            shape[1] = weight.shape[1]
        return torch.empty(shape, dtype=torch.float16).uniform_(-0.05, 0.05)

    state = {}
    for name, weight in package["best_state"].items():
        if ".layers." not in name:
            state[name] = resized(name, weight)
        elif ".layers.0." in name:
            for layer in range(PROBE["num_layers"]):
                state[name.replace(".layers.0.", f".layers.{layer}.")] = resized(name, weight)
    torch.save({**package, "best_state": state, "xp.cfg": yaml.safe_dump(tree)}, Path(folder) / DECODER_FILE)
    return {"parameters": sum(weight.numel() for weight in state.values())}


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    "decode": decode_a_clip,
    "load": load_a_decoder,
    "write": write_a_decoder,
}


def measure(command: str, *arguments: str) -> dict[str, Any]:
    """Run one of the functions above in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, command, *arguments], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


# -- tests ------------------------------------------------------------------------------------------------------------


def test_a_clip_of_the_small_model_fits_into_6_gb() -> None:
    found = measure("decode")
    assert found["parameters"] == pytest.approx(419e6, rel=0.01)  # facts.md gives three digits
    assert found["shape"] == [1, 4, 498]  # 500 frames, whole spans of 3
    assert found["largest"] < SMALL.codes  # no mask token is left
    assert found["distinct"] > 100  # a network that works, not one code everywhere
    assert found["peak"] < PEAK_BYTES


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to measure memory with")


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe")
    written = measure("write", str(folder))
    assert written["parameters"] == pytest.approx(1e8, rel=0.2)
    return folder


@needs_proc
def test_a_decoder_in_its_stored_dtype_stays_in_its_file(probe: Path) -> None:
    found = measure("load", str(probe), "float16")
    assert found["checksum"] > 0
    # Python objects for a few hundred tensors, where a copy would be 100%.
    assert found["grown"] < 0.1 * 2 * found["parameters"]


@needs_proc
def test_a_decoder_that_is_converted_is_in_memory_once(probe: Path) -> None:
    found = measure("load", str(probe), "float32")
    assert found["checksum"] > 0
    # One tensor is converted at a time; 15% is for the allocator, where a second copy in float16 would be 50%.
    assert 0.9 * 4 * found["parameters"] < found["grown"] < 1.15 * 4 * found["parameters"]


if __name__ == "__main__":
    print(json.dumps(COMMANDS[sys.argv[1]](*sys.argv[2:])))
