"""Files of weights: what is no weight, and what would take more memory than the file has."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from magnet_cli.errors import ModelError
from magnet_cli.model import weights as weights_module
from magnet_cli.model.weights import as_weights, check_memory, check_parts, read_package, read_safetensors, read_weights

PATH = Path("some.bin")


def repacked(content: bytes, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive with other contents or another compression."""
    target = BytesIO()
    with zipfile.ZipFile(BytesIO(content)) as archive, zipfile.ZipFile(target, "w", compression) as again:
        for name in archive.namelist():
            again.writestr(name, change(name, archive.read(name)))
    return target.getvalue()


def saved(value: Any, *, new: bool = True) -> bytes:
    target = BytesIO()
    torch.save(value, target, _use_new_zipfile_serialization=new)
    return target.getvalue()


@pytest.mark.filterwarnings("ignore")  # of what these are, most is called unfinished
@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: torch.eye(3).to_sparse(), "sparse"),
        (lambda: torch.eye(4).to_sparse_csr(), "sparse"),
        (lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "sparse or nested"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "qint8"),
        (lambda: torch.zeros(3, device="meta"), "on meta"),
        (lambda: torch.zeros(3, dtype=torch.complex64), "complex64"),
        (lambda: torch.zeros(3, dtype=torch.float8_e4m3fn), "float8_e4m3fn"),
    ],
)
def test_what_no_network_takes_is_refused_when_it_is_read(
    tmp_path: Path, make: Callable[[], torch.Tensor], part: str
) -> None:
    path = tmp_path / "pytorch_model.bin"
    with pytest.raises(ModelError, match=rf"x in .*{part}"):
        as_weights({"a": torch.zeros(2), "x": make()}, path, "it")
    path.write_bytes(saved({"x": make()}))
    with pytest.raises(ModelError, match=r"pytorch_model\.bin"):
        read_weights(tmp_path)


def test_safetensors_of_odd_numbers_are_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(4, dtype=torch.float8_e5m2)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="float8_e5m2"):
        read_weights(tmp_path)


def test_a_tensor_that_repeats_a_number_is_not_spread_out() -> None:
    repeated = torch.zeros(1).expand(2**20, 2**20)  # 4 TB
    as_weights({"x": repeated}, PATH, "it")
    with pytest.raises(ModelError, match="4,398,046,511,100 bytes more"):
        check_memory({"x": repeated, "y": torch.zeros(9)}, PATH)
    check_memory({"x": torch.zeros(5)[:3], "tied": torch.zeros(5)}, PATH)


def test_a_repeating_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(saved({"x": torch.zeros(1).expand(2**20, 2**20)}))
    with pytest.raises(ModelError, match="more than are stored"):
        read_weights(tmp_path)


def test_a_network_is_never_larger_than_its_file() -> None:
    check_parts({"a": torch.zeros(1), "b": torch.zeros(1)}, 2, PATH)
    with pytest.raises(ModelError, match="1,000 layers and the like, but there are 1 tensors"):
        check_parts({"a": torch.zeros(1)}, 1000, PATH)


def test_a_compressed_archive_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    zeros = b"\0" * (64 << 20)
    path.write_bytes(repacked(saved({"x": torch.zeros(4)}), lambda name, part: part, zipfile.ZIP_DEFLATED))
    with pytest.raises(ModelError, match="compressed"):
        read_package(path)
    packed = repacked(
        saved({"x": 1}), lambda name, part: zeros if name.endswith(".pkl") else part, zipfile.ZIP_DEFLATED
    )
    assert len(packed) < 100_000
    path.write_bytes(packed)
    with pytest.raises(ModelError, match="compressed"):
        read_package(path)


def test_an_archive_whose_parts_share_their_bytes_is_refused(tmp_path: Path) -> None:
    content = bytearray(saved({"x": torch.zeros(4096)}))
    # In the directory at the end, every part has the place and the size of the first large one.
    with zipfile.ZipFile(BytesIO(bytes(content))) as archive:
        large = max(archive.infolist(), key=lambda part: part.file_size)
    place = content.find(b"PK\x01\x02")
    while place >= 0:
        content[place + 20 : place + 28] = large.file_size.to_bytes(4, "little") * 2
        place = content.find(b"PK\x01\x02", place + 4)
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="larger than the file"):
        read_package(path)


def test_a_large_pickle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(saved({"x": "y" * 10_000}))
    read_package(path)
    monkeypatch.setattr(weights_module, "MOST_PICKLE_BYTES", 5000)
    with pytest.raises(ModelError, match=r"data\.pkl in it has 10,"):
        read_package(path)


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_that_asks_for_memory_is_refused(tmp_path: Path, new: bool) -> None:
    class Block:
        def __reduce__(self) -> tuple[type, tuple[int]]:
            return bytearray, (2**33,)  # which torch allows, and which takes 8 GB

    path = tmp_path / "a.bin"
    path.write_bytes(saved({"x": Block()}, new=new))
    with pytest.raises(ModelError, match="refused"):
        read_package(path)


def test_a_bare_pickle_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(ModelError):
        read_package(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in the file system")
@pytest.mark.timeout(20)
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (read_package, read_safetensors):
        with pytest.raises(ModelError, match="no regular file"):
            read(tmp_path / "pipe")
