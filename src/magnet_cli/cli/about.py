"""What `magnet --version --json` prints: this program, what it runs on, and where it can compute."""

from __future__ import annotations

import platform
from typing import Any

from magnet_cli.errors import DeviceError, one_line


def about() -> dict[str, Any]:
    """The versions of magnet, Python and the libraries, the platform, and the devices. Imports PyTorch.

    devices: by the names that --device takes, whether each can be used. Raises DeviceError if PyTorch does not load.
    """
    try:
        import torch

        from magnet_cli.engines.device import is_available
        from magnet_cli.pipeline.record import versions
    except (ImportError, OSError) as error:  # OSError: a library of PyTorch's is missing or damaged
        raise DeviceError(f"PyTorch does not load: {one_line(error)}", "Run magnet doctor") from None
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        **versions(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cuda": torch.version.cuda,
        "rocm": torch.version.hip,
        "devices": {"cpu": True, "cuda": is_available("cuda"), "mps": is_available("mps")},
        "gpus": gpus,
    }
