"""Regions of time within a clip, as a user writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from magnet_cli.errors import UsageError
from magnet_cli.options.times import parse_seconds


@dataclass(frozen=True, order=True)
class Region:
    """A stretch of time, seconds from the start."""

    start: float
    end: float

    def __str__(self) -> str:
        return f"{self.start:g}:{self.end:g}"

    def samples(self, sample_rate: int) -> tuple[int, int]:
        """First sample and the one after the last."""
        return round(self.start * sample_rate), round(self.end * sample_rate)


def parse_region(text: str) -> Region:
    """`2.5:5` -> Region(2.5, 5.0), `1:10-1:30` -> Region(70.0, 90.0). Raises UsageError.

    A side that is left out is the clip's own: `:5`, `2.5:`, `1:10-`. With one colon, both sides are seconds; four or
    six numbers are two times. A minus sign in front belongs to a number, which is then refused.
    """
    plain = text.strip()
    start, dash, end = plain.partition("-") if not plain.startswith("-") else ("", "", "")
    if not dash:
        parts = plain.split(":")
        if len(parts) not in (2, 4, 6):
            hint = "Give seconds from and to, e.g. --region 2.5:5"
            if len(parts) in (3, 5):
                hint = "Write a dash between times, e.g. --region 1:10-1:30"
            raise UsageError(f"{text!r} is not a region", hint)
        half = len(parts) // 2
        start, end = ":".join(parts[:half]), ":".join(parts[half:])
    try:
        region = Region(parse_seconds(start) if start.strip() else 0.0, parse_seconds(end) if end.strip() else math.inf)
    except ValueError:
        raise UsageError(
            f"{text!r} is not a region", "Give seconds from and to, e.g. --region 2.5:5, or --region 1:10-1:30"
        ) from None
    if math.isnan(region.start) or math.isnan(region.end) or region.start < 0 or math.isinf(region.start):
        raise UsageError(f"region {text} does not begin at a time", "Give seconds from and to, e.g. --region 2.5:5")
    return region


def check_regions(regions: Sequence[Region], seconds: float) -> list[Region]:
    """The regions of a sound that lasts `seconds`, in order, those that overlap or touch as one.

    One without an end ends with the sound, and so does one that ends up to 10 ms after it: lengths are often rounded.
    Raises UsageError for a region that is reversed, empty, or not all within the sound, and for none at all.
    """
    if not regions:
        raise UsageError("no region to regenerate is given", "Give e.g. --region 2.5:5")
    merged: list[Region] = []
    for region in sorted(regions):
        if region.start >= region.end:
            kind = "empty" if region.start == region.end else "reversed"
            raise UsageError(f"region {region} is {kind}", "Give an earlier time and a later one, e.g. --region 2.5:5")
        if region.start >= seconds or seconds + 0.010 < region.end < math.inf:
            raise UsageError(
                f"region {region} is not within the {seconds:g} s of the audio", f"Give times from 0 to {seconds:g}"
            )
        end = min(region.end, seconds)
        if merged and region.start <= merged[-1].end:
            merged[-1] = Region(merged[-1].start, max(merged[-1].end, end))
        else:
            merged.append(Region(region.start, end))
    return merged
