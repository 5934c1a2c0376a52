"""The measures of a clip: what each of them says, and all of them of one waveform."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from magnet_cli.audio.blocks import Waveform
from magnet_cli.audio.loudness import measure
from magnet_cli.errors import UsageError, did_you_mean
from magnet_cli.judge.repetition import repetition
from magnet_cli.judge.sound import bandwidth, clipping, comb, silence, stereo_width
from magnet_cli.music.onsets import find_onsets
from magnet_cli.music.tempo import LONGEST, NEAR, Tempo, tempo_of

SHORTEST = 0.1  # seconds: below it, no measure means anything
MOST_CHANNELS = 5  # that BS.1770 has gains for

Scores = dict[str, float | None]
Bounds = tuple[float, float]  # slowest and fastest bpm


@dataclass(frozen=True)
class Measure:
    """What a measure is. heading: of its column; form: of a value; needs_model: whether it needs a MAGNeT model."""

    heading: str
    form: Callable[[float], str]
    meaning: str
    needs_model: bool = False


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _decimals(digits: int, unit: str = "") -> Callable[[float], str]:
    # Adding 0.0 turns -0.0 into 0.0.
    return lambda value: f"{round(value, digits) + 0.0:,.{digits}f}{unit}"


MEASURES: dict[str, Measure] = {
    "tempo": Measure("bpm", _decimals(1), "The tempo that is heard."),
    "tempo_right": Measure("right tempo", _percent, "Whether it is the tempo that the text asks for, within 2 %."),
    "silence": Measure("silent", _percent, "Share of the time below -60 dB."),
    "clipping": Measure("clipped", lambda value: f"{100 * value:.3f} %", "Share of the samples that are cut off."),
    "lufs": Measure("LUFS", _decimals(1), "Integrated loudness."),
    "true_peak": Measure("dBTP", _decimals(1), "True peak."),
    "bandwidth": Measure("bandwidth", _decimals(0, " Hz"), "The frequency up to which the sound reaches."),
    "stereo_width": Measure("width", _decimals(2), "Share of the energy in the difference of two channels."),
    "repetition": Measure("repetition", _decimals(2), "How alike each bar or second is to its nearest other one."),
    "comb": Measure("comb", _decimals(1, " dB"), "Tones at the multiples of the codec's frame rate.", True),
    "likelihood": Measure("likelihood", _decimals(3), "How much more probable the text makes the codes.", True),
}


def chosen(names: Collection[str] | None, *, has_model: bool) -> tuple[str, ...]:
    """The measures of these names, in their order; None: all that are possible. UsageError for those that are not."""
    if names is None:
        return tuple(name for name, one in MEASURES.items() if has_model or not one.needs_model)
    for name in names:
        if name not in MEASURES:
            raise UsageError(
                f"unknown measure {name!r}", did_you_mean(name, MEASURES, f"Give some of {', '.join(MEASURES)}")
            )
        if MEASURES[name].needs_model and not has_model:
            raise UsageError(f"the measure {name} needs a model", "Name one, e.g. --model bundled")
    if not names:
        raise UsageError("no measure is named", f"Give some of {','.join(MEASURES)}")
    return tuple(name for name in MEASURES if name in names)


def check(waveform: Waveform, sample_rate: int) -> None:
    """Raise UsageError for a waveform that cannot be measured."""
    channels, samples = waveform.shape
    if samples < SHORTEST * sample_rate:
        raise UsageError(
            f"the clip lasts {samples / sample_rate:.3f} s; at least {SHORTEST:g} s are needed", "Give a longer clip"
        )
    if channels > MOST_CHANNELS:
        raise UsageError(f"the clip has {channels} channels; at most {MOST_CHANNELS} are measured", "Mix it down")


def measure_sound(
    waveform: Waveform,
    sample_rate: int,
    wanted: Collection[str],
    *,
    asked: Collection[Bounds] = (),
    loop: bool = False,
    frame_rate: float | None = None,
) -> Scores:
    """The wanted measures of a waveform [C, L] that follow from its samples; those of no value are None.

    asked: the tempi that its text names. loop: its end leads into its beginning. frame_rate: of the codec, for `comb`.
    """
    found: Scores = {}
    if {"tempo", "tempo_right", "repetition"} & set(wanted):
        heard = waveform if loop else waveform[:, : round(LONGEST * sample_rate)]
        onsets = find_onsets(heard, sample_rate, loop=loop)
        tempo = tempo_of(onsets, near=sum(map(sum, asked)) / (2 * len(asked)) if asked else None)
        found["tempo"] = None if tempo is None else tempo.bpm
        found["tempo_right"] = float(is_right(tempo, asked)) if asked else None
        found["repetition"] = repetition(onsets, bpm=None if tempo is None else tempo.bpm)
    if {"lufs", "true_peak"} & set(wanted):
        loudness = measure(waveform, sample_rate)
        found |= {"lufs": loudness.lufs, "true_peak": loudness.true_peak}
    single: dict[str, Callable[[], float | None]] = {
        "silence": lambda: silence(waveform, sample_rate),
        "clipping": lambda: clipping(waveform),
        "bandwidth": lambda: bandwidth(waveform, sample_rate),
        "stereo_width": lambda: stereo_width(waveform),
        "comb": lambda: None if frame_rate is None else comb(waveform, sample_rate, frame_rate),
    }
    found |= {name: function() for name, function in single.items() if name in wanted}
    return {name: found[name] for name in MEASURES if name in wanted and name in found}


def is_right(tempo: Tempo | None, asked: Collection[Bounds]) -> bool:
    """Whether a measured tempo is one of those that are asked for, within 2 %. No clear beat is wrong."""
    if tempo is None:
        return False
    return any(slowest * (1 - NEAR) <= tempo.bpm <= fastest * (1 + NEAR) for slowest, fastest in asked)
