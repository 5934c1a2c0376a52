"""Models in the released format: what is exported reads back the same, and says what the reference reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from magnet_cli.checkpoints.bundle import Model
from magnet_cli.checkpoints.export import released_codec
from magnet_cli.checkpoints.open import open_model
from magnet_cli.checkpoints.parts import CodecPointer, build_codec, build_decoder
from magnet_cli.checkpoints.released import read_codec, read_decoder
from magnet_cli.checkpoints.released_yaml import Settings
from magnet_cli.decoding.masked import decode
from magnet_cli.errors import MagnetWarning
from magnet_cli.model.weights import read_package
from support.command import Magnet, one_line_error
from support.golden import Golden

CPU = torch.device("cpu")


def opened(folder: Path) -> Model:
    return open_model(str(folder))


def test_an_exported_model_gives_the_same_codes_and_audio(magnet: Magnet, golden: Golden, tmp_path: Path) -> None:
    bundle, target = tmp_path / "bundle", tmp_path / "released"
    assert magnet("models", "convert", str(golden.folder), str(bundle), "-q").code == 0
    result = magnet("models", "export", str(bundle), str(target), "-q")
    assert result.code == 0, result.err
    assert result.out == f"{target}\n"

    original, codec = read_decoder(golden.folder), read_codec(target)
    exported = read_decoder(target)
    assert exported.config == original.config
    assert (exported.task, exported.text) == (original.task, original.text)
    assert exported.weights.keys() == original.weights.keys()
    assert all(torch.equal(weight, original.weights[name]) for name, weight in exported.weights.items())
    assert not isinstance(codec, CodecPointer)

    memory = golden.memory(golden.prompts[0])
    codes = decode(build_decoder(exported, CPU, torch.float32), memory, [0], golden.cases[0], frames=golden.frames)
    assert torch.equal(codes, golden.arrays["c0_p0_tokens"])
    found = build_codec(codec, CPU).decode(codes)
    wanted = golden.codec.decode(codes)
    # A direction times its length over its norm: float32's last digits.
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5


def test_tensors_have_their_released_names(golden: Golden, magnet: Magnet, tmp_path: Path) -> None:
    target = tmp_path / "released"
    assert magnet("models", "export", str(golden.folder), str(target), "-q").code == 0
    for name in ("state_dict.bin", "compression_state_dict.bin"):
        found, wanted = (read_package(folder / name)["best_state"] for folder in (target, golden.folder))
        assert {key: one.shape for key, one in found.items()} == {key: one.shape for key, one in wanted.items()}


def test_the_configuration_says_what_the_released_one_does(golden: Golden, magnet: Magnet, tmp_path: Path) -> None:
    target = tmp_path / "released"
    assert magnet("models", "export", str(golden.folder), str(target), "-q").code == 0
    for name, sections in (
        ("state_dict.bin", ("transformer_lm", "fuser", "conditioners", "masking", "interleave_stereo_codebooks")),
        ("compression_state_dict.bin", ("seanet", "rvq", "encodec")),
    ):
        ours, theirs = (
            Settings.parse(read_package(folder / name)["xp.cfg"], folder / name) for folder in (target, golden.folder)
        )
        for section in sections:
            for key in theirs.tree[section]:
                # The golden files are the reference's own full configuration; references in it are resolved.
                assert ours.value(f"{section}.{key}") == theirs.value(f"{section}.{key}"), f"{section}.{key}"


def test_a_weight_of_nothing_stays_nothing() -> None:
    weights = released_codec({"x.conv.weight": torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]]])})
    folded = torch._weight_norm(weights["x.conv.weight_v"], weights["x.conv.weight_g"], 0)
    assert torch.equal(folded, torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]]]))


def test_a_text_encoder_that_the_reference_does_not_know(golden: Golden, tmp_path: Path) -> None:
    from dataclasses import replace

    from magnet_cli.checkpoints.export import export
    from magnet_cli.model.config import TextConfig

    model = opened(golden.folder)
    other = replace(model, decoder=replace(model.decoder, text=TextConfig("own")))
    with pytest.warns(MagnetWarning, match="not one that audiocraft knows"):
        export(other, tmp_path / "released")
    assert opened(tmp_path / "released").text_folder == tmp_path / "released" / "text_encoder"


def test_nothing_is_overwritten_unasked(golden: Golden, magnet: Magnet, tmp_path: Path) -> None:
    target = tmp_path / "there"
    target.mkdir()
    one_line_error(magnet("models", "export", str(golden.folder), str(target), "-q"), 7, "already exists")
