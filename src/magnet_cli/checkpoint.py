"""Reading checkpoints: files -> configurations and weights, strictly.

The released format is two files written by torch.save, `state_dict.bin` (the decoder) and
`compression_state_dict.bin` (the codec), each a dictionary with the weights in `best_state` and the training
configuration in `xp.cfg`, a YAML string. The second file may instead point to a codec in Hugging Face format.

Files are memory-mapped and read with restricted unpickling only: one that needs more is refused. A tensor that is
missing, unexpected or of the wrong shape is an error.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from magnet_cli.codec import Codec
from magnet_cli.config import CodecConfig, DecoderConfig, Task, TextConfig
from magnet_cli.errors import ModelError, one_line
from magnet_cli.transformer import MaskedTransformer

DECODER_FILE = "state_dict.bin"
CODEC_FILE = "compression_state_dict.bin"

Weights = dict[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)

# What this package's network is; a checkpoint whose configuration says otherwise is refused.
SUPPORTED_DECODER: dict[str, Any] = {
    "lm_model": "transformer_lm_magnet",
    "codebooks_pattern.modeling": "parallel",
    "fuser.sum": [],
    "fuser.prepend": [],
    "fuser.cross": ["description"],
    "fuser.input_interpolate": [],
    "fuser.cross_attention_pos_emb": False,
    "conditioners.description.model": "t5",
    "conditioners.description.t5.normalize_text": False,
    "transformer_lm.norm": "layer_norm",
    "transformer_lm.norm_first": True,
    "transformer_lm.activation": "gelu",
    "transformer_lm.positional_embedding": "sin",
    "transformer_lm.causal": False,
    "transformer_lm.past_context": None,
    "transformer_lm.layer_scale": None,
    "transformer_lm.qk_layer_norm": False,
    "transformer_lm.qk_layer_norm_cross": False,
    "transformer_lm.kv_repeat": 1,
    "transformer_lm.bias_ff": False,
    "transformer_lm.bias_attn": False,
    "transformer_lm.bias_proj": False,
}
SUPPORTED_CODEC: dict[str, Any] = {
    "compression_model": "encodec",
    "encodec.autoencoder": "seanet",
    "encodec.quantizer": "rvq",
    "encodec.renormalize": False,
    "seanet.norm": "weight_norm",
    "seanet.disable_norm_outer_blocks": 0,
}


@dataclass(frozen=True)
class DecoderCheckpoint:
    """A decoder as read from disk: weights are memory-mapped, under the names of MaskedTransformer."""

    path: Path
    config: DecoderConfig
    text: TextConfig
    task: Task
    weights: Weights


@dataclass(frozen=True)
class CodecCheckpoint:
    """A codec as read from disk: weights under the names of Codec, weight normalization folded."""

    path: Path
    config: CodecConfig
    weights: Weights


@dataclass(frozen=True)
class CodecPointer:
    """A checkpoint without a codec of its own: `name` says which one it was trained with."""

    path: Path
    name: str


# -- building networks ------------------------------------------------------------------------------------------------


def build_decoder(checkpoint: DecoderCheckpoint, device: torch.device, dtype: torch.dtype) -> MaskedTransformer:
    """The network with the checkpoint's weights. In the stored dtype on the CPU, the weights stay memory-mapped."""
    with torch.device("meta"):
        model = MaskedTransformer(checkpoint.config)
    return _assign(model, checkpoint.weights, checkpoint.path, device, dtype)


def build_codec(checkpoint: CodecCheckpoint, device: torch.device) -> Codec:
    """The codec with the checkpoint's weights, in float32."""
    with torch.device("meta"):
        codec = Codec(checkpoint.config)
    codec = _assign(codec, checkpoint.weights, checkpoint.path, device, torch.float32)
    for module in codec.modules():
        if isinstance(module, nn.LSTM):
            module.flatten_parameters()  # one block of memory, as cuDNN wants it
    return codec


def _assign(model: Network, weights: Weights, path: Path, device: torch.device, dtype: torch.dtype) -> Network:
    """Give a network built on `meta` its weights, tensor by tensor, after checking every name and shape."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    problems = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    problems += [f"{name} is not expected" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"{name} has shape {list(found[name])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if problems:
        more = f" (and {len(problems) - 3} more problems)" if len(problems) > 3 else ""
        raise ModelError(
            f"{path} does not fit its own configuration: {'; '.join(problems[:3])}{more}",
            "The file is damaged or of another kind of model; fetch it again",
        )
    model.load_state_dict({name: weight.to(device, dtype) for name, weight in weights.items()}, assign=True)
    return model.eval().requires_grad_(False)


# -- reading the released format --------------------------------------------------------------------------------------


def read_decoder(folder: Path) -> DecoderCheckpoint:
    """Read `state_dict.bin` of a checkpoint folder."""
    path = folder / DECODER_FILE
    package = _load_package(path)
    settings = Settings.parse(package, path)
    settings.require(SUPPORTED_DECODER)
    weights = _rename_decoder(_best_state(package, path))
    projection = weights.get("text_projection.weight")
    if projection is None or projection.dim() != 2:
        raise ModelError(f"{path} has no text projection", "It is no MAGNeT checkpoint; choose another")
    width = settings.integer("transformer_lm.dim")
    config = DecoderConfig(
        width=width,
        heads=settings.integer("transformer_lm.num_heads"),
        layers=settings.integer("transformer_lm.num_layers"),
        feed_forward=int(settings.number("transformer_lm.hidden_scale") * width),
        codebooks=settings.integer("transformer_lm.n_q"),
        codes=settings.integer("transformer_lm.card"),
        text_width=projection.shape[1],
        span_length=settings.integer("masking.span_len"),
        context=settings.integer("transformer_lm.subcodes_context"),
        clip_seconds=settings.number("dataset.segment_duration"),
        max_period=settings.number("transformer_lm.max_period", 10_000),  # the reference's default, seldom written
        position_scale=settings.number("transformer_lm.positional_scale", 1),  # likewise
    )
    if config.heads < 1 or config.width % (2 * config.heads) or config.span_length < 1:
        raise ModelError(
            f"{path} has a width of {config.width}, {config.heads} heads and spans of {config.span_length}, "
            "which do not go together",
            "Its configuration is damaged; fetch it again",
        )
    task: Task = "sound" if settings.value("solver", "") == "audio_magnet" else "music"
    name = str(settings.value("conditioners.description.t5.name"))
    return DecoderCheckpoint(path, config, TextConfig(name), task, weights)


def read_codec(folder: Path) -> CodecCheckpoint | CodecPointer:
    """Read `compression_state_dict.bin` of a checkpoint folder."""
    path = folder / CODEC_FILE
    package = _load_package(path)
    if "pretrained" in package:
        return CodecPointer(path, str(package["pretrained"]))
    settings = Settings.parse(package, path)
    settings.require(SUPPORTED_CODEC)
    config = CodecConfig(
        sample_rate=settings.integer("encodec.sample_rate"),
        channels=settings.integer("encodec.channels"),
        codebooks=settings.integer("rvq.n_q"),
        codes=settings.integer("rvq.bins"),
        dimension=settings.integer("seanet.dimension"),
        n_filters=settings.integer("seanet.n_filters"),
        n_residual_layers=settings.integer("seanet.n_residual_layers"),
        ratios=tuple(int(ratio) for ratio in settings.value("seanet.ratios")),
        kernel_size=settings.integer("seanet.kernel_size"),
        residual_kernel_size=settings.integer("seanet.residual_kernel_size"),
        last_kernel_size=settings.integer("seanet.last_kernel_size"),
        dilation_base=settings.integer("seanet.dilation_base"),
        compress=settings.integer("seanet.compress"),
        lstm=settings.integer("seanet.lstm"),
        causal=bool(settings.value("seanet.causal")),
        pad_mode=str(settings.value("seanet.pad_mode")),
        true_skip=bool(settings.value("seanet.true_skip")),
        activation=str(settings.value("seanet.activation")),
        activation_params=dict(settings.value("seanet.activation_params")),
        trim_right_ratio=settings.number("seanet.decoder.trim_right_ratio"),
        final_activation=settings.value("seanet.decoder.final_activation"),
    )
    return CodecCheckpoint(path, config, _fold_weight_norm(_best_state(package, path)))


def _load_package(path: Path) -> Mapping[str, Any]:
    """Read a file of torch.save, memory-mapped, with restricted unpickling and no way around it."""
    if not path.is_file():
        raise ModelError(
            f"{path.parent} has no {path.name}", f"A checkpoint folder holds {DECODER_FILE} and {CODEC_FILE}"
        )
    try:
        # Only the zip format, torch's own since 2020, can be memory-mapped.
        package = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "WeightsUnpickler" in str(error):
            raise ModelError(
                f"{path} is no plain checkpoint: it was refused, because reading it would run code",
                "Get the file from its original source; do not load it with other tools",
            ) from error
        raise ModelError(f"{path} is not a checkpoint: {one_line(error)}", "Fetch it again") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ModelError(f"cannot read {path}: {one_line(error)}", "The file is damaged; fetch it again") from error
    if not isinstance(package, Mapping):
        raise ModelError(f"{path} holds a {type(package).__name__}, not a checkpoint", "Choose another file")
    return package


def _best_state(package: Mapping[str, Any], path: Path) -> Weights:
    state = package.get("best_state")
    if not isinstance(state, Mapping) or not all(isinstance(weight, Tensor) for weight in state.values()):
        raise ModelError(f"{path} has no weights (best_state)", "Use a checkpoint in the released format")
    return dict(state)


DECODER_NAMES = (
    (r"^emb\.", "embeddings."),
    (r"^transformer\.layers\.", "layers."),
    (r"^linears\.", "output_heads."),
    (r"^condition_provider\.conditioners\.description\.output_proj\.", "text_projection."),
    (r"\.self_attn\.in_proj_weight$", ".self_attention.qkv.weight"),
    (r"\.self_attn\.out_proj\.", ".self_attention.out."),
    (r"\.cross_attention\.out_proj\.", ".cross_attention.out."),
    (r"\.norm1\.", ".self_norm."),
    (r"\.norm_cross\.", ".cross_norm."),
    (r"\.norm2\.", ".feed_forward_norm."),
    (r"\.linear1\.", ".up."),
    (r"\.linear2\.", ".down."),
)


def _rename_decoder(state: Weights) -> Weights:
    """The released tensors under our names. Cross-attention's stacked projection is split: its inputs differ."""
    renamed: Weights = {}
    for name, weight in state.items():
        for pattern, replacement in DECODER_NAMES:
            name = re.sub(pattern, replacement, name)
        if name.endswith("cross_attention.in_proj_weight"):
            block, third = name.removesuffix("in_proj_weight"), weight.shape[0] // 3
            renamed[block + "query.weight"], renamed[block + "key_value.weight"] = weight[:third], weight[third:]
        else:
            renamed[name] = weight
    return renamed


def _fold_weight_norm(state: Weights) -> Weights:
    """Replace each pair of direction `weight_v` and length `weight_g` by the weight they stand for."""
    folded: Weights = {}
    for name, weight in state.items():
        if name.endswith("weight_g"):
            continue
        if name.endswith("weight_v"):
            length = state.get(name.removesuffix("v") + "g")
            if length is not None:
                folded[name.removesuffix("_v")] = torch._weight_norm(weight.float(), length.float(), 0)
                continue
        folded[name] = weight
    return folded


# -- reading a codec in Hugging Face format ---------------------------------------------------------------------------


def read_hugging_face_codec(folder: Path) -> CodecCheckpoint:
    """Read an EnCodec in the format of `transformers`: config.json and model.safetensors or pytorch_model.bin."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = _hugging_face_config(settings)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} has no usable config.json: {one_line(error)}", "Fetch the codec again") from error
    path = folder / "model.safetensors"
    try:
        state = load_file(path) if path.is_file() else dict(_load_package(folder / "pytorch_model.bin"))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"cannot read {path}: {one_line(error)}", "Fetch the codec again") from error
    return CodecCheckpoint(path, config, _fold_weight_norm(_rename_hugging_face_codec(state)))


def _hugging_face_config(settings: dict[str, Any]) -> CodecConfig:
    if settings["model_type"] != "encodec" or settings["normalize"] or settings["norm_type"] != "weight_norm":
        raise ValueError("it is not an EnCodec with weight normalization and without loudness normalization")
    hop = math.prod(settings["upsampling_ratios"])
    codes = settings["codebook_size"]
    bits_per_frame = (codes - 1).bit_length()
    frame_rate = -(-settings["sampling_rate"] // hop)
    # As transformers' EncodecConfig.num_quantizers: what the highest bandwidth (kbit/s) pays for.
    codebooks = int(1000 * settings["target_bandwidths"][-1] // (frame_rate * bits_per_frame))
    return CodecConfig(
        sample_rate=settings["sampling_rate"],
        channels=settings["audio_channels"],
        codebooks=codebooks,
        codes=codes,
        dimension=settings["hidden_size"],
        n_filters=settings["num_filters"],
        n_residual_layers=settings["num_residual_layers"],
        ratios=tuple(settings["upsampling_ratios"]),
        kernel_size=settings["kernel_size"],
        residual_kernel_size=settings["residual_kernel_size"],
        last_kernel_size=settings["last_kernel_size"],
        dilation_base=settings["dilation_growth_rate"],
        compress=settings["compress"],
        lstm=settings["num_lstm_layers"],
        causal=settings["use_causal_conv"],
        pad_mode=settings["pad_mode"],
        true_skip=not settings["use_conv_shortcut"],
        activation="ELU",
        activation_params={"alpha": 1.0},
        trim_right_ratio=settings["trim_right_ratio"],
        final_activation=None,
    )


def _rename_hugging_face_codec(state: Weights) -> Weights:
    """The tensors of transformers' EncodecModel under our names."""
    # Convolutions straight in the decoder: the first and the last are plain, those between are transposed.
    direct = {int(found[1]) for name in state if (found := re.match(r"decoder\.layers\.(\d+)\.conv\.", name))}
    transposed = sorted(direct)[1:-1]
    renamed: Weights = {}
    for name, weight in state.items():
        name = re.sub(r"\.parametrizations\.weight\.original0$", ".weight_g", name)
        name = re.sub(r"\.parametrizations\.weight\.original1$", ".weight_v", name)
        name = re.sub(r"^(encoder|decoder)\.layers\.", r"\1.model.", name)
        name = re.sub(r"^quantizer\.layers\.(\d+)\.codebook\.", r"quantizer.vq.layers.\1._codebook.", name)
        layer = re.match(r"decoder\.model\.(\d+)\.conv\.", name)
        module = "convtr" if layer and int(layer[1]) in transposed else "conv"
        renamed[name.replace(".conv.", f".{module}.{module}.")] = weight
    return renamed


# -- the training configuration ---------------------------------------------------------------------------------------

_REQUIRED = object()


class Settings:
    """A training configuration: YAML whose values may refer to others, as in `${encodec.causal}`.

    References are resolved when a value is read, so those that nobody needs (`${oc.env:USER}`) are no problem.
    """

    def __init__(self, tree: Mapping[str, Any], path: Path) -> None:
        self.tree = tree
        self.path = path

    @classmethod
    def parse(cls, package: Mapping[str, Any], path: Path) -> Settings:
        """Read the configuration of a checkpoint; ModelError when it has none."""
        try:
            tree = yaml.safe_load(package["xp.cfg"])
        except (KeyError, AttributeError, TypeError, yaml.YAMLError) as error:
            raise ModelError(f"{path} has no readable configuration (xp.cfg)", "Fetch it again") from error
        if not isinstance(tree, Mapping):
            raise ModelError(f"the configuration in {path} is not a mapping", "Fetch it again")
        return cls(tree, path)

    def value(self, key: str, default: Any = _REQUIRED, *, depth: int = 0) -> Any:
        """The value at a dotted key, references resolved; ModelError when it is not there and has no default."""
        node: Any = self.tree
        for part in key.split("."):
            if not isinstance(node, Mapping) or part not in node:
                if default is _REQUIRED:
                    raise ModelError(f"the configuration in {self.path} lacks {key}", "Use a MAGNeT checkpoint")
                return default
            node = node[part]
        reference = re.fullmatch(r"\$\{([\w.]+)\}", node) if isinstance(node, str) else None
        if reference is None:
            return node
        if depth > 10:
            raise ModelError(f"{key} in the configuration in {self.path} refers to itself", "Fetch it again")
        return self.value(reference[1], depth=depth + 1)

    def number(self, key: str, default: Any = _REQUIRED) -> float:
        """The value at a key as a float."""
        value = self.value(key, default)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ModelError(
                f"{key} in the configuration in {self.path} is {value!r}, not a number", "Fetch it again"
            ) from None

    def integer(self, key: str) -> int:
        """The value at a key as a whole number."""
        return int(self.number(key))

    def require(self, supported: Mapping[str, Any]) -> None:
        """Raise ModelError if a value differs from what is supported; a key that is absent is as in the reference."""
        for key, wanted in supported.items():
            found = self.value(key, wanted)
            if found != wanted:
                raise ModelError(
                    f"{self.path} has {key} = {found!r}, which is not supported (only {wanted!r} is)",
                    "Choose one of the MAGNeT checkpoints",
                )
