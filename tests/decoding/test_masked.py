"""The decoder, the codec and their loop against what the reference computed (tests/golden/README.md)."""

from __future__ import annotations

import pytest
import torch

from magnet_cli.decoding.masked import Known, Step, decode
from magnet_cli.model.decoder import TextMemory
from support.golden import Golden

# Logits pass through a few hundred float32 additions whose order differs between machines and math libraries.
LOGITS_TOLERANCE = 1e-5
WAVEFORM_TOLERANCE = 1e-5


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("case", [0, 1, 2])
@pytest.mark.parametrize("prompt", [0, 1, 2])
def test_codes_equal_the_reference(golden: Golden, case: int, prompt: int) -> None:
    memory = golden.memory(golden.prompts[prompt])
    codes = decode(golden.decoder, memory, [0], golden.cases[case], frames=golden.frames)
    assert torch.equal(codes, golden.arrays[f"c{case}_p{prompt}_tokens"])


@pytest.mark.parametrize("case", [1, 2])
def test_every_step_enters_the_network_as_in_the_reference(golden: Golden, case: int) -> None:
    inputs: list[torch.Tensor] = []
    hook = golden.decoder.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0][:1].clone()))
    try:
        memory = golden.memory(golden.prompts[0])
        decode(golden.decoder, memory, [0], golden.cases[case], frames=golden.frames)
    finally:
        hook.remove()
    wanted = golden.arrays[f"trace_c{case}_p0_inputs"]
    assert len(inputs) == len(wanted)
    for step, (found, reference) in enumerate(zip(inputs, wanted, strict=True)):
        assert torch.equal(found[0], reference), f"departs at step {step}"


@pytest.mark.parametrize("codebook", [0, 1, 2, 3])
def test_logits_of_a_prompt_equal_the_reference_for_that_prompt_alone(golden: Golden, codebook: int) -> None:
    # Row 1 of the fixture is the longest prompt of its batch, hence not padded.
    with torch.inference_mode():
        logits = golden.decoder(golden.arrays["fwd_seq"][1:], codebook, golden.memory(golden.prompts[1]))
    assert relative_error(logits, golden.arrays[f"fwd_logits_{codebook}"][1:]) < LOGITS_TOLERANCE


@pytest.mark.parametrize("codebook", [0, 1, 2, 3])
def test_the_padding_of_the_reference_is_reproduced_when_padded_tokens_are_not_masked(
    golden: Golden, codebook: int
) -> None:
    # The reference lets a short prompt attend to the zeros that pad it. We mask them; everything else is equal.
    memory = golden.memory(*golden.prompts[:2])
    unmasked = TextMemory(memory.keys, memory.values, attn_mask=None)
    with torch.inference_mode():
        logits = golden.decoder(golden.arrays["fwd_seq"], codebook, unmasked)
    assert relative_error(logits, golden.arrays[f"fwd_logits_{codebook}"]) < LOGITS_TOLERANCE


def test_continuation_equals_the_reference(golden: Golden) -> None:
    prefix = golden.codec.encode(golden.arrays["cont_prompt_wav"])
    assert torch.equal(prefix, golden.arrays["cont_prompt_tokens"])
    codes = decode(
        golden.decoder,
        golden.memory(golden.prompts[2]),
        [0],
        golden.cases[1],
        frames=golden.frames,
        known=Known.prefix(prefix, golden.frames),
    )
    assert torch.equal(codes, golden.arrays["cont_tokens"])


@pytest.mark.parametrize(("codes", "waveform"), [("c0_p0_tokens", "c0_p0_wav"), ("cont_tokens", "cont_wav")])
def test_waveforms_equal_the_reference(golden: Golden, codes: str, waveform: str) -> None:
    found, wanted = golden.codec.decode(golden.arrays[codes]), golden.arrays[waveform]
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < WAVEFORM_TOLERANCE
    assert relative_error(found, wanted) < WAVEFORM_TOLERANCE


def test_steps_are_reported_in_order(music: Golden) -> None:
    steps: list[Step] = []
    sampling = music.cases[1]
    decode(music.decoder, music.memory("x"), [0], sampling, frames=music.frames, on_step=steps.append)
    wanted = [(k, i, n) for k, n in enumerate(sampling.steps) for i in range(n)]
    assert [(step.codebook, step.step, step.steps) for step in steps] == wanted
