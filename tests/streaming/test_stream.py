"""A stream is a long clip that has no end: the same codes, constant memory, other prompts at the next window."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from magnet_cli import OutputConfig, Pipeline, RuntimeConfig, SamplingConfig
from magnet_cli.audio.blocks import Waveform
from magnet_cli.errors import UsageError
from magnet_cli.options.edit import EditConfig
from magnet_cli.pipeline.pipeline import Pipeline as PipelineClass
from magnet_cli.streaming.stream import Stream, StreamPlan, StreamStopped, Turning
from support.closure import closure
from support.golden import GOLDEN

SAMPLING = SamplingConfig(steps=(2, 1, 1, 1), temperature=5.0, guidance=1.0)
PLAN = StreamPlan(prompt="disco beat", seed=3, sampling=SAMPLING, edit=EditConfig(), overlap=40, output=OutputConfig())


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load(str(GOLDEN / "music"), RuntimeConfig(device="cpu", dtype="float32"))


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The codes of every window that is decoded."""
    found: list[torch.Tensor] = []
    decode = PipelineClass.decode_window

    def kept(self: Pipeline, *arguments: object, **named: object) -> torch.Tensor:
        found.append(decode(self, *arguments, **named))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr(PipelineClass, "decode_window", kept)
    return found


def heard(stream: Stream, seconds: int) -> Waveform:
    return np.concatenate(list(itertools.islice(stream, seconds)), axis=1)


@pytest.mark.parametrize("overlap", [1, 40, 90])
def test_its_codes_are_those_of_a_long_clip(pipeline: Pipeline, windows: list[torch.Tensor], overlap: int) -> None:
    stream = Stream(pipeline, replace(PLAN, overlap=overlap))
    heard(stream, 4)
    codes = torch.cat([windows[0], *(one[..., overlap:] for one in windows[1:])], dim=-1)[0]
    edit = EditConfig(duration=15.0, overlap=overlap / 50)
    clip = pipeline.generate_one("disco beat", seed=3, sampling=SAMPLING, edit=edit)
    assert codes.shape[1] > 200
    assert np.array_equal(codes.numpy(), clip.codes[:, : codes.shape[1]])
    for before, after in itertools.pairwise(windows):
        assert torch.equal(before[..., -overlap:], after[..., :overlap])


def test_its_sound_is_that_of_the_codes_decoded_as_a_whole(pipeline: Pipeline, windows: list[torch.Tensor]) -> None:
    pieces = pipeline.decode_endless(Stream(pipeline, PLAN)._source, piece=50)
    sound = np.concatenate([next(pieces) for _ in range(5)], axis=1)
    codes = torch.cat([windows[0], *(one[..., PLAN.overlap :] for one in windows[1:])], dim=-1)
    whole = pipeline.codec.decode(codes)[0].numpy()[:, : sound.shape[1]]
    assert np.abs(sound - whole).max() < 1e-5 * np.abs(whole).max()  # float32, summed in another order


def test_the_same_seed_sounds_the_same_and_another_does_not(pipeline: Pipeline) -> None:
    first, again = (heard(Stream(pipeline, PLAN), 5) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, heard(Stream(pipeline, replace(PLAN, seed=4)), 5))


def changed_after(stream: Stream, seconds: int, prompt: str) -> Iterator[Waveform]:
    for number, piece in enumerate(stream):
        if number == seconds:
            stream.prompt = prompt
        yield piece


def test_a_new_prompt_is_played_by_the_next_window_and_the_rest_stays(
    pipeline: Pipeline, windows: list[torch.Tensor]
) -> None:
    turned: list[Turning] = []
    stream = Stream(pipeline, PLAN, turned=turned.append)
    list(itertools.islice(changed_after(stream, 3, "calm piano"), 8))
    assert [one.prompt for one in turned] == ["disco beat", "calm piano"]
    assert stream.turnings == turned
    place = turned[1].window
    changed = list(windows)
    windows.clear()
    heard(Stream(pipeline, PLAN), 8)
    assert all(torch.equal(one, other) for one, other in zip(changed[:place], windows[:place], strict=True))
    assert torch.equal(changed[place][..., : PLAN.overlap], windows[place][..., : PLAN.overlap])
    assert not torch.equal(changed[place], windows[place])
    script = replace(PLAN, prompt="other", script=tuple(turned))
    again = Stream(pipeline, script)
    windows.clear()
    heard(again, 8)
    assert all(torch.equal(one, other) for one, other in zip(changed, windows, strict=True))
    assert again.codes_hash(place) == stream.codes_hash(place) is not None


def test_windows_and_times(pipeline: Pipeline) -> None:
    stream = Stream(pipeline, PLAN)  # windows of 100 frames, of which 60 are new
    assert [stream.seconds_at(number) for number in range(3)] == [0.0, 2.0, 3.2]
    assert [stream.window_at(seconds) for seconds in (0.01, 2.0, 2.02, 3.2, 3.22)] == [0, 0, 1, 1, 2]
    assert (stream.sample_rate, stream.channels) == (32_000, 1)


def test_prompts_that_cannot_be(pipeline: Pipeline) -> None:
    stream = Stream(pipeline, PLAN)
    with pytest.raises(UsageError, match="empty"):
        stream.prompt = " "
    assert stream.prompt == "disco beat"
    with pytest.raises(UsageError, match="does not fit"):
        Stream(pipeline, replace(PLAN, overlap=100))


def test_stopping_ends_it_within_a_step(pipeline: Pipeline) -> None:
    stream = Stream(pipeline, PLAN)
    pieces = iter(stream)
    next(pieces)
    stream.stop()
    with pytest.raises(StreamStopped):
        list(itertools.islice(pieces, 10))


def test_steps_are_lowered_where_time_is_short(pipeline: Pipeline) -> None:
    turned: list[Turning] = []
    sampling = replace(SAMPLING, steps=(8, 4, 4, 4))
    stream = Stream(pipeline, replace(PLAN, sampling=sampling), ahead=lambda: 0.0, turned=turned.append)
    heard(stream, 6)
    assert [one.steps for one in turned] == [(8, 4, 4, 4), (2, 1, 1, 1)]


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the memory of Linux")
def test_memory_does_not_grow(pipeline: Pipeline) -> None:
    """A minute in a model of 2 s: fifty windows."""

    def resident() -> float:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    stream = Stream(pipeline, replace(PLAN, sampling=replace(SAMPLING, steps=(1, 1, 1, 1))))
    pieces = iter(stream)
    for _ in range(15):
        next(pieces)
    before = resident()
    for _ in range(40):
        next(pieces)
    assert resident() - before < 10  # MB; 40 s of samples alone would take 5, and what is computed from them 50
    assert stream._codes.shape[-1] < 300


def test_the_places_where_windows_meet_are_places_like_any_other(pipeline: Pipeline) -> None:
    """Measured as the seams of loops, at the beginning of each window; some have a new prompt."""
    stream = Stream(pipeline, PLAN)
    ranks, sound = [], []
    for number, piece in enumerate(stream):
        sound.append(piece)
        stream.prompt = f"prompt {number // 3}"
        if number == 12:
            break
    whole = np.concatenate(sound, axis=1)
    for window in range(1, 9):
        place = round(stream.seconds_at(window) * stream.sample_rate)
        found = closure(np.roll(whole, -place, axis=1), stream.sample_rate)
        ranks.append((found.seam_jump, found.seam_flux))
    # Of a place like any other a rank is anything from 0 to 1, and its mean over 8 places deviates by 0.1 from 0.5. But
    # windows meet at the edges of spans, a third of all places: with random weights, whose spans have nothing
    # to do with each other, the spectrum grows more at these, so that their ranks begin at 0.67. A click is at 1.
    jump, flux = np.mean(ranks, axis=0)
    assert jump < 0.85
    assert flux < 0.95
    assert len({one.prompt for one in stream.turnings}) > 3
