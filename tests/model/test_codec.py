"""Encoding and decoding with the golden codecs: shapes, batches, fewer codebooks. (Values: test_golden.py.)"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from support.golden import Golden

# A batch may be convolved in blocks of another size: float32 sums in another order, through two LSTMs.
BATCH_TOLERANCE = 1e-5


def noise(golden: Golden, batch: int, samples: int, seed: int = 0) -> Tensor:
    shape = (batch, golden.codec.config.channels, samples)
    return 0.5 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_codes(golden: Golden, batch: int, codebooks: int, frames: int) -> Tensor:
    shape = (batch, codebooks, frames)
    return torch.randint(golden.codec.config.codes, shape, generator=torch.Generator().manual_seed(1))


def test_the_hop_is_that_of_the_released_codecs(golden: Golden) -> None:
    config = golden.codec.config
    assert (config.sample_rate, config.hop) in [(32_000, 640), (16_000, 320)]
    assert config.frame_rate == 50


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("frames", [1, 2, 50])
def test_encode_gives_a_code_for_each_frame(golden: Golden, batch: int, frames: int) -> None:
    config = golden.codec.config
    codes = golden.codec.encode(noise(golden, batch, frames * config.hop))
    assert codes.shape == (batch, config.codebooks, frames)
    assert codes.dtype == torch.int64
    assert codes.min() >= 0
    assert codes.max() < config.codes


@pytest.mark.parametrize("extra", [1, -1])
def test_a_last_frame_that_is_not_whole_is_a_frame(golden: Golden, extra: int) -> None:
    samples = 10 * golden.codec.config.hop + extra
    assert golden.codec.encode(noise(golden, 1, samples)).shape[-1] == (11 if extra > 0 else 10)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("frames", [1, 2, 50])
@pytest.mark.parametrize("codebooks", [1, 2, 4])
def test_decode_takes_any_number_of_codebooks(golden: Golden, batch: int, frames: int, codebooks: int) -> None:
    config = golden.codec.config
    waveform = golden.codec.decode(random_codes(golden, batch, codebooks, frames))
    assert waveform.shape == (batch, config.channels, frames * config.hop)
    assert waveform.dtype == torch.float32
    assert waveform.isfinite().all()


def test_every_codebook_is_heard(golden: Golden) -> None:
    codes = random_codes(golden, 1, 4, 20)
    waveforms = [golden.codec.decode(codes[:, :k]) for k in (1, 2, 3, 4)]
    for fewer, more in pairwise(waveforms):
        assert (fewer - more).abs().max() > 1e-4  # far above rounding


def test_latents_are_the_sum_of_the_codebooks(golden: Golden) -> None:
    codes = random_codes(golden, 2, 4, 9)
    quantizer = golden.codec.quantizer.vq
    wanted = sum(layer._codebook.embed[codes[:, k]] for k, layer in enumerate(quantizer.layers))
    found = quantizer.decode(codes.transpose(0, 1))
    torch.testing.assert_close(found, wanted.transpose(1, 2))


def test_codes_are_the_nearest_of_each_codebook(golden: Golden) -> None:
    waveform = noise(golden, 1, 30 * golden.codec.config.hop)
    codes = golden.codec.encode(waveform)
    with torch.inference_mode():
        residual = golden.codec.encoder(waveform)[0].T.double()  # [T, dimension]
    for k, layer in enumerate(golden.codec.quantizer.vq.layers):
        embed = layer._codebook.embed.double()
        distance = torch.cdist(residual, embed)
        chosen = distance.gather(1, codes[0, k].unsqueeze(1)).squeeze(1)
        # The codec compares squared distances in float32, so of two that are equal but for rounding it may take either.
        assert (chosen - distance.min(dim=1).values).max() < 1e-3
        residual = residual - embed[codes[0, k]]


def test_a_batch_encodes_as_its_items(golden: Golden) -> None:
    waveform = noise(golden, 3, 20 * golden.codec.config.hop)
    together = golden.codec.encode(waveform)
    alone = torch.cat([golden.codec.encode(item.unsqueeze(0)) for item in waveform])
    assert torch.equal(together, alone)


def test_a_batch_decodes_as_its_items(golden: Golden) -> None:
    codes = random_codes(golden, 3, 4, 20)
    together = golden.codec.decode(codes)
    alone = torch.cat([golden.codec.decode(item.unsqueeze(0)) for item in codes])
    assert (together - alone).abs().max() < BATCH_TOLERANCE


def test_a_decoded_waveform_can_be_encoded_again(golden: Golden) -> None:
    config = golden.codec.config
    codes = golden.codec.encode(golden.codec.decode(random_codes(golden, 2, 4, 25)))
    assert codes.shape == (2, config.codebooks, 25)
    assert codes.min() >= 0
    assert codes.max() < config.codes
    assert golden.codec.decode(codes).isfinite().all()


def test_silence_and_clipping_are_encoded(golden: Golden) -> None:
    samples = 10 * golden.codec.config.hop
    for waveform in (torch.zeros(1, 1, samples), torch.full((1, 1, samples), 100.0)):
        assert golden.codec.encode(waveform).shape == (1, 4, 10)


def test_there_is_no_weight_normalization_left(golden: Golden) -> None:
    assert not any(name.endswith(("weight_g", "weight_v")) for name in golden.codec.state_dict())
    assert not any(weight.requires_grad for weight in golden.codec.parameters())
