"""EnCodec: waveform <-> codes.

The network's modules come from the `encodec` package; Défossez et al., "High Fidelity Neural Audio Compression" (2022).
Built without weight normalization: `checkpoint` folds it into the weights when it reads them.
"""

from __future__ import annotations

from typing import Any

import torch
from encodec.modules import SEANetDecoder, SEANetEncoder
from encodec.quantization import ResidualVectorQuantizer
from torch import Tensor, nn

from magnet_cli.config import CodecConfig


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
    def decode(self, codes: Tensor) -> Tensor:
        """Waveform of codes; the first K' codebooks are enough. int64 [B, K', T] -> float32 [B, C, T * hop]."""
        latent = self.quantizer.vq.decode(codes.to(self.device).transpose(0, 1))
        return self.decoder(latent)
