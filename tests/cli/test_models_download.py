"""`magnet models download` and what follows, as processes, against a Hub on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile

import magnet_cli
from support.command import clean_environment
from support.golden import GOLDEN
from support.hub_server import Fault, HubServer
from support.tiny_musicgen import write_musicgen

MODEL = "magnet-small-10secs"
REPOSITORY = f"facebook/{MODEL}"
PARTS = ("state_dict.bin", "compression_state_dict.bin")
TEXT = ("config.json", "tokenizer.json", "model.safetensors")
QUICK = ("--steps", "2,1,1,1", "--device", "cpu", "--seed", "1")


@dataclass
class Machine:
    """A computer with its own caches, on which `magnet` is run."""

    home: Path
    endpoint: str

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "magnet_cli", *arguments],
            cwd=self.home,
            env=clean_environment()
            | {
                "HF_HOME": str(self.home / "hf"),
                "HF_ENDPOINT": self.endpoint,
                "MAGNET_MODEL_DIR": str(self.home / "models"),
                "MAGNET_CONFIG": str(self.home / "none.toml"),
                "PYTHONPATH": str(Path(magnet_cli.__file__).parents[1]),
            }
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def magnet(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in err
        return process.returncode, out, err

    @property
    def bundle(self) -> Path:
        return self.home / "models" / MODEL


@pytest.fixture
def server() -> Iterator[HubServer]:
    repositories = {
        REPOSITORY: {name: GOLDEN / "music" / name for name in PARTS},
        "google-t5/t5-base": {name: GOLDEN / "music" / "t5-base" / name for name in TEXT},
    }
    with HubServer(repositories) as server:
        yield server


@pytest.fixture
def machine(server: HubServer, tmp_path: Path) -> Machine:
    return Machine(tmp_path, server.url)


def test_one_command_brings_all_and_then_the_network_is_not_needed(server: HubServer, machine: Machine) -> None:
    code, out, err = machine.magnet("models", "download", MODEL)
    assert (code, out) == (0, f"{machine.bundle}\n"), err
    for part in (f"downloading {REPOSITORY}", "downloading google-t5/t5-base", "CC-BY-NC-4.0, non-commercial use only"):
        assert part in err
    asked = len(server.log)

    code, out, err = machine.magnet("generate", "disco", "-o", "a.wav", "--offline", "--no-metadata", *QUICK)
    assert (code, out) == (0, "a.wav\n"), err
    assert "bundled" not in err
    assert machine.magnet("models", "verify", MODEL)[0] == 0
    assert machine.magnet("models", "download", MODEL, "--offline")[0] == 0
    assert len(server.log) == asked  # not one request more

    code, _, err = machine.magnet(
        "generate", "disco", "-o", "b.wav", "--model", str(GOLDEN / "music"), "--no-metadata", *QUICK
    )
    assert code == 0, err
    assert (machine.home / "a.wav").read_bytes() == (machine.home / "b.wav").read_bytes()


def test_generate_downloads_what_it_needs(server: HubServer, machine: Machine) -> None:
    code, out, err = machine.magnet("generate", "disco", "-o", "a.wav", "--model", MODEL, *QUICK, HF_HUB_OFFLINE="1")
    assert code == 4
    assert f"`magnet models download {MODEL}`" in err
    assert "state_dict.bin" in err
    assert server.log == []

    code, out, err = machine.magnet("generate", "disco", "-o", "a.wav", *QUICK)
    assert (code, out) == (0, "a.wav\n"), err
    assert soundfile.info(machine.home / "a.wav").samplerate == 32_000
    record = json.loads(machine.magnet("models", "show", MODEL, "--json")[1])
    assert record["here"]
    assert record["revision"] == server.commit(REPOSITORY)


def test_a_broken_download_is_finished_by_the_same_command(server: HubServer, machine: Machine) -> None:
    server.faults.append(Fault("google-t5/t5-base", status=500))
    code, out, err = machine.magnet("models", "download", MODEL)
    assert (code, out) == (4, "")
    assert err.splitlines()[-1].startswith("error: the Hub answers")
    assert not machine.bundle.exists()
    bodies = len(server.bodies())

    server.faults.clear()
    code, out, err = machine.magnet("models", "download", MODEL)
    assert (code, out) == (0, f"{machine.bundle}\n"), err
    assert not [item for item in server.bodies()[bodies:] if REPOSITORY in item.path]  # that part was here


def test_a_damaged_bundle_is_named_and_mended(server: HubServer, machine: Machine) -> None:
    machine.magnet("models", "download", MODEL)
    path = machine.bundle / "decoder.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    path.write_bytes(content)
    code, _, err = machine.magnet("models", "verify", MODEL)
    assert code == 3
    assert "decoder.safetensors" in err
    code, _, err = machine.magnet("models", "download", MODEL)
    assert code == 0
    assert "decoder.safetensors has changed" in err
    assert machine.magnet("models", "verify", MODEL)[0] == 0


def test_damaged_downloads_are_fetched_again_when_a_bundle_is_mended(server: HubServer, machine: Machine) -> None:
    machine.magnet("models", "download", MODEL)
    (machine.bundle / "codec.safetensors").unlink()
    (original,) = (machine.home / "hf").rglob("snapshots/*/compression_state_dict.bin")
    content = bytearray(original.read_bytes())
    content[-1] ^= 1
    original.resolve().write_bytes(content)
    code, _, err = machine.magnet("models", "download", MODEL)
    assert code == 0, err
    assert machine.magnet("models", "verify", MODEL)[0] == 0
    (original,) = (machine.home / "hf").rglob("snapshots/*/compression_state_dict.bin")
    assert original.read_bytes() == (GOLDEN / "music" / "compression_state_dict.bin").read_bytes()


def test_a_musicgen_stays_as_it_came_and_generates(server: HubServer, machine: Machine, tmp_path: Path) -> None:
    folder = tmp_path / "musicgen"
    write_musicgen(folder)
    files = {path.name: path for path in folder.iterdir()}
    server.put("facebook/musicgen-small", {**files, "pytorch_model.bin": b"unwanted"})
    code, out, err = machine.magnet("models", "download", "facebook/musicgen-small")
    assert code == 0, err
    assert sorted(path.name for path in Path(out.strip()).iterdir()) == sorted([*TEXT, "generation_config.json"])
    record = json.loads(machine.magnet("models", "show", "musicgen-small", "--json")[1])
    assert (record["here"], record["folder"]) == (True, out.strip())
    options = ("--duration", "0.2", "--device", "cpu", "--offline", "--json")
    for name in ("musicgen-small", "facebook/musicgen-small"):
        code, out, err = machine.magnet("generate", "x", "-o", f"{name}.wav", "--model", name, *options)
        assert code == 0, err
        model = json.loads(out)["model"]
        assert (model["name"], model["repository"]) == ("musicgen-small", "facebook/musicgen-small")
        assert model["revision"] == Path(record["folder"]).name


def test_originals_can_be_deleted(machine: Machine) -> None:
    code, _, err = machine.magnet("models", "download", MODEL, "--delete-originals")
    assert code == 0, err
    assert not list((machine.home / "hf").rglob("state_dict.bin"))
    assert not list((machine.home / "hf").rglob("model.safetensors"))
    assert not [path for path in (machine.home / "hf").rglob("models--*") if ".locks" not in path.parts]
    assert machine.magnet("generate", "x", "-o", "a.wav", "--offline", *QUICK)[0] == 0


def test_other_files_of_the_repository_stay_when_originals_are_deleted(machine: Machine) -> None:
    storage = machine.home / "hf" / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = storage / "snapshots" / ("a" * 40)  # of another revision, fetched by another program
    snapshot.mkdir(parents=True)
    (storage / "blobs").mkdir()
    (storage / "blobs" / ("b" * 40)).write_text("theirs")
    (snapshot / "README.md").symlink_to(f"../../blobs/{'b' * 40}")
    code, _, err = machine.magnet("models", "download", MODEL, "--delete-originals")
    assert code == 0, err
    assert sorted(path.name for path in storage.rglob("*") if path.is_file()) == ["README.md", "b" * 40]
    assert (snapshot / "README.md").read_text() == "theirs"


def test_two_at_once_make_one_bundle(server: HubServer, machine: Machine) -> None:
    processes = [machine.start("models", "download", MODEL) for _ in range(2)]
    results = [(process.communicate(timeout=120), process.returncode) for process in processes]
    for (out, err), code in results:
        assert (code, out) == (0, f"{machine.bundle}\n"), err
    assert len([item for item in server.bodies() if REPOSITORY in item.path]) == len(PARTS)
    left = {path.name for path in (machine.home / "models").iterdir()} - {f".{MODEL}.lock"}
    assert left == {MODEL}


def test_places_can_be_chosen(machine: Machine) -> None:
    code, out, err = machine.magnet("models", "download", MODEL, "--model-dir", "m", "--cache-dir", "c")
    assert (code, out) == (0, f"{Path('m') / MODEL}\n"), err
    assert list((machine.home / "c").rglob("state_dict.bin"))
    assert not machine.bundle.exists()
    code, _, err = machine.magnet("generate", "x", "-o", "a.wav", "--model-dir", "m", "--offline", *QUICK)
    assert code == 0, err
    assert "bundled" not in err


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        ([], 2, "--all"),
        (["nonsense"], 2, "nonsense"),
        (["someone/nothing"], 4, "someone/nothing"),
        ([str(GOLDEN / "music")], 2, "not a model on the Hub"),
    ],
)
def test_what_cannot_be_downloaded(machine: Machine, arguments: list[str], code: int, part: str) -> None:
    found, out, err = machine.magnet("models", "download", *arguments)
    assert (found, out) == (code, "")
    assert part in err.splitlines()[-1]


def test_no_room_for_the_bundle_leaves_nothing_half_done(machine: Machine) -> None:
    machine.magnet("models", "download", MODEL)
    shutil.rmtree(machine.bundle)
    small = machine.home / "small"
    small.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    if (
        not mounted
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", small], check=False).returncode
    ):
        pytest.skip("needs the right to mount a small disk")
    try:
        code, _, err = machine.magnet("models", "download", MODEL, "--model-dir", str(small))
        assert code == 7
        assert "cannot write" in err.splitlines()[-1]
        assert [path.name for path in small.iterdir() if path.is_dir()] == []
    finally:
        subprocess.run(["umount", small], check=True)
    assert machine.magnet("models", "download", MODEL, "--offline")[0] == 0
