"""After a batch has failed: nothing of it stays, neither values that are not finite nor memory."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from magnet_cli import Pipeline, RuntimeConfig, SamplingConfig
from magnet_cli.engines.cuda import GraphTransformer
from magnet_cli.errors import MagnetWarning, NumericsError
from magnet_cli.model.text_encoder import TextEncoder, TextStates
from magnet_cli.options.job import Job
from support.tape import TapeRecorder

STEPS = SamplingConfig(steps=(2, 1, 1, 1), temperature=1.0)


@pytest.fixture
def pipeline(tiny: str, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """One that decodes as on a GPU: in batches, with static buffers and recordings."""
    loaded = Pipeline.load(tiny, RuntimeConfig(device="cpu", dtype="float32", batch_size=2))
    monkeypatch.setattr("magnet_cli.pipeline.pipeline.decoded_together", lambda device, clips: clips)
    reader = loaded.generator.reader  # type: ignore[attr-defined]
    network = GraphTransformer(reader.decoder, recorder=TapeRecorder())
    generator = replace(loaded.generator, reader=replace(reader, network=network))  # type: ignore[type-var, call-arg]
    return replace(loaded, generator=generator)


def network_of(pipeline: Pipeline) -> GraphTransformer:
    network = pipeline.generator.reader.network  # type: ignore[attr-defined]
    assert isinstance(network, GraphTransformer)
    return network


def test_a_clip_that_is_not_finite_spoils_no_other(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job(prompt, seed, STEPS) for seed, prompt in enumerate(("good", "bad", "good", "good"))]
    wanted = {clip.job.seed: clip.codes for clip in pipeline.generate([job for job in jobs if job.prompt == "good"])}
    encode = TextEncoder.encode

    def break_bad(self: TextEncoder, prompts: Any) -> TextStates:
        text = encode(self, prompts)
        factors = torch.tensor([torch.nan if prompt == "bad" else 1.0 for prompt in prompts])
        return replace(text, states=text.states * factors.view(-1, 1, 1))

    monkeypatch.setattr(TextEncoder, "encode", break_bad)
    failures: list[tuple[int, Exception]] = []
    clips = list(pipeline.generate(jobs, on_failure=lambda index, error: failures.append((index, error))))
    assert [clip.job.seed for clip in clips] == [0, 2, 3]
    for clip in clips:
        assert (clip.codes == wanted[clip.job.seed]).all()
    ((index, error),) = failures
    assert index == 1
    assert isinstance(error, NumericsError)


def test_memory_is_free_before_the_next_try(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    network, held = network_of(pipeline), []
    guided = GraphTransformer.guided

    def scarce(self: GraphTransformer, codes: Tensor, *rest: Any) -> Tensor:
        if len(codes) > 1:
            guided(self, codes, *rest)
            large = torch.zeros(1000)
            held.append(weakref.ref(large))
            raise torch.OutOfMemoryError("CUDA out of memory")
        gc.collect()
        assert held
        assert all(one() is None for one in held)
        assert all(shape.batch == 1 for shape in self._networks)
        return guided(self, codes, *rest)

    monkeypatch.setattr(GraphTransformer, "guided", scarce)
    with pytest.warns(MagnetWarning, match="continuing with 1 at a time"):
        clips = list(pipeline.generate([Job("rain", seed, STEPS) for seed in range(3)]))
    assert [clip.job.seed for clip in clips] == [0, 1, 2]
    assert all(shape.batch == 1 for shape in network._networks)


def test_kernels_are_chosen_while_clips_are_generated_and_not_after(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn

    def chosen() -> tuple[bool, bool, bool, bool]:
        return cuda.cudnn_sdp_enabled(), cudnn.allow_tf32, cuda.flash_sdp_enabled(), cuda.math_sdp_enabled()

    before, seen = chosen(), []
    guided = GraphTransformer.guided

    def watch(self: GraphTransformer, *rest: Any) -> Tensor:
        seen.append(chosen())
        return guided(self, *rest)

    monkeypatch.setattr(GraphTransformer, "guided", watch)
    list(pipeline.generate("rain", seed=1, sampling=STEPS))
    assert set(seen) == {(False, False, True, True)}
    assert chosen() == before
