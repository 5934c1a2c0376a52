"""Long waveforms: where they lie, and that working on them in blocks gives what working on the whole does."""

from __future__ import annotations

import io
import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from scipy.io import wavfile

from magnet_cli.audio import blocks
from magnet_cli.audio.files import encode_audio, read_audio, write_audio
from magnet_cli.audio.limiter import Limiter
from magnet_cli.audio.loudness import Normalized, measure, normalize, remove_offset, trim
from magnet_cli.audio.meters import true_peaks
from magnet_cli.audio.resampling import resample
from magnet_cli.audio.splicing import blend, conform, join
from magnet_cli.errors import OutputError
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.regions import Region
from support.memory import run_within

RATE = 32_000


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def music(channels: int = 2, seconds: float = 3.0, seed: int = 0) -> np.ndarray:
    """Noise that swells and fades, with a few peaks that keep a limiter busy."""
    samples = int(seconds * RATE)
    noise = np.random.default_rng(seed).standard_normal((channels, samples))
    swell = 0.1 + np.abs(np.sin(np.arange(samples) / 9_000))
    swell[:: RATE // 4] *= 6
    return (0.1 * noise * swell).astype(np.float32)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, blocks are a few thousand samples long, and everything lies in temporary files."""

    def begin() -> None:
        monkeypatch.setattr(blocks, "BLOCK", 5_003)
        monkeypatch.setattr(blocks, "IN_MEMORY", 1_000)

    return begin


# -- where they lie ---------------------------------------------------------------------------------------------------


def test_a_large_waveform_lies_in_a_file_that_has_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Callable[[], None]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert not isinstance(blocks.empty((2, 500)), np.memmap)
    small()
    waveform = blocks.empty((2, 5_000))
    assert isinstance(waveform, np.memmap)
    waveform[:] = 1
    assert waveform.dtype == np.float32
    assert waveform.sum() == 10_000
    assert list(tmp_path.iterdir()) == []


def test_large_temporary_files_go_to_a_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    for name in ("TEMP", "TMP", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    if os.access("/var/tmp", os.W_OK):
        assert blocks.temporary_folder() == Path("/var/tmp")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert blocks.temporary_folder() == tmp_path


def test_a_disk_without_room_is_an_error_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, small: Callable[[], None]
) -> None:
    small()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10_000, 5_000, 5_000))
    blocks.check_room_for(3, 100)  # in memory
    for call in (
        lambda: blocks.empty((1, 5_000)),
        lambda: blocks.check_room_for(3, 1_000),
        lambda: encode_audio(Path("a.wav"), np.zeros((1, 5_000), dtype=np.float32), RATE, "pcm16"),
    ):
        with pytest.raises(OutputError, match=r"temporary file.*0\.0 GB are free") as caught:
            call()
        assert "TMPDIR" in caught.value.hint


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system cannot reserve room")
def test_a_disk_that_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch, small: Callable[[], None]) -> None:
    def refuse(*arguments: int) -> None:
        raise OSError(28, "No space left on device")

    small()
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OutputError, match="No space left on device"):
        blocks.empty((1, 5_000))


@pytest.mark.parametrize("length", [0, 1, 5_002, 5_003, 5_004, 20_000])
@pytest.mark.parametrize("multiple", [1, 8, 441, 9_999])
def test_spans_hold_everything_once(small: Callable[[], None], length: int, multiple: int) -> None:
    small()
    parts = list(blocks.spans(length, multiple=multiple))
    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(length))
    assert all(part.start % multiple == 0 for part in parts)


# -- the same in blocks -----------------------------------------------------------------------------------------------


CONFIGS = [
    OutputConfig(),
    OutputConfig(lufs=-8),
    OutputConfig(lufs=-5, true_peak=-10),
    OutputConfig(lufs=-30),
    OutputConfig(normalize="peak"),
    OutputConfig(normalize="none"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=repr)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_clip_gets_its_loudness_in_blocks(small: Callable[[], None], config: OutputConfig, channels: int) -> None:
    waveform = music(channels)
    whole = normalize(waveform, RATE, config)
    small()
    found = normalize(waveform, RATE, config)
    # Ideal interpolation sees 16,384 samples around a block: what is further away rings by less than 0.01 dB. But the
    # search for a gain ends anywhere within 0.1 LU of the target, and a hair can make it end elsewhere.
    assert found.gain_db == pytest.approx(whole.gain_db, abs=0.1)
    assert (found.limited, found.reached) == (whole.limited, whole.reached)
    assert found.before.lufs == pytest.approx(whole.before.lufs, abs=1e-9)
    assert found.before.true_peak == pytest.approx(whole.before.true_peak, abs=0.01)
    assert found.after.lufs == pytest.approx(whole.after.lufs, abs=0.1)
    assert found.after.true_peak == pytest.approx(whole.after.true_peak, abs=0.1)
    assert config.normalize == "none" or (found.after.true_peak or 0.0) <= config.true_peak + 1e-6  # float32
    assert np.abs(found.waveform - whole.waveform).max() < 0.02 * np.abs(whole.waveform).max()  # 0.1 dB
    assert measure(found.waveform, RATE) == found.after


def test_gains_are_those_of_the_whole(small: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same peaks, to rounding: the release goes on from block to block, and so do the lines between steps."""
    limiter = Limiter.of(music(1), RATE)

    def joined() -> np.ndarray:
        return np.concatenate([gain for _, gain, _ in limiter.gains(12.0, -6.0)])

    whole = joined()
    assert whole.max() > 1.5 * whole.min()
    small()
    parts = list(limiter.gains(12.0, -6.0))
    assert len(parts) > 15
    np.testing.assert_allclose(joined(), whole, rtol=1e-9)  # running sums, begun elsewhere
    for size in (limiter.hop, 5 * limiter.hop, 301):  # less than smoothing reaches
        monkeypatch.setattr(blocks, "BLOCK", size)
        np.testing.assert_allclose(joined(), whole, rtol=1e-9)


def test_loudness_does_not_depend_on_blocks(small: Callable[[], None]) -> None:
    for seconds in (0.01, 0.39, 0.4, 0.41, 1.0, 2.95):
        waveform = music(2, seconds)
        whole = measure(waveform, RATE).lufs
        small()
        assert measure(waveform, RATE).lufs == pytest.approx(whole, abs=1e-9)


def test_peaks_are_those_of_the_whole(small: Callable[[], None]) -> None:
    waveform = music(2)
    ((_, whole),) = true_peaks(waveform)
    small()
    found = np.concatenate([peaks for _, peaks in true_peaks(waveform)])
    assert found.shape == whole.shape
    np.testing.assert_allclose(found, whole, atol=1e-3 * float(whole.max()))


def test_offsets_and_lengths_in_blocks(small: Callable[[], None]) -> None:
    waveform = music(2) + np.float32(0.05)
    flat, short = remove_offset(waveform, RATE), trim(waveform, RATE, 2.5)
    assert not np.array_equal(flat, waveform)
    small()
    assert np.array_equal(remove_offset(waveform, RATE), flat)
    assert np.array_equal(trim(waveform, RATE, 2.5), short)


@pytest.mark.parametrize(("before", "after"), [(44_100, 32_000), (32_000, 48_000), (44_101, 32_000), (32_000, 44_101)])
def test_resampling_in_blocks(small: Callable[[], None], before: int, after: int) -> None:
    """Also where a block is shorter than the rates' common period, a second."""
    waveform = music(2, 2.7)
    whole = resample(waveform, before, after)
    small()
    found = resample(waveform, before, after)
    assert found.shape == whole.shape
    assert np.abs(found - whole).max() < 1e-6  # float32, summed in another order


def test_seams_in_blocks(small: Callable[[], None]) -> None:
    first, second = music(2, 1.0), music(2, 1.5, seed=1)

    def results() -> list[np.ndarray]:
        return [
            join(first, second, kept=8_000, fade=960),
            blend(first, second, [Region(0.2, 0.4)], sample_rate=RATE, fade=0.03),
            conform(second, RATE, RATE, channels=1),
            conform(second, RATE, RATE, channels=3, samples=60_000),
        ]

    whole = results()
    small()
    for found, wanted in zip(results(), whole, strict=True):
        assert np.array_equal(found, wanted)


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subtype", ["pcm16", "pcm24", "float32"])
@pytest.mark.parametrize("extension", [".wav", ".flac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_file_has_the_same_bytes_wherever_it_was_encoded(
    small: Callable[[], None], extension: str, subtype: Any, channels: int
) -> None:
    if (extension, subtype) == (".flac", "float32"):
        pytest.skip("FLAC holds whole numbers only")
    tags = {"title": "a title", "comment": "x" * 10_001}
    for given in ({}, tags):
        whole = encode_audio(Path(f"a{extension}"), music(channels), RATE, subtype, tags=given)
        assert isinstance(whole, bytes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocks, "IN_MEMORY", 1_000)
            found = encode_audio(Path(f"a{extension}"), music(channels), RATE, subtype, tags=given)
        assert isinstance(found, mmap.mmap)
        assert found[:] == whole


def test_vorbis_from_a_temporary_file_is_whole(small: Callable[[], None], tmp_path: Path) -> None:
    small()
    write_audio(tmp_path / "a.ogg", music(), RATE, "pcm16")
    assert read_audio(tmp_path / "a.ogg")[0].shape == (2, 3 * RATE)
    assert soundfile.info(tmp_path / "a.ogg").subtype == "VORBIS"


@pytest.mark.parametrize("channels", [1, 2])
def test_floats_have_the_bytes_that_scipy_writes(channels: int) -> None:
    wanted = io.BytesIO()
    wavfile.write(wanted, RATE, np.ascontiguousarray(music(channels).T))
    assert encode_audio(Path("a.wav"), music(channels), RATE, "float32") == wanted.getvalue()


def test_a_wav_file_that_cannot_be_is_refused() -> None:
    endless = np.broadcast_to(np.float32(0), (2, 1 << 30))  # 4 GiB of 16 bits, which take no memory here
    with pytest.raises(OutputError, match=r"a\.wav would have 4\.0 GiB, more than a WAV file can hold") as caught:
        encode_audio(Path("a.wav"), endless, RATE, "pcm16")
    assert ".flac" in caught.value.hint


# -- memory -----------------------------------------------------------------------------------------------------------


def test_levelling_takes_memory_for_a_block_only() -> None:
    """Two minutes, 15 MB, of which the meters alone would hold hundreds at once."""
    done = run_within(
        60,
        """
        import numpy as np
        from magnet_cli.audio import blocks
        from magnet_cli.audio.loudness import normalize
        from magnet_cli.options.output import OutputConfig
        blocks.BLOCK, blocks.IN_MEMORY = 1 << 16, 1 << 20
        normalize(np.random.default_rng(0).uniform(-1, 1, (1, 1 << 17)).astype(np.float32), 32_000, OutputConfig())
        waveform = blocks.empty((1, 120 * 32_000))
        for part in blocks.spans(waveform.shape[1]):
            waveform[:, part] = np.random.default_rng(part.start).uniform(-1, 1, part.stop - part.start)
        """,
        "print(normalize(waveform, 32_000, OutputConfig()).reached)",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"


def test_what_is_returned_is_of_one_kind(small: Callable[[], None]) -> None:
    small()
    result = normalize(music(), RATE, OutputConfig())
    assert isinstance(result, Normalized)
    assert isinstance(result.waveform, np.memmap)  # an ndarray as any other, for whoever uses it
    assert result.waveform[:, ::2].copy().shape == (2, 48_000)
