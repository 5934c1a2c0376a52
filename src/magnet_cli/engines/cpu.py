"""The network of `decoding.masked` on a CPU: the same logits, without work that cannot change them.

Left out are (each is zero, or was computed before):
- cross-attention of unconditional rows, and the whole unconditional half where guidance is the conditional half;
- attention to frames outside the neighbourhood, in codebooks above the first;
- everything that no wanted frame depends on: with a neighbourhood of c frames, a frame's state l layers below the
  output can reach only frames within l*c of it;
- states that have not changed since the step before: a new code changes states l layers above it within l*c only.

`decode` calls `FastTransformer.guided`; its result depends on its arguments alone, except for
rounding: what is left out changes the order in which numbers are added. In float32 the codes are those of the plain
network; in bfloat16, and in int8 with its rounded matrices, a code can differ from it where two are about equally
probable. A clip that is decoded alone after `forget`, as the pipeline does on CPUs, is computed by the same operations
each time, so its codes are the same each time, in every dtype.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from magnet_cli.engines.linear import Int8Linear, Projections
from magnet_cli.engines.local_attention import Band
from magnet_cli.model.decoder import (
    Layer,
    MaskedTransformer,
    TextMemory,
    guide,
    merge_heads,
    sinusoidal_positions,
    split_heads,
)

# Guidance weights this near to 1 count as 1. The last step's differs from 1 by the guidance times the cosine of pi/2,
# which is -4e-8 in float32. The logits that are then not computed would change the result by a millionth of their size,
# as summing in another order does in float32.
UNGUIDED = 2.0**-20
# States are kept from step to step up to this size. 10 s of the small model take 0.4 GB in float32, 30 s 1.2 GB.
MOST_KEPT_BYTES = 2_000_000_000
# Frames that attend together to their neighbourhood. With fewer, less is computed only to be masked.
BLOCK = 16


class Reach:
    """Which frames must be computed, in each layer: bool [R, T], R conditional and unconditional rows.

    `stale[l]` is True where the kept input of layer l (the last: of the output head) is out of date.
    """

    def __init__(self, layers: int, rows: int, frames: int) -> None:
        self.stale = [torch.ones(rows, frames, dtype=torch.bool) for _ in range(layers + 1)]

    def forget(self, first: int = 0) -> None:
        """Mark everything as out of date, from the input of this layer on."""
        for stale in self.stale[first:]:
            stale.fill_(True)

    def plan(self, changed: Tensor, wanted: Tensor, context: int | None) -> list[Tensor]:
        """The frames whose input to each layer has to be computed, lowest layer first; the last is the head.

        changed, wanted: bool [R, T]. context: None for attention to every frame. They count as computed from now on.
        """
        needed = [wanted]
        for _ in self.stale[1:]:
            needed.insert(0, widen(needed[0], context))
        spreading = self.stale[0] = self.stale[0] | changed
        for index in range(1, len(self.stale)):
            spreading = self.stale[index] = self.stale[index] | widen(spreading, context)
        work = [need & stale for need, stale in zip(needed, self.stale, strict=True)]
        self.stale = [stale & ~done for stale, done in zip(self.stale, work, strict=True)]
        return work


def widen(mask: Tensor, context: int | None) -> Tensor:
    """The frames that attend to, or are attended to by, these. bool [R, T]; context: None for every frame."""
    if context is None:
        return mask.any(dim=-1, keepdim=True).expand_as(mask)
    if context == 0:
        return mask
    return F.max_pool1d(mask.to(torch.float32), 2 * context + 1, stride=1, padding=context) > 0


def indices(mask: Tensor) -> Tensor | None:
    """Flat indices where a mask is True; None for all."""
    return None if mask.all() else mask.flatten().nonzero().squeeze(1)


def rows_at(x: Tensor, index: Tensor | None) -> Tensor:
    """x[index]; None: all of it, not copied."""
    return x if index is None else x.index_select(0, index)


def store_at(x: Tensor, index: Tensor | None, values: Tensor) -> None:
    """x[index] = values; None: all of it."""
    if index is None:
        x.copy_(values)
    else:
        x.index_copy_(0, index, values)


class States:
    """The states of one clip that are kept between steps, for R rows of T frames, flattened to M = R * T."""

    def __init__(self, model: MaskedTransformer, rows: int, frames: int) -> None:
        config, like = model.config, model.out_norm.weight
        layers = config.layers
        size = rows * frames * config.width * (4 * layers + 1) * like.element_size()
        self.kept = size <= MOST_KEPT_BYTES
        copies = layers if self.kept else 1
        inputs = [like.new_zeros(rows * frames, config.width) for _ in range(copies + self.kept)]
        self.band = Band.build(rows, frames, max(config.context, 0), BLOCK, model.device)
        buffers = [self.band.buffer(config.width, like) for _ in range(copies)]
        self.inputs = inputs if self.kept else inputs * (layers + 1)  # [M, D], of each layer and of the head
        self.qkv = buffers if self.kept else buffers * layers
        self.rows, self.frames = rows, frames
        self.reach = Reach(layers, rows, frames)
        self.codes: Tensor | None = None  # [B, K, T]: what the inputs of the first layer were computed from
        self.context: int | None = None  # of the attention that all the others were computed with
        self.positions = sinusoidal_positions(config, frames, model.device).to(model.dtype)


class FastTransformer:
    """A MaskedTransformer's logits for `decode`, on the CPU. It shares the model's weights.

    int8: multiply by matrices of 8 bits; approximate, see `linear`.
    """

    def __init__(self, model: MaskedTransformer, *, int8: bool = False) -> None:
        self.model = model
        self.config = model.config
        self._layers: list[Layer] = [layer for layer in model.layers if isinstance(layer, Layer)]
        # Outside of 8 bits, matrices stay as they are: CPUs multiply by a plain matrix as fast as by a packed one.
        form: Callable[[nn.Linear], Callable[[Tensor], Tensor]] = Int8Linear if int8 else lambda linear: linear
        self._projections = [Projections.of(layer, form) for layer in self._layers]
        self._memory: TextMemory | None = None
        self._states: States | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the activations."""
        return self.model.dtype

    def forget(self) -> None:
        """Free what is kept for the next step of a clip."""
        self._memory = self._states = None

    @torch.inference_mode()
    def guided(
        self, codes: Tensor, codebook: int, memory: TextMemory | None, weight: float, wanted: Tensor | None = None
    ) -> Tensor:
        """Guided logits of one codebook, float32 [B, T, V], zero where not wanted.

        codes: [B, K, T], with the mask token where a code is to be predicted; memory: of B prompts, or of 2B, where the
        second half is guided away from; None: no text and no guidance. wanted: bool [B, T]; None: everywhere.
        """
        batch, _, frames = codes.shape
        guided = memory is not None and abs(weight - 1) > UNGUIDED
        if wanted is None:
            wanted = torch.ones(batch, frames, dtype=torch.bool, device=codes.device)
        states = self._states_for(memory, batch if memory is None else 2 * batch, frames)
        self._states = None  # until they are complete again: a failure in between leaves states that must not be used
        active = wanted.repeat(states.rows // batch, 1)
        if not guided:
            active[batch:] = False
        text_rows = 0 if memory is None else memory.batch
        self._advance(states, codes, codebook, active, text_rows if guided else min(text_rows, batch))
        at = wanted.flatten().nonzero().squeeze(1)
        if guided:
            at = torch.cat([at, at + batch * frames])
        logits = self.model.output_heads[codebook](self.model.out_norm(states.inputs[-1].index_select(0, at)))
        found = guide(logits, weight) if guided else logits.float()
        self._states = states
        result = found.new_zeros(batch * frames, found.shape[-1])
        return result.index_copy_(0, at[: len(found)], found).unflatten(0, (batch, frames))

    def _states_for(self, memory: TextMemory | None, rows: int, frames: int) -> States:
        """The states of the clip being decoded; those of another clip are forgotten."""
        states = self._states
        if states is None or (states.rows, states.frames) != (rows, frames):
            states = States(self.model, rows, frames)
        elif memory is not self._memory:
            states.reach.forget(1)  # the codes alone decide the first layer's input
        self._memory = memory
        return states

    def _advance(self, states: States, codes: Tensor, codebook: int, active: Tensor, text_rows: int) -> None:
        """Bring the head's input up to date where `active` [R, T]; the first `text_rows` rows attend to the text."""
        rows, frames = states.rows, states.frames
        context = self.config.context if codebook > 0 and self.config.context >= 0 else None
        if context != states.context or not states.kept:
            states.reach.forget(1 if states.kept else 0)
            states.context = context
        changed = (
            (codes != states.codes).any(dim=1) if states.codes is not None else torch.ones_like(codes[:, 0]).bool()
        )
        states.codes = codes.clone()
        work = states.reach.plan(changed.repeat(rows // len(codes), 1), active, context)
        self._embed(states, codes, indices(work[0]))
        live = int(active.any(dim=1).nonzero().max()) + 1 if active.any() else 0  # rows beyond are not used
        for index in range(self.config.layers):
            inputs, outputs = work[index][:live], work[index + 1][:live]
            if not outputs.any() and not inputs.any():
                continue
            self._project(states, index, indices(inputs), live * frames)
            if outputs.any():
                self._layer(states, index, outputs, min(text_rows, live))

    def _embed(self, states: States, codes: Tensor, index: Tensor | None) -> None:
        """The first layer's input at these indices."""
        if index is None:
            index = torch.arange(states.rows * states.frames, device=codes.device)
        row, frame = index.div(states.frames, rounding_mode="floor") % len(codes), index % states.frames
        tokens = codes[row, :, frame]  # [M', K]
        states.inputs[0].index_copy_(0, index, self.model.embed(tokens) + states.positions[frame])

    def _project(self, states: States, index: int, at: Tensor | None, size: int) -> None:
        """Queries, keys and values of a layer at these indices of the first `size` flattened frames."""
        layer = self._layers[index]
        x = rows_at(states.inputs[index][:size], at)
        if len(x):
            values = self._projections[index].qkv(layer.self_norm(x))
            store_at(states.band.inside(states.qkv[index])[:size], at, values)

    def _layer(self, states: States, index: int, outputs: Tensor, text_rows: int) -> None:
        """The output of a layer where `outputs` [R', T] is set, from its queries, keys and values."""
        layer, project, memory = self._layers[index], self._projections[index], self._memory
        at, size = indices(outputs), outputs.numel()
        attended = rows_at(self._attend(states, index, len(outputs)), at)
        x = rows_at(states.inputs[index][:size], at) + project.out(attended)
        conditioned = text_rows * states.frames if at is None else int(outputs[:text_rows].sum())
        if memory is not None and conditioned:
            query = project.cross_query(layer.cross_norm(x[:conditioned]))
            heard = self._listen(query, memory, index, outputs[:text_rows])
            x[:conditioned] += project.cross_out(heard)
        x += project.down(F.gelu(project.up(layer.feed_forward_norm(x))))
        store_at(states.inputs[index + 1][:size], at, x)

    def _attend(self, states: States, index: int, rows: int) -> Tensor:
        """Self-attention of all frames of the first rows. Returns [M', D]."""
        frames, heads = states.frames, self.config.heads
        size, buffer = rows * frames, states.qkv[index]
        if states.context is not None:
            return states.band.attend(buffer, heads, size)
        parts = states.band.inside(buffer)[:size].unflatten(0, (rows, frames)).chunk(3, dim=-1)
        query, key, value = (split_heads(part, heads) for part in parts)
        return merge_heads(F.scaled_dot_product_attention(query, key, value)).flatten(0, 1)

    def _listen(self, query: Tensor, memory: TextMemory, index: int, outputs: Tensor) -> Tensor:
        """Cross-attention of the frames where `outputs` [R', T] is set; query: [M', D]. Returns [M', D]."""
        rows, frames = outputs.shape
        every = query.new_zeros(rows * frames, query.shape[-1])
        at = indices(outputs)
        if at is None:
            every = query
        else:
            every.index_copy_(0, at, query)
        heard = F.scaled_dot_product_attention(
            split_heads(every.unflatten(0, (rows, frames)), self.config.heads),
            memory.keys[index][:rows],
            memory.values[index][:rows],
            None if memory.attn_mask is None else memory.attn_mask[:rows],
        )
        return rows_at(merge_heads(heard).flatten(0, 1), at)
