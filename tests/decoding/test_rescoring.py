"""Rescoring: probabilities against transformers frame by frame; what the weight does; which models go together."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, MusicgenForConditionalGeneration

from magnet_cli.checkpoints.musicgen import read_musicgen
from magnet_cli.checkpoints.parts import CodecCheckpoint
from magnet_cli.checkpoints.released import read_codec, read_decoder
from magnet_cli.decoding.masked import Known, Rescorer, Step, decode
from magnet_cli.decoding.musicgen import MusicGen
from magnet_cli.decoding.rescoring import MagnetRescorer, MusicGenRescorer
from magnet_cli.engines.cpu import FastTransformer
from magnet_cli.errors import MagnetWarning, NumericsError, UsageError
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig
from magnet_cli.pipeline.compatibility import Vocabulary, check_compatible
from support.golden import GOLDEN, Golden
from support.tiny_musicgen import CODES, PAD, change_settings, write_musicgen

CPU = torch.device("cpu")
PROMPTS = ["a", "80s electronic track with melodic synthesizers, catchy beat and groovy bass"]
SEEDS = [3, 4]
# The same float32 network, on all columns at once or on one more each time: sums in another order. Of probabilities
# below 1, or of their logarithms.
TOLERANCE = 1e-5
LOG_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("musicgen")
    write_musicgen(folder)
    return folder


@pytest.fixture(scope="module")
def reference(folder: Path) -> MusicgenForConditionalGeneration:
    return MusicgenForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def musicgen(folder: Path) -> MusicGen:
    return MusicGen.load(folder, CPU, torch.float32)


@pytest.fixture(scope="module")
def rescorer(musicgen: MusicGen) -> MusicGenRescorer:
    return MusicGenRescorer(musicgen, musicgen.condition(PROMPTS))


def random_codes(frames: int, seed: int = 0) -> Tensor:
    return torch.randint(CODES, (2, 4, frames), generator=torch.Generator().manual_seed(seed))


class Recorder:
    """A rescorer that keeps what it is shown."""

    def __init__(self, probability: float = 0.5) -> None:
        self.calls: list[tuple[Tensor, Tensor, int]] = []
        self.probability = probability

    def __call__(self, codes: Tensor, proposed: Tensor, codebook: int) -> Tensor:
        self.calls.append((codes.clone(), proposed.clone(), codebook))
        return torch.full(proposed.shape, self.probability)

    def check_finite(self) -> None:
        """It computes nothing."""


class Forbidden(Recorder):
    """A rescorer that nobody should ask."""

    def __call__(self, codes: Tensor, proposed: Tensor, codebook: int) -> Tensor:
        raise AssertionError("nobody should ask")


def run(
    music: Golden,
    rescorer: Rescorer | None,
    weight: float,
    *,
    known: Known | None = None,
    steps: list[Step] | None = None,
    sampling: SamplingConfig | None = None,
) -> Tensor:
    sampling = replace(sampling or SamplingConfig(steps=(6, 3, 3, 3)), rescore_weight=weight)
    memory = music.memory(*PROMPTS)
    keep = None if steps is None else lambda step: steps.append(replace(step, codes=step.codes.clone()))
    return decode(music.decoder, memory, SEEDS, sampling, frames=60, known=known, on_step=keep, rescorer=rescorer)


# -- MusicGen's probabilities -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("above", ["masked", "known"])
@pytest.mark.parametrize("codebook", range(4))
def test_probabilities_equal_those_of_transformers(
    folder: Path, reference: MusicgenForConditionalGeneration, rescorer: MusicGenRescorer, codebook: int, above: str
) -> None:
    """transformers runs once for every frame, on nothing but what comes before it."""
    frames = 7
    tokenizer = AutoTokenizer.from_pretrained(folder, pad_token="<pad>")
    text = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    final = random_codes(frames)
    if above == "masked":
        final[:, codebook + 1 :] = PAD
    start = torch.full((2, 4, 1), PAD)
    _, columns = reference.decoder.build_delay_pattern_mask(
        torch.cat([start, final], dim=-1).flatten(0, 1), pad_token_id=PAD, max_length=frames + 4
    )
    wanted = torch.zeros(2, frames)  # logarithms
    with torch.inference_mode():
        for frame in range(frames):
            before = columns[:, : frame + codebook + 1]
            assert torch.equal(columns.view(2, 4, -1)[:, codebook, before.shape[1]], final[:, codebook, frame])
            logits = reference(**text, decoder_input_ids=before).logits[:, -1].view(2, 4, CODES)
            probs = logits[:, codebook].log_softmax(dim=-1)
            wanted[:, frame] = probs.gather(1, final[:, codebook, frame : frame + 1])[:, 0]

    seen = final.clone()
    seen[:, codebook, ::2] = PAD  # what MAGNeT saw when it proposed
    found = rescorer(seen, final[:, codebook], codebook).log()
    assert (found - wanted).abs().max() < LOG_TOLERANCE
    # Off by a frame, or with another text, it would be quite another probability.
    assert (found[:, 1:] - wanted[:, :-1]).abs().max() > 0.5
    assert (rescorer(seen.flip(0), final[:, codebook].flip(0), codebook).flip(0).log() - wanted).abs().max() > 0.5
    assert torch.equal(seen[:, codebook, 1::2], final[:, codebook, 1::2])  # left as it was


def test_what_comes_later_does_not_matter(rescorer: MusicGenRescorer) -> None:
    codes = random_codes(9)
    other = codes.clone()
    other[..., 5:] = random_codes(9, seed=1)[..., 5:]
    for codebook in range(4):
        early = [rescorer(one, one[:, codebook], codebook)[:, : 5 - codebook] for one in (codes, other)]
        # The lower codebooks are up to three frames ahead. Equal inputs give equal outputs but for kernels that look at
        # several columns together.
        assert (early[0] - early[1]).abs().max() < TOLERANCE


def test_the_most_probable_codes_are_what_it_would_generate(musicgen: MusicGen, rescorer: MusicGenRescorer) -> None:
    codes = musicgen.generate(PROMPTS, SEEDS, 12, sampling=MusicGenSampling(greedy=True, guidance=1.0))
    others = random_codes(12)
    for codebook in range(4):
        best = rescorer(codes, codes[:, codebook], codebook)
        for frame in range(12):
            changed = codes[:, codebook].clone()
            changed[:, frame] = others[:, codebook, frame]
            assert (rescorer(codes, changed, codebook)[:, frame] <= best[:, frame] + TOLERANCE).all()


def test_an_item_alone_is_scored_as_in_a_batch(musicgen: MusicGen, rescorer: MusicGenRescorer) -> None:
    codes = random_codes(20)
    together = rescorer(codes, codes[:, 2], 2)
    for row, prompt in enumerate(PROMPTS):
        alone = MusicGenRescorer(musicgen, musicgen.condition([prompt]))
        one = slice(row, row + 1)
        assert (alone(codes[one], codes[one, 2], 2) - together[one]).abs().max() < TOLERANCE


def test_a_probability_that_is_not_finite_is_an_error(folder: Path) -> None:
    model = MusicGen.load(folder, CPU, torch.float32)
    head = torch.full_like(model.decoder.lm_heads[1].weight, torch.nan)
    model.decoder.lm_heads[1].weight = torch.nn.Parameter(head, requires_grad=False)
    codes = random_codes(6)
    with pytest.raises(NumericsError, match="not finite"):
        MusicGenRescorer(model, model.condition(PROMPTS))(codes, codes[:, 1], 1)


# -- another MAGNeT's -------------------------------------------------------------------------------------------------


def test_a_magnet_gives_the_probability_that_it_would_draw_with(golden: Golden) -> None:
    memory = golden.memory(*golden.prompts[:2])
    codes = random_codes(30)
    codes[:, 1, 4:20] = codes[:, 2:] = golden.decoder.config.mask_code
    proposed = random_codes(30, seed=1)[:, 1]
    found = MagnetRescorer(golden.decoder, memory)(codes, proposed, 1)
    fast = MagnetRescorer(FastTransformer(golden.decoder), memory)(codes, proposed, 1)
    assert torch.allclose(fast, found, atol=1e-5)  # sums in another order
    with torch.inference_mode():
        probs = golden.decoder(codes, 1, memory).softmax(dim=-1)
    assert torch.equal(found, probs.gather(-1, proposed.unsqueeze(-1)).squeeze(-1))
    # It judges what it does not see: another proposal at one frame changes no other probability.
    changed = proposed.clone()
    changed[:, 6] = (changed[:, 6] + 1) % CODES
    again = MagnetRescorer(golden.decoder, memory)(codes, changed, 1)
    assert torch.equal(torch.cat([again[:, :6], again[:, 7:]], 1), torch.cat([found[:, :6], found[:, 7:]], 1))


# -- what the weight does ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spans", ["nonoverlap", "stride1"])
def test_a_weight_of_one_is_no_rescoring(music: Golden, spans: str) -> None:
    sampling = SamplingConfig(steps=(6, 3, 3, 3), spans=spans)  # type: ignore[arg-type]
    wanted = run(music, None, 0.7, sampling=sampling)
    assert torch.equal(run(music, Forbidden(), 1.0, sampling=sampling), wanted)


@pytest.mark.parametrize("spans", ["nonoverlap", "stride1"])
def test_a_rescorer_changes_the_result(music: Golden, rescorer: MusicGenRescorer, spans: str) -> None:
    sampling = SamplingConfig(steps=(6, 3, 3, 3), spans=spans)  # type: ignore[arg-type]
    found = [run(music, one, 0.7, sampling=sampling) for one in (None, rescorer)]
    assert not torch.equal(*found)
    assert torch.equal(run(music, rescorer, 0.7, sampling=sampling), found[1])
    assert found[1].max() < CODES


def test_a_rescorer_that_tells_no_difference_leaves_the_order(music: Golden) -> None:
    """With constants the combination is an increasing function of the own probability. (Exact but for float ties.)"""
    assert torch.equal(run(music, Recorder(0.0), 0.5), run(music, None, 0.5))


def test_what_a_rescorer_is_shown(music: Golden) -> None:
    recorder, steps = Recorder(), []
    run(music, recorder, 0.5, steps=steps)
    # Once a step; after the last step of a codebook nothing is ranked.
    assert [codebook for _, _, codebook in recorder.calls] == [0] * 5 + [1] * 2 + [2] * 2 + [3] * 2
    for codes, proposed, codebook in recorder.calls:
        masked = codes[:, codebook] == PAD
        assert masked.any()
        assert torch.equal(proposed[~masked], codes[:, codebook][~masked])
        assert proposed.max() < CODES
        assert (codes[:, :codebook] < CODES).all()
        assert (codes[:, codebook + 1 :] == PAD).all()
    # The proposals of a step are what it leaves behind.
    ranked = [step for step in steps if step.step + 1 < step.steps]
    for (_, proposed, codebook), step in zip(recorder.calls, ranked, strict=True):
        assert torch.equal(step.codes[:, codebook], proposed)


@pytest.mark.parametrize("score", ["max", "prod"])
def test_a_weight_of_zero_ranks_by_the_rescorer_alone(music: Golden, score: str) -> None:
    """The spans that are masked again are those the rescorer thinks least of, whatever the model itself thinks."""
    calls: list[tuple[Tensor, Tensor]] = []

    class Opinionated(Recorder):
        def __call__(self, codes: Tensor, proposed: Tensor, codebook: int) -> Tensor:
            noise = torch.rand(proposed.shape, generator=torch.Generator().manual_seed(len(calls)))
            calls.append((codes.clone(), noise))
            return noise

    sampling = SamplingConfig(steps=(6, 1, 1, 1), span_score=score)  # type: ignore[arg-type]
    run(music, Opinionated(), 0.0, sampling=sampling)
    for (codes, noise), (later, _) in pairwise(calls):
        masked, again = ((one[:, 0] == PAD).unflatten(-1, (-1, 3)).all(dim=-1) for one in (codes, later))
        grid = noise.unflatten(-1, (-1, 3))
        opinion = grid.amax(dim=-1) if score == "max" else grid.log().sum(dim=-1)
        for row in range(2):
            assert not (again[row] & ~masked[row]).any()
            kept = masked[row] & ~again[row]
            assert kept.any()
            assert again[row].any()
            assert opinion[row][kept].min() > opinion[row][again[row]].max()


def test_the_combination_is_convex(music: Golden) -> None:
    """At the first step the whole codebook is masked; what remains is what has the highest combined probability."""
    weight, memory = 0.25, music.memory(*PROMPTS)
    noise = torch.rand(2, 60, generator=torch.Generator().manual_seed(0)) * 0.05

    class OfNoise(Recorder):
        def __call__(self, codes: Tensor, proposed: Tensor, codebook: int) -> Tensor:
            super().__call__(codes, proposed, codebook)
            return noise

    recorder = OfNoise()

    # One temperature for all steps and no guidance: the model's own probability is easy to tell.
    sampling = SamplingConfig(
        steps=(4, 1, 1, 1), temperature=1.0, anneal=False, guidance=1.0, top_p=None, rescore_weight=weight
    )
    decode(music.decoder, memory, SEEDS, sampling, frames=60, rescorer=recorder)
    codes, proposed, _ = recorder.calls[0]
    with torch.inference_mode():
        probs = music.decoder(codes, 0, memory).softmax(dim=-1)
    own = probs.gather(-1, proposed.unsqueeze(-1)).squeeze(-1)
    best = (weight * own + (1 - weight) * noise).unflatten(-1, (-1, 3)).amax(dim=-1)  # a span by its best code
    again = (recorder.calls[1][0][:, 0] == PAD).unflatten(-1, (-1, 3)).all(dim=-1)
    for row in range(2):
        assert best[row][~again[row]].min() > best[row][again[row]].max()
    for alone in (own, noise):  # neither alone would have kept these
        grid = alone.unflatten(-1, (-1, 3)).amax(dim=-1)
        assert any(grid[row][~again[row]].min() < grid[row][again[row]].max() for row in range(2))


def test_given_codes_stay_and_are_seen(music: Golden, musicgen: MusicGen, rescorer: MusicGenRescorer) -> None:
    """A hybrid: MusicGen writes the beginning, MAGNeT the rest, and MusicGen rescores it."""
    prefix = musicgen.generate(PROMPTS, SEEDS, 20, sampling=MusicGenSampling())
    known = Known.prefix(prefix, 60)
    codes = run(music, rescorer, 0.3, known=known)
    assert torch.equal(codes[..., :20], prefix)
    assert codes.max() < CODES
    recorder = Recorder()
    run(music, recorder, 0.3, known=known)
    assert all(torch.equal(seen[..., :20], prefix) for seen, _, _ in recorder.calls)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_beyond_its_bounds_is_refused(weight: float) -> None:
    with pytest.raises(UsageError, match="rescore weight"):
        SamplingConfig(rescore_weight=weight)


# -- which models go together -----------------------------------------------------------------------------------------


def magnet(kind: str) -> Vocabulary:
    folder = GOLDEN / kind
    codec = read_codec(folder)
    assert isinstance(codec, CodecCheckpoint)
    name = {"music": "magnet-small-10secs", "sound": "audio-magnet-small"}[kind]
    return Vocabulary.of_magnet(name, read_decoder(folder), codec)


def test_models_that_go_together(folder: Path) -> None:
    musicgen = Vocabulary.of_musicgen("musicgen-small", read_musicgen(folder))
    assert musicgen.seconds == 253 / 50
    check_compatible(magnet("music"), musicgen)
    for kind in ("music", "sound"):
        check_compatible(magnet(kind), magnet(kind))


def test_a_sound_model_with_musicgen_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="it has codes of 32000 Hz audio instead of 16000 Hz") as refused:
        check_compatible(magnet("sound"), Vocabulary.of_musicgen("musicgen-small", read_musicgen(folder)))
    assert "musicgen-small does not fit audio-magnet-small" in refused.value.message
    assert "audio-magnet-medium" in refused.value.hint


def test_a_music_model_with_a_sound_model_is_refused() -> None:
    with pytest.raises(UsageError, match="it has codes of 16000 Hz audio instead of 32000 Hz") as refused:
        check_compatible(magnet("music"), magnet("sound"))
    assert "musicgen-small" in refused.value.hint


def test_other_codebooks_are_refused(folder: Path, tmp_path: Path) -> None:
    generator, other = magnet("music"), Vocabulary.of_musicgen("musicgen-small", read_musicgen(folder))
    with pytest.raises(UsageError, match="it has 3 codebooks instead of 4"):
        check_compatible(generator, replace(other, codebooks=3))
    larger = replace(other.codec, config=replace(other.codec.config, codes=128))
    with pytest.raises(UsageError, match="it has codebooks of 128 codes instead of 64"):
        check_compatible(generator, replace(other, codec=larger))
    write_musicgen(tmp_path, own_codebooks=True)
    with pytest.warns(MagnetWarning, match="another codec"):
        check_compatible(generator, Vocabulary.of_musicgen("musicgen-small", read_musicgen(tmp_path)))


def test_clips_longer_than_the_rescorers_are_refused(tmp_path: Path) -> None:
    write_musicgen(tmp_path)
    change_settings(tmp_path, "decoder", max_position_embeddings=64)
    short = Vocabulary.of_musicgen("musicgen-small", read_musicgen(tmp_path))
    with pytest.raises(UsageError, match=r"musicgen-small handles 1\.22 s, but magnet-small-10secs generates 2 s"):
        check_compatible(magnet("music"), short)
    check_compatible(magnet("music"), short, seconds=1.0)
    model = MusicGen.load(tmp_path, CPU, torch.float32)
    codes = random_codes(62)
    with pytest.raises(UsageError, match=r"1\.24 s are more than the 1\.22 s"):
        MusicGenRescorer(model, model.condition(PROMPTS))(codes, codes[:, 0], 0)


def test_a_second_magnet_rescores(golden: Golden) -> None:
    """Here it is the same one; but what it thinks is without temperature and guidance."""
    memory = golden.memory(*PROMPTS)
    sampling = SamplingConfig(steps=(4, 2, 2, 2), rescore_weight=0.5)
    codes = [
        decode(golden.decoder, memory, SEEDS, sampling, frames=30, rescorer=other)
        for other in (None, MagnetRescorer(golden.decoder, memory))
    ]
    assert not torch.equal(*codes)
    assert codes[1].max() < CODES
