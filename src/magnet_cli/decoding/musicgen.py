"""MusicGen, in the format and with the network of `transformers`: autoregressive, for rescoring and generating.

Copet et al., "Simple and Controllable Music Generation" (NeurIPS 2023). One pass predicts a code of every codebook,
but of different frames: the delay pattern shifts codebook k right by k frames, so that the codes of a frame are
predicted one after the other. Column 0 holds the padding token; frame t of codebook k stands in column 1 + t + k;
whatever is left of that or right of the last frame is padding. The output at a column predicts the next one.

Letters: B batch, K codebooks, T frames, V codes, N text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from magnet_cli.decoding.masked import Known
from magnet_cli.decoding.philox import Numbers
from magnet_cli.decoding.steps import propose
from magnet_cli.errors import ModelError, NumericsError, UsageError, not_finite_remedy, one_line
from magnet_cli.model.decoder import guide
from magnet_cli.model.text_encoder import TextEncoder
from magnet_cli.model.weights import assign, check_parts, without_weights
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig

if TYPE_CHECKING:
    from transformers import MusicgenDecoderConfig, MusicgenForCausalLM
    from transformers.cache_utils import Cache
from magnet_cli.checkpoints.musicgen import MusicGenCheckpoint, read_musicgen

# Stands in a delayed grid for a code that is yet to be predicted.
OPEN = -1
# In the place of the codebook in the counter of random numbers: no masked model has so many, so a hybrid of MusicGen
# and MAGNeT under one seed draws different numbers in its two halves.
DRAWS = 1 << 16


# -- the delay pattern ------------------------------------------------------------------------------------------------


def delay(codes: Tensor, pad: int) -> Tensor:
    """Codes [B, K, T] in the delay pattern: [B, K, T + K], with `pad` where there is no code."""
    batch, codebooks, frames = codes.shape
    grid = codes.new_full((batch, codebooks, frames + codebooks), pad)
    for k in range(codebooks):
        grid[:, k, 1 + k : 1 + k + frames] = codes[:, k]
    return grid


def undelay(grid: Tensor) -> Tensor:
    """The codes [B, K, T] of a delayed grid [B, K, T + K]."""
    codebooks = grid.shape[1]
    frames = grid.shape[2] - codebooks
    return torch.stack([grid[:, k, 1 + k : 1 + k + frames] for k in range(codebooks)], dim=1)


# -- the model --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextCondition:
    """What cross-attention reads, computed once per prompt.

    states: [B, N, D]; attn_mask: bool [B, N], True where a token may be attended to.
    An unconditional row has states of zero: attention to zeros adds exactly 0, as its projections have no biases.
    """

    states: Tensor
    attn_mask: Tensor

    def with_unconditional(self) -> TextCondition:
        """These rows, followed by as many unconditional rows."""
        return TextCondition(
            torch.cat([self.states, torch.zeros_like(self.states)]), torch.cat([self.attn_mask, self.attn_mask])
        )


@dataclass(frozen=True)
class ColumnDone:
    """A pass, which predicts a column of the delayed grid, is done; it is number `done` of `total`."""

    done: int
    total: int


class MusicGen:
    """MusicGen's decoder with its text encoder. Its codec is built elsewhere, when it is needed."""

    def __init__(
        self, decoder: MusicgenForCausalLM, text_encoder: TextEncoder, projection: nn.Module, source: MusicGenCheckpoint
    ) -> None:
        self.decoder = decoder
        self.text_encoder = text_encoder
        self.projection = projection
        self.source = source

    @classmethod
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> MusicGen:
        """Read and build the model in a folder. Raises ModelError as `read_musicgen` and `build` do."""
        return cls.build(read_musicgen(folder), device, dtype)

    @classmethod
    def build(cls, source: MusicGenCheckpoint, device: torch.device, dtype: torch.dtype) -> MusicGen:
        """On a device: the decoder in `dtype`, the text encoder in float32. ModelError for a tensor that misfits."""
        weights, path = source.weights, source.path
        text_encoder = TextEncoder.from_parts(source.text, weights["text_encoder"], path, device=device)
        check_parts(weights["decoder"], source.decoder.num_hidden_layers + 2 * source.decoder.num_codebooks, path)
        decoder = assign(_empty_decoder(source), weights["decoder"], path, device=device, dtype=dtype)
        table = decoder.model.decoder.embed_positions
        sines = table.get_embedding(table.num_positions, table.embedding_dim)  # computed, hence in no file
        table.weights = nn.Buffer(sines.to(device, dtype), persistent=False)
        projection: nn.Module = nn.Identity()
        if text_encoder.width != source.decoder.hidden_size:
            with without_weights():
                linear = nn.Linear(text_encoder.width, source.decoder.hidden_size)
            projection = assign(linear, weights["enc_to_dec_proj"], path, device=device, dtype=dtype)
        return cls(decoder, text_encoder, projection, source)

    @property
    def codebooks(self) -> int:
        """K."""
        return int(self.source.decoder.num_codebooks)

    @property
    def codes(self) -> int:
        """V; token V is the padding."""
        return int(self.source.decoder.vocab_size)

    @property
    def frame_rate(self) -> int:
        """Frames in a second."""
        return self.source.codec.config.frame_rate

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.decoder.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the decoder's weights and activations."""
        return next(self.decoder.parameters()).dtype

    @torch.inference_mode()
    def condition(self, prompts: Sequence[str | None]) -> TextCondition:
        """Encode prompts, each by itself; None: no text."""
        text = self.text_encoder.encode(["" if prompt is None else prompt for prompt in prompts])
        tokens = torch.arange(text.states.shape[1], device=self.device)
        attn_mask = tokens < torch.tensor(text.lengths, device=self.device).view(-1, 1)  # [B, N]
        given = torch.tensor([prompt is not None for prompt in prompts], device=self.device).view(-1, 1)
        states = self.projection(text.states.to(self.device, self.dtype))
        return TextCondition(states * (attn_mask & given).unsqueeze(-1), attn_mask)

    def states(self, grid: Tensor, text: TextCondition, cache: Cache | None = None) -> Tensor:
        """The decoder's states [B, S, D] for columns [B, K, S] of a delayed grid.

        cache: holds the columns before these, and afterwards these too.
        """
        output = self.decoder.model(
            input_ids=grid.flatten(0, 1),
            encoder_hidden_states=text.states,
            encoder_attention_mask=text.attn_mask,
            use_cache=cache is not None,
            **{self._cache_argument: cache},
        )
        return output.last_hidden_state

    @cached_property
    def _cache_argument(self) -> str:
        """The name of the cache in transformers: `cache` since 5.24, `past_key_values` before."""
        return "cache" if "cache" in signature(self.decoder.model.forward).parameters else "past_key_values"

    def check_frames(self, frames: int) -> None:
        """Raise UsageError for a clip of more frames than the model can handle."""
        most, rate = self.source.most_frames, self.source.codec.config.frame_rate
        if frames > most:
            raise UsageError(
                f"{frames / rate:g} s are more than the {most / rate:g} s that MusicGen can generate or score",
                "Give a shorter duration, or use MAGNeT without MusicGen",
            )

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[str | None],
        seeds: Sequence[int],
        frames: int,
        *,
        sampling: MusicGenSampling,
        prefix: Tensor | None = None,
        on_step: Callable[[ColumnDone], None] | None = None,
    ) -> Tensor:
        """Codes [B, K, T] of one clip for each prompt (None: no text), with its own seed.

        prefix: codes [B or 1, K, P] that the clips begin with. on_step: called after every pass.
        Raises UsageError for a clip that is too long or a prefix that does not fit, NumericsError when the model
        computes a value that is not finite.
        """
        self.check_frames(frames)
        if len(seeds) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds")
        grid, first = self._start(len(prompts), frames, prefix)
        is_open = grid == OPEN
        text = self.condition(prompts)
        guidance = sampling.guidance if any(prompt is not None for prompt in prompts) else 1.0
        if guidance != 1:
            text = text.with_unconditional()
        cache, numbers = _empty_cache(self.source.decoder), Numbers.of(seeds, self.device)
        seen, last, checks = 0, grid.shape[-1] - 1, FiniteChecks(self.dtype)
        for column in range(first, last + 1):
            logits = self._predict(grid[..., seen:column], text, guidance, cache, checks)
            drawn = self._draw(logits, numbers, column, sampling)
            grid[..., column] = torch.where(is_open[..., column], drawn, grid[..., column])
            seen = column
            if on_step is not None:
                on_step(ColumnDone(column - first + 1, last - first + 1))
        checks.check()
        return undelay(grid)

    def _predict(
        self, columns: Tensor, text: TextCondition, guidance: float, cache: Cache, checks: FiniteChecks
    ) -> Tensor:
        """Guided logits [B, K, V] of the column after these [B, K, S], which the cache holds afterwards."""
        guided = guidance != 1
        states = self.states(torch.cat([columns, columns]) if guided else columns, text, cache)
        logits = torch.stack([head(states[:, -1]) for head in self.decoder.lm_heads], dim=1).float()
        if guided:
            logits = guide(logits, guidance)
        checks.note(logits)
        return logits

    def _start(self, batch: int, frames: int, prefix: Tensor | None) -> tuple[Tensor, int]:
        """The delayed grid [B, K, T + K], OPEN where a code is to be predicted, and the first column that has one."""
        shape = (batch, self.codebooks, frames)
        codes = torch.full(shape, OPEN, device=self.device)
        given = 0
        if prefix is not None:
            known = Known.prefix(prefix.to(self.device), frames)
            known.check(shape, self.codes)
            codes, given = torch.where(known.keep, known.codes, codes), prefix.shape[-1]
        return delay(codes, self.codes), 1 + given

    def _draw(self, logits: Tensor, numbers: Numbers, column: int, sampling: MusicGenSampling) -> Tensor:
        """Codes [B, K] of a column from its logits [B, K, V]."""
        random = None
        if not sampling.greedy:
            codebooks, codes = logits.shape[1:]
            random = numbers.uniforms(codebook=DRAWS, step=column, frames=codebooks, codes=codes)
        options = SamplingConfig(top_p=sampling.top_p, top_k=sampling.top_k)
        return propose(logits, sampling.temperature, options, random)[0]


class FiniteChecks:
    """Whether what MusicGen or another rescorer computes is finite: looked at once on a GPU, which the host waits for.

    On a CPU, which is looked at for free, the first value that is not ends the work.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._finite: Tensor | None = None  # bool []

    def note(self, values: Tensor) -> None:
        """Remember whether these are. Raises NumericsError on a CPU if they are not."""
        finite = values.isfinite().all()
        self._finite = finite if self._finite is None else self._finite & finite
        if values.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Raise NumericsError if one was not. Waits for the device."""
        if self._finite is not None and not self._finite.item():
            name = str(self._dtype).removeprefix("torch.")
            raise NumericsError(f"a model computed values that are not finite in {name}", not_finite_remedy(name))


def _empty_decoder(source: MusicGenCheckpoint) -> MusicgenForCausalLM:
    """The network without weights."""
    from transformers import MusicgenForCausalLM

    try:
        with without_weights():
            return MusicgenForCausalLM(source.decoder)
    except Exception as error:  # the library checks little of its configuration, and fails in as many ways
        raise ModelError(
            f"the configuration of {source.path} is not that of a MusicGen: {one_line(error)}", "Fetch the model again"
        ) from error


def _empty_cache(config: MusicgenDecoderConfig) -> Cache:
    """A cache for the keys and values of all columns so far, and of the text."""
    from transformers.cache_utils import DynamicCache, EncoderDecoderCache

    return EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
