"""Draw clips: waveform, mel spectrogram, title and marks, one clip or many on a sheet.

Only objects of this drawing are used: neither pyplot nor matplotlib's settings, so threads may draw at the same time
and a program's own figures stay as they are.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from magnet_cli.errors import UsageError
from magnet_cli.pictures.installed import check_pictures
from magnet_cli.pictures.mel import MelSpectrogram, mel, mel_spectrogram, outline
from magnet_cli.pictures.subject import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Lightness falls evenly from silence to the loudest, so the picture reads the same in grey and with every kind of
# colour blindness; silence is light, which saves ink.
COLOURS = "magma_r"
RANGE = 80.0  # dB below the loudest that have a shade of their own
WAVE, MARK, INK, QUIET = "#51127c", "#0072b2", "#1a1a1a", "#666666"  # MARK: the blue of Okabe and Ito
TICKS = (50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)  # Hz
DPI = 120
COLUMNS = 1_000  # of a spectrogram: about one for each dot
ALONE, IN_SHEET = (10.0, 4.6), (6.4, 3.3)  # inches of a clip
MOST_CLIPS = 60  # on a sheet, which then has about 60 megapixels
# In inches: what surrounds a clip's axes, and the part of their height that the waveform takes.
LEFT, RIGHT, TOP, BOTTOM, GAP, WAVE_SHARE = 0.75, 0.85, 0.62, 0.45, 0.08, 0.25
FONT = "DejaVu Sans"  # which matplotlib brings
# For prompts in other scripts, if one of these is installed.
OTHER_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans", "Arial Unicode MS", "Microsoft YaHei", "Yu Gothic"),
    *("Hiragino Sans", "PingFang SC", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
)
MISSING = "\u25a1"


def draw(subjects: Sequence[Subject], texts: Mapping[str, str] | None = None) -> bytes:
    """A PNG of one clip, or of several as a sheet with one scale of loudness.

    texts: to embed, by their PNG keywords.
    Raises: UsageError without matplotlib, or for more clips than a sheet holds.
    """
    check_pictures()
    if not 1 <= len(subjects) <= MOST_CLIPS:
        raise UsageError(f"a sheet holds from 1 to {MOST_CLIPS} clips, not {len(subjects)}", "Draw several sheets")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = ALONE if len(subjects) == 1 else IN_SHEET
    across = min(len(subjects), 2 if len(subjects) <= 8 else 3)
    down = -(-len(subjects) // across)
    figure = Figure(figsize=(across * width, down * height), dpi=DPI, facecolor="white")
    canvas: Any = FigureCanvasAgg(figure)  # its methods have no types
    spectra = [mel_spectrogram(one.waveform, one.sample_rate, columns=COLUMNS) for one in subjects]
    loudest = max(float(one.levels.max()) for one in spectra)
    for place, (subject, spectrum) in enumerate(zip(subjects, spectra, strict=True)):
        corner = (place % across * width, (down - 1 - place // across) * height)
        _Cell(figure, corner, (width, height)).draw(subject, spectrum, loudest)
    file = io.BytesIO()
    canvas.print_png(file, metadata={"Software": None, **(texts or {})})  # by default it names matplotlib
    return file.getvalue()


class _Cell:
    """The place of one clip in a figure, in inches from its lower left corner."""

    def __init__(self, figure: Figure, corner: tuple[float, float], size: tuple[float, float]) -> None:
        self._figure, self._corner, self._size = figure, corner, size

    def draw(self, subject: Subject, spectrum: MelSpectrogram, loudest: float) -> None:
        """Draw everything that is shown of a clip."""
        width = self._size[0] - LEFT - RIGHT
        height = self._size[1] - TOP - BOTTOM - GAP
        wave = self._axes(LEFT, BOTTOM + height * (1 - WAVE_SHARE) + GAP, width, height * WAVE_SHARE)
        below = self._axes(LEFT, BOTTOM, width, height * (1 - WAVE_SHARE))
        bar = self._axes(LEFT + width + 0.12, BOTTOM, 0.12, height * (1 - WAVE_SHARE))
        self._write(subject.title, TOP - 0.24, 11, INK, weight="bold")
        self._write(" · ".join(subject.facts), TOP - 0.43, 8.5, QUIET)
        _draw_wave(wave, subject)
        _draw_spectrum(below, bar, spectrum, loudest)
        _mark(wave, below, subject)

    def _axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        across, down = (float(one) for one in self._figure.get_size_inches())
        left, bottom = left + self._corner[0], bottom + self._corner[1]
        axes = self._figure.add_axes((left / across, bottom / down, width / across, height / down))
        axes.set_facecolor("white")
        axes.tick_params(labelsize=8, colors=INK, labelfontfamily=FONT, length=3)
        for spine in axes.spines.values():
            spine.set_color(QUIET)
            spine.set_linewidth(0.6)
        return axes

    def _write(self, text: str, from_top: float, size: float, colour: str, *, weight: str = "normal") -> None:
        across, down = (float(one) for one in self._figure.get_size_inches())
        shown, families = readable(text)
        written = self._figure.text(
            (self._corner[0] + LEFT) / across,
            (self._corner[1] + self._size[1] - (TOP - from_top)) / down,
            shown,
            fontsize=size,
            color=colour,
            fontweight=weight,
            fontfamily=list(families),
            va="center",
            parse_math=False,
        )
        _fit(written, (self._size[0] - LEFT - 0.2) * DPI)


def _fit(written: Text, width: float) -> None:
    """Shorten a text to this many dots."""
    text = written.get_text()
    while len(text) > 1 and (wide := written.get_window_extent().width) > width:
        text = text[: min(len(text) - 1, int(len(text) * width / wide))].rstrip()
        written.set_text(f"{text}…")


def readable(text: str) -> tuple[str, tuple[str, ...]]:
    """A text on one line in which every character can be drawn, and the fonts for it."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    known = _characters(FONT)
    if all(ord(character) in known for character in line):
        return line, (FONT,)
    families = (FONT, *_installed())
    drawn = known.union(*map(_characters, families[1:]))
    return "".join(character if ord(character) in drawn else MISSING for character in line), families


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    found = {font.name for font in fontManager.ttflist}
    return tuple(name for name in OTHER_FONTS if name in found)


@lru_cache(maxsize=len(OTHER_FONTS) + 1)
def _characters(family: str) -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(family=[family]))).get_charmap())


def _draw_wave(axes: Axes, subject: Subject) -> None:
    lowest, highest = outline(subject.waveform, columns=COLUMNS)
    edges = np.linspace(0.0, subject.seconds, len(lowest) + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    axes.fill_between(middles, lowest, highest, color=WAVE, linewidth=0.4)
    axes.set_xlim(0.0, subject.seconds)
    axes.set_ylim(-1.0, 1.0)
    axes.set_yticks([-1.0, 0.0, 1.0], ["-1", "0", "1"])
    axes.tick_params(labelbottom=False)


def _draw_spectrum(axes: Axes, bar: Axes, spectrum: MelSpectrogram, loudest: float) -> None:
    bands = len(spectrum.edges) - 1
    image = axes.imshow(
        spectrum.levels,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=COLOURS,
        vmin=loudest - RANGE,
        vmax=loudest,
        extent=(0.0, spectrum.seconds, 0.0, float(bands)),
    )
    first, last = (float(mel(float(one))) for one in (spectrum.edges[0], spectrum.edges[-1]))
    shown = [one for one in TICKS if spectrum.edges[0] <= one <= spectrum.edges[-1]]
    places = [bands * (float(mel(float(one))) - first) / (last - first) for one in shown]
    apart = [0, *(k for k in range(1, len(places)) if places[k] - places[k - 1] > 0.04 * bands)]
    labels = [f"{shown[k] // 1000} k" if shown[k] >= 1000 else f"{shown[k]}" for k in apart]
    axes.set_yticks([places[k] for k in apart], labels)
    words: dict[str, Any] = {"fontsize": 8, "color": INK, "fontfamily": FONT}
    axes.set_ylabel("Hz", **words)
    axes.set_xlabel("seconds", labelpad=2, **words)
    scale = axes.figure.colorbar(image, cax=bar)
    scale.set_ticks([loudest - RANGE, loudest - RANGE / 2, loudest], labels=[f"-{RANGE:.0f}", f"-{RANGE / 2:.0f}", "0"])
    bar.set_title("dB", pad=4, loc="left", **words)


def _mark(wave: Axes, below: Axes, subject: Subject) -> None:
    """Mark the regions that were edited, and the ends of a loop."""
    for region in subject.regions:
        wave.axvspan(region.start, region.end, facecolor="none", edgecolor=MARK, hatch="////", linewidth=0.0, alpha=0.6)
        for axes in (wave, below):
            for time in (region.start, region.end):
                axes.axvline(time, color="white", linewidth=2.4)
                axes.axvline(time, color=MARK, linewidth=1.2, linestyle="--")
    if subject.loop:  # as a score repeats: a thick bar and a thin one at each end
        for axes in (wave, below):
            for near, far, width in ((0.0, 0.0, 5.0), (0.014, -0.014, 1.2)):
                for time in (near * subject.seconds, subject.seconds * (1 + far)):
                    axes.axvline(time, color=MARK, linewidth=width)
