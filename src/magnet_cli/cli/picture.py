"""Pictures of clips that are on the disk, for `magnet info`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from magnet_cli.audio.files import read_audio
from magnet_cli.audio.formats import AUDIO_EXTENSIONS, picture_beside
from magnet_cli.audio.loudness import Loudness
from magnet_cli.disk.atomic import check_writable, write_together
from magnet_cli.errors import UsageError
from magnet_cli.jobs.record import recipe
from magnet_cli.pictures.draw import MOST_CLIPS, draw
from magnet_cli.pictures.installed import check_pictures
from magnet_cli.pictures.subject import Subject
from magnet_cli.pipeline.record import Record


def draw_files(
    clips: Sequence[tuple[Path, Record]], *, each: bool, sheet: Path | None, overwrite: bool
) -> Iterator[Path]:
    """Draw clips, given by a file and its record; yields the path of every picture.

    each: a picture beside each clip. sheet: a picture of all of them.
    Raises: UsageError for a clip without its audio, or without matplotlib; OutputError for a picture that exists.
    """
    check_pictures()
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise UsageError(f"{sheet} is not a .png file", f"Name it {sheet.name}.png")
    if sheet is not None and len(clips) > MOST_CLIPS:
        raise UsageError(f"a sheet holds at most {MOST_CLIPS} clips, not {len(clips)}", "Draw several sheets")
    sounds = [audio_of(file) for file, _ in clips]
    beside = [picture_beside(path) for path in sounds] if each else []
    check_writable([*beside, *([] if sheet is None else [sheet])], overwrite=overwrite)
    shown = []
    for place, (path, (_, record)) in enumerate(zip(sounds, clips, strict=True)):
        subject = subject_of(path, record)
        if each:
            write_together([(beside[place], draw([subject], {"Title": subject.title}))], overwrite=overwrite)
            yield beside[place]
        if sheet is not None:
            shown.append(subject)
    if sheet is not None:
        write_together([(sheet, draw(shown))], overwrite=overwrite)
        yield sheet


def audio_of(file: Path) -> Path:
    """The audio file that is meant: this one, or the one beside a record. UsageError if there is none."""
    if file.suffix.lower() != ".json":
        return file
    for extension in AUDIO_EXTENSIONS:
        if (audio := file.with_suffix(extension)).is_file():
            return audio
    raise UsageError(f"there is no audio file beside {file}", "Name the audio file")


def subject_of(audio: Path, record: Record) -> Subject:
    """A clip as its picture shows it. UsageError for a record or a file that cannot be read."""
    waveform, rate = read_audio(audio)
    model, tempo = record.get("model"), record.get("tempo")
    name = model.get("name") if isinstance(model, dict) else None
    bpm = tempo.get("bpm") if isinstance(tempo, dict) else None
    lufs, peak = (_number(record.get(key)) for key in ("lufs", "true_peak"))
    return Subject.of(
        recipe(record).job,
        waveform,
        rate,
        loudness=Loudness(lufs, peak),
        model=None if name is None else str(name),
        bpm=_number(bpm),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
