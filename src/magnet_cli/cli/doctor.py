"""`magnet doctor`: what is installed, what this machine can do, and a remedy for every problem.

Each check stands alone: an exception in one becomes its line, and the others still run.
"""

from __future__ import annotations

import importlib
import os
import platform
import queue
import re
import shutil
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from magnet_cli._version import __version__
from magnet_cli.errors import MagnetError, did_you_mean, one_line, sentence
from magnet_cli.hub.folders import REPLACED, UNFINISHED
from magnet_cli.hub.registry import MODELS, RESCORERS, TEXT_ENCODER_BYTES
from magnet_cli.hub.store import BundleInfo, Store
from magnet_cli.options.runtime import RuntimeConfig
from magnet_cli.terminal.console import Console
from magnet_cli.terminal.log_file import SECRET_NAME, without_secrets
from magnet_cli.terminal.options import AsJson, human
from magnet_cli.terminal.parameters import known_variables

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PACKAGES = (
    *("transformers", "tokenizers", "encodec", "huggingface_hub", "safetensors", "numpy", "scipy"),
    *("pyloudnorm", "soundfile", "pyyaml", "typer", "rich", "platformdirs"),
)
MODEL_MEMORY = 2_500_000_000  # the default model in float32: decoder 1.7 GB, text encoder 0.4 GB, codec 0.2 GB
FREE_SPACE = 5_000_000_000  # the largest downloads take about as much
TIMEOUT, DEADLINE = 5.0, 10.0  # seconds: for each operation on the network, and for all of them, names included
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")  # in capitals, too
NO_HUB = "Check the network and its proxy settings; models on this machine work without it"
REPORT = "Correct what it names, or report it together with these lines"

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """What was examined, and what was found; `remedy` is an imperative sentence unless all is well."""

    check: str
    status: Status
    found: str
    remedy: str | None = None


def doctor(
    *,
    context: typer.Context,
    as_json: AsJson = False,
    offline: Annotated[bool, typer.Option("--offline", help="Make no request to the Hugging Face Hub.")] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Count it as a problem if no released model is on this machine, so that only bundled could generate.",
        ),
    ] = False,
) -> None:
    """Check this machine and suggest remedies.

    Checks versions, devices, memory, disk, models, configuration, proxies and the Hub. The exit code is 1 if there is a
    problem; warnings do not count. With --strict, a missing released model is a problem.

    Example: magnet doctor
    """
    console = Console()
    with console.reporting():
        warnings.simplefilter("ignore")  # until reporting ends; the important ones become checks
        statuses = []
        root = context.find_root()
        known = known_variables(root.command, root)
        for check in chain(
            examine(offline=offline, strict=strict), isolated("variables", partial(check_variables, known))
        ):
            console.result(asdict(check) if as_json else as_line(check))
            statuses.append(check.status)
        console.message(f"problems: {statuses.count('problem')}, warnings: {statuses.count('warning')}")
        if "problem" in statuses:
            raise typer.Exit(1)


def as_line(check: Check) -> str:
    """A check for people."""
    remedy = f". {sentence(check.remedy)}" if check.remedy else ""
    return f"{check.status:8} {check.check:18} {check.found}{remedy}"


def examine(*, offline: bool, strict: bool = False) -> Iterator[Check]:
    """All checks, one after the other, each as soon as it is done; the Hub is asked meanwhile."""
    started = time.monotonic()
    answer: queue.SimpleQueue[list[Check]] = queue.SimpleQueue()
    ask = partial(isolated, "Hub", partial(check_hub, offline=offline))
    threading.Thread(target=lambda: answer.put(list(ask())), daemon=True).start()
    yield from isolated("magnet", check_magnet)
    yield from isolated("torch", check_torch, install("torch", "torchaudio"))
    yield from isolated("torchaudio", check_torchaudio, install("torch", "torchaudio"))
    for name in PACKAGES:
        yield from isolated(name, partial(check_package, name), install(name))
    if "torch" in sys.modules:  # otherwise, its import failed, which is reported already
        yield from isolated("CPU", check_cpu)
        yield from isolated("CUDA", check_cuda)
        yield from isolated("auto", check_auto, "Reinstall the package that it names")
    yield from isolated("memory", check_memory)
    for place in PLACES:
        yield from isolated(f"disk: {place}", partial(check_disk, place))
    yield from isolated("models", check_bundles)
    yield from isolated("Hub cache", check_hub_cache)
    yield from isolated("released model", partial(check_released, strict=strict))
    yield from isolated("configuration", check_configuration)
    yield from isolated("proxies", check_proxies)
    try:
        yield from answer.get(timeout=max(0.0, started + DEADLINE - time.monotonic()))
    except queue.Empty:
        yield Check("Hub", "warning", f"no complete answer within {DEADLINE:g} s", NO_HUB)


def isolated(name: str, function: Callable[[], Iterator[Check]], remedy: str = REPORT) -> Iterator[Check]:
    """The function's checks, fit to be printed; an exception becomes one more, a problem."""
    found: list[Check] = []
    try:
        for check in function():
            found.append(check)  # what came before an exception counts
    except Exception as error:
        found.append(Check(name, "problem", one_line(error), remedy))
    for check in found:
        yield replace(check, found=printable(check.found), remedy=check.remedy and printable(check.remedy))


def printable(text: str) -> str:
    """A text on one line, without secrets and without what UTF-8 cannot hold."""
    plain = without_secrets(" ".join(text.split()))
    return plain.encode("utf-8", "backslashreplace").decode("utf-8")


def needs(name: str) -> Requirement | None:
    """The version of a package that magnet needs, if magnet itself is installed."""
    from importlib import metadata  # here and below: it imports the email package, for which help should not wait

    try:
        from packaging.requirements import Requirement  # transformers and huggingface_hub need it, too

        every = map(Requirement, metadata.requires("magnet-cli") or [])
    except ImportError:  # of packaging, or of magnet's own metadata
        return None
    return next((one for one in every if one.name.replace("-", "_") == name), None)


def install(*names: str) -> str:
    """The remedy that installs packages in the versions that magnet needs."""
    return "Run pip install " + " ".join(f'"{needs(name) or name}"' for name in names)


def versioned(name: str, version: str, note: str = "") -> Check:
    """A package that is installed, perhaps in a version that magnet does not support."""
    wanted = needs(name)
    if wanted is None or wanted.specifier.contains(version, prereleases=True):
        return Check(name, "ok", version + note)
    return Check(name, "warning", f"{version}{note}, but magnet needs {wanted.specifier}", install(name))


def check_magnet() -> Iterator[Check]:
    """Magnet, Python and platform."""
    yield Check("magnet", "ok", f"{__version__} in {Path(__file__).parents[1]}")
    known = (3, 10) <= sys.version_info[:2] <= (3, 13)
    found = f"{platform.python_version()} in {sys.prefix} on {platform.platform()}"
    yield Check("Python", "ok" if known else "warning", found, None if known else "Use Python 3.10 to 3.13")


def check_torch() -> Iterator[Check]:
    """PyTorch, by importing it."""
    torch = importlib.import_module("torch")
    cuda, hip = torch.version.cuda, torch.version.hip
    yield versioned("torch", torch.__version__, f", CUDA {cuda}" if cuda else f", ROCm {hip}" if hip else ", CPU only")


def check_torchaudio() -> Iterator[Check]:
    """Torchaudio, by importing it, unless it belongs to another PyTorch."""
    from importlib import metadata

    torch, audio = metadata.version("torch"), metadata.version("torchaudio")
    if torch.split(".")[:2] == audio.split(".")[:2]:
        yield versioned("torchaudio", importlib.import_module("torchaudio").__version__)
    else:
        index = " --index-url https://download.pytorch.org/whl/cpu" if torch.endswith("+cpu") else ""
        remedy = install("torch", "torchaudio") + index
        yield Check("torchaudio", "problem", f"{audio} does not match torch {torch}", remedy)


def check_package(name: str) -> Iterator[Check]:
    """A package, by its metadata; soundfile is imported, too, since its library may be missing."""
    from importlib import metadata

    library = f", libsndfile {importlib.import_module(name).__libsndfile_version__}" if name == "soundfile" else ""
    yield versioned(name, metadata.version(name), library)


def check_cpu() -> Iterator[Check]:
    """Name, cores, threads and arithmetic of the CPU."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    match = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text(errors="replace")) if cpuinfo.exists() else None
    name = match[1] if match else platform.processor() or platform.machine()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    level, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    bfloat16 = "bfloat16 natively" if native else "no bfloat16 arithmetic"
    yield Check("CPU", "ok", f"{name}, cores: {usable}, PyTorch threads: {threads}, {level}, {bfloat16}")


def check_cuda() -> Iterator[Check]:
    """CUDA in general, then every device."""
    import torch

    runtime, file = torch.version.cuda or torch.version.hip, Path("/proc/driver/nvidia/version")
    here = file.exists() or shutil.which("nvidia-smi") is not None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if runtime is None and here:
        remedy = "Install a CUDA build of PyTorch, see https://pytorch.org/get-started"
        yield Check("CUDA", "warning", "an NVIDIA driver is here, but this PyTorch is for the CPU only", remedy)
    elif runtime is None:
        yield Check("CUDA", "ok", "not in this build of PyTorch")
    elif not usable:
        reason = one_line(Warning(caught[0].message)) if caught else "a driver is here" if here else "no driver found"
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        reason += "" if hidden is None else f"; CUDA_VISIBLE_DEVICES is {hidden!r}"
        remedy = "If there is a GPU, see that nvidia-smi lists it, update its driver, and give containers --gpus all"
        yield Check("CUDA", "warning", f"PyTorch for CUDA {runtime} finds no usable GPU: {reason}", remedy)
    else:
        version = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", file.read_text()) if file.exists() else None
        newest = getattr(torch._C, "_cuda_getDriverVersion", int)()  # 13010: the driver knows CUDA up to 13.1
        driver = f", driver {version[1] if version else ''} for CUDA {newest // 1000}.{newest % 1000 // 10}"
        yield Check("CUDA", "ok", f"runtime {runtime}{driver if newest else ''}")
        remedy = "Update the driver, install a PyTorch that supports the device, or give --device cpu"
        for index in range(torch.cuda.device_count()):
            yield from isolated(f"cuda:{index}", partial(check_cuda_device, index), remedy)


def check_cuda_device(index: int) -> Iterator[Check]:
    """A CUDA device, by computing on it."""
    import torch

    from magnet_cli.engines.device import computes_float8

    device = torch.cuda.get_device_properties(index)
    # A PyTorch without code for this device says so only when something runs there.
    torch.ones(8, device=f"cuda:{index}", dtype=torch.float16).sum().item()
    free, total = torch.cuda.mem_get_info(index)
    # bfloat16 came with Ampere; before it, PyTorch emulates it.
    dtypes = "float16 and bfloat16" if device.major >= 8 or torch.version.hip else "float16, no bfloat16 arithmetic"
    if computes_float8(torch.device("cuda", index)):
        dtypes = "float16, bfloat16 and float8"
    found = f"{device.name}, {human(free)} of {human(total)} free, capability {device.major}.{device.minor}, {dtypes}"
    few = free < MODEL_MEMORY
    remedy = "End other programs that use it, or give another --device" if few else None
    yield Check(f"cuda:{index}", "warning" if few else "ok", found, remedy)


def check_auto() -> Iterator[Check]:
    """Where generation would run."""
    import torch

    if sys.platform == "darwin":
        yield Check("MPS", "ok", "usable" if torch.backends.mps.is_available() else "not on this computer")
    from magnet_cli.engines.device import resolve_device, resolve_dtype

    device = resolve_device(RuntimeConfig())
    dtype = resolve_dtype(RuntimeConfig(), device)
    yield Check("auto", "ok", f"--device auto is {device}, --dtype auto is {str(dtype).removeprefix('torch.')}")


def ram() -> tuple[int, int]:
    """Bytes of memory: total and available (Linux; elsewhere the total twice), within the limit of a container."""
    known, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if not known.exists():
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return total, total
    sizes = {key: 1024 * int(kilobytes) for key, kilobytes in re.findall(r"(\w+):\s+(\d+) kB", known.read_text())}
    text = limit.read_text().strip() if limit.exists() else ""
    most = int(text) if text.isdecimal() else sizes["MemTotal"]
    return min(sizes["MemTotal"], most), min(sizes["MemAvailable"], most)


def check_memory() -> Iterator[Check]:
    """Whether the default model fits."""
    if not hasattr(os, "sysconf"):
        yield Check("memory", "ok", "unknown on this platform")
        return
    total, available = ram()
    few = available < MODEL_MEMORY
    found = f"{human(available)} of {human(total)} available; the default model takes {human(MODEL_MEMORY)} in float32"
    remedy = "Close other programs, or give --dtype bfloat16" if few else None
    yield Check("memory", "warning" if few else "ok", found, remedy)


def hub_cache() -> Path:
    """Where the Hub's files are."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


PLACES: dict[str, tuple[Callable[[], Path], str]] = {
    "models": (lambda: Store.at().root, "set MAGNET_MODEL_DIR to another"),
    "Hub cache": (hub_cache, "set HF_HUB_CACHE to another"),
    "here": (Path.cwd, "change to another"),
}


def check_disk(place: str) -> Iterator[Check]:
    """Whether a folder, or the nearest one above it, can be written, and its free space."""
    name, folder = f"disk: {place}", Path()
    locate, instead = PLACES[place]
    try:
        folder = locate().absolute()
        # A link that leads nowhere counts: nothing can be made in its place.
        nearest = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"magnet")
            file.flush()
        free = shutil.disk_usage(nearest).free
    except OSError as error:
        found = f"{folder} cannot be written: {error.strerror or error}"
        yield Check(name, "problem", found, f"Make it a folder you can write to, or {instead}")
        return
    few = free < FREE_SPACE
    found = f"{folder}, {human(free)} free"
    yield Check(name, "warning" if few else "ok", found, f"Free some space there, or {instead}" if few else None)


def check_bundles() -> Iterator[Check]:
    """Every model in the store; file sizes only, `magnet models verify` reads every byte."""
    root = Store.at().root
    folders = sorted(one for one in root.iterdir() if one.is_dir()) if root.is_dir() else []
    for folder in folders:
        name = f"model {folder.name}"
        if folder.name.startswith((UNFINISHED, REPLACED)):
            yield Check(
                name, "warning", f"{human(disk_size(folder))} of an unfinished model", "Run magnet models prune"
            )
            continue
        try:
            info = BundleInfo.read(folder)
        except MagnetError as error:
            yield Check(name, "problem", error.message, error.hint)
            continue
        here = {file: folder / file for file in info.files if (folder / file).is_file()}
        cut = [f for f, (size, _) in info.files.items() if f not in here or here[f].stat().st_size != size]
        if cut:
            yield Check(name, "problem", f"missing or cut: {', '.join(cut)}", "Download or convert the model again")
        else:
            yield Check(name, "ok", f"{human(info.size)} in {folder}")
    if not folders:
        yield Check("models", "ok", f"none in {root}")


def check_hub_cache() -> Iterator[Check]:
    """Released checkpoints and their text encoders in the cache of the Hub."""
    from magnet_cli.hub.cache import storage_folder

    encoders = [name for encoder in TEXT_ENCODER_BYTES for name in (f"google-t5/{encoder}", encoder)]
    folders = {name: storage_folder(name) for name in (*(m.repository for m in MODELS.values()), *encoders)}
    here = {name: folder for name, folder in folders.items() if folder.is_dir()}
    found = [f"{name} ({human(disk_size(folder))})" for name, folder in here.items()]
    yield Check("Hub cache", "ok", ", ".join(found) or f"no released model in {hub_cache()}")


def disk_size(folder: Path) -> int:
    """Bytes in a folder's files; links, which the Hub's cache is full of, count nothing."""
    return sum(one.lstat().st_size for one in folder.rglob("*") if one.is_file() and not one.is_symlink())


def check_released(*, strict: bool) -> Iterator[Check]:
    """Whether a released model can generate without a download. strict: otherwise, it is a problem."""
    found = [name for name in (*MODELS, *RESCORERS) if is_whole(name)]
    remedy = "Run magnet models download small, or bring it in a file: see magnet models import-archive"
    if found:
        yield Check("released model", "ok", ", ".join(found))
    else:
        yield Check("released model", "problem" if strict else "warning", "none is on this machine", remedy)


def is_whole(name: str) -> bool:
    """Whether a released model is here with all its files; their content is not read."""
    from magnet_cli.hub.locate import resolve

    try:
        model = resolve(name)
        files = {} if model.bundle is None else BundleInfo.read(model.bundle).files
    except MagnetError:  # a check of its own reports it
        return False
    here = model.folder
    return here is not None and all(
        (here / file).is_file() and (here / file).stat().st_size == size for file, (size, _) in files.items()
    )


def check_proxies() -> Iterator[Check]:
    """The proxies that downloads use, without their users and passwords."""
    names = [name for proxy in PROXIES for name in (proxy.upper(), proxy) if os.environ.get(name)]
    found = [f"{name}={without_login(os.environ[name])}" for name in names]
    yield Check("proxies", "ok", ", ".join(found) or "none is set")


def without_login(address: str) -> str:
    """An address with user and password hidden; it may lack the scheme."""
    scheme, slashes, rest = address.rpartition("://")
    login, at, host = rest.rpartition("@")
    return f"{scheme}{slashes}(hidden)@{host}" if at and login else address


def check_configuration() -> Iterator[Check]:
    """Environment variables that have an effect; never the value of a secret."""
    names = sorted(name for name in os.environ if name.startswith(("MAGNET_", "HF_", "HUGGING")))
    found = [f"{name} is set" if SECRET_NAME.search(name) else f"{name}={os.environ[name]}" for name in names]
    yield Check("environment", "ok", ", ".join(found) or "no MAGNET_ or HF_ variable is set")
    from huggingface_hub import constants  # fails for a variable that it cannot read

    saved = "saved" if Path(constants.HF_TOKEN_PATH).is_file() else "not saved"
    offline = f"offline mode is {'on' if constants.HF_HUB_OFFLINE else 'off'}"
    yield Check("configuration", "ok", f"token {saved}, {offline}")


def check_variables(known: Collection[str]) -> Iterator[Check]:
    """Environment variables that look like ours, but have no effect."""
    for name in sorted(name for name in os.environ if name.startswith("MAGNET_")):
        if name not in known:
            remedy = did_you_mean(name, known, "Correct its name, or unset it; docs/cli.md lists all")
            yield Check("variable", "warning", f"{name} is set, but has no effect", remedy)


def check_hub(*, offline: bool) -> Iterator[Check]:
    """Whether the Hub answers; one request, without a token."""
    from huggingface_hub import constants, get_session

    if offline or constants.HF_HUB_OFFLINE:
        yield Check("Hub", "ok", f"not asked, because of {'--offline' if offline else 'HF_HUB_OFFLINE'}")
        return
    where = constants.ENDPOINT
    try:
        code = get_session().head(where, timeout=TIMEOUT).status_code
    except Exception as error:  # whichever library the session is of
        yield Check("Hub", "warning", f"{where} cannot be reached: {one_line(error, 100)}", NO_HUB)
        return
    well = code < 400 or code in (404, 405)  # a mirror need not have a front page
    yield Check("Hub", "ok" if well else "warning", f"{where} answers with HTTP {code}", None if well else NO_HUB)
