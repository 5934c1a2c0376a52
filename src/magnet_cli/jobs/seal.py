"""A checksum within a JSON object, by which a damaged one is told from a whole one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = "sum"
DIGITS = 16  # hexadecimal, of SHA-256: against accidents, not against forgery


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The object with its checksum, which does not depend on white space or on the order of the keys."""
    return {**value, KEY: _sum(value)}


def is_sealed(value: Mapping[str, Any]) -> bool | None:
    """Whether an object is as it was sealed; None for one without a checksum, as earlier versions wrote it."""
    return value[KEY] == _sum(value) if KEY in value else None


def _sum(value: Mapping[str, Any]) -> str:
    content = json.dumps({name: one for name, one in value.items() if name != KEY}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:DIGITS]
