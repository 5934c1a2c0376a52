"""Small models that ask for gigabytes or for hours: each is refused at once, with one error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from magnet_cli.checkpoints.musicgen import read_musicgen
from magnet_cli.checkpoints.open import convert
from magnet_cli.errors import ModelError
from magnet_cli.hub.store import BundleInfo
from support.command import Magnet, one_line_error
from support.golden import GOLDEN
from support.hostile import MUSICGEN_SETTINGS

# Of processor time for a model, and of memory beyond what a good one takes, most of which is PyTorch.
MOST_SECONDS, MOST_MEGABYTES = 2.0, 150

# Opens and builds each model in turn, and says how it ended, how long it took and what the most memory was by then.
PROBE = """
import json, sys, time
from pathlib import Path
import torch
from magnet_cli.errors import MagnetError
from magnet_cli.options.runtime import RuntimeConfig
from magnet_cli.pipeline.pipeline import Pipeline
torch.zeros(1)
for folder in sys.argv[1:]:
    started = time.process_time()
    try:
        Pipeline.load(folder, RuntimeConfig("cpu", "float32"))
        ended = "built"
    except MagnetError as error:
        ended = f"{error.exit_code} {error.message}"
    except Exception as error:
        ended = f"{type(error).__name__}: {error}"
    status = Path("/proc/self/status").read_text()  # what getrusage says begins with the memory of whoever started this
    most = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1000
    print(json.dumps([ended, time.process_time() - started, most]), flush=True)
"""

MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 10)
)
ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 11)
)
ALIASES += "lm_model: *a10\n"  # whoever says what is wrong with it writes 3 GB

Spoil = Callable[[Path], object]


def released(**changes: Any) -> Spoil:
    """Other values in the training configuration of the decoder; `__` stands for a dot."""

    def spoil(folder: Path) -> None:
        def change(text: str) -> str:
            tree = yaml.safe_load(text)
            for key, value in changes.items():
                node = tree
                *parents, last = key.split("__")
                for part in parents:
                    node = node[part]
                node[last] = value
            return yaml.safe_dump(tree)

        package = torch.load(folder / "state_dict.bin")
        torch.save({**package, "xp.cfg": change(package["xp.cfg"])}, folder / "state_dict.bin")

    return spoil


def with_text(text: str) -> Spoil:
    """This for a training configuration."""

    def spoil(folder: Path) -> None:
        package = torch.load(folder / "state_dict.bin")
        torch.save({**package, "xp.cfg": text}, folder / "state_dict.bin")

    return spoil


def with_weight(make: Callable[[], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        package = torch.load(folder / "state_dict.bin")
        package["best_state"]["transformer.layers.0.linear1.weight"] = make()
        torch.save(package, folder / "state_dict.bin")

    return spoil


class Block:
    """What a pickle makes into 8 GB, and torch allows."""

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return bytearray, (2**33,)


def zeros_in_archive(folder: Path) -> None:
    target = BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 28))  # the more, the longer this takes to write
    (folder / "state_dict.bin").write_bytes(target.getvalue())


def text_encoder(**changes: Any) -> Spoil:
    return lambda folder: edit(folder / "t5-base" / "config.json", lambda content: content.update(changes))


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Spoil:
    return lambda folder: edit(folder / "t5-base" / "tokenizer.json", change)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def pipe(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return spoil


A_STEP = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}

RELEASED: dict[str, Spoil] = {
    "merges": with_text(MERGES),
    "aliases": with_text(ALIASES),
    "merges of merges": with_text("<<: " * 5000 + "{a: 1}"),
    "nested configuration": with_text("[" * 3000),
    "long configuration": with_text("- [a, {b: c}]\n" * 1_000_000),
    "odd truth": with_text("a: !!bool x"),
    "odd number": with_text("a: !!int ''"),
    "layers": released(transformer_lm__num_layers=1_000_000),
    "thousand layers": released(transformer_lm__num_layers=1000),
    "width": released(transformer_lm__dim=2**40),
    "codebooks": released(transformer_lm__n_q=1_000_000),
    "codes": released(transformer_lm__card=2**60),
    "hidden": released(transformer_lm__hidden_scale=1e308),
    "seconds": released(dataset__segment_duration=1e6),
    "span": released(masking__span_len=2**62),
    "sparse": with_weight(lambda: torch.eye(4).to_sparse()),
    "quantized": with_weight(lambda: torch.quantize_per_tensor(torch.ones(4, 4), 0.1, 0, torch.qint8)),
    "meta": with_weight(lambda: torch.zeros(2**20, 2**20, device="meta")),
    "repeated": with_weight(lambda: torch.zeros(1).expand(2**20, 2**20)),
    "block of memory": with_weight(Block),
    "zeros": zeros_in_archive,
    "text layers": text_encoder(num_layers=1_000_000),
    "text width": text_encoder(d_model=2**60),
    "text buckets": text_encoder(relative_attention_num_buckets=2),
    "text encoder nested": lambda folder: (folder / "t5-base" / "config.json").write_text('{"a":' * 50_000),
    "tokenizer grows": tokenizer(
        lambda content: content.update(normalizer={"type": "Sequence", "normalizers": [A_STEP] * 40})
    ),
    "tokenizer table": tokenizer(lambda content: content["normalizer"].update(precompiled_charsmap="AAAA")),
    "tokenizer ids": tokenizer(lambda content: content["post_processor"]["special_tokens"]["</s>"].update(ids=[2**31])),
    "pickle is a pipe": pipe("state_dict.bin"),
    "tokenizer is a pipe": pipe("t5-base/tokenizer.json"),
}


def bundle(change: Callable[[dict[str, Any]], object]) -> Spoil:
    return lambda folder: edit(folder / "config.json", change)


def bundle_text(old: str, new: str) -> Spoil:
    def spoil(folder: Path) -> None:
        text = (folder / "config.json").read_text(encoding="utf-8")
        assert old in text
        (folder / "config.json").write_text(text.replace(old, new, 1), encoding="utf-8")

    return spoil


BUNDLES: dict[str, Spoil] = {
    "nested": lambda folder: (folder / "config.json").write_text('{"format": "magnet-bundle", "a": ' + "[" * 100_000),
    "nested a little": bundle(lambda config: config.update(more=json.loads("[" * 200 + "]" * 200))),
    "infinite": bundle_text('"clip_seconds": 2.0', '"clip_seconds": 1e999'),
    "no number": bundle_text('"clip_seconds": 2.0', '"clip_seconds": NaN'),
    "negative": bundle(lambda config: config["decoder"].update(layers=-2)),
    "layers": bundle(lambda config: config["decoder"].update(layers=1_000_000)),
    "heads": bundle(lambda config: config["decoder"].update(heads=7)),
    "seconds": bundle(lambda config: config["decoder"].update(clip_seconds=1e6)),
    "padding": bundle(lambda config: config["codec"].update(pad_mode="sideways")),
    "activation": bundle(lambda config: config["codec"].update(activation="Transformer", activation_params={})),
    "residual": bundle(lambda config: config["codec"].update(n_residual_layers=10**6)),
    "recurrent": bundle(lambda config: config["codec"].update(lstm=10**6)),
    "ratios": bundle(lambda config: config["codec"].update(ratios=[2] * 10**5)),
    "trim": bundle(lambda config: config["codec"].update(trim_right_ratio=0.5)),
    "file elsewhere": bundle(lambda config: config["files"].update({"../../x": {"size": 0, "sha256": ""}})),
    "long name of a file": bundle(lambda config: config["files"].update({"x" * 5000: {"size": 0, "sha256": ""}})),
    "size": bundle(lambda config: config["files"]["codec.safetensors"].update(size=-1)),
    "no source": bundle(lambda config: config.pop("source")),
    "no licence": bundle(lambda config: config.pop("licence")),
    "large": bundle(lambda config: config.update(more="x" * 20_000_000)),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "bundle"
    convert(str(GOLDEN / "music"), folder, dtype=None)
    return folder


@pytest.mark.filterwarnings("ignore")  # of torch, about quantized tensors
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
@pytest.mark.parametrize(("kind", "spoilers"), [("released", RELEASED), ("bundle", BUNDLES)])
def test_hostile_models_are_refused_at_once(good: Path, tmp_path: Path, kind: str, spoilers: dict[str, Spoil]) -> None:
    source = good if kind == "bundle" else GOLDEN / "music"
    folders = [shutil.copytree(source, tmp_path / "as it should be")]
    for name, spoil in spoilers.items():
        spoil(shutil.copytree(source, tmp_path / name))
        folders.append(tmp_path / name)
    arguments = [sys.executable, "-c", PROBE, *map(str, folders)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=200, check=False)
    results = dict(zip(["as it should be", *spoilers], map(json.loads, done.stdout.splitlines()), strict=False))
    assert len(results) == len(folders), (list(results), done.stderr[-2000:])
    ended, _, ordinary = results.pop("as it should be")
    assert ended == "built"
    assert {name: ended for name, (ended, _, _) in results.items() if not ended.startswith("3 ")} == {}
    assert {name: seconds for name, (_, seconds, _) in results.items() if seconds > MOST_SECONDS} == {}
    assert max(most for _, _, most in results.values()) < ordinary + MOST_MEGABYTES


def test_a_musicgen_is_not_built_larger_than_its_file(tmp_path: Path) -> None:
    settings = {**MUSICGEN_SETTINGS, "decoder": {**MUSICGEN_SETTINGS["decoder"], "num_hidden_layers": 1_000_000}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="num_hidden_layers is 1000000"):
        read_musicgen(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in the file system")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", ["generate", "show", "list"])
def test_a_pipe_for_a_configuration_holds_nothing_up(magnet: Magnet, good: Path, tmp_path: Path, command: str) -> None:
    store = tmp_path / "store"
    shutil.copytree(good, store / "mine")
    pipe("config.json")(store / "mine")
    if command == "generate":
        one_line_error(magnet("generate", "x", "-o", "x.wav", "--model", str(store / "mine"), "--offline"), 3)
    elif command == "show":
        one_line_error(magnet("models", "show", "mine", "--model-dir", str(store)), 2, "mine")
    else:
        assert magnet("models", "list", "--model-dir", str(store)).code == 0


@pytest.mark.parametrize("key", [*BundleInfo.read(Path(__file__).parents[2] / "src/magnet_cli/bundled").config])
def test_a_bundle_that_lacks_a_key_does_not_break_the_list(
    magnet: Magnet, good: Path, tmp_path: Path, key: str
) -> None:
    store = tmp_path / "store"
    for name in ("good", "magnet-small-10secs", "mine"):
        shutil.copytree(good, store / name)
        if name != "good":
            edit(store / name / "config.json", lambda config: config.pop(key))
    result = magnet("models", "list", "--json", "--model-dir", str(store))
    assert result.code == 0, result.err
    here = {record["name"]: record["here"] for record in result.records}
    assert here["good"] is True
    if key == "format":  # then it is no bundle at all
        assert "mine" not in here
    elif key == "sampling":  # which bundles need not have
        assert here["mine"] is True
    else:
        assert here["magnet-small-10secs"] is False
        assert f"it lacks {key}" in result.err
        one_line_error(magnet("models", "show", "mine", "--model-dir", str(store)), 3, "damaged")
