"""The text encoder against transformers, and the files that it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, T5Config, T5EncoderModel, T5ForConditionalGeneration

from magnet_cli.errors import MagnetWarning, ModelError, UsageError
from magnet_cli.model.text_encoder import MOST_TOKENS, TRAINED_TOKENS, TextEncoder
from support.golden import GOLDEN, Golden

# The same network, alone or in a padded batch: float32 sums in another order. States have a size of about 1.
TOLERANCE = 1e-4

PROMPTS = [
    "a",
    "80s electronic track with melodic synthesizers, catchy beat and groovy bass",
    "  spaces   and\ttabs ",
    "two\nlines",
    "",
    "emoji 🎵🥁 and 音楽",
    "موسيقى هادئة مع العود",
    "e\u0301 is é, ﬁ is fi",
    "</s> <pad> <extra_id_0>",
    "\x00\x07 control",
]

TEXT = GOLDEN / "music" / "t5-base"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden text encoder to be spoilt."""
    shutil.copytree(TEXT, tmp_path, dirs_exist_ok=True)
    return tmp_path


def load(folder: Path) -> TextEncoder:
    return TextEncoder.load(folder, "cpu")


def text_folder(golden: Golden) -> Path:
    return next(path.parent for path in golden.folder.glob("*/config.json"))


def change(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    state = load_file(folder / "model.safetensors")
    edit(state)
    save_file(state, folder / "model.safetensors")


def as_pickle(folder: Path, package: object, *, new: bool = True) -> None:
    """Replace the weights by a file of torch.save, in its zip format or in the one before 2020."""
    (folder / "model.safetensors").unlink()
    torch.save(package, folder / "pytorch_model.bin", _use_new_zipfile_serialization=new)


# -- against transformers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", PROMPTS)
def test_tokens_equal_those_of_transformers(golden: Golden, prompt: str) -> None:
    wanted = AutoTokenizer.from_pretrained(text_folder(golden))(prompt).input_ids
    found = golden.text.tokenize(prompt)
    assert found == wanted
    assert found[-1] == golden.text.model.config.eos_token_id


@pytest.mark.parametrize("prompt", PROMPTS)
def test_states_of_a_prompt_equal_those_of_transformers(golden: Golden, prompt: str) -> None:
    folder = text_folder(golden)
    tokens = AutoTokenizer.from_pretrained(folder)(prompt, return_tensors="pt")
    reference = T5EncoderModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        wanted = reference(**tokens).last_hidden_state
    found = golden.text.encode([prompt])
    assert found.lengths == [tokens.input_ids.shape[1]]
    assert torch.equal(found.states, wanted)
    assert found.states.dtype == torch.float32
    assert found.states.shape[-1] == golden.text.width


def test_states_of_several_prompts_equal_those_of_transformers(golden: Golden) -> None:
    folder = text_folder(golden)
    # transformers wants a name for the token that pads; T5's is token 0.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [tokenizer(prompt).input_ids for prompt in PROMPTS]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    reference = T5EncoderModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        wanted = reference(input_ids=ids, attention_mask=mask).last_hidden_state
    found = golden.text.encode(PROMPTS)
    assert found.lengths == [len(row) for row in rows]
    for row, length in enumerate(found.lengths):
        assert (found.states[row, :length] - wanted[row, :length]).abs().max() < TOLERANCE
        assert not found.states[row, length:].any()  # beyond the prompt: exactly zero


def test_states_do_not_depend_on_the_other_prompts(golden: Golden) -> None:
    together = golden.text.encode(PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        alone = golden.text.encode([prompt])
        assert torch.equal(together.states[row, : together.lengths[row]], alone.states[0])


def test_equal_prompts_are_encoded_once(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, encoded = golden.text.encode(["slow piano", "rain"]), []
    forward = type(golden.text.model).forward

    def watch(self: Any, ids: torch.Tensor) -> torch.Tensor:
        encoded.append(ids.shape)
        return forward(self, ids)

    monkeypatch.setattr(type(golden.text.model), "forward", watch)
    found = golden.text.encode(["slow piano", "rain", "slow piano", "slow piano"])
    assert len(encoded) == 2
    assert torch.equal(found.states, wanted.states[[0, 1, 0, 0]])
    assert found.lengths == [wanted.lengths[row] for row in (0, 1, 0, 0)]


def test_prompts_that_differ_have_different_states(golden: Golden) -> None:
    found = golden.text.encode(["slow piano", "piano slow"])
    assert not torch.allclose(found.states[0], found.states[1], atol=TOLERANCE)


# -- a whole T5 -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_t5() -> T5ForConditionalGeneration:
    """A tiny T5 with both halves."""
    config = T5Config(
        vocab_size=187, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, num_decoder_layers=2, dropout_rate=0.0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return T5ForConditionalGeneration(config).eval()


@pytest.mark.parametrize("saved", ["safetensors", "zip", "legacy", "legacy without shared"])
def test_a_whole_t5_loads_its_encoder_half_only(
    tmp_path: Path, whole_t5: T5ForConditionalGeneration, saved: str
) -> None:
    whole_t5.save_pretrained(tmp_path)
    shutil.copy(TEXT / "tokenizer.json", tmp_path)
    if saved != "safetensors":
        # Old files hold the tied embeddings under each of their names.
        state = whole_t5.state_dict()
        assert {"shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"} <= state.keys()
        if saved == "legacy without shared":
            del state["shared.weight"]
        as_pickle(tmp_path, state, new=saved == "zip")
    encoder = load(tmp_path)
    assert not any(name.startswith(("decoder", "lm_head")) for name in encoder.model.state_dict())
    ids = torch.tensor([encoder.tokenize("slow piano")])
    with torch.inference_mode():
        wanted = whole_t5.encoder(input_ids=ids).last_hidden_state
    assert torch.equal(encoder.encode(["slow piano"]).states, wanted)


def test_half_precision_weights_become_float32(folder: Path) -> None:
    change(folder, lambda state: state.update({name: weight.half() for name, weight in state.items()}))
    encoder = load(folder)
    assert {weight.dtype for weight in encoder.model.state_dict().values()} == {torch.float32}
    assert encoder.encode(["a"]).states.dtype == torch.float32


def test_the_encoder_is_not_trainable_and_not_training(golden: Golden) -> None:
    assert not golden.text.model.training
    assert not any(weight.requires_grad for weight in golden.text.model.parameters())


# -- files that are refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"])
def test_a_missing_tensor_is_named(folder: Path, name: str) -> None:
    change(folder, lambda state: state.pop(name))
    with pytest.raises(ModelError, match=name):
        load(folder)


def test_a_mis_shaped_tensor_is_named(folder: Path) -> None:
    name = "encoder.block.0.layer.1.DenseReluDense.wi.weight"
    change(folder, lambda state: state.update({name: torch.zeros(3, 3)}))
    with pytest.raises(ModelError, match=name):
        load(folder)


def test_an_extra_tensor_of_the_encoder_is_named(folder: Path) -> None:
    change(folder, lambda state: state.update({"encoder.more.weight": torch.zeros(3)}))
    with pytest.raises(ModelError, match=r"encoder\.more\.weight"):
        load(folder)


@pytest.mark.parametrize("content", [None, "", "{}", "not json", '{"model": {}}'])
def test_a_missing_or_damaged_tokenizer_is_an_error(folder: Path, content: str | None) -> None:
    path = folder / "tokenizer.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        load(folder)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "7", '{"model_type": "bert"}'])
def test_a_missing_or_damaged_configuration_is_an_error(folder: Path, content: str | None) -> None:
    path = folder / "config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        load(folder)


def test_a_configuration_of_another_shape_is_an_error(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_layers": 2}))
    with pytest.raises(ModelError, match=r"encoder\.block\.1"):
        load(folder)


def test_truncated_safetensors_are_an_error(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for cut in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelError, match=r"model\.safetensors"):
            load(folder)


def test_missing_weights_are_an_error(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        load(folder)


@pytest.mark.parametrize("new", [True, False])
def test_truncated_pickles_are_an_error(folder: Path, new: bool) -> None:
    as_pickle(folder, load_file(folder / "model.safetensors"), new=new)
    path = folder / "pytorch_model.bin"
    whole = path.read_bytes()
    for cut in (0, 1, 10, 100, 600, 700, 800, 900, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelError, match=r"pytorch_model\.bin"):
            load(folder)


@pytest.mark.parametrize("package", [[1], 7, {"shared.weight": 3}])
def test_a_pickle_without_weights_is_an_error(folder: Path, package: object) -> None:
    as_pickle(folder, package)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin"):
        load(folder)


class Payload:
    """What an attacker puts into a pickle: unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("new", [True, False])
def test_code_in_the_weights_is_refused_and_not_run(folder: Path, new: bool) -> None:
    marker = folder / "marker"
    as_pickle(folder, {**load_file(folder / "model.safetensors"), "payload": Payload(marker)}, new=new)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert not marker.exists()
    # torch's own message advises to load the file without protection; a user must never read that.
    assert "weights_only" not in str(caught.value)


# -- long prompts -----------------------------------------------------------------------------------------------------


def words(tokens: int) -> str:
    """A prompt of exactly this many tokens, its end token included."""
    return " ".join(["a"] * (tokens - 1))


def test_a_prompt_as_long_as_the_training_passes_quietly(music: Golden) -> None:
    assert TRAINED_TOKENS == 512
    assert len(music.text.tokenize(words(TRAINED_TOKENS))) == TRAINED_TOKENS


def test_a_longer_prompt_warns_and_is_used_whole(music: Golden) -> None:
    with pytest.warns(MagnetWarning, match="513 tokens"):
        found = music.text.encode([words(TRAINED_TOKENS + 1)])
    assert found.lengths == [TRAINED_TOKENS + 1]
    assert found.states.isfinite().all()


def test_the_longest_possible_prompt_only_warns(music: Golden) -> None:
    with pytest.warns(MagnetWarning, match=f"{MOST_TOKENS} tokens"):
        assert len(music.text.tokenize(words(MOST_TOKENS))) == MOST_TOKENS


def test_a_prompt_beyond_what_is_possible_is_an_error(music: Golden) -> None:
    with pytest.raises(UsageError, match=f"{MOST_TOKENS + 1} tokens"):
        music.text.encode([words(MOST_TOKENS + 1)])


# -- other members of the family --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
def test_long_texts_and_gated_layers_equal_those_of_transformers(tmp_path: Path, kind: str) -> None:
    config = T5Config(
        vocab_size=187, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=4, dropout_rate=0.0, feed_forward_proj=kind
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = T5EncoderModel(config).eval()
    reference.save_pretrained(tmp_path)
    shutil.copy(TEXT / "tokenizer.json", tmp_path)
    encoder = load(tmp_path)
    ids = torch.arange(300).view(1, -1) % 187  # beyond the largest distance that has a bias of its own, 128
    with torch.inference_mode():
        # Float32 sums in another order, on states of size 1.
        torch.testing.assert_close(encoder.model(ids), reference(input_ids=ids).last_hidden_state, rtol=0, atol=1e-5)


def test_the_text_encoder_does_without_transformers() -> None:
    script = f"""
import sys
from pathlib import Path
from magnet_cli.model.text_encoder import TextEncoder
TextEncoder.load(Path({str(TEXT)!r}), "cpu").encode(["slow piano"])
print("transformers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
