"""From jobs to finished files, for `generate`, `batch` and `replay`."""

from __future__ import annotations

import concurrent.futures
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from magnet_cli.audio.codes_file import encode_codes
from magnet_cli.audio.files import encode_audio
from magnet_cli.disk.atomic import Content, write_together
from magnet_cli.engines.device import finishing_threads
from magnet_cli.errors import MagnetError
from magnet_cli.hub.download import Downloading
from magnet_cli.jobs.manifest import Entry, Item, Made, Manifest, Measured, digest
from magnet_cli.jobs.seal import sealed
from magnet_cli.options.output import OutputConfig
from magnet_cli.pipeline.clip import Clip
from magnet_cli.pipeline.draft import Draft
from magnet_cli.pipeline.events import ClipFailed, StepDone, TextEncoded
from magnet_cli.pipeline.pipeline import Pipeline
from magnet_cli.pipeline.record import Hashes, Provenance, Record, as_sidecar, as_tags


@dataclass(frozen=True, eq=False)
class Product:
    """A clip that was generated and written.

    all_seconds: that all its candidates took, where it was chosen of several.
    """

    item: Item
    clip: Clip
    record: Record
    all_seconds: float | None = None


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished clip, and its audio file if it is to be written."""

    product: Product
    audio: Content | None


@dataclass(frozen=True)
class ItemFailed:
    """An item could not be generated. Unless the listener raises, the others continue."""

    item: Item
    error: Exception


ProductionListener = Callable[[TextEncoded | StepDone | ItemFailed | Product], None]


@dataclass(frozen=True)
class Production:
    """Generates items with one pipeline, and finishes and writes each while the next ones are decoded.

    model: as the user names it. metadata: embed the record in the audio file; a target says what goes beside it.
    manifest: records every item. helpers: the names of the helping models, as the user gives them.
    fallback: why another model than the default is used.
    """

    pipeline: Pipeline
    model: str
    output: OutputConfig
    overwrite: bool = False
    metadata: bool = True
    manifest: Manifest | None = None
    helpers: Mapping[str, str] = field(default_factory=dict)
    fallback: str | None = None

    @cached_property
    def _hashing(self) -> Future[Hashes]:
        """SHA-256 of the models' files, in the background: a released checkpoint takes seconds."""
        executor = ThreadPoolExecutor(1)
        future = executor.submit(self.pipeline.provenance.hashes)
        executor.shutdown(wait=False)
        return future

    def run(self, items: Sequence[Item], *, write: bool = True, listener: ProductionListener) -> None:
        """Generate items, those with equal options together, otherwise in order. write: write their files, too.

        The listener hears of each item, in this order and in this thread, as soon as it is written; that may be while
        the next ones are decoded. An item that fails is recorded in the manifest. A file that cannot be written always
        raises: the cause is not the item, and would affect the next one too. Whatever stops the work, items that are
        decoded are written.
        """
        self._hashing  # noqa: B018, begins
        groups: dict[object, list[Item]] = {}
        for item in items:
            groups.setdefault(item.job.kind, []).append(item)
        ordered = [item for group in groups.values() for item in group]
        with Finisher(finishing_threads(self.pipeline.codec.device)) as finisher:
            _Run(self, ordered, finisher, listener, write=write).run()

    def finish(self, item: Item, draft: Draft, *, encode: bool) -> Finished | ItemFailed:
        """Finish a clip and encode its file, in any thread."""
        try:
            clip = draft.finish()
        except Exception as error:
            return ItemFailed(item, error)
        edit, suffix = item.job.edit, item.target.audio.suffix
        clip = replace(clip, output=self.pipeline.arranger.inputs.output(self.output, edit.input, suffix))
        product = Product(item, clip, self.record(clip))
        return Finished(product, self.encode(product) if encode else None)

    def encode(self, product: Product) -> Content:
        """The audio file of an item, with its record."""
        clip, path = product.clip, product.item.target.audio
        return encode_audio(
            path, clip.waveform, clip.sample_rate, clip.output.samples, tags=self._tags(product), marks=clip.marks
        )

    def _tags(self, product: Product) -> dict[str, str] | None:
        """What a file says about itself; None without metadata."""
        return as_tags(product.record, f"Model weights: {self.pipeline.info.licence}") if self.metadata else None

    def write(self, product: Product, audio: Content) -> None:
        """Write an item's files, all or none, after recording them in the manifest. audio: from `encode`."""
        item, clip, record = product.item, product.clip, product.record
        seed = None if product.all_seconds is None else item.job.seed
        target = item.target
        contents: list[tuple[Path, Content]] = []
        if target.codes is not None:
            contents.append((target.codes, encode_codes(clip.codes, self.pipeline.provenance.codes)))
        if target.picture is not None:
            contents.append((target.picture, clip.picture(self._tags(product))))
        contents.append((target.audio, audio))
        manifest = self.manifest
        if target.metadata is not None:
            if manifest is not None:
                record = sealed(
                    {**record, **manifest.note(item.key, [(path.name, one) for path, one in contents], seed=seed)}
                )
            contents.insert(-1, (target.metadata, as_sidecar(record)))
        if manifest is None:
            write_together(contents, overwrite=self.overwrite, within=target.folder)
            return

        def note(stats: dict[Path, os.stat_result]) -> None:
            made = tuple(
                Made(
                    path.relative_to(manifest.folder).as_posix(),
                    len(content),
                    stats[path].st_mtime_ns,
                    digest(content),
                )
                for path, content in contents
            )
            took = clip.work_seconds if product.all_seconds is None else product.all_seconds
            seconds = round(took, 3)  # as the manifest gives it back
            after = clip.audio.after
            measured = Measured(clip.seconds, after.lufs, after.true_peak)
            manifest.add(Entry(item.key, made, None, seconds, measured, seed))

        manifest.check_folder()
        write_together(contents, overwrite=self.overwrite, within=target.folder, before_publishing=note)

    def record(self, clip: Clip) -> Record:
        """The record of a clip, as plain values."""
        return replace(clip, provenance=self._provenance).record

    @cached_property
    def _provenance(self) -> Provenance:
        """The pipeline's models under the names that this production was given."""
        given = {"model": self.model, **self.helpers}
        return replace(
            self.pipeline.provenance, given=given, hashes=lambda: self._hashing.result(), fallback=self.fallback
        )


class Finisher:
    """Threads that finish clips while the next ones are decoded; gives them back in the order in which they came.

    With no thread, a clip is finished when it is given back.
    """

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="magnet-finish") if threads else None
        self._waiting: deque[Callable[[], Finished | ItemFailed] | Future[Finished | ItemFailed]] = deque()

    def __enter__(self) -> Finisher:
        return self

    def __exit__(self, *exception: object) -> None:
        self.drop()
        if self._executor is not None:
            self._executor.shutdown(wait=True)

    def add(self, finish: Callable[[], Finished | ItemFailed], *, now: bool) -> None:
        """Begin to finish a clip. now: leave it to the thread that takes it."""
        self._waiting.append(finish if now or self._executor is None else self._executor.submit(finish))

    def take(self, *, wait: bool) -> Iterator[Finished | ItemFailed]:
        """Clips that are finished; all of them if it may wait."""
        while self._waiting:
            first = self._waiting[0]
            if not wait and not (isinstance(first, Future) and first.done()):
                return
            if isinstance(first, Future):
                concurrent.futures.wait([first])  # an interrupt of this leaves the clip to the next call
            self._waiting.popleft()
            yield first.result() if isinstance(first, Future) else first()

    def drop(self) -> None:
        """Finish no more of them."""
        while self._waiting:
            first = self._waiting.popleft()
            if isinstance(first, Future):
                first.cancel()


class _Run:
    """One call of `Production.run`."""

    def __init__(
        self,
        production: Production,
        items: Sequence[Item],
        finisher: Finisher,
        listener: ProductionListener,
        *,
        write: bool,
    ) -> None:
        self._production, self._items, self._finisher = production, items, finisher
        self._listener, self._write = listener, write

    def run(self) -> None:
        """Decode all items; meanwhile those of the last batch are finished, and no others wait."""
        jobs, production = [item.job for item in self._items], self._production
        try:
            for drafts in production.pipeline.decode(jobs, output=production.output, listener=self._hear):
                self._settle(wait=True)
                long = any(draft.is_long for draft in drafts)
                while drafts:
                    draft = drafts.popleft()
                    finish = partial(production.finish, self._items[draft.index], draft, encode=self._write)
                    self._finisher.add(finish, now=long)
                    del draft, finish  # a long one takes disk space until it is dropped
                if long:
                    self._settle(wait=True)
            self._settle(wait=True)
        finally:  # what was interrupted, even while it waited for the last ones
            self._settle(wait=True)

    def _hear(self, event: Downloading | TextEncoded | StepDone | ClipFailed) -> None:
        match event:
            case ClipFailed(index, error):
                self._settle(wait=True)  # the manifest has the items in order
                failed = ItemFailed(self._items[index], error)
                self._note(failed)
                self._listener(failed)
            case TextEncoded() | StepDone():
                self._settle(wait=False)
                self._listener(event)

    def _settle(self, *, wait: bool) -> None:
        """Write what is finished, and report it; all that is decoded if it may wait."""
        taken = self._finisher.take(wait=wait)
        while (one := self._next(taken)) is not None:
            self._listener(one)

    def _next(self, taken: Iterator[Finished | ItemFailed]) -> Product | ItemFailed | None:
        """The next of them, after it is written or its failure is noted; None after the last."""
        try:
            one = next(taken, None)
            if isinstance(one, ItemFailed):
                self._note(one)
            elif one is not None and one.audio is not None:
                self._production.write(one.product, one.audio)
        except Exception:  # what follows could not be written, either
            self._finisher.drop()
            raise
        return one.product if isinstance(one, Finished) else one

    def _note(self, failed: ItemFailed) -> None:
        manifest, error = self._production.manifest, failed.error
        if manifest is not None:
            text = error.message if isinstance(error, MagnetError) else f"{type(error).__name__}: {error}"
            manifest.add(Entry(failed.item.key, (), text))
