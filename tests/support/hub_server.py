"""A small Hub on loopback, for the real client: the API, redirects, ETags, ranges, commits, and faults on demand.

    with HubServer({"facebook/magnet-small-10secs": {"state_dict.bin": path}}) as server:
        server.faults.append(Fault("state_dict.bin", cut=1000, times=1))
        ... HF_ENDPOINT=server.url ...
        server.log

What it answers was taken from the client's source (huggingface_hub 2.4) and the Hub's documentation of its API.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

LARGE = (".bin", ".safetensors")  # what git keeps in large file storage


class Request(NamedTuple):
    """A request that came in: `range` and `token` are from its headers, `status` was answered, 0 for nothing."""

    method: str
    path: str
    range: str | None
    status: int
    token: str | None


@dataclass
class Fault:
    """What goes wrong for requests whose path contains `match`; it stops after `times` of them.

    status: answered instead, with `headers`. cut: close the connection after so many bytes of the body.
    stall: fall silent after so many bytes. hang: never answer. flip: change the first byte of the body.
    pace: bytes per second. drip: seconds between two bytes of the headers. method: which requests, None for all.
    """

    match: str
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    stall: int | None = None
    hang: bool = False
    flip: bool = False
    pace: float | None = None
    drip: float | None = None
    times: int | None = None
    method: str | None = "GET"


class StoredFile(NamedTuple):
    """Content under its git hash and, in large file storage, its SHA-256."""

    content: bytes
    oid: str
    sha256: str | None

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid


def store(name: str, content: bytes) -> StoredFile:
    """A file as the Hub would keep it."""
    sha256 = hashlib.sha256(content).hexdigest() if name.endswith(LARGE) else None
    kept = content
    if sha256:
        kept = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (sha256.encode(), len(content))
    return StoredFile(content, hashlib.sha1(b"blob %d\0" % len(kept) + kept).hexdigest(), sha256)


class HubServer:
    """Serves repositories, {id: {file name: path or content}}, until the `with` block ends."""

    def __init__(self, repositories: Mapping[str, Mapping[str, Path | bytes]]) -> None:
        self.repositories: dict[str, dict[str, StoredFile]] = {}
        for repository, files in repositories.items():
            self.put(repository, files)
        self.faults: list[Fault] = []
        self.lists = {"sha", "size", "blobId", "lfs"}  # what the list of files says beside their names
        self.redirects = True  # to where large files are; a mirror may send them itself
        self.log: list[Request] = []
        self.lock = Lock()
        self.closing = Event()
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.storage_url = self.url.replace("127.0.0.1", "localhost")  # large files are elsewhere, as on the Hub

    def put(self, repository: str, files: Mapping[str, Path | bytes]) -> None:
        """Give a repository these files, as a new commit."""
        self.repositories[repository] = {
            name: store(name, source if isinstance(source, bytes) else source.read_bytes())
            for name, source in files.items()
        }

    def commit(self, repository: str) -> str:
        """The hash of the only commit of a repository; it depends on every file."""
        files = sorted((name, file.etag) for name, file in self.repositories[repository].items())
        return hashlib.sha1(json.dumps([repository, files]).encode()).hexdigest()

    def bodies(self) -> list[Request]:
        """The requests for the content of files, redirects to it not counted."""
        return [
            item for item in self.log if item.method == "GET" and item.status in (200, 206) and "/api/" not in item.path
        ]

    def __enter__(self) -> HubServer:
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing is said of clients that were killed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            raise


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: HubServer
    fault: Fault | None

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def log_message(self, format: str, *arguments: object) -> None:
        """The log is a list."""

    def _handle(self) -> None:
        self.fault = self._matching_fault()
        if self.fault and self.fault.hang:
            self._note(0)
            self._silence()
        elif self.fault and self.fault.status:
            self._answer(self.fault.status, self.fault.headers, b'{"error": "a fault"}')
        else:
            self._route()

    def _matching_fault(self) -> Fault | None:
        with self.server_hub.lock:
            for fault in self.server_hub.faults:
                if fault.match in unquote(self.path) and fault.method in (None, self.command) and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        for repository in self.server_hub.repositories:
            api = f"/api/models/{repository}"
            if path == api or path.startswith(f"{api}/"):
                return self._api(repository, path.removeprefix(api).strip("/"))
            if path.startswith(f"/{repository}/resolve/"):
                return self._resolve(repository, *path.removeprefix(f"/{repository}/resolve/").split("/", 1))
            if path.startswith(f"/large/{repository}/"):
                return self._content(self.server_hub.repositories[repository][path.rsplit("/", 1)[1]])
        # The Hub hides private repositories behind the same answer as missing ones.
        return self._error(401, "RepoNotFound", "Invalid username or password.")

    def _api(self, repository: str, rest: str) -> None:
        commit = self.server_hub.commit(repository)
        files = self.server_hub.repositories[repository]
        what, _, revision = rest.partition("/")
        if what in ("revision", "tree") and revision.split("/")[0] not in ("main", commit):
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if what == "tree":
            tree = [
                {"type": "file", "path": name, "size": len(file.content), "oid": file.oid}
                | ({"lfs": {"oid": file.sha256, "size": len(file.content), "pointerSize": 130}} if file.sha256 else {})
                for name, file in files.items()
            ]
            return self._json(tree)
        blobs = "blobs" in parse_qs(urlsplit(self.path).query)
        siblings = [
            {"rfilename": name}
            | ({"size": len(file.content), "blobId": file.oid} if blobs else {})
            | (
                {"lfs": {"sha256": file.sha256, "size": len(file.content), "pointerSize": 130}}
                if blobs and file.sha256
                else {}
            )
            for name, file in files.items()
        ]
        lists = self.server_hub.lists
        siblings = [{key: one[key] for key in one if key in {"rfilename", *lists}} for one in siblings]
        return self._json(
            {
                "_id": "0" * 24,
                "id": repository,
                "modelId": repository,
                **({"sha": commit} if "sha" in lists else {}),
                "private": False,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": siblings,
            }
        )

    def _resolve(self, repository: str, revision: str, name: str) -> None:
        commit = self.server_hub.commit(repository)
        if revision not in ("main", commit):
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        file = self.server_hub.repositories[repository].get(name)
        if file is None:
            return self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        if file.sha256 is None or not self.server_hub.redirects:
            return self._content(file, {"X-Repo-Commit": commit})
        headers = {
            "Location": f"{self.server_hub.storage_url}/large/{quote(repository)}/{quote(name)}",
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{file.sha256}"',
            "X-Linked-Size": str(len(file.content)),
            "ETag": f'"{file.oid}"',
        }
        return self._answer(302, headers, b"Found. Redirecting")

    def _content(self, file: StoredFile, headers: Mapping[str, str] | None = None) -> None:
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        if start >= len(file.content) > 0:
            return self._error(416, "", "Range not satisfiable")
        body = file.content
        if self.fault and self.fault.flip:
            body = bytes([body[0] ^ 1]) + body[1:]
        extra = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if wanted else {}
        extra |= {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes", **(headers or {})}
        return self._answer(206 if wanted else 200, extra, body[start:])

    def _json(self, answer: object) -> None:
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())

    def _error(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        errors = {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}
        self._answer(status, errors, json.dumps({"error": message}).encode())

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self._note(status)
        if self.fault and self.fault.drip:
            self._drip(self.fault.drip)
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            self._send_body(body)
        except OSError:  # the client has gone away
            self.close_connection = True

    def _send_body(self, body: bytes) -> None:
        fault = self.fault or Fault("")
        limit = fault.cut if fault.cut is not None else fault.stall
        body = body if limit is None else body[:limit]
        if fault.pace:
            piece = max(1, int(fault.pace / 20))
            for start in range(0, len(body), piece):
                self.wfile.write(body[start : start + piece])
                time.sleep(0.05)
        else:
            self.wfile.write(body)
        if fault.stall is not None:
            self._silence()
        if limit is not None:
            self.close_connection = True

    def _drip(self, seconds: float) -> None:
        """Headers without an end, byte by byte."""
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not self.server_hub.closing.wait(seconds):
                self.wfile.write(b"x")
        except OSError:  # the client has gone away
            pass
        self.close_connection = True

    def _silence(self) -> None:
        self.wfile.flush()
        self.server_hub.closing.wait(60)
        self.close_connection = True

    def _note(self, status: int) -> None:
        if self.path == "/api/agent-harnesses":  # the library asks for it in terminals that belong to an agent
            return
        token = self.headers.get("Authorization")
        request = Request(self.command, unquote(self.path), self.headers.get("Range"), status, token)
        self.server_hub.log.append(request)
