"""EnCodec: waveform <-> codes.

The network's modules come from the `encodec` package; Défossez et al., "High Fidelity Neural Audio Compression" (2022).
Built without weight normalization: `checkpoints` folds it into the weights when it reads them.
"""

from __future__ import annotations

from typing import Any

import torch
from encodec.modules import SEANetDecoder, SEANetEncoder
from encodec.quantization import ResidualVectorQuantizer
from torch import Tensor, nn

from magnet_cli.model.config import CodecConfig

# Frames of a loop that are decoded again before and after it. The convolutions see 4 frames to either side. The LSTM
# looks back without end but forgets; random ones do so to the last bit within 100 frames. What a trained one may still
# know after 250, 5 s, differs from the loop's beginning to its end, so over its last frames the loop fades to what was
# decoded just before its beginning, which is the same when the LSTM has forgotten.
RUN_IN, RUN_OUT, FADE = 250, 8, 4


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
    def encode(self, waveform: Tensor) -> Tensor:
        """Codes of a waveform. [B, C, L] float32 at `config.sample_rate` -> int64 [B, K, T]."""
        latent = self.encoder(waveform.to(self.device))
        return self.quantizer.vq.encode(latent).transpose(0, 1)

    @torch.inference_mode()
    def decode(self, codes: Tensor, *, loop: bool = False) -> Tensor:
        """Waveform of codes; the first K' codebooks are enough. int64 [B, K', T] -> float32 [B, C, T * hop].

        loop: the sound is repeated without end, and this is one period of it.
        """
        if loop:
            return self._decode_loop(codes)
        latent = self.quantizer.vq.decode(codes.to(self.device).transpose(0, 1))
        return self.decoder(latent)

    def _decode_loop(self, codes: Tensor) -> Tensor:
        frames = codes.shape[-1]
        before = -(-RUN_IN // frames) * frames  # whole rounds
        places = torch.arange(-before, frames + RUN_OUT, device=codes.device) % frames
        waveform = self.decode(codes[..., places])
        start, length = before * self.config.hop, frames * self.config.hop
        period = waveform[..., start : start + length].clone()
        fade = min(FADE, frames) * self.config.hop
        weight = 0.5 - 0.5 * torch.cos(torch.linspace(0, torch.pi, fade, device=waveform.device))
        period[..., -fade:].lerp_(waveform[..., start - fade : start], weight)
        return period
