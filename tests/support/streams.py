"""A record of a stream, as `magnet stream` writes it, with what is read of it."""

from __future__ import annotations

from typing import Any

STREAM_RECORD: dict[str, Any] = {
    "format": "magnet-stream",
    "version": 1,
    "seed": 7,
    "sampling": {
        **{"steps": [4, 2, 2, 2], "temperature": 3.0, "anneal": True, "top_p": 0.9, "top_k": None, "greedy": False},
        **{"guidance": 3.0, "min_guidance": 1.0, "spans": "nonoverlap", "span_score": "max", "rescore_weight": 0.7},
    },
    "edit": {
        **dict.fromkeys(("duration", "overlap", "continue_from", "keep", "inpaint", "vary", "bpm", "bars", "hybrid")),
        **{"join": False, "regions": [], "blend": False, "loop": False, "negative": None, "unconditional": False},
    },
    "overlap": 40,
    "output": {"normalize": "auto", "lufs": -14.0, "true_peak": -1.0, "subtype": None, "sample_rate": None},
    "model": {"given": "bundled"},
    "windows": [
        {"window": 0, "seconds": 0.0, "prompt": "a", "steps": [4, 2, 2, 2]},
        {"window": 3, "seconds": 9.0, "prompt": "b", "steps": [2, 1, 1, 1]},
    ],
    "codes": {"windows": 5, "sha256": "x"},
    "seconds": 12.5,
    "device": "cpu",
    "dtype": "float32",
}
