"""Damaging files at random: what a flipped bit, a bad disk, a careless editor or an attacker makes of a good one."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from io import BytesIO
from random import Random
from typing import Any

Damage = Callable[[bytes, Random], bytes]

# The settings of small models in the format of transformers.
CODEC_SETTINGS = {
    **{"model_type": "encodec", "normalize": False, "norm_type": "weight_norm", "upsampling_ratios": [8, 5, 4, 4]},
    **{"codebook_size": 64, "sampling_rate": 32_000, "target_bandwidths": [1.2], "audio_channels": 1},
    **{"hidden_size": 16, "num_filters": 4, "num_residual_layers": 1, "kernel_size": 7, "residual_kernel_size": 3},
    **{"last_kernel_size": 7, "dilation_growth_rate": 2, "compress": 2, "num_lstm_layers": 2, "use_causal_conv": False},
    **{"pad_mode": "constant", "use_conv_shortcut": False, "trim_right_ratio": 1.0},
}
T5_SETTINGS = {
    "model_type": "t5",
    "d_model": 24,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "vocab_size": 187,
}
MUSICGEN_SETTINGS: dict[str, Any] = {
    **{"model_type": "musicgen", "text_encoder": T5_SETTINGS, "audio_encoder": CODEC_SETTINGS},
    "decoder": {
        **{"model_type": "musicgen_decoder", "vocab_size": 64, "max_position_embeddings": 256, "num_hidden_layers": 2},
        **{"ffn_dim": 64, "num_attention_heads": 4, "hidden_size": 32, "num_codebooks": 4, "pad_token_id": 64},
        **{"bos_token_id": 64, "audio_channels": 1, "activation_function": "gelu"},
    },
}

# What parsers trip over.
TOKENS = [
    *(b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b'"', b"'", b",", b":", b"{", b"}", b"[", b"]", b"\n", b"\r"),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-1", b"0", b"1e308", b"9" * 30, b"9" * 5000, b"0.5", b'""'),
    *(b"{}", b"[]", b"[" * 40, b"[" * 100_000, b'{"a":' * 2000, b'"\\ud800"', b'"\\u0000"', b'"../../x"', b'"x"'),
    *(b"!!bool x", b"!!int ''", b"!!float x", b"!!binary x", b"!!timestamp x", b"!!python/object:os.system {}"),
    *(b"&a [*a]", b"*a", b"<<: *a", b"? ", b"- ", b"|\n", b"%YAML 9.9\n", b"---\n", b"0x" + b"f" * 300, b"1:" * 60),
    *(b"0000-00-00", b"2020-13-45", b"1979-05-27T07:32:00Z", b"inf", b"[[a]]\n", b"a.b.c = 1\n", b"'''", b'"""'),
]
# What a value of another type, or beyond sense, is in JSON.
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        3,
        0.5,
        -0.5,
        1e-300,
        1e308,
        10**6,
        10**9,
        2**31,
        2**53 + 1,
        2**63,
        2**64,
        10**30,
    ),
    *(float("nan"), float("inf"), "", "x", "1", "\0", "\ud800", "\udcff", "../../x", "/", "a" * 5000, [], {}, [1]),
    *([[]], [None] * 3, {"x": 1}, {"": None}, [1, 2, 3, 4], [10**6] * 4, "é", "\x1b[31m", "cuda:99999999999999999999"),
]


def bytes_damaged(content: bytes, random: Random) -> bytes:
    """A few bytes flipped, taken out, put in, repeated or cut off."""
    found = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        place = random.randrange(len(found) + 1)
        length = random.choice((1, 1, 2, 4, 16, 200))
        match random.randrange(7):
            case 0 if found:
                found[place % len(found)] ^= 1 << random.randrange(8)
            case 1:
                del found[place : place + length]
            case 2:
                found[place:place] = random.choice(TOKENS)
            case 3:
                found[place : place + length] = random.choice(TOKENS)
            case 4:
                found[place:place] = found[place : place + length] * random.choice((1, 2, 50))
            case 5:
                found[place : place + length] = random.randbytes(length)
            case _:
                if random.random() < 0.2:
                    del found[place:]
    return bytes(found)


def json_damaged(content: bytes, random: Random) -> bytes:
    """A value of a JSON text replaced, moved, renamed or taken out; the rest as it was, and now and then raw bytes."""
    if random.random() < 0.2:
        return bytes_damaged(content, random)
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return bytes_damaged(content, random)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        tree = _changed(tree, random)
    return json.dumps(tree).encode()


def lines_damaged(content: bytes, random: Random) -> bytes:
    """A line of JSON lines damaged, repeated, or put elsewhere."""
    lines = content.split(b"\n")
    place = random.randrange(len(lines))
    match random.randrange(4):
        case 0:
            return bytes_damaged(content, random)
        case 1:
            lines.insert(random.randrange(len(lines) + 1), lines[place])
        case _:
            lines[place] = json_damaged(lines[place], random)
    return b"\n".join(lines)


def archive_damaged(content: bytes, random: Random) -> bytes:
    """A member of a zip archive damaged and packed again, or raw bytes of the archive."""
    if random.random() < 0.5 or not content.startswith(b"PK"):
        return bytes_damaged(content, random)
    target = BytesIO()
    with zipfile.ZipFile(BytesIO(content)) as archive, zipfile.ZipFile(target, "w") as damaged:
        names = archive.namelist()
        chosen = random.choice(names)
        for name in names:
            part = archive.read(name)
            kind = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            damaged.writestr(name, bytes_damaged(part, random) if name == chosen else part, kind)
    return target.getvalue()


def safetensors_damaged(content: bytes, random: Random) -> bytes:
    """The JSON header of a safetensors file damaged, its length put right, or raw bytes of the file."""
    if random.random() < 0.3:
        return bytes_damaged(content, random)
    length = int.from_bytes(content[:8], "little")
    header = json_damaged(content[8 : 8 + length], random)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def _changed(tree: Any, random: Random) -> Any:
    places: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        keys: Sequence[Any] = (
            list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        )
        places += ((node, key) for key in keys)
        waiting += (node[key] for key in keys)
    if not places or random.random() < 0.02:
        return deepcopy(random.choice(VALUES))
    node, key = random.choice(places)
    match random.randrange(5):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[random.choice(("", "x", "__class__", "é", str(key).upper()))] = node.pop(key)
        case 2:
            other, there = random.choice(places)
            if not isinstance(other[there], (dict, list)):  # else it could come to hold itself
                node[key] = other[there]
        case 3:
            node[key] = [node[key]]
        case _:
            node[key] = deepcopy(random.choice(VALUES))
    return tree
