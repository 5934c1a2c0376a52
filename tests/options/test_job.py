"""Prompts, seeds and options -> jobs."""

from __future__ import annotations

import pytest

from magnet_cli.errors import UsageError
from magnet_cli.hub.registry import MODELS
from magnet_cli.options.job import LARGEST_SEED, MOST_CHARACTERS, Job, plan
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.runtime import RuntimeConfig
from magnet_cli.options.sampling import PRESETS, SamplingConfig, default_sampling


def test_variation_k_takes_seed_plus_k_whatever_the_other_prompts() -> None:
    jobs = plan(["a", "b"], SamplingConfig(), seed=7, variations=3)
    assert [(job.prompt, job.seed) for job in jobs] == [(p, s) for p in "ab" for s in (7, 8, 9)]


def test_a_drawn_seed_is_new_each_time() -> None:
    seeds = {plan(["a"], SamplingConfig(), seed=None)[0].seed for _ in range(20)}
    assert len(seeds) == 20
    assert all(0 <= seed <= LARGEST_SEED for seed in seeds)


@pytest.mark.parametrize("prompt", ["", "  \n", "x" * (MOST_CHARACTERS + 1), "bad \udc80 bytes"])
def test_bad_prompts_are_refused(prompt: str) -> None:
    with pytest.raises(UsageError):
        Job(prompt, 0, SamplingConfig())


def test_a_prompt_of_10_000_characters_is_accepted() -> None:
    Job("x" * 10_000, 0, SamplingConfig())


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_out_of_range_are_refused(seed: int) -> None:
    with pytest.raises(UsageError, match="seed"):
        plan(["a"], SamplingConfig(), seed=seed)


def test_the_last_variation_must_have_a_seed_too() -> None:
    with pytest.raises(UsageError, match="seed"):
        plan(["a"], SamplingConfig(), seed=LARGEST_SEED, variations=2)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": ()},
        {"steps": (20, 0, 10, 10)},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_p": None, "top_k": 0},
        {"top_p": 0.9, "top_k": 5},
        {"guidance": float("inf")},
        {"spans": "overlap"},
        {"span_score": "mean"},
        {"guidance_schedule": "up"},
        {"guidance_start": -0.1},
        {"guidance_start": 0.6, "guidance_end": 0.5},
        {"guidance_end": 1.5},
        {"guidance_end": float("nan")},
        {"span_order": "random"},
        {"span_order": "corput", "spans": "stride1"},
        {"span_order": "hybrid", "spans": "stride1"},
        {"order_noise": -1.0},
        {"remask": 1.5},
        {"remask": float("nan")},
        {"remask": 0.5, "spans": "stride1"},
        {"remask": 0.5, "span_order": "corput"},
        {"entropy_bound": -1.0},
        {"entropy_bound": float("nan")},
        {"entropy_bound": 1.0, "spans": "stride1"},
        {"order_noise": float("inf")},
        {"order_noise": 1.0, "span_order": "corput"},
    ],
)
def test_impossible_sampling_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        SamplingConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"normalize": "rms"},
        {"lufs": 3.0},
        {"true_peak": 1.0},
        {"true_peak": float("nan")},
        {"subtype": "pcm8"},
    ],
)
def test_impossible_output_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        OutputConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"device": "tpu"},
        {"device": "cuda:x"},
        {"device": "cuda:" + "9" * 20},
        {"device": "cuda:٣"},
        {"dtype": "int4"},
        {"batch_size": 0},
    ],
)
def test_impossible_runtime_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        RuntimeConfig(**options)  # type: ignore[arg-type]


def test_defaults_of_the_released_models() -> None:
    # The reference's library defaults; for 30-second and sound models its training configurations (facts in
    # audiocraft config/solver/magnet/magnet_32khz.yaml and audio_magnet_16khz.yaml).
    small, long, sound = (
        MODELS[name].sampling for name in ("magnet-small-10secs", "magnet-medium-30secs", "audio-magnet-small")
    )
    assert small == SamplingConfig(
        steps=(20, 10, 10, 10), temperature=3.0, top_p=0.9, guidance=10.0, min_guidance=1.0, spans="nonoverlap"
    )
    assert long.steps == (60, 10, 10, 10)
    assert (long.temperature, long.top_p, long.guidance) == (3.0, 0.9, 10.0)
    assert sound.steps == (20, 10, 10, 10)
    assert (sound.temperature, sound.top_p, sound.guidance, sound.min_guidance) == (3.5, 0.8, 20.0, 1.0)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("codebooks", [1, 4, 8])
def test_presets_fit_any_number_of_codebooks_and_keep_the_rest(name: str, codebooks: int) -> None:
    defaults = default_sampling("sound", 10, codebooks)
    preset = defaults.with_preset(name)
    assert len(preset.steps) == codebooks
    assert (preset.temperature, preset.top_p, preset.guidance) == (3.5, 0.8, 20.0)


def test_a_preset_with_overlapping_spans_drops_what_needs_a_grid() -> None:
    own = SamplingConfig(span_order="corput", entropy_bound=3.0)
    assert (own.with_preset("fast").span_order, own.with_preset("fast").entropy_bound) == ("corput", 3.0)
    assert own.with_preset("best").entropy_bound == 0
    assert SamplingConfig(remask=0.5).with_preset("best").remask == 0
    assert (own.with_preset("best").spans, own.with_preset("best").span_order) == ("stride1", "confidence")


def test_presets_are_ordered_by_work() -> None:
    for spec in MODELS.values():
        fast, balanced, best = (sum(spec.sampling.with_preset(name).steps) for name in PRESETS)
        assert fast < balanced < best
