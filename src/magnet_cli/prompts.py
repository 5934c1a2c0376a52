"""Prompts and seeds -> jobs."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from magnet_cli.config import SamplingConfig
from magnet_cli.errors import UsageError

# Beyond this a "prompt" is a file pasted by mistake; the models were trained on captions of a sentence or two.
MOST_CHARACTERS = 10_000
LARGEST_SEED = 2**64 - 1
MOST_VARIATIONS = 10_000
# A drawn seed is kept short enough to be typed again.
DRAWN_SEED_BITS = 32


@dataclass(frozen=True)
class Job:
    """One clip to make: a prompt, the seed of its random numbers, and how codes are drawn."""

    prompt: str
    seed: int
    sampling: SamplingConfig

    def __post_init__(self) -> None:
        check_prompt(self.prompt)
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UsageError(f"seed must be between 0 and 2^64 - 1, not {self.seed}", "Give e.g. --seed 7")


def check_prompt(prompt: str) -> None:
    """Raise UsageError for a prompt that is blank, too long, or not text."""
    if not prompt.strip():
        raise UsageError("the prompt is empty", 'Describe the sound, e.g. magnet generate "disco beat"')
    if len(prompt) > MOST_CHARACTERS:
        raise UsageError(
            f"the prompt has {len(prompt):,} characters; at most {MOST_CHARACTERS:,} are possible",
            "Describe the clip in fewer words; for many prompts, give them one by one",
        )
    if any(0xD800 <= ord(character) <= 0xDFFF for character in prompt):  # undecodable bytes of the command line
        raise UsageError("the prompt is not valid UTF-8", "Check the encoding of the terminal or file it comes from")


def draw_seed() -> int:
    """A random seed from the operating system."""
    return secrets.randbits(DRAWN_SEED_BITS)


def plan(prompts: Sequence[str], sampling: SamplingConfig, *, seed: int | None, variations: int = 1) -> list[Job]:
    """Jobs for every variation of every prompt: variation k of each takes seed + k, so none depends on the others.

    A seed is drawn when none is given, one for all prompts.
    """
    if not 1 <= variations <= MOST_VARIATIONS:
        raise UsageError(f"variations must be from 1 to {MOST_VARIATIONS:,}, not {variations}", "Give e.g. -n 4")
    first = draw_seed() if seed is None else seed
    return [Job(prompt, first + k, sampling) for prompt in prompts for k in range(variations)]
