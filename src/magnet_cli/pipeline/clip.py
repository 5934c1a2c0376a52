"""One finished clip, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from magnet_cli.audio.codes_file import encode_codes
from magnet_cli.audio.files import encode_audio
from magnet_cli.audio.formats import check_format, codes_beside, sidecar
from magnet_cli.audio.loudness import Normalized
from magnet_cli.audio.riff_info import LoopMarks
from magnet_cli.disk.atomic import Content, check_writable, write_together
from magnet_cli.errors import UsageError, shown
from magnet_cli.music.tempo import Tempo
from magnet_cli.options.job import Job
from magnet_cli.options.output import OutputConfig, Subtype
from magnet_cli.pipeline.record import FORMAT, VERSION, Provenance, Record, as_sidecar, as_tags, codes_hash, versions


@dataclass(frozen=True, eq=False, repr=False)
class Clip:
    """One finished clip.

    index: its job's place among the jobs; batch: how many clips were decoded together; codes: int16 [K, T]; audio: the
    waveform float32 [C, L], in a temporary file if it is long, with loudness and true peak before and after;
    sample_rate: Hz; tokens: number of tokens in the prompt; unknown_words: those of its texts that mean nothing to the
    model, see `Pipeline.unknown_words`; timings: seconds for each stage, shared by the clips of a
    batch. output: how the level was set, and the sample format that `save` writes; input: the audio file that the clip
    starts from, with its SHA-256; provenance: the models that generated it. tempo: that of a loop as measured, None if
    no beat is clear; marks: the marks of a loop in a WAV file; passes: steps that its batch took.
    """

    index: int
    job: Job
    batch: int
    codes: NDArray[np.int16]
    audio: Normalized
    sample_rate: int
    tokens: int
    timings: dict[str, float]
    output: OutputConfig = field(default_factory=OutputConfig)
    input: Mapping[str, str] | None = None
    provenance: Provenance | None = None
    tempo: Tempo | None = None
    passes: int | None = None
    marks: LoopMarks | None = None
    unknown_words: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Short: neither samples nor codes."""
        return f"<Clip {shown(self.job.prompt)}, seed {self.job.seed}: {self.seconds:.2f} s at {self.sample_rate} Hz>"

    @property
    def waveform(self) -> NDArray[np.float32]:
        """The finished waveform, float32 [C, L] between -1 and 1."""
        return self.audio.waveform

    @property
    def seconds(self) -> float:
        """Length of the waveform in seconds."""
        return self.waveform.shape[-1] / self.sample_rate

    @property
    def work_seconds(self) -> float:
        """Seconds that generating it took: its share of those of its batch."""
        return sum(self.timings.values()) / self.batch

    @property
    def record(self) -> Record:
        """How the clip was generated, as plain values: what the command writes beside each clip.

        The first use may take seconds, as the files of the models are hashed.

        Raises:
            UsageError: for a clip that no pipeline has generated.
        """
        provenance = self._known_provenance
        info, audio, hashes = provenance.info, self.audio, provenance.hashes()
        return {
            "format": FORMAT,
            "version": VERSION,
            "prompt": self.job.prompt,
            "text": self.job.text,
            "tokens": self.tokens,
            "unknown_words": list(self.unknown_words),
            "seed": self.job.seed,
            "sampling": asdict(self.job.sampling),
            "edit": asdict(self.job.edit),
            "input": self.input,
            "output": asdict(self.output),
            "model": {
                "name": info.name,
                "given": provenance.given["model"],
                "fallback": provenance.fallback,
                "repository": info.repository,
                "revision": info.revision,
                "task": info.task,
                "licence": info.licence,
                "hashes": hashes["model"],
            },
            "helpers": {
                role: {
                    "name": origin.name,
                    "given": provenance.given[role],
                    "repository": origin.repository,
                    "revision": origin.revision,
                    "licence": origin.licence,
                    "hashes": hashes[role],
                }
                for role, origin in provenance.helpers.items()
            },
            "seconds": self.seconds,
            "sample_rate": self.sample_rate,
            "channels": self.waveform.shape[0],
            "tempo": None if self.tempo is None else self.tempo.rounded,
            "codes": {"sha256": codes_hash(self.codes), "shape": list(self.codes.shape)},
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
            "batch": self.batch,
            "passes": self.passes,
            "timings": {stage: round(seconds, 4) for stage, seconds in self.timings.items()},
            "versions": versions(),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }

    @property
    def _known_provenance(self) -> Provenance:
        if self.provenance is None:
            raise UsageError(
                "the clip was not generated by a pipeline, so its record is not known", "Pass metadata=False"
            )
        return self.provenance

    def save(
        self,
        path: str | Path,
        *,
        subtype: Subtype | None = None,
        overwrite: bool = False,
        metadata: bool = True,
        codes: bool = False,
    ) -> None:
        """Write the clip as the command does: all of its files, or none.

        path: its extension names the format: .wav, .flac, .ogg or .mp3. subtype: "pcm16", "pcm24" or "float32"; else
        that of `output`. metadata: embed how the clip was generated, and write it to NAME.json, too. codes: write the
        codes to NAME.codes.npz. overwrite: replace files that exist.

        Raises:
            UsageError: for a format that cannot be written.
            OutputError: for a file that exists (unless `overwrite`) or cannot be written.
        """
        path, subtype = Path(path), subtype or self.output.samples
        check_format(path, subtype, self.sample_rate)
        files = [path, *([sidecar(path)] if metadata else []), *([codes_beside(path)] if codes else [])]
        check_writable(files, overwrite=overwrite)
        contents: list[tuple[Path, Content]] = []
        tags = None
        if codes:
            contents.append((codes_beside(path), encode_codes(self.codes, self._known_provenance.codes)))
        if metadata:
            record = self.record
            tags = as_tags(record, f"Model weights: {record['model']['licence']}")
            contents.append((sidecar(path), as_sidecar(record)))
        contents.append(
            (path, encode_audio(path, self.waveform, self.sample_rate, subtype, tags=tags, marks=self.marks))
        )
        write_together(contents, overwrite=overwrite)
