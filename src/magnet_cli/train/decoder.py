"""Training MAGNeT's decoder, from scratch or from any checkpoint.

Every step trains one codebook on spans hidden at a random rate. Some clips are trained without their text, which makes
guidance possible. See `masking`. The training writes a bundle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from magnet_cli.audio.files import write_audio
from magnet_cli.checkpoints.bundle import Model, Origin, write_bundle
from magnet_cli.checkpoints.parts import CodecCheckpoint, DecoderCheckpoint, build_codec
from magnet_cli.decoding.masked import decode
from magnet_cli.errors import UsageError
from magnet_cli.hub.folders import TEXT_FOLDER, TOKENS_FOLDER
from magnet_cli.hub.registry import UNKNOWN_LICENCE
from magnet_cli.model.codec import Codec
from magnet_cli.model.config import DecoderConfig, TextConfig
from magnet_cli.model.decoder import MaskedTransformer
from magnet_cli.model.text_encoder import TextEncoder
from magnet_cli.options.sampling import SamplingConfig, Task, default_sampling
from magnet_cli.train.code_cache import OnTokens, Tokens, tokenize
from magnet_cli.train.data import Example, batch_indices, find_examples, share
from magnet_cli.train.masking import Plan, draw_plan, hide
from magnet_cli.train.options import DecoderShape, DecoderTraining, Optimization, Places, RunOptions, TextShape
from magnet_cli.train.own_text_encoder import learn_tokenizer, new_text_encoder, write_text_encoder
from magnet_cli.train.run import Average, OnProgress, open_accelerator, rate_at, set_rate, train
from magnet_cli.train.trainable import (
    Batch,
    TrainableDecoder,
    add_adapters,
    as_text_encoder,
    decoder_weights,
    initialize,
    pad_tokens,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

SAMPLED = 4  # clips generated as samples
OWN_TEXT = "own"  # the name of a text encoder that was trained with the decoder


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What the bundle says about the model, and the type of its weights."""

    name: str
    task: Task = "music"
    licence: str = UNKNOWN_LICENCE
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Parts:
    """What a training starts from.

    text_folder: None for a text encoder that is trained with the decoder; sampling: the options that the bundle names,
    if the training continues from one.
    """

    decoder: MaskedTransformer
    codec: CodecCheckpoint
    text: TextEncoder
    text_name: str
    text_folder: Path | None
    sampling: SamplingConfig | None = None


def start_from(model: Model) -> Parts:
    """The parts of a model whose decoder is trained further. Codec and text encoder stay as they are."""
    decoder = MaskedTransformer(model.decoder.config)
    decoder.load_state_dict({name: weight.float() for name, weight in model.decoder.weights.items()})
    text = TextEncoder.load(model.text_folder, "cpu")
    return Parts(decoder, model.codec, text, model.decoder.text.name, model.text_folder, model.own_sampling)


def start_new(
    shape: DecoderShape,
    codec: CodecCheckpoint,
    *,
    seed: int,
    text: TextShape | Path,
    texts: Sequence[str] = (),
    text_name: str = OWN_TEXT,
) -> Parts:
    """A decoder with random weights, for a codec.

    text: the shape of a new text encoder, whose tokenizer is learned from `texts`, or the folder of one that stays.
    """
    torch.manual_seed(seed)
    folder = text if isinstance(text, Path) else None
    if isinstance(text, Path):
        encoder = TextEncoder.load(text, "cpu")
    else:
        encoder = new_text_encoder(text, learn_tokenizer(texts, text.vocabulary, text.round_numbers))
    config = DecoderConfig(
        width=shape.width,
        heads=shape.heads,
        layers=shape.layers,
        feed_forward=shape.feed_forward,
        codebooks=codec.config.codebooks,
        codes=codec.config.codes,
        text_width=encoder.width,
        span_length=shape.span_length,
        context=shape.context,
        clip_seconds=shape.clip_seconds,
        max_period=shape.max_period,
        position_scale=1.0,
    )
    decoder = MaskedTransformer(config)
    initialize(decoder)
    return Parts(decoder, codec, encoder, text_name, folder)


class DecoderTrainer:
    """A decoder that is trained: its networks, optimizer and data."""

    def __init__(
        self,
        accelerator: Accelerator,
        parts: Parts,
        tokens: Tokens,
        examples: Sequence[Example],
        *,
        codec: Codec,
        run: RunOptions,
        options: DecoderTraining,
        optimization: Optimization,
        publication: Publication,
        places: Places,
    ) -> None:
        self.accelerator, self.parts, self.tokens, self.examples = accelerator, parts, tokens, examples
        self.codec, self.run, self.options, self.optimization = codec, run, options, optimization
        self.publication, self.places = publication, places
        self.config = parts.decoder.config
        if options.lora is not None:
            torch.manual_seed(run.seed)
            add_adapters(parts.decoder, options.lora)
        parts.text.model.to(accelerator.device)
        self.network = TrainableDecoder(parts.decoder, parts.text.model, train_text=parts.text_folder is None).to(
            accelerator.device
        )
        self.text = as_text_encoder(self.network, parts.text)
        self.trained = [weight for weight in self.network.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(
            self.trained, optimization.learning_rate, optimization.betas, weight_decay=optimization.weight_decay
        )
        self.wrapped, self.optimizer = accelerator.prepare(self.network, optimizer)
        self.average = Average(self.network, optimization.ema)

    def batch(self, number: int) -> tuple[Batch, int]:
        """This process's part of a step, and how many codes are hidden in the whole batch, over all processes."""
        size, codebooks, frames = self.run.batch_size, self.config.codebooks, self.tokens.codes.shape[-1]
        indices = np.asarray(batch_indices(len(self.tokens.codes), size, number, self.run.seed))
        plan = draw_plan(
            self.run.seed,
            number,
            (size, codebooks, frames),
            span=self.config.span_length,
            text_dropout=self.options.text_dropout,
            codebook_shares=self.options.codebook_shares,
        )
        counted = plan.mask & (np.arange(frames) < self.tokens.valid[indices][:, None])
        mine = share(size, self.accelerator.process_index, self.accelerator.num_processes)
        return self._part(plan, indices, counted, mine), max(1, int(counted.sum()))

    def _part(self, plan: Plan, indices: np.ndarray[Any, Any], counted: np.ndarray[Any, Any], mine: slice) -> Batch:
        """The items of `mine`, those with a text first."""
        codes = self.tokens.codes[indices]
        seen = hide(codes, plan, self.config.mask_code)
        rows = np.arange(len(indices))[mine]
        rows = rows[np.argsort(plan.dropped[rows], kind="stable")]
        ids = []
        for row in rows[~plan.dropped[rows]]:
            texts = self.examples[self.tokens.example[indices[row]]].texts
            ids.append(self.text.tokenize(texts[int(plan.choices[row] * len(texts))]))
        device = self.accelerator.device
        tokens, lengths = pad_tokens(ids, device)
        return Batch(
            codes=torch.from_numpy(codes[rows].astype(np.int64)).to(device),
            seen=torch.from_numpy(seen[rows]).to(device),
            mask=torch.from_numpy(counted[rows]).to(device),
            codebook=plan.codebook,
            tokens=tokens,
            lengths=lengths,
        )

    def step(self, number: int) -> dict[str, float]:
        """One update of the weights."""
        rate = rate_at(number, self.run.steps, self.optimization)
        set_rate(self.optimizer, rate)
        torch.manual_seed(self.run.seed * 1_000_003 + number)  # for the dropout of adapters
        batch, hidden = self.batch(number)
        self.network.train()
        total = self.wrapped(batch)
        # Gradients are averaged over processes; this factor makes them those of the mean over all hidden codes.
        self.accelerator.backward(total * (self.accelerator.num_processes / hidden))
        figures = {}
        if self.optimization.max_norm:
            norm = self.accelerator.clip_grad_norm_(self.trained, self.optimization.max_norm)
            figures["grad_norm"] = float(norm) if norm is not None else 0.0
        self.optimizer.step()
        self.optimizer.zero_grad()
        if (number + 1) % self.optimization.ema_every == 0 or number + 1 == self.run.steps:
            self.average.update(self.network)
        loss = float(self.accelerator.reduce(total.detach(), "sum")) / hidden
        return {"loss": loss, f"loss_{batch.codebook}": loss, "lr": rate, **figures}

    def state(self) -> dict[str, Any]:
        """Weights, optimizer, average."""
        scaler = self.accelerator.scaler
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load(state["average"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def publish(self, output: Path) -> None:
        """Write the bundle, with averaged weights."""
        folder, dtype = self.parts.text_folder, self.publication.dtype
        with self.average.applied(self.network):
            weights = decoder_weights(self.network.decoder, dtype)
            if folder is None:
                folder = self.places.run / TEXT_FOLDER
                write_text_encoder(self.text, folder, dtype)
        codec = self.parts.codec
        if self.publication.dtype != torch.float32:
            codec = CodecCheckpoint(
                codec.path, codec.config, {name: one.to(dtype) for name, one in codec.weights.items()}
            )
        model = Model(
            Origin(self.publication.name, None, None, self.publication.licence),
            DecoderCheckpoint(output, self.config, TextConfig(self.parts.text_name), self.publication.task, weights),
            codec,
            folder,
            self.parts.sampling,
        )
        write_bundle(model, output, overwrite=True)

    def sample(self, folder: Path, number: int) -> None:
        """Clips for the texts of some examples."""
        texts = [example.texts[0] for example in self.examples[:SAMPLED]]
        frames = int(self.config.clip_seconds * self.codec.config.frame_rate)
        sampling: SamplingConfig = default_sampling(
            self.publication.task, self.config.clip_seconds, self.config.codebooks
        )
        self.network.eval()
        with self.average.applied(self.network), torch.inference_mode():
            states = self.text.encode(texts)
            memory = self.network.decoder.text_memory(states.states, states.lengths)
            codes = decode(self.network.decoder, memory, list(range(len(texts))), sampling, frames=frames)
            waveforms = self.codec.decode(codes).cpu().clamp(-1, 1).numpy()
        for index, waveform in enumerate(waveforms):
            path = folder / f"step{number:07d}-{index}.wav"
            write_audio(path, waveform, self.codec.config.sample_rate, "pcm16", overwrite=True)


def train_decoder(
    data: Path,
    output: Path,
    parts: Parts,
    *,
    run: RunOptions,
    publication: Publication,
    options: DecoderTraining | None = None,
    optimization: Optimization | None = None,
    on_progress: OnProgress | None = None,
    on_tokens: OnTokens | None = None,
) -> None:
    """Train a decoder on a folder of audio and texts, resuming an earlier training of the same output.

    parts: of `start_new` or `start_from`. Writes a bundle to `output`, at every saved state and at the end.

    Raises: UsageError for data or options that cannot work; OutputError for an output that is neither new nor of an
    earlier training.
    """
    options, optimization = options or DecoderTraining(), optimization or Optimization()
    places = Places(output)
    places.check("decoder", [data, *([] if parts.text_folder is None else [parts.text_folder])])
    config = parts.decoder.config
    shares = options.codebook_shares
    if shares is not None and (len(shares) != config.codebooks or min(shares) < 0 or sum(shares) <= 0):
        raise UsageError(
            f"there are {len(shares)} shares for {config.codebooks} codebooks", "Give one share for each codebook"
        )
    accelerator = open_accelerator(run, options.precision)
    share(run.batch_size, 0, accelerator.num_processes)
    examples = find_examples(data, texts=True)
    codec = build_codec(parts.codec, accelerator.device)
    tokens = tokenize(
        examples,
        codec,
        places.run / TOKENS_FOLDER,
        codebooks=config.codebooks,
        clip_seconds=config.clip_seconds,
        accelerator=accelerator,
        on_tokens=on_tokens,
    )
    trainer = DecoderTrainer(
        accelerator,
        parts,
        tokens,
        examples,
        codec=codec,
        run=run,
        options=options,
        optimization=optimization,
        publication=publication,
        places=places,
    )
    settings = {
        "kind": "decoder",
        "clips": len(tokens.codes),
        "decoder": asdict(config),
        "text": parts.text_name,
        "training": asdict(options),
        "optimization": asdict(optimization),
        **{name: getattr(run, name) for name in ("steps", "batch_size", "seed")},
    }
    train(trainer, accelerator, run, places, settings, on_progress)
