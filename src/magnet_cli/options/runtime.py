"""Where models are looked for, and where and how they run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, get_args

from magnet_cli.errors import UsageError, did_you_mean
from magnet_cli.options.declared import Option, Panel, short_repr

EightBits = Literal["int8", "float8"]
DTypeName = Literal["auto", "float32", "bfloat16", "float16", "int8", "float8"]


@dataclass(frozen=True, repr=False)
class PlacesConfig:
    """Where models are looked for.

    model_dir: folder of bundles; cache_dir: folder of downloads; None: the user's cache folders. offline: make no
    request; the environment variable HF_HUB_OFFLINE sets it, too.
    """

    PANEL: ClassVar[Panel] = "Model files"

    model_dir: Path | None = field(
        default=None,
        metadata=Option(
            help="Folder of converted models (bundles).",
            metavar="DIR",
            unset="a folder in the user's cache folder",
            env="MAGNET_MODEL_DIR",
        ),
    )
    cache_dir: Path | None = field(
        default=None,
        metadata=Option(
            help="Folder of downloaded files.",
            metavar="DIR",
            unset="the cache of the Hugging Face Hub",
            env="MAGNET_CACHE_DIR",
        ),
    )
    offline: bool = field(
        default=False,
        metadata=Option(
            help="Make no request to the Hugging Face Hub; use only files that are on this machine.",
            env="MAGNET_OFFLINE",
        ),
    )

    __repr__ = short_repr


@dataclass(frozen=True, repr=False)
class RuntimeConfig:
    """Where and how the model runs.

    dtype is that of the decoder's weights and activations; text encoder, guidance, sampling and codec stay in float32.
    "auto" is float16 on CUDA, because the released weights are stored in it, or what the environment variable
    MAGNET_AUTO_DTYPE names. On a CPU the clips of a batch are computed one by one: see `device.decoded_together`.
    batch_size: clips that are decoded together; None: as many as fit.

    Raises:
        UsageError: for a value that is not possible. Whether the device is there is checked when a model is loaded.
    """

    PANEL: ClassVar[Panel] = "Device"

    device: str = field(
        default="auto",
        metadata=Option(
            help="Device that runs the model. auto: a CUDA GPU, otherwise an Apple GPU (mps), otherwise the CPU.",
            metavar="auto|cpu|cuda[:N]|mps",
        ),
    )
    dtype: DTypeName = field(
        default="auto",
        metadata=Option(
            help="Precision of the decoder. auto: float16 on CUDA, bfloat16 on CPUs that compute in it, float32 "
            "elsewhere. Approximate: int8 on CPUs, float8 on GPUs of CUDA capability 8.9 or above."
        ),
    )
    batch_size: int | None = field(
        default=None,
        metadata=Option(
            help="Number of clips to decode together, at least 1.",
            unset="1 on a CPU, as many as fit into memory on a GPU",
        ),
    )
    compile: bool = field(
        default=False,
        metadata=Option(
            help="Compile the decoder on a GPU before the first clip. This takes tens of seconds for each batch size, "
            "and pays off in long runs."
        ),
    )

    __repr__ = short_repr

    @property
    def eight_bits(self) -> EightBits | None:
        """The form of the large matrices if it has 8 bits."""
        return self.dtype if self.dtype in ("int8", "float8") else None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,2})?|mps", self.device):
            raise UsageError(
                f"unknown device {self.device!r}",
                did_you_mean(self.device, ("auto", "cpu", "cuda", "mps"), "Give auto, cpu, cuda, cuda:N or mps"),
            )
        if self.dtype not in get_args(DTypeName):
            known = get_args(DTypeName)
            raise UsageError(
                f"unknown dtype {self.dtype!r}", did_you_mean(self.dtype, known, f"Give one of {', '.join(known)}")
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch size must be at least 1, not {self.batch_size}", "Give e.g. 4")
