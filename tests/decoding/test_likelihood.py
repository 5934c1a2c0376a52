"""The likelihood of the text, against its formula."""

from __future__ import annotations

import pytest
import torch

from magnet_cli.decoding.likelihood import Hiding, text_likelihood
from magnet_cli.errors import NumericsError, UsageError
from support.golden import Golden

FRAMES = 24


def clip(golden: Golden) -> torch.Tensor:
    config = golden.decoder.config
    random = torch.Generator().manual_seed(0)
    return torch.randint(config.codes, (1, config.codebooks, FRAMES), generator=random)


def test_it_is_the_mean_difference_of_log_probabilities(music: Golden) -> None:
    codes, hiding = clip(music), Hiding((0.5, 1.0), (3, 4), codebooks=2)
    text = music.text.encode([music.prompts[0]])
    memory, config = music.decoder.text_memory(text.states, text.lengths), music.decoder.config
    passes = list(hiding.masks(config.codebooks, FRAMES, config.span_length))
    assert [(codebook, int(mask.sum())) for codebook, mask in passes] == [
        (0, FRAMES // 2), (0, FRAMES // 2), (0, FRAMES), (1, FRAMES // 2), (1, FRAMES // 2), (1, FRAMES),
    ]  # fmt: skip
    expected = []
    for codebook, mask in passes:
        seen = codes.clone()
        seen[0, codebook, mask] = config.mask_code
        seen[0, codebook + 1 :] = config.mask_code
        chances = [
            music.decoder(seen, codebook, one).float().softmax(-1)[0].gather(-1, codes[0, codebook][:, None])[:, 0]
            for one in (memory, None)
        ]
        expected.append((chances[0].log() - chances[1].log())[mask].mean())
    found = text_likelihood(music.decoder, memory, codes, hiding)
    assert found == pytest.approx(float(torch.stack(expected).mean()), abs=1e-5)  # float32


def test_masks_hide_whole_spans_and_depend_on_the_seed_alone(music: Golden) -> None:
    span = music.decoder.config.span_length
    first, again = ([mask for _, mask in Hiding((0.5,), (seed,)).masks(4, FRAMES, span)] for seed in (1, 1))
    (other,) = (mask for _, mask in Hiding((0.5,), (2,)).masks(4, FRAMES, span))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other)
    spans = first[0].unflatten(0, (-1, span))
    assert torch.equal(spans.all(-1), spans.any(-1))
    ragged = [mask for _, mask in Hiding((0.9,)).masks(4, FRAMES + 1, span)]
    assert all(mask.shape == (FRAMES + 1,) for mask in ragged)


def test_what_cannot_be_is_refused(music: Golden) -> None:
    text = music.text.encode([music.prompts[0]])
    memory = music.decoder.text_memory(text.states, text.lengths)
    with pytest.raises(UsageError, match="less than one span"):
        text_likelihood(music.decoder, memory, clip(music)[..., : music.decoder.config.span_length - 1])
    for rates, seeds in (((0.0,), (0,)), ((1.5,), (0,)), ((), (0,)), ((0.5,), ())):
        with pytest.raises(UsageError, match="rates above 0"):
            Hiding(rates, seeds)


def test_values_that_are_not_finite_are_reported(music: Golden) -> None:
    text = music.text.encode([music.prompts[0]])
    memory = music.decoder.text_memory(text.states * float("nan"), text.lengths)
    with pytest.raises(NumericsError, match="not finite in float32"):
        text_likelihood(music.decoder, memory, clip(music))
