"""Masked iterative decoding in its readable form, which every faster version is tested against.

Codebooks are decoded one after the other. Each starts fully masked. Every step predicts all masked codes at once, keeps
those that the model is surest of and masks the others again, until nothing is masked. Source: audiocraft
`models/lm_magnet.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from magnet_cli.decoding.circle import Loop, turn
from magnet_cli.decoding.entropy import frame_entropies, unit_entropies, within_bound
from magnet_cli.decoding.ordering import corput_places, explored, first_places, last_places, noisy_scores, order_noise
from magnet_cli.decoding.philox import Numbers
from magnet_cli.decoding.remasking import hide_again, most_chance, remask_chances, remask_numbers
from magnet_cli.decoding.steps import (
    DECIDED,
    Grid,
    combine,
    guidance_weight,
    highest_units,
    mask_rates,
    masked_units,
    overlapping_units,
    propose,
    step_place,
    step_temperature,
    steps_left,
)
from magnet_cli.errors import NumericsError, UsageError, not_finite_remedy
from magnet_cli.model.config import DecoderConfig
from magnet_cli.model.decoder import TextMemory
from magnet_cli.options.sampling import SamplingConfig, SpanScore, check_steps


@dataclass(frozen=True, repr=False)
class Known:
    """Codes that clips keep. codes: int64 [B, K, T]; keep: bool [B, K, T], True where a code is kept."""

    codes: Tensor
    keep: Tensor

    def __repr__(self) -> str:
        """Short: no codes."""
        return f"<Known codes {list(self.codes.shape)}, of which {self.keep.float().mean():.0%} are kept>"

    @classmethod
    def prefix(cls, codes: Tensor, frames: int) -> Known:
        """Given codes [B, K, P] begin a clip of T `frames`; the frames after them are to be decoded."""
        length = codes.shape[-1]
        if length >= frames:
            raise UsageError(
                f"{length} frames are given, but the clip has only {frames}", "Give less audio to continue from"
            )
        keep = torch.zeros(*codes.shape[:2], frames, dtype=torch.bool, device=codes.device)
        keep[..., :length] = True
        return cls(torch.nn.functional.pad(codes, (0, frames - length)), keep)

    def rows(self, part: slice) -> Known:
        """The given codes of these clips of a batch."""
        return Known(self.codes[part], self.keep[part])

    def check(self, shape: tuple[int, int, int], codes: int) -> None:
        """Raise UsageError unless these codes can be part of a clip of this shape [B, K, T]."""
        if self.codes.shape != self.keep.shape or self.codes.dim() != 3:
            raise UsageError(
                f"known codes {list(self.codes.shape)} and keep {list(self.keep.shape)} differ in shape",
                "Give both as [B, K, T]",
            )
        batch, codebooks, frames = self.codes.shape
        if batch not in (1, shape[0]) or codebooks != shape[1] or frames < shape[2]:
            raise UsageError(
                f"known codes {list(self.codes.shape)} do not fit a clip of {list(shape)}", "Pad or cut them"
            )
        values = self.codes[self.keep]
        if values.numel() and (values.min() < 0 or values.max() >= codes):
            raise UsageError(f"known codes must be between 0 and {codes - 1}", "Encode them with the model's own codec")


@dataclass(frozen=True)
class Step:
    """One decoding step, reported when it is done. `codes` [B, K, T] holds the mask token where nothing is known.

    steps: of the codebook, as far as is known: where entropy ends it early, its last step has their true number.
    """

    codebook: int
    step: int
    steps: int
    codes: Tensor


class Rescorer(Protocol):
    """Another model's probability for proposed codes, which helps to rank them."""

    def __call__(self, codes: Tensor, proposed: Tensor, codebook: int) -> Tensor:
        """Probability of each code of a codebook, float32 [B, T].

        codes: int64 [B, K, T], what the proposing model saw: this codebook partly masked; those below it final; those
        above it masked but for codes that are given. Not to be changed. proposed: [B, T], this codebook with every
        masked code proposed. Where nothing was masked, the result does not matter.
        """

    def check_finite(self) -> None:
        """Raise NumericsError if a value that it computed so far was not finite. Waits for its device."""


@dataclass(frozen=True)
class FiniteCheck:
    """Whether the logits of a step were finite: a bool [] on the device, not yet looked at."""

    codebook: int
    step: int
    finite: Tensor


class Network(Protocol):
    """What the loop calls at each step. `MaskedTransformer` defines the result; an engine computes it faster."""

    @property
    def config(self) -> DecoderConfig:
        """Shape of the network."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of its activations."""

    def guided(
        self, codes: Tensor, codebook: int, memory: TextMemory | None, weight: float, wanted: Tensor | None = None
    ) -> Tensor:
        """Guided logits of one codebook, float32 [B, T, V].

        codes: int64 [B, K, T], the mask token where nothing is known; memory: the text of the B prompts, or of them and
        the B to guide away from; None: no text and no guidance. wanted: bool [B, T], where the result is used.
        """

    def forget(self) -> None:
        """Free what is stored for the next step of a clip."""

    def release(self) -> None:
        """Free all that is stored, for later clips, too: values that are not finite may be in it after a failure."""


@dataclass(frozen=True)
class _Decoding:
    """The values that stay the same from step to step."""

    model: Network
    memory: TextMemory | None
    seeds: Sequence[int]
    numbers: Numbers
    sampling: SamplingConfig
    loop: Loop | None
    starts: Tensor | None  # [B], where on its circle each loop begins; it is decoded as if at 0
    grid: Grid
    first_frame: int
    on_step: Callable[[Step], None] | None
    rescorer: Rescorer | None
    checks: list[FiniteCheck]

    @property
    def on_grid(self) -> bool:
        """Whether the units are those of a fixed grid."""
        return self.sampling.spans == "nonoverlap" or self.model.config.span_length == 1

    @property
    def span_score(self) -> SpanScore:
        """How units are ranked."""
        return self.sampling.span_score if self.on_grid and self.model.config.span_length > 1 else "prod"


@dataclass(frozen=True)
class _Codebook:
    """One codebook of a batch.

    keep: bool [B, T]; units: how many units of each clip are to be decoded; places: int64 [B, S], theirs in the fixed
    order, None where there is none.
    """

    number: int
    keep: Tensor
    units: Sequence[int]
    places: Tensor | None


@torch.inference_mode()
def decode(
    model: Network,
    memory: TextMemory | None,
    seeds: Sequence[int],
    sampling: SamplingConfig,
    *,
    frames: int,
    known: Known | None = None,
    loop: Loop | None = None,
    whole_spans: bool = True,
    first_frame: int = 0,
    on_step: Callable[[Step], None] | None = None,
    rescorer: Rescorer | None = None,
) -> Tensor:
    """Decode a batch of clips, one for each seed.

    memory: the text of each clip, with `TextMemory.against` also what to steer away from; None: no text, and half the
    work. known: codes to keep, at any place; they come back unchanged, and a codebook that is wholly kept takes no
    step. loop: the clip's end meets its beginning. whole_spans: cut T to whole spans when spans do not overlap, as the
    reference does; False, and in loops: decode all `frames`. first_frame: number of the clip's first frame in
    something longer, so that its parts draw different numbers. rescorer: asked at every step but a codebook's last,
    unless `sampling.rescore_weight` is 1, the order of spans is fixed, or entropy chooses them.
    Returns int64 codes [B, K, T].
    Raises: UsageError for arguments that do not fit together, NumericsError when a model computes a value that is not
        finite.
    """
    check_steps(sampling, codebooks=model.config.codebooks)
    span, batch = model.config.span_length, len(seeds)
    if memory is not None and memory.batch not in (batch, 2 * batch):
        raise UsageError(f"{batch} seeds were given for {memory.batch} prompts", "Give one for each prompt")
    if frames < span:
        raise UsageError(f"{frames} frames are less than one span of {span}", "Decode a longer clip")
    if loop is not None:
        loop.check(frames)
    elif whole_spans and sampling.spans == "nonoverlap":
        frames -= frames % span
    shape = (batch, model.config.codebooks, frames)
    codes = torch.full(shape, model.config.mask_code, device=model.device)
    keep = torch.zeros(shape, dtype=torch.bool)  # on the host, which counts what there is to decode
    if known is not None:
        known.check(shape, model.config.codes)
        keep |= known.keep[..., :frames].cpu()
        # Kept codes are seen from the start, also those in codebooks above the one that is being decoded.
        codes = torch.where(keep.to(model.device), known.codes[..., :frames].to(model.device), codes)
    starts = None
    if loop is not None:
        starts = loop.starts(seeds, frames, model.device)
        codes, keep = turn(codes, starts), turn(keep, loop.starts(seeds, frames, torch.device("cpu")))
    unit = span if sampling.spans == "nonoverlap" else 1
    # Counts are made on the host and copied before the first step, because a copy waits for the device.
    host_grid = Grid.build(frames, unit, circular=loop is not None, device=keep.device)
    undecided = ~host_grid.kept_units(keep.flatten(0, 1)).unflatten(0, shape[:2])  # [B, K, S]
    places = None if sampling.span_order == "confidence" else corput_places(undecided).to(model.device)
    grid, kept = host_grid.to(model.device), keep.to(model.device)
    numbers = Numbers.of(seeds, model.device)
    run = _Decoding(model, memory, seeds, numbers, sampling, loop, starts, grid, first_frame, on_step, rescorer, [])
    for codebook in range(model.config.codebooks):
        if not keep[:, codebook].all():
            units = undecided[:, codebook].sum(dim=-1).tolist()
            _decode_codebook(
                run,
                codes,
                _Codebook(codebook, kept[:, codebook], units, None if places is None else places[:, codebook]),
            )
    _check_finite(run.checks, model)
    if rescorer is not None:
        rescorer.check_finite()
    return codes if starts is None else turn(codes, -starts)


def _decode_codebook(run: _Decoding, codes: Tensor, book: _Codebook) -> None:
    """Decode one codebook of `codes` [B, K, T] in place, where it is not kept."""
    codebook, keep = book.number, book.keep
    current = codes[:, codebook]  # a view: what is written to it is in `codes`
    model, sampling, grid = run.model, run.sampling, run.grid
    mask_code = model.config.mask_code
    decided = grid.kept_units(keep)
    scores = torch.zeros(decided.shape, device=codes.device).masked_fill(decided, DECIDED)  # [B, S]
    steps, by_entropy = sampling.steps[codebook], sampling.by_entropy(codebook)
    counts = [[masked_units(rate, units) for units in book.units] for rate in mask_rates(steps)]
    confidence = torch.zeros_like(scores)  # with which each unit was decided, or is proposed
    for step in range(steps):
        masked = scores > DECIDED if by_entropy else _masked_units(run, book, scores, counts[step])
        # A span may be masked though some of its frames are kept.
        masked_frames = grid.spread(masked)
        current.masked_fill_(masked_frames & ~keep, mask_code)
        predicted = current == mask_code  # at first also frames that no chosen span covers

        wanted = masked_frames | predicted
        logits = _guided_logits(run, codes, codebook, step, wanted=wanted)
        run.checks.append(FiniteCheck(codebook, step, logits.isfinite().all()))
        if codes.device.type == "cpu":  # elsewhere the host would wait for the device; it does so once, at the end
            _check_finite(run.checks[-1:], model)
        temperature = step_temperature(step, steps, sampling)
        proposed, probability = _propose(run, codebook, step, logits, wanted=wanted)

        proposed = torch.where(predicted, proposed, current)
        more = step + 1 < steps
        # What the last step decides is never ranked.
        if more and by_entropy:
            entropies = unit_entropies(frame_entropies(logits, temperature), predicted, grid)
            accepted = within_bound(entropies, masked, sampling.entropy_bound)
            scores = entropies.masked_fill(accepted | ~masked, DECIDED)
            more = bool((scores > DECIDED).any())  # the host waits for the device: it cannot know this beforehand
        elif more and sampling.span_order != "corput":  # a fixed order ranks nothing
            if run.rescorer is not None and sampling.rescore_weight < 1:
                probability = combine(probability, run.rescorer(codes, proposed, codebook), sampling.rescore_weight)
            scores = _scores(run, book, probability, step)
            scores.masked_fill_(~(masked if run.on_grid else predicted), DECIDED)
            if sampling.span_order == "hybrid" and book.places is not None:
                first = first_places(book.places, masked, explored(counts[step], counts[step + 1]))
                scores.masked_fill_(first, DECIDED)
            if sampling.remasks(codebook):
                scores = _with_remasked(run, book, scores, confidence, ~masked & ~decided, step)
                confidence = torch.where(masked, grid.log_confidence(probability, run.span_score).exp(), confidence)
        current.copy_(proposed)
        if run.on_step is not None:
            seen = codes if run.starts is None else turn(codes, -run.starts)
            run.on_step(Step(codebook, step, steps if more else step + 1, seen))
        if not more:
            break


def _scores(run: _Decoding, book: _Codebook, probability: Tensor, step: int) -> Tensor:
    """Scores of all units, of which the highest stay hidden at the next step. probability: [B, T]. Returns [B, S]."""
    amount = run.sampling.order_noise * steps_left(step, run.sampling.steps[book.number])
    if not amount:
        return run.grid.scores(probability, run.span_score)
    noise = order_noise(
        run.seeds,
        codebook=book.number,
        step=step,
        frames=probability.shape[-1],
        device=probability.device,
        first_frame=run.first_frame,
    )
    return noisy_scores(run.grid.log_confidence(probability, run.span_score), run.grid.first(noise), amount)


def _with_remasked(
    run: _Decoding, book: _Codebook, scores: Tensor, confidence: Tensor, decided: Tensor, step: int
) -> Tensor:
    """Scores in which some of the decided units are the highest, so that the next step hides them again. [B, S]."""
    rates = mask_rates(run.sampling.steps[book.number])
    most = most_chance(float(rates[step]), float(rates[step + 1]))
    numbers = remask_numbers(
        run.seeds,
        codebook=book.number,
        step=step,
        frames=run.grid.frames,
        device=scores.device,
        first_frame=run.first_frame,
    )
    chances = remask_chances(confidence, decided, most, run.sampling.remask)
    return hide_again(scores, chances, run.grid.first(numbers))


def _masked_units(run: _Decoding, book: _Codebook, scores: Tensor, counts: Sequence[int]) -> Tensor:
    """The units that are hidden at a step, so many of each item. scores: [B, S]. Returns bool [B, S]."""
    if run.sampling.span_order == "corput" and book.places is not None:
        return last_places(book.places, book.units, counts)
    if run.on_grid:
        return highest_units(scores, counts)
    return overlapping_units(scores, counts, run.model.config.span_length, circular=run.loop is not None)


def _guided_logits(run: _Decoding, codes: Tensor, codebook: int, step: int, *, wanted: Tensor) -> Tensor:
    """The network's logits [B, T, V] of one codebook, float32, guided by the text where there is one.

    wanted: bool [B, T], where they are used.
    """
    steps = run.sampling.steps[codebook]
    weight = guidance_weight(float(mask_rates(steps)[step]), run.sampling, place=step_place(step, steps))
    if run.loop is None:
        return run.model.guided(codes, codebook, run.memory, weight, wanted)
    frames = codes.shape[-1]
    origin = run.loop.origin(frames, sum(run.sampling.steps[:codebook]) + step)
    parts = []
    for view in run.loop.views(frames, origin, codes.device):
        used = torch.zeros_like(wanted[:, view.frames])
        used[:, view.predicted] = wanted[:, view.frames[view.predicted]]
        logits = run.model.guided(codes[..., view.frames], codebook, run.memory, weight, used)
        parts.append(logits[:, view.predicted])
    return torch.cat(parts, dim=1).roll(origin, dims=1)


def _propose(run: _Decoding, codebook: int, step: int, logits: Tensor, *, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """A code for every frame and its probability, both [B, T], from logits [B, T, V]: see `propose`.

    wanted: bool [B, T], where they are used. On a CPU, which can count them at once, nothing else is computed.
    """
    sampling, (batch, frames, codes) = run.sampling, logits.shape
    temperature, random = step_temperature(step, sampling.steps[codebook], sampling), None
    if logits.device.type != "cpu":
        if not sampling.greedy:
            random = run.numbers.uniforms(
                codebook=codebook, step=step, frames=frames, codes=codes, first_frame=run.first_frame
            )
        return propose(logits, temperature, sampling, random)
    clip, frame = wanted.nonzero(as_tuple=True)
    if not sampling.greedy:
        random = run.numbers.uniforms_at((clip, frame + run.first_frame), codebook=codebook, step=step, codes=codes)
    found, of_found = propose(logits[clip, frame], temperature, sampling, random)
    proposed, probability = found.new_zeros(batch, frames), of_found.new_ones(batch, frames)
    proposed[clip, frame], probability[clip, frame] = found, of_found
    return proposed, probability


def _check_finite(checks: Sequence[FiniteCheck], model: Network) -> None:
    """Raise NumericsError for the first step whose logits were not finite."""
    finite = torch.stack([check.finite for check in checks]).tolist() if checks else []  # one copy, not one for each
    if not all(finite):
        failed = checks[finite.index(False)]
        dtype = str(model.dtype).removeprefix("torch.")
        raise NumericsError(
            f"the model computed values that are not finite: codebook {failed.codebook}, step {failed.step}, {dtype}",
            not_finite_remedy(dtype),
        )
