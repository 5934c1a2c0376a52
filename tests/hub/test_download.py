"""Real downloads: the real huggingface_hub client, in processes of its own, against a small Hub on loopback."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

import magnet_cli
from support.command import clean_environment
from support.hub_server import Fault, HubServer

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL, TEXT, CODEC = "facebook/magnet-small-10secs", "google-t5/t5-base", "facebook/encodec_32khz"
DECODER_FILE, CODEC_FILE = "state_dict.bin", "compression_state_dict.bin"
BODY = f"/large/{MODEL}/{CODEC_FILE}"  # where the redirect of this file leads

# What a command does, and how it ends: what the user sees is the last line.
CLIENT = """
import json, sys
from dataclasses import replace
from pathlib import Path
from magnet_cli.hub import cache as cache_module
from magnet_cli.hub import locate as hub
from magnet_cli.hub import download as transfer
from magnet_cli.errors import MagnetError
from magnet_cli.options.runtime import PlacesConfig

what, name, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
steps = []
access = transfer.Access(
    cache_dir=Path(options["cache_dir"]) if "cache_dir" in options else None,
    offline=options.get("offline", False),
    listener=lambda event: steps.append((event.done, event.plan.missing_size)),
)
wanted = {"model": cache_module.MODEL, "text": cache_module.TEXT_ENCODER, "codec": cache_module.CODEC}[what]
try:
    if "plan" in options:
        plan = transfer.plan_download(name, wanted, access, revision=options.get("revision", "main"))
        print(json.dumps({"size": plan.size, "missing": plan.missing_size, "revision": plan.revision,
                          "files": {file.name: [file.size, file.cached] for file in plan.files}}))
    elif "fresh" in options:  # the plan is made anew, whatever is cached
        plan = transfer.plan_download(name, wanted, access)
        result = transfer.download(plan, listener=lambda event: steps.append((event.done, 0)))
        print(json.dumps({"folder": str(result.folder), "files": result.files, "steps": steps}))
    elif what == "model":
        model = hub.resolve(name, PlacesConfig(cache_dir=access.cache_dir))
        print(json.dumps({"folder": str(hub.locate_model(model, access).folder), "steps": steps}))
    elif what == "text":
        folder = hub.locate_text_encoder(Path("nowhere"), name, access, model=options.get("model"))
        print(json.dumps({"folder": str(folder), "steps": steps}))
    else:
        print(json.dumps({"folder": str(hub.locate_codec(Path("nowhere"), name, access)), "steps": steps}))
except MagnetError as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
except KeyboardInterrupt:
    sys.exit(130)
assert "torch" not in sys.modules
"""


@dataclass
class Result:
    code: int
    out: str
    err: str
    seconds: float

    @property
    def data(self) -> dict:
        assert self.code == 0, self.err
        assert self.err == ""  # no bar and no warnings of the library's own
        return json.loads(self.out)

    @property
    def folder(self) -> Path:
        return Path(self.data["folder"])

    def failure(self, kind: str, code: int) -> str:
        assert (self.code, self.out) == (code, "")
        assert re.fullmatch(rf"{kind}: [^\n]+\.\n", self.err), self.err  # one line, a whole sentence
        assert len(self.err) < 400
        return self.err


@dataclass
class Machine:
    """A computer with a Hub cache of its own."""

    home: Path
    endpoint: str

    def start(self, what: str = "model", name: str = MODEL, env: dict[str, str] | None = None, **options: object):
        environment = clean_environment() | {
            "HF_HOME": str(self.home),
            "HF_ENDPOINT": self.endpoint,
            "PYTHONPATH": str(Path(magnet_cli.__file__).parents[1]),
            **(env or {}),
        }
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", CLIENT, what, name, json.dumps(options)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, what: str = "model", name: str = MODEL, env: dict[str, str] | None = None, **options: object):
        started = time.monotonic()
        process = self.start(what, name, env, **options)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        return Result(process.returncode, out, err, time.monotonic() - started)

    @property
    def storage(self) -> Path:
        return self.home / "hub" / f"models--{MODEL.replace('/', '--')}"

    def blobs(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in (self.storage / "blobs").glob("*")}


@pytest.fixture
def server() -> Iterator[HubServer]:
    files = {name: GOLDEN / "music" / name for name in (DECODER_FILE, CODEC_FILE)}
    text = {
        name: GOLDEN / "music" / "t5-base" / name for name in ("config.json", "tokenizer.json", "model.safetensors")
    }
    shards = {
        "model.safetensors.index.json": json.dumps(
            {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
        ).encode(),
        "model-00001-of-00002.safetensors": b"1" * 1000,
        "model-00002-of-00002.safetensors": b"2" * 1000,
    }
    repositories = {
        MODEL: {**files, "README.md": b"# MAGNeT"},
        TEXT: {
            **text,
            "pytorch_model.bin": b"unwanted" * 1000,
            "spiece.model": b"unwanted",
            "tf_model.h5": b"unwanted",
        },
        CODEC: {"config.json": b"{}", "pytorch_model.bin": b"weights"},
        "someone/sharded": {"config.json": b"{}", "pytorch_model.bin": b"unwanted", **shards},
        "someone/empty": {"README.md": b""},
    }
    with HubServer(repositories) as server:
        yield server


@pytest.fixture
def machine(server: HubServer, tmp_path: Path) -> Machine:
    return Machine(tmp_path / "hf", server.url)


def check_whole(folder: Path) -> None:
    """The files are those of the fixture, byte for byte."""
    for name in (DECODER_FILE, CODEC_FILE):
        assert (folder / name).read_bytes() == (GOLDEN / "music" / name).read_bytes()


def size(name: str) -> int:
    return (GOLDEN / "music" / name).stat().st_size


# -- what goes well ---------------------------------------------------------------------------------------------------


def test_a_model_is_downloaded_once_and_then_needs_no_network(server: HubServer, machine: Machine) -> None:
    plan = machine.run(plan=True).data
    assert plan == {
        "size": size(DECODER_FILE) + size(CODEC_FILE),
        "missing": size(DECODER_FILE) + size(CODEC_FILE),
        "revision": server.commit(MODEL),
        "files": {name: [size(name), False] for name in (DECODER_FILE, CODEC_FILE)},
    }
    assert [(item.method, item.path) for item in server.log] == [
        ("GET", f"/api/models/{MODEL}/revision/main?blobs=true")
    ]
    assert not machine.storage.exists()  # a plan leaves nothing behind

    server.log.clear()
    result = machine.run()
    check_whole(result.folder)
    assert result.folder.name == server.commit(MODEL)
    assert sorted(path.name for path in result.folder.iterdir()) == [CODEC_FILE, DECODER_FILE]
    done, total = zip(*result.data["steps"], strict=True)
    assert (done[0], done[-1], set(total)) == (0, plan["size"], {plan["size"]})
    assert list(done) == sorted(done)
    assert len(server.log) == 5  # the plan, and for each file a redirect and its target
    assert all(server.commit(MODEL) in item.path for item in server.log if "/resolve/" in item.path)

    server.log.clear()
    for options in ({}, {"offline": True}):
        again = machine.run(**options)
        assert (again.folder, again.data["steps"]) == (result.folder, [])
    assert machine.run(env={"HF_HUB_OFFLINE": "1"}).folder == result.folder
    assert server.log == []
    assert machine.run(plan=True).data["missing"] == 0
    assert machine.run(fresh=True).data["files"] == {name: size(name) for name in (DECODER_FILE, CODEC_FILE)}
    assert server.bodies() == []


def test_the_library_takes_our_cache_and_we_take_the_librarys(
    server: HubServer, machine: Machine, tmp_path: Path
) -> None:
    snapshot = "import sys, huggingface_hub as h; print(h.snapshot_download(sys.argv[1], allow_patterns=['*.bin']))"
    environment = clean_environment() | {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-c", snapshot, MODEL]

    theirs = machine.run().folder
    server.log.clear()
    found = subprocess.run(command, env=environment | {"HF_HOME": str(machine.home)}, stdout=subprocess.PIPE, text=True)
    assert Path(found.stdout.strip()) == theirs
    assert server.bodies() == []

    other = Machine(tmp_path / "other", server.url)
    subprocess.run(command, env=environment | {"HF_HOME": str(other.home)}, stdout=subprocess.PIPE, check=True)
    server.log.clear()
    check_whole(other.run().folder)
    assert server.log == []


@pytest.mark.parametrize(
    ("what", "name", "files"),
    [
        ("text", "t5-base", ["config.json", "model.safetensors", "tokenizer.json"]),
        ("codec", CODEC, ["config.json", "pytorch_model.bin"]),
        (
            "codec",
            "someone/sharded",
            [
                "config.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
            ],
        ),
    ],
)
def test_only_what_is_needed_is_fetched(
    machine: Machine, what: str, name: str, files: list[str], tmp_path: Path
) -> None:
    folder = machine.run(what, name, cache_dir=str(tmp_path / "elsewhere")).folder
    assert sorted(path.name for path in folder.iterdir()) == files
    assert (tmp_path / "elsewhere") in folder.parents
    assert not (machine.home / "hub").exists()
    assert machine.run(what, name, cache_dir=str(tmp_path / "elsewhere"), offline=True).folder == folder


def test_a_new_commit_is_fetched_as_a_whole_and_shares_what_is_the_same(server: HubServer, machine: Machine) -> None:
    old = machine.run().folder
    server.put(MODEL, {DECODER_FILE: b"new", CODEC_FILE: GOLDEN / "music" / CODEC_FILE})
    assert machine.run().folder == old
    server.log.clear()
    new = Path(machine.run(fresh=True).data["folder"])
    assert (new / DECODER_FILE).read_bytes() == b"new"
    assert len(server.bodies()) == 1
    assert machine.run(offline=True).folder == new


def test_two_at_once_share_the_work(server: HubServer, machine: Machine) -> None:
    server.faults.append(Fault("/large/", pace=400_000))
    processes = [machine.start() for _ in range(2)]
    ended = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    folders = {json.loads(out)["folder"] for out, _ in ended}
    assert len(folders) == 1
    check_whole(Path(folders.pop()))
    assert sorted(machine.blobs().values()) == sorted([size(DECODER_FILE), size(CODEC_FILE)])
    assert len(server.bodies()) == 2  # each file once


def test_the_token_goes_to_the_hub_and_nowhere_else(server: HubServer, machine: Machine) -> None:
    check_whole(machine.run(env={"HF_TOKEN": "hf_secret"}).folder)
    tokens = {item.path: item.token for item in server.log}
    assert {path for path, token in tokens.items() if token is None} == {path for path in tokens if "/large/" in path}
    assert set(tokens.values()) == {"Bearer hf_secret", None}


# -- connections that break -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("redirects", [True, False])
@pytest.mark.parametrize("lists", [{"sha"}, set(), {"sha", "size"}])
def test_a_mirror_that_lists_names_only_is_asked_for_each_file(
    server: HubServer, machine: Machine, lists: set[str], redirects: bool
) -> None:
    server.lists, server.redirects = lists, redirects
    result = machine.run()
    check_whole(result.folder)
    assert result.folder.name == server.commit(MODEL)
    heads = [item for item in server.log if item.method == "HEAD" and f"/{MODEL}/resolve/" in item.path]
    assert len(heads) == 2
    text = machine.run("text", "t5-base")
    assert (text.folder / "tokenizer.json").read_bytes() == (GOLDEN / "music/t5-base/tokenizer.json").read_bytes()
    server.lists = {"sha", "size", "blobId", "lfs"}
    before = len(server.bodies())
    check_whole(machine.run(fresh=True).folder)
    assert len(server.bodies()) == before  # the cache is that of the Hub itself


def test_a_mirror_without_hashes_anywhere_is_refused(server: HubServer, machine: Machine) -> None:
    server.lists, server.redirects = {"sha"}, False
    server.faults.append(Fault(DECODER_FILE, status=200, headers={"ETag": '"version-7"'}, method="HEAD"))
    text = machine.run().failure("HubError", 4)
    assert f"gives no size, hash or commit of {DECODER_FILE}" in text
    assert "export-archive" in text
    assert machine.blobs() == {}


def test_what_a_mirror_sends_is_compared_with_its_headers(server: HubServer, machine: Machine) -> None:
    server.lists = {"sha"}
    server.faults.append(Fault(BODY, flip=True, times=1))
    assert "arrived damaged" in machine.run().failure("HubError", 4)
    check_whole(machine.run().folder)


def test_a_cut_is_resumed_within_a_run(server: HubServer, machine: Machine) -> None:
    server.faults.append(Fault(BODY, cut=100_000, times=1))
    check_whole(machine.run().folder)
    assert [item.range for item in server.bodies() if item.path == BODY] == [None, "bytes=100000-"]


def test_a_cut_is_resumed_by_the_next_run(server: HubServer, machine: Machine) -> None:
    server.faults += [Fault(BODY, cut=100_000, times=1), Fault(BODY, status=503)]
    message = machine.run().failure("HubError", 4)
    assert CODEC_FILE in message
    assert "503" in message
    assert machine.run(offline=True).code == 4  # what is there is not taken for a model
    assert 100_000 in machine.blobs().values()
    server.faults.clear()
    server.log.clear()
    result = machine.run()
    check_whole(result.folder)
    assert [item.range for item in server.bodies()] == ["bytes=100000-"]
    assert result.data["steps"][-1][0] == result.data["steps"][-1][1]
    assert all(len(name) == 64 for name in machine.blobs())  # no .incomplete is left


def test_every_cut_of_a_bad_connection_is_resumed(server: HubServer, machine: Machine) -> None:
    server.faults.append(Fault(BODY, cut=70_000, times=4))  # more often than a run would try without progress
    check_whole(machine.run().folder)


def test_a_server_that_hangs_up_again_and_again_is_not_asked_for_ever(server: HubServer, machine: Machine) -> None:
    """What came stays, so that runs that bring little still bring something."""
    server.faults.append(Fault(BODY, cut=1000))
    assert "the connection broke off" in machine.run().failure("HubError", 4)
    asked = [item for item in server.bodies() if item.path == BODY]
    assert len(asked) == 3
    assert 3000 in machine.blobs().values()
    server.faults[:] = [Fault(BODY, cut=50_000)]  # a bad connection, which is worth the waiting
    check_whole(machine.run().folder)


QUICK = {"HF_HUB_DOWNLOAD_TIMEOUT": "1"}  # seconds between two pieces; an answer begins within three times that


def test_a_server_that_drips_headers_does_not_hang_a_download(server: HubServer, machine: Machine) -> None:
    server.faults.append(Fault(BODY, drip=0.2))
    result = machine.run(env=QUICK)
    assert "no answer within 3 s" in result.failure("HubError", 4)
    assert result.seconds < 20  # starting Python and the library included
    server.faults.clear()
    check_whole(machine.run(env=QUICK).folder)


def test_a_server_that_drips_content_does_not_hang_a_download(server: HubServer, machine: Machine) -> None:
    server.faults.append(Fault(BODY, pace=100))
    result = machine.run(env=QUICK)
    assert re.search(r"only \d+ bytes per second arrived", result.failure("HubError", 4))
    assert result.seconds < 30
    assert any(0 < size < 1000 for size in machine.blobs().values())
    server.faults[:] = [Fault(BODY, pace=40_000)]  # slow, but it goes on
    check_whole(machine.run(env=QUICK).folder)


def test_unfinished_files_that_no_commit_has_any_more_are_removed(server: HubServer, machine: Machine) -> None:
    server.faults.append(Fault(BODY, cut=10_000))
    assert machine.run().code == 4
    (old,) = [name for name in machine.blobs() if name.endswith(".incomplete")]
    server.faults.clear()
    server.put(MODEL, {DECODER_FILE: GOLDEN / "music" / DECODER_FILE, CODEC_FILE: b"new"})
    foreign = machine.storage / "blobs" / "notes.incomplete"
    foreign.write_bytes(b"mine")
    lock = machine.home / "hub" / ".locks" / machine.storage.name / f"{old.removesuffix('.incomplete')}.lock"
    with FileLock(lock):  # as if another process went on with the old commit
        assert machine.run().code == 0
        assert old in machine.blobs()
    assert machine.run(fresh=True).code == 0
    assert old not in machine.blobs()
    assert foreign.read_bytes() == b"mine"


def test_ctrl_c_keeps_what_is_there(server: HubServer, machine: Machine) -> None:
    server.faults.append(Fault(BODY, stall=150_000, times=1))
    process = machine.start()
    while not any(item.path == BODY for item in server.log) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (130, "", "")
    assert 150_000 in machine.blobs().values()
    server.log.clear()
    check_whole(machine.run().folder)
    assert [item.range for item in server.bodies()] == ["bytes=150000-"]


def test_wrong_content_is_deleted(server: HubServer, machine: Machine) -> None:
    server.faults.append(Fault(BODY, flip=True))
    message = machine.run().failure("HubError", 4)
    assert CODEC_FILE in message
    assert "hash" in message
    assert "same command" in message
    assert list(machine.blobs().values()) == [size(DECODER_FILE)]
    assert not list(machine.storage.glob(f"snapshots/*/{CODEC_FILE}"))
    assert not (machine.storage / "refs").exists()
    server.faults.clear()
    check_whole(machine.run().folder)


# -- refusals, and servers in trouble ---------------------------------------------------------------------------------

QUICK = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
API = f"/api/models/{MODEL}"
GATED = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to it is restricted."}
TOKEN = {"X-Error-Message": "Invalid credentials in Authorization header"}


@pytest.mark.parametrize(
    ("fault", "said", "within"),
    [
        (Fault(API, status=401), ("no repository", "HF_TOKEN"), 5),
        (Fault(API, status=401, headers=TOKEN), ("token", "Renew HF_TOKEN"), 5),
        (Fault(BODY, status=401, headers=GATED), ("restricted", "terms"), 5),
        (Fault(BODY, status=403), ("restricted", "terms"), 5),
        (Fault(f"/resolve/{'{commit}'}/{CODEC_FILE}", status=404), (f"has no {CODEC_FILE}",), 5),
        (Fault(API, status=429, headers={"Retry-After": "300"}), ("429", "Wait 300 seconds"), 5),
        (Fault(BODY, status=429, headers={"ratelimit": '"resolvers";r=0;t=299'}), ("429", "Wait 299 seconds"), 5),
        (Fault(API, status=500), ("500", "its side"), 8),
        (Fault(API, hang=True), ("cannot reach", "1 s", "connection"), 5),
        (Fault(BODY, stall=1000), (CODEC_FILE, "stopped sending", "same command"), 15),
        (Fault(API, cut=50), ("broke off", "same command"), 5),
    ],
    ids=lambda value: f"{value.match[:5]} {value.status or ''}" if isinstance(value, Fault) else "",
)
def test_a_fault_is_one_clear_line_and_the_same_command_finishes(
    server: HubServer, machine: Machine, fault: Fault, said: tuple[str, ...], within: float
) -> None:
    fault.match = fault.match.replace("{commit}", server.commit(MODEL))
    server.faults.append(fault)
    result = machine.run(env=QUICK)
    message = result.failure("HubError", 4)
    assert all(words in message for words in (*said, MODEL)), message
    assert result.seconds < within
    print(f"{fault}: {result.seconds:.1f} s: {message}")
    server.faults.clear()
    check_whole(machine.run().folder)


def test_a_short_wait_that_the_server_asks_for_is_granted(server: HubServer, machine: Machine) -> None:
    server.faults.append(Fault(API, status=429, headers={"Retry-After": "1"}, times=1))
    server.faults.append(Fault(BODY, status=503, times=2))
    check_whole(machine.run().folder)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("someone/nothing", {}, ("no repository someone/nothing", "HF_TOKEN")),
        ("someone/empty", {}, (f"someone/empty on the Hub has no {DECODER_FILE}",)),
        (MODEL, {"plan": True, "revision": "v9"}, (f"{MODEL} on the Hub has no revision v9",)),
        ("someone/no..thing", {}, ("no repository someone/no..thing",)),
        (MODEL, {"offline": True}, (DECODER_FILE, CODEC_FILE, MODEL, f"`magnet models download {MODEL}`")),
    ],
)
def test_what_is_not_there_is_named(
    server: HubServer, machine: Machine, name: str, options: dict, said: tuple[str, ...]
) -> None:
    message = machine.run(name=name, **options).failure("HubError", 4)
    assert all(words in message for words in said), message
    assert server.bodies() == []
    if "offline" in options:
        assert server.log == []


def test_offline_names_the_one_file_that_is_missing_and_the_model(server: HubServer, machine: Machine) -> None:
    folder = machine.run("text", "t5-base").folder
    (folder / "tokenizer.json").unlink()
    server.log.clear()
    message = machine.run("text", "t5-base", offline=True, model="magnet-small-10secs").failure("HubError", 4)
    assert "no tokenizer.json of google-t5/t5-base" in message
    assert "config.json" not in message
    assert "`magnet models download magnet-small-10secs`" in message
    assert server.log == []


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid", "127.0.0.1"])
def test_without_a_network_it_fails_soon(tmp_path: Path, endpoint: str) -> None:
    result = Machine(tmp_path / "hf", endpoint).run()
    message = result.failure("HubError", 4)
    assert f"cannot reach {endpoint}" in message
    assert result.seconds < 10
    print(f"{endpoint}: {result.seconds:.1f} s: {message}")


def test_something_else_than_the_hub_is_told(server: HubServer, machine: Machine) -> None:
    server.faults.append(Fault(API, status=200))  # as the login page of a hotel
    assert "does not answer like the Hub" in machine.run().failure("HubError", 4)


# -- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """400 kB, less than the model has."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_too_little_room_is_found_before_anything_is_fetched(
    server: HubServer, machine: Machine, small_disk: Path
) -> None:
    message = machine.run(cache_dir=str(small_disk)).failure("OutputError", 7)
    assert "needs 0.5 MB more" in message
    assert "has 0.4 MB free" in message
    assert server.bodies() == []


def test_a_disk_that_fills_up_is_told_and_the_rest_comes_later(
    server: HubServer, machine: Machine, small_disk: Path
) -> None:
    server.faults.append(Fault(BODY, pace=200_000))
    hoard = small_disk / "hoard"
    subprocess.run(["mount", "-o", "remount,size=600k", str(small_disk)], check=True)
    process = machine.start(cache_dir=str(small_disk))
    while not any(item.path == BODY for item in server.bodies()) and process.poll() is None:
        time.sleep(0.05)
    hoard.write_bytes(bytes(300_000))  # another program takes the room
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (7, ""), err
    assert CODEC_FILE in err
    assert "Make room" in err
    hoard.unlink()
    server.faults.clear()
    server.log.clear()
    check_whole(machine.run(cache_dir=str(small_disk)).folder)
    assert server.bodies()[0].range is not None


def test_a_cache_that_cannot_be_written_is_told(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = machine.run(cache_dir=str(tmp_path / "file")).failure("OutputError", 7)
    assert str(tmp_path / "file") in message
