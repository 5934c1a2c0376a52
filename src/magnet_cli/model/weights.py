"""Reading tensors from files and assigning them to a network: safely, memory-mapped, strictly."""

from __future__ import annotations

import os
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from magnet_cli.disk.small_files import UnreadableFileError, open_regular, read_object
from magnet_cli.errors import ModelError, one_line

Weights = dict[str, Tensor]
Built = TypeVar("Built", bound=nn.Module)

# As `transformers` names them; the first is preferred.
SHARD_INDEX = "model.safetensors.index.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
# An error names this many tensors; a checkpoint of another kind may have hundreds that do not fit.
NAMED_PROBLEMS = 3
# Size of a pickle without its tensors; in the largest released model it has 0.3 MB.
MOST_PICKLE_BYTES = 1 << 24
LEGACY_PICKLES = 5  # before 2020: a number, a version, the system, the object, and the names of its tensors
LONGEST_GLOBAL = 200  # characters of a name in a pickle; torch's have up to 60
# The dtypes of weights. No such model has others (complex, quantized, or of fewer than 8 bits).
DTYPES = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    | {torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool}
)


class _NotDrawn(TorchFunctionMode):
    """Within this block, no random initial values are drawn."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def without_weights() -> Iterator[None]:
    """Networks built in this block have shapes only, on `meta`, for `assign`.

    Initial values are not drawn there: `normal_` on `meta` imports its compiler, 1.3 s (measured, 2.11).
    """
    with _NotDrawn(), torch.device("meta"):
        yield


def read_package(path: Path) -> Mapping[Any, Any]:
    """Read the dictionary in a file of torch.save, memory-mapped.

    Unpickling is always restricted to tensors and plain containers.

    Raises: ModelError for anything else.
    """
    try:
        with open_regular(path) as file:
            zipped = zipfile.is_zipfile(file)
            if zipped:
                _check_archive(file)
            else:
                file.seek(0)
                content = BytesIO(file.read(MOST_PICKLE_BYTES))
                for _ in range(LEGACY_PICKLES):
                    if content.tell() < len(content.getbuffer()):  # a plain pickle has nothing after it
                        _check_pickle(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickles of other versions, and then reads or refuses them
            # Only the zip format, torch's own since 2020, can be memory-mapped.
            package = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        # torch's own message advises to read the file without restrictions, as an attacker would want.
        raise ModelError(
            f"{path} was refused: it is not a plain checkpoint, and reading anything else could run code",
            "Get it again from its original source",
        ) from error
    except UnreadableFileError as error:
        raise ModelError(f"cannot read {path}: {error}", "Check the file and its permissions") from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "Check the file and its permissions") from error
    except Exception as error:  # a damaged file fails in many ways, and the messages do not help
        raise ModelError(f"{path} is damaged or not a checkpoint", "Fetch it again") from error
    if not isinstance(package, Mapping):
        raise ModelError(f"{path} holds a {type(package).__name__}, not a checkpoint", "Choose another file")
    return package


def _check_archive(file: BinaryIO) -> None:
    """Raise for an archive that torch.save has not written: compressed, or with parts larger than the file.

    2 GB of zeros take 2 MB in a compressed archive, or in one whose files share their bytes.
    """
    size = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise UnreadableFileError("it is compressed, which no checkpoint is")
        if sum(part.file_size for part in parts) > size:
            raise UnreadableFileError("its parts are larger than the file")
        for part in parts:
            if part.filename.endswith(".pkl"):
                if part.file_size > MOST_PICKLE_BYTES:
                    raise UnreadableFileError(f"{part.filename} in it has {part.file_size:,} bytes")
                _check_pickle(BytesIO(archive.read(part)))


def _check_pickle(content: BytesIO) -> None:
    """Raise UnpicklingError for a pickle with a name that costs torch too much, whether it accepts or refuses it.

    A pickle may ask for a block of memory of any size. Where torch refuses a name, composing its message takes time
    that grows with the square of the name's length: a minute for 100,000 characters (PyTorch 2.11).
    """
    for operation, argument, _ in pickletools.genops(content):
        if operation.name == "GLOBAL" and (len(str(argument)) > LONGEST_GLOBAL or "bytearray" in str(argument)):
            raise pickle.UnpicklingError


def as_weights(state: object, path: Path, where: str) -> Weights:
    """The named tensors of a value; ModelError for anything else. where: the place in the file, for messages."""
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(weight, Tensor) for name, weight in state.items()
    ):
        raise ModelError(f"{path} has no named tensors in {where}", "Fetch it again")
    for name, weight in state.items():
        problem = _no_weight(weight)
        if problem is not None:
            raise ModelError(f"{name} in {path} is {problem}, so it cannot be a weight", "Fetch it again")
    return dict(state)


def _no_weight(tensor: Tensor) -> str | None:
    """Why a tensor cannot be a weight, in words; None if it can."""
    if tensor.is_nested or tensor.layout != torch.strided:
        return "sparse or nested"
    if tensor.device.type != "cpu":
        return f"on {tensor.device}, without values"
    if tensor.is_quantized or tensor.dtype not in DTYPES:
        return f"stored as {str(tensor.dtype).removeprefix('torch.')}"
    return None


def check_memory(weights: Weights, path: Path, *, most: int = 0) -> None:
    """Raise ModelError if tensors, once copied, take over `most` bytes more than in the file.

    A tensor of a pickle can repeat one stored number any number of times.
    """
    beyond = sum(max(0, one.numel() * one.itemsize - one.untyped_storage().nbytes()) for one in weights.values())
    if beyond > most:
        raise ModelError(
            f"the tensors in {path} have {beyond:,} bytes more than are stored there", "Get it from its original source"
        )


def check_parts(weights: Weights, parts: int, path: Path) -> None:
    """Raise ModelError if a network would have more parts (mostly layers) than there are tensors.

    Called before the network is built, so that it is never larger than what was read.
    """
    if parts > len(weights):
        raise ModelError(
            f"{path} does not fit its configuration: that describes {parts:,} layers and the like, but there are "
            f"{len(weights):,} tensors",
            "The file is damaged or of another kind of model; fetch it again",
        )


def read_weights(folder: Path) -> tuple[Path, Weights]:
    """The file of weights in a folder in Hugging Face format, and its tensors."""
    if (folder / SHARD_INDEX).is_file() and not (folder / WEIGHT_FILES[0]).is_file():
        return folder / SHARD_INDEX, _read_shards(folder / SHARD_INDEX)
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise ModelError(f"there are no weights in {folder}", f"It must have one of {', '.join(WEIGHT_FILES)}")
    if path.suffix != ".safetensors":
        weights = as_weights(read_package(path), path, "it")
        check_memory(weights, path)
        return path, weights
    return path, read_safetensors(path)


def _read_shards(index: Path) -> Weights:
    """The tensors of a model that is split over several safetensors files, which its index names."""
    try:
        names = sorted(set(read_object(index)["weight_map"].values()))
        paths = [index.parent / Path(name).name for name in names]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} is damaged", "Fetch it again") from error
    weights: Weights = {}
    for path in paths:
        weights |= read_safetensors(path)
    return weights


def read_safetensors(path: Path) -> Weights:
    """The tensors in a safetensors file, memory-mapped."""
    try:
        open_regular(path).close()
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, LookupError) as error:
        raise ModelError(f"cannot read {path}: {one_line(error)}", "The file is damaged; fetch it again") from error
    return as_weights(weights, path, "it")


def assign(model: Built, weights: Weights, path: Path, *, device: torch.device, dtype: torch.dtype) -> Built:
    """Assign its weights to a network built on `meta`, after checking every name and shape.

    On the CPU, weights that are stored in `dtype` stay memory-mapped. path: for messages.

    Raises: ModelError if names or shapes differ.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is not expected" for name in found if name not in expected]
    problems += [
        f"{name} has shape {list(found[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if problems:
        more = f" (and {len(problems) - NAMED_PROBLEMS} more problems)" if len(problems) > NAMED_PROBLEMS else ""
        raise ModelError(
            f"{path} does not fit its configuration: {'; '.join(problems[:NAMED_PROBLEMS])}{more}",
            "The file is damaged or of another kind of model; fetch it again",
        )
    model.load_state_dict({name: weight.to(device, dtype) for name, weight in weights.items()}, assign=True)
    return model.eval().requires_grad_(False)
