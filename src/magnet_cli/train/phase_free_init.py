"""Initial weights with which a codec works before training, from codes that do not depend on phase.

The codes describe how loud each tone of a frame is (`tones`), through the principal components of the data and k-means.
A decoder network alone cannot become a synthesizer in a training of minutes: where the codes stand still, convolutions
can only repeat the same waveform at every frame, which sounds like a buzz at the frame rate. So the LSTM begins as what
convolutions lack, a clock: its first layer counts frames, and its second multiplies the phases of all tones, which
follow from the count, by their loudness, which follows from the codes. The transposed convolutions begin as windowed
sinusoids. All other channels begin at random and without effect; training finds what to do with them. The encoder
begins as a bank of filters with a last layer that is fitted to the analysis, and learns to imitate it.
"""

from __future__ import annotations

import math

import torch
from encodec.modules import SConv1d, SConvTranspose1d
from encodec.quantization.core_vq import EuclideanCodebook
from torch import Tensor, nn

from magnet_cli.errors import UsageError
from magnet_cli.model.codec import Codec
from magnet_cli.model.config import CodecConfig
from magnet_cli.train.mdct_init import (
    SMALL,
    bias,
    convolutions,
    k_means,
    nearest,
    set_codebook,
    silence_blocks,
    split_into_phases,
)
from magnet_cli.train.tones import CYCLE, FLOOR, Analysis, Tones

# The waveform passes ELU, which bends what is not small, at this scale: -40 dB of distortion at full scale.
SCALE = 0.1
CARRIER = 0.2  # amplitude of the phases in the LSTM's cells, where tanh is nearly straight
PASSED = 0.05  # factor on the latents where they pass the LSTM's first layer
OPEN = 6.0  # bias of a gate of the LSTM that stays open; a closed one has its negative
TICK, KICK = 6.0, 2.0  # weight and bias of the counters: every step saturates, and the first one, too
# Where a tone is hardly louder than FLOOR, a gate closes: slope per decade, and the decimal logarithm at its middle.
SLOPE, MIDDLE = 6.0, math.log10(FLOOR) + 0.5
# The encoder: phases of each filter; what an amplitude of 1 gives behind one; slope and middle of the gates that turn
# that into something like its logarithm; excerpts and ridge of the least squares of its last layer.
PHASES, GAIN = 3, 100.0
STEEP, ONSET = 3.0, 0.7
FITTED, RIDGE = 400, 1e-4
QUIET = 1e-6  # scale of weights that add nothing yet; weight normalization needs a direction


def check_room(config: CodecConfig) -> None:
    """Check that the codec has the channels that the synthesizer needs.

    Raises: UsageError if it has not.
    """
    tones, width, phases = Tones(config.sample_rate, config.hop), _width(config), config.hop
    fits = config.channels == 1 and not config.causal and config.trim_right_ratio == 1.0 and config.lstm == 2
    fits = fits and config.dimension <= len(tones) and config.dimension + CYCLE <= width
    fits = fits and 2 * len(tones) + config.dimension <= width
    for number, ratio in enumerate(config.ratios, start=1):
        phases //= ratio
        fits = fits and phases <= width // 2**number
    if not fits:
        raise UsageError(
            f"a codec of this shape cannot begin phase-free: it needs 1 channel, 2 LSTM layers, and room for "
            f"{len(tones)} tones",
            "Give more --filters, a smaller --dimension, --lstm 2, or --begin random",
        )


def _width(config: CodecConfig) -> int:
    return int(config.n_filters * 2 ** len(config.ratios))


def analyse(waveforms: Tensor, config: CodecConfig) -> tuple[Analysis, Tensor]:
    """The principal components of the loudness in waveforms [B, 1, L], and the latents [M, D] of their frames."""
    analysis = Analysis(config)
    loudness = torch.cat([analysis.tones.loudness(part[:, 0]).flatten(0, 1) for part in waveforms.split(16)])
    analysis.mean.copy_(loudness.mean(0))
    centred = loudness - analysis.mean
    _, axes = torch.linalg.eigh((centred.T @ centred).double())
    analysis.axes.copy_(axes.flip(-1)[:, : config.dimension])  # by falling variance
    return analysis, centred @ analysis.axes


@torch.no_grad()
def begin_phase_free(codec: Codec, waveforms: Tensor, generator: torch.Generator) -> Analysis:
    """Set a new codec's weights for these waveforms [B, 1, L], and others like them.

    Raises: UsageError for a shape without room.
    """
    config = codec.config
    check_room(config)
    analysis, vectors = analyse(waveforms, config)
    for module in codec.modules():
        if isinstance(module, EuclideanCodebook):
            centres, sizes = k_means(vectors, config.codes, generator)
            set_codebook(module, centres, sizes)
            vectors = vectors - centres[nearest(vectors, centres)]
    silence_blocks(codec)
    _set_synthesizer(codec, config, analysis)
    _set_filters(codec, config, analysis)
    _fit_encoder(codec, analysis, waveforms[:FITTED])
    return analysis


def _set_filters(codec: Codec, config: CodecConfig, analysis: Analysis) -> None:
    """The encoder's strided convolutions: every tone, as far as there is room, under three phases a third of a cycle
    apart, which ELU rectifies: their sum hardly depends on the phase of the sound."""
    downs, _, phases = split_into_phases(codec, config)
    tones, room = analysis.tones, _width(config) // PHASES
    chosen = torch.linspace(0, len(tones) - 1, min(room, len(tones))).round().long()
    left = config.ratios[0] - config.ratios[0] // 2  # as SConv1d pads
    windows = tones.filters(left * phases)[chosen]  # [N, PHASES, 2 * hop]
    count = PHASES * len(chosen)
    downs[-1].weight[:count].mul_(QUIET)
    # An amplitude of 1 gives GAIN.
    scale = GAIN / SMALL * 2 / windows.abs().sum(-1, keepdim=True)
    taps = (scale * windows).flatten(0, 1).unflatten(1, (-1, phases)).transpose(1, 2)  # [count, phase, tap]
    downs[-1].weight[:count, :phases] = taps
    bias(downs[-1])[:count] = 0
    lstm = next(module for module in codec.encoder.modules() if isinstance(module, nn.LSTM))
    inputs, _, biases = _gates(lstm, 0, slice(0, count))
    inputs[3, torch.arange(count), torch.arange(count)] = STEEP
    biases[3], biases[2] = -STEEP * ONSET, OPEN
    inputs, _, _ = _gates(lstm, 1, slice(0, count))
    inputs[2, torch.arange(count), (torch.arange(count) + count // 2) % count] = 1.0


def _fit_encoder(codec: Codec, analysis: Analysis, waveforms: Tensor) -> None:
    """The encoder's last convolution: least squares from what comes to it to the latents."""
    last = convolutions(codec.encoder, SConv1d)[-1]
    before = codec.encoder.model[:-1]
    taps = codec.config.last_kernel_size
    size = taps * last.in_channels + 1
    gram, target = torch.zeros(size, size).double(), torch.zeros(size, last.out_channels).double()
    for part in waveforms.split(8):
        latents = analysis(part).transpose(1, 2).flatten(0, 1)
        known = before(part)[..., : part.shape[-1] // codec.config.hop]  # [B, C, T]
        known = nn.functional.pad(known, (taps // 2, taps // 2), codec.config.pad_mode).unfold(-1, taps, 1)
        known = known.permute(0, 2, 1, 3).flatten(0, 1).flatten(1)
        known = torch.cat([known, torch.ones(len(known), 1)], dim=1)
        gram += (known.T @ known).double()
        target += (known.T @ latents).double()
    gram += RIDGE * gram.diagonal().mean() * torch.eye(size).double()
    solved = torch.linalg.solve(gram, target).float()
    last.weight.copy_(solved[:-1].T.unflatten(1, (-1, taps)))
    bias(last).copy_(solved[-1])


def _set_synthesizer(codec: Codec, config: CodecConfig, analysis: Analysis) -> None:
    first, last = convolutions(codec.decoder, SConv1d)
    ups = convolutions(codec.decoder, SConvTranspose1d)
    units, latent = len(analysis.tones), config.dimension
    used = slice(2 * units, 2 * units + latent)  # channels of the latents; those before are the phases times loudness
    first.weight[: used.start].mul_(QUIET)
    bias(first)[: used.stop] = 0
    first.weight[used].mul_(QUIET)
    first.weight[used, torch.arange(latent), config.kernel_size // 2] = 0
    for number in range(latent):
        first.weight[used.start + number, number, config.kernel_size // 2] = 1
    lstm = next(module for module in codec.decoder.modules() if isinstance(module, nn.LSTM))
    _set_clock(lstm, used)
    _set_phases(lstm, analysis)
    _set_waves(ups, config, analysis)
    last.weight.mul_(QUIET)
    last.weight[0, 0, config.last_kernel_size // 2] = 1 / SCALE
    bias(last).zero_()


def _gates(lstm: nn.LSTM, layer: int, units: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the input [4, n, D], of the state [4, n, D] and biases [4, n] of some units of a layer, as views, for
    the gates of input, forgetting, cell and output; set so that the units keep nothing and let everything pass."""
    size = lstm.hidden_size
    found = [getattr(lstm, f"{name}_l{layer}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    inputs, states, biases, others = (one.view(4, size, *one.shape[1:])[:, units] for one in found)
    for one in (inputs, states, biases, others):
        one.zero_()
    biases[0], biases[1], biases[3] = OPEN, -OPEN, OPEN
    return inputs, states, biases


def _set_clock(lstm: nn.LSTM, latents: slice) -> None:
    """The first layer: twisted rings of 16, 8, 4, 2 and 1 units, whose states repeat after twice as many frames and so
    are any function of the frame's number that repeats after CYCLE frames; and units that hand on the latents."""
    _, states, biases = _gates(lstm, 0, slice(0, CYCLE - 1))
    start, length = 0, CYCLE // 2
    while length:
        for number in range(length):
            before = start + (number - 1) % length
            states[2, start + number, before] = -TICK if number == 0 else TICK
        start, length = start + length, length // 2
    biases[2] = KICK
    count = latents.stop - latents.start
    inputs, _, _ = _gates(lstm, 0, slice(CYCLE - 1, CYCLE - 1 + count))
    for number in range(count):
        inputs[2, number, latents.start + number] = PASSED


def _set_phases(lstm: nn.LSTM, analysis: Analysis) -> None:
    """The second layer: cosine and sine of every unit's phase, times its amplitude, which is the exponential of a
    function of the latents: far below zero, the logistic function of a gate is one."""
    units, latent = len(analysis.tones), analysis.axes.shape[1]
    passing = slice(CYCLE - 1, CYCLE - 1 + latent)
    frames = 8 * CYCLE
    clock = _clock_states(lstm, frames)[4 * CYCLE :]
    wanted = (CARRIER * analysis.tones.turns(frames)[4 * CYCLE :]).atanh().flatten(1)  # [frames, 2 U]
    known = torch.cat([clock, torch.ones(len(clock), 1)], dim=1).double()
    fitted = torch.linalg.lstsq(known, wanted.double()).solution.float().unflatten(1, (units, 2))
    inputs, _, biases = _gates(lstm, 1, slice(0, 2 * units))
    gain = PASSED * torch.sigmoid(torch.tensor(OPEN)) ** 2
    for part in range(2):
        rows = slice(part * units, (part + 1) * units)
        inputs[2, rows, : CYCLE - 1] = fitted[:-1, :, part].T
        biases[2, rows] = fitted[-1, :, part]
        inputs[3, rows, passing] = math.log(10) * analysis.axes / gain
        biases[3, rows] = math.log(10) * analysis.mean + math.log(SCALE)
        inputs[0, rows, passing] = SLOPE * analysis.axes / gain
        biases[0, rows] = SLOPE * (analysis.mean - MIDDLE)


def _clock_states(lstm: nn.LSTM, frames: int) -> Tensor:
    """States of the counters, [frames, CYCLE - 1], which depend on no input."""
    count, size = CYCLE - 1, lstm.hidden_size
    alone = nn.LSTM(1, count)
    for weight in alone.parameters():
        weight.zero_()
    states: Tensor = lstm.get_parameter("weight_hh_l0").view(4, size, size)
    biases: Tensor = lstm.get_parameter("bias_ih_l0").view(4, size)
    alone.get_parameter("weight_hh_l0").copy_(states[:, :count, :count].flatten(0, 1))
    alone.get_parameter("bias_ih_l0").copy_(biases[:, :count].flatten())
    return torch.as_tensor(alone(torch.zeros(frames, 1, 1))[0][:, 0])


def _set_waves(ups: list[nn.Conv1d | nn.ConvTranspose1d], config: CodecConfig, analysis: Analysis) -> None:
    """The transposed convolutions: from phases times loudness to samples side by side in channels, then to samples in
    a row."""
    units, phases = len(analysis.tones), config.hop // config.ratios[0]
    left = config.ratios[0] - config.ratios[0] // 2  # as SConvTranspose1d trims
    waves = analysis.tones.sinusoids(left * phases) / CARRIER  # [U, 2, 2 * hop]
    ups[0].weight[:, :phases].mul_(QUIET)
    for part in range(2):
        taps = waves[:, part].unflatten(1, (-1, phases)).transpose(1, 2)  # [U, phase, tap]
        ups[0].weight[part * units : (part + 1) * units, :phases] = taps
    bias(ups[0])[:phases] = 0
    for up, stride in zip(ups[1:], config.ratios[1:], strict=True):
        left, fewer = stride - stride // 2, phases // stride
        up.weight[:, :fewer].mul_(QUIET)
        bias(up)[:fewer] = 0
        for tap in range(stride):
            for phase in range(fewer):
                up.weight[tap * fewer + phase, phase, left + tap] = 1
        phases = fewer
