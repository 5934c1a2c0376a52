"""Downloads from the Hub into its cache: planned, pinned to a commit, resumable, verified.

The library's own loop is not used for file bodies: since 2.0 it deletes what it has of a file when a download breaks
off. Here an unfinished file stays as `blobs/HASH.incomplete` and is resumed; it becomes part of the cache once its hash
is right. Requests, headers, tokens, locks and error classes are the library's.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from huggingface_hub import constants

from magnet_cli.errors import HubError, MagnetError, OutputError, one_line
from magnet_cli.hub.cache import (
    HASH,
    PICKLE,
    RESCORER,
    SAFETENSORS,
    SHARD,
    SHARDS,
    Wanted,
    is_intact,
    snapshot,
    storage_folder,
)

FIRST_ANSWER = 8  # seconds, unless HF_HUB_ETAG_TIMEOUT is set
# How often, and for how many seconds, to try again without progress. A server that hangs in the middle is therefore
# asked twice, with the library's timeout of 10 s between two pieces (HF_HUB_DOWNLOAD_TIMEOUT).
ATTEMPTS, PATIENCE = 3, 12
# What counts as progress: this many bytes, at this rate (bytes per second). Some proxies pass the first bytes on and
# fall silent, and a server that hangs up after every 1,000 bytes would be asked a thousand times for a megabyte.
LEAST, SLOWEST = 1 << 16, 10_000
# A server that sends a byte now and then never times out. Within LONGEST timeouts (HF_HUB_DOWNLOAD_TIMEOUT) an answer
# has to begin, and over as long it has to reach FLOOR bytes per second, a tenth of what the slowest modems had.
LONGEST, FLOOR = 3, 500

INCOMPLETE = ".incomplete"

LARGEST = 10**13  # bytes of a file; the Hub takes files of 50 GB

T = TypeVar("T")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its size in bytes, its hash, and whether the cache has it."""

    name: str
    size: int
    hash: str
    cached: bool


@dataclass(frozen=True)
class DownloadPlan:
    """What a download will fetch. `revision` is the commit that `reference` (normally main) stood for.

    hashes: of all files of that commit, also of those that are not wanted.
    """

    repository: str
    revision: str
    reference: str
    storage: Path
    files: tuple[RemoteFile, ...]
    hashes: frozenset[str] = frozenset()

    @property
    def folder(self) -> Path:
        """Where the files will be."""
        return self.storage / "snapshots" / self.revision

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def missing_size(self) -> int:
        """Bytes of the files that are not in the cache, whether or not a part of them has arrived."""
        return sum(file.size for file in self.files if not file.cached)

    def partial(self, file: RemoteFile) -> Path:
        """Where the part of a file is that has arrived."""
        return self.storage / "blobs" / f"{file.hash}{INCOMPLETE}"

    def lock(self, digest: str) -> Path:
        """The library's lock for the file with this hash."""
        return self.storage.parent / ".locks" / self.storage.name / f"{digest}.lock"


@dataclass(frozen=True)
class Download:
    """Files of a repository, all of one commit, in the cache: name -> size in bytes."""

    repository: str
    revision: str
    folder: Path
    files: dict[str, int]


@dataclass(frozen=True)
class Downloading:
    """Progress of a download: `done` bytes of `plan.missing_size` have arrived."""

    plan: DownloadPlan
    done: int


@dataclass(frozen=True)
class Access:
    """How models are looked for.

    cache_dir: replaces the Hub cache (HF_HUB_CACHE, HF_HOME). offline: make no request; HF_HUB_OFFLINE sets it, too.
    listener: called with the progress of a download, first with 0 bytes.
    """

    cache_dir: Path | None = None
    offline: bool = False
    listener: Callable[[Downloading], None] | None = None


DEFAULT_ACCESS = Access()


# -- planning a download ----------------------------------------------------------------------------------------------


def plan_download(
    repository: str,
    wanted: Wanted,
    access: Access = DEFAULT_ACCESS,
    *,
    revision: str = "main",
    model: str | None = None,
) -> DownloadPlan:
    """Ask the Hub, in one request, for the commit and for sizes and hashes of the wanted files.

    Some mirrors list names only. Then each file is asked for by a HEAD request, whose headers have its size and hash.
    Raises HubError, offline too: that one names the files missing in the cache. model: whose they are, for messages.
    """
    if access.offline or constants.HF_HUB_OFFLINE:
        raise _offline(repository, wanted, access, model)
    from huggingface_hub import HfApi

    seconds: float = constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else FIRST_ANSWER
    api = HfApi(library_name="magnet-cli")

    def ask() -> Any:
        return api.model_info(repository, revision=revision, files_metadata=True, timeout=seconds)

    with _errors(repository, f"revision {revision}"):
        info = _persistently(lambda: _within(seconds, ask))
        files = {file.rfilename: file for file in info.siblings or ()}
    found = {}
    for name in _select(repository, wanted, files):
        size, digest = _size_and_hash(files[name])
        commit = info.sha if _is_hash(info.sha) else None
        if size is None or digest is None or commit is None:
            with _errors(repository, name):
                found[name] = _ask_for_file(repository, name, commit or revision, seconds)
        else:
            found[name] = size, digest, commit
    commits = {commit for _, _, commit in found.values()}
    if len(commits) > 1:
        raise HubError(f"{repository} has changed on {constants.ENDPOINT} just now", "Run the same command again")
    (commit,) = commits
    storage = storage_folder(repository, access.cache_dir)
    chosen = []
    for name, (size, digest, _) in found.items():
        pointer = storage / "snapshots" / commit / name
        chosen.append(RemoteFile(name, size, digest, pointer.is_file() and pointer.stat().st_size == size))
    listed = (digest for file in files.values() if (digest := _size_and_hash(file)[1]) is not None)
    hashes = frozenset([*listed, *(digest for _, digest, _ in found.values())])
    return DownloadPlan(repository, commit, revision, storage, tuple(chosen), hashes)


def _ask_for_file(repository: str, name: str, revision: str, seconds: float) -> tuple[int, str, str]:
    """A file's size, hash and commit, from the headers of a HEAD request and of its redirects.

    A file in large storage is described by X-Linked-Size and X-Linked-Etag where the redirect begins, and often by
    Content-Length and ETag where it ends.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

    url = hf_hub_url(repository, name, revision=revision)
    headers = build_hf_headers(library_name="magnet-cli") | {"Accept-Encoding": "identity"}

    def ask() -> Any:
        return get_session().head(url, headers=headers, timeout=seconds, follow_redirects=True)

    response = _persistently(lambda: _within(seconds, ask))
    sent = [answer.headers for answer in (*response.history, response)]
    if not any("x-linked-etag" in one for one in sent):
        hf_raise_for_status(response)

    def first(*names: str) -> str | None:
        return next((one[key] for key in names for one in sent if key in one), None)

    last = {key: response.headers.get(key) for key in ("content-length", "etag")}
    size = first("x-linked-size") or last["content-length"] or ""
    digest = (first("x-linked-etag") or last["etag"] or "").removeprefix("W/").strip('"')
    commit = revision if _is_hash(revision) else first("x-repo-commit")
    if not re.fullmatch(r"[0-9]{1,13}", size) or not _is_hash(digest) or commit is None or not _is_hash(commit):
        raise HubError(
            f"{constants.ENDPOINT} gives no size, hash or commit of {name}, neither in its list nor in headers",
            "Check HF_ENDPOINT, or bring the model on a disk: see magnet models export-archive",
        )
    return int(size), digest, commit


def _size_and_hash(file: Any) -> tuple[int | None, str | None]:
    """Size and hash of a file as the Hub lists it; None for an impossible value. The library checks no types."""
    digest = getattr(file.lfs, "sha256", None) if file.lfs else file.blob_id
    size = file.size if type(file.size) is int and 0 <= file.size <= LARGEST else None
    return size, digest if _is_hash(digest) else None


def _is_hash(value: object) -> bool:
    """Whether this is a hash. Hashes become names of files and folders, so nothing else is let through."""
    return isinstance(value, str) and HASH.fullmatch(value) is not None


def _select(repository: str, wanted: Wanted, available: Sequence[str] | dict[str, Any]) -> list[str]:
    """The names of the files to fetch; HubError if a required one is not available."""
    names = [*wanted.files, *(name for name in wanted.optional if name in available)]
    if wanted.weights:
        shards = [SHARDS, *sorted(name for name in available if SHARD.fullmatch(name))]
        best = next((name for name in (SAFETENSORS, SHARDS, PICKLE) if name in available), SAFETENSORS)
        names += shards if best == SHARDS else [best]
    for name in names:
        if name not in available:
            raise HubError(f"{repository} on the Hub has no {name}", "Choose a repository of the right kind of model")
    return names


def _offline(repository: str, wanted: Wanted, access: Access, model: str | None) -> HubError:
    missing = wanted.missing(snapshot(repository, access.cache_dir) or Path(os.devnull))
    name = model or repository
    storage = storage_folder(repository, access.cache_dir)
    carry = (
        f"copy the folder {storage.name} of its Hub cache to {storage.parent}"
        if wanted == RESCORER  # MusicGen is not converted, so it has no bundle
        else f"`magnet models export-archive {name} model.tar`, and here `magnet models import-archive model.tar`"
    )
    return HubError(
        f"offline, and the cache has no {' and no '.join(missing)} of {repository}"
        if missing
        else f"offline, and {repository} cannot be compared with the Hub",
        f"On a connected machine run `magnet models download {name}` and {carry}; or go online",
    )


# -- downloading ------------------------------------------------------------------------------------------------------


def download(plan: DownloadPlan, *, listener: Callable[[Downloading], None] | None = None) -> Download:
    """Fetch what the cache lacks of a plan, resuming unfinished files. Parallel runs share the work.

    Raises HubError; OutputError if the disk is full or cannot be written.
    """

    def report(done: int) -> None:
        if listener is not None:
            listener(Downloading(plan, done))

    with _errors(plan.repository, "the cache"):
        _remove_outdated(plan)
        _check_space(plan)
    done = 0
    report(done)
    for file in plan.files:
        if file.cached:
            continue
        with _errors(plan.repository, file.name):
            _obtain_file(plan, file, lambda have, before=done: report(before + have))  # type: ignore[misc]
        done += file.size
        report(done)
    if not HASH.fullmatch(plan.reference):
        with _errors(plan.repository, "the cache"):  # last: an older snapshot stays in use until then
            reference = plan.storage / "refs" / plan.reference
            reference.parent.mkdir(parents=True, exist_ok=True)
            temporary = reference.with_name(f"{reference.name}.{os.getpid()}.tmp")
            temporary.write_text(plan.revision, encoding="ascii")
            temporary.replace(reference)
    return Download(plan.repository, plan.revision, plan.folder, {file.name: file.size for file in plan.files})


def _remove_outdated(plan: DownloadPlan) -> None:
    """Remove unfinished files that the repository no longer has, unless a download holds their lock."""
    from filelock import FileLock, Timeout  # the library's WeakFileLock always waits

    for path in (plan.storage / "blobs").glob(f"*{INCOMPLETE}"):
        digest = path.name.removesuffix(INCOMPLETE)
        if not HASH.fullmatch(digest) or digest in plan.hashes:
            continue
        lock = plan.lock(digest)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with suppress(Timeout), FileLock(lock, timeout=0):
            path.unlink(missing_ok=True)


def _check_space(plan: DownloadPlan) -> None:
    """Raise OutputError unless the disk has room for what is missing."""
    plan.storage.mkdir(parents=True, exist_ok=True)
    partials = [plan.partial(file) for file in plan.files if not file.cached]
    needed = plan.missing_size - sum(_size(path) for path in partials)
    free = shutil.disk_usage(plan.storage).free
    if needed > free:
        raise OutputError(
            f"{plan.repository} needs {_megabytes(needed)} more, but {plan.storage.parent} has {_megabytes(free)} free",
            "Make room, or choose another place with --cache-dir or HF_HOME",
        )


def _obtain_file(plan: DownloadPlan, file: RemoteFile, report: Callable[[int], None]) -> None:
    """Bring one file into the cache, under the library's own lock."""
    blob, partial, pointer = plan.storage / "blobs" / file.hash, plan.partial(file), plan.folder / file.name
    for folder in (blob.parent, pointer.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(plan.lock(file.hash), while_waiting=lambda: report(_size(partial))):
        if (
            pointer.is_file() and _size(pointer) == file.size
        ):  # another run has fetched it since the plan was made, and may be reading it
            return
        if not blob.is_file() or _size(blob) != file.size:  # else it has been fetched for another revision
            _fetch(plan, file, partial, report)
            if not is_intact(partial, file.hash):
                partial.unlink()
                raise HubError(
                    f"{file.name} of {plan.repository} arrived damaged (its hash is wrong) and was deleted",
                    "Run the same command again",
                )
            partial.replace(blob)
        pointer.unlink(missing_ok=True)
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:  # on Windows, links need a privilege; the library moves the file, too
            blob.replace(pointer)


def _fetch(plan: DownloadPlan, file: RemoteFile, partial: Path, report: Callable[[int], None]) -> None:
    """Fetch the rest of a file."""
    with partial.open("ab") as target:
        if target.tell() > file.size:
            target.truncate(0)
            target.seek(0)
        while target.tell() < file.size:
            _persistently(lambda: _receive(plan, file, target, report), target.tell)


def _receive(plan: DownloadPlan, file: RemoteFile, target: BinaryIO, report: Callable[[int], None]) -> None:
    """Request the rest of a file from the server and append it to the target."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

    url = hf_hub_url(plan.repository, file.name, revision=plan.revision)
    headers = build_hf_headers(library_name="magnet-cli") | {"Accept-Encoding": "identity"}
    if target.tell():
        headers["Range"] = f"bytes={target.tell()}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT  # between two pieces, not for the whole
    request = get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True)
    with _begun(request, LONGEST * timeout) as response:
        if response.is_error:
            response.read()
        hf_raise_for_status(response)
        if response.status_code != 206:  # the server sends the whole file, not the range
            target.truncate(0)
            target.seek(0)
        floor = _Floor(LONGEST * timeout)
        for piece in response.iter_bytes():
            target.write(piece)
            report(min(target.tell(), file.size))
            floor.check(len(piece))
            if target.tell() > file.size:
                return
    if target.tell() < file.size:
        raise ConnectionError("the answer ended early")


@contextmanager
def _begun(request: AbstractContextManager[T], seconds: float) -> Iterator[T]:
    """Enter a request. TimeoutError unless its answer begins within `seconds`, all redirects included."""
    abandoned = threading.Event()

    def enter() -> T:
        answer = request.__enter__()
        if abandoned.is_set():
            request.__exit__(None, None, None)
        return answer

    try:
        answer = _within(seconds, enter)
    except BaseException:
        abandoned.set()
        raise
    try:
        yield answer
    finally:
        request.__exit__(*sys.exc_info())


class _Floor:
    """Raises ConnectionError if fewer than FLOOR bytes per second arrive over a window of some seconds."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._since, self._bytes = time.monotonic(), 0

    def check(self, size: int) -> None:
        """Count `size` more bytes that have arrived."""
        self._bytes += size
        lasting = time.monotonic() - self._since
        if lasting < self._window:
            return
        if self._bytes < FLOOR * lasting:
            raise ConnectionError(f"only {self._bytes / lasting:,.0f} bytes per second arrived")
        self._since, self._bytes = time.monotonic(), 0


@contextmanager
def _locked(path: Path, *, while_waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock; until it is free, call `while_waiting` every second."""
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(WeakFileLock(path, timeout=1))
                break
            except Timeout:
                while_waiting()
        yield


# -- what can go wrong ------------------------------------------------------------------------------------------------


def _within(seconds: float, ask: Callable[[], T]) -> T:
    """The answer, or TimeoutError. The library's own timeout holds for each address of a host, not for all together."""
    answers: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()

    def work() -> None:
        try:
            answers.put((ask(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]


def _persistently(attempt: Callable[[], T], position: Callable[[], int] | None = None) -> T:
    """Try again after failures that may be temporary, as long as there is progress.

    position: bytes that have arrived. None: a first contact, which is only repeated if the server answered.
    """
    from huggingface_hub.errors import HfHubHTTPError

    http_error: type[Exception] = HfHubHTTPError.__bases__[0]  # of httpx or httpx2, as the library has it
    reached, since, waited, tries = position() if position else 0, time.monotonic(), 0.0, 0
    while True:
        try:
            return attempt()
        except (http_error, ConnectionError) as error:
            new = position() - reached if position else 0
            progress = new >= LEAST and new > SLOWEST * (time.monotonic() - since - waited)
            if progress:
                reached, since, waited, tries = reached + new, time.monotonic(), 0.0, 0
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
            passing = position is not None if status is None else status in (408, 429, 500, 502, 503, 504)
            delay, tries = _retry_after(error) or (0 if progress else 2**tries), tries + 1
            if not passing or tries == ATTEMPTS or time.monotonic() - since + delay > PATIENCE:
                raise
            time.sleep(delay)
            waited += delay


def _retry_after(error: Exception) -> int | None:
    """Seconds that a server asks to wait."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    found = re.fullmatch(r"\d+", headers.get("retry-after", "")) or re.search(
        r"(?<=;t=)\d+", headers.get("ratelimit", "")
    )
    return int(found[0]) if found else None


@contextmanager
def _errors(repository: str, what: str) -> Iterator[None]:
    """Turn every failure of the library, the network and the disk into a MagnetError of one line."""
    try:
        yield
    except MagnetError:
        raise
    except Exception as error:
        kinds = {kind.__name__ for kind in type(error).__mro__}  # the library uses httpx or httpx2
        if "HfHubHTTPError" in kinds:
            raise _refused(error, kinds, repository, what) from error
        if "HFValidationError" in kinds:
            raise HubError(f"the Hub has no repository {repository}: that is no Hub id", "Check the name") from error
        if kinds & {"HTTPError", "ConnectionError", "TimeoutError"}:
            raise _disconnected(error, kinds, repository, what) from error
        if isinstance(error, OSError):
            where = f" to {error.filename}" if error.filename else ""
            raise OutputError(
                f"cannot write {what} of {repository}{where}: {error.strerror}",
                "Make room or check the permissions, or choose another place with --cache-dir or HF_HOME",
            ) from error
        if isinstance(error, (ValueError, TypeError, LookupError, AttributeError, RecursionError)):
            raise HubError(
                f"{constants.ENDPOINT} does not answer like the Hub: {one_line(error, 100).rstrip('.')}",
                "Check HF_ENDPOINT, and whether the network wants a login in a browser first",
            ) from error
        raise


def _disconnected(error: Exception, kinds: set[str], repository: str, what: str) -> HubError:
    """The HubError for a connection that cannot be made, or that breaks off."""
    again = "Run the same command again: it resumes the download"
    if "ReadTimeout" in kinds:
        return HubError(f"{constants.ENDPOINT} stopped sending {what} of {repository}", again)
    reason = one_line(error, 100).rstrip(".")
    if kinds & {"TimeoutError", "TimeoutException", "ConnectError", "ProxyError", "UnsupportedProtocol"}:
        return HubError(
            f"cannot reach {constants.ENDPOINT} for {what} of {repository}: {reason}",
            "Check the network connection, the proxy and HF_ENDPOINT, and run the same command again",
        )
    return HubError(f"the connection broke off at {what} of {repository}: {reason}", again)


def _refused(error: Any, kinds: set[str], repository: str, what: str) -> HubError:
    """The HubError for an answer with an error status."""
    status = error.response.status_code
    if "GatedRepoError" in kinds or status == 403:
        return HubError(f"access to {repository} is restricted", "Accept its terms on the Hub and set HF_TOKEN")
    if "credentials" in error.response.headers.get("x-error-message", ""):
        return HubError(f"the Hub does not accept the token for {repository}", "Renew HF_TOKEN, or unset it")
    if "RepositoryNotFoundError" in kinds or status == 401:  # one answer for missing and private ones
        hint = "Check the name; a private one needs HF_TOKEN to be set"
        return HubError(f"the Hub has no repository {repository}, or does not show it ({status})", hint)
    if status == 404:
        return HubError(f"{repository} on the Hub has no {what} (404)", "Check the name, HF_ENDPOINT and the proxy")
    if status == 429:
        seconds = _retry_after(error)
        wait = f"{seconds} seconds" if seconds else "some minutes"
        return HubError(
            f"the Hub answers {what} of {repository} with 429, too many requests",
            f"Wait {wait} and run the same command again; with HF_TOKEN set, more is allowed",
        )
    if status >= 500:
        hint = "The fault is on its side: run the same command again later"
        return HubError(f"the Hub answers {what} of {repository} with error {status}", hint)
    return HubError(f"the Hub refuses {what} of {repository} with {status}", "Check HF_ENDPOINT and HF_TOKEN")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
