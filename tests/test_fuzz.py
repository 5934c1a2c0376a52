"""Every reader of a file that strangers may have written, on damaged files: what it raises is a MagnetError.

Each reader begins with good files and is given thousands of damaged ones. Hypothesis draws the random numbers, so a
failure comes again; the message has the file, which then goes into `FOUND` below or into a test of its own.

    MAGNET_FUZZ=100000 python -m pytest tests/test_fuzz.py -s    # as many files for each reader, and counts
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from magnet_cli.audio.codes_file import CodesSource, encode_codes, read_codes, read_source
from magnet_cli.checkpoints.bundle import read_bundle
from magnet_cli.checkpoints.hugging_face_codec import read_hugging_face_codec
from magnet_cli.checkpoints.musicgen import read_musicgen
from magnet_cli.checkpoints.open import convert
from magnet_cli.checkpoints.parts import build_codec, build_decoder
from magnet_cli.checkpoints.released import SUPPORTED_DECODER, codec_shape, decoder_shape, read_codec, read_decoder
from magnet_cli.checkpoints.released_yaml import Settings
from magnet_cli.cli.info import told
from magnet_cli.cli.models import flatten, from_bundle, list_row
from magnet_cli.errors import MagnetError
from magnet_cli.hub import cache
from magnet_cli.hub.archive import export_archive, import_archive
from magnet_cli.hub.download import plan_download
from magnet_cli.hub.store import BundleInfo, Store, is_musicgen
from magnet_cli.hub.user_sampling import read_user_sampling
from magnet_cli.jobs.manifest import Manifest
from magnet_cli.jobs.prompt_file import Problems, read_prompt_file
from magnet_cli.jobs.record import read_record, recipe
from magnet_cli.judge.clips import find_clips
from magnet_cli.judge.vggish import VGGishEncoder
from magnet_cli.model.text_encoder import TextEncoder
from magnet_cli.model.tokenizer_file import read_tokenizer, token_ids
from magnet_cli.model.weights import read_safetensors, read_weights
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.sampling import SamplingConfig
from magnet_cli.terminal.config_file import Section, read_defaults
from magnet_cli.train.codec_folder import read_codec_folder
from magnet_cli.train.data import find_examples
from magnet_cli.train.loop.run import resume
from magnet_cli.train.options import Optimization, Places, RunOptions
from support.golden import CPU, GOLDEN
from support.hostile import (
    CODEC_SETTINGS,
    MUSICGEN_SETTINGS,
    T5_SETTINGS,
    Damage,
    archive_damaged,
    bytes_damaged,
    json_damaged,
    lines_damaged,
    safetensors_damaged,
)

MANY = int(os.environ.get("MAGNET_FUZZ", "0"))
FILES = MANY or 200  # for each reader; a second or two of all of them
AT_ONCE = 500 if MANY else 20  # for each time that hypothesis draws

Read = Callable[[Path], object]


@dataclass(frozen=True)
class Reader:
    """What reads a file, and how good ones are damaged. good: contents; file: its name; beside: what else is there."""

    read: Read
    file: str
    good: Callable[[], list[bytes]]
    damage: Damage
    beside: Callable[[Path], object] = lambda folder: None
    share: float = 1.0  # of the files that others are given: for what is slow


# -- the readers, with whatever comes after them that looks at what was read ------------------------------------------


def read_settings(path: Path) -> None:
    found = Settings.parse(path.read_text(encoding="utf-8", errors="replace"), path)
    for read in (lambda: found.require(SUPPORTED_DECODER), lambda: decoder_shape(found, text_width=8)):
        try:
            read()
        except MagnetError:
            continue
    codec_shape(found)


def read_listed(path: Path) -> None:
    info = BundleInfo.read(path.parent)
    record = {"name": info.name, **from_bundle(info, info.facts)}
    json.dumps(record, allow_nan=False)
    "".join(list_row(record)).encode("utf-8", "surrogateescape")
    flatten(record)
    model = read_bundle(path.parent)
    build_decoder(model.decoder, CPU, torch.float32)
    build_codec(model.codec, CPU)


def read_archive(path: Path) -> None:
    import_archive(path, Store(path.parent / "store"))


def read_checkpoint(path: Path) -> None:
    build_decoder(read_decoder(path.parent), CPU, torch.float32)


def read_codec_checkpoint(path: Path) -> None:
    codec = read_codec(path.parent)
    if hasattr(codec, "weights"):
        build_codec(codec, CPU)


def read_music_generator(path: Path) -> None:
    if is_musicgen(path.parent):
        read_musicgen(path.parent)


def read_prompts(kind: str) -> Read:
    def read(path: Path) -> None:
        problems = Problems(str(path))
        read_prompt_file(str(path), kind, problems)
        problems.check()

    return read


def read_clip_record(path: Path) -> None:
    record = read_record(path)
    "".join(map("".join, told(record))).encode("utf-8", "surrogateescape")
    recipe(record)


def use_tokenizer(path: Path) -> None:
    token_ids(read_tokenizer(path.parent), "a slow piano, 97 bpm é 漢字 \ufdfa", 10**9)


def read_index(path: Path) -> None:
    cache.RESCORER.missing(path.parent)
    read_weights(path.parent)


def read_run(path: Path) -> None:
    class Network:
        def load(self, state: Any) -> None:
            torch.nn.Linear(2, 2).load_state_dict(state["network"])

    run, places = RunOptions(steps=1, batch_size=1), Places(path.parent.with_suffix(""))
    resume(Network(), run, places, {"width": 8, "steps": 1}, Optimization())  # type: ignore[arg-type]


class Answer:
    """What the Hub's client gets, whatever it asks."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.headers: dict[str, str] = {}
        self.status_code = 200

    def get(self, *_: object, **__: object) -> Answer:
        return self

    def raise_for_status(self) -> None:
        """It is always well."""

    def head(self, *_: object, **__: object) -> Answer:
        return self

    @property
    def history(self) -> list[Answer]:
        return []

    def json(self) -> Any:
        return json.loads(self.content)


def read_answer(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for place in ("hf_api", "utils"):
            patch.setattr(f"huggingface_hub.{place}.get_session", lambda: Answer(path.read_bytes()))
        plan = plan_download("facebook/magnet", cache.MODEL)
    assert plan.size >= plan.missing_size >= 0
    assert plan.folder.resolve().is_relative_to(plan.storage.resolve())


# -- good files -------------------------------------------------------------------------------------------------------

TEXT = GOLDEN / "music" / "t5-base"


def of(path: Path) -> Callable[[], list[bytes]]:
    return lambda: [path.read_bytes()]


def plain(*values: Any) -> Callable[[], list[bytes]]:
    return lambda: [json.dumps(value).encode() for value in values]


def settings_text() -> list[bytes]:
    """A training configuration with what is read of it, and little more: PyYAML is slow."""
    import yaml

    wanted = {"lm_model", "codebooks_pattern", "fuser", "conditioners", "transformer_lm", "masking", "dataset"}
    wanted |= {"compression_model", "encodec", "seanet", "rvq", "solver"}
    trees = [torch.load(GOLDEN / "music" / name)["xp.cfg"] for name in ("state_dict.bin", "compression_state_dict.bin")]
    kept = [{key: value for key, value in yaml.safe_load(tree).items() if key in wanted} for tree in trees]
    return [yaml.safe_dump(tree).encode() for tree in kept]


def bundle(folder: Path) -> None:
    convert(str(GOLDEN / "music"), folder / "bundle", dtype=None)
    for path in (folder / "bundle").iterdir():
        shutil.move(path, folder / path.name)


def codes() -> list[bytes]:
    found = []
    for save in (np.savez, np.savez_compressed):
        target = BytesIO()
        save(target, codes=np.arange(24, dtype=np.int16).reshape(4, 6))
        found.append(target.getvalue())
    return found


@lru_cache
def archives() -> list[bytes]:
    with TemporaryDirectory() as folder:
        bundle, target = Path(folder, "bundle"), Path(folder, "m.tar")
        convert(str(GOLDEN / "music"), bundle, dtype=None)
        export_archive(BundleInfo.read(bundle), "music", target)
        return [target.read_bytes()]


def named_codes() -> list[bytes]:
    return [encode_codes(np.arange(24, dtype=np.int16).reshape(4, 6), CodesSource("magnet-small-10secs", "0" * 64))]


def small_safetensors() -> list[bytes]:
    from safetensors.torch import save

    return [save({"a": torch.zeros(2, 3), "b": torch.ones(4, dtype=torch.float16)})]


def small_package() -> list[bytes]:
    found = []
    for new in (True, False):
        target = BytesIO()
        torch.save({"a": torch.zeros(2, 3), "b": torch.ones(4)}, target, _use_new_zipfile_serialization=new)
        found.append(target.getvalue())
    return found


def small_state() -> list[bytes]:
    target = BytesIO()
    torch.save({"step": 3, "trainer": {"network": torch.nn.Linear(2, 2).state_dict()}}, target)
    return [target.getvalue()]


def own_tokenizer() -> list[bytes]:
    from magnet_cli.train.own_text_encoder import learn_tokenizer

    small = json.loads((TEXT / "tokenizer.json").read_text())
    small["model"]["vocab"] = small["model"]["vocab"][:20]
    words = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0, "<unk>": 1}, "unk_token": "<unk>"}}
    texts = [learn_tokenizer(["slow piano 120 bpm"], 300, 25).to_str(), json.dumps(small), json.dumps(words)]
    return [text.encode() for text in texts]


RECORD = {
    **{
        "format": "magnet-clip",
        "version": 1,
        "prompt": "rain",
        "seed": 7,
        "input": None,
        "helpers": {},
        "seconds": 1.0,
    },
    **{"sampling": asdict(SamplingConfig()), "edit": asdict(EditConfig()), "output": asdict(OutputConfig())},
    **{"model": {"given": "m", "name": "m", "licence": "MIT", "hashes": {"a": "b"}}, "versions": {"magnet": "0"}},
    **{"codes": {"sha256": "0" * 64, "shape": [4, 15]}, "device": "cpu", "dtype": "float32", "lufs": -14.2},
}
PROMPT_ROWS = [
    {"prompt": "rain", "seed": 7, "steps": [20, 10, 10, 10], "top_p": 0.9, "region": ["2.5:5"], "output": "a/b.wav"},
    {"prompt": "wind", "variations": 2, "loop": True, "bpm": 120, "temperature": "3", "negative": "noise"},
]
MANIFEST_LINES = [
    {"format": "magnet-batch", "version": 1, "seed": 7, "settings": {"model": "m"}},
    {"item": "a" * 32, "seconds": 1.5, "files": [["a.json", 3, 10**18, "0" * 64], ["a.wav", 3, 10**18, "0" * 64]]},
    {"item": "b" * 32, "seconds": 0, "error": "no memory", "files": []},
    {"item": "c" * 32, "seconds": 2, "files": [["c.wav", 3, 1, "0" * 64]], "measured": [9.96, -14.0, None]},
    {"reports": [["results.csv", 3, 10**18, "0" * 64], ["index.html", 3, 10**18, "0" * 64]]},
]
ANSWER = {
    **{"id": "facebook/magnet", "sha": "0" * 40, "lastModified": "2024-01-01T00:00:00.000Z", "tags": ["x"]},
    "siblings": [
        {"rfilename": name, "size": 10, "blobId": "1" * 40, "lfs": {"size": 10, "sha256": "2" * 64, "pointerSize": 5}}
        for name in (*cache.MODEL_FILES, "README.md")
    ],
}
CSV = 'prompt,seed,top-p,steps,loop,region\nrain,7,0.9,"20,10,10,10",,\n"wind, ""far""",8,,,true,\n'
TOML = (
    '[generate]\nmodel = "x"\ntrue-peak = -2.5\njson = true\n[batch]\nseed = 7\n'
    "[models]\njson = true\n[models.list]\njson = false\n"
)
OPTIONS = {
    "generate": Section({"model": "model", "true-peak": "true_peak", "json": "as_json"}),
    "batch": Section({"seed": "seed"}),
    "models": Section(below={"list": Section({"json": "as_json"})}),
}


def lines(rows: list[dict[str, Any]]) -> Callable[[], list[bytes]]:
    return lambda: ["\n".join(map(json.dumps, rows)).encode()]


def audio(folder: Path) -> None:
    (folder / "a.wav").write_bytes(b"")


READERS = {
    "training configuration": Reader(read_settings, "settings.yaml", settings_text, bytes_damaged, share=0.05),
    "bundle configuration": Reader(read_listed, "config.json", list, json_damaged, bundle, share=0.3),
    "decoder checkpoint": Reader(
        read_checkpoint, "state_dict.bin", of(GOLDEN / "music" / "state_dict.bin"), archive_damaged, share=0.02
    ),
    "codec checkpoint": Reader(
        read_codec_checkpoint,
        "compression_state_dict.bin",
        of(GOLDEN / "music" / "compression_state_dict.bin"),
        archive_damaged,
        share=0.02,
    ),
    "package": Reader(lambda path: read_weights(path.parent), "pytorch_model.bin", small_package, archive_damaged),
    "safetensors": Reader(read_safetensors, "model.safetensors", small_safetensors, safetensors_damaged),
    "index of shards": Reader(
        read_index,
        "model.safetensors.index.json",
        plain({"metadata": {"total_size": 9}, "weight_map": {"a": "model-1-of-2.safetensors", "b": "x"}}),
        json_damaged,
    ),
    "codec settings": Reader(
        lambda path: read_hugging_face_codec(path.parent), "config.json", plain(CODEC_SETTINGS), json_damaged
    ),
    "text encoder settings": Reader(
        lambda path: TextEncoder.load(path.parent, CPU), "config.json", plain(T5_SETTINGS), json_damaged
    ),
    "MusicGen settings": Reader(read_music_generator, "config.json", plain(MUSICGEN_SETTINGS), json_damaged, share=0.1),
    "tokenizer": Reader(use_tokenizer, "tokenizer.json", own_tokenizer, json_damaged, share=0.2),
    "codec folder": Reader(
        lambda path: read_codec_folder(path.parent),
        "config.json",
        lambda: [json.dumps({"format": "magnet-codec", "version": 1, "codec": asdict(codec_of_golden())}).encode()],
        json_damaged,
    ),
    "archive": Reader(read_archive, "m.tar", archives, bytes_damaged, share=0.1),
    "codes": Reader(read_codes, "codes.npz", codes, archive_damaged),
    "codes' source": Reader(read_source, "codes.npz", named_codes, archive_damaged),
    "prompts, text": Reader(read_prompts("txt"), "p.txt", lambda: [b"rain\n# no\nwind\r\n"], bytes_damaged),
    "prompts, CSV": Reader(read_prompts("csv"), "p.csv", lambda: [CSV.encode()], bytes_damaged),
    "prompts, TSV": Reader(
        read_prompts("tsv"), "p.tsv", lambda: [b"sep=\t\n" + CSV.replace(",", "\t").encode()], bytes_damaged
    ),
    "prompts, JSON lines": Reader(read_prompts("jsonl"), "p.jsonl", lines(PROMPT_ROWS), lines_damaged),
    "record": Reader(read_clip_record, "clip.json", plain(RECORD), json_damaged),
    "manifest": Reader(lambda path: Manifest.read(path.parent), "manifest.jsonl", lines(MANIFEST_LINES), lines_damaged),
    "defaults": Reader(
        lambda path: read_defaults(path, OPTIONS), "config.toml", lambda: [TOML.encode()], bytes_damaged
    ),
    "the user's sampling": Reader(
        lambda path: read_user_sampling(path.parent),
        "sampling.json",
        plain({"bundled": {"steps": [1]}}),
        json_damaged,
    ),
    "training data, JSON lines": Reader(
        lambda path: find_examples(path.parent, texts=True),
        "metadata.jsonl",
        lines([{"file_name": "a.wav", "text": "rain"}, {"file_name": "a.wav", "text": ["rain", "wind"]}]),
        lines_damaged,
        audio,
    ),
    "training data, CSV": Reader(
        lambda path: find_examples(path.parent, texts=True),
        "metadata.csv",
        lambda: [b"file_name,text\na.wav,rain\n"],
        bytes_damaged,
        audio,
    ),
    "training data, a file beside": Reader(
        lambda path: find_examples(path.parent, texts=True), "a.json", plain({"text": "rain"}), json_damaged, audio
    ),
    "training settings": Reader(
        read_run,
        "settings.json",
        plain({"width": 8, "steps": 1}),
        json_damaged,
        lambda folder: (folder / "state.pt").touch(),
    ),
    "training state": Reader(
        read_run,
        "state.pt",
        small_state,
        archive_damaged,
        lambda folder: (folder / "settings.json").write_text('{"width": 8, "steps": 1}'),
    ),
    "weights of VGGish": Reader(VGGishEncoder.load, "vggish.pth", small_state, archive_damaged, share=0.1),
    "prompts of clips": Reader(
        lambda path: find_clips([path.parent / "a.wav"], path),
        "prompts.csv",
        lambda: [b"path,prompt\na.wav,rain\n"],
        bytes_damaged,
        audio,
    ),
    "answer of the Hub": Reader(read_answer, "answer.json", plain(ANSWER), json_damaged, share=0.5),
    "branch in the cache": Reader(
        lambda path: cache.cached("a/b", cache.MODEL, path.parents[2]),
        "models--a--b/refs/main",
        lambda: [b"0" * 40],
        bytes_damaged,
    ),
}


def codec_of_golden() -> Any:
    codec = read_codec(GOLDEN / "music")
    assert hasattr(codec, "config")
    return codec.config


# Files that were not refused properly before: what is found is kept here.
FOUND: list[tuple[str, bytes]] = [
    *(("training configuration", text) for text in (b"a: !!bool x", b"a: !!int ''", b"!!timestamp x", b"? [a]\n: 1")),
    ("defaults", b"a = " + b"[" * 3000),
    ("defaults", b'[generate]\nmodel = "a\\u0000b"'),
    ("defaults", b"[generate]\ntrue-peak = nan"),
    *(("codes", content) for content in (b"", b"PK\x05\x06" + b"\0" * 18)),
    *(("answer of the Hub", text) for text in (b"[]", b"7", b"null", b'"x"', b"[" * 100_000, b'{"siblings": 7}')),
    *(("training settings", text) for text in (b"[]", b"null", b"[" * 100_000, b'{"width": 1e999}')),
    *(("record", text) for text in (b"[" * 100_000, b'{"format": "magnet-clip", "version": 1, "seed": 1e999}')),
    ("training data, CSV", b'file_name,text\n"' + b"x" * 200_000 + b'",y\n'),
    ("training data, JSON lines", b"[" * 100_000),
]


def refused_properly(name: str, path: Path, content: bytes) -> None:
    """Read a file; anything that is raised must be a MagnetError."""
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            READERS[name].read(path)
    except MagnetError:
        return
    except BaseException as error:
        shown = repr(content) if len(content) < 3000 else f"{content[:1500]!r}…{content[-1500:]!r}"
        pytest.fail(f"{name}: {type(error).__name__}: {error}\nfor {shown}", pytrace=True)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, list[bytes]]]:
    """For a reader: where its damaged files go, and the good ones."""
    known: dict[str, tuple[Path, list[bytes]]] = {}

    def place(name: str) -> tuple[Path, list[bytes]]:
        if name not in known:
            reader = READERS[name]
            path = tmp_path_factory.mktemp("fuzz").joinpath("x.run", reader.file)
            path.parent.mkdir(parents=True)
            reader.beside(path.parent)
            good = reader.good() or [path.read_bytes()]
            known[name] = (path, good)
        return known[name]

    return place


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_refused_properly(
    places: Callable[[str], tuple[Path, list[bytes]]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, good = places(name)
    reader, tried = READERS[name], 0
    for content in good:
        refused_properly(name, path, content)

    @settings(
        max_examples=max(1, int(FILES * reader.share) // AT_ONCE),
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        derandomize=not MANY,
    )
    @given(st.integers(0, 2**62))
    def run(seed: int) -> None:
        nonlocal tried
        random = Random(seed)
        for _ in range(AT_ONCE):
            refused_properly(name, path, reader.damage(random.choice(good), random))
            tried += 1

    run()
    if MANY:
        print(f"\n{name}: {tried:,} damaged files")


@pytest.mark.parametrize(("name", "content"), FOUND)
def test_what_was_found_once_is_refused_properly(
    places: Callable[[str], tuple[Path, list[bytes]]], name: str, content: bytes
) -> None:
    path, _ = places(name)
    refused_properly(name, path, content)
