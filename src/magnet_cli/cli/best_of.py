"""`--best-of`: scores of the candidates for a clip, of which the best is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from magnet_cli.options.candidates import JudgeName

if TYPE_CHECKING:
    from magnet_cli.jobs.manifest import Item
    from magnet_cli.jobs.writer import Product
    from magnet_cli.music.tempo import Tempo
    from magnet_cli.pipeline.clip import Clip
    from magnet_cli.pipeline.pipeline import Pipeline


@dataclass(frozen=True)
class Score:
    """What a judge finds of a candidate. rank: less is better; words: for a message; plain: for the record."""

    rank: tuple[float, ...]
    words: str
    plain: dict[str, Any]


Judge = Callable[["Clip"], Score]


def rank(tempo: Tempo | None, bpm: float) -> tuple[float, float]:
    """Less is better: how far the tempo is from `bpm`, in octaves, 0 if it is near; then how unclear the beat is."""
    if tempo is None:
        return math.inf, 0.0
    return 0.0 if tempo.is_near(bpm) else abs(math.log2(tempo.bpm / bpm)), -tempo.clarity


def judge_of(name: JudgeName, pipeline: Pipeline) -> Judge:
    """The judge of this name, for clips of this pipeline."""

    def by_tempo(clip: Clip) -> Score:
        heard = None if clip.tempo is None else clip.tempo.rounded
        words = "no clear beat" if clip.tempo is None else f"{clip.tempo.bpm:.1f} bpm"
        return Score(rank(clip.tempo, clip.job.edit.bpm or math.inf), words, {"tempo": heard})

    def by_likelihood(clip: Clip) -> Score:
        value = pipeline.text_likelihood(clip.codes, clip.job.text)
        return Score((-value,), f"likelihood {value:.3f}", {"likelihood": value})

    return {"tempo": by_tempo, "likelihood": by_likelihood}[name]


@dataclass
class Contest:
    """The candidates for one clip, as they are finished."""

    item: Item
    name: JudgeName
    scored: list[tuple[Product, Score]] = field(default_factory=list)
    failed: int = 0

    @property
    def is_over(self) -> bool:
        """Whether every candidate is finished or has failed."""
        return len(self.scored) + self.failed == len(self.item.candidates)

    @property
    def winner(self) -> Product | None:
        """The best candidate, the first of equals, with all scores in its record; None if all have failed."""
        if not self.scored:
            return None
        best, score = min(self.scored, key=lambda one: one[1].rank)
        scores = [{"seed": product.item.job.seed, **one.plain} for product, one in self.scored]
        seconds = sum(product.clip.work_seconds for product, _ in self.scored)
        return replace(with_score(best, self.name, score, candidates=scores), all_seconds=seconds)


def with_score(
    product: Product, name: JudgeName, score: Score, *, candidates: Sequence[dict[str, Any]] = ()
) -> Product:
    """A product with the judgement in its record. candidates: the scores of all candidates for this clip."""
    judged = {"judge": name, **score.plain, **({"candidates": list(candidates)} if candidates else {})}
    return replace(product, record={**product.record, "judged": judged})
