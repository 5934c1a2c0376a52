"""Training a codec: what it loses by, how it may begin, that it learns, goes on, and keeps its codes when told to."""

from __future__ import annotations

import csv
import os
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from magnet_cli.checkpoints.parts import build_codec
from magnet_cli.errors import UsageError
from magnet_cli.model.codec import Codec
from magnet_cli.train.codec import TrainableCodec, codec_config
from magnet_cli.train.codec_folder import codec_weights, read_codec_folder
from magnet_cli.train.losses import Balancer, MelLoss, discriminator, discriminator_loss, generator_losses, mel_bank
from magnet_cli.train.mdct_init import begin_as_transform, check_room, fit, mdct
from magnet_cli.train.options import CodecShape
from support.command import Magnet, one_line_error

CPU = torch.device("cpu")
RATE = 8000
SHAPE = CodecShape(sample_rate=RATE, ratios=(8, 5, 2), filters=4, dimension=12, lstm=1, codebooks=2, codes=8)
OPTIONS = shlex.split(
    "--sample-rate 8000 --ratios 8,5,2 --filters 4 --dimension 12 --lstm 1 --codebooks 2 --codes 8 --batch-size 4 "
    "--seconds 0.3 --log-every 1 --sample-every 0 --cpu -q --discriminator-filters 2 --discriminator-windows 256,64"
)


def tones(count: int, seconds: float) -> torch.Tensor:
    """Notes of a few pitches, [B, 1, L]."""
    time = np.arange(int(RATE * seconds)) / RATE
    random = np.random.default_rng(0)
    waves = [0.3 * np.sin(2 * np.pi * random.choice([110, 220, 330]) * time) * np.exp(-3 * time) for _ in range(count)]
    return torch.from_numpy(np.stack(waves)[:, None]).float()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for index, wave in enumerate(tones(6, 1.0)):
        soundfile.write(folder / f"{index}.wav", wave[0].numpy(), RATE)
    return folder


def column(run: Path, name: str) -> list[float]:
    with (run / "log.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)]


# -- losses -----------------------------------------------------------------------------------------------------------


def test_mel_filters_cover_the_band_between_their_ends() -> None:
    bank = mel_bank(1024, 16_000)
    frequencies = torch.linspace(0, 8000, 513)
    inside = (frequencies > 200) & (frequencies < 7500)  # where the last filter begins to fall
    # Neighbouring triangles add up to one wherever two of them meet.
    assert torch.allclose(bank.sum(1)[inside], torch.ones(int(inside.sum())), atol=1e-4)
    assert (bank.sum(0) > 0).all()


def test_the_mel_loss_is_nothing_for_the_same_and_grows_with_the_difference() -> None:
    loss, wave = MelLoss(RATE), tones(2, 0.5)
    quiet, noisy = wave + 0.001 * torch.randn_like(wave), wave + 0.1 * torch.randn_like(wave)
    assert float(loss(wave, wave)) == 0
    assert 0 < float(loss(quiet, wave)) < float(loss(noisy, wave))


def test_the_balancer_gives_every_loss_its_share_whatever_its_scale() -> None:
    output = torch.randn(3, 1, 50, requires_grad=True)
    balancer = Balancer({"a": 1.0, "b": 3.0}, lambda value: value)
    losses = {"a": 1e4 * (output * torch.ones(50)).sum(), "b": 1e-4 * (output * torch.arange(50.0)).sum()}
    gradient = balancer.gradient(losses, output)
    along = [torch.ones(50) / torch.ones(50).norm(), torch.arange(50.0) / torch.arange(50.0).norm()]
    wanted = 0.25 * along[0] + 0.75 * along[1]
    assert torch.allclose(gradient, wanted.expand_as(gradient), atol=1e-5)


def test_the_adversary_is_hinged_and_the_codec_is_drawn_towards_it() -> None:
    torch.manual_seed(0)
    network = discriminator(2, (128, 64), channels=1)
    real, made = tones(2, 0.1), torch.randn(2, 1, 800, requires_grad=True)
    logits, features = network(torch.cat([real, made]))
    wanted = torch.stack(
        [torch.relu(1 - logit[:2]).mean() + torch.relu(1 + logit[2:]).mean() for logit in logits]
    ).mean()
    assert torch.allclose(discriminator_loss(network, made, real), wanted, atol=1e-6)
    adversarial, feature = generator_losses(network, made, real)
    assert adversarial > 0
    assert feature > 0
    assert torch.autograd.grad(adversarial + feature, made)[0].abs().sum() > 0
    assert float(generator_losses(network, real, real)[1].detach()) == 0
    assert len(features) == 2


# -- beginning as a transform -----------------------------------------------------------------------------------------


def test_the_mdct_rebuilds_what_it_takes_apart() -> None:
    basis = mdct(16)
    frames = torch.randn(10, 16)
    wave = torch.zeros(11 * 16)
    for index, frame in enumerate(frames):
        wave[16 * index : 16 * index + 32] += basis @ frame
    again = wave.unfold(0, 32, 16) @ basis
    assert torch.allclose(again[1:-1], frames[1:-1], atol=1e-5)  # the ends lack a neighbour


def test_a_codec_that_begins_as_a_transform_is_that_transform() -> None:
    torch.manual_seed(0)
    waves = tones(40, 1.0)
    codec = Codec(codec_config(SHAPE))
    begin_as_transform(codec, waves, torch.Generator().manual_seed(0))
    transform, _ = fit(waves, codec.config)
    with torch.no_grad():
        found = codec.encoder(waves[:4])
        padded = torch.nn.functional.pad(waves[:4, 0], (40, 40))
        wanted = (padded.unfold(-1, 160, 80) @ transform.analysis).transpose(1, 2)
        # ELU bends a waveform of 0.3 * 0.05 by less than 1 %.
        assert float((found - wanted).norm() / wanted.norm()) < 0.01
        rebuilt = codec.decoder(wanted)
        straight = torch.zeros(4, 80 * 101)
        for index in range(100):
            straight[:, 80 * index : 80 * index + 160] += wanted[:, :, index] @ transform.synthesis.T
        assert (
            float((rebuilt[:, 0] - straight[:, 40:8040]).norm() / straight.norm()) < 1e-3
        )  # blocks are quiet, not off
        coded = codec.decode(codec.encode(waves[:4]))
    assert float((coded - waves[:4]).norm() / waves[:4].norm()) < 0.5  # 8 codes, twice, for three kinds of note


def test_weight_normalization_keeps_the_codec_as_it_was() -> None:
    codec = Codec(codec_config(SHAPE))
    begin_as_transform(codec, tones(40, 1.0), torch.Generator().manual_seed(0))
    before = {name: weight.clone() for name, weight in codec.state_dict().items()}
    after = codec_weights(TrainableCodec(codec, decoder_only=False).codec)
    assert after.keys() == before.keys()
    assert all(torch.allclose(weight, before[name], rtol=1e-5) for name, weight in after.items())


@pytest.mark.parametrize("change", [{"filters": 2}, {"dimension": 17}, {"channels": 2}])
def test_a_codec_too_small_for_a_transform_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="cannot begin as a transform"):
        check_room(codec_config(replace(SHAPE, **change)))


# -- whole trainings --------------------------------------------------------------------------------------------------


def test_a_codec_learns_and_goes_on(magnet: Magnet, data: Path, tmp_path: Path) -> None:
    output, run = tmp_path / "codec", tmp_path / "codec.run"
    arguments = ["train", "codec", str(data), "-o", str(output), *OPTIONS, "--steps", "60", "--save-every", "30"]
    arguments += ["--learning-rate", "3e-3", "--adversarial-from", "50", "--adversarial-every", "2"]
    result = magnet(*arguments)
    assert result.code == 0, result.err
    assert result.out == f"{output}\n"
    mel = column(run, "mel")
    assert np.mean(mel[-10:]) < 0.75 * np.mean(mel[:3])
    with (run / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [bool(row.get("adversarial")) for row in rows[48:54]] == [False, False, True, False, True, False]

    codec = build_codec(read_codec_folder(output), CPU)
    assert codec.decode(codec.encode(tones(1, 0.5))).shape == (1, 1, 4000)
    again = magnet(*arguments)
    assert again.code == 0
    assert column(run, "mel") == mel  # all steps were done


def test_a_saved_state_gives_the_same_next_steps(magnet: Magnet, data: Path, tmp_path: Path) -> None:
    for name in ("straight", "halved"):
        steps = [*OPTIONS, "--steps", "8", "--save-every", "4", "--adversarial-from", "2"]
        if name == "halved":  # the state of step 4 instead of that of step 8
            part = [*OPTIONS, "--steps", "8", "--save-every", "4", "--adversarial-from", "2"]
            _stop_after(4, magnet, ["train", "codec", str(data), "-o", str(tmp_path / name), *part])
        assert magnet("train", "codec", str(data), "-o", str(tmp_path / name), *steps).code == 0
    first, second = (column(tmp_path / f"{name}.run", "loss") for name in ("straight", "halved"))
    assert first == second


def _stop_after(step: int, magnet: Magnet, arguments: list[str]) -> None:
    from magnet_cli.train import codec as module

    class Stopped(module.CodecTrainer):
        def step(self, number: int, rate: float) -> dict[str, float]:
            if number == step:
                raise KeyboardInterrupt
            return super().step(number, rate)

    before = module.CodecTrainer
    module.CodecTrainer = Stopped  # type: ignore[misc]
    try:
        assert magnet(*arguments).code == 130
    finally:
        module.CodecTrainer = before  # type: ignore[misc]


def test_a_codec_in_use_keeps_its_codes(magnet: Magnet, data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    base = ["train", "codec", str(data), *OPTIONS, "--adversarial-from", "99"]
    assert magnet(*base, "-o", str(first), "--steps", "0", "--begin", "transform").code == 0
    options = ["--steps", "20", "--decoder-only", "--from", str(first), "--learning-rate", "1e-3"]
    assert magnet(*base, "-o", str(second), *options).code == 0
    before, after = (read_codec_folder(folder).weights for folder in (first, second))
    changed = {name.split(".")[0] for name in before if not torch.allclose(before[name], after[name], rtol=1e-5)}
    assert changed == {"decoder"}


def test_too_little_audio_for_its_codebooks(magnet: Magnet, data: Path, tmp_path: Path) -> None:
    arguments = [*OPTIONS, "--steps", "1", "--begin", "transform", "--codes", "2048"]
    result = magnet("train", "codec", str(data), "-o", str(tmp_path / "c"), *arguments)
    one_line_error(result, 2, "too few for 2048 codes")


# -- what is there already --------------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def work(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with its data and somebody's thesis, and the working directory in it."""
    project = tmp_path / "project"
    shutil.copytree(data, project / "data")
    (project / "thesis" / "chapters").mkdir(parents=True)
    (project / "thesis" / "chapters" / "draft.tex").write_text("years of work")
    (project / "link").symlink_to("thesis")
    (project / "here").mkdir()
    monkeypatch.chdir(project / "here")
    return project


@pytest.mark.parametrize(
    "output", ["../data", "..", ".", "../../project", "../thesis", "../thesis/chapters", "../data/model", "../link"]
)
@pytest.mark.parametrize("kind", ["codec", "decoder"])
def test_training_replaces_no_folder_of_somebodys(magnet: Magnet, work: Path, kind: str, output: str) -> None:
    before = content(work)
    options = ("--from", "../nowhere", "--steps", "1", "--cpu", "-q")  # which would be missed if anything were loaded
    one_line_error(magnet("train", kind, "../data", "-o", output, *options), 7)
    one_line_error(magnet("train", kind, "../data", "-o", output, *options, "--restart"), 7)
    assert content(work) == before


def test_a_training_replaces_the_output_of_an_earlier_one_alone(magnet: Magnet, work: Path) -> None:
    command = ["train", "codec", "../data", *OPTIONS, "--steps", "1", "--adversarial-from", "99"]
    assert magnet(*command, "-o", "first").code == 0
    assert magnet(*command, "-o", "first", "--restart", "--seed", "5").code == 0

    Path("first/notes.txt").write_text("mine")
    before = content(Path("first"))
    one_line_error(magnet(*command, "-o", "first", "--restart"), 7, "first holds notes.txt", "Move notes.txt elsewhere")
    assert content(Path("first")) == before
    Path("first/notes.txt").unlink()
    Path("first.run/notes.txt").write_text("mine")  # nothing there is ever removed
    assert magnet(*command, "-o", "first", "--restart").code == 0
    assert Path("first.run/notes.txt").read_text() == "mine"

    # A codec that came from elsewhere, with no run beside it, is somebody's.
    Path("first").rename("second")
    before = content(Path("second"))
    for options in ((), ("--restart",)):
        one_line_error(magnet(*command, "-o", "second", *options), 7, "there is no second.run beside it")
    # Nor is a codec trained over itself.
    one_line_error(magnet(*command, "-o", "second", "--from", "second", "--restart"), 7)
    Path("first.run").rename("second.run")
    one_line_error(magnet(*command, "-o", "second", "--from", "second", "--restart"), 7, "second is second")
    assert content(Path("second")) == before
    one_line_error(
        magnet("train", "decoder", "../data", "-o", "second", "--codec", "x", "--restart"), 7, "not a bundle"
    )


def test_what_is_beside_the_output_is_not_overwritten(magnet: Magnet, work: Path) -> None:
    command = ["train", "codec", "../data", *OPTIONS, "--steps", "1", "--adversarial-from", "99", "--restart"]
    for name in ("state.pt", "log.csv", "settings.json", "samples/take.wav"):
        path = Path("model.run") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"mine": true}')
        one_line_error(magnet(*command, "-o", "model"), 7, f"it holds {name}")
        assert path.read_text() == '{"mine": true}'
        path.unlink()
    Path("diary.txt").write_text("mine")
    assert magnet(*command, "-o", "model").code == 0
    Path("model.run/log.csv").unlink()
    Path("model.run/log.csv").symlink_to("../diary.txt")
    one_line_error(magnet(*command, "-o", "model"), 7, "model.run holds log.csv")
    Path("model.run/log.csv").unlink()
    Path("model.run").rename("elsewhere")
    Path("model.run").symlink_to("elsewhere")
    one_line_error(magnet(*command, "-o", "model"), 7, "model.run", "not a folder")
    assert Path("diary.txt").read_text() == "mine"


def test_a_training_that_was_killed_before_it_published_publishes(magnet: Magnet, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "codec"
    command = ["train", "codec", str(data), "-o", str(output), *OPTIONS, "--steps", "2", "--adversarial-from", "99"]
    assert magnet(*command).code == 0
    weights = (output / "codec.safetensors").read_bytes()

    (output / "codec.safetensors").write_bytes(b"older")  # of the state before
    os.utime(output / "config.json", ns=(0, 0))
    assert magnet(*command).code == 0
    assert (output / "codec.safetensors").read_bytes() == weights

    shutil.rmtree(output)
    assert magnet(*command).code == 0
    assert (output / "codec.safetensors").read_bytes() == weights
    published = output.stat().st_ino
    assert magnet(*command).code == 0
    assert output.stat().st_ino == published  # once is enough
