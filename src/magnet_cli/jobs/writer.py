"""From jobs to finished files, for `generate`, `batch` and `replay`."""

from __future__ import annotations

import io
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from magnet_cli._version import __version__
from magnet_cli.audio.files import encode_audio
from magnet_cli.disk.atomic import Content, write_together
from magnet_cli.errors import MagnetError
from magnet_cli.hub.download import Downloading
from magnet_cli.jobs.manifest import Entry, Item, Made, Manifest, digest
from magnet_cli.jobs.record import FORMAT, VERSION, Record, as_sidecar, as_tags, codes_hash
from magnet_cli.jobs.seal import sealed
from magnet_cli.music.tempo import Tempo
from magnet_cli.options.edit import EditConfig
from magnet_cli.options.output import OutputConfig
from magnet_cli.pipeline.events import ClipFailed, StepDone, TextEncoded
from magnet_cli.pipeline.pipeline import Clip, Pipeline

# Packages other than this one that can change the codes or the audio.
LIBRARIES = ("torch", "torchaudio", "transformers", "encodec")


@dataclass(frozen=True, eq=False)
class Product:
    """A clip that was generated and written."""

    item: Item
    clip: Clip
    record: Record


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
    def _hashing(self) -> Future[dict[str, dict[str, str]]]:
        """SHA-256 of the models' files, in the background: a released checkpoint takes seconds."""
        executor = ThreadPoolExecutor(1)
        sources = {"model": self.pipeline.source, **self.pipeline.helpers}
        future = executor.submit(lambda: {role: source.hashes for role, source in sources.items()})
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
            record = self.record(clip, suffix=item.target.audio.suffix)
            if write:
                self._write(item, clip, record)
            yield Product(item, clip, record)

    def _write(self, item: Item, clip: Clip, record: Record) -> None:
        """Write an item's files, all or none, after recording them in the manifest."""
        tags = as_tags(record, f"Model weights: {self.pipeline.info.licence}") if self.metadata else None
        target = item.target
        contents: list[tuple[Path, Content]] = []
        if target.codes is not None:
            archive = io.BytesIO()
            np.savez(archive, codes=clip.codes)
            contents.append((target.codes, archive.getvalue()))
        output = self._output(clip.job.edit, target.audio.suffix)
        audio = encode_audio(target.audio, clip.waveform, clip.sample_rate, output.samples, tags=tags, marks=clip.marks)
        contents.append((target.audio, audio))
        manifest = self.manifest
        if target.metadata is not None:
            if manifest is not None:
                record = sealed(
                    {**record, **manifest.note(item.key, [(path.name, content) for path, content in contents])}
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
            manifest.add(Entry(item.key, made, seconds=sum(clip.timings.values()) / clip.batch))

        manifest.check_folder()
        write_together(contents, overwrite=self.overwrite, within=target.folder, before_publishing=note)

    def _output(self, edit: EditConfig, suffix: str) -> OutputConfig:
        """The output of a clip with this edit, in a file of this suffix."""
        return self.pipeline.arranger.inputs.output(self.output, edit.input, suffix)

    def _input(self, edit: EditConfig) -> dict[str, str] | None:
        """The audio file that a clip starts from."""
        if edit.input is None:
            return None
        return {"path": os.path.abspath(edit.input), "sha256": self.pipeline.arranger.inputs.sha256(edit.input)}

    def record(self, clip: Clip, *, suffix: str = ".wav") -> Record:
        """The record of a clip, as plain values."""
        info, audio = self.pipeline.info, clip.audio
        return {
            "format": FORMAT,
            "version": VERSION,
            "prompt": clip.job.prompt,
            "text": clip.job.text,
            "tokens": clip.tokens,
            "seed": clip.job.seed,
            "sampling": asdict(clip.job.sampling),
            "edit": asdict(clip.job.edit),
            "input": self._input(clip.job.edit),
            "output": asdict(self._output(clip.job.edit, suffix)),
            "model": {
                "name": info.name,
                "given": self.model,
                "fallback": self.fallback,
                "repository": info.repository,
                "revision": info.revision,
                "task": info.task,
                "licence": info.licence,
                "hashes": self._hashing.result()["model"],
            },
            "helpers": {
                role: {
                    "name": helper.origin.name,
                    "given": self.helpers[role],
                    "repository": helper.origin.repository,
                    "revision": helper.origin.revision,
                    "licence": helper.origin.licence,
                    "hashes": self._hashing.result()[role],
                }
                for role, helper in self.pipeline.helpers.items()
            },
            "seconds": clip.seconds,
            "sample_rate": clip.sample_rate,
            "channels": clip.waveform.shape[0],
            "tempo": _rounded(clip.tempo),
            "codes": {"sha256": codes_hash(clip.codes), "shape": list(clip.codes.shape)},
            "lufs": audio.after.lufs,
            "true_peak": audio.after.true_peak,
            "before": {"lufs": audio.before.lufs, "true_peak": audio.before.true_peak},
            "gain_db": audio.gain_db,
            "limited": audio.limited,
            "loudness_reached": audio.reached,
            "device": info.device,
            "dtype": info.dtype,
            "compiled": info.compiled,
            "processor": info.processor,
            "threads": torch.get_num_threads(),
            "batch": clip.batch,
            "timings": {stage: round(seconds, 4) for stage, seconds in clip.timings.items()},
            "versions": versions(),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }


def _rounded(tempo: Tempo | None) -> dict[str, float] | None:
    return None if tempo is None else {name: round(value, 3) for name, value in asdict(tempo).items()}


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the libraries that compute."""
    found = {"magnet": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
