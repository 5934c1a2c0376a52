"""A checksum within a JSON object, which shows whether the object is damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = "sum"
DIGITS = 16  # hexadecimal, of SHA-256: against accidents, not against forgery


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The object with its checksum, which depends neither on white space nor on the order of keys."""
    return {**value, KEY: _sum(value)}


def is_sealed(value: Mapping[str, Any]) -> bool | None:
    """Whether an object matches its checksum; None for one without, as earlier versions wrote it."""
    return value[KEY] == _sum(value) if KEY in value else None


def _sum(value: Mapping[str, Any]) -> str:
    content = json.dumps({name: one for name, one in value.items() if name != KEY}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:DIGITS]
