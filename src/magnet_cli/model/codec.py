"""EnCodec: waveform <-> codes.

The network's modules come from the `encodec` package; Défossez et al., "High Fidelity Neural Audio Compression" (2022).
Built without weight normalization: `checkpoints` folds it into the weights when it reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from encodec.modules import SConv1d, SConvTranspose1d, SEANetDecoder, SEANetEncoder
from encodec.modules.lstm import SLSTM
from encodec.modules.seanet import SEANetResnetBlock
from encodec.quantization import ResidualVectorQuantizer
from torch import Tensor, nn

from magnet_cli.model.config import CodecConfig

# Frames of a loop that are decoded again before and after it. Convolutions see 4 frames to either side. The LSTM has
# no fixed reach, but it forgets: with random weights, to the last bit within 100 frames. What a trained one still
# remembers after 250 frames (5 s) can differ between the loop's beginning and end. So the loop's last frames are
# cross-faded to those decoded just before its beginning, which are the same if the LSTM has forgotten.
RUN_IN, RUN_OUT, FADE = 250, 8, 4

# Frames that are encoded or decoded at once: 30 s, the longest clips of released models, so that those are decoded as
# a whole, as their authors do. This takes about 1 GB with the codec of those models.
PIECE = 1500
ENDLESS = 1 << 62  # frames of what has no end

Source = Callable[[int, int], Tensor]


class Codec(nn.Module):
    """Autoencoder with a residual vector quantizer of K codebooks."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        shape: dict[str, Any] = {
            "channels": config.channels,
            "dimension": config.dimension,
            "n_filters": config.n_filters,
            "n_residual_layers": config.n_residual_layers,
            "ratios": list(config.ratios),
            "activation": config.activation,
            "activation_params": config.activation_params,
            "norm": "none",
            "kernel_size": config.kernel_size,
            "last_kernel_size": config.last_kernel_size,
            "residual_kernel_size": config.residual_kernel_size,
            "dilation_base": config.dilation_base,
            "causal": config.causal,
            "pad_mode": config.pad_mode,
            "true_skip": config.true_skip,
            "compress": config.compress,
            "lstm": config.lstm,
        }
        self.encoder = SEANetEncoder(**shape)
        self.decoder = SEANetDecoder(
            **shape, trim_right_ratio=config.trim_right_ratio, final_activation=config.final_activation
        )
        self.quantizer = ResidualVectorQuantizer(config.dimension, n_q=config.codebooks, bins=config.codes)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @torch.inference_mode()
    def encode(self, waveform: Tensor, *, loop: bool = False, piece: int = PIECE) -> Tensor:
        """Codes of a waveform. [B, C, L] float32 at `config.sample_rate` -> int64 [B, K, T].

        loop: the sound is repeated without end, and this is one period of it, of whole frames. piece: frames that are
        encoded at once; see `decode_pieces`.
        """
        hop, samples = self.config.hop, waveform.shape[-1]
        if loop:
            frames = samples // hop
            before = -(-RUN_IN // frames) * frames  # whole rounds
            places = torch.arange(-before * hop, (frames + RUN_OUT) * hop, device=waveform.device) % samples
            return self.encode(waveform[..., places], piece=piece)[..., before : before + frames]

        def source(first: int, end: int) -> Tensor:
            return waveform[..., first * hop : min(end * hop, samples)].to(self.device)

        latents = in_pieces(self.encoder.model, source, frames=-(-samples // hop), piece=piece, scale=(hop, 1))
        return torch.cat([self.quantizer.vq.encode(latent).transpose(0, 1) for latent in latents], dim=-1)

    @torch.inference_mode()
    def decode(self, codes: Tensor, *, loop: bool = False, piece: int = PIECE) -> Tensor:
        """Waveform of codes; the first K' codebooks are enough. int64 [B, K', T] -> float32 [B, C, T * hop].

        loop: the codes are one period of a sound that repeats. piece: see `decode_pieces`.
        """
        return self._decode_loop(codes) if loop else torch.cat(list(self.decode_pieces(codes, piece=piece)), dim=-1)

    @torch.inference_mode()
    def decode_pieces(self, codes: Tensor, *, piece: int = PIECE) -> Iterator[Tensor]:
        """`decode`, one part of the waveform after the other, in memory that does not grow with its length.

        Each convolution sees its whole neighbourhood, and the LSTM's state is carried on, so the parts equal those of
        the whole: to the last bit where kernels sum in the same order at any length, else within rounding of float32.
        All parts are computed in windows of one length, so rounding does not depend on the clip's length. Up to `piece`
        frames are decoded as a whole.
        """

        def source(first: int, end: int) -> Tensor:
            return self.quantizer.vq.decode(codes[..., first:end].to(self.device).transpose(0, 1))

        scale = (1, self.config.hop)
        yield from in_pieces(self.decoder.model, source, frames=codes.shape[-1], piece=piece, scale=scale)

    @torch.inference_mode()
    def decode_endless(self, source: Source, *, piece: int) -> Iterator[Tensor]:
        """`decode_pieces` of codes that have no end: float32 [B, C, piece * hop], one after the other.

        source: returns codes int64 [B, K', n] of frames `first` to `last`, exclusive. Neither ever falls, and `last` is
        at most a few pieces ahead of what has been yielded.
        """

        def latents(first: int, end: int) -> Tensor:
            return self.quantizer.vq.decode(source(first, end).to(self.device).transpose(0, 1))

        yield from in_pieces(self.decoder.model, latents, frames=ENDLESS, piece=piece, scale=(1, self.config.hop))

    @torch.inference_mode()
    def _decode_loop(self, codes: Tensor) -> Tensor:
        frames = codes.shape[-1]
        before = -(-RUN_IN // frames) * frames  # whole periods
        places = torch.arange(-before, frames + RUN_OUT, device=codes.device) % frames
        waveform = self.decode(codes[..., places])
        start, length = before * self.config.hop, frames * self.config.hop
        period = waveform[..., start : start + length].clone()
        fade = min(FADE, frames) * self.config.hop
        weight = 0.5 - 0.5 * torch.cos(torch.linspace(0, torch.pi, fade, device=waveform.device))
        period[..., -fade:].lerp_(waveform[..., start - fade : start], weight)
        return period


def in_pieces(
    network: nn.Sequential, source: Source, *, frames: int, piece: int, scale: tuple[int, int]
) -> Iterator[Tensor]:
    """The output of an encoder or a decoder for T `frames`, `piece` frames at a time.

    source: returns the input of frames `first` to `last`, exclusive. scale: samples in a frame of input and of output.
    """
    layers = list(network)
    place, lstm = next(((place, layer) for place, layer in enumerate(layers) if isinstance(layer, SLSTM)), (-1, None))
    after = nn.Sequential(*layers[place + 1 :])
    # An encoder comes down to frames before its LSTM, and a decoder goes up from them after it.
    margin = reach(after, scale[0] if lstm is None else 1)
    if lstm is not None:
        before = nn.Sequential(*layers[:place])
        source = Recurrence(before, lstm, source, frames, piece + 2 * margin, scale[0])
    for start in range(0, frames, piece):
        end = min(start + piece, frames)
        first, last = window(start, frames, length=piece + 2 * margin, margin=margin)
        made = after(source(first, last))
        yield made[..., (start - first) * scale[1] : (end - first) * scale[1]]


class Recurrence:
    """The output of an LSTM and of the layers `before` it for T frames, computed from first to last, never back.

    memory: number of the latest frames whose output is kept. ratio: input samples in a frame.
    """

    def __init__(
        self, before: nn.Sequential, lstm: SLSTM, source: Source, frames: int, memory: int, ratio: int
    ) -> None:
        self._before, self._lstm, self._source = before, lstm, source
        self._frames, self._memory, self._margin = frames, memory, reach(before, ratio)
        self._made: Tensor | None = None  # of the frames that end with `_done`
        self._state: tuple[Tensor, Tensor] | None = None
        self._done = 0

    def __call__(self, first: int, last: int) -> Tensor:
        """The output of frames `first` to `last`, exclusive, at most `memory` of them, [B, D, T']."""
        if last > self._done or self._made is None:
            entered, left = window(
                self._done, self._frames, length=self._memory + 2 * self._margin, margin=self._margin
            )
            new = self._before(self._source(entered, left))[..., self._done - entered : last - entered]
            steps = new.permute(2, 0, 1)
            made, self._state = self._lstm.lstm(steps, self._state)
            made = (made + steps if self._lstm.skip else made).permute(1, 2, 0)
            self._made = made if self._made is None else torch.cat([self._made, made], dim=-1)[..., -self._memory :]
            self._done = last
        start = self._done - self._made.shape[-1]
        return self._made[..., first - start : last - start]


def window(start: int, frames: int, *, length: int, margin: int) -> tuple[int, int]:
    """First frame, and the frame after the last, of a window of T `frames` that begins `margin` before `start`.

    Every window has this `length`; one that would reach beyond either end is moved.
    """
    first = min(max(start - margin, 0), max(frames - length, 0))
    return first, min(first + length, frames)


def reach(layers: Iterable[nn.Module], ratio: int) -> int:
    """Most frames to either side that the layers see. ratio: samples of their input in a frame."""
    return -(-_reach(layers, 0) // ratio)


def _reach(layers: Iterable[nn.Module], samples: int) -> int:
    """Samples of the input to either side on which this many samples of the output depend."""
    conv: Any
    for layer in reversed(list(layers)):
        if isinstance(layer, SEANetResnetBlock):
            samples = _reach(layer.block, samples)
        elif isinstance(layer, SConv1d):
            conv = layer.conv.conv
            samples = samples * conv.stride[0] + (conv.kernel_size[0] - 1) * conv.dilation[0]
        elif isinstance(layer, SConvTranspose1d):
            conv = layer.convtr.convtr
            samples = -(-(samples + conv.kernel_size[0]) // conv.stride[0])
    return samples
