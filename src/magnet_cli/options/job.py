"""Prompts and seeds -> jobs."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from magnet_cli.errors import UsageError
from magnet_cli.options.declared import short_repr
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.sampling import MusicGenSampling, SamplingConfig
from magnet_cli.options.tempo import with_tempo

# Beyond this a "prompt" is a file pasted by mistake; the models were trained on captions of a sentence or two.
MOST_CHARACTERS = 10_000
LARGEST_SEED = 2**64 - 1
MOST_VARIATIONS = 10_000
# A drawn seed is kept short enough to be typed again.
DRAWN_SEED_BITS = 32


@dataclass(frozen=True, repr=False)
class Job:
    """One clip to generate.

    prompt: its text as the user gives it, up to 10,000 characters; may be empty where `edit.unconditional` is set.
    seed: of its random numbers, 0 to 2^64 - 1. sampling: how codes are drawn, e.g. `pipeline.sampling()`. edit: length
    and edits. recorded_text: the text that the model was given for an earlier clip, to generate that clip again.

    Raises:
        UsageError: for a prompt or a seed that is not possible.
    """

    prompt: str
    seed: int
    sampling: SamplingConfig | MusicGenSampling
    edit: EditConfig = field(default_factory=EditConfig)
    recorded_text: str | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if self.prompt or not self.edit.unconditional:
            check_prompt(self.prompt)
        if self.edit.negative is not None:
            check_prompt(self.edit.negative)
        _ = self.text  # which may contradict the tempo
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UsageError(f"seed must be between 0 and 2^64 - 1, not {self.seed}", "Give e.g. --seed 7")

    @property
    def text(self) -> str:
        """The text that the model is given: the prompt, with the tempo of a loop. Raises UsageError; see with_tempo."""
        if self.recorded_text is not None:
            return self.recorded_text
        return self.prompt if self.edit.unconditional else with_tempo(self.prompt, self.edit.bpm)

    @property
    def texts(self) -> list[str]:
        """All that the model reads: the text, unless the clip has none, and the negative prompt."""
        negative = self.edit.negative
        return [*([] if self.edit.unconditional else [self.text]), *([] if negative is None else [negative])]

    @property
    def kind(self) -> tuple[object, ...]:
        """What jobs must share to be decoded together."""
        edit = self.edit
        source = (edit.continue_from, edit.keep, edit.inpaint)
        shape = (edit.duration, edit.overlap, edit.loop, edit.bpm, edit.bars, edit.hybrid)
        return (self.sampling, *source, *shape, edit.negative is None, edit.unconditional)


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


def derived_seed(seed: int, prompt: str) -> int:
    """The first seed of a prompt in a batch with this seed: 32 bits of their SHA-256, as short as a drawn one."""
    digest = hashlib.sha256(f"{seed}\n{prompt}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[: DRAWN_SEED_BITS // 8], "big")


class Planner:
    """Gives the clips of one run their seeds.

    Variation k of a prompt takes its first seed + k. A prompt that occurs again continues with the next seeds, so that
    its clips differ. Nothing else in a run changes the seeds of a prompt.

    seed: the first seed of every prompt; None draws one. derive: every prompt has another first seed, derived from
    `seed` and its text.
    """

    def __init__(self, seed: int | None, *, derive: bool = False) -> None:
        self.seed = draw_seed() if seed is None else seed
        self._derive = derive
        self._made: Counter[str] = Counter()

    def jobs(
        self,
        prompt: str,
        sampling: SamplingConfig | MusicGenSampling,
        *,
        seed: int | None = None,
        variations: int = 1,
        edit: EditConfig | None = None,
    ) -> list[Job]:
        """Jobs for the variations of a prompt; UsageError for what cannot be. A seed of its own counts by itself."""
        if not 1 <= variations <= MOST_VARIATIONS:
            raise UsageError(f"variations must be from 1 to {MOST_VARIATIONS:,}, not {variations}", "Give e.g. -n 4")
        first = seed
        if first is None:
            first = (derived_seed(self.seed, prompt) if self._derive else self.seed) + self._made[prompt]
            self._made[prompt] += variations
        return [Job(prompt, first + k, sampling, edit or EditConfig()) for k in range(variations)]


def plan(
    prompts: Sequence[str],
    sampling: SamplingConfig | MusicGenSampling,
    *,
    seed: int | None,
    variations: int = 1,
    edit: EditConfig | None = None,
) -> list[Job]:
    """Jobs for every variation of every prompt; see Planner."""
    planner = Planner(seed)
    return [job for prompt in prompts for job in planner.jobs(prompt, sampling, variations=variations, edit=edit)]
