"""One pipeline and several threads: every clip has the codes that it has alone, and nobody waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle, islice

import numpy as np
import pytest
from numpy.typing import NDArray

from magnet_cli import Job, MusicGenSampling, Pipeline, RuntimeConfig, SamplingConfig
from magnet_cli.audio.files import write_audio
from magnet_cli.options.edit import EditConfig
from support.tiny_musicgen import write_musicgen

THREADS, ROUNDS = 4, 14
LONGEST = 120.0  # seconds until something that should end counts as hanging: busy machines are slow
QUICK = SamplingConfig(steps=(4, 2, 2, 2), temperature=10, guidance=1)  # every clip with other codes
FLOAT32 = RuntimeConfig(device="cpu", dtype="float32")

Codes = NDArray[np.int16]


@pytest.fixture(scope="module")
def musicgen(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("musicgen")
    write_musicgen(folder)
    return str(folder)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("sound") / "in.wav"
    write_audio(path, np.random.default_rng(1).uniform(-0.5, 0.5, (1, 16_000)).astype(np.float32), 32_000, "pcm16")
    return str(path)


@pytest.fixture(scope="module", params=["float32", "int8", "batches", "rescored by MusicGen", "rescored by MAGNeT"])
def pipeline(request: pytest.FixtureRequest, tiny: str, musicgen: str) -> Pipeline:
    runtime = replace(FLOAT32, dtype="int8") if request.param == "int8" else FLOAT32
    runtime = replace(runtime, batch_size=3) if request.param == "batches" else runtime
    rescorer = {"rescored by MusicGen": musicgen, "rescored by MAGNeT": tiny}.get(request.param)
    return Pipeline.load(tiny, runtime, rescorer=rescorer)


@pytest.fixture(scope="module")
def plain(tiny: str) -> Pipeline:
    return Pipeline.load(tiny, FLOAT32)


def jobs_of(sound: str) -> list[list[Job]]:
    """What the threads ask for: lengths, edits and texts of every kind, so that no two calls are alike."""
    edits = [
        EditConfig(),
        EditConfig(inpaint=sound, regions=("0.1:0.3",)),
        EditConfig(inpaint=sound, vary=0.5),
        EditConfig(continue_from=sound, keep=0.1),
        EditConfig(duration=0.2),
        EditConfig(unconditional=True),
        EditConfig(negative="noise"),
    ]
    seeds = range(ROUNDS)
    return [
        [Job("a beat" * (1 + seed % 3), 10 * seed + k, QUICK, edit) for k in range(2)]
        for seed, edit in zip(seeds, cycle(edits), strict=False)
    ]


def codes(pipeline: Pipeline, jobs: list[Job]) -> list[Codes]:
    return [clip.codes for clip in pipeline.generate(jobs)]


def in_threads(pipeline: Pipeline, calls: list[list[Job]]) -> list[list[Codes]]:
    """The codes of each call, made by several threads that begin together."""
    together = threading.Barrier(THREADS)

    def work(number: int) -> list[tuple[int, list[Codes]]]:
        together.wait(LONGEST)
        return [(index, codes(pipeline, calls[index])) for index in range(number, len(calls), THREADS)]

    with ThreadPoolExecutor(THREADS) as executor:
        found = dict(pair for part in executor.map(work, range(THREADS)) for pair in part)
    return [found[index] for index in range(len(calls))]


def test_threads_make_the_codes_that_one_makes(pipeline: Pipeline, sound: str) -> None:
    calls = jobs_of(sound)
    wanted = [codes(pipeline, jobs) for jobs in calls]
    found = in_threads(pipeline, calls)
    wrong = [index for index in range(len(calls)) if not all(map(np.array_equal, wanted[index], found[index]))]
    assert wrong == []


def test_threads_make_the_codes_that_one_makes_with_musicgen(musicgen: str) -> None:
    pipeline = Pipeline.load(musicgen, FLOAT32)
    calls = [[Job("a", seed, MusicGenSampling(), EditConfig(duration=0.4 + seed / 50))] for seed in range(8)]
    wanted = [codes(pipeline, jobs) for jobs in calls]
    for found, alone in zip(in_threads(pipeline, calls), wanted, strict=True):
        assert np.array_equal(found[0], alone[0])


def test_a_changed_copy_takes_turns_with_the_original(plain: Pipeline, sound: str) -> None:
    """It has the same networks, so it has the same lock."""
    calls = jobs_of(sound)
    copy = replace(plain, batch_size=2)
    wanted = [codes(plain, jobs) for jobs in calls]
    with ThreadPoolExecutor(2) as executor:
        found = list(executor.map(lambda one: [codes(one, jobs) for jobs in calls], [plain, copy]))
    for each in found:
        assert all(all(map(np.array_equal, one, other)) for one, other in zip(each, wanted, strict=True))


# -- waiting ----------------------------------------------------------------------------------------------------------


def finishes(thread: threading.Thread) -> bool:
    thread.join(LONGEST)
    return not thread.is_alive()


def test_a_callback_may_generate(pipeline: Pipeline, sound: str) -> None:
    """In the midst of a batch, with the same pipeline: neither waits, and neither changes the other."""
    outer, inner, longer = (jobs_of(sound)[index] for index in (0, 1, 4))
    wanted, expected, other = (codes(pipeline, jobs) for jobs in (outer, inner, longer))
    nested: list[list[Codes]] = []
    found: list[Codes] = []

    def run() -> None:
        turns = iter(cycle((inner, longer)))
        clips = pipeline.generate(outer, on_step=lambda *_: nested.append(codes(pipeline, next(turns))))
        found.extend(clip.codes for clip in clips)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert finishes(thread)
    assert all(map(np.array_equal, found, wanted))
    assert len(nested) >= sum(QUICK.steps)
    for made, right in zip(nested, cycle((expected, other)), strict=False):
        assert all(map(np.array_equal, made, right))


def test_between_two_clips_everybody_may_generate(plain: Pipeline, sound: str) -> None:
    """A consumer that has not taken all clips yet holds nothing: not this thread up, and no other."""
    jobs, other = [Job("rain", seed, QUICK) for seed in range(3)], jobs_of(sound)[1]
    wanted, expected = codes(plain, jobs), codes(plain, other)
    found: list[Codes] = []
    here: list[list[Codes]] = []
    for clip in plain.generate(jobs):
        found.append(clip.codes)
        here.append(codes(plain, other))
        with ThreadPoolExecutor(1) as executor:
            here.append(executor.submit(codes, plain, other).result(LONGEST))
    assert all(map(np.array_equal, found, wanted))
    assert all(np.array_equal(a, b) for made in here for a, b in zip(made, expected, strict=True))


def test_clips_that_nobody_takes_hold_nobody_up(plain: Pipeline) -> None:
    jobs = [Job("rain", seed, QUICK) for seed in range(3)]
    wanted = codes(plain, jobs)
    abandoned: list[Iterator[object]] = []

    def begin() -> None:
        clips = plain.generate(jobs)
        next(clips)
        abandoned.append(clips)  # and never asked again

    thread = threading.Thread(target=begin, daemon=True)
    thread.start()
    assert finishes(thread)
    with ThreadPoolExecutor(1) as executor:
        found = executor.submit(codes, plain, jobs).result(LONGEST)
    assert all(map(np.array_equal, found, wanted))


def test_a_callback_that_raises_lets_the_others_go_on(plain: Pipeline) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(plain.generate("rain", seed=1, sampling=QUICK, on_step=stop))
    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(codes, plain, [Job("rain", 1, QUICK)]).result(LONGEST)


def test_waiting_counts_for_no_stage(plain: Pipeline) -> None:
    """Timings say how long a clip takes: a batch estimates by them what is left."""
    pause = 2.0
    waiting: list[threading.Thread] = []
    seconds: list[float] = []

    def wait() -> None:
        clip = next(plain.generate("rain", seed=1, sampling=QUICK))
        seconds.append(sum(clip.timings.values()))

    def on_step(*_: object) -> None:
        if not waiting:
            waiting.append(threading.Thread(target=wait, daemon=True))
            waiting[0].start()
            time.sleep(pause)
            assert seconds == []  # it waits

    next(plain.generate("rain", seed=2, sampling=QUICK, on_step=on_step))
    assert finishes(waiting[0])
    assert seconds[0] < pause


def test_the_calls_of_a_test_differ(plain: Pipeline, sound: str) -> None:
    """Or the tests above would prove nothing."""
    made = [one.tobytes() for jobs in islice(jobs_of(sound), 8) for one in codes(plain, jobs)]
    assert len(set(made)) == len(made)
