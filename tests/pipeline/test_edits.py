"""Edits from Python: what a job becomes, alone and among others, and how much work it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile

from magnet_cli import EditConfig, Job, MusicGenSampling, OutputConfig, Pipeline, RuntimeConfig, SamplingConfig
from magnet_cli.cli.run_jobs import make
from magnet_cli.errors import UsageError
from magnet_cli.jobs.manifest import Item
from magnet_cli.jobs.targets import Target
from magnet_cli.jobs.writer import Product, Production
from magnet_cli.options.runtime import DTypeName
from magnet_cli.pipeline import edits as arrange_module
from magnet_cli.pipeline.events import StepDone
from magnet_cli.terminal.console import Console
from support.golden import GOLDEN, load_in
from support.tiny_musicgen import write_musicgen

QUICK = SamplingConfig(steps=(3, 2, 1, 1))
RATE = 32_000


@pytest.fixture(scope="module")
def musicgen(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("musicgen")
    write_musicgen(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pipeline(musicgen: str) -> Pipeline:
    """With a MusicGen for hybrids, and batches on the CPU."""
    return Pipeline.load(str(GOLDEN / "music"), RuntimeConfig(device="cpu", batch_size=5), hybrid=musicgen)


@pytest.fixture(scope="module")
def autoregressive(musicgen: str) -> Pipeline:
    return Pipeline.load(musicgen, RuntimeConfig(device="cpu"))


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Five seconds that the golden codec, whose weights are random, gives other codes in every frame: loud noise."""
    path = tmp_path / "in.wav"
    soundfile.write(path, 1000 * np.random.default_rng(0).uniform(-1, 1, 5 * RATE), RATE, subtype="FLOAT")
    return str(path)


def calls(pipeline: Pipeline, jobs: Sequence[Job]) -> int:
    """How many passes are reported, counted for every clip."""
    counted = 0

    def step(progress: StepDone, batch: Sequence[Job]) -> None:
        nonlocal counted
        assert 1 <= progress.done <= progress.total
        counted += len(batch)

    assert len(list(pipeline.generate(jobs, on_step=step))) == len(jobs)
    return counted


# -- how much work it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [
        EditConfig(),
        EditConfig(duration=0.5),
        EditConfig(duration=5.01),
        EditConfig(duration=4, overlap=0.3),
        EditConfig(loop=True),
        EditConfig(loop=True, duration=1),
        EditConfig(hybrid=0.5),
        EditConfig(hybrid=0.5, duration=3),
        EditConfig(unconditional=True),
        EditConfig(negative="noise"),
    ],
    ids=lambda edit: repr({name: value for name, value in vars(edit).items() if value}),
)
def test_passes_are_known_beforehand(pipeline: Pipeline, edit: EditConfig) -> None:
    jobs = [Job(prompt, seed, QUICK, edit) for seed, prompt in enumerate("ab")]
    expected = pipeline.passes(jobs)
    assert calls(pipeline, jobs) == expected


def test_passes_of_musicgen_are_known_beforehand(autoregressive: Pipeline) -> None:
    jobs = [Job("a", 0, MusicGenSampling(), EditConfig(duration=0.4)), Job("b", 0, MusicGenSampling(guidance=1))]
    assert autoregressive.passes(jobs) == 20 + 3 + autoregressive.frames + 3  # the last codebook ends 3 columns later
    assert calls(autoregressive, jobs) == autoregressive.passes(jobs)


class Shown:
    """Stands in for the console: what the bar shows, and of how much."""

    def __init__(self) -> None:
        self.total = self.done = 0

    @contextmanager
    def progress(self, total: int) -> Iterator[Shown]:
        self.total = total
        yield self

    def advance(self, label: str, passes: int) -> None:
        assert label
        self.done += passes

    def message(self, text: str) -> None:
        pass

    detail = message


def test_the_bar_ends_at_its_end_however_many_passes_there_were(
    pipeline: Pipeline, autoregressive: Pipeline, file: str, tmp_path: Path
) -> None:
    edits = [
        EditConfig(continue_from=file, duration=5),  # fewer windows
        EditConfig(inpaint=file, vary=0.2),  # more: nobody has looked how long the file is
        EditConfig(),
    ]
    jobs = [Job("a", seed, QUICK, edit) for edit in edits for seed in range(2)]
    given = [(pipeline, jobs), (autoregressive, [Job("a", 0, MusicGenSampling(), edits[0])])]  # what is kept: no pass
    for number, (one, wanted) in enumerate(given):
        items = [Item(job, Target(tmp_path / f"{number}-{k}.wav", None, None)) for k, job in enumerate(wanted)]
        shown = Shown()
        helpers = dict.fromkeys(one.helpers, "y")
        production = Production(one, "x", OutputConfig(), metadata=False, helpers=helpers)
        made: list[Product] = []
        make(cast(Console, shown), production, items, take=made.append)
        assert len(made) == len(wanted)
        assert shown.done == shown.total == one.passes(wanted)


def test_the_bar_names_the_clip_that_is_decoded(pipeline: Pipeline, tmp_path: Path) -> None:
    labels: list[str] = []

    class Watched(Shown):
        def advance(self, label: str, passes: int) -> None:
            labels.append(label)

    jobs = [Job(prompt, 1, QUICK) for prompt in "abcdefg"]  # in batches of 5 and 2
    items = [Item(job, Target(tmp_path / f"{job.prompt}.wav", None, None)) for job in jobs]
    production = Production(pipeline, "x", OutputConfig(), metadata=False, helpers=dict.fromkeys(pipeline.helpers, "y"))
    made: list[Product] = []
    make(cast(Console, Watched()), production, items, take=made.append)
    assert [product.clip.batch for product in made] == [5] * 5 + [2] * 2
    seen = dict.fromkeys((label.split(" · ")[0], label[-1]) for label in labels)
    assert list(seen) == [(f"clip {number}/7", prompt) for number, prompt in enumerate("abcdefg", 1)]


# -- alone and among others -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "at_once"), [("float32", False), ("bfloat16", False), ("int8", False), ("float32", True)]
)
def test_a_clip_is_the_same_alone_and_among_others(
    musicgen: str, file: str, dtype: DTypeName, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """at_once: clips of a batch are decoded together, as on a GPU, where other dtypes round otherwise."""
    pipeline = load_in(dtype, str(GOLDEN / "music"), batch_size=5, hybrid=musicgen)
    if at_once:
        monkeypatch.setattr(sys.modules[Pipeline.__module__], "decoded_together", lambda device, clips: clips)
    edits: list[dict[str, Any]] = [
        {"continue_from": file},  # not to be decoded with those after it, of the same file
        *({"inpaint": file, "vary": share} for share in (0.1, 0.2, 0.5)),  # windows, elsewhere for each
        {"inpaint": file, "regions": ("4:4.5",)},
        {"inpaint": file, "regions": ("0.3:0.5", "2:"), "blend": True},
        {"continue_from": file, "join": True},
        {"continue_from": file, "duration": 3},
        *({"loop": True, "bpm": bpm} for bpm in (125, 140)),
        *({"negative": negative} for negative in ("noise", "a long list of what it should not sound like")),
        {"hybrid": 0.4},
        {"unconditional": True},
        {},
    ]
    jobs = [Job(f"prompt {k % 3}", 100 + k, QUICK, EditConfig(**edit)) for k, edit in enumerate(edits)]
    together = list(pipeline.generate(sorted(jobs, key=lambda job: repr(job.kind))))
    assert max(clip.batch for clip in together) > 2
    for clip in together:
        alone = next(pipeline.generate([clip.job]))
        assert np.array_equal(clip.codes, alone.codes), clip.job.edit
        # The codec sums in another order in a batch.
        assert np.allclose(clip.waveform, alone.waveform, atol=1e-3 * abs(alone.waveform).max())
        assert at_once or np.array_equal(clip.waveform, alone.waveform)


def test_an_input_is_read_and_encoded_once(
    pipeline: Pipeline, file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = str(tmp_path / "own.wav")
    soundfile.write(own, soundfile.read(file)[0][:RATE], RATE, subtype="FLOAT")
    read: list[Path] = []
    arranger = arrange_module.Arranger(pipeline.codec, codebooks=4, clip_seconds=2, span=3)
    plain = arranger.inputs.read
    monkeypatch.setattr(arranger, "_read", lambda path: (read.append(path), plain(path))[1])
    for seed in range(5):
        arranger.arrange(Job("x", seed, QUICK, EditConfig(continue_from=own)))
        arranger.arrange(Job("y", seed, QUICK, EditConfig(continue_from=own, keep=0.2)))
    assert read == [Path(own)] * 2  # once for each beginning


def test_a_default_keep_is_a_third_of_what_is_made(pipeline: Pipeline, autoregressive: Pipeline, file: str) -> None:
    for one, duration, frames in (
        (pipeline, None, 33),
        (pipeline, 0.6, 10),
        (pipeline, 8, 33),
        (autoregressive, 3, 50),
    ):
        arrangement = one.arranger.arrange(Job("x", 0, QUICK, EditConfig(continue_from=file, duration=duration)))
        assert arrangement.keep is not None
        assert int(arrangement.keep[0, 0].sum()) == frames


def test_edits_do_not_go_with_jobs_that_have_their_own(pipeline: Pipeline) -> None:
    with pytest.raises(UsageError, match="own seeds and edits"):
        pipeline.generate([Job("x", 1, QUICK)], edit=EditConfig(loop=True))
