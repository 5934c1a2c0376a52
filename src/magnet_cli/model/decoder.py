"""MAGNeT's network: codes and text states in, logits of one codebook out.

Pre-norm transformer without biases: self-attention, cross-attention to the text, feed-forward. Codebook 0 attends to
every frame; the codebooks above it only to their neighbourhood. Ziv et al., "Masked Audio Generation using a Single
Non-Autoregressive Transformer" (ICLR 2024), and audiocraft's `models/lm_magnet.py`.

Letters: B batch, K codebooks, T frames, V codes, N text tokens, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from magnet_cli.errors import UsageError
from magnet_cli.model.config import DecoderConfig

NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class TextMemory:
    """What cross-attention reads: keys and values of the text for every layer, computed once per prompt.

    keys, values: a tensor [B, H, N, D/H] for each layer. attn_mask: bool [B, 1, 1, N], True where a frame may
    attend to the token; None when no prompt is padded.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    attn_mask: Tensor | None

    @property
    def batch(self) -> int:
        """Number of prompts."""
        return self.keys[0].shape[0]

    def against(self, negative: TextMemory) -> TextMemory:
        """This memory for the conditional rows, and `negative`, with as many prompts, for the rows below them.

        Guidance then pushes away from the negative prompts instead of from no text. The models were not trained for it.
        """
        if negative.batch != self.batch:
            raise UsageError(
                f"{self.batch} prompts have {negative.batch} negative ones",
                "Give one for each; an empty one means no negative prompt",
            )
        memories = (self, negative)
        tokens = max(memory.keys[0].shape[2] for memory in memories)

        def joined(layers: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
            return tuple(torch.cat([_pad_tokens(part, tokens) for part in parts]) for parts in layers)

        masks = [_pad_tokens(memory.token_mask().transpose(2, 3), tokens).transpose(2, 3) for memory in memories]
        return TextMemory(
            joined(zip(self.keys, negative.keys, strict=True)),
            joined(zip(self.values, negative.values, strict=True)),
            torch.cat(masks),
        )

    def token_mask(self) -> Tensor:
        """`attn_mask`, or the mask that allows every token."""
        if self.attn_mask is not None:
            return self.attn_mask
        return torch.ones(self.batch, 1, 1, self.keys[0].shape[2], dtype=torch.bool, device=self.keys[0].device)


def _pad_tokens(x: Tensor, tokens: int) -> Tensor:
    """[B, H, N, D] -> [B, H, tokens, D], zeros (or False) after the N tokens."""
    return F.pad(x, (0, 0, 0, tokens - x.shape[2]))


def sinusoidal_positions(config: DecoderConfig, frames: int, device: torch.device) -> Tensor:
    """Position embeddings [T, D] in float32: the cosines, then the sines."""
    half = config.width // 2
    position = torch.arange(frames, device=device, dtype=torch.float32).view(-1, 1)
    exponent = torch.arange(half, device=device, dtype=torch.float32) / (half - 1)
    phase = position / (torch.tensor(config.max_period, device=device, dtype=torch.float32) ** exponent)
    return config.position_scale * torch.cat([phase.cos(), phase.sin()], dim=-1)


def neighbourhood_mask(frames: int, context: int, device: torch.device) -> Tensor:
    """attn_mask [T, T]: frame i may attend to frame j when |i - j| <= context, before or after it."""
    position = torch.arange(frames, device=device)
    return (position.view(-1, 1) - position.view(1, -1)).abs() <= context


def guide(logits: Tensor, weight: float | Tensor) -> Tensor:
    """Classifier-free guidance: the conditional rows [B, T, V], pushed away from the unconditional ones below them.

    logits: [2B, T, V]. Returns float32 [B, T, V].
    """
    conditional, unconditional = logits.float().chunk(2)
    return unconditional + (conditional - unconditional) * weight


class SelfAttention(nn.Module):
    """Attention of every frame to the frames that `attn_mask` allows."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, attn_mask: Tensor | None) -> Tensor:
        """x: [B, T, D]; attn_mask: bool [T, T] or None. Returns [B, T, D]."""
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        return self.out(merge_heads(F.scaled_dot_product_attention(query, key, value, attn_mask)))


class CrossAttention(nn.Module):
    """Attention of every frame to the text."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key_value = nn.Linear(config.width, 2 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def keys_and_values(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """text: [B, N, D]. Returns keys and values, each [B, H, N, D/H]."""
        key, value = self.key_value(text).chunk(2, dim=-1)
        return split_heads(key, self.heads), split_heads(value, self.heads)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, attn_mask: Tensor | None) -> Tensor:
        """x: [B, T, D]; keys, values: [B, H, N, D/H]; attn_mask: bool [B, 1, 1, N] or None. Returns [B, T, D]."""
        query = split_heads(self.query(x), self.heads)
        return self.out(merge_heads(F.scaled_dot_product_attention(query, keys, values, attn_mask)))


class Layer(nn.Module):
    """One transformer layer. Rows beyond those of the text memory are unconditional and skip cross-attention."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(config.width, eps=NORM_EPSILON)
        self.self_attention = SelfAttention(config)
        self.cross_norm = nn.LayerNorm(config.width, eps=NORM_EPSILON)
        self.cross_attention = CrossAttention(config)
        self.feed_forward_norm = nn.LayerNorm(config.width, eps=NORM_EPSILON)
        self.up = nn.Linear(config.width, config.feed_forward, bias=False)
        self.down = nn.Linear(config.feed_forward, config.width, bias=False)

    def forward(self, x: Tensor, attn_mask: Tensor | None, memory: TextMemory | None, index: int) -> Tensor:
        """x: [B, T, D]; index: which layer of the memory to read. Returns [B, T, D]."""
        x = x + self.self_attention(self.self_norm(x), attn_mask)
        if memory is not None:
            keys, values = memory.keys[index], memory.values[index]
            conditioned, unconditional = x[: memory.batch], x[memory.batch :]
            conditioned = conditioned + self.cross_attention(
                self.cross_norm(conditioned), keys, values, memory.attn_mask
            )
            x = torch.cat([conditioned, unconditional])
        return x + self.down(F.gelu(self.up(self.feed_forward_norm(x))))


class MaskedTransformer(nn.Module):
    """Predicts the masked codes of one codebook from the unmasked ones and the text."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        # One row more than there are codes: the mask token.
        self.embeddings = nn.ModuleList(nn.Embedding(config.codes + 1, config.width) for _ in range(config.codebooks))
        self.text_projection = nn.Linear(config.text_width, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.out_norm = nn.LayerNorm(config.width, eps=NORM_EPSILON)
        self.output_heads = nn.ModuleList(
            nn.Linear(config.width, config.codes, bias=False) for _ in range(config.codebooks)
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.out_norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights and activations."""
        return self.out_norm.weight.dtype

    def text_memory(self, states: Tensor, lengths: list[int]) -> TextMemory:
        """Keys and values of the text for every layer.

        states: text encoder's states [B, N, text_width]; lengths: tokens of each prompt. Each prompt attends only to
        its own tokens, so it does not matter which other prompts it is batched with. A length of 0 is no text: the row
        attends to a zero vector, which adds exactly 0.
        """
        tokens = torch.arange(states.shape[1], device=self.device)
        valid = tokens < torch.tensor(lengths, device=self.device).view(-1, 1)  # [B, N]
        text = self.text_projection(states.to(self.device, self.dtype)) * valid.unsqueeze(-1)
        pairs = [layer.cross_attention.keys_and_values(text) for layer in self.layers]  # type: ignore[union-attr, operator]
        keys, values = zip(*pairs, strict=True)
        padded = min(lengths) < states.shape[1]
        # Attention to no token at all would give NaN; without text, the row attends to the first token, which is zero.
        allowed = valid | (tokens == 0)
        return TextMemory(keys, values, allowed[:, None, None, :] if padded else None)

    def embed(self, codes: Tensor) -> Tensor:
        """The sum of the embeddings of a frame's codes: [B, K, ...] -> [B, ..., D]."""
        return torch.stack([embedding(codes[:, k]) for k, embedding in enumerate(self.embeddings)]).sum(0)

    def guided(
        self, codes: Tensor, codebook: int, memory: TextMemory | None, weight: float, wanted: Tensor | None = None
    ) -> Tensor:
        """Guided logits of one codebook, float32 [B, T, V]; see `decoding.masked.Network`. Computes every frame.

        Weight 1 is no guidance: the unconditional half has weight 0 and is not computed.
        """
        if memory is None or (weight == 1 and memory.batch == len(codes)):
            return self(codes, codebook, memory).float()
        return guide(self(torch.cat([codes, codes]), codebook, memory), weight)

    def forget(self) -> None:
        """Free what is kept for the next step of a clip: nothing."""

    def forward(self, codes: Tensor, codebook: int, memory: TextMemory | None) -> Tensor:
        """Logits [B, T, V] of one codebook.

        codes: [B, K, T], with `config.mask_code` where a code is to be predicted. The first `memory.batch` rows are
        conditioned on the text; the rest are unconditional, as are all rows when memory is None. (The reference feeds
        them zeros: without biases, attention to zeros adds exactly 0.)
        """
        x = self.embed(codes)  # [B, T, D]
        x = x + sinusoidal_positions(self.config, codes.shape[-1], codes.device).to(x.dtype)
        attn_mask = None
        if codebook > 0 and self.config.context >= 0:
            attn_mask = neighbourhood_mask(codes.shape[-1], self.config.context, codes.device)
        for index, layer in enumerate(self.layers):
            x = layer(x, attn_mask, memory, index)
        return self.output_heads[codebook](self.out_norm(x))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, D] -> [B, H, T, D/H]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, H, T, D/H] -> [B, T, D]."""
    return x.transpose(1, 2).flatten(2)
