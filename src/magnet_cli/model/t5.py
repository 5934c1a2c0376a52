"""T5's encoder: token ids in, states out.

Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (2020). Modules are
named so that tensors have the names they have in Hugging Face's files. `transformers` has the same network; importing
it takes seconds, which is more than a short clip takes on a GPU.

Letters: N tokens, W width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from magnet_cli.errors import shown
from magnet_cli.model.config import MOST_HIDDEN, MOST_LAYERS, MOST_WIDTH, Limits, ShapeError, check_sizes

LIMITS: Limits = {
    "d_model": (1, MOST_WIDTH),
    "d_ff": (1, MOST_HIDDEN),
    "num_layers": (1, MOST_LAYERS),
    "num_heads": (1, MOST_WIDTH),
    "d_kv": (1, MOST_WIDTH),
    "vocab_size": (1, 2**24),  # 256,000 in the largest
    "relative_attention_num_buckets": (4, 65_536),  # exact and wide ones, in both directions
    "relative_attention_max_distance": (2, 1_000_000),
    "layer_norm_epsilon": (0.0, 1.0),
    "eos_token_id": (-1, 2**24),
}


@dataclass(frozen=True)
class T5Config:
    """Shape of the encoder. Names and default values are those of Hugging Face's files, which may leave them out."""

    d_model: int
    d_ff: int
    num_layers: int
    num_heads: int
    d_kv: int = 64
    vocab_size: int = 32_128
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"
    eos_token_id: int = 1

    def check(self) -> None:
        """Raise ShapeError for an encoder that cannot be built."""
        check_sizes(asdict(self), LIMITS)
        if self.relative_attention_max_distance <= self.relative_attention_num_buckets // 4:
            raise ShapeError(
                f"relative_attention_max_distance is {self.relative_attention_max_distance}, which leaves none of the "
                f"{self.relative_attention_num_buckets} buckets for distant tokens"
            )
        if self.feed_forward_proj not in ("relu", "gated-gelu"):
            raise ShapeError(f"feed_forward_proj is {shown(self.feed_forward_proj)}, not 'relu' or 'gated-gelu'")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> T5Config:
        """Read a config.json. Raises KeyError, TypeError or ValueError if it describes no T5 encoder."""
        if settings["model_type"] != "t5":
            raise ValueError(f"model_type is {shown(settings['model_type'])}, not 't5'")
        config = cls(**{name: settings[name] for name in cls.__dataclass_fields__ if name in settings})
        config.check()
        return config


class Norm(nn.Module):
    """Scale to a root mean square of 1: no mean is subtracted, no bias added."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.d_model))
        self.epsilon = config.layer_norm_epsilon

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., W]."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon))


class Attention(nn.Module):
    """Attention of every token to every token. The weights were trained for scores that are not scaled."""

    def __init__(self, config: T5Config, *, has_bias: bool) -> None:
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.heads = config.num_heads
        self.q, self.k, self.v = (nn.Linear(config.d_model, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, config.d_model, bias=False)
        if has_bias:
            self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x: [B, N, W]; bias: [1 or B, H, N, N]. Returns [B, N, W]."""
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.q, self.k, self.v)
        )
        heard = F.scaled_dot_product_attention(query, key, value, bias, scale=1.0)
        return self.o(heard.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two matrices with a ReLU between them. In T5 1.1, the first one exists twice, and one gates the other."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        linear = partial(nn.Linear, bias=False)
        self.gated = config.feed_forward_proj == "gated-gelu"
        if self.gated:
            self.wi_0, self.wi_1 = (linear(config.d_model, config.d_ff) for _ in range(2))
        else:
            self.wi = linear(config.d_model, config.d_ff)
        self.wo = linear(config.d_ff, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, W] -> [B, N, W]."""
        if self.gated:
            return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))
        return self.wo(F.relu(self.wi(x)))


def _sublayer(config: T5Config, name: str, module: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict({name: module, "layer_norm": Norm(config)})


class Block(nn.Module):
    """One layer: attention and feed-forward, each applied to its normed input and added to it."""

    def __init__(self, config: T5Config, *, has_bias: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            [
                _sublayer(config, "SelfAttention", Attention(config, has_bias=has_bias)),
                _sublayer(config, "DenseReluDense", FeedForward(config)),
            ]
        )

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x: [B, N, W]; bias: [1, H, N, N]. Returns [B, N, W]."""
        own, forward = self.layer
        x = x + own["SelfAttention"](own["layer_norm"](x), bias)  # type: ignore[index]
        return x + forward["DenseReluDense"](forward["layer_norm"](x))  # type: ignore[index]


def distance_buckets(tokens: int, config: T5Config, device: torch.device) -> Tensor:
    """Index of the learned bias for attention of token i to token j, by j - i: exact for near tokens. int64 [N, N]."""
    position = torch.arange(tokens, device=device)
    offset = position.view(1, -1) - position.view(-1, 1)
    half = config.relative_attention_num_buckets // 2  # for either direction
    exact = half // 2
    distance = offset.abs()
    # From `exact` tokens on, buckets widen in proportion to the distance, up to the largest.
    span = math.log(config.relative_attention_max_distance / exact)
    far = exact + (torch.log(distance.clamp(min=1).float() / exact) / span * (half - exact)).long()
    return torch.where(distance < exact, distance, far.clamp(max=half - 1)) + half * (offset > 0)


class Encoder(nn.Module):
    """The layers of the encoder. The first layer holds the biases for all."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.block = nn.ModuleList(Block(config, has_bias=index == 0) for index in range(config.num_layers))
        self.final_layer_norm = Norm(config)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """[B, N, W] -> [B, N, W]; attn_mask: see T5Encoder."""
        table = self.get_submodule("block.0.layer.0.SelfAttention.relative_attention_bias")
        bias = table(distance_buckets(x.shape[1], self.config, x.device)).permute(2, 0, 1).unsqueeze(0)
        if attn_mask is not None:
            bias = bias.masked_fill(~attn_mask[:, None, None, :], -math.inf)
        for block in self.block:
            x = block(x, bias)
        return self.final_layer_norm(x)


class T5Encoder(nn.Module):
    """Token embeddings and encoder."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Encoder(config)

    def forward(self, ids: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """States of tokens. ids: int64 [B, N]; attn_mask: bool [B, N], where tokens are, None for everywhere.

        Returns [B, N, W]; values where there is no token have no meaning.
        """
        return self.encoder(self.shared(ids), attn_mask)

    def initialize(self) -> None:
        """Random weights as T5's authors draw them: normal, scaled by the number of inputs; norms start at 1."""
        width, heads = self.config.d_model, self.config.d_kv
        deviations = {"q": (width * heads) ** -0.5, "o": (self.config.num_heads * heads) ** -0.5}
        deviations |= {"wo": self.config.d_ff**-0.5, "shared": 1.0}
        for name, weight in self.named_parameters():
            layer = name.split(".")[-2]
            if layer.endswith("layer_norm"):
                nn.init.ones_(weight)
            else:
                nn.init.normal_(weight, std=deviations.get(layer, width**-0.5))
