"""Reading checkpoints: what is refused and how, and that nothing about a model's shape is written into the code.

The fixture's own files are read, changed and written back; models of other shapes get random weights under the names
of the released format.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from encodec.modules import SEANetDecoder, SEANetEncoder
from encodec.quantization import ResidualVectorQuantizer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from transformers import EncodecConfig, EncodecModel

from magnet_cli.checkpoints.hugging_face_codec import read_hugging_face_codec
from magnet_cli.checkpoints.parts import CodecCheckpoint, CodecPointer, build_codec, build_decoder
from magnet_cli.checkpoints.released import CODEC_FILE, DECODER_FILE, read_codec, read_decoder
from magnet_cli.decoding.masked import decode
from magnet_cli.errors import ModelError
from magnet_cli.hub.registry import MODELS, ModelSpec
from magnet_cli.model.codec import Codec
from magnet_cli.model.decoder import MaskedTransformer
from magnet_cli.options.runtime import RuntimeConfig
from magnet_cli.options.sampling import SamplingConfig
from magnet_cli.pipeline.pipeline import Pipeline
from support.golden import CPU, GOLDEN

# Two float32 convolution stacks whose weights differ by rounding (folded before or inside the forward pass).
CODEC_TOLERANCE = 1e-5

POINTER = {"pretrained": "facebook/encodec_32khz", "exported": True, "version": "1.3.0"}


# -- helpers ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the golden music model to be spoilt: its two checkpoint files."""
    for name in (DECODER_FILE, CODEC_FILE):
        shutil.copy(GOLDEN / "music" / name, tmp_path / name)
    return tmp_path


def load_decoder(folder: Path) -> MaskedTransformer:
    return build_decoder(read_decoder(folder), CPU, torch.float32)


def load_codec(folder: Path) -> Codec:
    checkpoint = read_codec(folder)
    assert isinstance(checkpoint, CodecCheckpoint)
    return build_codec(checkpoint, CPU)


LOADERS: dict[str, Callable[[Path], nn.Module]] = {DECODER_FILE: load_decoder, CODEC_FILE: load_codec}
BOTH = pytest.mark.parametrize("file", [DECODER_FILE, CODEC_FILE])


def unpack(path: Path) -> dict[str, Any]:
    package: dict[str, Any] = torch.load(path, weights_only=True)
    return package


def configure(path: Path, **changes: Any) -> None:
    """Change values of the configuration in a checkpoint; keys are dotted, with __ for the dots."""
    package = unpack(path)
    package["xp.cfg"] = configured(package["xp.cfg"], {key.replace("__", "."): v for key, v in changes.items()})
    torch.save(package, path)


def configured(text: str, changes: dict[str, Any]) -> str:
    """A YAML configuration with the values at some dotted keys replaced."""
    tree = yaml.safe_load(text)
    for key, value in changes.items():
        node = tree
        *parents, last = key.split(".")
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return str(yaml.safe_dump(tree))


def change_weights(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    package = unpack(path)
    change(package["best_state"])
    torch.save(package, path)


Make = Callable[..., Tensor]


def released_decoder(config: dict[str, Any], text_width: int, make: Make) -> dict[str, Tensor]:
    """A decoder's tensors, named as in the released files and made by `make(*shape)`."""
    width, codes = config["dim"], config["card"]
    hidden = int(config["hidden_scale"] * width)
    state = {
        "condition_provider.conditioners.description.output_proj.weight": make(width, text_width),
        "condition_provider.conditioners.description.output_proj.bias": make(width),
        "out_norm.weight": make(width),
        "out_norm.bias": make(width),
    }
    for k in range(config["n_q"]):
        state[f"emb.{k}.weight"] = make(codes + 1, width)
        state[f"linears.{k}.weight"] = make(codes, width)
    for i in range(config["num_layers"]):
        layer = f"transformer.layers.{i}"
        for attention in ("self_attn", "cross_attention"):
            state[f"{layer}.{attention}.in_proj_weight"] = make(3 * width, width)
            state[f"{layer}.{attention}.out_proj.weight"] = make(width, width)
        state[f"{layer}.linear1.weight"] = make(hidden, width)
        state[f"{layer}.linear2.weight"] = make(width, hidden)
        for norm in ("norm1", "norm_cross", "norm2"):
            state[f"{layer}.{norm}.weight"] = make(width)
            state[f"{layer}.{norm}.bias"] = make(width)
    return state


class WeightNormCodec(nn.Module):
    """EnCodec as the reference builds it, with weight normalization inside: its tensors have the released names."""

    def __init__(self, seanet: dict[str, Any], rvq: dict[str, Any], channels: int) -> None:
        super().__init__()
        decoder_only = seanet["decoder"]
        shared = {
            key: value
            for key, value in seanet.items()
            if key not in ("decoder", "encoder", "disable_norm_outer_blocks", "channels", "causal")
        }
        shared.update(channels=channels, causal=False)
        self.encoder = SEANetEncoder(**shared)
        self.decoder = SEANetDecoder(**shared, trim_right_ratio=decoder_only["trim_right_ratio"])
        self.quantizer = ResidualVectorQuantizer(seanet["dimension"], n_q=rvq["n_q"], bins=rvq["bins"])


def write_decoder(folder: Path, changes: dict[str, Any], text_width: int = 24, seed: int = 0) -> dict[str, Tensor]:
    """Write state_dict.bin with random weights; returns them."""
    package = unpack(GOLDEN / "music" / DECODER_FILE)
    package["xp.cfg"] = configured(package["xp.cfg"], changes)
    generator = torch.Generator().manual_seed(seed)
    config = yaml.safe_load(package["xp.cfg"])["transformer_lm"]
    package["best_state"] = released_decoder(
        config, text_width, lambda *shape: 0.3 * torch.randn(shape, generator=generator)
    )
    torch.save(package, folder / DECODER_FILE)
    state: dict[str, Tensor] = package["best_state"]
    return state


def write_codec(folder: Path, changes: dict[str, Any], seed: int = 0) -> WeightNormCodec:
    """Write compression_state_dict.bin with random weights; returns the same network with its weight normalization."""
    package = unpack(GOLDEN / "music" / CODEC_FILE)
    package["xp.cfg"] = configured(package["xp.cfg"], changes)
    config = yaml.safe_load(package["xp.cfg"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = WeightNormCodec(config["seanet"], config["rvq"], config["channels"]).eval().requires_grad_(False)
        for layer in codec.quantizer.vq.layers:
            layer._codebook.embed.normal_(std=0.1)
            layer._codebook.inited.fill_(1)
    package["best_state"] = codec.state_dict()
    torch.save(package, folder / CODEC_FILE)
    return codec


class Payload:
    """What an attacker puts into a pickle: unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.marker}'",)


def write_plain_pickle(package: dict[str, Any], path: Path) -> None:
    path.write_bytes(pickle.dumps(package, protocol=2))


def write_new_pickle(package: dict[str, Any], path: Path) -> None:
    path.write_bytes(pickle.dumps(package, protocol=4))


def write_zip(package: dict[str, Any], path: Path) -> None:
    torch.save(package, path)


def write_legacy(package: dict[str, Any], path: Path) -> None:
    torch.save(package, path, _use_new_zipfile_serialization=False)


# -- files that are no checkpoints ------------------------------------------------------------------------------------


@BOTH
def test_missing_folder_is_an_error(tmp_path: Path, file: str) -> None:
    with pytest.raises(ModelError, match=f"nowhere has no {file}"):
        LOADERS[file](tmp_path / "nowhere")


@BOTH
def test_missing_file_is_an_error_that_names_it(model: Path, file: str) -> None:
    (model / file).unlink()
    with pytest.raises(ModelError, match=f"has no {file}"):
        LOADERS[file](model)


@BOTH
@pytest.mark.parametrize(
    "content", [b"", b"\0", b"hello world\n" * 100, b"<!DOCTYPE html>", b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_other_files_are_refused(model: Path, file: str, content: bytes) -> None:
    (model / file).write_bytes(content)
    with pytest.raises(ModelError, match=file):
        LOADERS[file](model)


@BOTH
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_truncated_files_are_refused(model: Path, file: str, write: Callable[[dict[str, Any], Path], None]) -> None:
    path = model / file
    write(unpack(path), path)
    whole = path.read_bytes()
    # The ends of the header, of the pickle and of the last tensor fall between these.
    cuts = [1, 2, 3, 10, 100, *range(500, 40_000, 1_970), len(whole) // 2, len(whole) - 60, len(whole) - 1]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelError, match=file):
            LOADERS[file](model)


def test_legacy_files_load(model: Path) -> None:
    wanted = load_decoder(model).state_dict()
    write_legacy(unpack(model / DECODER_FILE), model / DECODER_FILE)
    found = load_decoder(model).state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


# -- code in a pickle -------------------------------------------------------------------------------------------------


def test_the_payload_of_these_tests_is_live(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@BOTH
@pytest.mark.parametrize("write", [write_plain_pickle, write_new_pickle, write_zip, write_legacy])
@pytest.mark.parametrize("place", ["package", "best_state"])
def test_code_in_a_checkpoint_is_refused_and_not_run(
    model: Path, file: str, write: Callable[[dict[str, Any], Path], None], place: str
) -> None:
    marker = model / "marker"
    package = unpack(model / file)
    if write in (write_plain_pickle, write_new_pickle):
        package["best_state"] = {}  # tensors in a plain pickle would be refused before the payload is reached
    (package if place == "package" else package["best_state"])["payload"] = Payload(marker)
    write(package, model / file)
    with pytest.raises(ModelError) as caught:
        LOADERS[file](model)
    assert not marker.exists()
    assert "run code" in caught.value.message
    # torch's own message advises to load the file without protection; a user must never read that.
    assert "weights_only" not in str(caught.value)


@BOTH
def test_unknown_objects_are_refused(model: Path, file: str) -> None:
    package = unpack(model / file)
    package["path"] = Path("x")
    torch.save(package, model / file)
    with pytest.raises(ModelError) as caught:
        LOADERS[file](model)
    assert "weights_only" not in str(caught.value)


# -- tensors that do not fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("released", "ours"),
    [
        ("linears.2.weight", "output_heads.2.weight"),
        ("emb.0.weight", "embeddings.0.weight"),
        ("transformer.layers.1.self_attn.in_proj_weight", "layers.1.self_attention.qkv.weight"),
        ("transformer.layers.0.cross_attention.in_proj_weight", "layers.0.cross_attention.key_value.weight"),
        ("transformer.layers.1.norm_cross.bias", "layers.1.cross_norm.bias"),
        ("condition_provider.conditioners.description.output_proj.bias", "text_projection.bias"),
    ],
)
def test_a_missing_decoder_tensor_is_named(model: Path, released: str, ours: str) -> None:
    change_weights(model / DECODER_FILE, lambda state: state.pop(released))
    with pytest.raises(ModelError, match=f"{ours} is missing"):
        load_decoder(model)


def test_a_decoder_without_text_projection_is_refused(model: Path) -> None:
    name = "condition_provider.conditioners.description.output_proj.weight"
    change_weights(model / DECODER_FILE, lambda state: state.pop(name))
    with pytest.raises(ModelError, match="no text projection"):
        load_decoder(model)


def test_an_extra_decoder_tensor_is_named(model: Path) -> None:
    name = "transformer.layers.0.self_attn.in_proj_bias"
    change_weights(model / DECODER_FILE, lambda state: state.update({name: torch.zeros(96)}))
    with pytest.raises(ModelError, match=r"layers\.0\.self_attn\.in_proj_bias is not expected"):
        load_decoder(model)


@pytest.mark.parametrize("shape", [(31,), (32, 1), ()])
def test_a_mis_shaped_decoder_tensor_is_named(model: Path, shape: tuple[int, ...]) -> None:
    change_weights(model / DECODER_FILE, lambda state: state.update({"out_norm.bias": torch.zeros(shape)}))
    with pytest.raises(ModelError, match=r"out_norm\.bias has shape"):
        load_decoder(model)


@pytest.mark.parametrize("shape", [(97, 32), (96, 31), (3,), ()])
def test_a_mis_shaped_stacked_projection_is_named(model: Path, shape: tuple[int, ...]) -> None:
    name = "transformer.layers.0.cross_attention.in_proj_weight"
    change_weights(model / DECODER_FILE, lambda state: state.update({name: torch.zeros(shape)}))
    with pytest.raises(ModelError, match=r"layers\.0\.cross_attention"):
        load_decoder(model)


ENCODER_BIAS = "encoder.model.0.conv.conv.bias"
ENCODER_LENGTH = "encoder.model.0.conv.conv.weight_g"
ENCODER_DIRECTION = "encoder.model.0.conv.conv.weight_v"


@pytest.mark.parametrize(
    "name", [ENCODER_BIAS, ENCODER_LENGTH, ENCODER_DIRECTION, "quantizer.vq.layers.1._codebook.embed"]
)
def test_a_missing_codec_tensor_is_named(model: Path, name: str) -> None:
    change_weights(model / CODEC_FILE, lambda state: state.pop(name))
    folded = name.removesuffix("_g").removesuffix("_v")
    with pytest.raises(ModelError, match=f"{folded} is missing"):
        load_codec(model)


def test_an_extra_codec_tensor_is_named(model: Path) -> None:
    change_weights(model / CODEC_FILE, lambda state: state.update({"decoder.model.99.bias": torch.zeros(1)}))
    with pytest.raises(ModelError, match=r"decoder\.model\.99\.bias is not expected"):
        load_codec(model)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (ENCODER_BIAS, (3,)),
        (ENCODER_DIRECTION, (2, 1, 9)),
        (ENCODER_DIRECTION, ()),
        (ENCODER_LENGTH, (3, 1, 1)),
        (ENCODER_LENGTH, ()),
        ("quantizer.vq.layers.0._codebook.embed", (64, 15)),
    ],
)
def test_a_mis_shaped_codec_tensor_is_named(model: Path, name: str, shape: tuple[int, ...]) -> None:
    change_weights(model / CODEC_FILE, lambda state: state.update({name: torch.ones(shape)}))
    with pytest.raises(ModelError, match=name.removesuffix("_g").removesuffix("_v")):
        load_codec(model)


def test_many_problems_are_counted(model: Path) -> None:
    change_weights(model / CODEC_FILE, lambda state: state.clear())
    with pytest.raises(ModelError, match=r"and \d+ more problems"):
        load_codec(model)


# -- packages of the wrong kind ---------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("package", [[1, 2], 7, "text", torch.zeros(2)])
def test_a_file_that_holds_no_dictionary_is_refused(model: Path, file: str, package: object) -> None:
    torch.save(package, model / file)
    with pytest.raises(ModelError, match="not a checkpoint"):
        LOADERS[file](model)


@BOTH
@pytest.mark.parametrize("state", [None, [torch.zeros(1)], {"emb.0.weight": "text"}, 5])
def test_weights_that_are_no_tensors_are_refused(model: Path, file: str, state: object) -> None:
    torch.save({**unpack(model / file), "best_state": state}, model / file)
    with pytest.raises(ModelError, match="best_state"):
        LOADERS[file](model)


@BOTH
def test_tensors_without_a_name_are_refused(model: Path, file: str) -> None:
    change_weights(model / file, lambda state: state.update({3: torch.zeros(1)}))  # type: ignore[dict-item]
    with pytest.raises(ModelError):
        LOADERS[file](model)


@BOTH
@pytest.mark.parametrize("key", ["best_state", "xp.cfg"])
def test_a_package_that_lacks_a_part_is_refused(model: Path, file: str, key: str) -> None:
    package = unpack(model / file)
    del package[key]
    torch.save(package, model / file)
    with pytest.raises(ModelError, match=key):
        LOADERS[file](model)


@BOTH
@pytest.mark.parametrize("text", ["{a: [", "\t- x: {", 5, None, {"dim": 1}, "- a\n- b", "just words", ""])
def test_a_configuration_that_is_no_yaml_mapping_is_refused(model: Path, file: str, text: object) -> None:
    torch.save({**unpack(model / file), "xp.cfg": text}, model / file)
    with pytest.raises(ModelError, match="configuration"):
        LOADERS[file](model)


def test_yaml_that_would_build_objects_is_refused(model: Path) -> None:
    marker = model / "marker"
    text = f"!!python/object/apply:os.system ['touch {marker}']"
    torch.save({**unpack(model / DECODER_FILE), "xp.cfg": text}, model / DECODER_FILE)
    with pytest.raises(ModelError, match="configuration"):
        load_decoder(model)
    assert not marker.exists()


# -- configurations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lm_model", "transformer_lm"),
        ("transformer_lm.causal", True),
        ("transformer_lm.bias_attn", True),
        ("transformer_lm.bias_ff", True),
        ("transformer_lm.bias_proj", True),
        ("transformer_lm.norm_first", False),
        ("transformer_lm.norm", "rms_norm"),
        ("transformer_lm.activation", "relu"),
        ("transformer_lm.positional_embedding", "rope"),
        ("transformer_lm.layer_scale", 0.1),
        ("transformer_lm.qk_layer_norm", True),
        ("transformer_lm.kv_repeat", 2),
        ("transformer_lm.past_context", 10),
        ("conditioners.description.t5.normalize_text", True),
        ("conditioners.description.model", "clap"),
        ("codebooks_pattern.modeling", "delay"),
        ("fuser.prepend", ["description"]),
        ("fuser.cross", []),
        ("interleave_stereo_codebooks.use", True),  # its codebooks would come out as those of a mono model
    ],
)
def test_an_unsupported_decoder_is_refused_by_key_and_value(model: Path, key: str, value: object) -> None:
    configure(model / DECODER_FILE, **{key: value})
    with pytest.raises(ModelError) as caught:
        load_decoder(model)
    assert f"{key} = {value!r}" in caught.value.message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("compression_model", "dac"),
        ("encodec.quantizer", "no_quant"),
        ("encodec.autoencoder", "dac"),
        ("encodec.renormalize", True),
        ("seanet.norm", "time_group_norm"),
        ("seanet.disable_norm_outer_blocks", 1),
    ],
)
def test_an_unsupported_codec_is_refused_by_key_and_value(model: Path, key: str, value: object) -> None:
    configure(model / CODEC_FILE, **{key: value})
    with pytest.raises(ModelError) as caught:
        load_codec(model)
    assert f"{key} = {value!r}" in caught.value.message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("transformer_lm.dim", "wide"),
        ("transformer_lm.dim", None),
        ("transformer_lm.dim", [32]),
        ("transformer_lm.dim", 33),
        ("transformer_lm.dim", 0),
        ("transformer_lm.dim", -32),
        ("transformer_lm.dim", float("inf")),
        ("transformer_lm.dim", float("nan")),
        ("transformer_lm.num_heads", 0),
        ("transformer_lm.num_heads", 3),
        ("transformer_lm.num_layers", 0),
        ("transformer_lm.card", -1),
        ("transformer_lm.n_q", 2.5),
        ("transformer_lm.hidden_scale", -4),
        ("masking.span_len", 0),
        ("dataset.segment_duration", -1),
        ("transformer_lm", "x"),
    ],
)
def test_an_impossible_decoder_shape_is_an_error(model: Path, key: str, value: object) -> None:
    configure(model / DECODER_FILE, **{key: value})
    with pytest.raises(ModelError):
        load_decoder(model)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sample_rate", "fast"),
        ("sample_rate", 0),
        ("seanet.ratios", 8),
        ("seanet.ratios", ["a"]),
        ("seanet.ratios", []),
        ("seanet.ratios", [8, 5, 4, 0]),
        ("seanet.activation", "Nope"),
        ("seanet.activation_params", 3),
        ("seanet.activation_params", {"nope": 1}),
        ("seanet.lstm", -1),
        ("seanet.compress", 0),
        ("seanet.n_filters", 0),
        ("seanet.kernel_size", -1),
        ("rvq.bins", 0),
    ],
)
def test_an_impossible_codec_shape_is_an_error(model: Path, key: str, value: object) -> None:
    configure(model / CODEC_FILE, **{key: value})
    with pytest.raises(ModelError):
        load_codec(model)


@pytest.mark.parametrize("key", ["transformer_lm.dim", "masking.span_len", "dataset.segment_duration"])
def test_a_value_that_is_not_there_is_named(model: Path, key: str) -> None:
    package = unpack(model / DECODER_FILE)
    tree = yaml.safe_load(package["xp.cfg"])
    section, name = key.split(".")
    del tree[section][name]
    torch.save({**package, "xp.cfg": yaml.safe_dump(tree)}, model / DECODER_FILE)
    with pytest.raises(ModelError, match=f"lacks {key}"):
        load_decoder(model)


def test_references_are_resolved(model: Path) -> None:
    configure(model / DECODER_FILE, clip=2, dataset__segment_duration="${clip}", transformer_lm__n_q="${four}", four=4)
    config = read_decoder(model).config
    assert (config.clip_seconds, config.codebooks) == (2.0, 4)


def test_nested_references_are_resolved(model: Path) -> None:
    configure(model / CODEC_FILE, a="${b.c}", b={"c": "${sample_rate}"}, encodec__sample_rate="${a}", sample_rate=8000)
    codec = load_codec(model)
    assert codec.config.sample_rate == 8000
    assert codec.config.causal is False  # seanet.causal is ${encodec.causal} in the fixture, as in released files


@pytest.mark.parametrize("file", [DECODER_FILE, CODEC_FILE])
def test_references_that_nobody_needs_do_no_harm(model: Path, file: str) -> None:
    configure(model / file, useless="${not.there}", other="${oc.env:NOT_SET}", loop="${loop}", dora__dir="${a}/${b}")
    assert LOADERS[file](model).state_dict()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${transformer_lm.dim}", "refers to itself"),
        ("${not.there}", "lacks not.there"),
        ("${oc.env:DIM}", "oc.env:DIM"),
    ],
)
def test_references_that_lead_nowhere_are_errors(model: Path, value: str, message: str) -> None:
    configure(model / DECODER_FILE, transformer_lm__dim=value)
    with pytest.raises(ModelError, match=message):
        load_decoder(model)


def test_references_in_a_circle_are_an_error(model: Path) -> None:
    configure(model / DECODER_FILE, transformer_lm__dim="${a}", a="${b}", b="${a}")
    with pytest.raises(ModelError, match="refers to itself"):
        load_decoder(model)


# -- nothing is hard-coded --------------------------------------------------------------------------------------------

SHAPES: dict[str, dict[str, Any]] = {
    "sizes": {
        "transformer_lm.dim": 48,
        "transformer_lm.num_heads": 6,
        "transformer_lm.num_layers": 3,
        "transformer_lm.hidden_scale": 2.5,
        "transformer_lm.card": 37,
    },
    "two codebooks": {"transformer_lm.n_q": 2},
    "six codebooks": {"transformer_lm.n_q": 6},
    "spans of one": {"masking.span_len": 1},
    "spans of five": {"masking.span_len": 5},
    "no context limit": {"transformer_lm.subcodes_context": -1},
    "context of two": {"transformer_lm.subcodes_context": 2},
    "3.5 seconds": {"dataset.segment_duration": 3.5},
    "positions": {"transformer_lm.max_period": 500, "transformer_lm.positional_scale": 0.5},
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("spans", ["nonoverlap", "stride1"])
def test_a_decoder_of_another_shape_builds_and_decodes(tmp_path: Path, name: str, spans: Any) -> None:
    changes = SHAPES[name]
    write_decoder(tmp_path, changes)
    model = load_decoder(tmp_path)
    config = model.config
    wanted = yaml.safe_load(unpack(tmp_path / DECODER_FILE)["xp.cfg"])
    lm = wanted["transformer_lm"]
    assert (config.width, config.heads, config.layers) == (lm["dim"], lm["num_heads"], lm["num_layers"])
    assert config.feed_forward == lm["hidden_scale"] * lm["dim"]
    assert (config.codebooks, config.codes, config.context) == (lm["n_q"], lm["card"], lm["subcodes_context"])
    assert config.span_length == wanted["masking"]["span_len"]
    assert config.clip_seconds == wanted["dataset"]["segment_duration"]
    assert (config.max_period, config.position_scale) == (lm.get("max_period", 1e4), lm.get("positional_scale", 1))

    frames = int(config.clip_seconds * 50)
    sampling = SamplingConfig(steps=(3,) * config.codebooks, spans=spans)
    text = torch.randn(1, 4, 24, generator=torch.Generator().manual_seed(1))
    codes = decode(model, model.text_memory(text, [4]), [0], sampling, frames=frames)
    whole = frames - frames % config.span_length if spans == "nonoverlap" else frames
    assert codes.shape == (1, config.codebooks, whole)
    assert codes.min() >= 0
    assert codes.max() < config.codes  # no mask token is left
    assert len(codes.unique()) > 8  # not stuck on a few codes


CODECS: dict[str, dict[str, Any]] = {
    "as released": {},
    "ratios": {"seanet.ratios": [5, 4, 2], "sample_rate": 8000},
    "stereo": {"channels": 2},
    "sizes": {"seanet.dimension": 12, "seanet.n_filters": 3, "seanet.n_residual_layers": 2, "seanet.compress": 1},
    "kernels": {"seanet.kernel_size": 5, "seanet.residual_kernel_size": 5, "seanet.last_kernel_size": 3},
    "no lstm": {"seanet.lstm": 0},
    "shortcuts": {"seanet.true_skip": False},
    "reflect": {"seanet.pad_mode": "reflect"},
    "quantizer": {"rvq.n_q": 6, "rvq.bins": 37},
    "dilation": {"seanet.n_residual_layers": 3, "seanet.dilation_base": 3},
    "activation": {"seanet.activation": "LeakyReLU", "seanet.activation_params": {"negative_slope": 0.3}},
}


@pytest.mark.parametrize("name", CODECS)
def test_a_codec_of_another_shape_equals_itself_with_weight_norm(tmp_path: Path, name: str) -> None:
    reference = write_codec(tmp_path, CODECS[name])
    codec = load_codec(tmp_path)
    config = codec.config
    waveform = torch.randn(2, config.channels, 10 * config.hop, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        latent = reference.encoder(waveform)
        assert (codec.encoder(waveform) - latent).abs().max() < CODEC_TOLERANCE
        codes = torch.randint(config.codes, (2, config.codebooks, 10), generator=torch.Generator().manual_seed(2))
        wanted = reference.decoder(reference.quantizer.vq.decode(codes.transpose(0, 1)))
    found = codec.decode(codes)
    assert found.shape == wanted.shape == (2, config.channels, 10 * config.hop)
    assert (found - wanted).abs().max() < CODEC_TOLERANCE


def test_the_task_follows_the_solver(tmp_path: Path) -> None:
    for solver, task in (("magnet", "music"), ("audio_magnet", "sound")):
        write_decoder(tmp_path, {"solver": solver})
        assert read_decoder(tmp_path).task == task


def test_the_text_encoder_is_the_one_that_is_named(tmp_path: Path) -> None:
    write_decoder(tmp_path, {"conditioners.description.t5.name": "google/flan-t5-base"}, text_width=40)
    checkpoint = read_decoder(tmp_path)
    assert (checkpoint.text.name, checkpoint.config.text_width) == ("google/flan-t5-base", 40)


# -- weights arrive where they belong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["self_attn", "cross_attention"])
def test_stacked_projections_are_split_as_torch_does(tmp_path: Path, attention: str) -> None:
    state = write_decoder(tmp_path, {})
    layer = load_decoder(tmp_path).layers[1]
    wanted = nn.MultiheadAttention(32, 2, bias=False, batch_first=True)
    name = f"transformer.layers.1.{attention}"
    wanted.load_state_dict(
        {"in_proj_weight": state[f"{name}.in_proj_weight"], "out_proj.weight": state[f"{name}.out_proj.weight"]}
    )
    generator = torch.Generator().manual_seed(1)
    x, text = torch.randn(2, 9, 32, generator=generator), torch.randn(2, 5, 32, generator=generator)
    with torch.inference_mode():
        if attention == "self_attn":
            found = layer.self_attention(x, None)
            reference = wanted(x, x, x, need_weights=False)[0]
        else:
            found = layer.cross_attention(x, *layer.cross_attention.keys_and_values(text), None)
            reference = wanted(x, text, text, need_weights=False)[0]
    # Sums of 32 float32 products of size 1, in another order.
    torch.testing.assert_close(found, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("prefix", "layer"), [("conv.conv", nn.Conv1d(5, 3, 4)), ("convtr.convtr", nn.ConvTranspose1d(5, 3, 4))]
)
def test_weight_norm_is_folded_as_torch_does(model: Path, prefix: str, layer: nn.Module) -> None:
    normed = weight_norm(layer)
    parametrization = normed.parametrizations.weight
    with torch.no_grad():  # lengths that differ from those of the directions
        parametrization.original0.uniform_(0.5, 2.0)
    name = f"decoder.model.9.{prefix}"
    state = {f"{name}.weight_g": parametrization.original0.data, f"{name}.weight_v": parametrization.original1.data}
    change_weights(model / CODEC_FILE, lambda weights: weights.update(state))
    checkpoint = read_codec(model)
    assert isinstance(checkpoint, CodecCheckpoint)
    assert torch.equal(checkpoint.weights[f"{name}.weight"], normed.weight.detach())
    assert f"{name}.weight_g" not in checkpoint.weights
    assert f"{name}.weight_v" not in checkpoint.weights


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_are_converted_to_the_wanted_dtype(model: Path, dtype: torch.dtype) -> None:
    decoder = build_decoder(read_decoder(model), CPU, dtype)
    stored = unpack(model / DECODER_FILE)["best_state"]
    assert {weight.dtype for weight in decoder.state_dict().values()} == {dtype}
    assert torch.equal(decoder.embeddings[0].weight, stored["emb.0.weight"].to(dtype))
    assert not any(weight.requires_grad for weight in decoder.parameters())
    assert not decoder.training


def test_the_codec_is_float32_whatever_is_stored(model: Path) -> None:
    change_weights(
        model / CODEC_FILE, lambda state: state.update({name: weight.half() for name, weight in state.items()})
    )
    assert {weight.dtype for weight in load_codec(model).state_dict().values()} == {torch.float32}


# -- a pointer to a codec in Hugging Face format ----------------------------------------------------------------------


def tiny_encodec(pad_mode: str = "constant", use_conv_shortcut: bool = False, seed: int = 0) -> EncodecModel:
    """EnCodec of transformers with random weights: 32 kHz, 4 codebooks of 64 codes, as the golden decoder wants."""
    config = EncodecConfig(
        sampling_rate=32_000,
        audio_channels=1,
        num_filters=4,
        hidden_size=16,
        codebook_size=64,
        upsampling_ratios=[8, 5, 4, 4],
        target_bandwidths=[1.2],  # 4 codebooks of 6 bits at 50 Hz
        use_causal_conv=False,
        normalize=False,
        pad_mode=pad_mode,
        use_conv_shortcut=use_conv_shortcut,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encodec = EncodecModel(config).eval()
        # Codes spread only if the codebooks have the scale of the latents.
        with torch.no_grad():
            scale = encodec.encoder(torch.randn(1, 1, 32_000)).std()
        for name, buffer in encodec.named_buffers():
            if name.endswith("codebook.embed"):
                buffer.normal_().mul_(scale)
    return encodec


def rename_to_old(folder: Path, file: str) -> None:
    """Give the tensors of a saved EnCodec the names they had before parametrizations."""
    state = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): weight
        for name, weight in load_file(folder / "model.safetensors").items()
    }
    assert any(name.endswith("weight_g") for name in state)
    if file == "model.safetensors":
        save_file(state, folder / file)
    else:
        (folder / "model.safetensors").unlink()
        torch.save(state, folder / file)


def check_equal(encodec: EncodecModel, codec: Codec) -> None:
    waveform = 0.5 * torch.randn(2, 1, 16_000, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = encodec.encode(waveform, bandwidth=1.2).audio_codes[0]
        audio = encodec.decode(wanted.unsqueeze(0), [None])[0]
    codes = codec.encode(waveform)
    assert len(codes.unique()) > 8  # a test on one code would show nothing
    assert torch.equal(codes, wanted)
    # The same operations on the same weights; machines may choose other kernels for a folded weight.
    assert (codec.decode(codes) - audio).abs().max() < CODEC_TOLERANCE


@pytest.mark.parametrize("pad_mode", ["constant", "reflect"])
@pytest.mark.parametrize("use_conv_shortcut", [True, False])
def test_a_hugging_face_codec_equals_transformers(tmp_path: Path, pad_mode: str, use_conv_shortcut: bool) -> None:
    encodec = tiny_encodec(pad_mode, use_conv_shortcut)
    encodec.save_pretrained(tmp_path)
    checkpoint = read_hugging_face_codec(tmp_path)
    assert (checkpoint.config.codebooks, checkpoint.config.frame_rate) == (4, 50)
    check_equal(encodec, build_codec(checkpoint, CPU))


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_old_names_of_weight_norm_are_read(tmp_path: Path, file: str) -> None:
    encodec = tiny_encodec()
    encodec.save_pretrained(tmp_path)
    rename_to_old(tmp_path, file)
    check_equal(encodec, build_codec(read_hugging_face_codec(tmp_path), CPU))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "dac"),
        ("normalize", True),
        ("norm_type", "time_group_norm"),
        ("sampling_rate", None),
        ("upsampling_ratios", 8),
        ("upsampling_ratios", [0]),
        ("target_bandwidths", []),
    ],
)
def test_a_codec_of_another_kind_is_refused(tmp_path: Path, key: str, value: object) -> None:
    tiny_encodec().save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, key: value}))
    with pytest.raises(ModelError, match=r"config\.json"):
        read_hugging_face_codec(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "7", ""])
def test_a_damaged_config_of_a_codec_is_refused(tmp_path: Path, content: str) -> None:
    tiny_encodec().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        read_hugging_face_codec(tmp_path)


def test_damaged_weights_of_a_hugging_face_codec_are_refused(tmp_path: Path) -> None:
    tiny_encodec().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for cut in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelError, match=r"model\.safetensors"):
            build_codec(read_hugging_face_codec(tmp_path), CPU)
    path.unlink()
    with pytest.raises(ModelError, match=r"pytorch_model\.bin"):
        read_hugging_face_codec(tmp_path)


def test_a_hugging_face_codec_loads_strictly(tmp_path: Path) -> None:
    tiny_encodec().save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = "decoder.layers.0.conv.bias"
    save_file({key: weight for key, weight in state.items() if key != name}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"decoder\.model\.0\.conv\.conv\.bias is missing"):
        build_codec(read_hugging_face_codec(tmp_path), CPU)


def test_a_pointer_names_its_codec(model: Path) -> None:
    torch.save(POINTER, model / CODEC_FILE)
    assert read_codec(model) == CodecPointer(model / CODEC_FILE, "facebook/encodec_32khz")


@pytest.mark.parametrize("folder", ["encodec_32khz", "codec"])
def test_a_pipeline_loads_a_model_with_a_pointer(model: Path, folder: str) -> None:
    torch.save(POINTER, model / CODEC_FILE)
    shutil.copytree(GOLDEN / "music" / "t5-base", model / "t5-base")
    encodec = tiny_encodec()
    encodec.save_pretrained(model / folder)
    pipeline = Pipeline.load(str(model), RuntimeConfig(device="cpu"))
    check_equal(encodec, pipeline.codec)
    (clip,) = pipeline.generate("a drum", seed=1, sampling=SamplingConfig(steps=(1, 1, 1, 1)))
    assert clip.codes.shape == (4, 99)  # 2 s at 50 Hz, whole spans of 3
    assert clip.waveform.shape == (1, 99 * 640)


def test_a_codec_that_does_not_fit_the_decoder_is_refused(model: Path) -> None:
    write_codec(model, {"rvq.bins": 32})
    shutil.copytree(GOLDEN / "music" / "t5-base", model / "t5-base")
    with pytest.raises(ModelError, match=r"4 codebooks of 64 codes.*reads 4 of 32"):
        Pipeline.load(str(model), RuntimeConfig(device="cpu"))


# -- the six released models ------------------------------------------------------------------------------------------

SIZES = {
    "small": {"dim": 1024, "num_heads": 16, "num_layers": 24},
    "medium": {"dim": 1536, "num_heads": 24, "num_layers": 48},
}
PARAMETERS = {"small": 419e6, "medium": 1.84e9}
TEXT_WIDTHS = {"t5-base": 768, "t5-large": 1024}


def hollow(*shape: int) -> Tensor:
    """A tensor of any shape that takes two bytes, in memory and on disk."""
    return torch.zeros(1, dtype=torch.float16).expand(shape)


def write_hollow_release(folder: Path, spec: ModelSpec, size: str) -> None:
    """The two files of a released model with its real configuration and shapes, but a single number for weights."""
    kind = "music" if spec.task == "music" else "sound"
    package = unpack(GOLDEN / kind / DECODER_FILE)
    lm = {**SIZES[size], "hidden_scale": 4, "n_q": 4, "card": 2048, "subcodes_context": 5}
    package["xp.cfg"] = configured(
        package["xp.cfg"],
        {
            **{f"transformer_lm.{key}": value for key, value in lm.items()},
            "dataset.segment_duration": spec.seconds,
            "conditioners.description.t5.name": spec.text_encoder,
        },
    )
    package["best_state"] = released_decoder(lm, TEXT_WIDTHS[spec.text_encoder], hollow)
    torch.save(package, folder / DECODER_FILE)

    package = unpack(GOLDEN / kind / CODEC_FILE)
    sizes = {"seanet.n_filters": 64, "seanet.dimension": 128, "rvq.bins": 2048}
    package["xp.cfg"] = configured(package["xp.cfg"], sizes)
    config = yaml.safe_load(package["xp.cfg"])
    with torch.device("meta"):
        codec = WeightNormCodec(config["seanet"], config["rvq"], config["channels"])
    package["best_state"] = {name: hollow(*weight.shape) for name, weight in codec.state_dict().items()}
    torch.save(package, folder / CODEC_FILE)


@pytest.mark.parametrize("name", MODELS)
def test_a_released_configuration_builds(tmp_path: Path, name: str) -> None:
    spec = MODELS[name]
    size = "medium" if "medium" in name else "small"
    write_hollow_release(tmp_path, spec, size)
    checkpoint = read_decoder(tmp_path)
    decoder = build_decoder(checkpoint, torch.device("meta"), torch.float16)  # strict, but takes no memory
    parameters = sum(parameter.numel() for parameter in decoder.parameters())
    assert parameters == pytest.approx(PARAMETERS[size], rel=0.01)  # facts.md gives three digits
    assert parameters == pytest.approx(spec.parameters, rel=0.01)
    assert (checkpoint.task, checkpoint.text.name) == (spec.task, spec.text_encoder)
    codec_checkpoint = read_codec(tmp_path)
    assert isinstance(codec_checkpoint, CodecCheckpoint)
    codec = build_codec(codec_checkpoint, torch.device("meta"))
    assert codec.config.sample_rate == spec.sample_rate
    frames = int(checkpoint.config.clip_seconds * codec.config.frame_rate)
    assert frames == {10: 500, 30: 1500}[spec.seconds]
    assert frames * codec.config.hop == spec.seconds * spec.sample_rate
