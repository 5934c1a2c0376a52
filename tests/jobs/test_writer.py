"""Clips are finished and written while the next ones are decoded: in order, in the caller's thread, whatever stops."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from magnet_cli import Job, Pipeline, RuntimeConfig, SamplingConfig
from magnet_cli.errors import NumericsError, OutputError
from magnet_cli.jobs.manifest import Header, Item, Manifest
from magnet_cli.jobs.targets import Target
from magnet_cli.jobs.writer import Finisher, ItemFailed, Product, Production
from magnet_cli.options.output import OutputConfig
from magnet_cli.pipeline.clip import Clip
from magnet_cli.pipeline.draft import Draft
from magnet_cli.pipeline.events import StepDone

QUICK = SamplingConfig(steps=(2, 1, 1, 1), temperature=10.0, guidance=1.0)
LONGEST = 60.0  # seconds until something that should happen counts as hanging


@pytest.fixture(scope="module")
def pipeline(tiny: str) -> Pipeline:
    return Pipeline.load(tiny, RuntimeConfig(device="cpu", dtype="float32", batch_size=2))


def items_of(folder: Path, prompts: str = "abcde") -> list[Item]:
    return [
        Item(
            Job(prompt, seed, QUICK),
            Target.beside(folder / f"{prompt}.wav", metadata=True, codes=False, folder=None),
            prompt,
        )
        for seed, prompt in enumerate(prompts)
    ]


class Heard:
    """A listener that writes down what it hears; `act` may raise."""

    def __init__(self, act: Callable[[object], None] = lambda event: None) -> None:
        self.products: list[Product] = []
        self.failed: list[str] = []
        self.log: list[str] = []
        self.threads: set[int] = set()
        self._act = act

    def __call__(self, event: object) -> None:
        self.threads.add(threading.get_ident())
        if isinstance(event, Product):
            assert event.item.target.audio.exists()
            self.products.append(event)
            self.log.append(event.clip.job.prompt)
        elif isinstance(event, ItemFailed):
            self.failed.append(event.item.job.prompt)
            self.log.append(event.item.job.prompt)
        elif isinstance(event, StepDone):
            self.log.append(f"step of {event.jobs[0].prompt}")
        self._act(event)

    @property
    def written(self) -> list[str]:
        return [product.clip.job.prompt for product in self.products]


def finishing(monkeypatch: pytest.MonkeyPatch, act: Callable[[Draft], None]) -> None:
    """Do something whenever a clip is finished."""
    finish = Draft.finish

    def acting(self: Draft) -> Clip:
        act(self)
        return finish(self)

    monkeypatch.setattr(Draft, "finish", acting)


def test_a_clip_is_finished_while_the_next_is_decoded(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for a step of the batch behind it, which would never come if that batch waited for it."""
    stepped, workers = {prompt: threading.Event() for prompt in "abcde"}, set()

    def wait(draft: Draft) -> None:
        workers.add(threading.get_ident())
        after = {"a": "c", "b": "c", "c": "e", "d": "e"}.get(draft.job.prompt)
        assert after is None or stepped[after].wait(LONGEST)

    def note(event: object) -> None:
        if isinstance(event, StepDone):
            stepped[event.jobs[0].prompt].set()

    finishing(monkeypatch, wait)
    heard = Heard(note)
    Production(pipeline, "x", OutputConfig()).run(items_of(tmp_path), listener=heard)
    assert heard.written == list("abcde")
    assert heard.log.index("a") > heard.log.index("step of c")
    assert heard.threads == {threading.get_ident()}
    assert workers.isdisjoint(heard.threads)


def test_files_are_those_of_one_after_the_other(pipeline: Pipeline, tmp_path: Path) -> None:
    Production(pipeline, "x", OutputConfig()).run(items_of(tmp_path / "beside"), listener=Heard())
    for item in items_of(tmp_path / "alone"):
        (clip,) = pipeline.generate([item.job])
        clip.save(item.target.audio)
        beside = tmp_path / "beside" / item.target.audio.name
        assert np.array_equal(soundfile.read(beside)[0], soundfile.read(item.target.audio)[0])
        ours, theirs = (json.loads(path.with_suffix(".json").read_text()) for path in (beside, item.target.audio))
        assert {name for name in ours if ours[name] != theirs[name]} <= {"timings", "created", "batch", "model"}


def test_rows_of_the_manifest_come_in_order_and_failed_ones_too(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(draft: Draft) -> None:
        if draft.job.prompt in "bd":
            raise NumericsError("samples are not finite", "Try another seed")

    finishing(monkeypatch, fail)
    decode, heard = Pipeline._generate_batch, Heard()

    def odd(self: Pipeline, jobs: Any, batch: Any, *others: Any) -> Any:
        if any(jobs[index].prompt == "f" for index in batch):
            raise NumericsError("logits are not finite", "Try another seed")
        return decode(self, jobs, batch, *others)

    monkeypatch.setattr(Pipeline, "_generate_batch", odd)
    with Manifest.opened(tmp_path) as manifest:
        manifest.start(Header(1, {}))
        production = Production(pipeline, "x", OutputConfig(), manifest=manifest)
        production.run(items_of(tmp_path, "abcdefg"), listener=heard)
    lines = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    rows = [(line["item"], bool(line["files"])) for line in lines if "item" in line]
    assert rows == [(prompt, prompt not in "bdf") for prompt in "abcdefg"]
    assert [entry for entry in heard.log if len(entry) == 1] == list("abcdefg")
    assert (heard.written, heard.failed) == (list("aceg"), list("bdf"))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_is_decoded_is_written_before_the_work_stops(
    pipeline: Pipeline, tmp_path: Path, kind: type[BaseException]
) -> None:
    def stop(event: object) -> None:
        if isinstance(event, StepDone) and event.jobs[0].prompt == "c":
            raise kind

    heard = Heard(stop)
    with pytest.raises(kind):
        Production(pipeline, "x", OutputConfig()).run(items_of(tmp_path), listener=heard)
    assert heard.written == ["a", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.wav", "b.json", "b.wav"]


@pytest.mark.skipif(sys.platform == "win32", reason="a signal cannot be sent to one thread")
def test_an_interrupt_while_a_clip_is_awaited_does_not_lose_it(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last clips are decoded, and the caller's thread only waits for those that finish them."""
    waiting = threading.Event()
    take = Finisher.take

    def interrupt(draft: Draft) -> None:
        if draft.job.prompt == "a":
            assert waiting.wait(LONGEST)
            time.sleep(0.2)  # until it waits for this clip
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.5)  # the signal arrives before the clip does

    def noted(self: Finisher, *, wait: bool) -> Any:
        if wait and self._waiting:
            waiting.set()
        return take(self, wait=wait)

    finishing(monkeypatch, interrupt)
    monkeypatch.setattr(Finisher, "take", noted)
    heard = Heard()
    with pytest.raises(KeyboardInterrupt):
        Production(pipeline, "x", OutputConfig()).run(items_of(tmp_path, "ab"), listener=heard)
    assert heard.written == ["a", "b"]


def test_a_listener_that_raises_stops_the_work_and_what_is_decoded_is_written(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(draft: Draft) -> None:
        if draft.job.prompt == "a":
            raise NumericsError("samples are not finite", "Try another seed")

    def stop(event: object) -> None:
        if isinstance(event, ItemFailed):
            raise event.error

    finishing(monkeypatch, fail)
    heard = Heard(stop)
    with pytest.raises(NumericsError, match="not finite"):
        Production(pipeline, "x", OutputConfig()).run(items_of(tmp_path), listener=heard)
    assert heard.written[0] == "b"
    assert (tmp_path / "b.wav").exists()


def test_a_file_that_cannot_be_written_stops_the_work(pipeline: Pipeline, tmp_path: Path) -> None:
    """It is no failure of the clips behind it, during whose steps it shows."""
    (tmp_path / "b.wav").touch()
    heard = Heard()
    with pytest.raises(OutputError, match=r"b\.wav already exists"):
        Production(pipeline, "x", OutputConfig()).run(items_of(tmp_path), listener=heard)
    assert (heard.written, heard.failed) == (["a"], [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.wav", "b.wav"]


def test_at_most_one_batch_waits(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, alive, most = Pipeline._generate_batch, set(), []

    def counted(self: Pipeline, jobs: Any, batch: Any, *others: Any) -> Any:
        most.append(len(alive))
        drafts = list(decode(self, jobs, batch, *others))
        alive.update(draft.index for draft in drafts)
        return drafts

    def note(event: object) -> None:
        if isinstance(event, Product):
            alive.discard(event.clip.index)

    monkeypatch.setattr(Pipeline, "_generate_batch", counted)
    Production(pipeline, "x", OutputConfig()).run(items_of(tmp_path, "abcdefgh"), listener=Heard(note))
    assert most == [0, 2, 2, 2]


def test_a_long_clip_waits_beside_no_other(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finishing it takes seconds, in which nobody could stop the work, and disk space."""
    workers: list[int] = []
    finishing(monkeypatch, lambda draft: workers.append(threading.get_ident()))
    monkeypatch.setattr("magnet_cli.pipeline.draft.BLOCK", 1000)
    heard = Heard()
    Production(pipeline, "x", OutputConfig()).run(items_of(tmp_path, "abcd"), listener=heard)
    assert set(workers) == {threading.get_ident()}
    assert heard.log.index("b") < heard.log.index("step of c")
