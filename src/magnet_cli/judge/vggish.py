"""VGGish, the encoder of the Fréchet audio distance: 0.96 s of sound -> 128 numbers.

Hershey et al., "CNN Architectures for Large-Scale Audio Classification" (2017); Kilgour et al., "Fréchet Audio
Distance" (2019). The names of the weights are those of the `torchvggish` package, whose file of weights is read, and
the spectra are computed as it does. As in Google's VGGish, the embedding is what leaves the last layer, without an
activation; PCA and quantization, which belong to the data set AudioSet, are left out.

Google's program for the distance sets the peak of each file first, and takes windows of one second that may overlap.
Here the windows of 0.96 s follow one another, and the level is as it is. So its figures and these differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.resampling import resample
from magnet_cli.errors import UsageError
from magnet_cli.hub.store import sha256
from magnet_cli.model.weights import as_weights, assign, read_package, without_weights

RATE = 16_000  # Hz
WINDOW, HOP, FFT = 400, 160, 512  # samples: 25 ms, 10 ms
MELS, LOWEST, HIGHEST = 64, 125.0, 7500.0  # bands, Hz
OFFSET = 0.01  # added before the logarithm
FRAMES = 96  # of an example: 0.96 s
TOGETHER = 32  # examples: about 0.3 GB
LAYERS = (64, None, 128, None, 256, 256, None, 512, 512, None)  # channels; None: the maximum of two by two
HIDDEN, DIMENSIONS = 4096, 128


class VGGish(nn.Module):
    """The network, without the activation of its last layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for channels in LAYERS:
            if channels is None:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
                before = channels
        self.features = nn.Sequential(*layers)
        places = (FRAMES // 16) * (MELS // 16)
        self.embeddings = nn.Sequential(
            nn.Linear(before * places, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, DIMENSIONS),
        )

    def forward(self, examples: Tensor) -> Tensor:
        """Logarithmic mel spectra [N, 96, 64] -> embeddings [N, 128]."""
        maps = self.features(examples.unsqueeze(1))  # [N, C, 6, 4]
        # The order of TensorFlow: channels last.
        return torch.as_tensor(self.embeddings(maps.permute(0, 2, 3, 1).flatten(1)))


@dataclass(frozen=True)
class VGGishEncoder:
    """VGGish with its weights. sha256: of their file."""

    network: VGGish
    sha256: str

    @classmethod
    def load(cls, path: Path) -> VGGishEncoder:
        """The network with the weights in a file of `torchvggish`. ModelError for any other file."""
        weights = as_weights(read_package(path), path, "it")
        with without_weights():
            network = VGGish()
        # A repeated number may stand for a tensor, but the network's size is known.
        network = assign(network, weights, path, device=torch.device("cpu"), dtype=torch.float32)
        return cls(network, sha256(path))

    @torch.inference_mode()
    def __call__(self, waveform: Waveform, sample_rate: int) -> NDArray[np.float64]:
        """An embedding for each whole 0.96 s of a waveform [C, L], float64 [N, 128]. UsageError for less."""
        found = examples(waveform, sample_rate)
        parts = [self.network(part) for part in found.split(TOGETHER)]
        return torch.cat(parts).double().numpy()


def examples(waveform: Waveform, sample_rate: int) -> Tensor:
    """The network's input for a waveform [C, L]: float32 [N, 96, 64]. UsageError for less than one example."""
    mono = waveform.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
    sound = torch.from_numpy(np.ascontiguousarray(resample(mono, sample_rate, RATE))[0]).double()
    if len(sound) < WINDOW + (FRAMES - 1) * HOP:
        raise UsageError(f"a clip of {len(sound) / RATE:.2f} s is shorter than 0.98 s", "Give a longer clip")
    frames = sound.unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW, dtype=torch.float64)
    levels = (torch.fft.rfft(frames, FFT).abs() @ mel_matrix() + OFFSET).log()
    count = len(levels) // FRAMES
    return levels[: count * FRAMES].unflatten(0, (count, FRAMES)).float()


def mel_matrix() -> Tensor:
    """Triangles on the mel scale, float64 [257, 64]; the constant part has no weight."""
    bins = _mel(torch.linspace(0, RATE / 2, FFT // 2 + 1, dtype=torch.float64))[:, None]
    ends = _mel(torch.tensor([LOWEST, HIGHEST], dtype=torch.float64))
    edges = torch.linspace(float(ends[0]), float(ends[1]), MELS + 2, dtype=torch.float64)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    matrix = torch.minimum(rising, falling).clamp(min=0)
    matrix[0] = 0
    return matrix


def _mel(hertz: Tensor) -> Tensor:
    return 1127 * torch.log1p(hertz / 700)
