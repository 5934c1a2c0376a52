"""The network of `decode` for GPUs: every shape static, recorded once as a CUDA graph and replayed.

One forward pass of the small model is some 400 kernels of a few microseconds each, less than Python takes to start
them. A graph starts them all at once. Graphs are recorded when their shape is first met, for each codebook, with and
without the unconditional half, and serve every later clip of that shape.

Without a GPU, `Dense` computes the same: tests compare it with the plain network.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from magnet_cli.banded import Band
from magnet_cli.config import DecoderConfig
from magnet_cli.engine import UNGUIDED
from magnet_cli.errors import MagnetWarning, one_line
from magnet_cli.transformer import Layer, MaskedTransformer, TextMemory, merge_heads, sinusoidal_positions, split_heads

# Frames that attend together to their neighbourhood; with the margins, keys come in tiles of 64.
BLOCK = 48
# Prompts are padded to a multiple of this many tokens, so that a few graphs serve them all.
TOKENS = 32
# Graphs hold on to their memory; beyond this many shapes, the one unused for longest goes.
MOST_SHAPES = 4
WARM_UPS = 2  # runs before recording: libraries allocate workspaces and choose kernels in the first


@dataclass(frozen=True)
class Shape:
    """What graphs are recorded for: B clips, T frames, rows that attend to a text, and its padded tokens."""

    batch: int
    frames: int
    text_rows: int
    tokens: int


class Dense:
    """Static buffers for one shape, and the network over them, without data-dependent sizes or synchronization."""

    def __init__(self, model: MaskedTransformer, shape: Shape) -> None:
        self.model, self.shape, self.config = model, shape, model.config
        like, rows = model.out_norm.weight, shape.batch * (2 if shape.text_rows else 1)
        self.layers = [layer for layer in model.layers if isinstance(layer, Layer)]
        size = (shape.batch, self.config.codebooks, shape.frames)
        self.codes = torch.zeros(size, dtype=torch.long, device=like.device)
        self.weight = torch.zeros((), device=like.device)
        heads, head = self.config.heads, self.config.width // self.config.heads
        kept = (self.config.layers, shape.text_rows, heads, shape.tokens, head)
        self.keys, self.values = like.new_zeros(kept), like.new_zeros(kept)
        self.text_mask = torch.zeros(shape.text_rows, 1, 1, shape.tokens, dtype=torch.bool, device=like.device)
        self.positions = sinusoidal_positions(self.config, shape.frames, like.device).to(like.dtype)
        self.band = Band.build(rows, shape.frames, max(self.config.context, 0), BLOCK, like.device)
        self.buffer = self.band.buffer(self.config.width, like)

    def listen_to(self, memory: TextMemory) -> None:
        """Copy the text that the next passes attend to."""
        tokens = memory.keys[0].shape[2]
        for index, (keys, values) in enumerate(zip(memory.keys, memory.values, strict=True)):
            self.keys[index, :, :, :tokens].copy_(keys)
            self.values[index, :, :, :tokens].copy_(values)
        self.text_mask.fill_(False)
        allowed = self.text_mask[..., :tokens]
        _ = allowed.fill_(True) if memory.attn_mask is None else allowed.copy_(memory.attn_mask)

    def logits(self, codebook: int, guided: bool) -> Tensor:
        """Guided logits of one codebook, float32 [B, T, V], of what is in the buffers."""
        shape = self.shape
        tables = enumerate(self.model.embeddings)
        x = torch.stack([table(self.codes[:, k]) for k, table in tables]).sum(0) + self.positions
        x = x.flatten(0, 1)  # [B * T, D]
        banded = codebook > 0 and self.config.context >= 0
        for index, layer in enumerate(self.layers):
            x = self._attend(layer, x, banded)
            if guided and index == 0:  # until the text is heard, both halves are the same
                x = torch.cat([x, x])
            conditioned = min(shape.text_rows * shape.frames, len(x))
            if conditioned:
                self._listen(layer, x[:conditioned], index)
            hidden = F.gelu(layer.up(layer.feed_forward_norm(x)))
            x.addmm_(hidden, layer.down.weight.t())
        found = self.model.output_heads[codebook](self.model.out_norm(x)).float()
        if guided:
            conditional, unconditional = found.chunk(2)
            found = unconditional + (conditional - unconditional) * self.weight
        return found.unflatten(0, (shape.batch, shape.frames))

    def _attend(self, layer: Layer, x: Tensor, banded: bool) -> Tensor:
        """x [M, D] with self-attention added."""
        own, normed = layer.self_attention, layer.self_norm(x)
        if banded:
            torch.mm(normed, own.qkv.weight.t(), out=self.band.inside(self.buffer)[: len(x)])
            heard = self.band.attend(self.buffer, own.heads, len(x))
        else:
            parts = own.qkv(normed).unflatten(0, (-1, self.shape.frames)).chunk(3, dim=-1)
            query, key, value = (split_heads(part, own.heads) for part in parts)
            heard = merge_heads(F.scaled_dot_product_attention(query, key, value)).flatten(0, 1)
        return torch.addmm(x, heard, own.out.weight.t())

    def _listen(self, layer: Layer, x: Tensor, index: int) -> None:
        """Add cross-attention to the conditioned rows, in place. x: [R' * T, D]."""
        cross, rows = layer.cross_attention, len(x) // self.shape.frames
        query = split_heads(cross.query(layer.cross_norm(x)).unflatten(0, (rows, -1)), cross.heads)
        keys, values, mask = self.keys[index, :rows], self.values[index, :rows], self.text_mask[:rows]
        heard = merge_heads(F.scaled_dot_product_attention(query, keys, values, mask)).flatten(0, 1)
        x.addmm_(heard, cross.out.weight.t())


class GraphTransformer:
    """A MaskedTransformer's logits for `decode`, on a GPU, by replaying graphs. It shares the model's weights.

    Anywhere else than on CUDA it runs the same operations one by one.
    """

    def __init__(self, model: MaskedTransformer) -> None:
        self.model = model
        self.config: DecoderConfig = model.config
        self._networks: dict[Shape, Dense] = {}
        self._heard: dict[Shape, TextMemory] = {}
        self._pool: Any | None = None
        self._eager = False
        self._graphs: dict[tuple[Shape, int, bool], tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the activations."""
        return self.model.dtype

    @torch.inference_mode()
    def guided(
        self, codes: Tensor, codebook: int, memory: TextMemory | None, weight: float, wanted: Tensor | None = None
    ) -> Tensor:
        """Guided logits of one codebook, float32 [B, T, V], wanted or not: see `decode.Network`.

        To pick the wanted ones, the host would have to wait and count them.
        """
        shape = self._shape(codes, memory)
        network = self._network(shape)
        if memory is not None and self._heard.get(shape) is not memory:
            network.listen_to(memory)
            self._heard[shape] = memory
        network.codes.copy_(codes)
        network.weight.fill_(weight)
        guided = memory is not None and abs(weight - 1) > UNGUIDED
        key = (shape, codebook, guided)
        if self.device.type == "cuda" and not self._eager and key not in self._graphs:
            self._try_to_record(network, key)
        if key not in self._graphs:
            return network.logits(codebook, guided)
        graph, logits = self._graphs[key]
        graph.replay()
        return logits.clone()  # the next replay writes over it

    def _try_to_record(self, network: Dense, key: tuple[Shape, int, bool]) -> None:
        """Record a graph; where the driver or the card cannot, go on without, which is slower and the same."""
        _, codebook, guided = key
        try:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            self._graphs[key] = _record(network, codebook, guided, self._pool)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._eager = True
            warnings.warn(f"no CUDA graphs here, so it is slower: {one_line(error, 120)}", MagnetWarning, stacklevel=2)

    def _shape(self, codes: Tensor, memory: TextMemory | None) -> Shape:
        batch, _, frames = codes.shape
        if memory is None:
            return Shape(batch, frames, 0, 0)
        tokens = memory.keys[0].shape[2]
        return Shape(batch, frames, memory.batch, -(-tokens // TOKENS) * TOKENS)

    def _network(self, shape: Shape) -> Dense:
        """The buffers of a shape; beyond MOST_SHAPES, those unused for longest are freed, with their graphs."""
        network = self._networks.pop(shape, None) or Dense(self.model, shape)
        self._networks[shape] = network  # now the last
        while len(self._networks) > MOST_SHAPES:
            oldest = next(iter(self._networks))
            del self._networks[oldest]
            self._heard.pop(oldest, None)
            self._graphs = {key: graph for key, graph in self._graphs.items() if key[0] != oldest}
        return network


def _record(network: Dense, codebook: int, guided: bool, pool: Any) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """A graph of one forward pass, and the logits it writes.

    Graphs of one pool share their memory: what one has written is gone when another is replayed.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            network.logits(codebook, guided)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        logits = network.logits(codebook, guided)
    return graph, logits
