"""A codec that begins phase-free: its codes ignore phases, its decoder is a synthesizer, its encoder imitates."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from magnet_cli.checkpoints.parts import build_codec
from magnet_cli.errors import UsageError
from magnet_cli.model.codec import Codec
from magnet_cli.train.codec import TrainableCodec, codec_config
from magnet_cli.train.codec_folder import read_analysis, read_codec_folder
from magnet_cli.train.options import CodecShape
from magnet_cli.train.phase_free_init import begin_phase_free, check_room
from magnet_cli.train.tones import CYCLE, Analysis, Tones
from support.command import Magnet, one_line_error

CPU = torch.device("cpu")
RATE, HOP = 8000, 320
SHAPE = CodecShape(sample_rate=RATE, ratios=(8, 8, 5), filters=36, dimension=32, lstm=2, codebooks=3, codes=32)
NOTES = (110.0, 220.0, 277.18, 440.0, 659.26)


def sine(frequency: float, seconds: float, phase: float = 0.0, amplitude: float = 0.3) -> Tensor:
    """[1, 1, L]."""
    time = torch.arange(int(RATE * seconds), dtype=torch.float64) / RATE
    return (amplitude * torch.sin(2 * math.pi * frequency * time + phase)).float()[None, None]


@pytest.fixture(scope="module")
def codec_and_analysis() -> tuple[Codec, Analysis]:
    random = np.random.default_rng(0)
    clips = [sine(note, 1.6, random.uniform(0, 6), level) for note in NOTES for level in (0.02, 0.1, 0.3)]
    clips += [torch.zeros(1, 1, int(1.6 * RATE)), 0.1 * torch.randn(1, 1, int(1.6 * RATE))]
    torch.manual_seed(0)
    codec = Codec(codec_config(SHAPE)).eval()
    return codec, begin_phase_free(codec, torch.cat(clips), torch.Generator().manual_seed(0))


def test_a_sinusoid_is_one_tone_with_its_amplitude() -> None:
    tones = Tones(RATE, HOP)
    for frequency in NOTES:
        loudness = tones.loudness(sine(frequency, 1.6)[:, 0])[0, 10:30]  # away from the ends
        loudest = loudness.mean(0).argmax()
        assert abs(math.log2(float(tones.frequencies[loudest]) / frequency)) < 1 / 24  # the nearest semitone
        assert 10 ** loudness[:, loudest].mean() == pytest.approx(0.3, rel=0.15)


def test_the_codes_of_a_steady_sound_repeat_whatever_its_phase(codec_and_analysis: tuple[Codec, Analysis]) -> None:
    codec, analysis = codec_and_analysis
    for frequency in NOTES:
        codes = torch.cat([analysis.encode(codec, sine(frequency, 1.6, phase)) for phase in (0.0, 1.0, 2.5)])
        first = codes[:, 0, 5:-5]
        assert len(first.unique()) <= 2


def test_the_decoder_begins_as_a_synthesizer_that_plays_the_note(codec_and_analysis: tuple[Codec, Analysis]) -> None:
    codec, analysis = codec_and_analysis
    for frequency in NOTES:
        played = codec.decode(analysis.encode(codec, sine(frequency, 4.0)))[0, 0, RATE:-RATE]
        power = torch.fft.rfft(played * torch.hann_window(len(played))).abs().square()
        hertz = torch.fft.rfftfreq(len(played), 1 / RATE)
        # Frequencies are multiples of the frame rate over CYCLE.
        assert abs(float(hertz[power.argmax()]) - frequency) < RATE / HOP / CYCLE + 0.5
        near = (hertz - frequency).abs() < 0.06 * frequency + 3
        assert power[near].sum() > 0.8 * power.sum()
        # A network of convolutions alone would repeat the frame's waveform, whose partials are multiples of 25 Hz.
        assert played.std() == pytest.approx(0.3 / math.sqrt(2), rel=0.35)


def test_silence_stays_silent(codec_and_analysis: tuple[Codec, Analysis]) -> None:
    codec, analysis = codec_and_analysis
    played = codec.decode(analysis.encode(codec, torch.zeros(1, 1, 4 * RATE)))
    assert played.abs().max() < 0.003


def test_the_encoder_begins_near_the_analysis(codec_and_analysis: tuple[Codec, Analysis]) -> None:
    codec, analysis = codec_and_analysis
    heard = torch.cat([sine(note, 1.6, 1.0, 0.2) for note in NOTES])
    with torch.no_grad():
        wanted, imitated = analysis(heard), codec.encoder(heard)[..., : heard.shape[-1] // HOP]
    assert float((imitated - wanted).square().mean() / wanted.var()) < 0.5


def test_training_moves_the_encoder_to_the_analysis_and_leaves_the_codes(
    codec_and_analysis: tuple[Codec, Analysis],
) -> None:
    codec, analysis = codec_and_analysis
    network = TrainableCodec(codec, decoder_only=False, analysis=analysis)
    before = analysis.encode(codec, sine(220, 1.0)).clone()
    output, far = network(sine(220, 1.0))
    assert output.shape == (1, 1, RATE)
    assert far.requires_grad
    shares = {group["share"] for group in network.groups()}
    assert len(shares) == 2
    assert min(shares) < 0.1
    far.backward()
    assert all(weight.grad is not None for weight in codec.encoder.parameters())
    assert torch.equal(before, analysis.encode(codec, sine(220, 1.0)))


@pytest.mark.parametrize(("filters", "dimension", "lstm"), [(8, 32, 2), (64, 128, 2), (36, 32, 1)])
def test_a_shape_without_room_is_refused(filters: int, dimension: int, lstm: int) -> None:
    # Too few channels, more components than tones, and no second layer to multiply phases by loudness.
    shape = CodecShape(
        sample_rate=RATE, ratios=(8, 8, 5), filters=filters, dimension=dimension, lstm=lstm, codebooks=3, codes=32
    )
    with pytest.raises(UsageError, match="cannot begin phase-free") as caught:
        check_room(codec_config(shape))
    assert "--filters" in str(caught.value.lines)


OPTIONS = shlex.split(
    "--sample-rate 8000 --ratios 8,8,5 --filters 36 --dimension 32 --lstm 2 --codebooks 3 --codes 16 --batch-size 2 "
    "--seconds 0.6 --log-every 1 --sample-every 0 --cpu -q --discriminator-filters 2 --discriminator-windows 256,64"
)


def test_the_command_writes_the_analysis_and_a_decoder_trains_on_its_codes(magnet: Magnet, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for index, note in enumerate(NOTES):
        soundfile.write(data / f"{index}.wav", sine(note, 2.0)[0, 0].numpy(), RATE)
        (data / f"{index}.txt").write_text(f"a note of {note:.0f} hertz")
    train = ("train", "codec", str(data), "-o", "codec", "--begin", "phase-free", "--steps", "2", *OPTIONS)
    result = magnet(*train)
    assert result.code == 0, result.err
    assert magnet(*train).code == 0  # already finished
    checkpoint = read_codec_folder(Path("codec"))
    analysis = read_analysis(checkpoint)
    assert analysis is not None
    options = shlex.split(
        "--text-encoder own --text-width 16 --text-heads 2 --text-layers 1 --vocabulary 300 --width 16 --heads 2 "
        "--layers 1 --feed-forward 16 --clip-seconds 2 --steps 1 --batch-size 2 --sample-every 0 --cpu"
    )
    result = magnet("train", "decoder", str(data), "-o", "model", "--codec", "codec", *options)
    assert result.code == 0, result.err
    assert "with all hidden" in result.err
    from safetensors.torch import load_file

    (tokens,) = Path("model.run/tokens").glob("*.safetensors")
    codec = build_codec(checkpoint, CPU)
    heard, _ = soundfile.read(data / "0.wav", dtype="float32")
    wanted = analysis.encode(codec, torch.from_numpy(heard)[None, None])
    assert any(torch.equal(wanted[0].short(), codes) for codes in load_file(tokens)["codes"])


def test_damage_is_named(magnet: Magnet, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    soundfile.write(data / "0.wav", sine(220, 2.0)[0, 0].numpy(), RATE)
    train = ("train", "codec", str(data), "-o", "codec", "--begin", "phase-free", "--steps", "0", *OPTIONS)
    result = magnet(*(one if one != "16" else "8" for one in train))
    assert result.code == 0, result.err
    (Path("codec") / "analysis.safetensors").write_bytes(b"nothing")
    result = magnet("train", "codec", str(data), "-o", "other", "--from", "codec", "--steps", "0", "--cpu", "-q")
    one_line_error(result, 3, "analysis.safetensors")
