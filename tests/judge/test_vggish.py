"""VGGish against what the `torchvggish` package, version 0.2, computes from the same sound and the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from magnet_cli.audio.blocks import Waveform
from magnet_cli.errors import ModelError, UsageError
from magnet_cli.judge.vggish import RATE, VGGish, VGGishEncoder, examples
from magnet_cli.model.weights import without_weights
from support.command import Magnet, one_line_error

# Of `vggish_input.waveform_to_examples` for `sound()`: every eighth band of frame 10 of the first and 90 of the second.
FIRST = [-3.81936, 3.50019, -3.49291, -4.45984, -4.56949, -4.59545, -4.60195, -4.60395]
SECOND = [-4.029, 3.57845, -3.58436, -4.51204, -4.57132, -4.5777, -3.6517, -4.59958]
# Of `torchvggish._vgg(False)` with the weights of `fill` and without its last ReLU: every 16th number of the first.
EMBEDDING = [-0.09668, 0.09992, -0.09495, 0.08346, -0.06212, 0.03864, -0.00945, -0.01959]


def sound() -> Waveform:
    time = np.arange(int(2.3 * RATE)) / RATE
    sweep = 0.2 * np.sin(2 * np.pi * (300 + 900 * time) * time) * np.exp(-time)
    return (0.3 * np.sin(2 * np.pi * 440 * time) + sweep).astype(np.float32)[None]


def fill(network: VGGish) -> None:
    """Weights that need no file: sines of their places, with the variance that keeps the signal's size."""
    for number, parameter in enumerate(network.parameters()):
        place = torch.arange(parameter.numel(), dtype=torch.float64)
        if parameter.dim() > 1:
            values = torch.sin(place * 0.7391 + number) * (3 / parameter[0].numel()) ** 0.5
        else:
            values = 0.1 * torch.sin(place + number)
        parameter.data = values.view_as(parameter).float()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of weights of the right names and shapes, each of one repeated number, so that it is small."""
    with without_weights():
        network = VGGish()
    random = torch.Generator().manual_seed(0)
    path = tmp_path / "vggish.pth"
    values = {name: torch.rand(1, generator=random) / 1000 for name in network.state_dict()}
    torch.save({name: values[name].expand(one.shape) for name, one in network.state_dict().items()}, path)
    return path


def test_the_spectrum_is_that_of_the_package() -> None:
    found = examples(sound(), RATE)
    assert found.shape == (2, 96, 64)
    assert found[0, 10, ::8].tolist() == pytest.approx(FIRST, abs=1e-5)  # five digits
    assert found[1, 90, ::8].tolist() == pytest.approx(SECOND, abs=1e-5)


def test_the_embedding_is_that_of_the_package() -> None:
    network = VGGish()
    fill(network)
    with torch.no_grad():
        found = network(examples(sound(), RATE)[:1])
    # The package's own difference from a float64 network is as large.
    assert found[0, ::16].tolist() == pytest.approx(EMBEDDING, abs=2e-5)


def test_weights_are_read_strictly(weights: Path, tmp_path: Path) -> None:
    encoder = VGGishEncoder.load(weights)
    assert len(encoder.sha256) == 64
    stereo = np.concatenate([sound(), sound()])
    assert encoder(stereo, RATE).shape == (2, 128)
    with pytest.raises(UsageError, match=r"shorter than 0\.98 s"):
        encoder(sound()[:, : RATE // 2], RATE)
    with pytest.raises(ModelError, match="no such file"):
        VGGishEncoder.load(tmp_path / "missing.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ModelError, match=r"damaged or not a checkpoint|was refused"):
        VGGishEncoder.load(tmp_path / "text.pth")
    torch.save({"features.0.weight": torch.zeros(64, 1, 3, 3)}, tmp_path / "part.pth")
    with pytest.raises(ModelError, match=r"features\.0\.bias is missing"):
        VGGishEncoder.load(tmp_path / "part.pth")


def test_the_command_takes_the_weights(magnet: Magnet, weights: Path) -> None:
    from magnet_cli.audio.files import write_audio

    for number in range(2):
        write_audio(Path(f"{number}.wav"), (number + 1) / 4 * sound(), RATE, "pcm16", overwrite=False)
    asked = ("evaluate", "0.wav", "--reference", "1.wav", "--metrics", "silence", "--json")
    result = magnet(*asked, "--encoder", "vggish", "--weights", str(weights))
    assert result.code == 0, result.err
    found = result.records[-1]["summary"]["reference"]
    assert (found["encoder"], found["dimensions"], found["embeddings"]) == ("vggish", 128, 2)
    assert found["sha256"] == VGGishEncoder.load(weights).sha256
    assert found["frechet"] is None
    one_line_error(magnet(*asked, "--encoder", "vggish"), 2, "--encoder vggish needs its weights")
    one_line_error(magnet(*asked, "--weights", str(weights)), 2, "--weights has no effect")
    one_line_error(magnet(*asked, "--encoder", "ears"), 2, "unknown encoder 'ears'")
