"""Batches, downloads, conversions and trainings under random faults, each compared with an undisturbed run.

    make soak MINUTES=30
    python benchmarks/soak.py --minutes 30 --seed 1

Every round runs one command again and again: it is killed at random moments, runs on a disk that is too small, meets a
server that breaks, or finds its files damaged. The last run of a round is left in peace. It must end with exit code 0
and have the files of an undisturbed run: codes, samples and weights byte for byte, and nothing unfinished beside them.
Small disks are mounted (tmpfs) in a mount namespace of this process's own; where that is not permitted, a limit on the
size of a file (RLIMIT_FSIZE) stands in. The seed is printed first; it fixes all choices, not what the machine does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from magnet_cli.disk.unfinished import UNFINISHED_NAME  # noqa: E402
from magnet_cli.hub.folders import LEFTOVER  # noqa: E402
from support.command import clean_environment  # noqa: E402
from support.forked import Server  # noqa: E402
from support.hub_server import Fault, HubServer  # noqa: E402

GOLDEN = ROOT / "tests" / "golden" / "music"
REPOSITORY = "facebook/magnet-small-10secs"
IN_NAMESPACE = "MAGNET_SOAK_MAY_MOUNT"
CLIPS, MOST_FAULTS, LONGEST_RUN = 12, 5, 120.0
QUICK = ("--steps", "2,1,1,1", "--temperature", "10", "--guidance", "1", "--device", "cpu")
TRAINING = (
    *("--sample-rate", "8000", "--ratios", "8,5,5,2", "--filters", "2", "--dimension", "8", "--lstm", "0"),
    *("--codebooks", "2", "--codes", "16", "--seconds", "0.5", "--steps", "12", "--save-every", "3", "--cpu", "-q"),
    *("--sample-every", "4", "--log-every", "1", "--batch-size", "2", "--adversarial-from", "99"),
)
# How a command may end that was disturbed: well, killed, interrupted, by an OutputError, a HubError.
DISTURBED = {0, -signal.SIGKILL, -signal.SIGTERM, 130, 143, 7, 4}


class SoakError(Exception):
    """What must not be."""


@dataclass(frozen=True)
class Work:
    """A command, and what its result is. `arguments` and `result` take the folder that it runs in.

    damage: harms what an earlier run has left. faults: a server's faults, drawn at random; None: no server is asked.
    """

    name: str
    arguments: Callable[[Path], Sequence[str]]
    result: Callable[[Path], dict[str, str]]
    size: int  # bytes on the disk of a whole result, about
    damage: Callable[[Path, random.Random], str | None] | None = None
    faults: Callable[[random.Random], Fault] | None = None


@dataclass
class Soak:
    """What runs, where, and what came of it."""

    place: Path
    server: Server
    hub: HubServer
    chance: random.Random
    may_mount: bool
    counts: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    wanted: dict[str, dict[str, str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def learn(self, work: Work) -> None:
        """Run a command undisturbed, to know its result and how long it takes."""
        folder = self.place / f"whole-{work.name}"
        folder.mkdir()
        started = time.monotonic()
        code, err = self.run(work, folder)
        if code != 0:
            raise SystemExit(f"{work.name} fails undisturbed:\n{err}")
        self.seconds[work.name] = time.monotonic() - started
        self.wanted[work.name] = work.result(folder)

    def run(
        self, work: Work, folder: Path, *, stop: tuple[float, int] | None = None, largest: int | None = None
    ) -> tuple[int, str]:
        """Run a command; returns its exit code and stderr. stop: after so many seconds with this signal."""
        run = self.server.start(folder, *work.arguments(folder), largest=largest)
        if stop is not None:
            time.sleep(stop[0])
            run.send(stop[1])
        code = run.wait()
        self.counts["runs"] += 1
        return code, run.err

    def round(self, work: Work, number: int) -> None:
        """Disturb one command several times, then let it finish, and compare."""
        folder = self.place / f"round-{number}"
        folder.mkdir()
        small = self.may_mount and self.chance.random() < 0.4
        if small:
            self.mount(folder, int(work.size * self.chance.uniform(0.05, 0.95)))
        try:
            for _ in range(self.chance.randint(1, MOST_FAULTS)):
                self.disturb(work, folder, may_limit=not self.may_mount)
            if small:
                subprocess.run(["mount", "-o", "remount,size=1g", str(folder)], check=True)
            self.finish(work, folder)
        finally:
            if small:
                subprocess.run(["umount", "-l", str(folder)], check=False)
            shutil.rmtree(folder, ignore_errors=True)

    def mount(self, folder: Path, size: int) -> None:
        """Make a folder a disk of its own, of so many bytes."""
        self.counts["small disks"] += 1
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", str(folder)], check=True)

    def disturb(self, work: Work, folder: Path, *, may_limit: bool) -> None:
        """One run with a fault, or several."""
        stop = None
        if self.chance.random() < 0.8:
            number = self.chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            stop = self.chance.uniform(0, self.seconds[work.name]), int(number)
        largest = int(work.size * self.chance.uniform(0.001, 0.5)) if may_limit and self.chance.random() < 0.3 else None
        self.counts["file size limits"] += largest is not None
        if work.faults is not None and self.chance.random() < 0.7:
            self.hub.faults[:] = [work.faults(self.chance) for _ in range(self.chance.randint(1, 3))]
            self.counts["server faults"] += len(self.hub.faults)
        code, err = self.run(work, folder, stop=stop, largest=largest)
        self.hub.faults.clear()
        self.counts["kills"] += code == -signal.SIGKILL
        self.counts["interruptions"] += code in (130, 143, -signal.SIGTERM)
        self.counts["refusals"] += code in (4, 7)
        if code not in DISTURBED:
            raise SoakError(f"exit code {code}: {err[-2000:]}")
        if "Traceback" in err:
            raise SoakError(f"a traceback: {err[-2000:]}")
        if work.damage is not None and self.chance.random() < 0.4 and (what := work.damage(folder, self.chance)):
            self.counts[what] += 1

    def finish(self, work: Work, folder: Path) -> None:
        """A run in peace, which has to end well, and its result."""
        self.counts["resumes"] += 1
        code, err = self.run(work, folder)
        if code == 7 and "damaged beyond recognition" in err:  # several faults in a manifest of few lines: obey
            self.counts["manifests renamed"] += 1
            (folder / "clips" / "manifest.jsonl").rename(folder / "clips" / "manifest-old.jsonl")
            code, err = self.run(work, folder)
        if code != 0:
            raise SoakError(f"exit code {code} in peace: {err[-2000:]}")
        found = work.result(folder)
        wanted = self.wanted[work.name]
        if found != wanted:
            different = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
            raise SoakError(f"other results: {different[:5]}")
        self.counts["clips compared" if work.name == "batch" else "other results compared"] += (
            CLIPS if work.name == "batch" else 1
        )
        left = [path.name for path in folder.rglob("*") if is_unfinished(path.name)]
        if left:
            raise SoakError(f"left behind: {left[:5]}")


def is_unfinished(name: str) -> bool:
    """Whether a file or folder has a name of what is not complete, or not needed any more."""
    return bool(UNFINISHED_NAME.fullmatch(name) or LEFTOVER.fullmatch(name) or name.endswith(".incomplete"))


def digests(folder: Path, pattern: str = "*") -> dict[str, str]:
    """The SHA-256 of every file in a folder."""
    files = sorted(path for path in folder.rglob(pattern) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def clips(folder: Path) -> dict[str, str]:
    """What each clip of a batch is: its samples, and its codes in the record and the archive."""
    found = {}
    for path in (folder / "clips").glob("[!.]*.wav"):
        if ".changed-" in path.name:
            continue
        record = json.loads(path.with_suffix(".json").read_text())
        with np.load(path.with_suffix(".codes.npz")) as archive:
            codes = hashlib.sha256(np.ascontiguousarray(archive["codes"], dtype="<i2").tobytes()).hexdigest()
        if codes != record["codes"]["sha256"]:
            raise SoakError(f"{path.name} has other codes than its record says")
        samples = hashlib.sha256(soundfile.read(path, dtype="int16")[0].tobytes()).hexdigest()
        found[path.name] = f"{codes} {samples}"
    return found


def damage_batch(folder: Path, chance: random.Random) -> str | None:
    """Harm the manifest of a batch, or a clip."""
    manifest = folder / "clips" / "manifest.jsonl"
    if not manifest.is_file():
        return None
    if chance.random() < 0.25:
        manifest.unlink()
        return "manifests deleted"
    path = chance.choice([manifest, *(folder / "clips").glob("[!.]*.wav")])
    content = bytearray(path.read_bytes())
    if not content:
        return None
    if chance.random() < 0.5:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        what = "bits flipped"
    else:
        del content[chance.randrange(len(content)) :]
        what = "files cut"
    before = path.stat()
    with path.open("r+b") as file:  # in place: a small disk may have no room for a second one
        file.write(content)
        file.truncate()
    if path == manifest and what == "bits flipped":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return what


def server_fault(chance: random.Random) -> Fault:
    """A fault of the Hub, for one or two requests, or for all of a run."""
    match = chance.choice(["/large/", "/resolve/", "/api/", "state_dict", "tokenizer"])
    times = chance.choice([1, 2, None])
    kind = chance.choice(["cut", "stall", "status", "flip", "pace", "drip", "hang"])
    if kind == "cut":
        return Fault(match, cut=chance.randrange(300_000), times=times)
    if kind == "stall":
        return Fault(match, stall=chance.randrange(300_000), times=times)
    if kind == "status":
        return Fault(match, status=chance.choice([404, 429, 500, 503]), times=times)
    if kind == "flip":
        return Fault(match, flip=True, times=times)
    if kind == "pace":
        return Fault(match, pace=chance.uniform(100, 2_000_000), times=times)
    if kind == "drip":
        return Fault(match, drip=0.1, times=times)
    return Fault(match, hang=True, times=times)


def works(place: Path) -> list[Work]:
    """The commands, and what they need."""
    prompts = place / "prompts.csv"
    prompts.write_text("prompt,seed\n" + "".join(f"prompt {k},{k}\n" for k in range(CLIPS)))
    data = place / "data"
    data.mkdir()
    for index in range(2):
        soundfile.write(data / f"{index}.wav", 0.3 * np.sin(np.arange(8000) * 0.1 * (index + 1)), 8000)
    tiny = place / "tiny"

    def trained(folder: Path) -> dict[str, str]:
        steps = [line.split(",")[0] for line in (folder / "codec.run/log.csv").read_text().splitlines()]
        return digests(folder / "codec") | {"steps": " ".join(steps)}

    return [
        Work(
            "batch",
            lambda folder: ("batch", str(prompts), "--model", str(tiny), "--save-codes", *QUICK, "-o", "clips"),
            clips,
            CLIPS * 25_000,
            damage=damage_batch,
        ),
        Work(
            "download",
            lambda folder: (
                *("models", "download", REPOSITORY.split("/")[1]),
                *("--cache-dir", "cache", "--model-dir", "models"),
            ),
            lambda folder: digests(folder / "models"),
            8_000_000,
            faults=server_fault,
        ),
        Work(
            "convert",
            lambda folder: ("models", "convert", str(GOLDEN), "out/bundle", "--force"),
            lambda folder: digests(folder / "out"),
            3_000_000,
        ),
        Work(
            "train",
            lambda folder: ("train", "codec", str(data), "-o", "codec", *TRAINING),
            trained,
            6_000_000,
        ),
    ]


def small_model(server: Server, place: Path) -> None:
    """The golden model as a bundle whose clips take milliseconds: 0.3 s long."""
    run = server.start(place, "models", "convert", str(GOLDEN), "tiny")
    if run.wait() != 0:
        raise SystemExit(run.err)
    path = place / "tiny/config.json"
    config = json.loads(path.read_text())
    config["decoder"]["clip_seconds"] = 0.3
    path.write_text(json.dumps(config))


def environment(hub: HubServer, place: Path) -> dict[str, str]:
    """What commands run with: nothing of the user's own, the Hub here, one thread."""
    return clean_environment() | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(place / "hf"),
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "HF_HUB_ETAG_TIMEOUT": "2",
        "MAGNET_MODEL_DIR": str(place / "models"),
        "MAGNET_CONFIG": str(place / "none.toml"),
        "MAGNET_AUTO_DTYPE": "float32",
        "OMP_NUM_THREADS": "1",
    }


def soak(minutes: float, seed: int, only: str | None) -> int:
    """Disturb for so many minutes; returns the number of failures."""
    until = time.monotonic() + 60 * minutes
    may_mount = IN_NAMESPACE in os.environ
    print(f"seed {seed}, {minutes:g} minutes")
    if not may_mount:
        print("no disk can be mounted here: a limit on the size of a file stands in for a small disk")
    repositories = {
        REPOSITORY: {name: GOLDEN / name for name in ("state_dict.bin", "compression_state_dict.bin")},
        "google-t5/t5-base": {path.name: path for path in sorted((GOLDEN / "t5-base").iterdir())},
    }
    with tempfile.TemporaryDirectory(prefix="magnet-soak-") as name, HubServer(repositories) as hub:
        place = Path(name)
        (place / "commands").mkdir()
        server = Server(place / "commands", environment=environment(hub, place))
        chance = random.Random(seed)
        session = Soak(place, server, hub, chance, may_mount)
        try:
            small_model(server, place)
            chosen = [work for work in works(place) if only in (None, work.name)]
            for work in chosen:
                session.learn(work)
            rounds: Counter[str] = Counter()
            while time.monotonic() < until:
                work = chance.choice(chosen)
                rounds[work.name] += 1
                try:
                    session.round(work, rounds.total())
                except (SoakError, OSError, ValueError, subprocess.CalledProcessError) as error:
                    session.failures.append(f"round {rounds.total()}, {work.name}: {error}")
                    print(f"FAILED {session.failures[-1]}", flush=True)
        finally:
            server.stop()
    print(", ".join(f"{number} rounds of {name}" for name, number in sorted(rounds.items())))
    print(", ".join(f"{number} {what}" for what, number in sorted(session.counts.items())))
    print(f"failures = {len(session.failures)}")
    return len(session.failures)


def enter_namespace() -> None:
    """Begin this script anew where it may mount disks that nobody else sees; return where the system forbids that."""
    if IN_NAMESPACE in os.environ or shutil.which("unshare") is None:
        return
    with tempfile.TemporaryDirectory() as place:
        mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", place]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            return
    os.environ[IN_NAMESPACE] = "1"
    os.execvp("unshare", ["unshare", "-rm", sys.executable, *sys.argv])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="of all choices; drawn if not given")
    parser.add_argument("--only", choices=["batch", "download", "convert", "train"], help="disturb this command alone")
    given = parser.parse_args()
    enter_namespace()
    seed = secrets.randbelow(1 << 31) if given.seed is None else given.seed
    sys.exit(1 if soak(given.minutes, seed, given.only) else 0)


if __name__ == "__main__":
    main()
