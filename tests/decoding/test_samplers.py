"""Ways to sample beside the reference's: what holds for all of them. Their formulas have tests of their own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from magnet_cli.decoding.circle import Loop
from magnet_cli.decoding.masked import Known, Step, decode
from magnet_cli.decoding.windows import decode_windows
from magnet_cli.engines.cpu import FastTransformer
from magnet_cli.engines.cuda import GraphTransformer
from magnet_cli.options.sampling import SamplingConfig
from support.golden import Golden
from support.networks import CONFIG, FRAMES, build, noise, random_codes
from support.samplers import SAMPLERS, STEPS
from support.tape import TapeRecorder

every_sampler = pytest.mark.parametrize("sampling", SAMPLERS.values(), ids=SAMPLERS)


def some_keep(batch: int, frames: int, seed: int = 2) -> Tensor:
    """Kept codes at random places, of which one codebook is whole and another has none."""
    keep = torch.rand(batch, 4, frames, generator=torch.Generator().manual_seed(seed)) < 0.4
    keep[:, 1] = True
    keep[:, 2] = False
    return keep


def some_codes(batch: int, frames: int) -> Tensor:
    return torch.randint(64, (batch, 4, frames), generator=torch.Generator().manual_seed(1))


@every_sampler
def test_it_differs_from_the_reference(music: Golden, sampling: SamplingConfig) -> None:
    memory = music.memory("disco")
    found, other = (
        decode(music.decoder, memory, [3], one, frames=music.frames)
        for one in (sampling, SamplingConfig(sampling.steps))
    )
    assert not torch.equal(found, other)
    assert int(found.max()) < music.decoder.config.codes  # no mask token is left


@every_sampler
def test_a_seed_gives_the_same_clip_and_another_seed_another(music: Golden, sampling: SamplingConfig) -> None:
    memory = music.memory("disco")
    first, again, other = (decode(music.decoder, memory, [seed], sampling, frames=60) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@every_sampler
@pytest.mark.parametrize("frames", [99, 100])
def test_known_codes_come_back_and_every_row_is_as_it_is_alone(
    music: Golden, sampling: SamplingConfig, frames: int
) -> None:
    batch = 3
    codes, keep = some_codes(batch, frames), some_keep(batch, frames)
    keep[0] = False
    memory, one = music.memory(*["disco"] * batch), music.memory("disco")
    found = decode(
        music.decoder, memory, [5, 6, 7], sampling, frames=frames, known=Known(codes, keep), whole_spans=False
    )
    assert torch.equal(found[keep], codes[keep])
    assert int(found.max()) < music.decoder.config.codes
    for row in range(batch):
        known = Known(codes[row : row + 1], keep[row : row + 1])
        alone = decode(music.decoder, one, [5 + row], sampling, frames=frames, known=known, whole_spans=False)
        assert torch.equal(alone, found[row : row + 1])


@every_sampler
def test_loops_are_decoded_whole_and_in_any_batch(music: Golden, sampling: SamplingConfig) -> None:
    frames, loop = 80, Loop(music.frames)
    known = Known(some_codes(2, frames), some_keep(2, frames))
    found = decode(music.decoder, music.memory("x", "x"), [1, 2], sampling, frames=frames, known=known, loop=loop)
    assert torch.equal(found[known.keep], known.codes[known.keep])
    assert int(found.max()) < music.decoder.config.codes
    alone = decode(
        music.decoder, music.memory("x"), [2], sampling, frames=frames, known=known.rows(slice(1, 2)), loop=loop
    )
    assert torch.equal(alone, found[1:])


@every_sampler
def test_windows_and_continuations_keep_what_is_before(music: Golden, sampling: SamplingConfig) -> None:
    codes, keep = some_codes(1, 150), torch.zeros(1, 4, 150, dtype=torch.bool)
    keep[..., :20] = True
    firsts: list[int] = []

    def window(part: Tensor, kept: Tensor, start: int) -> Tensor:
        firsts.append(start)
        return decode(
            music.decoder,
            music.memory("x"),
            [1],
            sampling,
            frames=part.shape[-1],
            known=Known(part, kept),
            whole_spans=False,
            first_frame=start,
        )

    found = decode_windows(codes, keep, window, window=100, overlap=30)
    assert len(firsts) == 2
    assert torch.equal(found[keep], codes[keep])
    assert int(found.max()) < music.decoder.config.codes


@every_sampler
def test_steps_are_numbered_and_the_last_is_the_last(music: Golden, sampling: SamplingConfig) -> None:
    found: list[Step] = []
    decode(music.decoder, music.memory("x"), [3], sampling, frames=60, on_step=found.append)
    for codebook, most in enumerate(sampling.steps):
        steps = [one for one in found if one.codebook == codebook]
        assert [one.step for one in steps] == list(range(len(steps)))
        assert (steps[-1].step + 1, steps[-1].steps) == (len(steps), len(steps))
        assert len(steps) <= most


@every_sampler
@pytest.mark.parametrize("given", [False, True])
def test_every_engine_gives_the_codes_of_the_plain_network(sampling: SamplingConfig, given: bool) -> None:
    model = build(dtype=torch.float32)
    for head in model.output_heads:  # where probabilities round to 1, scores are ties, and rounding orders those
        head.weight.mul_(0.05)
    memory = model.text_memory(noise(3, 5, CONFIG.text_width), [3, 5, 2])
    known = Known(random_codes(3, FRAMES) % CONFIG.codes, some_keep(3, FRAMES)) if given else None
    wanted = decode(model, memory, [1, 2, 3], sampling, frames=FRAMES, known=known)
    recorder = TapeRecorder()
    for network in (FastTransformer(model), GraphTransformer(model, recorder=recorder)):
        for _ in range(2):  # the second time, graphs are recorded
            found = decode(network, memory, [1, 2, 3], sampling, frames=FRAMES, known=known)
            network.forget()
            assert torch.equal(found, wanted)
    assert recorder.recordings


@every_sampler
def test_int8_decodes_all_of_it(sampling: SamplingConfig) -> None:
    model = build(dtype=torch.float32)
    memory = model.text_memory(noise(1, 5, CONFIG.text_width), [5])
    found = decode(FastTransformer(model, int8=True), memory, [1], sampling, frames=FRAMES)
    assert int(found.max()) < CONFIG.codes


def test_outside_of_the_guided_steps_the_half_without_text_is_skipped(music: Golden) -> None:
    rows: list[int] = []
    hook = music.decoder.register_forward_pre_hook(lambda _, arguments: rows.append(len(arguments[0])))
    sampling = replace(SamplingConfig(STEPS), min_guidance=2.0, guidance_start=0.3, guidance_end=0.8)
    try:
        decode(music.decoder, music.memory("x"), [0], sampling, frames=60)
    finally:
        hook.remove()
    # Places 0, 1/4, 1/2, 3/4, 1 of five steps; 0, 1/2, 1 of three; 0, 1 of two.
    assert rows == [1, 1, 2, 2, 1, 1, 2, 1, 1, 2, 1, 1, 1]
