"""Training EnCodec: reconstruction, a residual vector quantizer with moving averages, and an adversary.

The quantizer of the `encodec` package starts from k-means on the first batch, follows its inputs by moving averages and
replaces codes that fall out of use. Défossez et al., "High Fidelity Neural Audio Compression" (2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from encodec.quantization.core_vq import EuclideanCodebook
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from magnet_cli.audio.files import write_audio
from magnet_cli.checkpoints.parts import CodecCheckpoint
from magnet_cli.model.codec import Codec
from magnet_cli.model.config import RELEASED_CODEC, CodecConfig
from magnet_cli.train.codec_folder import codec_weights, read_analysis, write_codec
from magnet_cli.train.data import (
    Example,
    Split,
    batch_indices,
    duration,
    held_out_folder,
    read_segment,
    share,
    split_examples,
)
from magnet_cli.train.loop.average import Average
from magnet_cli.train.loop.events import Listener, Outcome, ignore
from magnet_cli.train.loop.run import never, open_accelerator, recorded, train
from magnet_cli.train.loop.schedule import set_rate
from magnet_cli.train.losses import Balancer, MelLoss, discriminator, discriminator_loss, generator_losses
from magnet_cli.train.mdct_init import begin_as_transform
from magnet_cli.train.options import CODEC_OPTIMIZATION, CodecShape, CodecTraining, Optimization, Places, RunOptions
from magnet_cli.train.phase_free_init import begin_phase_free, check_room
from magnet_cli.train.rehearsal import Rehearsal, rehearse, survey, tensor_bytes
from magnet_cli.train.tones import Analysis

if TYPE_CHECKING:
    from accelerate import Accelerator

# Share of the learning rate for a decoder that began as a synthesizer, whose signals are small beside its weights: with
# a greater one, a step of Adam, which moves all weights alike, is louder than the waveform.
SYNTHESIZER = 2e-3
SAMPLED = 4  # clips reconstructed as samples
HELD_OUT_FILES = 64  # that the losses are measured on, at most
# From how much audio --begin transform and --begin phase-free compute the codebooks.
BEGIN_FILES, BEGIN_FRAMES = 1600, 80


def codec_config(shape: CodecShape) -> CodecConfig:
    """The configuration of a new codec: that of the released codecs, with the values of `shape`."""
    return replace(
        RELEASED_CODEC,
        sample_rate=shape.sample_rate,
        channels=shape.channels,
        codebooks=shape.codebooks,
        codes=shape.codes,
        dimension=shape.dimension,
        n_filters=shape.filters,
        ratios=shape.ratios,
        lstm=shape.lstm,
    )


class TrainableCodec(nn.Module):
    """A codec with weight normalization, as it is trained: waveform in, waveform and commitment loss out.

    decoder_only: encoder and codebooks stay as they are, and there is no commitment. analysis: that of phase-free
    codes; the codebooks stay as they are, the decoder is given the analysis's codes, and the commitment is how far the
    encoder is from the analysis, relative to the deviation of its latents.
    """

    def __init__(self, codec: Codec, *, decoder_only: bool, analysis: Analysis | None = None) -> None:
        super().__init__()
        self.codec = codec
        self.decoder_only = decoder_only
        self.analysis = analysis
        for module in codec.modules():
            if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
                parametrizations.weight_norm(module)
        self.codec.encoder.requires_grad_(not decoder_only)

    def groups(self) -> list[dict[str, Any]]:
        """The weights that are trained, in groups with a `share` of the learning rate."""
        share = 1.0 if self.analysis is None else SYNTHESIZER
        parts = ((self.codec.encoder, 1.0), (self.codec.decoder, share))
        trained = [(list(filter(lambda one: one.requires_grad, part.parameters())), share) for part, share in parts]
        return [{"params": weights, "share": share} for weights, share in trained if weights]

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, L] -> [B, C, L] and a scalar."""
        vq, commitment = self.codec.quantizer.vq, waveform.new_zeros(())
        if self.analysis is not None:
            with torch.no_grad():
                latents = self.analysis(waveform)
                quantized = vq.decode(vq.encode(latents))
            if not self.decoder_only:
                imitated = self.codec.encoder(waveform)[..., : latents.shape[-1]]
                commitment = (imitated - latents).square().mean() / latents.var().clamp(min=1e-6)
        elif self.decoder_only:
            with torch.no_grad():
                quantized = vq.decode(vq.encode(self.codec.encoder(waveform)))
        else:
            quantized, _, commitments = vq(self.codec.encoder(waveform))
            commitment = commitments.mean()
        return self.codec.decoder(quantized)[..., : waveform.shape[-1]], commitment


class CodecTrainer:
    """A codec that is trained: its networks, optimizers and data."""

    def __init__(
        self,
        accelerator: Accelerator,
        codec: Codec,
        split: Split,
        *,
        run: RunOptions,
        options: CodecTraining,
        optimization: Optimization,
        analysis: Analysis | None = None,
    ) -> None:
        self.accelerator, self.examples, self.held = accelerator, split.training, split.held_out
        self.run, self.options, self.optimization = run, options, optimization
        self.config = codec.config
        self.durations = [duration(example.path) for example in self.examples]
        self.network = TrainableCodec(codec, decoder_only=options.decoder_only, analysis=analysis).to(
            accelerator.device
        )
        self.adversary = discriminator(
            options.discriminator_filters, options.discriminator_windows, codec.config.channels
        ).to(accelerator.device)
        rate, betas = optimization.learning_rate, optimization.betas
        groups = self.network.groups()
        self.trained = [weight for group in groups for weight in group["params"]]
        self.optimizer = torch.optim.AdamW(groups, rate, betas, weight_decay=optimization.weight_decay)
        self.adversary_optimizer = torch.optim.AdamW(self.adversary.parameters(), rate, betas, weight_decay=0.0)
        # The package's own threshold, 2 uses in a batch, would replace every code of a small batch at every step.
        vectors = run.batch_size // accelerator.num_processes * int(options.seconds * codec.config.frame_rate)
        for module in codec.modules():
            if isinstance(module, EuclideanCodebook):
                module.threshold_ema_dead_code = options.dead_codes * vectors / codec.config.codes
        self.wrapped = accelerator.prepare(self.network)
        self.wrapped_adversary = accelerator.prepare(self.adversary)
        self.mel = MelLoss(codec.config.sample_rate).to(accelerator.device)
        weights = {
            # A waveform from codes without phase cannot follow another sample by sample.
            "l1": options.l1_weight if analysis is None else 0.0,
            "mel": options.mel_weight,
            "adversarial": options.adversarial_weight,
            "feature": options.feature_weight,
        }
        self.balancer = Balancer(weights, lambda value: accelerator.reduce(value, "mean"))
        self.average = Average(self.network, optimization.ema)
        self._reader = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[Tensor]] | None = None

    def batch(self, number: int) -> Tensor:
        """This process's crops for a step, [B, C, L]. The next step's are read while this one computes."""
        if self._next is None or self._next[0] != number:
            self._next = (number, self._reader.submit(self._read, number))
        crops = self._next[1].result()
        self._next = (number + 1, self._reader.submit(self._read, number + 1))
        return crops.to(self.accelerator.device)

    def _read(self, number: int) -> Tensor:
        size = self.run.batch_size
        indices = batch_indices(len(self.examples), size, number, self.run.seed)
        places = np.random.default_rng((self.run.seed, number)).random(size)
        crops = []
        mine = share(size, self.accelerator.process_index, self.accelerator.num_processes)
        for index, place in list(zip(indices, places, strict=True))[mine]:
            room = max(0.0, self.durations[index] - self.options.seconds)
            path, config = self.examples[index].path, self.config
            crops.append(read_segment(path, place * room, self.options.seconds, config.sample_rate, config.channels))
        return torch.stack(crops)

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """The losses on the middle of each held-out file, `held_out_l1` and `held_out_mel`, and their sum, `held_out`.

        At most HELD_OUT_FILES are used.
        """
        if not self.held:
            return {}
        every = max(1, -(-len(self.held) // HELD_OUT_FILES))
        sums, chosen = {"l1": 0.0, "mel": 0.0}, self.held[::every]
        seconds, config = self.options.seconds, self.config
        with self.average.applied(self.network):
            self.network.eval()
            for example in chosen:
                start = max(0.0, duration(example.path) - seconds) / 2
                crop = read_segment(example.path, start, seconds, config.sample_rate, config.channels)
                target = crop[None].to(self.accelerator.device)
                output, _ = self.network(target)
                sums["l1"] += float(torch.nn.functional.l1_loss(output, target))
                sums["mel"] += float(self.mel(output, target))
            self.network.train()
        means = {f"held_out_{name}": value / len(chosen) for name, value in sums.items()}
        return {"held_out": sum(means.values()), **means}

    def step(self, number: int, rate: float) -> dict[str, float]:
        """One update of the codec, and of its adversary where the schedule says so."""
        set_rate([self.optimizer, self.adversary_optimizer], rate)
        # The quantizer draws from torch's own generator where it replaces codes.
        torch.manual_seed(hash((self.run.seed, number)) % 2**63)
        target = self.batch(number)
        output, commitment = self.wrapped(target)
        losses = {"l1": torch.nn.functional.l1_loss(output, target), "mel": self.mel(output, target)}
        figures = {"lr": rate, "commitment": float(commitment.detach())}
        options = self.options
        if number >= options.adversarial_from and number % options.adversarial_every == 0:
            figures["discriminator"] = self._train_adversary(output, target)
            self.adversary.requires_grad_(False)
            losses["adversarial"], losses["feature"] = generator_losses(self.adversary, output, target)
            self.adversary.requires_grad_(True)
        gradient = self.balancer.gradient(losses, output)
        if commitment.requires_grad:
            torch.autograd.backward([output, commitment], [gradient, torch.ones_like(commitment)])
        else:
            output.backward(gradient)
        if self.optimization.max_norm:
            torch.nn.utils.clip_grad_norm_(self.trained, self.optimization.max_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if (number + 1) % self.optimization.ema_every == 0 or number + 1 == self.run.steps:
            self.average.update(self.network)
        figures |= {name: float(loss.detach()) for name, loss in losses.items()}
        return {"loss": figures["l1"] + figures["mel"], **figures}

    def _train_adversary(self, output: Tensor, target: Tensor) -> float:
        loss = discriminator_loss(self.wrapped_adversary, output, target)
        self.accelerator.backward(loss)
        self.adversary_optimizer.step()
        self.adversary_optimizer.zero_grad()
        return float(loss.detach())

    def state(self) -> dict[str, Any]:
        """Weights, optimizers, averages."""
        return {
            "network": self.network.state_dict(),
            "adversary": self.adversary.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adversary_optimizer": self.adversary_optimizer.state_dict(),
            "average": self.average.state(),
            "balancer": self.balancer.state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state."""
        self.network.load_state_dict(state["network"])
        self.adversary.load_state_dict(state["adversary"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.adversary_optimizer.load_state_dict(state["adversary_optimizer"])
        self.average.load(state["average"])
        self.balancer.load(state["balancer"])

    def publish(self, output: Path) -> None:
        """Write the codec with averaged weights."""
        with self.average.applied(self.network):
            write_codec(self.config, codec_weights(self.network.codec), output, self.network.analysis)

    def sample(self, folder: Path, number: int) -> None:
        """Write some clips, each followed by its reconstruction."""
        with self.average.applied(self.network), torch.inference_mode():
            self.network.eval()
            for index, example in enumerate(self.examples[:SAMPLED]):
                seconds = min(self.durations[index], 10.0)
                clip = read_segment(example.path, 0, seconds, self.config.sample_rate, self.config.channels)
                made, _ = self.network(clip[None].to(self.accelerator.device))
                both = torch.cat([clip, made[0].cpu()], dim=-1).clamp(-1, 1).numpy()
                path = folder / f"step{number:07d}-{index}.wav"
                write_audio(path, both, self.config.sample_rate, "pcm16", overwrite=True)
            self.network.train()


def _some_audio(examples: list[Example], config: CodecConfig, seed: int) -> Tensor:
    """Crops [B, C, L] of as many files as the codebooks of a new codec are computed from."""
    random = np.random.default_rng(seed)
    seconds = BEGIN_FRAMES / config.frame_rate
    crops = []
    for index in random.permutation(len(examples))[:BEGIN_FILES]:
        path = examples[index].path
        # At a whole frame: where music keeps to a grid, the excerpt then has the frames that training will encode.
        frame = int(max(0.0, duration(path) - seconds) * random.random() * config.frame_rate)
        start = frame / config.frame_rate
        crops.append(read_segment(path, start, seconds, config.sample_rate, config.channels))
    return torch.stack(crops)


def train_codec(
    data: Path,
    output: Path,
    *,
    shape: CodecShape,
    start: CodecCheckpoint | None = None,
    run: RunOptions,
    options: CodecTraining | None = None,
    optimization: Optimization | None = None,
    listener: Listener = ignore,
    stopped: Callable[[], bool] = never,
) -> Outcome:
    """Train a codec on a folder of audio, resuming an earlier training of the same output.

    start: a codec to continue from, whose shape replaces `shape`. stopped: asked after every step whether to save the
    state and stop. Writes a folder that `train_decoder` takes.

    Raises: UsageError for data or options that cannot work; OutputError for an output that is neither new nor of an
    earlier training.
    """
    options, optimization = options or CodecTraining(), optimization or CODEC_OPTIMIZATION
    places = Places(output)
    inputs = [data, None if start is None else start.path.parent, held_out_folder(run.held_out)]
    places.check("codec", [path for path in inputs if path])
    accelerator = open_accelerator(run)
    share(run.batch_size, 0, accelerator.num_processes)
    split = split_examples(data, run.held_out, texts=False)
    codec = start_codec(shape, start, run.seed)
    analysis = _begin(codec, start, split, run, options, resumed=places.state.is_file())
    trainer = CodecTrainer(
        accelerator, codec, split, run=run, options=options, optimization=optimization, analysis=analysis
    )
    settings = settings_of(codec, options, len(split.training))
    return train(
        trainer, accelerator, run, places, settings, optimization=optimization, listener=listener, stopped=stopped
    )


def _begin(
    codec: Codec, start: CodecCheckpoint | None, split: Split, run: RunOptions, options: CodecTraining, *, resumed: bool
) -> Analysis | None:
    """Set a new codec's initial weights as `options.begin` says. Returns the analysis of phase-free codes."""
    if start is not None:
        return read_analysis(start)
    generator = torch.Generator().manual_seed(run.seed)
    if options.begin == "phase-free":
        check_room(codec.config)
        if resumed:
            return Analysis(codec.config)
        return begin_phase_free(codec, _some_audio(split.training, codec.config, run.seed), generator)
    if options.begin == "transform" and not resumed:
        begin_as_transform(codec, _some_audio(split.training, codec.config, run.seed), generator)
    return None


def start_codec(shape: CodecShape, start: CodecCheckpoint | None, seed: int) -> Codec:
    """A codec with random weights, or with those of another."""
    torch.manual_seed(seed)
    codec = Codec(codec_config(shape) if start is None else start.config)
    if start is not None:
        codec.load_state_dict({name: weight.float() for name, weight in start.weights.items()})
    return codec


def settings_of(codec: Codec, options: CodecTraining, examples: int) -> dict[str, Any]:
    """What a codec's training depends on, beside its length and optimization."""
    return {"kind": "codec", "examples": examples, "codec": asdict(codec.config), "training": asdict(options)}


def rehearse_codec(
    data: Path,
    output: Path,
    *,
    shape: CodecShape,
    start: CodecCheckpoint | None,
    run: RunOptions,
    options: CodecTraining,
    optimization: Optimization,
) -> Rehearsal:
    """What `train_codec` will need, from two steps. Nothing is written.

    Raises: what `train_codec` raises before its first step.
    """
    places = Places(output)
    inputs = [data, None if start is None else start.path.parent, held_out_folder(run.held_out)]
    places.check("codec", [path for path in inputs if path])
    accelerator = open_accelerator(run)
    share(run.batch_size, 0, accelerator.num_processes)
    split = split_examples(data, run.held_out, texts=False)
    codec = start_codec(shape, start, run.seed)
    model = tensor_bytes(codec.state_dict())
    trainer = CodecTrainer(accelerator, codec, split, run=run, options=options, optimization=optimization)
    return rehearse(
        trainer,
        accelerator.device,
        run,
        places,
        recorded(settings_of(codec, options, len(split.training)), run, optimization),
        optimization,
        found=survey(data, split, options.seconds),
        encoding=0.0,
        model=model,
        codes=0,
        second=options.adversarial_every,  # one that uses the discriminator, if step 0 does
    )
