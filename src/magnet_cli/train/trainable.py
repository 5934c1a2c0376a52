"""The decoder as it is trained: its loss, its text encoder if that is trained too, its adapters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from magnet_cli.model.config import DecoderConfig
from magnet_cli.model.decoder import Layer, MaskedTransformer
from magnet_cli.model.t5 import T5Encoder
from magnet_cli.model.text_encoder import TextEncoder
from magnet_cli.model.weights import Weights, without_weights
from magnet_cli.train.options import LoraOptions, check_packages

ADAPTER = "default"


@dataclass(frozen=True)
class Batch:
    """What one process computes of a step; items with a text come first.

    codes: int64 [B, K, T], the right ones; seen: the same with codes hidden; mask: bool [B, T], which frames count in
    the loss; codebook: the one that is trained; tokens: int64 [B', N] and lengths: those of the texts of the first B'
    items.
    """

    codes: Tensor
    seen: Tensor
    mask: Tensor
    codebook: int
    tokens: Tensor
    lengths: list[int]


class TrainableDecoder(nn.Module):
    """Batch in, summed cross-entropy out. It holds every trained weight, as DistributedDataParallel requires."""

    def __init__(self, decoder: MaskedTransformer, text: T5Encoder, *, train_text: bool) -> None:
        super().__init__()
        self.decoder = decoder
        self.train_text = train_text
        # A frozen text encoder is neither trained nor saved nor averaged, so it is not a submodule.
        self.text = text if train_text else None
        self._frozen = [] if train_text else [text.eval().requires_grad_(False)]

    def text_states(self, batch: Batch) -> Tensor:
        """States of the texts [B', N, W], in float32 whatever the precision: T5 overflows in float16."""
        attn_mask = torch.arange(batch.tokens.shape[1], device=batch.tokens.device) < torch.tensor(
            batch.lengths, device=batch.tokens.device
        ).view(-1, 1)
        model = self.text if self.text is not None else self._frozen[0]
        with torch.set_grad_enabled(self.train_text), torch.autocast(batch.tokens.device.type, enabled=False):
            states: Tensor = model(batch.tokens, attn_mask)
            return states

    def forward(self, batch: Batch) -> Tensor:
        """Cross-entropy of the hidden codes of the batch's codebook, summed over them."""
        memory = None
        if batch.lengths:
            memory = self.decoder.text_memory(self.text_states(batch), batch.lengths)
        logits = self.decoder(batch.seen, batch.codebook, memory)[batch.mask]  # [M, V]
        return F.cross_entropy(logits.float(), batch.codes[:, batch.codebook][batch.mask], reduction="sum")


def pad_tokens(ids: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, list[int]]:
    """Token ids as one tensor [B', N], and their lengths."""
    lengths = [len(one) for one in ids]
    tokens = torch.zeros(len(ids), max(lengths, default=0), dtype=torch.int64)
    for row, one in zip(tokens, ids, strict=True):
        row[: len(one)] = torch.tensor(one)
    return tokens.to(device), lengths


def initialize(decoder: MaskedTransformer) -> None:
    """Random weights as the reference has them (audiocraft `models/lm.py`, gaussian with depth "current").

    Truncated normal with a variance of one over the inputs, over twice the layer's number within a layer.
    """
    with torch.no_grad():
        for module in decoder.modules():
            if isinstance(module, nn.Linear):
                _draw(module.weight, module.in_features, 1)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.Embedding):
                _draw(module.weight, module.embedding_dim, 1)
        for number, layer in enumerate(decoder.layers, start=1):
            if isinstance(layer, Layer):
                for module in layer.modules():
                    if isinstance(module, nn.Linear):
                        _draw(module.weight, module.in_features, 2 * number)


def _draw(weight: Tensor, inputs: int, depth: int) -> None:
    deviation = 1 / math.sqrt(inputs * depth)
    nn.init.trunc_normal_(weight, 0.0, deviation, -3 * deviation, 3 * deviation)


# The start with context: deviation of the embeddings of codes and of the first mask, factor on the positions, frames to
# which heads of the first layers look back and ahead, the logit by which they prefer those to others, a factor on what
# they hand on, of which a head holds only a part, and the slowest position, in radians a frame, that they use.
EMBEDDED, MASKED = 0.5, 1.0
POSITIONED = 0.25
LOOKS = (1, 3, 6)
PREFERENCE = 24.0
HANDED = 2.0
SLOWEST = 0.2


@torch.no_grad()
def begin_with_context(decoder: MaskedTransformer) -> None:
    """Random weights, but for a start from which a small decoder soon uses the codes around those that it predicts.

    With small random embeddings, position and text drown the codes, and a training of thousands of steps may never look
    at them: the loss is then as high with nine tenths of a clip given as with nothing. So the embeddings of codes begin
    large, in dimensions apart from those of the fast positions, and the configuration's `position_scale` is to be
    POSITIONED. Two heads in each of the first layers begin with attention to the frames at a fixed distance before and
    behind, whose codes they copy: a sinusoidal position a distance away is the position rotated. The first
    mask's embedding is larger still, so that normalization makes hidden frames the weaker keys. The output heads begin
    as the embeddings, so that what was handed on is a prediction. All of it is trained on.
    """
    initialize(decoder)
    config = decoder.config
    chosen = _fast_positions(config, config.width // config.heads // 2)
    content = torch.ones(config.width)
    content[chosen] = content[config.width // 2 + chosen] = 0  # their cosines and sines
    for codebook, (embedding, head) in enumerate(zip(decoder.embeddings, decoder.output_heads, strict=True)):
        if isinstance(embedding, nn.Embedding) and isinstance(head, nn.Linear):
            nn.init.normal_(embedding.weight, std=EMBEDDED)
            # Those of the codebooks above stand in every frame while the first one is predicted.
            embedding.weight[config.mask_code] *= 0 if codebook else MASKED / EMBEDDED
            embedding.weight.mul_(content)
            head.weight.copy_(embedding.weight[: config.codes] / (EMBEDDED * math.sqrt(config.width)))
    if config.heads < 2:
        return
    for layer, frames in zip(decoder.layers, LOOKS, strict=False):
        if isinstance(layer, Layer):
            for number, distance in enumerate((-frames, frames)):
                _look(layer, number, distance, _speeds(config)[chosen], (chosen, content))


def _speeds(config: DecoderConfig) -> Tensor:
    """Radians in a frame of every position, the fastest first; see `sinusoidal_positions`."""
    half = config.width // 2
    return config.max_period ** -(torch.arange(half, dtype=torch.float32) / max(1, half - 1))


def _fast_positions(config: DecoderConfig, count: int) -> Tensor:
    """Numbers of so many positions, evenly among the fast ones."""
    fast = max(count, int((_speeds(config) >= SLOWEST).sum()))
    return torch.linspace(0, fast - 1, count).round().long()


def _look(layer: Layer, head: int, distance: int, speeds: Tensor, places: tuple[Tensor, Tensor]) -> None:
    """Let a head attend to the frame at a distance, and hand on what stands there.

    speeds: of the positions that it uses; places: their numbers, and 1 for every dimension that holds codes [D].
    """
    chosen, content = places
    width, size = layer.self_attention.out.in_features, 2 * len(chosen)
    rows = torch.arange(size) + head * (width // layer.self_attention.heads)
    share = float(content.mean())
    given, hidden = (math.sqrt(share * one**2 + POSITIONED**2 / 2) for one in (EMBEDDED, MASKED))
    # After normalization, the product of the positions of a hidden frame and of the given one that it looks at.
    product = len(chosen) * POSITIONED**2 / (given * hidden)
    gain = math.sqrt(PREFERENCE * math.sqrt(width // layer.self_attention.heads) / product)
    cosine, sine = gain * (speeds * distance).cos(), gain * (speeds * distance).sin()
    query, key, value = layer.self_attention.qkv.weight.chunk(3)
    query[rows], key[rows] = 0, 0
    even, odd, half = rows[: len(chosen)], rows[len(chosen) :], width // 2
    query[even, chosen], query[even, half + chosen] = cosine, -sine
    query[odd, chosen], query[odd, half + chosen] = sine, cosine
    key[even, chosen], key[odd, half + chosen] = gain, gain
    handed = nn.init.orthogonal_(torch.empty(size, width)) * content
    value[rows] = handed
    layer.self_attention.out.weight[:, rows] = HANDED * handed.T


def add_adapters(decoder: MaskedTransformer, options: LoraOptions) -> None:
    """Freeze the decoder and put low-rank adapters on its projections."""
    check_packages(lora=True)
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=["qkv", "out", "query", "key_value", "up", "down"],
    )
    inject_adapter_in_model(config, decoder, adapter_name=ADAPTER)


def decoder_weights(decoder: MaskedTransformer, dtype: torch.dtype) -> Weights:
    """A decoder's tensors under their plain names, adapters merged."""
    with without_weights():
        names = list(MaskedTransformer(decoder.config).state_dict())
    weights = {}
    for name in names:
        owner, _, last = name.rpartition(".")
        module = decoder.get_submodule(owner)
        base, delta = getattr(module, "base_layer", None), getattr(module, "get_delta_weight", None)
        if isinstance(base, nn.Module) and callable(delta):
            value = base.get_parameter(last) + delta(ADAPTER)
        else:
            value = module.get_parameter(last)
        weights[name] = value.detach().to("cpu", dtype).contiguous().clone()
    return weights


def as_text_encoder(network: TrainableDecoder, tokenizer_of: TextEncoder) -> TextEncoder:
    """The text encoder that is trained with the decoder, ready to encode; otherwise the given one."""
    return (
        tokenizer_of
        if network.text is None
        else TextEncoder(network.text, tokenizer_of.tokenizer, tokenizer_of.known_words)
    )
