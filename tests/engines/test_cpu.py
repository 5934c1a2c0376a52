"""The fast network against the plain one: the same logits, and through the same loop the same codes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from magnet_cli.decoding.masked import Known, decode
from magnet_cli.decoding.steps import guidance_weight, mask_rates
from magnet_cli.engines import cpu as engine
from magnet_cli.engines.cpu import FastTransformer, Reach, widen
from magnet_cli.engines.linear import Int8Linear, activation_levels
from magnet_cli.engines.local_attention import Band
from magnet_cli.model.decoder import neighbourhood_mask, split_heads
from magnet_cli.options.sampling import SamplingConfig
from support.golden import CPU
from support.networks import CONFIG, FRAMES, build, noise, random_codes, text

EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64


def somewhere(batch: int, share: float, seed: int = 5, frames: int = FRAMES) -> Tensor:
    return torch.rand(batch, frames, generator=torch.Generator().manual_seed(seed)) < share


# -- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [0, 2, 5])
@pytest.mark.parametrize("block", [4, 16])
@pytest.mark.parametrize(("rows", "frames"), [(1, 1), (1, 16), (3, 7), (2, 50)])
def test_banded_attention_is_masked_attention(rows: int, frames: int, block: int, context: int) -> None:
    band = Band.build(rows, frames, context, block, CPU)
    buffer = band.buffer(CONFIG.width, noise(1))
    values = noise(rows * frames, 3 * CONFIG.width)
    band.inside(buffer).copy_(values)
    found = band.attend(buffer, CONFIG.heads, rows * frames)
    first = band.attend(buffer, CONFIG.heads, frames)  # of the first row alone
    assert torch.equal(found[:frames], first)
    parts = (split_heads(part, CONFIG.heads) for part in values.unflatten(0, (rows, frames)).chunk(3, dim=-1))
    mask = neighbourhood_mask(frames, context, CPU)
    wanted = torch.nn.functional.scaled_dot_product_attention(*parts, mask)
    torch.testing.assert_close(found, wanted.transpose(1, 2).flatten(2).flatten(0, 1), **EXACT)


@pytest.mark.parametrize("context", [0, 1, 3])
def test_widening_is_by_distance_and_stays_in_its_row(context: int) -> None:
    mask = somewhere(3, 0.1)
    near = neighbourhood_mask(FRAMES, context, CPU)
    assert torch.equal(widen(mask, context), (mask.unsqueeze(1) & near).any(dim=-1))
    assert widen(mask, None).tolist() == [[bool(row.any())] * FRAMES for row in mask]


def test_a_step_computes_only_what_changed_and_is_wanted() -> None:
    reach = Reach(layers=2, rows=1, frames=20)
    everything = torch.ones(1, 20, dtype=torch.bool)
    none = ~everything
    assert all(work.all() for work in reach.plan(everything, everything, 1))
    assert not any(work.any() for work in reach.plan(none, everything, 1))

    def frames(*numbers: int) -> Tensor:
        return torch.isin(torch.arange(20), torch.tensor(numbers)).unsqueeze(0)

    # Frame 5 changes: layer by layer, one frame further to either side, of which only what reaches 7 and 12 is due.
    work = reach.plan(frames(5), frames(7, 12), 1)
    assert [found.nonzero()[:, 1].tolist() for found in work] == [[5], [6], [7]]
    # The rest is still due when it is asked for.
    work = reach.plan(none, everything, 1)
    assert [found.nonzero()[:, 1].tolist() for found in work] == [[], [4, 5], [3, 4, 5, 6]]


# -- logits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [2, 0, -1])
@pytest.mark.parametrize("text_rows", [0, 1, 2])
def test_logits_are_those_of_the_plain_network_whatever_came_before(context: int, text_rows: int) -> None:
    model = build(replace(CONFIG, context=context))
    fast, plain, batch = FastTransformer(model), model, 2
    memory = text(model, text_rows * batch) if text_rows else None
    generator = torch.Generator().manual_seed(1)
    codes = random_codes(batch, FRAMES)
    for call, codebook in enumerate((0, 0, 1, 1, 1, 2, 0, 3, 3)):
        codes = codes.clone()
        change = torch.rand(codes.shape, generator=generator) < 0.02
        codes[change] = (codes[change] + 1) % CONFIG.codes
        wanted = somewhere(batch, (1.0, 0.5, 0.1)[call % 3], seed=call)
        weight = 1.0 if call % 4 == 3 else 3.0
        found = fast.guided(codes, codebook, memory, weight, wanted)
        reference = plain.guided(codes, codebook, memory, weight)
        assert found.dtype == torch.float32
        # Guidance is in float32, whose rounding the weight enlarges.
        torch.testing.assert_close(found[wanted], reference[wanted], rtol=1e-5, atol=1e-4)
        assert not found[~wanted].any()


def test_another_text_or_clip_is_not_mixed_up_with_the_last() -> None:
    model = build()
    fast, plain, codes = FastTransformer(model), model, random_codes(1, FRAMES)
    memories = [model.text_memory(noise(1, 3, CONFIG.text_width, seed=seed), [3]) for seed in (1, 2)]
    for memory in (*memories, *memories):
        for clip in (codes, codes[..., :30], codes.roll(1, -1)):
            wanted = plain.guided(clip, 1, memory, 3.0)
            torch.testing.assert_close(fast.guided(clip, 1, memory, 3.0), wanted, rtol=1e-5, atol=1e-4)


def test_without_room_to_keep_states_the_logits_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MOST_KEPT_BYTES", 0)
    test_logits_are_those_of_the_plain_network_whatever_came_before(2, 1)


def test_a_step_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    model, codes = build(), random_codes(1, FRAMES)
    fast, memory = FastTransformer(model), text(model, 1)
    fast.guided(codes, 1, memory, 3.0)
    other = random_codes(1, FRAMES, seed=9)
    with monkeypatch.context() as patch:
        patch.setattr(fast, "_listen", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fast.guided(other, 1, memory, 3.0)
    wanted = model.guided(other, 1, memory, 3.0)
    torch.testing.assert_close(fast.guided(other, 1, memory, 3.0), wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("guidance", [10.0, 20.0])
def test_the_last_step_of_default_guidance_is_the_conditional_half(guidance: float) -> None:
    weight = guidance_weight(float(mask_rates(10)[-1]), SamplingConfig(guidance=guidance), place=1)
    assert 0 < abs(weight - 1) <= engine.UNGUIDED


# -- codes ------------------------------------------------------------------------------------------------------------

OPTIONS = {
    "default": SamplingConfig(),
    "prod": SamplingConfig(span_score="prod"),
    "stride1": SamplingConfig(spans="stride1"),
    "top-k": SamplingConfig(top_p=None, top_k=5),
    "plain": SamplingConfig(top_p=None, anneal=False, min_guidance=2.0),
    "greedy": SamplingConfig(greedy=True, guidance=1.0),
}


@pytest.mark.parametrize("given", ["nothing", "beginnings", "anything"])
@pytest.mark.parametrize("option", OPTIONS)
def test_codes_are_those_of_the_plain_network(option: str, given: str) -> None:
    model = build(dtype=torch.float32)
    for head in model.output_heads:  # where probabilities round to 1, scores are ties, and rounding orders those
        head.weight.mul_(0.05)
    memory = model.text_memory(noise(3, 5, CONFIG.text_width), [3, 5, 2])
    known = None
    if given != "nothing":
        codes = random_codes(3, FRAMES) % CONFIG.codes
        keep = somewhere(3 * CONFIG.codebooks, 0.3).view(codes.shape)
        if given == "beginnings":  # of different lengths
            keep = (torch.arange(FRAMES) < torch.tensor([[[4]], [[17]], [[0]]])).expand(codes.shape)
        known = Known(codes, keep)
    sampling = replace(OPTIONS[option], steps=(4, 3, 3, 1))
    seeds = [1, 2, 3]
    wanted = decode(model, memory, seeds, sampling, frames=FRAMES, known=known)
    fast = FastTransformer(model)
    assert torch.equal(decode(fast, memory, seeds, sampling, frames=FRAMES, known=known), wanted)
    assert torch.equal(decode(fast, memory, seeds, sampling, frames=FRAMES, known=known), wanted)  # once more


# -- 8 bits -----------------------------------------------------------------------------------------------------------


def test_int8_products_err_by_their_rounding() -> None:
    linear = torch.nn.Linear(256, 96, bias=False)
    scale = torch.logspace(-4, 4, 50).unsqueeze(1)  # every row by its own scale
    x = noise(50, 256).float() * scale
    wanted = linear(x)
    error = (Int8Linear(linear)(x) - wanted).norm(dim=1) / wanted.norm(dim=1)
    # Steps of 1/levels of the largest of 256 normal numbers, about 2.8 deviations: a uniform error of a step, and for
    # the weights, which are uniform, of 1/127: together 2.8 / levels / sqrt(12) and 1.7 / 127 / sqrt(12).
    expected = math.hypot(2.8 / activation_levels(), 1.7 / 127) / math.sqrt(12)
    assert error.mean() < 1.5 * expected
    assert error.max() < 3 * expected


def test_an_int8_row_does_not_depend_on_the_others() -> None:
    product, x = Int8Linear(torch.nn.Linear(64, 32, bias=False)), noise(9, 64).float()
    x[3] = 0
    x[4] *= 1e6
    together = product(x)
    assert not together[3].any()
    for row in range(len(x)):
        assert torch.equal(product(x[row : row + 1])[0], together[row])


def test_int8_refuses_a_bias_that_it_would_lose() -> None:
    with pytest.raises(ValueError, match="bias"):
        Int8Linear(torch.nn.Linear(4, 4))


def test_int8_logits_are_near() -> None:
    model = build(dtype=torch.float32)
    codes, memory = random_codes(1, FRAMES), text(model, 1)
    wanted = model.guided(codes, 1, memory, 1.0)
    found = FastTransformer(model, int8=True).guided(codes, 1, memory, 1.0)
    # An upper bound on what three layers make of products that are each 1 to 2% off.
    assert (found - wanted).norm() / wanted.norm() < 0.2
