"""`magnet batch` through its entry point: what is made, what is skipped, what is refused, what fails alone."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from magnet_cli import Job, Pipeline, RuntimeConfig, SamplingConfig
from magnet_cli.errors import MagnetWarning, MemoryShortageError, NumericsError
from magnet_cli.jobs.manifest import MANIFEST_FILE, Header, Manifest, digest
from magnet_cli.jobs.plan import BatchPlan, Request, plan_batch, plan_rows
from magnet_cli.jobs.prompt_file import Problems, read_prompt_file
from magnet_cli.jobs.seal import sealed
from magnet_cli.options.output import OutputConfig
from magnet_cli.options.sampling_overrides import Overrides
from magnet_cli.pipeline.inputs import InputFiles
from magnet_cli.pipeline.pipeline import Clip
from support.command import Magnet, Result, one_line_error

# So little guidance and so much randomness that every clip has other codes.
QUICK = ("--steps", "2,1,1,1", "--temperature", "10", "--guidance", "1", "--device", "cpu")

Batch = Callable[..., Result]


@pytest.fixture
def batch(magnet: Magnet, tiny: str, tmp_path: Path) -> Batch:
    """Run a batch of these lines into clips/, in which rows without a seed have the batch's."""

    def run(lines: str | Sequence[str], *options: str, name: str = "p.txt", output: str = "clips") -> Result:
        text = lines if isinstance(lines, str) else "\n".join(lines)
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        return magnet("batch", name, "-o", output, "--model", tiny, "--same-seed", *QUICK, *options)

    return run


def names(folder: str | Path = "clips") -> list[str]:
    """The files in a folder but for the manifest, its lock and what shows the results."""
    found = (path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())
    return sorted(name for name in found if name not in (MANIFEST_FILE, ".magnet.lock", "results.csv", "index.html"))


def both(*stems: str) -> list[str]:
    return sorted(f"{stem}{suffix}" for stem in stems for suffix in (".json", ".wav"))


def records(folder: str | Path = "clips") -> dict[tuple[str, int], dict[str, Any]]:
    """What the sidecars say, by prompt and seed."""
    found = [json.loads(path.read_text()) for path in sorted(Path(folder).rglob("*.json"))]
    by_clip = {(one["prompt"], one["seed"]): one for one in found}
    assert len(by_clip) == len(found), "a clip was made twice"
    return by_clip


def noted(folder: str = "clips") -> list[dict[str, Any]]:
    """The lines of the manifest about items."""
    lines = (Path(folder) / MANIFEST_FILE).read_text().splitlines()
    return [line for line in map(json.loads, lines) if "item" in line]


# -- the main job -----------------------------------------------------------------------------------------------------


def test_a_batch_goes_into_a_folder(batch: Batch) -> None:
    done = batch("# comment\ndisco beat\n\nrain\n", "--seed", "5")
    assert (done.code, done.out) == (0, "clips/01-disco-beat-5.wav\nclips/02-rain-5.wav\n")
    assert names() == both("01-disco-beat-5", "02-rain-5")
    assert soundfile.info("clips/02-rain-5.wav").frames == 15 * 640
    assert "[1/2, " in done.err
    assert " a minute, " in done.err
    assert "generated 2 clips in " in done.err
    again = batch("# comment\ndisco beat\n\nrain\n", "--seed", "5")
    assert (again.code, again.out) == (0, "")
    assert again.err == "2 of 2 clips already generated\nnothing to generate\n"
    assert "generated 1 clip in " in batch("disco beat\nrain\nwind\n", "--seed", "5").err


def test_rows_have_their_own_options(batch: Batch) -> None:
    lines = [
        'prompt,seed,variations,output,steps,top_k,greedy\n"rain,\n wind",9,2,drums/kick,"3,1,1,1",5,\n',
        "snow,,,,,,true\nhail,3,,kick.FLAC,,,\nsleet,3,,kick.flac,,,\n",
    ]
    done = batch("".join(lines), "--seed", "1", name="p.csv")
    assert done.code == 0, done.err
    pairs = both("03-snow-1", "drums/kick", "drums/kick-2")
    assert names() == [*pairs, "kick-2.flac", "kick-2.json", "kick.FLAC", "kick.json"]
    made = records()
    assert made.keys() == {("rain,\n wind", 9), ("rain,\n wind", 10), ("snow", 1), ("hail", 3), ("sleet", 3)}
    assert made["rain,\n wind", 10]["sampling"]["steps"] == [3, 1, 1, 1]
    assert (made["rain,\n wind", 9]["sampling"]["top_k"], made["rain,\n wind", 9]["sampling"]["top_p"]) == (5, None)
    assert made["snow", 1]["sampling"]["greedy"] is True
    assert made["snow", 1]["sampling"]["steps"] == [2, 1, 1, 1]


def test_neighbours_change_neither_seed_nor_codes(batch: Batch, magnet: Magnet, tiny: str) -> None:
    assert batch("a\nb\na\nc\n", "--seed", "5", "--batch-size", "3").code == 0
    together = records()
    assert together.keys() == {("a", 5), ("a", 6), ("b", 5), ("c", 5)}
    assert [one["batch"] for one in together.values()].count(3) == 3
    assert batch("c\na\n", "--seed", "5", output="alone").code == 0
    assert magnet("generate", "b", "-o", "alone/b.wav", "--model", tiny, "--seed", "5", *QUICK).code == 0
    alone = records("alone")
    assert len(alone) == 3
    for clip, one in alone.items():
        assert one["codes"] == together[clip]["codes"]
    assert len({one["codes"]["sha256"] for one in together.values()}) == 4


def test_standard_input_is_a_prompt_file(magnet: Magnet, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("batch", "-", "-o", "clips", "--model", tiny, "--same-seed", "--seed", "5", *QUICK)
    assert magnet(*arguments, stdin="rain\n").out == "clips/01-rain-5.wav\n"
    done = magnet(*arguments, "--format", "jsonl", stdin='{"prompt": "rain"}\n{"prompt": "\u00e9t\u00e9"}\n')
    assert done.out == "clips/02-ete-5.wav\n"
    one_line = magnet(*arguments, stdin="\n")
    assert (one_line.code, one_line.out) == (2, "")
    assert "standard input holds no prompts" in one_line.err


def test_json_lines_tell_everything(batch: Batch) -> None:
    (plan,) = batch(["rain"], "--seed", "5", "--dry-run", "--json").records
    assert (plan["path"], plan["state"], plan["line"], plan["seed"]) == ("clips/01-rain-5.wav", "waiting", 1, 5)
    assert plan["sampling"]["steps"] == [2, 1, 1, 1]
    (made,) = batch(["rain"], "--seed", "5", "--json", "--save-codes").records
    assert made["metadata_path"] == "clips/01-rain-5.json"
    assert np.load(made["codes_path"])["codes"].shape == (4, 15)
    assert made["codes"] == json.loads(Path(made["metadata_path"]).read_text())["codes"]
    assert batch(["rain"], "--seed", "5", "--dry-run", "--json").records[0]["state"] == "done"


def test_a_dry_run_makes_nothing_and_tells_the_cost(batch: Batch, tmp_path: Path) -> None:
    done = batch(["rain", "wind"], "--dry-run")
    assert done.code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["p.txt"]
    seed = done.err.split("--seed ")[1].split()[0]
    assert done.out.splitlines()[1] == f"clips/02-wind-{seed}.wav  waiting  seed {seed}  wind"
    assert "2 clips: 0 done, 2 waiting" in done.err
    assert "about 48 kB of disk" in done.err  # 2 x (0.3 s x 32 kHz x 2 B + two records)
    assert "GFLOP/s" in done.err
    unknown = batch(["rain"], "--dry-run", "--model", "magnet-small-10secs", "--offline", "--steps", "20,10,10,10")
    assert unknown.code == 0
    assert "magnet-small-10secs is not downloaded yet" in unknown.err


# -- resuming ---------------------------------------------------------------------------------------------------------


def test_a_drawn_seed_is_kept_and_rows_may_come_and_go(batch: Batch) -> None:
    assert batch(["rain", "wind"]).code == 0
    before = records()
    seed = next(iter(before))[1]
    added = batch(["snow", "rain", "wind", "rain"])
    assert added.out == f"clips/01-snow-{seed}.wav\nclips/04-rain-{seed + 1}.wav\n"
    assert batch(["wind"]).out == ""
    assert records().keys() == {*before, ("snow", seed), ("rain", seed + 1)}
    assert [records()[clip]["created"] for clip in before] == [one["created"] for one in before.values()]
    assert batch(["wind", "hail"], "--seed", str(seed)).code == 0  # the same seed, given


def test_what_is_damaged_or_missing_is_made_again_and_an_edit_is_kept(batch: Batch) -> None:
    arguments = (["rain", "wind", "snow", "hail"], "--seed", "5")
    assert batch(*arguments).code == 0
    before = records()
    os.truncate("clips/01-rain-5.wav", 1000)
    Path("clips/02-wind-5.json").unlink()
    Path("clips/03-snow-5.wav").write_bytes(b"an edit of mine")
    done = batch(*arguments)
    assert done.out == "clips/01-rain-5.wav\nclips/02-wind-5.wav\nclips/03-snow-5.wav\n"
    assert done.err.count("a file had changed since it was written") == 2
    assert Path("clips/03-snow-5.changed-1.wav").read_bytes() == b"an edit of mine"
    assert os.path.getsize("clips/01-rain-5.changed-1.wav") == 1000
    for clip, one in records().items():
        assert one["codes"] == before[clip]["codes"]
    assert batch(*arguments).err.endswith("nothing to generate\n")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--seed", "6"), "seed 5, not 6"),
        (("--seed", "5", "--lufs", "-20"), "(lufs -14.0, not -20.0)"),
        (("--lufs", "-20"), "(lufs -14.0, not -20.0)"),  # a drawn seed tells nothing
        (("--seed", "5", "--guidance", "0"), "(guidance 1.0, not 0.0)"),
        (("--seed", "5", "--greedy"), "(greedy by default, not True)"),
        (("--seed", "5", "-n", "2"), "(variations 1, not 2)"),
    ],
)
def test_another_batch_is_refused_by_the_option_that_differs(batch: Batch, options: tuple[str, ...], told: str) -> None:
    assert batch(["rain"], "--seed", "5").code == 0
    for more in ((), ("--no-resume",), ("--force",), ("--dry-run",)):
        one_line_error(batch(["rain"], *options, *more), 7, "holds another batch", told, "--mix")
    mixed = batch(["rain"], *options, "--mix")
    assert mixed.code == 0
    assert len(names()) > 2
    assert batch(["rain"], "--seed", "5").out == ""


def test_other_prompts_are_another_batch(batch: Batch) -> None:
    assert batch(["rain"], "--seed", "5").code == 0
    one_line_error(batch(["wind"], "--seed", "5"), 7, "holds a batch of other prompts (1 clip)", "--mix")
    assert batch(["wind"], "--seed", "5", "--mix").code == 0
    assert names() == both("01-rain-5", "01-wind-5")


def test_no_resume_makes_all_again_but_overwrites_only_by_force(batch: Batch) -> None:
    assert batch(["rain"]).code == 0
    before = names()
    one_line_error(batch(["rain"], "--no-resume"), 7, "already exists", "--force")
    done = batch(["rain"], "--no-resume", "--force")
    assert done.code == 0
    assert done.out == f"clips/{before[1]}\n"
    assert names() == before
    assert len(noted()) == 2


def test_codes_that_are_wanted_later_are_made(batch: Batch) -> None:
    assert batch(["rain"], "--seed", "5", "--no-metadata").code == 0
    assert names() == ["01-rain-5.wav"]
    assert batch(["rain"], "--seed", "5", "--save-codes").out == "clips/01-rain-5.wav\n"
    assert names() == ["01-rain-5.codes.npz", *both("01-rain-5")]
    assert batch(["rain"], "--seed", "5", "--no-metadata").out == ""


# -- names ------------------------------------------------------------------------------------------------------------


def test_odd_prompts_and_names(batch: Batch) -> None:
    # Of 10,000 characters, but of few tokens: T5 joins white space.
    long = "x" * 70 + " " * 9929 + "y"
    prompts = ["../../etc/passwd", "a/b\\c", "\u202eأغنية", "🎵" * 100, "line\nbreak\r\n\ttab", "CON", long]
    lines = [json.dumps({"prompt": prompt}) for prompt in prompts]
    lines.append(json.dumps({"prompt": "own", "output": "{slug}/{seed}-ä"}))
    done = batch(lines, "--seed", "5", name="p.jsonl")
    assert done.code == 0, done.err
    stems = ["01-etc-passwd-5", "02-a-b-c-5", "03-clip-5", "04-clip-5", "05-line-break-tab-5", "06-con-clip-5"]
    assert names() == both(*stems, f"07-{'x' * 60}-5", "own/5-ä")
    assert {prompt for prompt, _ in records()} == {*prompts, "own"}
    assert len(done.out.splitlines()) == 8


def test_names_that_meet_are_numbered(batch: Batch) -> None:
    rows = [
        {"prompt": p, "output": o} for p, o in [("a", "x"), ("b", "X.wav"), ("c", "x.flac"), ("d", "x-2"), ("e", "x")]
    ]
    assert batch(map_json(rows), "--seed", "5", name="p.jsonl").code == 0
    assert sorted(Path(name).stem for name in names()) == sorted(2 * ["x", "X-3", "x-4", "x-2", "x-5"])
    # Other clips under the same names, into the same folder; a file that is not of the batch has one of them.
    Path("clips/x-6.wav").write_bytes(b"mine")
    again = batch(map_json(rows), "--seed", "6", "--mix", name="p.jsonl")
    assert again.code == 0, again.err
    assert len(names()) == 21
    assert Path("clips/x-6.wav").read_bytes() == b"mine"
    assert len(records()) == 10


def map_json(rows: Sequence[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, rows))


def test_a_clip_that_moves_up_does_not_take_anothers_name(batch: Batch) -> None:
    assert batch(["rain!"], "--seed", "5").code == 0
    assert batch(["rain?", "rain!"], "--seed", "5").out == "clips/01-rain-5-2.wav\n"
    assert records().keys() == {("rain!", 5), ("rain?", 5)}


def test_a_file_in_the_way_is_refused_before_any_work(batch: Batch) -> None:
    Path("clips").mkdir()
    Path("clips/02-wind-5.json").write_text("mine")
    one_line_error(batch(["rain", "wind"], "--seed", "5"), 7, "02-wind-5.json already exists")
    assert names() == ["02-wind-5.json"]


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_every_problem_of_every_row_is_told_before_anything_is_made(batch: Batch) -> None:
    text = (
        "prompt,seed,output,steps,temperature,variations\n"
        'a,-1,../x,"2,1",,\n'
        ",,,,,\n"
        "b,1.5,,,hot,\n"
        "c,,/etc/x,,-1,0\n"
        "d,7,nul,,,\n"
        "e,7,,,,\n"
        "e,7,,,,\n"
        f"f,,{'y' * 201},,,\n"
        f"{'g' * 10_001},,C:x,,,\n"
        'h,,x{wat},"2;1",,\n'
    )
    done = batch(text, "--model", "magnet-small-10secs", "--offline", "--steps", "20,10,10,10", name="p.csv")
    assert (done.code, done.out) == (2, "")
    told = done.err.splitlines()
    parts = [
        *("line 2: steps 2,1 are 2 numbers", "line 2: '../x' is not a valid name", "line 2: seed must be between"),
        *("line 4: seed is '1.5'", "line 4: temperature is 'hot'"),
        *(
            "line 5: temperature must be above 0",
            "line 5: '/etc/x' is not a valid name",
            "line 5: variations must be from 1",
        ),
        *("line 6: 'nul' is a name that Windows reserves", "line 8: the same clip as on line 7"),
        *(
            "line 9: the file name yyy",
            "line 10: 'C:x' is not a valid name",
            "line 10: the prompt has 10,001 characters",
        ),
        *("line 11: steps '2;1' are not", "line 11: unknown field {wat}"),
    ]
    assert told[0] == f"error: p.csv has {len(parts)} problems:"
    assert len(told) == len(parts) + 2
    for line, part in zip(told[1:], parts, strict=False):
        assert line.startswith(f"  {part}")
    assert told[-1] == "Nothing was generated. Correct the file."
    assert not Path("clips").exists()


@pytest.mark.parametrize(
    ("options", "code", "part"),
    [
        (("--seed", "-1"), 2, "seed must be"),
        (("-n", "0"), 2, "variations must be"),
        (("--steps", "2,1"), 2, "steps 2,1 are 2 numbers"),
        (("--temperature", "0"), 2, "temperature must be"),
        (("--batch-size", "0"), 2, "batch size must be"),
        (("--format", "yaml"), 2, "unknown format"),
        (("-o", "x.wav"), 2, "a batch writes into a folder"),
        (("-o", "-"), 2, "a batch writes into a folder"),
        (("-o", "x/{wat}.wav"), 2, "unknown field {wat}"),
        (("-o", "x/{slug}.flac", "--subtype", "float32"), 2, "FLAC stores whole numbers only"),
        (("-o", "p.txt/x"), 7, "cannot write into p.txt/x"),
    ],
)
def test_options_are_refused_for_themselves(batch: Batch, options: tuple[str, ...], code: int, part: str) -> None:
    """And not once for each row."""
    one_line_error(batch(["rain", "wind"], *options), code, part)
    assert names(".") == ["p.txt"]


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """Clips with "bad" in the prompt fail, and more than two at once do not fit; gives the batches that were tried."""
    tried: list[list[str]] = []
    decode = Pipeline._generate_batch

    def odd(self: Pipeline, jobs: Sequence[Job], batch: Sequence[int], *others: Any) -> Iterator[Clip]:
        tried.append([jobs[index].prompt for index in batch])
        if len(batch) > 2:
            raise MemoryShortageError(f"not enough memory for a batch of {len(batch)}", "Use less")
        if any("bad" in jobs[index].prompt for index in batch):
            raise NumericsError("logits are not finite", "Try another seed")
        return decode(self, jobs, batch, *others)

    monkeypatch.setattr(Pipeline, "_generate_batch", odd)
    return iter([tried]).__next__()


def test_memory_that_runs_out_and_a_clip_that_fails_lose_nothing(batch: Batch, failing: list[list[str]]) -> None:
    prompts = ["a", "b", "c", "bad", "d", "e", "f", "g"]
    done = batch(prompts, "--seed", "5", "--batch-size", "8")
    assert done.code == 8
    assert done.err.splitlines()[-1] == "error: 1 of 8 clips failed. Run the same command to try again."
    assert "warning: line 4, 'bad', failed: logits are not finite. Try another seed." in done.err
    assert done.err.count("not enough memory for") == 2
    wanted = ["a", "b", "c", "d", "e", "f", "g"]
    assert [Path(line).name.split("-")[1] for line in done.out.splitlines()] == wanted
    assert sorted(prompt for prompt, _ in records()) == wanted
    assert failing == [
        prompts,
        prompts[:4],
        *(["a", "b"], ["c", "bad"], ["c"], ["bad"]),
        *(["d", "e"], ["f", "g"]),
    ]
    (failed,) = [line for line in noted() if "error" in line]
    wanted_line = {"item": failed["item"], "seconds": 0.0, "error": "logits are not finite", "files": []}
    assert failed == sealed(wanted_line)
    assert len(noted()) == 8
    failing.clear()
    assert batch(prompts, "--seed", "5", "--batch-size", "8").code == 8
    assert failing == [["bad"]]


def test_fail_fast_stops_at_the_first_failure(batch: Batch, failing: list[list[str]]) -> None:
    done = batch(["a", "bad", "b"], "--seed", "5", "--fail-fast")
    assert done.code == 6
    assert done.out == "clips/01-a-5.wav\n"
    assert "error: logits are not finite" in done.err
    assert failing == [["a"], ["bad"]]
    assert ["error" in line for line in noted()] == [False, True]


def test_a_gpu_that_runs_out_of_memory_gets_smaller_batches(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own exception, from within the decoder; alone, a clip that does not fit is an error."""
    pipeline = Pipeline.load(tiny, RuntimeConfig(device="cpu", batch_size=5))
    monkeypatch.setattr(sys.modules[Pipeline.__module__], "decoded_together", lambda device, clips: clips)
    memory, most = type(pipeline.generator.reader.decoder).text_memory, SimpleNamespace(clips=1)

    def scarce(self: Any, states: torch.Tensor, lengths: Any) -> Any:
        if len(lengths) > most.clips:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return memory(self, states, lengths)

    monkeypatch.setattr(type(pipeline.generator.reader.decoder), "text_memory", scarce)
    jobs = [Job("rain", seed, SamplingConfig(steps=(2, 1, 1, 1))) for seed in range(7)]
    with pytest.warns(MagnetWarning, match="not enough memory for"):
        clips = list(pipeline.generate(jobs))
    assert [(clip.index, clip.batch, clip.job.seed) for clip in clips] == [(k, 1, k) for k in range(7)]
    most.clips = 0
    with pytest.raises(MemoryShortageError), pytest.warns(MagnetWarning):
        list(pipeline.generate(jobs))


def test_a_full_disk_stops_the_batch_and_it_goes_on_later(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = [], os.fsync

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) > 7:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        done = batch(["a", "b", "c"], "--seed", "5")
    assert done.code == 7
    assert "No space left on device" in done.err.splitlines()[-1]
    assert names() == both("01-a-5")
    assert batch(["a", "b", "c"], "--seed", "5").out == "clips/02-b-5.wav\nclips/03-c-5.wav\n"


@pytest.mark.parametrize("change", ["rename", "remove", "replace"])
def test_a_folder_that_goes_away_stops_the_batch(batch: Batch, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    decode = Pipeline._generate_batch

    def pulled(self: Pipeline, jobs: Sequence[Job], batch: Sequence[int], *others: Any) -> Iterator[Clip]:
        if jobs[batch[0]].prompt == "c":  # "a" is written by now, and "b" decoded
            Path("clips").rename("away") if change == "rename" else shutil.rmtree("clips")
            if change == "replace":
                Path("clips").mkdir()
        return decode(self, jobs, batch, *others)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "_generate_batch", pulled)
        done = batch(["a", "b", "c"], "--seed", "5")
    assert (done.code, done.out) == (7, "clips/01-a-5.wav\n")
    assert "clips is gone, or another folder is in its place. Put it back" in done.err.splitlines()[-1]
    assert not Path("clips").exists() or names() == []
    if change == "rename":
        os.rename("away", "clips")
        assert batch(["a", "b", "c"], "--seed", "5").out == "clips/02-b-5.wav\nclips/03-c-5.wav\n"


# -- many rows --------------------------------------------------------------------------------------------------------

MANY = 10_000


def plan_many(folder: Path, count: int, manifest: Manifest) -> BatchPlan:
    """The plan of a file whose prompts and names come again and again."""
    rows = "".join(f"a prompt for clip number {k % 5000},same/{k % 7}\n" for k in range(count))
    (folder / "p.csv").write_text("prompt,output\n" + rows)
    request = Request(
        file=str(folder / "p.csv"),
        output=str(manifest.folder),
        model="tiny",
        seed=5,
        variations=1,
        overrides=Overrides(),
        edits={},
        helpers={},
        finish=OutputConfig(),
        codes=False,
        metadata=False,
        resume=True,
        mix=False,
        force=False,
    )
    problems = Problems(request.file)
    read = read_prompt_file(request.file, None, problems).rows
    planned = plan_rows(read, request, SamplingConfig(), seed=5, check=lambda job: None, problems=problems)
    plan = plan_batch(
        planned, request, manifest, header=Header(5, {}), hashes={}, inputs=InputFiles(), problems=problems
    )
    problems.check()
    return plan


def test_ten_thousand_rows_are_planned_and_resumed_in_seconds(tmp_path: Path) -> None:
    """About 1.5 s each where this was written; the bounds leave room for a busy machine, not for quadratic growth."""
    folder = tmp_path / "clips"
    started = time.process_time()
    first = plan_many(tmp_path, MANY, Manifest(folder, [], {}))
    assert time.process_time() - started < 10
    assert len(first.todo) == len({item.target.audio for item in first.todo}) == MANY

    (folder / "same").mkdir(parents=True)
    lines: list[dict[str, Any]] = [{"format": "magnet-batch", "version": 1, "seed": 5, "settings": {}}]
    for item in first.todo[:-1]:
        item.target.audio.touch()
        path, changed = item.target.audio.relative_to(folder).as_posix(), item.target.audio.stat().st_mtime_ns
        lines.append({"item": item.key, "seconds": 1.0, "files": [[path, 0, changed, digest(b"")]]})
    (folder / MANIFEST_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    started = time.process_time()
    again = plan_many(tmp_path, MANY, Manifest.read(folder))
    assert time.process_time() - started < 10
    assert (len(again.done), again.todo) == (MANY - 1, first.todo[-1:])
    assert [item.target for item in again.items] == [item.target for item in first.todo]


def test_a_planned_row_takes_few_bytes(tmp_path: Path) -> None:
    """2 kB where this was written, so that 10,000 rows take 20 MB. Fewer here: tracing makes it ten times slower."""
    tracemalloc.start()
    plan_many(tmp_path, 1000, Manifest(tmp_path, [], {}))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


def test_a_dry_run_of_ten_thousand_rows_takes_seconds(batch: Batch) -> None:
    started = time.process_time()
    done = batch([f"prompt {k}" for k in range(MANY)], "--dry-run", "--seed", "5")
    assert time.process_time() - started < 20
    assert done.code == 0
    assert done.out.count("\n") == MANY
    assert "clips/10000-prompt-9999-5.wav  waiting  seed 5  prompt 9999" in done.out
    assert "10,000 clips: 0 done, 10,000 waiting" in done.err
