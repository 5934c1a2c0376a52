"""Draw the spectrogram of a clip as a small PNG with axes: python examples/spectrogram.py CLIP.wav PICTURE.png

Needs nothing beyond what magnet itself needs. Time runs to the right in seconds, frequency upwards in Hz on a
logarithmic scale; brightness is the level, from 70 dB below the loudest point (dark) upwards.
"""

from __future__ import annotations

import struct
import sys
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

WIDTH, HEIGHT = 480, 160  # of the plot, in pixels
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 8, 26  # margins, in pixels
LOWEST = 60.0  # Hz
WINDOW = 2048  # samples; at 16 kHz 128 ms, which tells bass notes apart
RANGE = 70.0  # dB
LEVELS = 32  # shades; fewer make the file smaller
# Dark violet to light yellow, in equal steps of lightness.
SHADES = ((4, 4, 20), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191))
PAPER, INK = LEVELS, LEVELS + 1  # places in the palette, behind the shades

# The letters of the axes, 5 pixels wide and 7 high; each number is a row of pixels.
LETTERS = {
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 2, 4, 8, 31),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "6": (6, 8, 16, 30, 17, 17, 14),
    "8": (14, 17, 17, 14, 17, 17, 14),
    "k": (16, 16, 18, 20, 24, 20, 18),
    "H": (17, 17, 17, 31, 17, 17, 17),
    "z": (0, 0, 31, 2, 4, 8, 31),
    "s": (0, 0, 15, 16, 14, 1, 30),
    " ": (0, 0, 0, 0, 0, 0, 0),
}


def levels(waveform: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Level in dB below the loudest point, [HEIGHT, WIDTH], the highest frequency first."""
    padded = np.pad(waveform, WINDOW // 2)
    starts = np.linspace(0, len(waveform) - 1, WIDTH).astype(int)
    frames = np.stack([padded[start : start + WINDOW] for start in starts]) * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames, 2 * WINDOW)) ** 2  # [WIDTH, bins]
    edges = np.geomspace(LOWEST, rate / 2, HEIGHT + 1) / rate * 2 * WINDOW
    rows = []
    for low, high in pairwise(edges):
        inside = power[:, int(low) : max(int(high), int(low) + 1)]
        rows.append(inside.max(axis=1))
    decibels = 10 * np.log10(np.stack(rows)[::-1] + 1e-12)
    return np.asarray(decibels - decibels.max())


def write_text(picture: NDArray[np.uint8], text: str, *, x: int, y: int) -> None:
    """Write text with its upper left corner at (x, y)."""
    for letter in text:
        for down, row in enumerate(LETTERS[letter]):
            for across in range(5):
                if row >> (4 - across) & 1:
                    picture[y + down, x + across] = INK
        x += 6


def draw(waveform: NDArray[np.float64], rate: int) -> NDArray[np.uint8]:
    """The picture: places in the palette, [height, width]."""
    picture = np.full((TOP + HEIGHT + BOTTOM, LEFT + WIDTH + RIGHT), PAPER, dtype=np.uint8)
    shade = (levels(waveform, rate) / RANGE + 1).clip(0, 1) * (LEVELS - 1)
    picture[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH] = shade.round()
    foot = TOP + HEIGHT
    seconds = len(waveform) / rate
    for second in range(0, int(seconds + 0.5) + 1, 2):
        x = LEFT + min(round(second / seconds * WIDTH), WIDTH - 1)
        picture[foot : foot + 4, x] = INK
        label = f"{second}" if second else "0 s"
        write_text(picture, label, x=x - 3 * len(str(second)) + 1, y=foot + 8)
    for frequency, label in ((100, "100 Hz"), (1000, "1 kHz"), (4000, "4 kHz")):
        y = foot - round(np.log(frequency / LOWEST) / np.log(rate / 2 / LOWEST) * HEIGHT)
        picture[y, LEFT - 4 : LEFT] = INK
        write_text(picture, label, x=LEFT - 6 - 6 * len(label), y=y - 3)
    return picture


def palette() -> bytes:
    """RGB of every place: the shades, then paper and ink."""
    places = np.linspace(0, len(SHADES) - 1, LEVELS)
    colours = np.stack([np.interp(places, range(len(SHADES)), column) for column in zip(*SHADES, strict=True)], axis=1)
    return colours.round().astype(np.uint8).tobytes() + bytes((255, 255, 255)) + bytes((60, 60, 60))


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture with a palette."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", picture.shape[1], picture.shape[0], 8, 3, 0, 0, 0)
    lines = b"".join(b"\0" + line.tobytes() for line in picture)
    chunks = (
        chunk(b"IHDR", header),
        chunk(b"PLTE", palette()),
        chunk(b"IDAT", zlib.compress(lines, 9)),
        chunk(b"IEND", b""),
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    samples, sample_rate = soundfile.read(sys.argv[1], always_2d=True)
    write_png(Path(sys.argv[2]), draw(samples.mean(axis=1), sample_rate))
