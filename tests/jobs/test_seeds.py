"""Seeds of rows that have none: each prompt its own, whatever is above or below it."""

from __future__ import annotations

import random
from pathlib import Path

from magnet_cli.jobs.manifest import Entry, Header, Manifest
from magnet_cli.jobs.plan import DERIVED, SEEDS, Request, derives_seeds
from magnet_cli.options.job import Planner, derived_seed
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.sampling import SamplingConfig
from magnet_cli.options.sampling_overrides import Overrides

SAMPLING = SamplingConfig()
FOLDER = Path("clips")


def seeds(prompts: list[str], seed: int = 5, *, variations: int = 1) -> list[tuple[str, int]]:
    planner = Planner(seed, derive=True)
    jobs = [job for prompt in prompts for job in planner.jobs(prompt, SAMPLING, variations=variations)]
    return [(job.prompt, job.seed) for job in jobs]


def test_each_prompt_has_a_seed_of_its_own_wherever_it_stands() -> None:
    prompts = [f"prompt {k}" for k in range(1000)]
    found = seeds(prompts)
    assert len({seed for _, seed in found}) == 1000
    random.Random(1).shuffle(prompts)
    assert sorted(seeds(["new", *prompts])[1:]) == sorted(found)
    assert not {seed for _, seed in seeds(prompts, 6)} & {seed for _, seed in found}
    assert all(0 <= seed < 2**32 for _, seed in found)


def test_a_prompt_that_comes_again_gives_another_clip() -> None:
    first = derived_seed(5, "rain")
    assert seeds(["rain", "wind", "rain"], variations=2) == [
        *(("rain", first + k) for k in range(2)),
        *(("wind", derived_seed(5, "wind") + k) for k in range(2)),
        *(("rain", first + k) for k in (2, 3)),
    ]


def test_the_rule_is_fixed() -> None:
    """Seeds of batches that were begun must never change."""
    assert derived_seed(7, "disco beat, 125 bpm") == 1117467110


def request(**changes: bool) -> Request:
    return Request(
        file="p.txt",
        output="clips",
        model="tiny",
        seed=5,
        variations=1,
        overrides=Overrides(),
        edits={},
        helpers={},
        finish=OutputConfig(),
        codes=False,
        metadata=True,
        resume=True,
        mix=changes.get("mix", False),
        force=False,
        same_seed=changes.get("same_seed", False),
    )


def test_a_batch_keeps_the_rule_that_it_began_with() -> None:
    settings = request().settings({})
    before, now = Header(5, settings), Header(5, {**settings, SEEDS: DERIVED})
    other = Header(5, {**settings, "lufs": -20.0})
    entries = {"a": Entry("a", ())}

    def rule(*headers: Header, **changes: bool) -> bool | None:
        return derives_seeds(request(**changes), Manifest(FOLDER, list(headers), entries), settings)

    assert derives_seeds(request(), Manifest(FOLDER, [], {}), settings) is True
    assert (rule(before), rule(now), rule(now, same_seed=True)) == (False, True, False)
    assert (rule(other), rule(other, mix=True), rule(before, other, mix=True)) == (False, True, False)
    assert rule() is None
