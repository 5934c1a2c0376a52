"""Initial weights with which a codec works before training: SEANet as a lapped transform, codebooks by k-means.

With random weights, a codec needs tens of thousands of steps before it produces any tone. But a strided convolution
can cut the waveform into phases without losing anything, and one over all phases can be any linear transform with
windows of two frames: here the MDCT (Princen, Bradley, 1986), turned into the data's principal components. Where ELU
would bend the signal, it is small, or beyond reach of the bend by a constant that cancels. All channels that the
transform leaves over, and the residual blocks, begin at random and without effect; training finds what to do with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from encodec.modules import SConv1d, SConvTranspose1d
from encodec.modules.seanet import SEANetResnetBlock
from encodec.quantization.core_vq import EuclideanCodebook
from torch import Tensor, nn

from magnet_cli.errors import UsageError
from magnet_cli.model.codec import Codec
from magnet_cli.model.config import CodecConfig

SMALL = 0.05  # amplitude at which ELU bends the waveform by 2.5 % at most
BEYOND = 20.0  # larger than the coefficients of any waveform of full scale ...
LIFT = 2.0  # ... and larger than the waveform itself
QUIET = 1e-6  # scale of weights that add nothing yet; weight normalization needs a direction
EMPHASIS = 0.3  # coefficients are weighted by (1 + bin / 8) to this power: high ones matter more than their
# energy suggests
ROUNDS = 20
SAMPLED = 50_000  # vectors in a round of k-means


@dataclass(frozen=True)
class Transform:
    """analysis, synthesis: [2 * hop, D], window of a frame to latent and back."""

    analysis: Tensor
    synthesis: Tensor


def check_room(config: CodecConfig) -> None:
    """Check that the codec has the channels that the transform needs.

    Raises: UsageError if it has not.
    """
    phases, channels = 1, config.n_filters
    fits = config.channels == 1 and not config.causal and config.trim_right_ratio == 1.0
    for stride in list(reversed(config.ratios))[:-1]:
        phases, channels = phases * stride, channels * 2
        fits = fits and phases <= channels
    if not fits or 2 * config.dimension > 2 * channels or config.dimension > config.hop:
        raise UsageError(
            "a codec of this shape cannot begin as a transform",
            "Give more --filters, a smaller --dimension, or --begin random",
        )


def mdct(hop: int) -> Tensor:
    """The MDCT with a sine window: [2 * hop, hop], orthonormal over overlapping frames."""
    sample = torch.arange(2 * hop, dtype=torch.float64)[:, None]
    number = torch.arange(hop, dtype=torch.float64)
    window = torch.sin(math.pi * (sample + 0.5) / (2 * hop))
    wave = torch.cos(math.pi / hop * (sample + 0.5 + hop / 2) * (number + 0.5))
    return (math.sqrt(2 / hop) * window * wave).float()


def coefficients(waveforms: Tensor, hop: int, basis: Tensor) -> Tensor:
    """MDCT coefficients [B, T, hop] of waveforms [B, 1, L]; frame t's window is centred on its samples."""
    padded = nn.functional.pad(waveforms[:, 0], (hop // 2, hop - hop // 2))
    return padded.unfold(-1, 2 * hop, hop) @ basis


def fit(waveforms: Tensor, config: CodecConfig) -> tuple[Transform, Tensor]:
    """The principal components of the data's weighted MDCT, and the data in them [M, D]. waveforms: [B, 1, L]."""
    hop, basis = config.hop, mdct(config.hop)
    weight = (1 + torch.arange(hop) / 8) ** EMPHASIS
    vectors = torch.cat([coefficients(part, hop, basis).flatten(0, 1) for part in waveforms.split(64)]) * weight
    _, axes = torch.linalg.eigh((vectors.T @ vectors).double())
    axes = axes.flip(-1)[:, : config.dimension].float()  # by falling energy
    return Transform(basis @ (weight[:, None] * axes), basis @ (axes / weight[:, None])), vectors @ axes


@torch.no_grad()
def begin_as_transform(codec: Codec, waveforms: Tensor, generator: torch.Generator) -> None:
    """Set a new codec's weights so that it codes these waveforms [B, 1, L], and others like them."""
    config = codec.config
    check_room(config)
    transform, vectors = fit(waveforms, config)
    _silence_side_paths(codec)
    _set_encoder(codec, config, transform)
    _set_decoder(codec, config, transform)
    for module in codec.modules():
        if isinstance(module, EuclideanCodebook):
            centres, sizes = k_means(vectors, config.codes, generator)
            set_codebook(module, centres, sizes)
            vectors = vectors - centres[nearest(vectors, centres)]


def set_codebook(codebook: EuclideanCodebook, centres: Tensor, sizes: Tensor) -> None:
    """Give a codebook these vectors [V, D], and the averages that many batches with one vector for each would leave.

    sizes: how many vectors are nearest to each, [V].
    """
    use = sizes / sizes.sum() * len(centres)
    state = {
        "inited": torch.ones(1),
        "embed": centres,
        "embed_avg": centres * use[:, None],
        "cluster_size": use,
    }
    codebook.load_state_dict(state)


def _silence_side_paths(codec: Codec) -> None:
    """Give residual blocks and LSTMs weights with which they add nothing, but can learn."""
    silence_blocks(codec)
    for module in codec.modules():
        if isinstance(module, nn.LSTM):
            for name, weight in module.named_parameters():
                size = weight.shape[0] // 4
                weight[2 * size : 3 * size] = 0  # the input of the cell; PyTorch's order is i, f, g, o
                if name.startswith("bias"):
                    weight.zero_()


def silence_blocks(network: nn.Module) -> None:
    """Give residual blocks weights with which they add nothing, but can learn."""
    for module in network.modules():
        if isinstance(module, SEANetResnetBlock):
            last = plain(list(module.get_submodule("block").children())[-1])
            last.weight.mul_(QUIET)
            bias(last).zero_()


def plain(module: nn.Module) -> nn.Conv1d | nn.ConvTranspose1d:
    """The PyTorch convolution inside a convolution of the `encodec` package."""
    found = module.get_submodule("conv.conv" if isinstance(module, SConv1d) else "convtr.convtr")
    if not isinstance(found, (nn.Conv1d, nn.ConvTranspose1d)):
        raise TypeError(f"{type(module).__name__} holds no convolution")
    return found


def bias(convolution: nn.Conv1d | nn.ConvTranspose1d) -> Tensor:
    """Its bias, which every convolution of SEANet has."""
    if convolution.bias is None:
        raise TypeError("a convolution has no bias")
    return convolution.bias


def convolutions(network: nn.Module, kind: type[nn.Module]) -> list[nn.Conv1d | nn.ConvTranspose1d]:
    """The convolutions of a SEANet that are not inside its residual blocks."""
    return [plain(one) for one in network.get_submodule("model").children() if isinstance(one, kind)]


def split_into_phases(
    codec: Codec, config: CodecConfig
) -> tuple[list[nn.Conv1d | nn.ConvTranspose1d], nn.Conv1d | nn.ConvTranspose1d, int]:
    """Set an encoder's convolutions before the last strided one to hand on SMALL times all samples, side by side.

    Returns the strided convolutions, the one behind them, and how many samples stand side by side in the first
    channels.
    """
    first, *downs, last = convolutions(codec.encoder, SConv1d)
    first.weight[0] = 0
    first.weight[0, 0, config.kernel_size // 2] = SMALL
    bias(first)[0] = 0
    phases = 1
    for down, stride in zip(downs[:-1], list(reversed(config.ratios))[:-1], strict=True):
        left = stride - stride // 2  # as SConv1d pads
        down.weight[: phases * stride] = 0
        bias(down)[: phases * stride] = 0
        for tap in range(stride):
            for phase in range(phases):
                down.weight[tap * phases + phase, phase, left + tap] = 1
        phases *= stride
    return downs, last, phases


def _set_encoder(codec: Codec, config: CodecConfig, transform: Transform) -> None:
    downs, last, phases = split_into_phases(codec, config)
    width = config.dimension
    window = transform.analysis.view(-1, phases, width).permute(2, 1, 0) / SMALL  # [D, phase, tap]
    downs[-1].weight[: 2 * width] = 0
    downs[-1].weight[:width, :phases] = window
    downs[-1].weight[width : 2 * width, :phases] = -window
    bias(downs[-1])[: 2 * width] = BEYOND
    last.weight.zero_()
    bias(last).zero_()
    middle = config.last_kernel_size // 2
    for index in range(width):
        last.weight[index, index, middle] = 0.5
        last.weight[index, width + index, middle] = -0.5


def _set_decoder(codec: Codec, config: CodecConfig, transform: Transform) -> None:
    first, last = convolutions(codec.decoder, SConv1d)
    ups = convolutions(codec.decoder, SConvTranspose1d)
    width, middle = config.dimension, config.kernel_size // 2
    first.weight[: 2 * width] = 0
    bias(first)[: 2 * width] = BEYOND
    for index in range(width):
        first.weight[index, index, middle] = 1
        first.weight[width + index, index, middle] = -1
    phases = config.hop // config.ratios[0]
    window = transform.synthesis.view(-1, phases, width).permute(2, 1, 0) / 2  # [D, phase, tap]
    ups[0].weight[:, :phases] = 0
    ups[0].weight[:width, :phases] = window
    ups[0].weight[width : 2 * width, :phases] = -window
    bias(ups[0])[:phases] = LIFT  # constant over time from here on, so that it can be subtracted at the end
    for up, stride in zip(ups[1:], config.ratios[1:], strict=True):
        left, fewer = stride - stride // 2, phases // stride  # as SConvTranspose1d trims
        up.weight[:, :fewer] = 0
        bias(up)[:fewer] = 0
        for tap in range(stride):
            for phase in range(fewer):
                up.weight[tap * fewer + phase, phase, left + tap] = 1
        phases = fewer
    last.weight.zero_()
    last.weight[0, 0, config.last_kernel_size // 2] = 1
    bias(last).fill_(-LIFT)


def nearest(vectors: Tensor, centres: Tensor) -> Tensor:
    """The number of the nearest centre for each vector. [M, D], [V, D] -> [M]."""
    half = 0.5 * centres.square().sum(-1)
    return torch.cat([(part @ centres.T - half).argmax(-1) for part in vectors.split(8192)])


def k_means(vectors: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Centres [V, D] and how many of the last round's vectors each has, from rounds over samples of the vectors."""
    centres = vectors[torch.randperm(len(vectors), generator=generator)[:count]].clone()
    if len(centres) < count:
        raise UsageError(f"{len(vectors)} frames are too few for {count} codes", "Give more audio, or fewer --codes")
    sizes = torch.ones(count)
    for _ in range(ROUNDS):
        sample = vectors[torch.randperm(len(vectors), generator=generator)[:SAMPLED]]
        index = nearest(sample, centres)
        sizes = torch.bincount(index, minlength=count).float()
        sums = torch.zeros_like(centres).index_add_(0, index, sample)
        others = sample[torch.randint(len(sample), (count,), generator=generator)]
        centres = torch.where(sizes[:, None] > 0, sums / sizes[:, None].clamp(min=1), others)
    return centres, sizes
