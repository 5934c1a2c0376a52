"""The network's blocks against those of torch.nn, and what each codebook may see."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from magnet_cli.model.decoder import (
    CrossAttention,
    Layer,
    MaskedTransformer,
    SelfAttention,
    TextMemory,
    neighbourhood_mask,
    sinusoidal_positions,
)
from support.golden import CPU, Golden
from support.networks import CONFIG, build, noise, random_codes, randomize

REACH = CONFIG.layers * CONFIG.context  # frames that information travels through all layers

# Blocks are compared in float64, where sums in another order differ by some 1e-16 of their size.
EXACT = {"rtol": 1e-12, "atol": 1e-12}
# A batch of another size may be multiplied in blocks of another size: float32 sums in another order.
BATCH = {"rtol": 1e-4, "atol": 1e-5}


# -- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [True, False])
def test_self_attention_is_multihead_attention(masked: bool) -> None:
    block = SelfAttention(CONFIG).double()
    randomize(block)
    wanted = nn.MultiheadAttention(CONFIG.width, CONFIG.heads, bias=False, batch_first=True, dtype=torch.float64)
    wanted.load_state_dict({"in_proj_weight": block.qkv.weight, "out_proj.weight": block.out.weight})
    x = noise(2, 11, CONFIG.width)
    mask = torch.rand(11, 11, generator=torch.Generator().manual_seed(1)) < 0.5
    mask.fill_diagonal_(True)
    found = block(x, mask if masked else None)
    # torch.nn's boolean masks say what may not be attended to.
    reference = wanted(x, x, x, attn_mask=~mask if masked else None, need_weights=False)[0]
    torch.testing.assert_close(found, reference, **EXACT)


@pytest.mark.parametrize("masked", [True, False])
def test_cross_attention_is_multihead_attention(masked: bool) -> None:
    block = CrossAttention(CONFIG).double()
    randomize(block)
    wanted = nn.MultiheadAttention(CONFIG.width, CONFIG.heads, bias=False, batch_first=True, dtype=torch.float64)
    stacked = torch.cat([block.query.weight, block.key_value.weight])
    wanted.load_state_dict({"in_proj_weight": stacked, "out_proj.weight": block.out.weight})
    x, text = noise(2, 11, CONFIG.width), noise(2, 7, CONFIG.width, seed=1)
    valid = torch.arange(7) < torch.tensor([[3], [7]])
    found = block(x, *block.keys_and_values(text), valid[:, None, None, :] if masked else None)
    reference = wanted(x, text, text, key_padding_mask=~valid if masked else None, need_weights=False)[0]
    torch.testing.assert_close(found, reference, **EXACT)


@pytest.mark.parametrize("masked", [True, False])
def test_a_layer_is_a_pre_norm_decoder_layer(masked: bool) -> None:
    layer = Layer(CONFIG).double()
    randomize(layer)
    wanted = nn.TransformerDecoderLayer(
        CONFIG.width,
        CONFIG.heads,
        CONFIG.feed_forward,
        dropout=0.0,
        activation=F.gelu,
        batch_first=True,
        norm_first=True,
        bias=False,
        dtype=torch.float64,
    ).eval()
    # bias=False takes the biases of the norms away too; MAGNeT has them.
    wanted.norm1, wanted.norm2, wanted.norm3 = layer.self_norm, layer.cross_norm, layer.feed_forward_norm
    cross = layer.cross_attention
    with torch.no_grad():
        wanted.self_attn.in_proj_weight.copy_(layer.self_attention.qkv.weight)
        wanted.self_attn.out_proj.weight.copy_(layer.self_attention.out.weight)
        wanted.multihead_attn.in_proj_weight.copy_(torch.cat([cross.query.weight, cross.key_value.weight]))
        wanted.multihead_attn.out_proj.weight.copy_(cross.out.weight)
        wanted.linear1.weight.copy_(layer.up.weight)
        wanted.linear2.weight.copy_(layer.down.weight)
    x, text = noise(2, 11, CONFIG.width), noise(2, 7, CONFIG.width, seed=1)
    near = neighbourhood_mask(11, 2, CPU) if masked else None
    keys, values = cross.keys_and_values(text)
    unused = torch.zeros_like(keys)
    memory = TextMemory((unused, keys), (unused, values), None)
    found = layer(x, near, memory, 1)
    reference = wanted(x, text, tgt_mask=None if near is None else ~near)
    torch.testing.assert_close(found, reference, **EXACT)


def test_layer_norm_has_the_epsilon_of_the_checkpoints() -> None:
    epsilons = {module.eps for module in build().modules() if isinstance(module, nn.LayerNorm)}
    assert epsilons == {1e-5}


# -- positions and masks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("max_period", "scale"), [(10_000.0, 1.0), (500.0, 0.25)])
@pytest.mark.parametrize("width", [24, 1024, 1536])
def test_positions_are_cosines_then_sines(width: int, max_period: float, scale: float) -> None:
    config = replace(CONFIG, width=width, max_period=max_period, position_scale=scale)
    frames, half = 1500, width // 2
    found = sinusoidal_positions(config, frames, CPU).double()
    position = torch.arange(frames, dtype=torch.float64).view(-1, 1)
    phase = position / max_period ** (torch.arange(half, dtype=torch.float64) / (half - 1))
    wanted = scale * torch.cat([phase.cos(), phase.sin()], dim=-1)
    # The phase is computed in float32, as in the reference: exponent, power and quotient each add about an ulp
    # (the power amplifies the exponent's by log(max_period) < 10), so the error grows with the position.
    bound = scale * (position + 1) * 12 * torch.finfo(torch.float32).eps
    assert found.shape == (frames, width)
    assert ((found - wanted).abs() <= bound).all()


@pytest.mark.parametrize("context", [0, 1, 5, 100])
@pytest.mark.parametrize("frames", [1, 2, 13])
def test_the_neighbourhood_is_by_distance(frames: int, context: int) -> None:
    mask = neighbourhood_mask(frames, context, CPU)
    wanted = [[abs(i - j) <= context for j in range(frames)] for i in range(frames)]
    assert mask.tolist() == wanted
    assert mask.dtype == torch.bool


def test_the_neighbourhood_is_not_causal() -> None:
    mask = neighbourhood_mask(9, 2, CPU)
    assert torch.equal(mask, mask.T)
    assert mask.triu(1).any()


# -- what a frame sees ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codebook", [0, 1, 2, 3])
@pytest.mark.parametrize("changed", [0, 15, 29])
def test_a_change_reaches_exactly_the_frames_it_may(codebook: int, changed: int) -> None:
    model, codes = build(), random_codes(1, 30)
    other = codes.clone()
    other[0, 2, changed] = (other[0, 2, changed] + 1) % CONFIG.codes
    memory = model.text_memory(noise(1, 4, CONFIG.text_width), [4])
    difference = model(codes, codebook, memory) - model(other, codebook, memory)
    reached = difference[0].ne(0).any(dim=-1)
    distance = (torch.arange(30) - changed).abs()
    wanted = torch.ones(30, dtype=torch.bool) if codebook == 0 else distance <= REACH
    # A masked frame has weight exactly 0, so unreached logits are equal to the last bit.
    assert reached.tolist() == wanted.tolist()


def test_without_a_context_every_codebook_sees_every_frame() -> None:
    model, codes = build(replace(CONFIG, context=-1)), random_codes(1, 30)
    other = codes.clone()
    other[0, 0, 0] = (other[0, 0, 0] + 1) % CONFIG.codes
    for codebook in range(CONFIG.codebooks):
        assert (model(codes, codebook, None) != model(other, codebook, None)).any(dim=-1).all()


def test_each_codebook_has_its_own_embedding_and_head() -> None:
    model, codes = build(), random_codes(1, 12)
    base = model(codes, 1, None)
    for k in range(CONFIG.codebooks):
        other = codes.clone()
        other[0, k] = (other[0, k] + 1) % CONFIG.codes
        assert not torch.equal(model(other, 1, None), base)
    with torch.no_grad():
        model.output_heads[2].weight.zero_()
    assert torch.equal(model(codes, 1, None), base)
    assert not model(codes, 2, None).any()


def test_the_mask_code_has_an_embedding() -> None:
    model = build()
    codes = torch.full((1, CONFIG.codebooks, 6), CONFIG.mask_code)
    assert model(codes, 0, None).shape == (1, 6, CONFIG.codes)


# -- text -------------------------------------------------------------------------------------------------------------


def zero_text(model: MaskedTransformer, batch: int, tokens: int) -> TextMemory:
    """How the reference makes a row unconditional: it attends to zeros."""
    zeros = torch.zeros(batch, tokens, model.config.width, dtype=model.dtype)
    pairs = [layer.cross_attention.keys_and_values(zeros) for layer in model.layers]
    return TextMemory(tuple(keys for keys, _ in pairs), tuple(values for _, values in pairs), None)


@pytest.mark.parametrize("codebook", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_text_is_attention_to_zeros(codebook: int, dtype: torch.dtype) -> None:
    model, codes = build(dtype=dtype), random_codes(2, 15)
    # Exactly: a weighted sum of zeros is 0, and without biases it stays 0.
    assert torch.equal(model(codes, codebook, None), model(codes, codebook, zero_text(model, 2, 5)))


@pytest.mark.parametrize("codebook", [0, 1])
def test_rows_beyond_the_text_are_unconditional(codebook: int) -> None:
    model, codes = build(), random_codes(3, 15)
    memory = model.text_memory(noise(2, 5, CONFIG.text_width), [5, 5])
    logits = model(torch.cat([codes, codes]), codebook, memory)
    torch.testing.assert_close(logits[:2], model(codes[:2], codebook, memory), **EXACT)
    torch.testing.assert_close(logits[2:3], model(codes[2:], codebook, None), **EXACT)
    torch.testing.assert_close(logits[3:], model(codes, codebook, None), **EXACT)
    assert not torch.allclose(logits[:2], logits[3:5])  # the text does count


def test_one_text_goes_with_many_unconditional_rows() -> None:
    model, codes = build(), random_codes(4, 9)
    memory = model.text_memory(noise(1, 3, CONFIG.text_width), [3])
    assert memory.batch == 1
    torch.testing.assert_close(model(codes, 1, memory)[1:], model(codes[1:], 1, None), **EXACT)


def test_a_prompt_in_a_padded_batch_is_as_if_alone() -> None:
    model, codes = build(), random_codes(3, 15)
    states, lengths = noise(3, 8, CONFIG.text_width), [3, 8, 1]  # what lies beyond a length is not zero here
    together = model(codes, 0, model.text_memory(states, lengths))
    for row, length in enumerate(lengths):
        alone = model.text_memory(states[row : row + 1, :length], [length])
        assert alone.attn_mask is None
        torch.testing.assert_close(together[row : row + 1], model(codes[row : row + 1], 0, alone), **EXACT)


def test_a_golden_prompt_in_a_padded_batch_is_as_if_alone(golden: Golden) -> None:
    codes = golden.arrays["fwd_seq"][:1].expand(3, -1, -1)
    memory = golden.memory(*golden.prompts)
    assert memory.attn_mask is not None
    with torch.inference_mode():
        together = golden.decoder(codes, 1, memory)
        for row, prompt in enumerate(golden.prompts):
            alone = golden.decoder(codes[:1], 1, golden.memory(prompt))
            torch.testing.assert_close(together[row : row + 1], alone, **BATCH)


def test_text_beyond_its_length_does_not_count() -> None:
    model, codes = build(), random_codes(2, 9)
    states = noise(2, 6, CONFIG.text_width)
    other = states.clone()
    other[0, 4:] = 1e3
    assert torch.equal(
        model(codes, 0, model.text_memory(states, [4, 6])), model(codes, 0, model.text_memory(other, [4, 6]))
    )


def test_the_embedding_of_a_frame_is_the_sum_over_codebooks() -> None:
    model = build(replace(CONFIG, layers=0))
    codes = random_codes(2, 7)
    embedded = sum(model.embeddings[k].weight[codes[:, k]] for k in range(CONFIG.codebooks))
    x = embedded + sinusoidal_positions(CONFIG, 7, CPU).double()
    scale = (x.var(dim=-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    normed = (x - x.mean(dim=-1, keepdim=True)) / scale * model.out_norm.weight + model.out_norm.bias
    torch.testing.assert_close(model(codes, 3, None), normed @ model.output_heads[3].weight.T, **EXACT)


def test_gelu_is_the_exact_one() -> None:
    layer = Layer(CONFIG).double()
    randomize(layer)
    with torch.no_grad():
        layer.self_attention.out.weight.zero_()
    x = noise(1, 4, CONFIG.width)
    hidden = layer.up(layer.feed_forward_norm(x))
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    torch.testing.assert_close(layer(x, None, None, 0), x + layer.down(gelu), **EXACT)
