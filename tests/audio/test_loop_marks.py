"""The chunks of a loop in a WAV file, read by libsndfile and by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from magnet_cli.audio.files import encode_audio, write_audio
from magnet_cli.audio.riff_info import LoopMarks, read_tags
from magnet_cli.options.output import Subtype

RATE = 44_100
SOUND = np.random.default_rng(0).uniform(-1, 1, (2, 12_345)).astype(np.float32)
# libsndfile's commands and structures, sndfile.h: SFC_GET_LOOP_INFO and SFC_GET_INSTRUMENT.
LOOP_INFO, LOOP_INFO_FORMAT = 0x10E0, "hhiifi6i"
INSTRUMENT, INSTRUMENT_FORMAT = 0x10D0, "i8bi" + "iIII" * 16


def chunks(path: Path) -> dict[bytes, bytes]:
    """The chunks of a WAV file."""
    content, found, position = path.read_bytes(), {}, 12
    assert struct.unpack("<4sI4s", content[:12]) == (b"RIFF", len(content) - 8, b"WAVE")
    while position < len(content):
        name, size = struct.unpack("<4sI", content[position : position + 8])
        found[name] = content[position + 8 : position + 8 + size]
        position += 8 + size + size % 2
    assert position == len(content)
    return found


def asked(path: Path, command: int, form: str) -> tuple[float, ...] | None:
    """What libsndfile says to a command; None if the file has no answer."""
    buffer = soundfile._ffi.new("char[]", struct.calcsize(form))
    with soundfile.SoundFile(path) as file:
        answered = soundfile._snd.sf_command(file._file, command, buffer, struct.calcsize(form))
    return struct.unpack(form, bytes(soundfile._ffi.buffer(buffer))) if answered else None


@pytest.mark.parametrize("subtype", ["pcm16", "pcm24", "float32"])
def test_a_loop_is_marked_for_daws_and_samplers(tmp_path: Path, subtype: Subtype) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(encode_audio(path, SOUND, RATE, subtype, tags={"title": "x"}, marks=LoopMarks(16, 97.5)))
    found = chunks(path)
    flags, root, _, _, beats, denominator, numerator, bpm = struct.unpack("<IHHfIHHf", found[b"acid"])
    assert not flags & 0x01  # one-shot
    assert not flags & 0x02  # the root note is set
    assert flags & 0x04  # stretch
    assert (root, beats, numerator, denominator, bpm) == (60, 16, 4, 4, 97.5)
    values = struct.unpack("<15I", found[b"smpl"])
    assert values[2] == round(1e9 / RATE)
    assert (values[3], values[7], values[8]) == (60, 1, 0)  # unity note, one loop, no data of a sampler
    assert values[10:] == (0, 0, SOUND.shape[1] - 1, 0, 0)  # forward, over all of the clip, without end
    info = asked(path, LOOP_INFO, LOOP_INFO_FORMAT)
    assert info is not None
    assert info[:2] == (4, 4)
    assert info[2] == 801  # SF_LOOP_FORWARD: not a one-shot
    assert info[3] == 16
    assert info[4] == 97.5
    assert info[5] == -1  # the root note is not set
    instrument = asked(path, INSTRUMENT, INSTRUMENT_FORMAT)
    assert instrument is not None
    assert instrument[1] == 60 or instrument[2] == 60
    assert instrument[9] == 1  # loops
    start, end = instrument[11], instrument[12]
    assert (start, end) == (0, SOUND.shape[1])  # libsndfile's end is exclusive
    assert read_tags(path) == {"title": "x"}
    again, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert (rate, again.shape) == (RATE, SOUND.T.shape)
    assert np.abs(again.T - SOUND).max() <= 2.0**-15


def test_a_loop_without_a_tempo_has_loop_points_only(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    write_audio(path, SOUND, RATE, "pcm16", marks=LoopMarks())
    assert b"smpl" in chunks(path)
    assert b"acid" not in chunks(path)
    assert asked(path, LOOP_INFO, LOOP_INFO_FORMAT) is None


def test_other_clips_have_no_marks_and_the_bytes_they_had(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    write_audio(path, SOUND, RATE, "pcm16")
    assert set(chunks(path)) == {b"fmt ", b"data"}
    assert encode_audio(path, SOUND, RATE, "pcm16") == path.read_bytes()
