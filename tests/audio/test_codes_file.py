"""Files of codes: what numpy writes is read, whatever it claims to be; everything else is refused."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from magnet_cli.audio.codes_file import read_codes
from magnet_cli.errors import UsageError

CODES = np.arange(24, dtype=np.int16).reshape(4, 6)


def npy(array: NDArray[Any], version: tuple[int, int] | None = None) -> bytes:
    target = io.BytesIO()
    np.lib.format.write_array(target, array, version=version)
    return target.getvalue()


def header(text: str, data: bytes = b"") -> bytes:
    """An .npy file with this for a header."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin-1") + data


def archive(content: bytes, *, name: str = "codes.npy", kind: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", kind) as written:
        written.writestr(name, content)
    return target.getvalue()


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<i8", "|u1", "<u4"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(tmp_path: Path, dtype: str, order: Any, save: Any) -> None:
    save(tmp_path / "a.npz", codes=CODES.astype(dtype, order=order), more=np.zeros(3))
    found = read_codes(tmp_path / "a.npz")
    assert found.dtype == np.dtype(dtype)
    assert np.array_equal(found, CODES)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_is_read(tmp_path: Path, version: tuple[int, int]) -> None:
    (tmp_path / "a.npz").write_bytes(archive(npy(CODES, version)))
    assert np.array_equal(read_codes(tmp_path / "a.npz"), CODES)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x05\x06" + b"\0" * 18,
        archive(npy(CODES), name="other.npy"),
        archive(npy(CODES), kind=zipfile.ZIP_BZIP2),
        archive(npy(CODES), kind=zipfile.ZIP_LZMA),
        archive(npy(CODES)[:-1]),
        archive(npy(CODES) + b"\0"),
        archive(npy(CODES.astype(float))),
        archive(npy(CODES.astype(bool))),
        archive(npy(CODES[0])),
        archive(npy(CODES[None])),
        archive(npy(CODES[:, :0])),
        archive(npy(CODES.view([("a", "<i2")]))),
        archive(b""),
        archive(b"\x93NUMPY"),
        archive(header("(" * 60_000)),
        archive(header("{'descr': '<i2', 'fortran_order': False, 'shape': (4, 6), ")),
        archive(header("{'descr': '|O', 'fortran_order': False, 'shape': (4, 6), }", b"\0" * 192)),
        archive(header("{'descr': '<i2', 'fortran_order': False, 'shape': (-4, 6), }", b"\0" * 48)),
        archive(header("{'descr': '<i2', 'fortran_order': False, 'shape': (999999999, 999999999), }")),
        archive(header("{'descr': '<i2', 'fortran_order': 1 / 0, 'shape': (4, 6), }")),
        archive(b"\x93NUMPY\x03\x00\xff\xff\xff\xff"),
    ],
)
def test_everything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UsageError, match="holds no codes"):
        read_codes(tmp_path / "a.npz")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_codes(tmp_path / "nothing.npz")
    with pytest.raises(UsageError, match="folder"):
        read_codes(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.npz")
        with pytest.raises(UsageError, match="no regular file"):
            read_codes(tmp_path / "pipe.npz")


PROBE = """
import sys
from pathlib import Path
from magnet_cli.audio.codes_file import read_codes
from magnet_cli.errors import UsageError
try:
    read_codes(Path(sys.argv[1]))
except UsageError as error:
    status = Path("/proc/self/status").read_text()
    print(next(int(line.split()[1]) // 1000 for line in status.splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_zeros_that_were_compressed_are_not_unpacked(tmp_path: Path) -> None:
    # 160 MB here, so that the test is quick; what is refused at 160 MB is refused at 8 GB, too.
    path = tmp_path / "bomb.npz"
    shape = header("{'descr': '<i8', 'fortran_order': False, 'shape': (4, 5000000), }")
    path.write_bytes(archive(shape + b"\0" * 160_000_000, kind=zipfile.ZIP_DEFLATED))
    assert path.stat().st_size < 200_000
    done = subprocess.run([sys.executable, "-c", PROBE, str(path)], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 120
