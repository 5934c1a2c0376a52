"""Keep-masks: what makes them, what decoding does with them, and how the result is joined to what was there."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from magnet_cli.audio.splicing import blend, conform, cross_fade, join, prepare, prepare_ending
from magnet_cli.decoding.masked import Known, Step, decode
from magnet_cli.decoding.masks import region_mask, vary_mask
from magnet_cli.decoding.philox import uniforms
from magnet_cli.decoding.windows import decode_windows, plan_windows
from magnet_cli.errors import MagnetWarning, UsageError
from magnet_cli.options.regions import Region, check_regions, parse_region
from magnet_cli.options.sampling import SamplingConfig, Spans
from support.golden import Golden

BOTH_SPANS: tuple[Spans, ...] = ("nonoverlap", "stride1")


def quick(spans: Spans = "nonoverlap") -> SamplingConfig:
    return SamplingConfig(steps=(4, 2, 2, 2), spans=spans)


def some_codes(golden: Golden, batch: int = 1, frames: int | None = None) -> Tensor:
    shape = (batch, 4, frames or golden.frames)
    return torch.randint(golden.decoder.config.codes, shape, generator=torch.Generator().manual_seed(1))


def tone(rate: int, seconds: float, channels: int = 1, frequency: float = 220) -> np.ndarray:
    wave = 0.3 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[None].astype(np.float32), channels, axis=0)


# -- decoding with masks ----------------------------------------------------------------------------------------------


def masks(frames: int) -> dict[str, Tensor]:
    """One row each, bool [4, T]: the corners of what may be kept."""
    none = torch.zeros(4, frames, dtype=torch.bool)
    one_codebook, regions, within_a_span, one_frame = (none.clone() for _ in range(4))
    one_codebook[1] = True
    regions[:, :31], regions[:, 50:] = True, True  # neither end is on the grid of spans
    within_a_span[:, 1::3] = True
    one_frame[:] = True
    one_frame[:, 40] = False
    return {
        "none": none,
        "all": ~none,
        "a codebook": one_codebook,
        "all but a region": regions,
        "one frame of every span": within_a_span,
        "all but one frame": one_frame,
    }


@pytest.mark.parametrize("spans", BOTH_SPANS)
@pytest.mark.parametrize("whole_spans", [True, False])
def test_every_row_keeps_its_own(music: Golden, spans: Spans, whole_spans: bool) -> None:
    keep = torch.stack(list(masks(music.frames).values()))
    batch = len(keep)
    codes, memory = some_codes(music, batch), music.memory(*["disco"] * batch)
    found = decode(
        music.decoder, memory, range(batch), quick(spans), frames=100, known=Known(codes, keep), whole_spans=whole_spans
    )
    frames = 99 if whole_spans and spans == "nonoverlap" else 100
    assert found.shape == (batch, 4, frames)
    codes, keep = codes[..., :frames], keep[..., :frames]
    assert torch.equal(found[keep], codes[keep])
    assert int(found.max()) < music.decoder.config.codes  # no mask token is left
    for row in range(batch):  # alone as in the batch
        known = Known(codes[row : row + 1], keep[row : row + 1])
        alone = decode(
            music.decoder,
            music.memory("disco"),
            [row],
            quick(spans),
            frames=frames,
            known=known,
            whole_spans=whole_spans,
        )
        assert torch.equal(alone, found[row : row + 1]), list(masks(1))[row]
    # What is decoded is decoded: with 64 codes, hardly a fiftieth of it is what was there by chance.
    assert (found[0] != codes[0]).float().mean() > 0.9


def test_nothing_kept_is_plain_generation(music: Golden) -> None:
    memory, known = music.memory("x"), Known(some_codes(music), torch.zeros(1, 4, 100, dtype=torch.bool))
    plain = decode(music.decoder, memory, [3], quick(), frames=100)
    assert torch.equal(decode(music.decoder, memory, [3], quick(), frames=100, known=known), plain)


def test_a_codebook_that_is_all_kept_costs_nothing(music: Golden) -> None:
    keep = torch.zeros(1, 4, 100, dtype=torch.bool)
    keep[:, [0, 2]] = True
    steps: list[Step] = []
    passes: list[int] = []
    hook = music.decoder.register_forward_pre_hook(lambda _, arguments: passes.append(arguments[1]))
    try:
        known = Known(some_codes(music), keep)
        decode(music.decoder, music.memory("x"), [0], quick(), frames=100, known=known, on_step=steps.append)
    finally:
        hook.remove()
    assert passes == [1, 1, 3, 3]
    assert [step.codebook for step in steps] == passes


def test_a_region_depends_on_what_is_kept_on_both_sides(music: Golden) -> None:
    keep = region_mask([Region(0.6, 1.2)], frame_rate=50, frames=99, codebooks=4)
    codes = some_codes(music, frames=99)
    memory = music.memory("x")
    sampling = SamplingConfig(steps=(4, 2, 2, 2), guidance=1)  # more would drown what so small a model hears around it
    found = decode(music.decoder, memory, [0], sampling, frames=99, known=Known(codes, keep))
    for side in (slice(0, 30), slice(60, 99)):
        other = codes.clone()
        other[..., side] = (other[..., side] + 1) % 64
        changed = decode(music.decoder, memory, [0], sampling, frames=99, known=Known(other, keep))
        assert not torch.equal(changed[~keep], found[~keep])


def test_what_cannot_be_decoded_is_refused(music: Golden) -> None:
    with pytest.raises(UsageError, match="less than one span"):
        decode(music.decoder, music.memory("x"), [0], quick(), frames=2)
    with pytest.raises(UsageError, match="2 seeds were given for 1 prompts"):
        decode(music.decoder, music.memory("x"), [0, 1], quick(), frames=99)
    known = Known(some_codes(music), torch.ones(1, 4, 99, dtype=torch.bool))
    with pytest.raises(UsageError, match="differ in shape"):
        decode(music.decoder, music.memory("x"), [0], quick(), frames=99, known=known)


# -- text in either half ----------------------------------------------------------------------------------------------


def test_without_text_guidance_does_nothing(music: Golden) -> None:
    with torch.inference_mode():
        nothing = music.decoder.text_memory(torch.zeros(1, 1, 768), [0])
    guided = decode(music.decoder, nothing, [5], quick(), frames=99)
    batches: list[int] = []
    hook = music.decoder.register_forward_pre_hook(lambda _, arguments: batches.append(len(arguments[0])))
    try:
        plain = decode(music.decoder, None, [5], quick(), frames=99)
    finally:
        hook.remove()
    assert torch.equal(plain, guided)  # as the reference does it: both halves alike
    assert set(batches) == {1}  # as we do it: one


def test_a_negative_prompt_steers_away(music: Golden) -> None:
    memory, negative = music.memory("disco", "a long description of rain"), music.memory("noise", "x")
    with torch.inference_mode():
        none = music.decoder.text_memory(torch.zeros(2, 1, 768), [0, 0])
    plain = decode(music.decoder, memory, [1, 2], quick(), frames=99)
    assert torch.equal(decode(music.decoder, memory.against(none), [1, 2], quick(), frames=99), plain)
    steered = decode(music.decoder, memory.against(negative), [1, 2], quick(), frames=99)
    assert not torch.equal(steered[0], plain[0])
    alone = decode(music.decoder, music.memory("disco").against(music.memory("noise")), [1], quick(), frames=99)
    assert torch.equal(steered[:1], alone)
    with pytest.raises(UsageError, match="1 negative"):
        memory.against(music.memory("x"))


# -- regions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "region"),
    [("2.5:5", Region(2.5, 5)), (":5", Region(0, 5)), (" 1 : 2 ", Region(1, 2)), ("3:", Region(3, float("inf")))],
)
def test_regions_are_read(text: str, region: Region) -> None:
    assert parse_region(text) == region


@pytest.mark.parametrize("text", ["", "5", "a:b", "1:2:3", "-1:2", "nan:2", "inf:", "1;2"])
def test_what_is_no_region_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"region|begin"):
        parse_region(text)


def test_regions_that_overlap_or_touch_become_one() -> None:
    found = check_regions([Region(5, 6), Region(1, 3), Region(2, 2.5), Region(6, 7), Region(9, float("inf"))], 10)
    assert found == [Region(1, 3), Region(5, 7), Region(9, 10)]
    assert check_regions([Region(0, 2.005)], 2) == [Region(0, 2)]  # rounded lengths


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (Region(3, 2), "3:2 is reversed"),
        (Region(2, 2), "2:2 is empty"),
        (Region(11, 12), "11:12 is not within the 10 s"),
        (Region(9, 12), "9:12 is not within the 10 s"),
        (Region(10, float("inf")), "not within the 10 s"),
    ],
)
def test_regions_that_cannot_be_are_refused(region: Region, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_regions([Region(1, 2), region], 10)
    with pytest.raises(UsageError, match="no region"):
        check_regions([], 10)


def test_a_region_is_every_frame_it_touches() -> None:
    keep = region_mask([Region(0.1, 0.2), Region(1.01, 1.011)], frame_rate=50, frames=100, codebooks=4)
    assert keep.shape == (1, 4, 100)
    assert (~keep[0, 2]).nonzero().flatten().tolist() == [5, 6, 7, 8, 9, 50]
    assert (~region_mask([Region(0, 2)], frame_rate=50, frames=99, codebooks=1)).all()


def test_a_variation_decodes_its_share_of_spans() -> None:
    keep = vary_mask(0.3, [1, 2], frames=500, span=3, codebooks=4)
    assert torch.equal(keep, keep[:, :1].expand(-1, 4, -1))
    spans = torch.nn.functional.pad(keep[:, 0], (0, 1), value=True).unflatten(-1, (-1, 3))
    whole = spans[:, :-1]
    assert torch.equal(whole.all(-1), whole.any(-1))  # whole spans
    assert (~spans).any(-1).sum(-1).tolist() == [50, 50]  # 30 % of 167
    assert not torch.equal(keep[0], keep[1])
    assert torch.equal(keep[1:], vary_mask(0.3, [2], frames=500, span=3, codebooks=4))
    assert not vary_mask(1, [1], frames=50, span=3, codebooks=2).any()
    assert (~vary_mask(0.001, [1], frames=50, span=3, codebooks=2)).any()
    for share in (0, -1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="share"):
            vary_mask(share, [1], frames=50, span=3, codebooks=2)


# -- longer than a clip -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [40, 100, 101, 250, 1000])
@pytest.mark.parametrize("overlap", [1, 30, 99])
def test_windows_decode_everything_from_what_is_there(total: int, overlap: int) -> None:
    starts = plan_windows([True] * total, 100, overlap)
    done = 0
    for start in starts:
        assert start == 0 or done - start >= overlap  # conditions on at least the overlap
        assert start <= done < start + 100  # leaves no gap, and adds something
        done = min(start + 100, total)
    assert done == total
    assert starts[-1] + 100 <= max(total, 100)  # a whole window, as the model was trained


def test_a_window_has_what_it_decodes_in_its_middle() -> None:
    needed = [False] * 1000
    needed[500:520] = [True] * 20
    assert plan_windows(needed, 100, 30) == [460]
    needed[10] = True
    assert plan_windows(needed, 100, 30) == [0, 460]
    assert plan_windows([False] * 1000, 100, 30) == []
    for overlap in (0, 100, -1):
        with pytest.raises(UsageError, match="overlap"):
            plan_windows(needed, 100, overlap)


@pytest.mark.parametrize("spans", BOTH_SPANS)
def test_a_long_clip_is_decoded_window_by_window(music: Golden, spans: Spans) -> None:
    total, window = 230, music.frames
    # As good as any code at any frame: what equals something else does so by chance, one in 64.
    sampling = SamplingConfig(steps=(4, 2, 2, 2), spans=spans, temperature=1e6, anneal=False, top_p=None)
    memory, seen = music.memory("x", "y"), []

    def part(codes: Tensor, keep: Tensor, start: int) -> Tensor:
        seen.append((start, int(keep[0, 0].sum())))
        known, frames = Known(codes, keep), codes.shape[-1]
        return decode(
            music.decoder,
            memory,
            [1, 2],
            sampling,
            frames=frames,
            known=known,
            whole_spans=False,
            first_frame=start,
        )

    keep = torch.zeros(2, 4, total, dtype=torch.bool)
    keep[..., :20] = True
    codes = some_codes(music, 2, total)
    found = decode_windows(codes, keep, part, window=window, overlap=30)
    assert seen == [(0, 20), (70, 30), (130, 40)]
    assert found.shape == (2, 4, total)
    assert int(found.max()) < 64
    assert torch.equal(found[keep], codes[keep])
    # The windows draw different numbers, so that their music is not the same.
    assert (found[..., 30:70] == found[..., 100:140]).float().mean() < 0.05


def test_frames_draw_numbers_by_where_they_are() -> None:
    options = {"codebook": 1, "step": 2, "codes": 7, "device": "cpu"}
    whole = uniforms([9], frames=50, **options)  # type: ignore[arg-type]
    assert torch.equal(uniforms([9], frames=20, first_frame=30, **options), whole[:, 30:])  # type: ignore[arg-type]


# -- audio in ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "channels"), [(192_000, 1), (44_100, 8), (8_000, 2), (32_000, 1), (11_025, 64)])
def test_any_audio_is_made_fit(golden: Golden, rate: int, channels: int) -> None:
    config = golden.codec.config
    ready = prepare(tone(rate, 0.5, channels), rate, config)
    assert ready.shape[:2] == (1, 1)
    assert abs(ready.shape[-1] - config.sample_rate // 2) <= 1  # half a second of 11,025 Hz is half a sample more
    wanted = torch.from_numpy(tone(config.sample_rate, 0.5))
    middle = slice(config.sample_rate // 8, -config.sample_rate // 8)  # away from the resampler's ends
    # Resampling filters pass a tone of 220 Hz to within some -60 dB.
    assert (ready[0, :, : wanted.shape[-1] - 1] - wanted[:, :-1])[:, middle].abs().max() < 1e-3


@pytest.mark.parametrize("rate", [32_000, 48_000, 16_000, 44_100])
def test_the_ending_ends_where_the_input_does(music: Golden, rate: int) -> None:
    config = music.codec.config
    audio = tone(rate, 4.0, 2)
    audio[:, -round(0.1 * rate) :] = 0
    ready, frames = prepare_ending(audio, rate, config, keep=0.5)
    assert frames == 25
    assert ready.shape[-1] == (25 + 50) * config.hop  # and a second to run in
    quiet = ready[0, 0, -round(0.09 * config.sample_rate) :]
    assert quiet.abs().max() < 1e-3  # the resampler's ringing
    assert ready[0, 0, -round(0.2 * config.sample_rate) : -round(0.11 * config.sample_rate)].abs().max() > 0.2
    whole = prepare(audio, rate, config)[..., -ready.shape[-1] :]
    assert (ready - whole).abs().max() < 2e-3  # cutting first changes a resampled sample's phase by less than a sample
    short, frames = prepare_ending(tone(rate, 0.3), rate, config, keep=2)
    assert (frames, short.shape[-1]) == (15, 15 * config.hop)


def test_an_ending_of_the_whole_input_is_encoded_as_the_reference_does(golden: Golden) -> None:
    audio = golden.arrays["cont_prompt_wav"][0].numpy()
    ready, frames = prepare_ending(audio, golden.codec.config.sample_rate, golden.codec.config, keep=10)
    assert torch.equal(golden.codec.encode(ready)[..., -frames:], golden.arrays["cont_prompt_tokens"])


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (np.zeros((1, 100), np.float32), 32_000, "less than one frame"),
        (np.zeros((1, 10_000), np.int16), 32_000, "floats"),
        (np.zeros((100, 10_000), np.float32), 32_000, "one for each channel"),
        (np.full((1, 10_000), np.nan, np.float32), 32_000, "not finite"),
        (np.zeros((1, 10_000), np.float32), 0, "0 Hz"),
        (np.zeros((1, 10_000), np.float32), 10**9, "1000000000 Hz"),
    ],
)
def test_what_is_no_audio_is_refused(music: Golden, audio: np.ndarray, rate: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prepare(audio, rate, music.codec.config)


def test_silence_is_a_warning(music: Golden) -> None:
    with pytest.warns(MagnetWarning, match="silent"):
        ready = prepare(np.zeros((2, 32_000), np.float32), 32_000, music.codec.config)
    assert not ready.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(tone(32_000, 0.1), 32_000, music.codec.config)
    for keep in (0, -1, float("nan"), float("inf"), 0.001):
        with pytest.raises(UsageError, match=r"keep|less than one frame"):
            prepare_ending(tone(32_000, 1), 32_000, music.codec.config, keep=keep)


# -- audio out --------------------------------------------------------------------------------------------------------


def test_a_cross_fade_keeps_the_power() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.standard_normal((2, 1, 400_000)).astype(np.float32)
    same = cross_fade(one, one)
    assert np.abs(same - one).max() < 1e-6  # float32: the same sound stays as it is
    for share in (0.0, 0.5, 0.9):
        second = share * one + np.sqrt(1 - share**2) * other
        power = (cross_fade(one, second.astype(np.float32)) ** 2).reshape(20, -1).mean(axis=1)
        # The power of 20,000 normal numbers varies by 1 %; four times that.
        assert np.abs(power - 1).max() < 0.04
    assert np.isfinite(cross_fade(np.zeros((1, 5), np.float32), np.zeros((1, 5), np.float32))).all()


def test_joined_audio_is_the_original_until_the_seam() -> None:
    before, after = tone(32_000, 1.0, 2), tone(32_000, 1.5, 2, 330)
    joined = join(before, after, kept=8_000, fade=960)
    assert joined.shape == (2, 32_000 + 48_000 - 8_000)
    assert np.array_equal(joined[:, : 32_000 - 960], before[:, :-960])
    assert np.array_equal(joined[:, 32_000:], after[:, 8_000:])
    # A reconstruction without loss is joined without a trace.
    whole = tone(32_000, 2.0)
    rejoined = join(whole[:, :40_000], whole[:, 30_000:], kept=10_000, fade=10**6)
    assert np.abs(rejoined - whole).max() < 1e-6
    for kept in (0, 32_001):
        with pytest.raises(UsageError, match="do not share"):
            join(before, after, kept=kept, fade=10)


def test_blended_audio_is_the_original_outside_the_regions() -> None:
    rate = 32_000
    original, new = tone(rate, 2.0, 2), tone(rate, 2.1, 2, 330)
    regions = [Region(0.5, 1.0), Region(1.02, 1.2), Region(1.9, 2.0)]
    blended = blend(original, new, regions, sample_rate=rate, fade=0.03)
    time = np.arange(2 * rate) / rate
    inside = np.zeros_like(time, dtype=bool)
    near = inside.copy()
    for region in regions:
        inside |= (time >= region.start) & (time < region.end)
        near |= (time >= region.start - 0.03) & (time < region.end + 0.03)
    assert blended.shape == original.shape
    assert np.array_equal(blended[:, ~near], original[:, ~near])
    assert np.array_equal(blended[:, inside], new[:, : 2 * rate][:, inside])
    # Nowhere is there a step: a sine of 330 Hz moves by 0.02 from sample to sample, and so do the two together.
    assert np.abs(np.diff(blended)).max() < 0.05
    assert np.array_equal(original, tone(rate, 2.0, 2))  # not written to
    short = blend(original, new[:, :rate], [Region(0.9, 1.5)], sample_rate=rate, fade=0.03)
    assert np.array_equal(short[:, rate:], original[:, rate:])


def test_what_was_decoded_takes_the_form_of_the_original() -> None:
    found = conform(tone(32_000, 1.0), 32_000, 48_000, channels=2, samples=50_000)
    assert found.shape == (2, 50_000)
    assert np.abs(found[:, 1000:47_000] - tone(48_000, 1.0, 2)[:, 1000:47_000]).max() < 1e-3
    assert not found[:, 48_000:].any()
    assert conform(tone(32_000, 1.0, 8), 32_000, 32_000, channels=1).shape == (1, 32_000)
    with pytest.raises(UsageError, match="channels"):
        join(tone(32_000, 1, 2), tone(32_000, 1, 1), kept=10, fade=10)
    with pytest.raises(UsageError, match="channels"):
        blend(tone(32_000, 1, 2), tone(32_000, 1, 1), [Region(0, 1)], sample_rate=32_000, fade=0)
