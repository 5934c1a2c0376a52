"""Times as a user writes them: 90, 1:30 or 1:02:03."""

from __future__ import annotations

import re

_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d{1,2}(?:\.\d*)?)")


def parse_seconds(text: str) -> float:
    """`90` -> 90.0, `1:30` -> 90.0, `1:02:03.5` -> 3723.5 (hours, minutes, seconds). Raises ValueError."""
    text = text.strip()
    if ":" not in text:
        return float(text)
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a time")
    hours, minutes, seconds = int(found[1] or 0), int(found[2]), float(found[3])
    if seconds >= 60 or (found[1] and minutes >= 60):
        raise ValueError(f"{text!r} is not a time: an hour has 60 minutes of 60 seconds")
    return 3600.0 * hours + 60.0 * minutes + seconds
