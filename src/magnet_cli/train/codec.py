"""Training EnCodec: reconstruction, a residual vector quantizer with moving averages, and an adversary.

The quantizer of the `encodec` package starts from k-means on the first batch, follows its inputs by moving averages and
replaces codes that fall out of use. Défossez et al., "High Fidelity Neural Audio Compression" (2022).
"""

from __future__ import annotations

from collections.abc import Mapping
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
from magnet_cli.train.codec_folder import codec_weights, write_codec
from magnet_cli.train.data import Example, batch_indices, duration, find_examples, read_segment, share
from magnet_cli.train.losses import Balancer, MelLoss, discriminator, discriminator_loss, generator_losses
from magnet_cli.train.mdct_init import begin_as_transform
from magnet_cli.train.options import CODEC_OPTIMIZATION, CodecShape, CodecTraining, Optimization, Places, RunOptions
from magnet_cli.train.run import Average, OnProgress, open_accelerator, rate_at, set_rate, train

if TYPE_CHECKING:
    from accelerate import Accelerator

SAMPLED = 4  # clips reconstructed as samples
# From how much audio --begin transform computes the codebooks.
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

    decoder_only: encoder and codebooks stay as they are, and there is no commitment.
    """

    def __init__(self, codec: Codec, *, decoder_only: bool) -> None:
        super().__init__()
        self.codec = codec
        self.decoder_only = decoder_only
        for module in codec.modules():
            if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
                parametrizations.weight_norm(module)
        self.codec.encoder.requires_grad_(not decoder_only)

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, L] -> [B, C, L] and a scalar."""
        if self.decoder_only:
            with torch.no_grad():
                vq = self.codec.quantizer.vq
                quantized, commitment = vq.decode(vq.encode(self.codec.encoder(waveform))), waveform.new_zeros(())
        else:
            quantized, _, commitments = self.codec.quantizer.vq(self.codec.encoder(waveform))
            commitment = commitments.mean()
        return self.codec.decoder(quantized)[..., : waveform.shape[-1]], commitment


class CodecTrainer:
    """A codec that is trained: its networks, optimizers and data."""

    def __init__(
        self,
        accelerator: Accelerator,
        codec: Codec,
        examples: list[Example],
        *,
        run: RunOptions,
        options: CodecTraining,
        optimization: Optimization,
    ) -> None:
        self.accelerator, self.examples = accelerator, examples
        self.run, self.options, self.optimization = run, options, optimization
        self.config = codec.config
        self.durations = [duration(example.path) for example in examples]
        self.network = TrainableCodec(codec, decoder_only=options.decoder_only).to(accelerator.device)
        self.adversary = discriminator(
            options.discriminator_filters, options.discriminator_windows, codec.config.channels
        ).to(accelerator.device)
        rate, betas = optimization.learning_rate, optimization.betas
        self.trained = [weight for weight in self.network.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, rate, betas, weight_decay=optimization.weight_decay)
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
            "l1": options.l1_weight,
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

    def step(self, number: int) -> dict[str, float]:
        """One update of the codec, and of its adversary where the schedule says so."""
        rate = rate_at(number, self.run.steps, self.optimization)
        set_rate(self.optimizer, rate)
        set_rate(self.adversary_optimizer, rate)
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
            write_codec(self.config, codec_weights(self.network.codec), output)

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
    """Crops [B, C, L] of as many files as `--begin transform` needs."""
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
    on_progress: OnProgress | None = None,
) -> None:
    """Train a codec on a folder of audio, resuming an earlier training of the same output.

    start: a codec to continue from, whose shape replaces `shape`. Writes a folder that `train_decoder` takes.

    Raises: UsageError for data or options that cannot work; OutputError for an output that is neither new nor of an
    earlier training.
    """
    options, optimization = options or CodecTraining(), optimization or CODEC_OPTIMIZATION
    places = Places(output)
    places.check("codec", [data, *([] if start is None else [start.path.parent])])
    accelerator = open_accelerator(run)
    share(run.batch_size, 0, accelerator.num_processes)
    examples = find_examples(data, texts=False)
    torch.manual_seed(run.seed)
    config = codec_config(shape) if start is None else start.config
    codec = Codec(config)
    if start is not None:
        codec.load_state_dict({name: weight.float() for name, weight in start.weights.items()})
    elif options.begin == "transform" and not places.state.is_file():
        begin_as_transform(codec, _some_audio(examples, config, run.seed), torch.Generator().manual_seed(run.seed))
    trainer = CodecTrainer(accelerator, codec, examples, run=run, options=options, optimization=optimization)
    settings = {
        "kind": "codec",
        "examples": len(examples),
        "codec": asdict(config),
        "training": asdict(options),
        "optimization": asdict(optimization),
        **{name: getattr(run, name) for name in ("steps", "batch_size", "seed")},
    }
    train(trainer, accelerator, run, places, settings, on_progress)
