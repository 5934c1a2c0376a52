"""A sound as the loudness of tones that stand still: what phase-free codes describe, and how they become a waveform.

A waveform is cut into frames, and the energy of each frame is given to tones at fixed frequencies: semitones of A = 440
Hz where pitch is heard, quarter tones where a semitone is wide, and twice in a frame where attacks are heard. Energy
goes to the tone that is nearest to its instantaneous frequency rather than to the frequency of its bin (Auger,
Flandrin, "Improving the readability of time-frequency and time-scale representations by the reassignment method",
1995), so that a low note, too, is one tone. Phases are forgotten. The way back is a sum of sinusoids, each at its
tone's frequency, under windows that overlap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from magnet_cli.model.codec import Codec
from magnet_cli.model.config import CodecConfig

FLOOR = 1e-3  # amplitude, of a full scale of 1, below which tones hardly differ
CONCERT_PITCH = 440.0  # Hz
LOWEST = 40.0  # Hz
# Hz, from which a tone is a narrow band of noise on the way back: cymbals are heard there, and hardly any pitch.
NOISE = 3500.0
# Frames after which the sinusoids of a frame return to their phases: their frequencies are multiples of the frame rate
# over this number. At 25 frames a second, 0.8 Hz, a fifth of a semitone for the lowest tone.
CYCLE = 32


@dataclass(frozen=True)
class ToneRange:
    """Tones from `low` to `high` Hz: how many in an octave, how often in a frame, and the window in seconds."""

    low: float
    high: float
    per_octave: int
    slots: int
    window: float


TONE_RANGES = (
    ToneRange(LOWEST, 400.0, 12, 1, 0.128),
    ToneRange(400.0, 2000.0, 24, 1, 0.064),
    ToneRange(2000.0, math.inf, 12, 2, 0.032),
)


def _frequencies(region: ToneRange, highest: float) -> list[float]:
    top = min(region.high, highest)
    first = math.ceil(region.per_octave * math.log2(region.low / CONCERT_PITCH))
    last = math.ceil(region.per_octave * math.log2(top / CONCERT_PITCH)) - 1
    return [CONCERT_PITCH * 2 ** (number / region.per_octave) for number in range(first, last + 1)]


class Tones:
    """The tones of a sample rate and a frame length.

    frequencies: Hz, one for each unit; places: samples from a frame's first sample to the middle of each unit's window;
    widths: samples of each unit's window on the way back. A unit is a tone in a slot of the frame; U is their number.
    """

    def __init__(self, sample_rate: int, hop: int) -> None:
        self.sample_rate, self.hop = sample_rate, hop
        self._parts = [(region, found) for region in TONE_RANGES if (found := _frequencies(region, 0.49 * sample_rate))]
        frequencies: list[float] = []
        places: list[float] = []
        widths: list[int] = []
        for region, found in self._parts:
            step = hop // region.slots
            for slot in range(region.slots):
                frequencies += found
                places += [(slot + 0.5) * step] * len(found)
                widths += [2 * step] * len(found)
        self.frequencies = torch.tensor(frequencies, dtype=torch.float64)
        self.places = torch.tensor(places, dtype=torch.float64)
        self.widths = torch.tensor(widths)

    def __len__(self) -> int:
        return len(self.frequencies)

    def loudness(self, waveforms: Tensor) -> Tensor:
        """Decimal logarithms of the amplitudes, FLOOR added. [B, L] float32 -> [B, T, U], T = L // hop."""
        frames = waveforms.shape[-1] // self.hop
        parts = []
        for region, found in self._parts:
            power = self._energy(waveforms, region, found, frames)  # [B, T * slots, tones]
            parts.append(power.unflatten(1, (frames, region.slots)).flatten(2))
        return (torch.cat(parts, dim=-1).sqrt() + FLOOR).log10()

    def _energy(self, waveforms: Tensor, region: ToneRange, found: list[float], frames: int) -> Tensor:
        """Squared amplitudes of a region's tones, [B, T * slots, tones]."""
        size = 2 ** round(math.log2(region.window * self.sample_rate))
        step = self.hop // region.slots
        turn = 2 * math.pi * torch.arange(size) / size
        window, slope = 0.5 - 0.5 * turn.cos(), math.pi / size * turn.sin()
        padded = torch.nn.functional.pad(waveforms, (size // 2 - step // 2, size))
        cut = padded.unfold(-1, size, step)[:, : frames * region.slots]
        spectrum, derived = torch.fft.rfft(cut * window), torch.fft.rfft(cut * slope)
        power = spectrum.real.square() + spectrum.imag.square()
        shift = (derived.imag * spectrum.real - derived.real * spectrum.imag) / (power + 1e-9)
        shift = shift * (self.sample_rate / (2 * math.pi))  # Hz
        width = self.sample_rate / size  # of a bin
        middle = torch.arange(size // 2 + 1) * width
        # Further than the main lobe reaches, there is no tone but only leakage.
        frequency = middle - torch.where(shift.abs() < 2.2 * width, shift, torch.zeros_like(shift))
        within = (frequency >= region.low) & (frequency < region.high)
        tones = torch.tensor(found).log2()
        borders = (tones[1:] + tones[:-1]) / 2
        nearest = torch.bucketize(frequency.clamp(min=1.0).log2().contiguous(), borders)
        energy = torch.zeros(*power.shape[:2], len(found))
        # Half the spectrum of a sinusoid of amplitude A under a window w of N samples has the energy
        # N A^2 sum(w^2) / 4.
        scale = 4 / (size * float(window.square().sum()))
        return energy.scatter_add_(2, nearest, torch.where(within, power, torch.zeros_like(power)) * scale)

    def sinusoids(self, before: int) -> Tensor:
        """What a unit of amplitude 1 adds to the waveform, [U, 2, 2 * hop], from `before` samples before its frame.

        The first is for the cosine of the tone's phase at the frame's first sample, and the second for its sine; see
        `turns`. From NOISE on, they are two noises as wide as the distance of the tones.
        """
        sample = torch.arange(2 * self.hop, dtype=torch.float64) - before
        away = (sample + 0.5 - self.places[:, None]) / self.widths[:, None]
        window = torch.where(away.abs() < 0.5, 0.5 + 0.5 * torch.cos(2 * math.pi * away), 0.0)
        phase = 2 * math.pi * self._turn()[:, None] * sample / self.hop + self._beginnings()[:, None]
        waves = torch.stack([phase.cos(), -phase.sin()], dim=1)
        noisy = self.frequencies >= NOISE
        waves[noisy] = self._noises(self.frequencies[noisy], len(sample))
        return (window[:, None] * waves).float()

    def filters(self, before: int) -> Tensor:
        """Windowed cosines of every unit under three phases, [U, 3, 2 * hop], from `before` samples before a frame."""
        sample = torch.arange(2 * self.hop, dtype=torch.float64) - before
        away = (sample + 0.5 - self.places[:, None]) / self.widths[:, None]
        window = torch.where(away.abs() < 0.5, 0.5 + 0.5 * torch.cos(2 * math.pi * away), 0.0)
        phase = 2 * math.pi * self.frequencies[:, None] * sample / self.sample_rate
        return torch.stack([window * (phase + 2 * math.pi * third / 3).cos() for third in range(3)], dim=1).float()

    def turns(self, count: int) -> Tensor:
        """Cosine and sine of every unit's phase at the first sample of `count` frames, [count, U, 2]."""
        phase = 2 * math.pi * torch.arange(count, dtype=torch.float64)[:, None] * self._turn()
        noisy = self.frequencies >= NOISE
        drawn = torch.rand(CYCLE, int(noisy.sum()), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        phase[:, noisy] = 2 * math.pi * drawn[torch.arange(count) % CYCLE]
        return torch.stack([phase.cos(), phase.sin()], dim=-1).float()

    def _noises(self, frequencies: Tensor, length: int) -> Tensor:
        """Two noises around each frequency, a semitone wide, as strong as a sinusoid of amplitude 1: [N, 2, L]."""
        generator = torch.Generator().manual_seed(2)
        spectrum = torch.fft.rfft(torch.randn(len(frequencies), 2, length, dtype=torch.float64, generator=generator))
        bins = torch.fft.rfftfreq(length, 1 / self.sample_rate).double()
        octaves = (bins.clamp(min=1.0) / frequencies[:, None]).log2()
        spectrum[(octaves.abs() > 1 / 24)[:, None].expand_as(spectrum)] = 0
        noise = torch.fft.irfft(spectrum, n=length)
        return noise / noise.square().mean(-1, keepdim=True).sqrt() / math.sqrt(2)

    def _turn(self) -> Tensor:
        """Cycles in a frame, multiples of 1 / CYCLE."""
        return (self.frequencies * self.hop / self.sample_rate * CYCLE).round() / CYCLE

    def _beginnings(self) -> Tensor:
        """Phases at the beginning of a clip: far apart, so that the tones of a click do not add up to one peak."""
        golden = (math.sqrt(5) - 1) / 2
        tone = (self.frequencies.log2() * 24).round()  # the slots of a tone begin alike
        return 2 * math.pi * ((tone * golden) % 1.0)


class Analysis(nn.Module):
    """The latents of phase-free codes: principal components [U, D] of the tones' loudness around its mean [U].

    The codebooks of a codec that begins phase-free are made of these latents, and its encoder imitates them.
    """

    mean: Tensor
    axes: Tensor

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.tones = Tones(config.sample_rate, config.hop)
        self.register_buffer("mean", torch.zeros(len(self.tones)))
        self.register_buffer("axes", torch.zeros(len(self.tones), config.dimension))

    def forward(self, waveforms: Tensor) -> Tensor:
        """Latents. [B, 1, L] -> [B, D, T], T = L // hop."""
        return ((self.tones.loudness(waveforms[:, 0]) - self.mean) @ self.axes).transpose(1, 2)

    @torch.inference_mode()
    def encode(self, codec: Codec, waveforms: Tensor) -> Tensor:
        """Codes of a codec with these latents. [B, 1, L] -> int64 [B, K, T]."""
        return codec.quantizer.vq.encode(self(waveforms).to(codec.device)).transpose(0, 1)
