"""`magnet doctor`: what it finds, on a whole machine and on broken ones; its exit codes; what it must not print."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from magnet_cli.checkpoints.open import convert
from magnet_cli.hub.store import BUNDLED_FOLDER
from support.command import Magnet
from support.golden import GOLDEN

# Not by its attribute: in the package, the command's name hides its module's.
module: Any = importlib.import_module("magnet_cli.cli.doctor")

SECRET = "hf_abcdefghijklmnop"


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def checks(self) -> dict[str, dict[str, Any]]:
        return {record["check"]: record for record in map(json.loads, self.out.splitlines())}


Doctor = Callable[..., Result]


@pytest.fixture
def doctor(magnet: Magnet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Doctor:
    """Run the command as the entry point would, with a store and a cache of its own."""
    monkeypatch.setenv("MAGNET_MODEL_DIR", str(tmp_path / "store"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("MAGNET_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.delenv("MAGNET_AUTO_DTYPE", raising=False)

    def run(*arguments: str) -> Result:
        result = magnet("doctor", *arguments)
        assert "Traceback" not in result.out + result.err
        return Result(result.code, result.out, result.err)

    return run


def separately(*arguments: str, **environment: str) -> Result:
    """The command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "magnet_cli", "doctor", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
    assert "Traceback" not in done.stdout + done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


# -- a machine that works ---------------------------------------------------------------------------------------------


def test_a_machine_that_works(doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAGNET_AUTO_DTYPE", "float32")
    result = doctor("--json")
    checks = result.checks
    assert result.code == 0, result.out
    assert len(checks) == len(result.out.splitlines())  # every name once
    assert {tuple(check) for check in checks.values()} == {("check", "status", "found", "remedy")}
    for check in checks.values():
        assert check["status"] in ("ok", "warning")
        assert check["found"]
        assert (check["remedy"] is None) == (check["status"] == "ok")
        assert not (check["remedy"] or "").endswith(".")
    for name in module.PACKAGES:
        assert importlib.metadata.version(name) in checks[name]["found"]
    assert torch.__version__ in checks["torch"]["found"]
    assert "libsndfile" in checks["soundfile"]["found"]
    assert "bfloat16" in checks["CPU"]["found"]
    if not torch.cuda.is_available():
        assert checks["auto"]["found"] == "--device auto is cpu, --dtype auto is float32"
    assert str(tmp_path / "store") in checks["disk: models"]["found"]
    assert str(tmp_path / "hub") in checks["disk: Hub cache"]["found"]
    assert checks["models"]["found"] == f"none in {tmp_path / 'store'}"
    assert checks["Hub"]["found"] == "not asked, because of HF_HUB_OFFLINE"
    assert list(tmp_path.iterdir()) == []  # nothing was made, nothing left


def test_lines_for_people(doctor: Doctor) -> None:
    result = doctor("--offline")
    assert result.code == 0
    for line in result.out.splitlines():
        status, check = line[:8].strip(), line[9:]
        assert status in ("ok", "warning")
        assert check
        assert line.endswith(".") == (status == "warning")
    assert "not asked, because of --offline" in result.out
    assert result.err.startswith("problems: 0, warnings: ")


@pytest.mark.gpu
def test_a_gpu_is_described(doctor: Doctor) -> None:
    checks = doctor("--json").checks
    assert checks["CUDA"]["status"] == "ok"
    assert torch.cuda.get_device_name(0) in checks["cuda:0"]["found"]
    assert checks["auto"]["found"] == "--device auto is cuda, --dtype auto is float16"


@pytest.mark.parametrize(
    ("works", "capability", "dtypes"),
    [
        (True, "8.9", "float16, bfloat16 and float8"),
        (True, "8.6", "float16 and bfloat16"),
        (False, "7.5", "float16, no bfloat16 arithmetic"),
    ],
)
def test_pretended_gpus(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, works: bool, capability: str, dtypes: str
) -> None:
    """The words for GPUs where there is none; one that fails when it is used is a problem."""
    device = SimpleNamespace(name="GPU", major=int(capability[0]), minor=int(capability[2]))
    ones = torch.ones

    def used(*size: int, device: str, dtype: torch.dtype) -> torch.Tensor:
        if device == "cuda:1" and not works:
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
        return ones(*size, dtype=dtype)

    for name, value in (
        ("is_available", True),
        ("device_count", 2),
        ("get_device_properties", device),
        ("mem_get_info", (10**9, 16 * 10**9)),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch, "ones", used)
    result = doctor("--json")
    checks = result.checks
    assert result.code == (0 if works else 1)
    assert checks["CUDA"]["status"] == "ok"
    assert checks["CUDA"]["found"].startswith("runtime 13.0")
    assert checks["cuda:0"]["found"] == f"GPU, 1.0 GB of 16.0 GB free, capability {capability}, {dtypes}"
    assert checks["cuda:0"]["status"] == "warning"
    assert checks["cuda:1"]["status"] == ("warning" if works else "problem")
    assert ("no kernel image" in checks["cuda:1"]["found"]) != works
    assert checks["auto"]["found"] == "--device auto is cuda, --dtype auto is float16"


# -- the Hub ----------------------------------------------------------------------------------------------------------


@contextmanager
def served(code: int) -> Iterator[str]:
    """The address of a server that answers with this status."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(code)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def silent(*, drip: bool = False) -> Iterator[str]:
    """The address of a server that accepts and never answers, or never ends its answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def accept() -> None:
            try:
                connection, _ = server.accept()
                kept.append(connection)
                connection.sendall(b"HTTP/1.1 200 OK\r\n" if drip else b"")
                while drip:
                    connection.sendall(b"X-More: x\r\n")
                    time.sleep(0.2)
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for connection in kept:
            connection.close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Go online, with the Hub at this address."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)

    def at(address: str) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", address)

    return at


@pytest.mark.parametrize(("code", "status"), [(200, "ok"), (404, "ok"), (403, "warning"), (503, "warning")])
def test_a_hub_that_answers(doctor: Doctor, hub: Callable[[str], None], code: int, status: str) -> None:
    with served(code) as address:
        hub(address)
        result = doctor("--json")
    assert result.code == 0
    assert result.checks["Hub"]["status"] == status
    assert result.checks["Hub"]["found"] == f"{address} answers with HTTP {code}"


def test_a_closed_port_is_a_warning(doctor: Doctor, hub: Callable[[str], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    hub(f"http://user:password@127.0.0.1:{port}")
    result = doctor("--json")
    check = result.checks["Hub"]
    assert result.code == 0
    assert check["status"] == "warning"
    assert "refused" in check["found"]
    assert "password" not in result.out
    assert check["remedy"]


def test_nothing_is_asked_offline(doctor: Doctor, hub: Callable[[str], None]) -> None:
    hub("http://127.0.0.1:1")
    assert doctor("--json", "--offline").checks["Hub"]["found"] == "not asked, because of --offline"


def test_a_hub_that_never_answers_is_not_waited_for(doctor: Doctor, hub: Callable[[str], None]) -> None:
    started = time.monotonic()
    with silent() as address:
        hub(address)
        result = doctor("--json")
    assert time.monotonic() - started < module.TIMEOUT + 3
    assert result.code == 0
    assert result.checks["Hub"]["status"] == "warning"
    assert "timed out" in result.checks["Hub"]["found"]


def test_an_answer_without_end_is_not_waited_for(
    doctor: Doctor, hub: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEADLINE", 1.0)
    with silent(drip=True) as address:
        hub(address)
        result = doctor("--json")
    assert result.code == 0
    assert result.checks["Hub"]["found"] == "no complete answer within 1 s"


# -- models and disks -------------------------------------------------------------------------------------------------


def bundle(folder: Path, **changes: Any) -> None:
    folder.mkdir(parents=True)
    files = {"decoder.safetensors": {"size": 1000, "sha256": "0" * 64}}
    whole = json.loads((BUNDLED_FOLDER / "config.json").read_text())
    config = {**whole, "name": folder.name, "files": files, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "decoder.safetensors").write_bytes(b"0" * 1000)


def test_models_in_the_store(doctor: Doctor, tmp_path: Path) -> None:
    store = tmp_path / "store"
    bundle(store / "whole")
    bundle(store / "cut")
    (store / "cut" / "decoder.safetensors").write_bytes(b"0" * 999)
    bundle(store / "gone")
    (store / "gone" / "decoder.safetensors").unlink()
    bundle(store / "later", version=2)
    bundle(store / "damaged")
    (store / "damaged" / "config.json").write_bytes(b'{"format": "magnet-bundle", \xff')
    bundle(store / ".unfinished-01")
    result = doctor("--json")
    checks = result.checks
    assert result.code == 1
    assert checks["model whole"]["status"] == "ok"
    assert "1 kB" in checks["model whole"]["found"]
    assert checks["model cut"]["found"] == checks["model gone"]["found"] == "missing or cut: decoder.safetensors"
    assert "version 2" in checks["model later"]["found"]
    assert (
        checks["model damaged"]["found"]
        == f"{store / 'damaged' / 'config.json'} is damaged: it is not valid UTF-8 (byte 28)"
    )
    assert {checks[f"model {name}"]["status"] for name in ("cut", "gone", "later", "damaged")} == {"problem"}
    assert checks["model .unfinished-01"]["status"] == "warning"


def test_released_models_in_the_cache(doctor: Doctor, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--facebook--magnet-small-10secs"
    (repository / "blobs").mkdir(parents=True)
    (repository / "blobs" / "0").write_bytes(b"0" * 5000)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / "state_dict.bin").symlink_to("../blobs/0")
    assert doctor("--json").checks["Hub cache"]["found"] == "facebook/magnet-small-10secs (5 kB)"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_store_that_cannot_be(doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    if kind == "file":
        (tmp_path / "store").write_text("not a folder")
    else:
        (tmp_path / "store").symlink_to("nowhere")
    monkeypatch.setenv("MAGNET_MODEL_DIR", str(tmp_path / "store" / "models"))
    result = doctor("--json")
    assert result.code == 1
    check = result.checks["disk: models"]
    assert check["status"] == "problem"
    assert "cannot be written" in check["found"]
    assert "MAGNET_MODEL_DIR" in check["remedy"]


def test_a_store_that_is_read_only(doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "store"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # root may write anywhere but where the kernel has nothing to write to
        folder = Path("/proc/self")
        if not folder.is_dir():
            pytest.skip("nothing is read-only here")
        monkeypatch.setenv("MAGNET_MODEL_DIR", str(folder))
    assert doctor("--json").checks["disk: models"]["status"] == "problem"


def test_little_room(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FREE_SPACE", 1e18)
    monkeypatch.setattr(module, "MODEL_MEMORY", 10**18)
    result = doctor("--json")
    assert result.code == 0
    for name in ("disk: models", "disk: Hub cache", "disk: here", "memory"):
        assert result.checks[name]["status"] == "warning"


# -- broken installations ---------------------------------------------------------------------------------------------


def installed(folder: Path, name: str, version: str) -> None:
    """Metadata of a package."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_wrong_versions(doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    installed(folder, "torchaudio", "2.9.1")
    installed(folder, "transformers", "4.57.0")
    monkeypatch.syspath_prepend(str(folder))
    result = doctor("--json")
    assert result.code == 1
    pair, other = result.checks["torchaudio"], result.checks["transformers"]
    assert (pair["status"], other["status"]) == ("problem", "warning")
    assert pair["found"].startswith("2.9.1 does not match torch 2.")
    assert pair["remedy"].startswith('Run pip install "torch==')
    assert other["found"].startswith("4.57.0, but magnet needs ")
    assert other["remedy"].startswith('Run pip install "transformers')


def test_a_missing_package(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def lacking(name: str) -> str:
        if name == "encodec":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", lacking)
    result = doctor("--json")
    assert result.code == 1
    assert result.checks["encodec"]["status"] == "problem"
    assert result.checks["encodec"]["remedy"] == 'Run pip install "encodec==0.1.1"'
    assert "encodec" in result.checks["encodec"]["found"]


def test_strict_wants_a_released_model(doctor: Doctor, tmp_path: Path) -> None:
    loose, strict = doctor("--json"), doctor("--json", "--strict")
    assert (loose.code, strict.code) == (0, 1)
    assert loose.checks["released model"]["status"] == "warning"
    assert strict.checks["released model"]["status"] == "problem"
    assert "magnet models download small" in strict.checks["released model"]["remedy"]
    problems = [check["check"] for check in strict.checks.values() if check["status"] == "problem"]
    assert problems == ["released model"]

    folder = tmp_path / "store" / "magnet-medium-10secs"
    convert(str(GOLDEN / "music"), folder, dtype=None)
    whole = doctor("--json", "--strict")
    assert (whole.code, whole.checks["released model"]["found"]) == (0, "magnet-medium-10secs")
    (folder / "decoder.safetensors").write_bytes(b"cut")
    assert doctor("--json", "--strict").checks["released model"]["status"] == "problem"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("http://me:pass@proxy.example:3128", "http://(hidden)@proxy.example:3128"),
        ("http://me:p@ss/w//rd@proxy.example:3128", "http://(hidden)@proxy.example:3128"),
        ("me:p@ss@proxy.example", "(hidden)@proxy.example"),
        ("http://me:a://b@proxy.example", "(hidden)@proxy.example"),
        ("me:pass//word@proxy.example", "(hidden)@proxy.example"),
    ],
)
def test_proxies_are_shown_without_passwords(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, address: str, shown: str
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert doctor("--json", "--offline").checks["proxies"]["found"] == "none is set"
    monkeypatch.setenv("https_proxy", address)
    monkeypatch.setenv("NO_PROXY", "localhost,.example")
    result = doctor("--json", "--offline")
    found = result.checks["proxies"]["found"]
    assert found.startswith("https_proxy=")
    assert found.endswith(f"{shown}, NO_PROXY=localhost,.example")
    for secret in ("pass", "p@ss", "w//rd", "me:", "a://b", "word"):
        assert secret not in result.out + result.err


@pytest.fixture
def broken_torch(tmp_path: Path) -> str:
    """A PYTHONPATH with a PyTorch that cannot be imported."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text('raise OSError("libcudart.so.13: cannot open shared object file")')
    return os.pathsep.join([str(tmp_path), str(Path(module.__file__).parents[2])])


def test_a_torch_that_cannot_be_imported_and_a_token(broken_torch: str) -> None:
    endpoint = f"http://me:{SECRET}@127.0.0.1:1"
    result = separately("--json", PYTHONPATH=broken_torch, HF_TOKEN=SECRET, HF_ENDPOINT=endpoint)
    checks = result.checks
    assert result.code == 1
    assert checks["torch"]["status"] == "problem"
    assert checks["torch"]["found"] == "libcudart.so.13: cannot open shared object file"
    assert checks["torch"]["remedy"].startswith('Run pip install "torch==')
    assert checks["torchaudio"]["status"] == "problem"
    assert "CUDA" not in checks
    assert checks["memory"]["status"] == "ok"  # the others still run
    assert "HF_TOKEN is set" in checks["environment"]["found"]
    assert SECRET not in result.out + result.err


def test_a_check_that_fails_is_a_problem(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[module.Check]:
        yield module.Check("first", "ok", "found")
        raise RuntimeError("some\nthing \udcff")

    monkeypatch.setattr(module, "check_cpu", broken)
    result = doctor("--json")
    assert result.code == 1
    assert result.checks["first"]["status"] == "ok"
    assert result.checks["CPU"]["found"] == "some thing \\udcff"
    assert result.checks["CPU"]["remedy"]


def test_any_terminal_can_show_it(broken_torch: str) -> None:
    result = separately("--offline", PYTHONPATH=broken_torch, PYTHONIOENCODING="ascii", MAGNET_NAME="café")
    assert result.code == 1
    assert "MAGNET_NAME=caf\\xe9" in result.out
    assert "problem  torch" in result.out
