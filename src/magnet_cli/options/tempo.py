"""The tempo of a loop in the words of its prompt."""

from __future__ import annotations

import re

from magnet_cli.errors import UsageError

NUMBER = r"(\d{1,3}(?:[.,]\d{1,3})?)"
# 120 bpm, 120-BPM, 118-122 bpm, 120 beats per minute; bpm: 120; tempo 120.
NAMED = re.compile(
    rf"{NUMBER}(?: ?(?:-|\u2013|to) ?{NUMBER})?[ -]?(?:bpm|beats?[ -](?:per|a)[ -]minute)\b"
    rf"|\bbpm ?[:=]? ?{NUMBER}\b|\btempo ?(?:of|[:=])? ?{NUMBER}\b",
    re.IGNORECASE,
)
SAME = 0.5  # bpm: prompts have whole numbers


def named_tempi(prompt: str) -> list[tuple[float, float]]:
    """The tempi that a prompt names, slowest and fastest of each: `118-122 bpm` -> (118, 122)."""
    found = []
    for match in NAMED.finditer(" ".join(prompt.split())):
        numbers = [float(one.replace(",", ".")) for one in match.groups() if one is not None]
        found.append((min(numbers), max(numbers)))
    return found


def with_tempo(prompt: str, bpm: float | None) -> str:
    """The prompt with the tempo at its end, `disco beat, 120 bpm`, unless it names that tempo already.

    Raises: UsageError for a prompt that names other tempi only.
    """
    if bpm is None:
        return prompt
    named = named_tempi(prompt)
    if not named:
        return f"{prompt.rstrip(' .,;')}, {bpm:g} bpm"
    if not any(slowest - SAME <= bpm <= fastest + SAME for slowest, fastest in named):
        said = " and ".join(" to ".join(f"{tempo:g}" for tempo in dict.fromkeys(pair)) for pair in named)
        raise UsageError(
            f"the prompt names {said} bpm, but --bpm is {bpm:g}",
            "Give both the same tempo, or leave it out of the prompt: --bpm adds it",
        )
    return prompt
