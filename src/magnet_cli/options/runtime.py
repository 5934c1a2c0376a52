"""Where models are looked for, and where and how they run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from magnet_cli.errors import UsageError

DTypeName = Literal["auto", "float32", "bfloat16", "float16", "int8", "float8"]


@dataclass(frozen=True)
class PlacesConfig:
    """Where models are looked for.

    model_dir   the folder of bundles; None: MAGNET_MODEL_DIR, else one in the user's cache folder
    cache_dir   the folder of downloads; None: the Hub cache (HF_HUB_CACHE, HF_HOME)
    offline     make no request to the Hub
    """

    model_dir: Path | None = None
    cache_dir: Path | None = None
    offline: bool = False


@dataclass(frozen=True)
class RuntimeConfig:
    """Where and how the model runs.

    device      "auto", "cpu", "cuda", "cuda:N" or "mps"
    dtype       of the decoder's weights and activations; text encoder, guidance, sampling and codec stay in float32.
                "auto": float16 on CUDA, which is what the released weights are stored in; bfloat16 on a CPU that
                computes in it; float32 elsewhere. "int8" on a CPU, "float8" on a GPU of capability 8.9 or above: the
                large matrices in 8 bits, approximate
    batch_size  clips decoded together; None: 1 on a CPU, where a batch gains nothing, what fits on a GPU
    compile     compile the decoder on a GPU, which takes tens of seconds for each size of batch: for long runs
    """

    device: str = "auto"
    dtype: DTypeName = "auto"
    batch_size: int | None = None
    compile: bool = False

    @property
    def eight_bits(self) -> bool:
        """Whether the large matrices are in 8 bits."""
        return self.dtype in ("int8", "float8")

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,2})?|mps", self.device):
            raise UsageError(f"unknown device {self.device!r}", "Give auto, cpu, cuda, cuda:N or mps")
        if self.dtype not in get_args(DTypeName):
            raise UsageError(f"unknown dtype {self.dtype!r}", f"Give one of {', '.join(get_args(DTypeName))}")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch size must be at least 1, not {self.batch_size}", "Give e.g. 4")
