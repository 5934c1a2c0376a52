"""From jobs to finished files, for `generate`, `batch` and `replay`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from magnet_cli.audio.codes_file import encode_codes
from magnet_cli.audio.files import encode_audio
from magnet_cli.disk.atomic import Content, write_together
from magnet_cli.errors import MagnetError
from magnet_cli.hub.download import Downloading
from magnet_cli.jobs.manifest import Entry, Item, Made, Manifest, Measured, digest
from magnet_cli.jobs.seal import sealed
from magnet_cli.options.output import OutputConfig
from magnet_cli.pipeline.clip import Clip
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


@dataclass(frozen=True)
class ItemFailed:
    """An item could not be generated. Unless the listener raises, the others continue."""

    item: Item
    error: Exception


ProductionListener = Callable[[TextEncoded | StepDone | ItemFailed], None]


@dataclass(frozen=True)
class Production:
    """Generates items with one pipeline, and writes each as soon as it is finished.

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

    def run(
        self,
        items: Sequence[Item],
        *,
        write: bool = True,
        listener: ProductionListener,
    ) -> Iterator[Product]:
        """Generate items, those with equal options together, otherwise in order. write: write their files, too.

        An item that fails is recorded in the manifest, and the listener hears of it. A file that cannot be written
        always raises: the cause is not the item, and would affect the next one too.
        """
        self._hashing  # noqa: B018, begins
        groups: dict[object, list[Item]] = {}
        for item in items:
            groups.setdefault(item.job.kind, []).append(item)
        ordered = [item for group in groups.values() for item in group]

        def hear(event: Downloading | TextEncoded | StepDone | ClipFailed) -> None:
            match event:
                case ClipFailed(index, error):
                    if self.manifest is not None:
                        text = error.message if isinstance(error, MagnetError) else f"{type(error).__name__}: {error}"
                        self.manifest.add(Entry(ordered[index].key, (), text))
                    listener(ItemFailed(ordered[index], error))
                case TextEncoded() | StepDone():
                    listener(event)

        clips = self.pipeline.generate([item.job for item in ordered], output=self.output, listener=hear)
        for clip in clips:
            item = ordered[clip.index]
            edit, suffix = item.job.edit, item.target.audio.suffix
            clip = replace(clip, output=self.pipeline.arranger.inputs.output(self.output, edit.input, suffix))
            record = self.record(clip)
            if write:
                self.write(Product(item, clip, record))
            yield Product(item, clip, record)

    def write(self, product: Product) -> None:
        """Write an item's files, all or none, after recording them in the manifest."""
        item, clip, record = product.item, product.clip, product.record
        seed = None if product.all_seconds is None else item.job.seed
        tags = as_tags(record, f"Model weights: {self.pipeline.info.licence}") if self.metadata else None
        target = item.target
        contents: list[tuple[Path, Content]] = []
        if target.codes is not None:
            contents.append((target.codes, encode_codes(clip.codes, self.pipeline.provenance.codes)))
        if target.picture is not None:
            contents.append((target.picture, clip.picture(tags)))
        audio = encode_audio(
            target.audio, clip.waveform, clip.sample_rate, clip.output.samples, tags=tags, marks=clip.marks
        )
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
