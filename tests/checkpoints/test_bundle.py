"""Bundles: what is converted decodes as the original did, loads by mapping, and is never half there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import EncodecConfig, EncodecModel

from magnet_cli import Pipeline, PlacesConfig, RuntimeConfig, SamplingConfig
from magnet_cli.checkpoints.bundle import read_bundle, write_bundle
from magnet_cli.checkpoints.open import convert, open_model
from magnet_cli.errors import ModelError, OutputError, UsageError
from magnet_cli.hub.store import BundleInfo, Store, is_bundle
from support.golden import GOLDEN

QUICK = SamplingConfig(steps=(3, 2, 2, 2))
CPU = RuntimeConfig(device="cpu")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def bundle(store: Store) -> Path:
    convert(str(GOLDEN / "music"), store.folder("music"), dtype=None)
    return store.folder("music")


def change_config(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


# -- the same model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["music", "sound"])
@pytest.mark.parametrize("greedy", [True, False])
def test_a_bundle_decodes_as_the_original(kind: str, greedy: bool, store: Store) -> None:
    convert(str(GOLDEN / kind), store.folder(kind), dtype=None)
    sampling = SamplingConfig(steps=(5, 3, 3, 3), greedy=greedy)
    clips = [
        next(Pipeline.load(str(folder), CPU).generate("disco beat", seed=3, sampling=sampling))
        for folder in (GOLDEN / kind, store.folder(kind))
    ]
    assert np.array_equal(clips[0].codes, clips[1].codes)
    assert np.array_equal(clips[0].waveform, clips[1].waveform)


def test_a_bundle_of_a_model_that_points_to_its_codec_holds_the_codec(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "pointing"
    shutil.copytree(GOLDEN / "music", folder)
    torch.save({"pretrained": "facebook/encodec_32khz", "exported": True}, folder / "compression_state_dict.bin")
    torch.manual_seed(0)
    reference = EncodecModel(
        EncodecConfig(
            target_bandwidths=[1.2],  # 4 codebooks of 6 bits at 50 frames a second
            sampling_rate=32_000,
            upsampling_ratios=[8, 5, 4, 4],
            num_filters=4,
            hidden_size=16,
            codebook_dim=16,
            codebook_size=64,
            normalize=False,
            use_causal_conv=False,
            pad_mode="constant",
            use_conv_shortcut=False,
        )
    ).eval()
    for layer in reference.quantizer.layers:
        layer.codebook.embed.normal_()
    reference.save_pretrained(folder / "encodec_32khz")
    convert(str(folder), store.folder("pointing"), dtype=None)

    codes = torch.randint(0, 64, (1, 4, 50))
    with torch.no_grad():
        wanted = reference.decode([codes], [None]).audio_values
    found = Pipeline.load(str(store.folder("pointing")), CPU).codec.decode(codes)
    # Folding weight normalization changes the order of a few float32 products.
    assert torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_decoder_can_be_stored_in_another_precision(dtype: torch.dtype, store: Store) -> None:
    convert(str(GOLDEN / "music"), store.folder("other"), dtype=dtype)
    decoder = load_file(store.folder("other") / "decoder.safetensors")
    assert {weight.dtype for weight in decoder.values()} == {dtype}
    if dtype == torch.float32:
        original = open_model(str(GOLDEN / "music")).decoder.weights
        assert all(torch.equal(decoder[name], weight.float()) for name, weight in original.items())


def test_a_bundle_can_be_moved_and_converted_again(bundle: Path, store: Store, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    bundle.rename(moved)
    convert(str(moved), tmp_path / "again", dtype=None)
    assert BundleInfo.read(tmp_path / "again").files == BundleInfo.read(moved).files


def test_nothing_but_what_is_needed_is_in_a_bundle(bundle: Path) -> None:
    files = sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())
    assert files == [
        "codec.safetensors",
        "config.json",
        "decoder.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "text_encoder/tokenizer.json",
    ]
    names = load_file(bundle / "text_encoder/model.safetensors").keys()
    assert not [name for name in names if name.startswith(("decoder.", "lm_head"))]
    assert not [name for name in load_file(bundle / "codec.safetensors") if name.endswith(("weight_g", "weight_v"))]


# -- whole or not at all ----------------------------------------------------------------------------------------------


def test_an_existing_folder_is_not_overwritten(bundle: Path, store: Store) -> None:
    with pytest.raises(OutputError, match="already exists"):
        convert(str(GOLDEN / "sound"), bundle, dtype=None)
    assert open_model(str(bundle)).decoder.task == "music"
    convert(str(GOLDEN / "sound"), bundle, dtype=None, overwrite=True)
    assert open_model(str(bundle)).decoder.task == "sound"


def test_a_failed_conversion_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    model = open_model(str(GOLDEN / "music"))
    broken = tmp_path / "text"
    shutil.copytree(model.text_folder, broken)
    (broken / "tokenizer.json").unlink()
    damaged = type(model)(model.origin, model.decoder, model.codec, broken)
    with pytest.raises(OutputError):
        write_bundle(damaged, store.folder("music"))
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize("file", ["decoder.safetensors", "codec.safetensors", "text_encoder/model.safetensors"])
def test_a_missing_or_cut_file_is_named(bundle: Path, file: str) -> None:
    content = (bundle / file).read_bytes()
    for damaged in (None, content[:-1]):
        (bundle / file).unlink(missing_ok=True)
        if damaged is not None:
            (bundle / file).write_bytes(damaged)
        with pytest.raises(ModelError, match=file):
            read_bundle(bundle)
        assert any(file in problem for problem in BundleInfo.read(bundle).problems())


def test_a_changed_byte_is_found(bundle: Path) -> None:
    assert BundleInfo.read(bundle).problems() == []
    path = bundle / "codec.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert BundleInfo.read(bundle).problems() == ["codec.safetensors has changed since it was written"]


def test_a_tensor_that_does_not_fit_is_named(bundle: Path) -> None:
    weights = load_file(bundle / "decoder.safetensors")
    weights["out_norm.weight"] = torch.zeros(3)
    save_file(weights, bundle / "decoder.safetensors")
    size = (bundle / "decoder.safetensors").stat().st_size
    change_config(bundle, lambda config: config["files"]["decoder.safetensors"].update(size=size))
    with pytest.raises(ModelError, match=r"out_norm\.weight has shape \[3\]"):
        Pipeline.load(str(bundle), CPU)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(version=2),
        lambda config: config.update(task="speech"),
        lambda config: config.pop("decoder"),
        lambda config: config["decoder"].pop("width"),
        lambda config: config["decoder"].update(width="wide"),
        lambda config: config["decoder"].update(width=True),
        lambda config: config["decoder"].update(surprise=1),
        lambda config: config["codec"].update(ratios=8),
        lambda config: config.update(files=[]),
        lambda config: config.pop("name"),
    ],
)
def test_a_damaged_configuration_is_an_error(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    change_config(bundle, change)
    with pytest.raises(ModelError):
        read_bundle(bundle)


def test_text_that_is_no_json_is_an_error(bundle: Path) -> None:
    (bundle / "config.json").write_text('{"format": "magnet-bundle", ')
    assert is_bundle(bundle)
    with pytest.raises(ModelError, match="damaged"):
        read_bundle(bundle)


# -- the store --------------------------------------------------------------------------------------------------------


def test_a_bundle_in_the_store_goes_by_short_name_and_hub_id(store: Store) -> None:
    convert(str(GOLDEN / "music"), store.folder("magnet-small-10secs"), dtype=None)
    for name in ("magnet-small-10secs", "facebook/magnet-small-10secs"):
        assert open_model(name, PlacesConfig(model_dir=store.root)).decoder.path.parent == store.folder(
            "magnet-small-10secs"
        )


@pytest.mark.parametrize("name", ["", "..", "../x", ".hidden", "a b", "a\\b", "x;y"])
def test_names_never_leave_the_store(store: Store, name: str) -> None:
    if name == "../x":
        assert store.folder("a/x").parent == store.root
    with pytest.raises(UsageError):
        store.folder(name)


def test_removing_deletes_a_bundle_and_nothing_else(store: Store, bundle: Path) -> None:
    convert(str(GOLDEN / "sound"), store.folder("sound"), dtype=None)
    assert store.remove("music") > 0
    assert [info.folder.name for info in store.bundles()] == ["sound"]
    assert [path.name for path in store.root.iterdir()] == ["sound"]
    with pytest.raises(UsageError, match="not in"):
        store.remove("music")


# -- speed and memory -------------------------------------------------------------------------------------------------

PROBE = """
import json, sys, time
from pathlib import Path
import torch
from magnet_cli.checkpoints.bundle import read_bundle
from magnet_cli.checkpoints.parts import build_decoder
from magnet_cli.model.decoder import MaskedTransformer

def anonymous():
    return 1024 * next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon"))

golden, bundle, package = map(Path, sys.argv[1:])
build_decoder(read_bundle(golden).decoder, torch.device("cpu"), torch.float16)  # what the first load of all imports
before, started = anonymous(), time.perf_counter()
decoder = build_decoder(read_bundle(bundle).decoder, torch.device("cpu"), torch.float16)
seconds, grown = time.perf_counter() - started, anonymous() - before
size = sum(p.numel() * p.element_size() for p in decoder.parameters())
config = decoder.config
started = time.perf_counter()
state = torch.load(package, weights_only=True)
ordinary = MaskedTransformer(config).half()
ordinary.load_state_dict(state)
print(json.dumps({"bundle": seconds, "ordinary": time.perf_counter() - started, "grown": grown, "size": size}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_a_bundle_loads_in_a_tenth_of_the_ordinary_time_and_stays_on_disk(
    store: Store, bundle: Path, tmp_path: Path
) -> None:
    # A quarter of the small shape, so that it is quick; both times are proportional to the weights.
    model = open_model(str(bundle))
    config = type(model.decoder.config)(
        **{**vars(model.decoder.config), "width": 1024, "heads": 16, "layers": 6, "feed_forward": 4096, "codes": 64}
    )
    from magnet_cli.model.decoder import MaskedTransformer

    weights = {name: one.half() for name, one in MaskedTransformer(config).state_dict().items()}
    decoder = type(model.decoder)(model.decoder.path, config, model.decoder.text, model.decoder.task, weights)
    write_bundle(type(model)(model.origin, decoder, model.codec, model.text_folder), tmp_path / "large")
    torch.save(weights, tmp_path / "large.bin")
    arguments = [sys.executable, "-c", PROBE, str(bundle), str(tmp_path / "large"), str(tmp_path / "large.bin")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert figures["size"] > 150e6
    assert figures["bundle"] < figures["ordinary"] / 10
    assert figures["grown"] < 0.1 * figures["size"]
