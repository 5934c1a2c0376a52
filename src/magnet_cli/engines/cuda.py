"""The network of `decoding.masked` for GPUs: every shape static, recorded once as a CUDA graph and replayed.

One forward pass of the small model is some 400 kernels of a few microseconds each, less than Python takes to start
them. A graph starts them all at once. It is recorded when its shape first occurs, for each codebook, with and without
the unconditional half, and serves every later clip of that shape. The recorded code may be compiled first.

Without a GPU, `Dense` computes the same: tests compare it with the plain network.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from magnet_cli.engines.cpu import UNGUIDED
from magnet_cli.engines.linear import Matrix, PlainLinear, Projections, float8_or_plain
from magnet_cli.engines.local_attention import Band, addend
from magnet_cli.errors import MagnetWarning, one_line
from magnet_cli.model.config import DecoderConfig
from magnet_cli.model.decoder import (
    Layer,
    MaskedTransformer,
    TextMemory,
    guide,
    merge_heads,
    sinusoidal_positions,
    split_heads,
)

# Frames that attend together to their neighbourhood; with the margins, keys come in tiles of 64.
BLOCK = 48
# Prompts are padded to a multiple of this many tokens, so that few graphs serve all prompts.
TOKENS = 32
# Graphs keep their memory; beyond this many shapes, the one unused for longest is freed.
MOST_SHAPES = 4
# Shapes that are compiled for. Further shapes are remainders of a batch, which take less time than compiling.
MOST_COMPILED = 8
MOST_VARIANTS = 256  # of one function; PyTorch's own limit is for a function and all that it calls
# Layers through which compiled code is compared: the halves part in the first, and all later layers are like the
# second. Through more layers, rounding in the first changes the rounding in the next, above all in 8 bits.
CHECKED_LAYERS = 2
MOST_COMPILED_ERROR = 0.25  # relative; measured: up to 0.14 in 8 bits, from 0.37 where attention read the wrong frames
WARM_UPS = 2  # runs before recording: libraries allocate workspaces and choose kernels in the first


@dataclass(frozen=True)
class Shape:
    """The shape of a graph: B clips, T frames, rows that attend to a text, and tokens of the padded text."""

    batch: int
    frames: int
    text_rows: int
    tokens: int


Weights = Projections[Matrix]


# -- the stages of a layer --------------------------------------------------------------------------------------------


def attend(layer: Layer, project: Weights, x: Tensor, frames: int) -> None:
    """Add self-attention among all `frames` of a row. x: [R * T, D]."""
    qkv = project.qkv(layer.self_norm(x)).unflatten(0, (-1, frames))
    query, key, value = (split_heads(part, layer.self_attention.heads) for part in qkv.chunk(3, dim=-1))
    project.out.add(merge_heads(F.scaled_dot_product_attention(query, key, value)).flatten(0, 1), x)


def attend_near(layer: Layer, project: Weights, x: Tensor, band: Band, buffer: Tensor) -> None:
    """Add self-attention of every frame to its neighbourhood. x: [R * T, D]; buffer: of `band`, written over."""
    project.qkv(layer.self_norm(x), out=band.inside(buffer)[: len(x)])
    project.out.add(band.attend(buffer, layer.self_attention.heads, len(x)), x)


def listen(layer: Layer, project: Weights, x: Tensor, text: tuple[Tensor, Tensor, Tensor]) -> None:
    """Add cross-attention. x: [R * T, D]; text: keys and values [R, H, N, D/H], and what to add as a mask."""
    keys, values, mask = text
    query = project.cross_query(layer.cross_norm(x)).unflatten(0, (len(keys), -1))
    query = split_heads(query, layer.cross_attention.heads)
    project.cross_out.add(merge_heads(F.scaled_dot_product_attention(query, keys, values, mask)).flatten(0, 1), x)


def feed_forward(layer: Layer, project: Weights, x: Tensor) -> None:
    """Add the feed-forward block. x: [R * T, D]."""
    project.down.add(F.gelu(project.up(layer.feed_forward_norm(x))), x)


@dataclass(frozen=True)
class Stages:
    """The stages of a layer, each in place on its input. All layers share these functions."""

    attend: Callable[[Layer, Weights, Tensor, int], None] = attend
    attend_near: Callable[[Layer, Weights, Tensor, Band, Tensor], None] = attend_near
    listen: Callable[[Layer, Weights, Tensor, tuple[Tensor, Tensor, Tensor]], None] = listen
    feed_forward: Callable[[Layer, Weights, Tensor], None] = feed_forward

    @classmethod
    def compiled(cls, backend: str | Callable[..., Any] = "inductor") -> Stages:
        """The same through torch.compile: each is compiled once for every size, not for every layer.

        The default mode is used, which records no graphs of its own.
        """

        def one(function: Callable[..., None]) -> Callable[..., None]:
            return torch.compile(function, fullgraph=True, dynamic=False, backend=backend)

        return cls(one(attend), one(attend_near), one(listen), one(feed_forward))


EAGER = Stages()


# -- the network ------------------------------------------------------------------------------------------------------


class Dense:
    """Static buffers for one shape, and the network over them, without data-dependent sizes or synchronization.

    weights: the matrices of each layer; None: as they are.
    """

    def __init__(
        self,
        model: MaskedTransformer,
        shape: Shape,
        weights: Sequence[Weights] | None = None,
        stages: Stages = EAGER,
    ) -> None:
        self.model, self.shape, self.config, self.stages = model, shape, model.config, stages
        like, rows = model.out_norm.weight, shape.batch * (2 if shape.text_rows else 1)
        self.layers = list(zip(layers_of(model), weights or plain_weights(model), strict=True))
        size = (shape.batch, self.config.codebooks, shape.frames)
        self.codes = torch.zeros(size, dtype=torch.long, device=like.device)
        self.weight = torch.zeros((), device=like.device)
        heads, head = self.config.heads, self.config.width // self.config.heads
        kept = (self.config.layers, shape.text_rows, heads, shape.tokens, head)
        self.keys, self.values = like.new_zeros(kept), like.new_zeros(kept)
        self.text_mask = like.new_zeros(shape.text_rows, 1, 1, shape.tokens)
        self.positions = sinusoidal_positions(self.config, shape.frames, like.device).to(like.dtype)
        band = Band.build(rows, shape.frames, max(self.config.context, 0), BLOCK, like.device)
        self.band = band.adding(like.dtype)
        self.buffer = self.band.buffer(self.config.width, like)

    def listen_to(self, memory: TextMemory) -> None:
        """Copy the text that the next passes attend to."""
        tokens = memory.keys[0].shape[2]
        for index, (keys, values) in enumerate(zip(memory.keys, memory.values, strict=True)):
            self.keys[index, :, :, :tokens].copy_(keys)
            self.values[index, :, :, :tokens].copy_(values)
        self.text_mask.fill_(-math.inf)
        self.text_mask[..., :tokens].copy_(addend(memory.token_mask(), self.text_mask.dtype))

    def logits(self, codebook: int, guided: bool, depth: int | None = None) -> Tensor:
        """Guided logits of one codebook, float32 [B, T, V], from the buffers. depth: number of layers, if not all."""
        shape, stages = self.shape, self.stages
        x = (self.model.embed(self.codes) + self.positions).flatten(0, 1)  # [B * T, D]
        near = codebook > 0 and self.config.context >= 0
        for index, (layer, weights) in enumerate(self.layers[:depth]):
            if near:
                stages.attend_near(layer, weights, x, self.band, self.buffer)
            else:
                stages.attend(layer, weights, x, shape.frames)
            if guided and index == 0:  # before the first cross-attention, both halves are the same
                x = torch.cat([x, x])
            rows = min(shape.text_rows, len(x) // shape.frames)
            if rows:
                text = self.keys[index, :rows], self.values[index, :rows], self.text_mask[:rows]
                stages.listen(layer, weights, x[: rows * shape.frames], text)
            stages.feed_forward(layer, weights, x)
        found = self.model.output_heads[codebook](self.model.out_norm(x))
        found = guide(found, self.weight) if guided else found.float()
        return found.unflatten(0, (shape.batch, shape.frames))


def layers_of(model: MaskedTransformer) -> list[Layer]:
    """A model's layers."""
    return [layer for layer in model.layers if isinstance(layer, Layer)]


def plain_weights(model: MaskedTransformer) -> list[Weights]:
    """A model's matrices as they are."""
    return [Projections.of(layer, PlainLinear) for layer in layers_of(model)]


Key = tuple[Shape, int, bool]  # of a graph: shape, codebook, with guidance


class GraphTransformer:
    """A MaskedTransformer's logits for `decode`, on a GPU, by replaying graphs. It shares the model's weights.

    float8: multiply by matrices in 8-bit floats; approximate, see `linear`. stages: the functions of a layer,
    compiled or not. Anywhere else than on CUDA it runs the same operations one by one.
    """

    def __init__(self, model: MaskedTransformer, *, float8: bool = False, stages: Stages = EAGER) -> None:
        self.model = model
        self.config: DecoderConfig = model.config
        form: Callable[[nn.Linear], Matrix] = float8_or_plain if float8 else PlainLinear
        self._weights = [Projections.of(layer, form) for layer in layers_of(model)]
        self._stages = stages
        self._compiled: set[Key] = set()
        self._networks: dict[Shape, Dense] = {}
        self._heard: dict[Shape, TextMemory] = {}
        self._pool: Any | None = None
        self._eager = False
        self._graphs: dict[Key, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

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
        """Guided logits of one codebook, float32 [B, T, V], of all frames: see `masked.Network`.

        To pick the wanted frames, the host would have to wait for the device and count them.
        """
        shape = self._shape(codes, memory)
        network = self._network(shape)
        if memory is not None and self._heard.get(shape) is not memory:
            network.listen_to(memory)
            self._heard[shape] = memory
        network.codes.copy_(codes)
        guided = memory is not None and abs(weight - 1) > UNGUIDED
        key = (shape, codebook, guided)
        if network.stages is not EAGER and key not in self._compiled:
            self._try_to_compile(network, key)
        network.weight.fill_(weight)
        if self.device.type == "cuda" and not self._eager and key not in self._graphs:
            self._try_to_record(network, key)
        if key not in self._graphs:
            return network.logits(codebook, guided)
        graph, logits = self._graphs[key]
        graph.replay()
        return logits.clone()  # the next replay writes over it

    def forget(self) -> None:
        """Do nothing: graphs and their buffers serve every later clip."""

    @property
    def compiled(self) -> bool:
        """Whether compiled code ran last."""
        return bool(self._compiled) and self._stages is not EAGER

    def _try_to_compile(self, network: Dense, key: Key) -> None:
        """Run once, which compiles. If that fails, fall back to the plain code: slower, equal except for rounding."""
        _, codebook, guided = key
        network.weight.fill_(0.5)  # the mean of both halves: guidance would amplify their differences by rounding
        stages, network.stages = network.stages, EAGER
        wanted = network.logits(codebook, guided, CHECKED_LAYERS)
        network.stages = stages
        try:
            # The limit detects functions that are compiled again for every value. Here they are compiled for up to
            # two sizes of each of a few shapes, by every model in this process.
            with torch._dynamo.config.patch(recompile_limit=MOST_VARIANTS):
                found = network.logits(codebook, guided, CHECKED_LAYERS)
            off = float((found - wanted).norm() / wanted.norm())
            if not off <= MOST_COMPILED_ERROR:
                raise RuntimeError(f"its logits are {off:.0%} off")
            self._compiled.add(key)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # any failure of the compiler, or of a computer without one
            self._stages = EAGER
            for each in self._networks.values():
                each.stages = EAGER
            why = one_line(error, 120)
            warnings.warn(f"torch.compile fails here, so nothing is compiled: {why}", MagnetWarning, stacklevel=3)

    def _try_to_record(self, network: Dense, key: Key) -> None:
        """Record a graph. If the driver or the card cannot, fall back to running without one: slower, equal results."""
        _, codebook, guided = key
        try:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            self._graphs[key] = _record(network, codebook, guided, self._pool)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._eager = True
            why = one_line(error, 120)
            warnings.warn(f"no CUDA graphs can be recorded, so it is slower: {why}", MagnetWarning, stacklevel=2)

    def _shape(self, codes: Tensor, memory: TextMemory | None) -> Shape:
        batch, _, frames = codes.shape
        if memory is None:
            return Shape(batch, frames, 0, 0)
        tokens = memory.keys[0].shape[2]
        return Shape(batch, frames, memory.batch, -(-tokens // TOKENS) * TOKENS)

    def _network(self, shape: Shape) -> Dense:
        """The buffers of a shape; beyond MOST_SHAPES, those unused for longest are freed, with their graphs."""
        network = self._networks.pop(shape, None) or self._build(shape)
        self._networks[shape] = network  # move it to the end
        while len(self._networks) > MOST_SHAPES:
            oldest = next(iter(self._networks))
            del self._networks[oldest]
            self._heard.pop(oldest, None)
            self._graphs = {key: graph for key, graph in self._graphs.items() if key[0] != oldest}
        return network

    def _build(self, shape: Shape) -> Dense:
        known = {key[0] for key in self._compiled}
        stages = self._stages if shape in known or len(known) < MOST_COMPILED else EAGER
        return Dense(self.model, shape, self._weights, stages)


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
