"""Loops: the circle has no place unlike the others, in the decoder, in the codec and in the sound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from magnet_cli.audio.looping import fit_period
from magnet_cli.decoding.circle import Loop, turn
from magnet_cli.decoding.masked import Known, decode
from magnet_cli.decoding.steps import Grid, overlapping_spans
from magnet_cli.errors import UsageError
from magnet_cli.model.config import DecoderConfig
from magnet_cli.options.sampling import SamplingConfig, Spans
from support.closure import closure
from support.golden import CPU, Golden

SIXTEEN_BITS = 2.0**-16  # half a step


# -- the circle, unrolled ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 2, 3, 37, 75, 76, 99, 100])
@pytest.mark.parametrize("origin", [0, 30])
def test_views_predict_every_frame_once_with_room_around_it(frames: int, origin: int) -> None:
    views = Loop(window=100).views(frames, origin, CPU)
    order = [int(frame) for view in views for frame in view.frames[view.predicted]]
    assert order == [(origin + place) % frames for place in range(frames)]
    for view in views:
        assert view.frames.shape == (100,)  # as the model was trained
        steps = view.frames.diff() % frames
        assert ((steps == 1) | (steps == 1 - frames) | (frames == 1)).all()  # round and round, without a gap
        assert min(view.predicted.start, 100 - view.predicted.stop) >= 12
    assert len(views) == (1 if frames <= 76 else 2)


def test_a_loop_longer_than_a_clip_is_refused(music: Golden) -> None:
    with pytest.raises(UsageError, match="loop of 101 frames"):
        decode(music.decoder, None, [0], SamplingConfig(steps=(1, 1, 1, 1)), frames=101, loop=Loop(100))


@pytest.mark.parametrize(("frames", "spans"), [(99, 33), (100, 33), (101, 33), (4, 1), (2, 1)])
def test_a_circle_has_no_leftover_span(frames: int, spans: int) -> None:
    members = Grid.build(frames, 3, circular=True, device=CPU).members
    sizes = (members < frames).sum(dim=1)
    assert len(members) == spans
    assert members[members < frames].tolist() == list(range(frames))
    assert sizes.max() - sizes.min() <= 1
    line = Grid.build(frames, 3, circular=False, device=CPU).members
    assert [len(row[row < frames]) for row in line] == [3] * (frames // 3) + ([frames % 3] if frames % 3 else [])


@pytest.mark.parametrize("by", [1, 7, 19])
def test_overlapping_spans_turn_with_the_circle(by: int) -> None:
    scores = torch.rand(20, generator=torch.Generator().manual_seed(0))
    for target in (3, 8, 15):
        mask = overlapping_spans(scores, target, 3, circular=True)
        turned = overlapping_spans(scores.roll(by), target, 3, circular=True)
        assert torch.equal(turned, mask.roll(by))


@pytest.mark.parametrize("spans", ["nonoverlap", "stride1"])
@pytest.mark.parametrize("frames", [40, 99, 100])
def test_the_same_circle_may_begin_anywhere(music: Golden, spans: Spans, frames: int) -> None:
    # Where it begins is all that a seed decides in greedy decoding. At a falling temperature scores become equal, and
    # of equal ones the first counts: that would be a place unlike the others.
    sampling = SamplingConfig(steps=(6, 3, 2, 2), spans=spans, greedy=True, anneal=False)
    seeds, loop, memory = [1, 5, 6], Loop(music.frames), music.memory("x")
    starts = loop.starts(seeds, frames, CPU)
    assert len(set(starts.tolist())) == 3
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(64, (1, 4, frames), generator=generator)
    keep = torch.rand(1, 1, frames, generator=generator).expand(1, 4, -1) < 0.3
    together = Known(turn(codes.expand(3, -1, -1), starts.neg()), turn(keep.expand(3, -1, -1), starts.neg()))
    many = music.memory("x", "x", "x")
    for known in (None, together):
        found = decode(music.decoder, many, seeds, sampling, frames=frames, known=known, loop=loop)
        assert found.shape == (3, 4, frames)
        assert torch.equal(turn(found, starts), turn(found, starts)[:1].expand(3, -1, -1))
    assert torch.equal(found[together.keep], together.codes[together.keep])
    one = Known(together.codes[1:2], together.keep[1:2])
    alone = decode(music.decoder, memory, [5], sampling, frames=frames, known=one, loop=loop)
    assert torch.equal(alone, found[1:2])


def test_starts_are_anywhere_and_hold_in_any_batch() -> None:
    starts = Loop(100).starts(range(2000), 50, CPU)
    assert (starts.min(), starts.max()) == (0, 49)
    counts = torch.bincount(starts, minlength=50)
    # 40 each are expected; chi-square with 49 degrees of freedom exceeds 86 once in a thousand, and the seeds are fixed
    assert float(((counts - 40.0) ** 2 / 40).sum()) < 86
    assert torch.equal(Loop(100).starts([1234], 50, CPU), starts[1234:1235])


class Walk:
    """A network to which only the past and future of a code matter: a random walk through what is known of a line."""

    device, dtype = CPU, torch.float32

    def __init__(self, config: DecoderConfig) -> None:
        self.config = config

    def forget(self) -> None:
        pass

    def guided(
        self, codes: Tensor, codebook: int, memory: object, weight: float, wanted: Tensor | None = None
    ) -> Tensor:
        line = codes[:, codebook].float()
        known = line != self.config.mask_code
        places = torch.arange(line.shape[1]).expand_as(line)
        before = places.where(known, -1).cummax(dim=1).values
        after = places.where(known, 10**6).flip(1).cummin(dim=1).values.flip(1)
        near = [line.gather(1, x.clamp(0, line.shape[1] - 1)) for x in (before, after)]
        # A side on which nothing is known is infinitely far away, and so says nothing.
        far = [(places - before).where(before >= 0, 10**6), (after - places).where(after < 10**6, 10**6)]
        weights = [1 / distance.clamp(min=1e-3) for distance in far]
        total = weights[0] + weights[1]
        mean = (near[0] * weights[0] + near[1] * weights[1]) / total
        values = torch.arange(self.config.codes)
        return -((values - mean.unsqueeze(-1)) ** 2) * total.unsqueeze(-1) / 8  # steps of about 2


def steps_at(loop: Loop | None, frames: int, music: Golden, spans: Spans) -> tuple[float, Tensor]:
    """Mean step of a walk's loops from a frame to the next: at the seam, and at each other place."""
    walk = Walk(replace(music.decoder.config, codebooks=1))
    sampling = SamplingConfig(steps=(20,), spans=spans, temperature=1, anneal=False, top_p=None)
    seeds = range(100)
    codes = decode(walk, None, seeds, sampling, frames=frames, loop=loop, whole_spans=False)  # type: ignore[arg-type]
    if loop is not None:  # as they were decoded, so that what is special about a place adds up
        codes = turn(codes, loop.starts(seeds, frames, CPU))
    steps = (codes[:, 0] - codes[:, 0].roll(1, dims=-1)).float().abs().mean(dim=0)
    return float(steps[0]), steps[1:]


@pytest.mark.parametrize("spans", ["nonoverlap", "stride1"])
@pytest.mark.parametrize("frames", [40, 100])
def test_the_circle_closes_where_a_line_does_not(music: Golden, spans: Spans, frames: int) -> None:
    seam, inside = steps_at(None, frames, music, spans)
    assert seam > 3 * inside.mean()
    assert seam > inside.max()
    seam, inside = steps_at(Loop(music.frames), frames, music, spans)
    assert seam < inside.max()
    assert seam < 1.6 * inside.mean()  # the edges of spans that were decided together take up to twice the mean


# -- the codec --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 2, 7, 60, 300])
def test_a_loop_of_the_codec_turns_with_its_codes(golden: Golden, frames: int) -> None:
    codec, hop = golden.codec, golden.codec.config.hop
    codes = torch.randint(64, (2, 4, frames), generator=torch.Generator().manual_seed(frames))
    waveform = codec.decode(codes, loop=True)
    assert waveform.shape == (2, 1, frames * hop)
    for by in {1, frames // 2, frames - 1}:
        turned = codec.decode(codes.roll(by, dims=-1), loop=True)
        assert (turned - waveform.roll(by * hop, dims=-1)).abs().max() < SIXTEEN_BITS


def test_a_loop_of_the_codec_is_what_repeating_it_gives(golden: Golden) -> None:
    codec, hop = golden.codec, golden.codec.config.hop
    codes = torch.randint(64, (1, 4, 60), generator=torch.Generator().manual_seed(0))
    repeated = codec.decode(codes.repeat(1, 1, 10))
    middle = repeated[..., 5 * 60 * hop : 6 * 60 * hop]
    assert (codec.decode(codes, loop=True) - middle).abs().max() < SIXTEEN_BITS
    assert (codec.decode(codes) - middle).abs().max() > 100 * SIXTEEN_BITS


def test_a_codec_that_does_not_forget_still_closes(golden: Golden) -> None:
    codec, hop = golden.codec, golden.codec.config.hop
    lstm = codec.decoder.model[1].lstm
    forget = slice(lstm.hidden_size, 2 * lstm.hidden_size)
    codes = torch.randint(64, (1, 4, 60), generator=torch.Generator().manual_seed(0))
    for bias in (lstm.bias_ih_l0, lstm.bias_ih_l1):
        bias.data[forget] += 4  # lets 98 % through at every frame, so that no two rounds sound the same
    try:
        loop = codec.decode(codes, loop=True)
        again = codec.decode(codes.repeat(1, 1, 6))
    finally:
        for bias in (lstm.bias_ih_l0, lstm.bias_ih_l1):
            bias.data[forget] -= 4
    start = 5 * 60 * hop  # as a line: five rounds to run in, then the loop
    assert (again[..., start - 1] - again[..., start + 60 * hop - 1]).abs().max() > 100 * SIXTEEN_BITS
    assert (loop[..., 0] - again[..., start]).abs().max() < SIXTEEN_BITS
    assert (loop[..., -1] - again[..., start - 1]).abs().max() < SIXTEEN_BITS


# -- period -----------------------------------------------------------------------------------------------------------

RATE = 32_000


@pytest.mark.parametrize("samples", [31_999, 32_000, 32_001, 31_700, 33_333])
def test_a_period_is_fitted_as_a_circle(samples: int) -> None:
    def wave(length: int) -> np.ndarray:
        turns = np.arange(length) / length
        return np.stack([np.sin(2 * np.pi * 220 * turns + 1), 0.5 + 0.2 * np.cos(2 * np.pi * 9_000 * turns)])

    found = fit_period(wave(32_000).astype(np.float32), samples)
    assert found.dtype == np.float32
    assert np.abs(found - wave(samples)).max() < 1e-6  # float32


# -- closure ----------------------------------------------------------------------------------------------------------


def band(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    """A periodic sound with overtones and noise."""
    length = round(seconds * RATE)
    generator = np.random.default_rng(seed)
    spectrum = generator.standard_normal((2, length // 2 + 1)).T @ np.array([1, 1j])
    spectrum *= 1 / (1 + np.arange(len(spectrum)) / (50 * seconds)) ** 2
    wave = np.fft.irfft(spectrum, n=length)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)[None]


def test_turning_a_loop_turns_its_measure() -> None:
    sound = band()
    sound[:, 12_803] += 0.2  # a click somewhere
    whole = closure(sound, RATE)
    assert whole.jump.argmax() == 20
    for place in (1, 20, 77):
        turned = closure(np.roll(sound, -place * len(sound[0]) // len(whole.jump), axis=1), RATE)
        assert np.allclose(turned.jump, np.roll(whole.jump, -place))
        assert np.allclose(turned.flux, np.roll(whole.flux, -place))


def test_a_click_or_an_onset_at_the_seam_is_found() -> None:
    ranks = np.array([[c.seam_jump, c.seam_flux] for c in (closure(band(seed=seed), RATE) for seed in range(60))])
    # Ranks of a seam like any other are uniform: 60 of them have a mean of 0.5 and a deviation of 0.037 about it.
    assert (np.abs(ranks.mean(axis=0) - 0.5) < 0.13).all()
    cut = band()[:, :50_001]
    assert closure(cut, RATE).seam_jump == 1
    swell = band() * np.linspace(1, 0.01, 2 * RATE, dtype=np.float32)
    assert closure(swell, RATE).seam_flux == 1


def test_generated_loops_close(golden: Golden) -> None:
    sampling, rate, ranks = SamplingConfig(steps=(4, 2, 1, 1)), golden.codec.config.sample_rate, {}
    for loop in (None, Loop(golden.frames)):
        found = []
        for first in range(0, 40, 10):
            memory, seeds = golden.memory(*[f"{first} {item * 7919}" for item in range(10)]), range(first, first + 10)
            codes = decode(golden.decoder, memory, seeds, sampling, frames=99, loop=loop, whole_spans=False)
            sounds = golden.codec.decode(codes, loop=loop is not None).numpy()
            found += [(c.seam_jump, c.seam_flux) for c in (closure(sound, rate) for sound in sounds)]
        ranks[loop is not None] = np.array(found).mean(axis=0)
    # The mean of 40 uniform ranks is 0.5 with a deviation of 0.046; three times that, either way.
    assert (np.abs(ranks[True] - 0.5) < 0.14).all()
    assert ranks[False][0] > 0.9
