"""A picture is drawn without touching anything of matplotlib's own, and says what the clip is."""

from __future__ import annotations

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from magnet_cli.audio.loudness import Loudness
from magnet_cli.errors import UsageError
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.job import Job
from magnet_cli.options.regions import Region
from magnet_cli.options.sampling import SamplingConfig
from magnet_cli.pictures import installed
from magnet_cli.pictures.draw import DPI, MISSING, MOST_CLIPS, draw, readable
from magnet_cli.pictures.subject import Subject

matplotlib = pytest.importorskip("matplotlib")

RATE = 16_000
NOISE = np.random.default_rng(0).normal(0, 0.1, (1, 2 * RATE)).astype(np.float32)
PLAIN = Subject(NOISE, RATE, "rain", ("2.00 s", "seed 7"))


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def blue(content: bytes) -> int:
    """How many dots have the colour of marks."""
    red, green, blue = np.moveaxis(pixels(content), -1, 0)
    return int(((red < 30) & (abs(green - 114) < 30) & (abs(blue - 178) < 30)).sum())


def test_one_clip_fills_a_picture_and_several_a_sheet() -> None:
    assert pixels(draw([PLAIN])).shape == (round(4.6 * DPI), 10 * DPI, 3)
    height, width, _ = pixels(draw([PLAIN] * 3)).shape
    assert (height, width) == (round(2 * 3.3 * DPI), round(2 * 6.4 * DPI))
    with pytest.raises(UsageError, match=f"at most|1 to {MOST_CLIPS}"):
        draw([PLAIN] * (MOST_CLIPS + 1))


def test_loud_is_dark_and_silence_light() -> None:
    half = NOISE.copy()
    half[:, RATE:] = 0.0
    picture = pixels(draw([replace(PLAIN, waveform=half)]))
    left, right = picture[300:450, 150:500].mean(), picture[300:450, 750:1050].mean()
    assert left < right - 80
    assert right > 200


def test_a_sheet_has_one_scale_of_loudness() -> None:
    quiet = replace(PLAIN, waveform=NOISE / 100)  # 40 dB less
    picture = pixels(draw([PLAIN, quiet]))
    middle = picture.shape[1] // 2
    loud, soft = picture[220:320, 150:500].mean(), picture[220:320, middle + 150 : middle + 500].mean()
    assert soft > loud + 40


def test_regions_and_loops_are_marked() -> None:
    assert blue(draw([PLAIN])) == 0
    assert blue(draw([replace(PLAIN, regions=(Region(0.5, 1.0),))])) > 500
    assert blue(draw([replace(PLAIN, loop=True)])) > 2000


def test_the_same_clip_gives_the_same_bytes_in_every_thread_and_no_setting_changes() -> None:
    before = matplotlib.rcParams.copy()  # which, unlike dict(), chooses no backend
    with ThreadPoolExecutor(3) as pool:
        made = set(pool.map(lambda _: draw([PLAIN]), range(3)))
    assert len(made) == 1
    assert str(matplotlib.rcParams.copy()) == str(before)
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("title", ["$x^2", "a\nb\x1b[2J", "\U0001f600 \u65e5\u672c", "x" * 10_000, "", "\ud800"])
def test_any_prompt_can_be_drawn(title: str) -> None:
    assert pixels(draw([replace(PLAIN, title=title)])).min() < 100


def test_what_no_font_has_is_a_box() -> None:
    assert readable("caf\u00e9\n x")[0] == "caf\u00e9 x"
    assert readable("a\U00012000")[0] == f"a{MISSING}"  # cuneiform


def test_texts_are_embedded() -> None:
    content = draw([PLAIN], {"Title": "pluie \u2602", "Comment": '{"seed": 7}'})
    image = Image.open(io.BytesIO(content))
    image.load()
    assert image.info["Title"] == "pluie \u2602"
    assert image.info["Comment"] == '{"seed": 7}'
    assert "Software" not in image.info


def test_a_clip_says_how_it_was_made() -> None:
    edit = EditConfig(inpaint="a.wav", regions=("0.5:1",), vary=0.3, loop=True)
    job = Job("rain", 7, SamplingConfig(), edit)
    subject = Subject.of(job, NOISE, RATE, loudness=Loudness(-14.04, -1.0), model="tiny", bpm=120.04)
    assert subject.facts == (
        *("2.00 s", "seed 7", "tiny", "-14.0 LUFS", "-1.0 dBTP", "120.0 bpm"),
        *("loop", "30% varied"),
    )
    assert subject.regions == (Region(0.5, 1.0),)
    assert subject.loop
    other = replace(job, edit=replace(edit, regions=("5:6",)))  # a record that does not fit its audio
    assert Subject.of(other, NOISE, RATE, loudness=Loudness(None, None), model=None).regions == ()


def test_without_matplotlib_a_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install '\.\[pictures\]'"):
        draw([PLAIN])
