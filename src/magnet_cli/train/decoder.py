"""Training MAGNeT's decoder, from scratch or from any checkpoint.

Every step trains one codebook on spans hidden at a random rate. Some clips are trained without their text, which makes
guidance possible. See `masking`. The training writes a bundle.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

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
from magnet_cli.train.code_cache import Tokens, cut, encode, tokenize
from magnet_cli.train.codec_folder import read_analysis
from magnet_cli.train.data import Example, batch_indices, held_out_folder, share, split_examples
from magnet_cli.train.loop.average import Average
from magnet_cli.train.loop.events import Encoded, Listener, Outcome, ignore
from magnet_cli.train.loop.run import never, open_accelerator, recorded, train
from magnet_cli.train.loop.schedule import set_rate
from magnet_cli.train.masking import Plan, draw_plan, hide, span_mask
from magnet_cli.train.options import (
    SMALL_WIDTH,
    DecoderShape,
    DecoderTraining,
    Optimization,
    Places,
    RunOptions,
    TextShape,
)
from magnet_cli.train.own_text_encoder import known_words, learn_tokenizer, new_text_encoder, write_text_encoder
from magnet_cli.train.rehearsal import Rehearsal, rehearse, survey
from magnet_cli.train.synonyms import read_synonyms
from magnet_cli.train.trainable import (
    POSITIONED,
    Batch,
    TrainableDecoder,
    add_adapters,
    as_text_encoder,
    begin_with_context,
    decoder_weights,
    initialize,
    pad_tokens,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

SAMPLED = 4  # clips generated as samples, unless prompts are given
# The loss on held-out clips: at least so many draws of masks, of at most so many clips, always from the same seed.
HELD_OUT_DRAWS, HELD_OUT_CLIPS, HELD_OUT_SEED = 16, 64, 0
CONTEXT_CLIPS = 32  # on which the use of context is measured
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
        synonyms = [] if text.synonyms is None else read_synonyms(text.synonyms)
        tokenizer = learn_tokenizer(texts, text.vocabulary, text.round_numbers, synonyms)
        encoder = new_text_encoder(text, tokenizer, known_words(texts))
    begin = shape.begin or ("context" if shape.width <= SMALL_WIDTH else "random")
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
        position_scale=POSITIONED if begin == "context" else 1.0,
    )
    decoder = MaskedTransformer(config)
    (begin_with_context if begin == "context" else initialize)(decoder)
    return Parts(decoder, codec, encoder, text_name, folder)


@dataclass(frozen=True)
class Clips:
    """Codes of clips, and the examples that they are from."""

    tokens: Tokens
    examples: Sequence[Example]


class DecoderTrainer:
    """A decoder that is trained: its networks, optimizer and data."""

    def __init__(
        self,
        accelerator: Accelerator,
        parts: Parts,
        clips: Clips,
        held: Clips | None,
        *,
        codec: Codec,
        run: RunOptions,
        options: DecoderTraining,
        optimization: Optimization,
        publication: Publication,
        places: Places,
        prompts: Sequence[str] = (),
    ) -> None:
        self.accelerator, self.parts, self.clips, self.held = accelerator, parts, clips, held
        self.prompts = tuple(prompts) or tuple(example.texts[0] for example in clips.examples[:SAMPLED])
        self.codec, self.run, self.options, self.optimization = codec, run, options, optimization
        self.publication, self.places = publication, places
        self.config = parts.decoder.config
        self._tokens: dict[str, list[int]] = {}
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
        size, tokens = self.run.batch_size, self.clips.tokens
        indices = np.asarray(batch_indices(len(tokens.codes), size, number, self.run.seed))
        plan = draw_plan(
            self.run.seed,
            number,
            (size, self.config.codebooks, tokens.codes.shape[-1]),
            span=self.config.span_length,
            text_dropout=self.options.text_dropout,
            codebook_shares=self.options.codebook_shares,
            all_hidden=self.options.all_hidden,
        )
        mine = share(size, self.accelerator.process_index, self.accelerator.num_processes)
        return self._part(self.clips, plan, indices, mine)

    def _part(self, clips: Clips, plan: Plan, indices: NDArray[np.int64], mine: slice) -> tuple[Batch, int]:
        """The items of `mine`, those with a text first, and how many codes are hidden in all items."""
        tokens = clips.tokens
        counted = plan.mask & (np.arange(tokens.codes.shape[-1]) < tokens.valid[indices][:, None])
        codes = tokens.codes[indices]
        seen = hide(codes, plan, self.config.mask_code)
        rows = np.arange(len(indices))[mine]
        rows = rows[np.argsort(plan.dropped[rows], kind="stable")]
        ids = []
        for row in rows[~plan.dropped[rows]]:
            texts = clips.examples[tokens.example[indices[row]]].texts
            ids.append(self._tokenized(texts[int(plan.choices[row] * len(texts))]))
        device = self.accelerator.device
        padded, lengths = pad_tokens(ids, device)
        batch = Batch(
            codes=torch.from_numpy(codes[rows].astype(np.int64)).to(device),
            seen=torch.from_numpy(seen[rows]).to(device),
            mask=torch.from_numpy(counted[rows]).to(device),
            codebook=plan.codebook,
            tokens=padded,
            lengths=lengths,
        )
        return batch, max(1, int(counted.sum()))

    def _tokenized(self, text: str) -> list[int]:
        """The tokens of a text, which is read once: a tokenizer with synonyms takes a millisecond."""
        found = self._tokens.get(text)
        if found is None:
            found = self._tokens[text] = self.text.tokenize(text)
        return found

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """The loss of each codebook on the held-out clips, `held_out_0` and so on, and their mean, `held_out`.

        Every measurement hides the same codes, whatever the seed of the training, and no text is left out. Each clip
        is used several times if there are few, and at most HELD_OUT_CLIPS are used.
        """
        figures = self._context()
        if self.held is None:
            return figures
        tokens, size, codebooks = self.held.tokens, self.run.batch_size, self.config.codebooks
        count = len(tokens.codes)
        rows = np.arange(max(HELD_OUT_DRAWS, min(count, HELD_OUT_CLIPS))) * max(1, count / HELD_OUT_CLIPS)
        chosen = rows.astype(np.int64) % count
        losses, hidden = np.zeros(codebooks), np.zeros(codebooks)
        self.network.eval()
        with self.average.applied(self.network):
            for number, start in enumerate(range(0, len(chosen), size)):
                indices = chosen[start : start + size]
                shape = (len(indices), codebooks, tokens.codes.shape[-1])
                plan = draw_plan(HELD_OUT_SEED, number, shape, span=self.config.span_length, text_dropout=0.0)
                for codebook in range(codebooks):
                    batch, counted = self._part(self.held, replace(plan, codebook=codebook), indices, slice(None))
                    losses[codebook] += float(self.network(batch))
                    hidden[codebook] += counted
        means = [float(one) for one in losses / hidden]
        each = {f"held_out_{index}": one for index, one in enumerate(means)}
        return {"held_out": sum(means) / codebooks, **each, **figures}

    def _context(self) -> dict[str, float]:
        """The loss of the first codebook with all of it hidden, and with half of it, on a few held-out clips, or
        clips of the training if none are held out: `all_hidden` and `half_hidden`, in nats.

        Where they are alike, the decoder does not use the codes that it is given.
        """
        clips = self.held or self.clips
        tokens, size = clips.tokens, self.run.batch_size
        chosen = np.arange(CONTEXT_CLIPS) * max(1, len(tokens.codes) // CONTEXT_CLIPS) % len(tokens.codes)
        figures: dict[str, float] = {}
        self.network.eval()
        with self.average.applied(self.network), torch.no_grad():
            for name, rate in (("all_hidden", 1.0), ("half_hidden", 0.5)):
                loss, hidden = 0.0, 0
                for number, start in enumerate(range(0, len(chosen), size)):
                    indices = chosen[start : start + size]
                    shape = (len(indices), 1, tokens.codes.shape[-1])
                    drawn = draw_plan(HELD_OUT_SEED, number, shape, span=self.config.span_length, text_dropout=0.0)
                    random = np.random.default_rng((HELD_OUT_SEED, number))
                    masks = [span_mask(rate, shape[2], self.config.span_length, random) for _ in indices]
                    mask = np.stack(masks) if rate < 1 else np.ones_like(drawn.mask)
                    batch, counted = self._part(clips, replace(drawn, mask=mask), indices, slice(None))
                    loss, hidden = loss + float(self.network(batch)), hidden + counted
                figures[name] = loss / hidden
        return figures

    def step(self, number: int, rate: float) -> dict[str, float]:
        """One update of the weights."""
        set_rate([self.optimizer], rate)
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

    @property
    def size(self) -> int:
        """Bytes of the bundle."""
        networks = [self.network.decoder, *([] if self.network.text is None else [self.network.text])]
        weights = [one for network in networks for one in network.parameters()]
        numbers = sum(one.numel() for one in (*weights, *self.parts.codec.weights.values()))
        folder = self.parts.text_folder
        texts = (
            [] if folder is None else [folder / name for name in ("config.json", "tokenizer.json", "model.safetensors")]
        )
        written = sum(path.stat().st_size for path in texts if path.is_file())
        return numbers * self.publication.dtype.itemsize + written

    def sample(self, folder: Path, number: int) -> None:
        """Clips for the prompts, each always with the same seed."""
        texts = self.prompts
        frames = int(self.config.clip_seconds * self.codec.config.frame_rate)
        sampling = self.parts.sampling or default_sampling(
            self.publication.task, self.config.clip_seconds, self.config.codebooks
        )
        self.network.eval()
        with self.average.applied(self.network), torch.inference_mode():
            states = self.text.encode(list(texts))
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
    prompts: Sequence[str] = (),
    listener: Listener = ignore,
    stopped: Callable[[], bool] = never,
) -> Outcome:
    """Train a decoder on a folder of audio and texts, resuming an earlier training of the same output.

    parts: of `start_new` or `start_from`. prompts: of the samples, by default the texts of some examples. stopped:
    asked after every step whether to save the state and stop. Writes a bundle to `output`, at every saved state and at
    the end.

    Raises: UsageError for data or options that cannot work; OutputError for an output that is neither new nor of an
    earlier training; KeyboardInterrupt when it was stopped.
    """
    options, optimization = options or DecoderTraining(), optimization or Optimization()
    places = Places(output)
    places.check("decoder", [path for path in (data, parts.text_folder, held_out_folder(run.held_out)) if path])
    config = parts.decoder.config
    accelerator = prepared(parts, run, options)
    split = split_examples(data, run.held_out, texts=True)
    codec, analysis = build_codec(parts.codec, accelerator.device), read_analysis(parts.codec)

    def clips_of(examples: Sequence[Example]) -> Clips:
        tokens = tokenize(
            examples,
            codec,
            places.run / TOKENS_FOLDER,
            codebooks=config.codebooks,
            clip_seconds=config.clip_seconds,
            accelerator=accelerator,
            analysis=analysis,
            on_tokens=lambda done, total: listener(Encoded(done, total)),
        )
        return Clips(tokens, examples)

    clips, held = clips_of(split.training), clips_of(split.held_out) if split.held_out else None
    trainer = DecoderTrainer(
        accelerator,
        parts,
        clips,
        held,
        codec=codec,
        run=run,
        options=options,
        optimization=optimization,
        publication=publication,
        places=places,
        prompts=prompts,
    )
    settings = settings_of(parts, options, len(clips.tokens.codes))
    return train(
        trainer, accelerator, run, places, settings, optimization=optimization, listener=listener, stopped=stopped
    )


def prepared(parts: Parts, run: RunOptions, options: DecoderTraining) -> Accelerator:
    """The accelerator of a training whose options fit its decoder and its processes. UsageError for others."""
    shares, codebooks = options.codebook_shares, parts.decoder.config.codebooks
    if shares is not None and (len(shares) != codebooks or min(shares) < 0 or sum(shares) <= 0):
        raise UsageError(
            f"there are {len(shares)} shares for {codebooks} codebooks", "Give one share for each codebook"
        )
    accelerator = open_accelerator(run, options.precision)
    share(run.batch_size, 0, accelerator.num_processes)
    return accelerator


def settings_of(parts: Parts, options: DecoderTraining, clips: int) -> dict[str, Any]:
    """What a decoder's training depends on, beside its length and optimization."""
    return {
        "kind": "decoder",
        "clips": clips,
        "decoder": asdict(parts.decoder.config),
        "text": parts.text_name,
        "training": asdict(options),
    }


def rehearse_decoder(
    data: Path,
    output: Path,
    parts: Parts,
    *,
    run: RunOptions,
    publication: Publication,
    options: DecoderTraining,
    optimization: Optimization,
) -> Rehearsal:
    """What `train_decoder` will need, from two steps on random codes. Nothing is written.

    Raises: what `train_decoder` raises before its first step.
    """
    places = Places(output)
    places.check("decoder", [path for path in (data, parts.text_folder, held_out_folder(run.held_out)) if path])
    config, codebooks = parts.decoder.config, parts.decoder.config.codebooks
    accelerator = prepared(parts, run, options)
    split = split_examples(data, run.held_out, texts=True)
    pieces = cut(split.training, config.clip_seconds)
    total = len(pieces) + len(cut(split.held_out, config.clip_seconds))
    codec = build_codec(parts.codec, accelerator.device)
    start = time.perf_counter()
    analysis = read_analysis(parts.codec)
    encode(
        pieces[0],
        split.training,
        codec,
        codebooks=codebooks,
        clip_seconds=config.clip_seconds,
        analysis=analysis,
    )
    seconds = time.perf_counter() - start

    frames = int(config.clip_seconds * codec.config.frame_rate)
    shape = (min(len(pieces), run.batch_size), codebooks, frames)
    drawn = np.random.default_rng(0).integers(0, config.codes, shape, dtype=np.int16)
    example = np.asarray([piece.example for piece in pieces[: shape[0]]])
    tokens = Tokens(drawn, np.full(shape[0], frames), example)
    trainer = DecoderTrainer(
        accelerator,
        parts,
        Clips(tokens, split.training),
        None,
        codec=codec,
        run=run,
        options=options,
        optimization=optimization,
        publication=publication,
        places=places,
    )
    return rehearse(
        trainer,
        accelerator.device,
        run,
        places,
        recorded(settings_of(parts, options, len(pieces)), run, optimization),
        optimization,
        found=survey(data, split, config.clip_seconds, pieces),
        encoding=total * seconds,
        model=trainer.size,
        codes=total * codebooks * frames * 2,
    )
