"""EnCodec's losses: mel spectrograms at several scales, a discriminator's, and the balance between them.

Défossez et al., "High Fidelity Neural Audio Compression" (2022), section 3.4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

MEL_WINDOWS = tuple(2**power for power in range(6, 12))  # samples, as published
MOST_MELS = 64
LOWEST = 64.0  # Hz
FLOOR = 1e-5


class MelLoss(nn.Module):
    """L1 between mel magnitudes plus L2 between log mel powers, averaged over scales."""

    def __init__(self, sample_rate: int, windows: Sequence[int] = MEL_WINDOWS) -> None:
        super().__init__()
        self.windows = tuple(windows)
        for size in self.windows:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)
            self.register_buffer(f"bank_{size}", mel_bank(size, sample_rate), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """output, target: [B, C, L]. Returns a scalar."""
        total = torch.zeros((), device=output.device)
        for size in self.windows:
            made, wanted = self._magnitudes(output, size), self._magnitudes(target, size)
            total = total + F.l1_loss(made, wanted)
            total = total + F.mse_loss((made.square() + FLOOR).log10(), (wanted.square() + FLOOR).log10())
        return total / (2 * len(self.windows))

    def _magnitudes(self, waveform: Tensor, size: int) -> Tensor:
        window: Tensor = getattr(self, f"window_{size}")
        bank: Tensor = getattr(self, f"bank_{size}")
        spectrum = torch.stft(waveform.flatten(0, 1), size, size // 4, window=window, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        magnitude = (power / window.square().sum() + 1e-12).sqrt()  # the slope of the root is infinite at 0
        return torch.einsum("bft,fm->bmt", magnitude, bank)


def mel_bank(size: int, sample_rate: int) -> Tensor:
    """Mel filters [F, M], without those that are narrower than a bin and so are empty."""
    bins = size // 2 + 1
    rising = torch.linspace(0, sample_rate / 2, bins)
    ends = torch.linspace(_mel(LOWEST), _mel(sample_rate / 2), min(MOST_MELS, size // 8) + 2)
    edges = 700 * (10 ** (ends / 2595) - 1)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    up = (rising[:, None] - low) / (middle - low)
    down = (high - rising[:, None]) / (high - middle)
    bank = torch.minimum(up, down).clamp(min=0)
    return bank[:, bank.sum(0) > 0]


def _mel(frequency: float) -> float:
    return float(2595 * torch.log10(torch.tensor(1 + frequency / 700)))


def discriminator(filters: int, windows: Sequence[int], channels: int) -> nn.Module:
    """The multi-scale STFT discriminator of the `encodec` package."""
    from encodec.msstftd import MultiScaleSTFTDiscriminator

    return MultiScaleSTFTDiscriminator(
        filters,
        in_channels=channels,
        n_ffts=list(windows),
        hop_lengths=[size // 4 for size in windows],
        win_lengths=list(windows),
        activation_params={"negative_slope": 0.3},
    )


def discriminator_loss(network: nn.Module, output: Tensor, target: Tensor) -> Tensor:
    """Hinge loss of the discriminator: real audio above 1, the codec's below -1. DDP needs both in one forward pass."""
    logits, _ = network(torch.cat([target, output.detach()]))
    losses = []
    for logit in logits:
        real, made = logit.chunk(2)
        losses.append(F.relu(1 - real).mean() + F.relu(1 + made).mean())
    return torch.stack(losses).mean()


def generator_losses(network: nn.Module, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The codec's side: the adversarial loss, and the L1 distance between features relative to the real ones'."""
    with torch.no_grad():
        _, wanted = network(target)
    logits, made = network(output)
    adversarial = torch.stack([F.relu(1 - logit).mean() for logit in logits]).mean()
    distances = [
        F.l1_loss(ours, theirs) / theirs.abs().mean().clamp(min=FLOOR)
        for one, other in zip(made, wanted, strict=True)
        for ours, theirs in zip(one, other, strict=True)
    ]
    return adversarial, torch.stack(distances).mean()


class Balancer:
    """Scales the gradient of every loss at the codec's output to its weight's share, whatever the loss's own scale.

    `mean` averages a number over processes.
    """

    def __init__(self, weights: Mapping[str, float], mean: Callable[[Tensor], Tensor], decay: float = 0.999) -> None:
        self.weights = dict(weights)
        self.mean = mean
        self.decay = decay
        self.norms: dict[str, float] = {}
        self.seen: dict[str, float] = {}

    def gradient(self, losses: Mapping[str, Tensor], output: Tensor) -> Tensor:
        """The gradient to send back through the codec. output: [B, C, L], what the losses were computed from."""
        total = sum(self.weights[name] for name in losses)
        combined = torch.zeros_like(output)
        for name, loss in losses.items():
            (gradient,) = torch.autograd.grad(loss, output, retain_graph=True)
            size = float(self.mean(gradient.flatten(1).norm(dim=1).mean()))
            self.norms[name] = self.decay * self.norms.get(name, 0.0) + (1 - self.decay) * size
            self.seen[name] = self.decay * self.seen.get(name, 0.0) + (1 - self.decay)
            average = self.norms[name] / self.seen[name]
            combined += gradient * (self.weights[name] / total / (average + 1e-12))
        return combined

    def state(self) -> dict[str, dict[str, float]]:
        """Everything that `load` needs."""
        return {"norms": dict(self.norms), "seen": dict(self.seen)}

    def load(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Restore a saved state."""
        self.norms, self.seen = dict(state["norms"]), dict(state["seen"])
