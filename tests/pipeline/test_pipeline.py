"""The whole chain from Python: what holds for every clip, whatever it is generated with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from magnet_cli import Job, Known, MagnetWarning, OutputConfig, Pipeline, RuntimeConfig, SamplingConfig
from magnet_cli.audio.loudness import measure
from magnet_cli.decoding.masked import decode
from magnet_cli.errors import DeviceError, NumericsError, UsageError
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.runtime import DTypeName
from magnet_cli.pipeline.events import StepDone
from support.golden import GOLDEN, Golden, load_in

PROMPTS = ["disco beat", "a very long description of slow jazz with strings", "rain", "x", "footsteps in a cave"]
QUICK = SamplingConfig(steps=(4, 2, 2, 2))
# What the bundled model was trained on: prompts of several lengths, of which a code or more differed in a batch.
STYLES = ["ambient pad", "slow jazz piano, 75 bpm", "rock guitar riff with drums and organ, 100 bpm"]
STYLED = SamplingConfig(steps=(4, 2, 2, 2), temperature=1.0, guidance=3.0)


@pytest.fixture(scope="module", params=["music", "sound"])
def pipeline(request: pytest.FixtureRequest) -> Pipeline:
    return Pipeline.load(str(GOLDEN / request.param), RuntimeConfig(device="cpu"))


@pytest.fixture(scope="module")
def batching() -> Pipeline:
    return Pipeline.load(str(GOLDEN / "music"), RuntimeConfig(device="cpu", batch_size=5))


# -- seeds that hold --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(steps=(6, 3, 3, 3)),
        SamplingConfig(steps=(6, 3, 3, 3), spans="stride1"),
        SamplingConfig(steps=(6, 3, 3, 3), top_p=None, top_k=10, span_score="prod"),
    ],
    ids=["top-p", "stride1", "top-k"],
)
def test_a_clip_is_the_same_alone_in_a_batch_and_in_another_order(
    pipeline: Pipeline, batching: Pipeline, sampling: SamplingConfig
) -> None:
    pipelines = [pipeline] if pipeline.info.task == "sound" else [pipeline, batching]
    jobs = [Job(prompt, 100 + number, sampling) for number, prompt in enumerate(PROMPTS)]
    alone = {job: next(pipeline.generate([job])).codes for job in jobs}
    for each in pipelines:
        for order in (jobs, jobs[::-1], [jobs[3], jobs[0], jobs[4], jobs[1], jobs[2]]):
            for clip in each.generate(order):
                assert np.array_equal(clip.codes, alone[clip.job])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_clip_is_the_same_alone_and_in_a_batch_in_every_dtype(dtype: DTypeName) -> None:
    jobs = [Job(prompt, 100 + number, STYLED) for number, prompt in enumerate(STYLES)]
    alone, batching = load_in(dtype, "bundled"), load_in(dtype, "bundled", batch_size=len(jobs))
    for together in batching.generate(jobs):
        clip = next(alone.generate([together.job]))
        assert (clip.batch, together.batch) == (1, len(jobs))
        assert np.array_equal(clip.codes, together.codes)
        assert np.array_equal(clip.waveform, together.waveform)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_clip_does_not_depend_on_the_one_before(dtype: DTypeName) -> None:
    """Neither on one that is done nor on one that was stopped half-way; without text, nothing else tells them apart."""
    pipeline = load_in(dtype, str(GOLDEN / "music"), rescorer=str(GOLDEN / "music"))
    first, second = (Job("", seed, STYLED, EditConfig(unconditional=True)) for seed in (1, 2))

    def stop(progress: StepDone, jobs: Sequence[Job]) -> None:
        if progress.stage.startswith("codebook 2"):
            raise KeyboardInterrupt

    alone = next(pipeline.generate([second])).codes
    next(pipeline.generate([first]))
    assert np.array_equal(next(pipeline.generate([second])).codes, alone)
    with pytest.raises(KeyboardInterrupt):
        next(pipeline.generate([first], on_step=stop))
    networks = [reader.network for reader in (pipeline.generator.reader, pipeline.generator.rescorer)]  # type: ignore
    assert [network._states for network in networks] == [None, None]
    assert np.array_equal(next(pipeline.generate([second])).codes, alone)


def test_seeds_and_prompts_matter(pipeline: Pipeline) -> None:
    jobs = [Job("disco beat", 1, QUICK), Job("disco beat", 2, QUICK), Job("rain", 1, QUICK)]
    clips = [clip.codes for clip in pipeline.generate(jobs)]
    assert not np.array_equal(clips[0], clips[1])
    assert not np.array_equal(clips[0], clips[2])


def test_variations_take_seed_plus_k(pipeline: Pipeline) -> None:
    clips = list(pipeline.generate(["a", "b"], seed=7, variations=2, sampling=QUICK))
    assert [(clip.job.prompt, clip.job.seed) for clip in clips] == [("a", 7), ("a", 8), ("b", 7), ("b", 8)]


def test_a_drawn_seed_is_reported_and_makes_the_clip_again(pipeline: Pipeline) -> None:
    clip = next(pipeline.generate("rain", sampling=QUICK))
    again = next(pipeline.generate("rain", seed=clip.job.seed, sampling=QUICK))
    assert np.array_equal(clip.codes, again.codes)
    assert np.array_equal(clip.waveform, again.waveform)


# -- known codes ------------------------------------------------------------------------------------------------------


def test_continuation_equals_the_reference_through_the_pipeline(golden: Golden) -> None:
    pipeline = load_in("float32", str(golden.folder))
    audio = golden.arrays["cont_prompt_wav"][0].numpy()
    known = pipeline.continuation(audio, pipeline.info.sample_rate)
    clip = next(pipeline.generate(golden.prompts[2], sampling=golden.cases[1], known=known))
    assert np.array_equal(clip.codes, golden.arrays["cont_tokens"][0].numpy())


def test_continuation_takes_any_rate_and_channels(pipeline: Pipeline) -> None:
    rate = pipeline.info.sample_rate
    tone = np.sin(2 * np.pi * 220 * np.arange(2 * rate // 2) / (2 * rate)).astype(np.float32)  # half a second
    known = pipeline.continuation(np.stack([tone, tone]), 2 * rate)
    clip = next(pipeline.generate("x", seed=1, sampling=QUICK, known=known))
    kept = int(known.keep.sum(-1)[0, 0])
    assert kept == pipeline.codec.config.frame_rate // 2
    assert np.array_equal(clip.codes[:, :kept], known.codes[0, :, :kept].numpy())


@pytest.mark.parametrize("spans", ["nonoverlap", "stride1"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_kept_codes_stay_wherever_they_are(music: Golden, spans: str, share: float) -> None:
    sampling = SamplingConfig(steps=(4, 2, 2, 2), spans=spans)  # type: ignore[arg-type]
    memory = music.memory("disco")
    plain = decode(music.decoder, memory, [3], sampling, frames=music.frames)
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, music.decoder.config.codes, (1, 4, music.frames), generator=generator)
    keep = torch.rand(codes.shape, generator=generator) < share
    found = decode(music.decoder, memory, [3], sampling, frames=music.frames, known=Known(codes, keep))
    keep, codes = keep[..., : found.shape[-1]], codes[..., : found.shape[-1]]
    assert torch.equal(found[keep], codes[keep])
    assert int(found.max()) < music.decoder.config.codes  # no mask token is left
    if share == 0:
        assert torch.equal(found, plain)
    if share == 1:
        assert torch.equal(found, codes)


@pytest.mark.parametrize("frames", [99, 100, 150])
def test_a_prefix_as_long_as_the_clip_is_refused(music: Golden, frames: int) -> None:
    codes = torch.zeros(1, 4, frames, dtype=torch.long)
    if frames < music.frames:
        Known.prefix(codes, music.frames)
    else:
        with pytest.raises(UsageError, match="frames"):
            Known.prefix(codes, music.frames)


def test_known_codes_that_do_not_fit_are_refused(pipeline: Pipeline) -> None:
    for codes in (torch.zeros(1, 3, 100), torch.zeros(1, 4, 50), torch.full((1, 4, 100), 64)):
        known = Known(codes.long(), torch.ones(codes.shape, dtype=torch.bool))
        with pytest.raises(UsageError, match="known codes"):
            next(pipeline.generate("x", known=known, sampling=QUICK))


# -- output -----------------------------------------------------------------------------------------------------------


def test_the_waveform_is_what_the_codec_makes_of_the_codes(pipeline: Pipeline) -> None:
    clip = next(pipeline.generate("x", seed=1, sampling=QUICK, output=OutputConfig(normalize="none")))
    codes = torch.from_numpy(clip.codes.astype(np.int64)).unsqueeze(0)
    assert np.array_equal(clip.waveform, pipeline.codec.decode(codes)[0].numpy())
    assert clip.waveform.dtype == np.float32


def test_reported_loudness_is_that_of_the_waveform(pipeline: Pipeline) -> None:
    clip = next(pipeline.generate("x", seed=1, sampling=QUICK))
    assert measure(clip.waveform, clip.sample_rate) == clip.audio.after
    assert clip.audio.after.true_peak is not None
    assert clip.audio.after.true_peak <= -1.0


def test_duration_trims(pipeline: Pipeline) -> None:
    clip = next(pipeline.generate("x", seed=1, sampling=QUICK, edit=EditConfig(duration=0.5)))
    assert clip.seconds == 0.5
    assert abs(clip.waveform[:, -1]).max() < 1e-3  # faded out


def test_the_nominal_length_may_be_asked_for_though_whole_spans_are_shorter(pipeline: Pipeline) -> None:
    nominal = pipeline.info.clip_seconds
    clip = next(pipeline.generate("x", seed=1, sampling=QUICK, edit=EditConfig(duration=nominal)))
    assert clip.seconds == pytest.approx(99 / 50)


def test_wrong_number_of_steps_is_refused_at_once(pipeline: Pipeline) -> None:
    with pytest.raises(UsageError, match="4 codebooks"):
        pipeline.generate("x", sampling=SamplingConfig(steps=(20, 10)))


def test_save_writes_a_file(pipeline: Pipeline, tmp_path: Path) -> None:
    clip = next(pipeline.generate("x", seed=1, sampling=QUICK))
    clip.save(tmp_path / "x.wav")
    assert (tmp_path / "x.wav").stat().st_size > 2 * clip.waveform.size


# -- devices and numbers ----------------------------------------------------------------------------------------------


def test_falling_back_to_the_cpu_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.warns(MagnetWarning, match="no GPU"):
        Pipeline.load(str(GOLDEN / "music"))


def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(DeviceError, match="cuda:99"):
        Pipeline.load(str(GOLDEN / "music"), RuntimeConfig(device="cuda:99"))


@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [
        ("float32", "The weights are damaged; fetch them again"),
        ("bfloat16", "Try --dtype float32"),
        ("float16", "Try --dtype float32 (or bfloat16)"),
    ],
)
def test_values_that_are_not_finite_are_named(dtype: DTypeName, remedy: str) -> None:
    pipeline = load_in(dtype, str(GOLDEN / "music"))
    pipeline.generator.reader.decoder.layers[1].up.weight[3, 4] = float("nan")  # type: ignore[index, union-attr]
    with pytest.raises(NumericsError, match=f"codebook 0, step 0, {dtype}") as caught:
        next(pipeline.generate("x", sampling=QUICK))
    assert caught.value.hint == remedy


def test_low_precision_runs_and_says_so() -> None:
    pipeline = load_in("bfloat16", str(GOLDEN / "music"))
    assert pipeline.info.dtype == "bfloat16"
    assert pipeline.generator.reader.decoder.dtype == torch.bfloat16
    clip = next(pipeline.generate("x", seed=1, sampling=QUICK))
    assert clip.codes.shape == (4, 99)


@pytest.mark.gpu
def test_a_gpu_draws_the_same_codes_in_float32() -> None:
    on_cpu = Pipeline.load(str(GOLDEN / "music"), RuntimeConfig(device="cpu"))
    on_gpu = Pipeline.load(str(GOLDEN / "music"), RuntimeConfig(device="cuda", dtype="float32"))
    jobs = [Job(prompt, 5, QUICK) for prompt in PROMPTS]
    for first, second in zip(on_cpu.generate(jobs), on_gpu.generate(jobs), strict=True):
        assert np.array_equal(first.codes, second.codes)
