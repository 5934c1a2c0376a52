"""Which dtype "auto" is, how many clips are decoded together, and what to do where memory runs out."""

from __future__ import annotations

import pytest
import torch

from magnet_cli import Pipeline, RuntimeConfig
from magnet_cli.engines import device as module
from magnet_cli.engines.device import decoded_together, is_memory_shortage, memory_errors, resolve_dtype
from magnet_cli.errors import MemoryShortageError, UsageError
from magnet_cli.options.runtime import DTypeName
from support.golden import GOLDEN

CPU, GPU, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_what_suits_the_device(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAGNET_AUTO_DTYPE", raising=False)
    monkeypatch.setattr(module, "computes_bfloat16", lambda: fast)
    auto = [resolve_dtype(RuntimeConfig(), device) for device in (CPU, GPU, MPS)]
    assert auto == [torch.bfloat16 if fast else torch.float32, torch.float16, torch.float32]
    monkeypatch.setenv("MAGNET_AUTO_DTYPE", "")  # as good as unset
    assert [resolve_dtype(RuntimeConfig(), device) for device in (CPU, GPU, MPS)] == auto


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("fast", [True, False])
def test_a_variable_sets_auto_and_nothing_else(name: str, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No warning of a slow dtype either: warnings are errors here."""
    monkeypatch.setattr(module, "computes_bfloat16", lambda: fast)
    monkeypatch.setenv("MAGNET_AUTO_DTYPE", name)
    assert [resolve_dtype(RuntimeConfig(), device) for device in (CPU, GPU)] == [getattr(torch, name)] * 2
    assert resolve_dtype(RuntimeConfig(dtype="float32"), CPU) == torch.float32
    assert resolve_dtype(RuntimeConfig(dtype="int8"), CPU) == torch.float32


@pytest.mark.parametrize("name", ["int8", "float8", "auto", "half"])
def test_a_variable_that_names_no_dtype_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGNET_AUTO_DTYPE", name)
    with pytest.raises(UsageError, match=f"MAGNET_AUTO_DTYPE is '{name}'") as caught:
        resolve_dtype(RuntimeConfig(), CPU)
    assert "float32, bfloat16, float16" in caught.value.hint


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_model_runs_in_what_the_variable_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGNET_AUTO_DTYPE", name)
    assert Pipeline.load(str(GOLDEN / "music"), RuntimeConfig(device="cpu")).info.dtype == name


def test_a_cpu_decodes_every_clip_alone() -> None:
    assert [decoded_together(device, 8) for device in (CPU, GPU, MPS)] == [1, 8, 8]


@pytest.mark.parametrize(
    ("dtype", "names_bfloat16"), [("float32", True), ("int8", True), ("bfloat16", False), ("float16", False)]
)
def test_where_memory_runs_out_another_dtype_is_named(dtype: DTypeName, names_bfloat16: bool) -> None:
    with pytest.raises(MemoryShortageError) as caught, memory_errors(CPU, "to load the model", dtype=dtype):
        raise MemoryError("no room")
    assert ("--dtype bfloat16" in caught.value.hint) == names_bfloat16
    assert "--dtype" not in caught.value.hint.replace("--dtype bfloat16", "")


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (torch.AcceleratorError("CUDA error: out of memory", 2), True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700), False),
        (RuntimeError("CUDA error: operation not permitted when stream is capturing"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_a_shortage_of_memory(error: Exception, short: bool) -> None:
    assert is_memory_shortage(error) == short
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError("operation failed due to a previous error during capture") from error
    assert is_memory_shortage(caught.value) == short
