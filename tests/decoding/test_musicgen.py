"""MusicGen through us against MusicGen through transformers, code for code; batches, prefixes, files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from magnet_cli.checkpoints.musicgen import read_musicgen
from magnet_cli.checkpoints.parts import build_codec
from magnet_cli.decoding.musicgen import MusicGen, delay, undelay
from magnet_cli.errors import ModelError, NumericsError, UsageError
from magnet_cli.options.sampling import MusicGenSampling
from support.tiny_musicgen import CODES, PAD, Oracle, change_settings, store_as_released, write_musicgen

CPU = torch.device("cpu")
# Of different lengths, so that a batch of them is padded.
PROMPTS = ["a", "80s electronic track with melodic synthesizers, catchy beat and groovy bass", "rain"]
GREEDY = MusicGenSampling(greedy=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("musicgen")


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Oracle:
    return Oracle(folder, write_musicgen(folder))


@pytest.fixture(scope="module")
def model(folder: Path, oracle: Oracle) -> MusicGen:
    return MusicGen.load(folder, CPU, torch.float32)


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """A MusicGen of one's own to be spoilt."""
    write_musicgen(tmp_path)
    return tmp_path


def random_codes(batch: int, frames: int, seed: int = 0) -> Tensor:
    return torch.randint(CODES, (batch, 4, frames), generator=torch.Generator().manual_seed(seed))


def change_weights(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    state = load_file(folder / "model.safetensors")
    edit(state)
    save_file(state, folder / "model.safetensors")


# -- the delay pattern ------------------------------------------------------------------------------------------------


def test_the_delay_pattern_is_that_of_transformers(oracle: Oracle) -> None:
    codes = random_codes(2, 9)
    start = torch.full((2, 4, 1), PAD)
    _, wanted = oracle.model.decoder.build_delay_pattern_mask(
        torch.cat([start, codes], dim=-1).flatten(0, 1), pad_token_id=PAD, max_length=9 + 4
    )
    assert torch.equal(delay(codes, PAD).flatten(0, 1), wanted)
    assert torch.equal(undelay(delay(codes, PAD)), codes)


# -- generating -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", [3.0, 1.0])
@pytest.mark.parametrize("frames", [3, 20])
def test_greedy_codes_equal_those_of_transformers(
    oracle: Oracle, model: MusicGen, frames: int, guidance: float
) -> None:
    wanted = oracle.generate(PROMPTS, frames, guidance_scale=guidance)
    assert wanted.shape == (3, 4, frames)
    # The test would show little if the text did not matter, or every code were the same.
    assert not torch.equal(wanted[0], wanted[1])
    assert len(wanted.unique()) > 6
    sampling = MusicGenSampling(greedy=True, guidance=guidance)
    found = model.generate(PROMPTS, [0, 1, 2], frames, sampling=sampling)
    assert torch.equal(found, wanted)


def test_guidance_changes_the_codes(model: MusicGen) -> None:
    codes = [model.generate(["rain"], [0], 20, sampling=MusicGenSampling(greedy=True, guidance=g)) for g in (1, 3)]
    assert not torch.equal(codes[0], codes[1])


def test_no_prompt_is_unconditional_generation(oracle: Oracle, model: MusicGen) -> None:
    wanted = oracle.generate(None, 20, guidance_scale=1.0)
    assert torch.equal(model.generate([None], [0], 20, sampling=GREEDY), wanted)
    assert not torch.equal(model.generate(["rain"], [0], 20, sampling=GREEDY), wanted)
    mixed = model.generate(["rain", None], [0, 0], 20, sampling=GREEDY)
    assert torch.equal(mixed[1:], wanted)


@pytest.mark.parametrize("given", [1, 5, 19])
def test_a_prefix_is_continued_as_by_transformers(oracle: Oracle, model: MusicGen, given: int) -> None:
    prefix = random_codes(3, given)
    wanted = oracle.generate(PROMPTS, 20, decoder_input_ids=prefix.flatten(0, 1))
    found = model.generate(PROMPTS, [0, 1, 2], 20, sampling=GREEDY, prefix=prefix)
    assert torch.equal(found[..., :given], prefix)
    assert torch.equal(found, wanted)


def test_what_a_clip_began_with_does_not_change_its_draws(model: MusicGen) -> None:
    sampling = MusicGenSampling(top_k=20)
    whole = model.generate(PROMPTS[:1], [5], 20, sampling=sampling)
    again = model.generate(PROMPTS[:1], [5], 20, sampling=sampling, prefix=whole[..., :8])
    assert torch.equal(whole, again)


@pytest.mark.parametrize(
    "sampling", [MusicGenSampling(), MusicGenSampling(top_k=None, top_p=0.8, temperature=0.7, guidance=1.0)]
)
def test_an_item_alone_equals_the_item_in_a_batch(model: MusicGen, sampling: MusicGenSampling) -> None:
    seeds = [7, 2**64 - 1, 0]
    together = model.generate(PROMPTS, seeds, 16, sampling=sampling)
    for row in range(3):
        assert torch.equal(model.generate([PROMPTS[row]], [seeds[row]], 16, sampling=sampling)[0], together[row])
    assert not torch.equal(model.generate(PROMPTS[:1], [8], 16, sampling=sampling)[0], together[0])


def test_codes_are_drawn_with_their_probability(oracle: Oracle, model: MusicGen) -> None:
    inputs = oracle.tokenizer(["rain"], return_tensors="pt")
    with torch.inference_mode():
        start = torch.full((4, 1), PAD)
        wanted = oracle.model(**inputs, decoder_input_ids=start).logits[0, 0].div(0.5).softmax(dim=-1)
    sampling = MusicGenSampling(temperature=0.5, top_k=None, guidance=1.0)
    draws = 1000
    first = model.generate(["rain"] * draws, range(draws), 1, sampling=sampling)[:, 0, 0]
    found = torch.bincount(first, minlength=CODES) / draws
    # Five standard deviations of a frequency among this many draws.
    assert ((found - wanted).abs() < 5 * (wanted * (1 - wanted) / draws).sqrt() + 1 / draws).all()
    limited = MusicGenSampling(temperature=0.5, top_k=2, guidance=1.0)
    few = model.generate(["rain"] * 200, range(200), 1, sampling=limited)[:, 0, 0]
    assert set(few.tolist()) == set(wanted.topk(2).indices.tolist())


def test_progress_is_told(model: MusicGen) -> None:
    told: list[tuple[int, int]] = []
    model.generate(
        [None],
        [0],
        6,
        sampling=GREEDY,
        prefix=random_codes(1, 2),
        on_step=lambda step: told.append((step.done, step.total)),
    )
    assert told == [(done, 7) for done in range(1, 8)]  # 4 frames, and 3 columns of delay


def test_half_precision_generates(folder: Path, oracle: Oracle) -> None:
    model = MusicGen.load(folder, CPU, torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert {weight.dtype for weight in model.text_encoder.model.state_dict().values()} == {torch.float32}
    codes = model.generate(PROMPTS, [0, 1, 2], 8, sampling=MusicGenSampling())
    assert codes.min() >= 0
    assert codes.max() < CODES


def test_a_model_of_the_text_encoders_width_has_no_projection(tmp_path: Path) -> None:
    oracle = Oracle(tmp_path, write_musicgen(tmp_path, width=24))
    model = MusicGen.load(tmp_path, CPU, torch.float32)
    assert torch.equal(model.generate(PROMPTS, [0, 1, 2], 8, sampling=GREEDY), oracle.generate(PROMPTS, 8))


# -- what does not fit ------------------------------------------------------------------------------------------------


def test_a_clip_that_is_too_long_is_refused(spoilt: Path, model: MusicGen) -> None:
    # 256 columns are positions 0 to 255; a clip of T frames has T + 4, and the last is never an input.
    model.check_frames(253)
    with pytest.raises(UsageError, match=r"5\.08 s are more than the 5\.06 s"):
        model.generate(["rain"], [0], 254, sampling=GREEDY)
    change_settings(spoilt, "decoder", max_position_embeddings=2048)
    assert read_musicgen(spoilt).most_frames == 1500


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        (random_codes(1, 8), "the clip has only 8"),
        (random_codes(2, 3), "do not fit"),
        (random_codes(1, 3)[:, :2], "do not fit"),
        (random_codes(1, 3) + CODES, "between 0 and 63"),
    ],
)
def test_a_prefix_that_does_not_fit_is_refused(model: MusicGen, prefix: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        model.generate(PROMPTS, [0, 1, 2], 8, sampling=GREEDY, prefix=prefix)


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0}, {"top_k": 0}, {"top_p": 0.5}, {"top_k": None, "top_p": 2.0}, {"guidance": float("nan")}],
)
def test_sampling_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        MusicGenSampling(**options)


def test_a_value_that_is_not_finite_is_an_error(spoilt: Path) -> None:
    change_weights(spoilt, lambda state: state["decoder.lm_heads.2.weight"][0].fill_(torch.nan))
    with pytest.raises(NumericsError, match="not finite in float32"):
        MusicGen.load(spoilt, CPU, torch.float32).generate(["rain"], [0], 4, sampling=GREEDY)


# -- files ------------------------------------------------------------------------------------------------------------


def test_the_format_of_the_released_models_is_read(spoilt: Path, model: MusicGen) -> None:
    wanted = model.generate(PROMPTS, [0, 1, 2], 8, sampling=GREEDY)
    store_as_released(spoilt)
    released = MusicGen.load(spoilt, CPU, torch.float32)
    assert torch.equal(released.generate(PROMPTS, [0, 1, 2], 8, sampling=GREEDY), wanted)
    torch.save(load_file(spoilt / "model.safetensors"), spoilt / "pytorch_model.bin")
    (spoilt / "model.safetensors").unlink()
    pickled = MusicGen.load(spoilt, CPU, torch.float32)
    assert torch.equal(pickled.generate(PROMPTS, [0, 1, 2], 8, sampling=GREEDY), wanted)


def test_its_codec_is_that_of_transformers(oracle: Oracle, model: MusicGen) -> None:
    codes = random_codes(1, 30)
    with torch.inference_mode():
        wanted = oracle.model.audio_encoder.decode(codes.unsqueeze(0), [None]).audio_values
    # Folding weight normalization changes the order of a few float32 products.
    assert torch.allclose(build_codec(model.source.codec, CPU).decode(codes), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (None, {"model_type": "musicgen_melody"}, "follows melodies"),
        (None, {"model_type": "t5"}, "type 't5', not 'musicgen'"),
        (None, {"decoder": []}, "a part of it is no mapping"),
        ("decoder", {"audio_channels": 2, "num_codebooks": 8}, "stereo"),
        ("decoder", {"pad_token_id": 0}, "padding token"),
        ("decoder", {"vocab_size": 128, "pad_token_id": 128}, "4 codebooks of 128 codes, but a codec of 4 of 64"),
        ("decoder", {"num_attention_heads": 5}, "is not that of a MusicGen"),
        ("decoder", {"hidden_size": "wide"}, "does not describe a MusicGen"),
        ("decoder", {"num_hidden_layers": 3}, "layers.2"),
        ("audio_encoder", {"model_type": "dac"}, "EnCodec"),
        ("audio_encoder", {"normalize": True}, "EnCodec"),
        ("text_encoder", {"model_type": "bert"}, "does not describe a T5"),
        ("text_encoder", {"d_model": 32}, "shape"),
    ],
)
def test_a_model_of_another_kind_is_refused(
    spoilt: Path, part: str | None, values: dict[str, Any], message: str
) -> None:
    change_settings(spoilt, part, **values)
    with pytest.raises(ModelError, match=message):
        MusicGen.load(spoilt, CPU, torch.float32)


@pytest.mark.parametrize("content", ["{", "[]", "7", "", '{"model_type": "musicgen"}'])
def test_a_damaged_configuration_is_refused(spoilt: Path, content: str) -> None:
    (spoilt / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json does not describe a MusicGen"):
        read_musicgen(spoilt)


@pytest.mark.parametrize("name", ["decoder.lm_heads.3.weight", "enc_to_dec_proj.bias", "text_encoder.shared.weight"])
def test_weights_load_strictly(spoilt: Path, name: str) -> None:
    change_weights(spoilt, lambda state: state.pop(name))
    with pytest.raises(ModelError, match="is missing"):
        MusicGen.load(spoilt, CPU, torch.float32)


def test_a_tensor_of_no_part_is_refused(spoilt: Path) -> None:
    change_weights(spoilt, lambda state: state.update({"audio_enc_to_dec_proj.weight": torch.zeros(2)}))
    with pytest.raises(ModelError, match="audio_enc_to_dec_proj"):
        read_musicgen(spoilt)


def test_a_folder_without_weights_or_tokenizer_is_refused(spoilt: Path) -> None:
    (spoilt / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        MusicGen.load(spoilt, CPU, torch.float32)
    (spoilt / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        read_musicgen(spoilt)
