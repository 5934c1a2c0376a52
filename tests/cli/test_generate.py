"""The `magnet` command through its entry point: exit codes, stdout, stderr, files."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyloudnorm
import pytest
import soundfile
import torch

from magnet_cli import SamplingConfig
from support.command import Magnet, one_line_error, seconds_when_idle
from support.golden import GOLDEN

MUSIC, SOUND = str(GOLDEN / "music"), str(GOLDEN / "sound")
QUICK = ("--steps", "2,1,1,1", "--device", "cpu")
FLOAT32 = ("--dtype", "float32")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "magnet_cli", *arguments]


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# -- the main job -----------------------------------------------------------------------------------------------------


def test_a_prompt_becomes_a_normalized_wav(magnet: Magnet, tmp_path: Path) -> None:
    result = magnet("generate", "disco beat", "-o", "out.wav", "--model", MUSIC, "--seed", "7", *QUICK, *FLOAT32)
    assert result.code == 0
    assert result.out == "out.wav\n"
    assert "model music" in result.err
    assert "device cpu" in result.err
    assert "dtype float32" in result.err
    assert "seed 7" in result.err
    assert files(tmp_path) == ["out.json", "out.wav"]
    waveform, rate = soundfile.read(tmp_path / "out.wav")
    assert (rate, len(waveform)) == (32_000, 99 * 640)
    assert soundfile.info(tmp_path / "out.wav").subtype == "PCM_16"
    # 0.5 LU is what is promised; pyloudnorm's default filters differ from the standard's by up to 0.06 LU.
    assert pyloudnorm.Meter(rate).integrated_loudness(waveform) == pytest.approx(-14, abs=0.5)


def test_json_tells_everything(magnet: Magnet) -> None:
    result = magnet(
        "generate",
        "café 🎵",
        "-o",
        "x.flac",
        "--model",
        SOUND,
        "--seed",
        "3",
        "--json",
        "--save-codes",
        *QUICK,
        *FLOAT32,
    )
    (record,) = result.records
    assert record["path"] == "x.flac"
    assert record["prompt"] == "café 🎵"
    assert record["seed"] == 3
    assert record["sample_rate"] == 16_000
    assert record["seconds"] == pytest.approx(99 / 50)
    assert record["model"]["task"] == "sound"
    assert (record["device"], record["dtype"]) == ("cpu", "float32")
    assert record["true_peak"] <= -1.0
    # The sound models' own defaults, but for what was asked.
    sampling = record["sampling"]
    assert (sampling["temperature"], sampling["top_p"], sampling["guidance"]) == (3.5, 0.8, 20.0)
    assert sampling["steps"] == [2, 1, 1, 1]
    waveform, rate = soundfile.read("x.flac")
    measured = pyloudnorm.Meter(rate, filter_class="DeMan").integrated_loudness(waveform)
    assert record["lufs"] == pytest.approx(measured, abs=0.01)  # 16-bit rounding
    with np.load("x.codes.npz") as archive:
        assert archive["codes"].shape == (4, 99)
        assert archive["codes"].max() < 64


def test_the_same_seed_writes_the_same_file(magnet: Magnet) -> None:
    for name in ("a.wav", "b.wav"):
        options = ("--model", MUSIC, "--seed", "5", "--no-metadata")  # that holds times, which differ
        assert magnet("generate", "x", "-o", name, *options, *QUICK).code == 0
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()


def test_a_drawn_seed_is_reported_and_works(magnet: Magnet) -> None:
    options = ("--model", MUSIC, "--no-metadata", *QUICK)
    (first,) = magnet("generate", "x", "-o", "a.wav", "--json", *options).records
    magnet("generate", "x", "-o", "b.wav", "--seed", str(first["seed"]), *options)
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()


def test_prompts_and_variations_go_to_a_folder(magnet: Magnet, tmp_path: Path) -> None:
    result = magnet("generate", "a/b", "ünï", "-n", "2", "-o", "new/", "--model", MUSIC, "--seed", "7", *QUICK)
    wanted = ["new/01-a-b-7.wav", "new/02-a-b-8.wav", "new/03-uni-7.wav", "new/04-uni-8.wav"]
    assert result.out.splitlines() == wanted
    assert files(tmp_path) == sorted(wanted + [str(Path(name).with_suffix(".json")) for name in wanted])


def test_a_template_names_the_files(magnet: Magnet) -> None:
    result = magnet("generate", "a", "b", "-o", "{model}-{slug}-{seed}.ogg", "--model", SOUND, "--seed", "1", *QUICK)
    assert result.out.splitlines() == ["sound-a-1.ogg", "sound-b-1.ogg"]
    assert soundfile.info("sound-a-1.ogg").format == "OGG"


def test_a_dash_reads_the_prompt_from_standard_input(magnet: Magnet) -> None:
    result = magnet("generate", "-", "-o", "x.wav", "--model", MUSIC, "--json", *QUICK, stdin="rain on\na roof\n")
    assert result.records[0]["prompt"] == "rain on\na roof"


def test_quiet_prints_results_only(magnet: Magnet) -> None:
    result = magnet("generate", "x", "-o", "x.wav", "--model", MUSIC, "--seed", "1", "-q", *QUICK)
    assert (result.out, result.err) == ("x.wav\n", "")


def test_a_drawn_seed_is_reported_even_when_quiet(magnet: Magnet) -> None:
    result = magnet("generate", "x", "-o", "x.wav", "--model", MUSIC, "-q", *QUICK)
    assert re.fullmatch(r"seed \d+\n", result.err)


def test_verbose_shows_sampling_and_timings(magnet: Magnet) -> None:
    result = magnet("generate", "x", "-o", "x.wav", "--model", MUSIC, "-v", *QUICK)
    assert "temperature 3.0" in result.err
    assert "decode" in result.err


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (["--preset", "fast"], {"steps": [12, 4, 4, 4]}),
        (["--preset", "best", "--steps", "3,1,1,1"], {"steps": [3, 1, 1, 1], "spans": "stride1"}),
        (["--greedy", "--steps", "1,1,1,1"], {"greedy": True, "steps": [1, 1, 1, 1]}),
        (["--top-k", "5", "--steps", "1,1,1,1"], {"top_k": 5, "top_p": None, "steps": [1, 1, 1, 1]}),
        (
            ["--temperature", "2", "--guidance", "4", "--min-guidance", "2", "--no-anneal", "--steps", "1,1,1,1"],
            {"temperature": 2.0, "guidance": 4.0, "min_guidance": 2.0, "anneal": False, "steps": [1, 1, 1, 1]},
        ),
        (
            ["--spans", "stride1", "--span-score", "prod", "--top-p", "1", "--steps", "1,1,1,1"],
            {"spans": "stride1", "span_score": "prod", "top_p": 1.0, "steps": [1, 1, 1, 1]},
        ),
        (
            ["--guidance-schedule", "rising", "--guidance-start", "0.1", "--guidance-end", ".9", "--steps", "1,1,1,1"],
            {"guidance_schedule": "rising", "guidance_start": 0.1, "guidance_end": 0.9, "steps": [1, 1, 1, 1]},
        ),
        (["--span-order", "corput", "--steps", "2,1,1,1"], {"span_order": "corput", "steps": [2, 1, 1, 1]}),
        (
            ["--span-order", "hybrid", "--order-noise", "2.5", "--steps", "2,1,1,1"],
            {"span_order": "hybrid", "order_noise": 2.5, "steps": [2, 1, 1, 1]},
        ),
        (["--remask", "0.5", "--steps", "3,1,1,1"], {"remask": 0.5, "steps": [3, 1, 1, 1]}),
        (["--entropy-bound", "1.5", "--steps", "1,2,2,2"], {"entropy_bound": 1.5, "steps": [1, 2, 2, 2]}),
    ],
    ids=[
        "fast",
        "best with steps",
        "greedy",
        "top-k",
        "guidance",
        "spans",
        "guidance over the steps",
        "span order",
        "order noise",
        "remasking",
        "entropy",
    ],
)
def test_sampling_options_reach_the_decoder(magnet: Magnet, options: list[str], changed: dict[str, Any]) -> None:
    result = magnet("generate", "x", "-o", "x.wav", "--model", MUSIC, "--json", "--device", "cpu", *options)
    defaults = json.loads(json.dumps({name: getattr(SamplingConfig(), name) for name in vars(SamplingConfig())}))
    assert result.records[0]["sampling"] == defaults | changed


@pytest.mark.parametrize(("bound", "passes"), [("0", 14), ("0.000001", 14), ("100000", 5)])
def test_the_record_has_the_number_of_steps_that_a_clip_took(magnet: Magnet, bound: str, passes: int) -> None:
    options = ("--steps", "2,4,4,4", "--entropy-bound", bound, "--seed", "1", "--device", "cpu", "--json")
    (record,) = magnet("generate", "x", "-o", "x.wav", "--model", MUSIC, *options).records
    assert record["passes"] == passes
    assert magnet("replay", "x.wav", "--check").out == "same\n"


def test_output_options_reach_the_file(magnet: Magnet) -> None:
    options = ("--duration", "1.2", "--lufs", "-23", "--true-peak", "-3", "--subtype", "pcm24")
    (record,) = magnet("generate", "x", "-o", "x.wav", "--model", MUSIC, "--json", *options, *QUICK).records
    assert record["seconds"] == 1.2
    assert record["lufs"] == pytest.approx(-23, abs=0.5)
    assert record["true_peak"] <= -3
    assert soundfile.info("x.wav").subtype == "PCM_24"
    (record,) = magnet(
        "generate", "x", "-o", "p.wav", "--model", MUSIC, "--json", "--normalize", "peak", *QUICK
    ).records
    assert record["true_peak"] == pytest.approx(-1, abs=0.01)  # a pure gain, exact but for float32


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["x", "--model", "/no/such/folder"], 3, ["/no/such/folder"]),
        (["x", "--model", "magnet-smal"], 2, ["Did you mean magnet-small-"]),
        (["x", "--model", __file__], 3, ["folder"]),
        ([""], 2, ["empty"]),
        (["-"], 2, ["empty"]),
        (["x" * 10_001], 2, ["10,001 characters"]),
        (["x", "--model", MUSIC, "--steps", "20,10"], 2, ["4 codebooks", "--steps 20,10,10,10"]),
        (["x", "--steps", "a,b"], 2, ["whole numbers"]),
        (["x", "--steps", "0,1,1,1"], 2, ["from 1 to 1000"]),
        (["x", "--top-p", "0"], 2, ["top-p must be above 0"]),
        (["x", "--top-p", "0.5", "--top-k", "3"], 2, ["one of the two"]),
        (["x", "--preset", "slow"], 2, ["fast, balanced, best"]),
        (["x", "--spans", "x"], 2, ["nonoverlap or stride1"]),
        (["x", "--temperature", "-1"], 2, ["temperature"]),
        (["x", "--seed", "-1"], 2, ["seed"]),
        (["x", "-n", "0"], 2, ["variations"]),
        (["x", "--device", "tpu"], 2, ["cuda"]),
        (["x", "--dtype", "int3"], 2, ["float32"]),
        (["x", "--model", MUSIC, "--device", "cuda:77"], 5, ["--device cpu"]),
        (["x", "-o", "x.aac"], 2, [".wav"]),
        (["x", "-o", "x.flac", "--subtype", "float32"], 2, ["float32"]),
        (["x", "y", "-o", "x.wav"], 2, ["x-{index}.wav"]),
        (["x", "-o", "{nope}.wav"], 2, ["{nope}"]),
        (["x", "--model", MUSIC, "--overlap", "99", "--duration", "99"], 2, ["overlap 99 s leaves nothing"]),
        (["x", "--lufs", "5"], 2, ["lufs"]),
        (["x", "--duration", "0.00001"], 2, ["0.05"]),
        (["x", "--duration", "4000"], 2, ["3,600 seconds"]),
        (["x", "--steps", "20,10"], 2, ["4 codebooks"]),
        (["x", "--steps", "99999999999999999999,1,1,1"], 2, ["whole numbers"]),
        (["x", "--guidance", "1e300"], 2, ["1000"]),
        (["x", "-n", "1000000000"], 2, ["10,000"]),
        (["-", "-"], 2, ["twice"]),
        (["x", "-o", "-"], 2, ["standard output"]),
        (["x", "-o", ""], 2, ["empty"]),
        (["x", "-o", "a" * 300 + ".wav"], 7, ["too long"]),
        (["x", "-o", "a" * 300 + "/"], 7, ["too long"]),
        (["x", "-o", "a" * 249 + ".wav", "--save-codes"], 7, ["too long"]),
        (["x", "-o", "~nosuchuser/x.wav", "--model", "/no/such"], 3, ["/no/such"]),
        (["x", "--model", "~nosuchuser/x"], 3, ["~nosuchuser"]),
        (["x", "--model", "someone/private-model"], 4, ["someone/private-model"]),
    ],
    ids=lambda value: " ".join(map(str, value))[:40] if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_with_a_remedy(
    magnet: Magnet, tmp_path: Path, arguments: list[str], code: int, parts: list[str]
) -> None:
    one_line_error(magnet("generate", *arguments), code, *parts)
    assert files(tmp_path) == []


def test_unknown_options_are_usage_errors(magnet: Magnet) -> None:
    result = magnet("generate", "x", "--colour", "red")
    assert result.code == 2
    assert "--colour" in result.err


def test_a_long_prompt_is_used_whole_with_a_warning(magnet: Magnet) -> None:
    result = magnet("generate", "drum " * 2000, "-o", "x.wav", "--model", MUSIC, "--json", *QUICK)
    assert result.code == 0
    assert result.records[0]["tokens"] > 2000
    assert "warning: " in result.err
    assert "512" in result.err


@pytest.mark.parametrize("existing", ["x.wav", "x.codes.npz"])
def test_an_existing_file_is_refused_before_any_work(magnet: Magnet, tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("mine")
    result = magnet("generate", "x", "-o", "x.wav", "--save-codes", "--model", "someone/nothing")
    one_line_error(result, 7, existing, "--force")
    assert files(tmp_path) == [existing]
    assert (tmp_path / existing).read_text() == "mine"


def test_force_overwrites(magnet: Magnet, tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_text("mine")
    assert magnet("generate", "x", "-o", "x.wav", "--force", "--model", MUSIC, *QUICK).code == 0
    assert soundfile.info(tmp_path / "x.wav").frames == 99 * 640


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(magnet: Magnet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    one_line_error(magnet("generate", "x", "-o", "file/x.wav", "--model", "someone/nothing"), 7, "file")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder where even root cannot write")
def test_a_read_only_folder_is_refused(magnet: Magnet) -> None:
    one_line_error(magnet("generate", "x", "-o", "/proc/x.wav", "--model", MUSIC, *QUICK), 7, "/proc")


def copy_model(target: Path) -> Path:
    shutil.copytree(MUSIC, target)
    return target


def change_decoder(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    package = torch.load(folder / "state_dict.bin", weights_only=True)
    change(package["best_state"])
    torch.save(package, folder / "state_dict.bin")


class Payload:
    """A pickle that would create a file if it were read without restrictions."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(self.marker),))


def test_bad_checkpoints_are_one_line_with_a_remedy(magnet: Magnet, tmp_path: Path) -> None:
    model = copy_model(tmp_path / "model")
    run = lambda: magnet("generate", "x", "-o", "x.wav", "--model", str(model), *QUICK)  # noqa: E731

    change_decoder(model, lambda state: state.pop("out_norm.weight"))  # type: ignore[arg-type, return-value]
    one_line_error(run(), 3, "out_norm.weight is missing")

    shutil.copy(GOLDEN / "music/state_dict.bin", model)
    change_decoder(model, lambda state: state.update({"surprise": torch.zeros(1)}))
    one_line_error(run(), 3, "surprise is not expected")

    shutil.copy(GOLDEN / "music/state_dict.bin", model)
    change_decoder(model, lambda state: state.update({"emb.0.weight": torch.zeros(3, 3)}))
    one_line_error(run(), 3, "has shape [3, 3] instead of [65, 32]")

    shutil.copy(GOLDEN / "music/state_dict.bin", model)
    change_decoder(model, lambda state: state["linears.0.weight"].fill_(float("nan")))  # type: ignore[arg-type, return-value]
    one_line_error(run(), 6, "not finite", "codebook 0", "step 0")

    (model / "state_dict.bin").write_text("just text")
    one_line_error(run(), 3, "state_dict.bin")

    marker = tmp_path / "executed"
    torch.save({"best_state": Payload(str(marker)), "xp.cfg": ""}, model / "state_dict.bin")
    one_line_error(run(), 3, "refused")
    assert not marker.exists()

    (model / "state_dict.bin").unlink()
    one_line_error(run(), 3, "no state_dict.bin")
    assert not (tmp_path / "x.wav").exists()


def test_a_missing_text_encoder_is_named(magnet: Magnet, tmp_path: Path) -> None:
    model = copy_model(tmp_path / "model")
    shutil.rmtree(model / "t5-base")
    one_line_error(magnet("generate", "x", "--model", str(model), *QUICK), 4, "t5-base")


# -- as a process -----------------------------------------------------------------------------------------------------


def test_help_takes_at_most_three_tenths_of_a_second() -> None:
    seconds, runs = seconds_when_idle("-m", "magnet_cli", "--help")
    assert all("generate" in done.stdout for done in runs)
    assert seconds < 0.3


def test_progress_is_shown_on_a_terminal_and_results_stay_on_stdout(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    arguments = command("generate", "x", "-o", str(tmp_path / "x.wav"), "--model", MUSIC, *QUICK)
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # how Linux reports that the other side has closed
            break
        if not chunk:
            break
        shown += chunk
    out, _ = process.communicate()
    os.close(master)
    assert process.returncode == 0
    assert out == f"{tmp_path / 'x.wav'}\n"
    assert "clip 1/1 · codebook" in shown.decode()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_no_partial_file(tmp_path: Path, number: int, code: int) -> None:
    steps = ("--steps", "2,1,1,1", "--device", "cpu")
    arguments = command("generate", "x", "-n", "500", "-o", f"{tmp_path}/", "--model", MUSIC, *steps)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = process.stdout.readline().strip()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    clips = sorted(str(path) for path in tmp_path.glob("*.wav"))
    # The signal may come when a clip has its name and before that is printed.
    printed = sorted([first, *out.split()])
    assert clips in (printed, sorted({*printed, *clips[-1:]}))
    assert len(clips) < 500
    assert files(tmp_path) == sorted(f"{Path(clip).stem}{suffix}" for clip in clips for suffix in (".json", ".wav"))
    for clip in clips:
        assert soundfile.info(clip).frames == 99 * 640
        assert json.loads(Path(clip).with_suffix(".json").read_text())["prompt"] == "x"


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    arguments = command("generate", "x", "-n", "3", "-o", f"{tmp_path}/", "--model", MUSIC, *QUICK)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode != 0
    assert "Traceback" not in err


def test_version(magnet: Magnet) -> None:
    assert magnet("--version").out.startswith("magnet 0.")
