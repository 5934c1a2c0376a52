"""Where a model runs: the device, its precision, how many clips at once, and what happens when memory runs out."""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from magnet_cli.errors import DeviceError, MagnetWarning, MemoryShortageError, UsageError, one_line
from magnet_cli.model.config import CodecConfig, DecoderConfig
from magnet_cli.options.runtime import RuntimeConfig

# A few clips already keep a GPU busy; more clips together only take longer.
LARGEST_BATCH = 8
PEAK_SIZE = {"cpu": 2048, "cuda": 8192}  # large enough to be at the peak, small enough to take no time
# An environment variable that sets what "auto" means, so that tests or a whole machine can run in another dtype.
AUTO_DTYPE = "MAGNET_AUTO_DTYPE"
AUTO_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Threads that finish the clips of a GPU: a batch of 8 clips of 10 s takes 1.3 s of processor time.
MOST_FINISHING = 4
SAFETY = 0.8  # share of the free memory; the rest covers what the estimate leaves out


def resolve_device(runtime: RuntimeConfig) -> torch.device:
    """The device to run on: for "auto" a GPU if there is one, else the CPU."""
    wanted = runtime.device
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no usable CUDA device"
        raise DeviceError(
            f"{wanted} was requested, but PyTorch finds {found}", "Check the driver, or give --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("mps was requested, but this machine has none", "Give --device cpu")
    return device


def is_available(device: str) -> bool:
    """Whether a device can be used here."""
    try:
        resolve_device(RuntimeConfig(device=device))
    except DeviceError:
        return False
    return True


def resolve_dtype(runtime: RuntimeConfig, device: torch.device) -> torch.dtype:
    """The decoder's dtype; see RuntimeConfig. Around 8-bit matrices: float32 on CPUs, bfloat16 on GPUs."""
    if runtime.dtype == "int8":
        if device.type != "cpu":
            raise DeviceError(f"int8 runs on CPUs only, not on {device}", "Give --dtype float16, or --device cpu")
        return torch.float32
    if runtime.dtype == "float8":
        _check_float8(device)
        return torch.bfloat16
    if runtime.dtype == "auto":
        return automatic_dtype(device)
    fast = runtime.dtype == "float32" or (runtime.dtype == "bfloat16" and computes_bfloat16())
    if device.type == "cpu" and not fast:
        # Measured on a CPU without bfloat16 arithmetic: a pass takes 6 to 8 times as long as in float32.
        warnings.warn(f"this CPU has no fast {runtime.dtype}: float32 is quicker", MagnetWarning, stacklevel=3)
    dtype: torch.dtype = getattr(torch, runtime.dtype)
    return dtype


def automatic_dtype(device: torch.device) -> torch.dtype:
    """What the dtype "auto" means on a device: what `MAGNET_AUTO_DTYPE` names, else what suits the device.

    float16 on CUDA; bfloat16 on a CPU that has instructions for it; float32 elsewhere. Raises UsageError for a value of
    the variable that is not one of AUTO_DTYPES.
    """
    named = os.environ.get(AUTO_DTYPE)
    if named:
        if named not in AUTO_DTYPES:
            raise UsageError(f"{AUTO_DTYPE} is {named!r}", f"Set it to one of {', '.join(AUTO_DTYPES)}, or unset it")
        return AUTO_DTYPES[named]
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if device.type == "cpu" and computes_bfloat16() else torch.float32


def computes_float8(device: torch.device) -> bool:
    """Whether a CUDA device multiplies 8-bit floats: those of the Ada and Hopper generations and later."""
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 9)


def _check_float8(device: torch.device) -> None:
    if device.type != "cuda":
        remedy = "int8" if device.type == "cpu" else "float16"
        raise DeviceError(f"float8 runs on CUDA devices only, not on {device}", f"Give --dtype {remedy}")
    if not computes_float8(device):
        name = torch.cuda.get_device_name(device)
        capability = "a CUDA device of capability 8.9 or above (Ada, Hopper or later)"
        raise DeviceError(f"float8 needs {capability}, which {name} is not", "Give --dtype float16")


def computes_bfloat16() -> bool:
    """Whether the CPU has instructions for products of bfloat16, AVX512-BF16 or AMX; others emulate them, slowly."""
    if not torch.backends.mkldnn.is_available():
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def automatic_batch_size(decoder: DecoderConfig, codec: CodecConfig, device: torch.device, dtype: torch.dtype) -> int:
    """How many clips to decode together: 1 on a CPU, where a batch gains nothing; on a GPU the power of 2 that fits."""
    if device.type != "cuda":
        return 1 if device.type == "cpu" else 2
    free, _ = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    fitting = int(SAFETY * (free + reserved) / clip_bytes(decoder, codec, dtype))
    return max(1, min(LARGEST_BATCH, 1 << (fitting.bit_length() - 1) if fitting else 1))


def decoded_together(device: torch.device, clips: int) -> int:
    """How many clips of a batch pass through the networks at once: one on a CPU, all of them elsewhere.

    The other clips of a batch change how the numbers of a clip are rounded. Measured on a CPU with AVX512-BF16 and VNNI
    (PyTorch 2.11), in every dtype: attention sums in another order where a prompt is padded to a longer one, and where
    a clip's frames begin elsewhere in the blocks of `local_attention`; float32 products do for fewer than 4 rows. The
    codes of five clips of the bundled model, alone and together, were equal in 38 to 100% of places in bfloat16, and in
    65 to 100% in int8. A CPU gains nothing by a batch, so a clip is computed alone there, and is always the
    same.
    """
    return 1 if device.type == "cpu" else clips


def finishing_threads(device: torch.device) -> int:
    """How many threads finish clips, each on one core, while the next ones are decoded.

    One beside a CPU's decoder, which uses all cores: it fills the gaps in which they wait for each other. A GPU leaves
    all cores but one to others, and by its arithmetic decodes a batch of 8 in less time than one core takes to finish
    it.
    """
    return 1 if device.type == "cpu" else max(1, min(MOST_FINISHING, (os.cpu_count() or 1) - 1))


def clip_bytes(decoder: DecoderConfig, codec: CodecConfig, dtype: torch.dtype) -> int:
    """Approximate bytes for one more clip: the decoder's or the codec's, which run one after the other."""
    frames = int(decoder.clip_seconds * codec.frame_rate)
    # Both halves of guidance; per frame a state, its norm, q, k, v, the sum, and the hidden layer twice (before GELU
    # and after); then logits, which guidance, softmax and top-p hold about six times in float32.
    states = 2 * frames * (6 * decoder.width + 2 * decoder.feed_forward) * dtype.itemsize
    logits = frames * decoder.codes * 4 * 8
    # The codec's last layers: n_filters channels at the sample rate in float32, about four such at a time.
    waveform = 4 * 4 * codec.n_filters * frames * codec.hop
    return max(states + logits, waveform)


def matmul_rate(device: torch.device, dtype: torch.dtype, *, repeats: int = 5) -> float:
    """Operations per second of a plain matrix product, the best of a few."""
    size = peak_size(device)
    if device.type == "cpu" and dtype != torch.float32 and not computes_bfloat16():
        size //= 4  # emulated arithmetic would take minutes
    # Random numbers: a GPU that multiplies ones needs less power, and so runs at a higher clock than it ever does.
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return product_rate(lambda: left @ right, size, repeats=repeats)


def peak_size(device: torch.device) -> int:
    """Rows and columns of matrices whose product runs at a device's peak."""
    return PEAK_SIZE.get(device.type, PEAK_SIZE["cpu"])


def product_rate(product: Callable[[], Tensor], size: int, *, repeats: int = 5) -> float:
    """Operations per second of a product of two square matrices, the best of a few."""

    def once() -> float:
        started = time.perf_counter()
        product()[0, 0].item()  # waits for the device
        return time.perf_counter() - started

    once()  # not counted: the first product initializes libraries
    return 2.0 * size**3 / min(once() for _ in range(repeats))


def processor_name(device: torch.device) -> str:
    """The processor, as far as it can change rounding."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


# How PyTorch says that memory ran out: the CPU's allocator, and CUDA where it is not the allocator that fails.
SHORTAGES = ("allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def is_memory_shortage(error: BaseException) -> bool:
    """Whether memory ran out, also where that made something else fail."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (MemoryError, MemoryShortageError, torch.OutOfMemoryError)):
            return True
        if isinstance(seen, RuntimeError) and any(word in str(seen) for word in SHORTAGES):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def release_frames(error: BaseException) -> None:
    """Free what the functions held that an error came through: its traceback keeps their tensors otherwise."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__


@contextmanager
def memory_errors(device: torch.device, purpose: str, *, dtype: str) -> Iterator[None]:
    """Raise running out of memory as a DeviceError with a remedy. dtype: of the decoder, as `ModelInfo` names it."""
    smaller = ", --dtype bfloat16," if dtype in ("float32", "int8") else ""  # int8 matrices lie beside float32 ones
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_memory_shortage(error):
            raise
        raise MemoryShortageError(
            f"not enough memory on {device} {purpose}: {one_line(error, 120)}",
            f"Use a smaller model or batch{smaller} or another --device",
        ) from error


@contextmanager
def reproducible_kernels() -> Iterator[None]:
    """Choose the kernels on purpose, for all that runs in the block.

    - No cuDNN attention: PyTorch prefers it on Hopper, and it plans anew for each shape, which MusicGen has another one
      of at every frame.
    - No TF32 in convolutions and LSTMs, which is on by default: the codec's codes would be others than on a CPU.
    """
    cudnn = torch.backends.cudnn
    before, cudnn.allow_tf32 = cudnn.allow_tf32, False
    try:
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            yield
    finally:
        cudnn.allow_tf32 = before


def peak_memory(device: torch.device) -> int:
    """Highest number of bytes in use so far: reserved on a GPU; of the process on a CPU, 0 where it is unknown.

    What PyTorch reserves is what a GPU must have free: the pools of graphs are in it, and fragments of no use.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident if sys.platform == "darwin" else resident * 1024  # kilobytes on Linux
