"""A pipeline that enlarges or colours pictures, beside the pictures that it was to restore.

Held-out pictures are made small, or grey, as the first stage's contract says, and damaged if it was
trained to mend them. They are restored in turn as `cascade upscale` and `cascade colourise` do it.
A stage of several is measured alone too, given held-out pictures of its own size. What costs
nothing stands beside it: bicubic interpolation, or the grey picture itself.

Conventions: RGB, no border cut off, results rounded to 8 bits, levels of 255; PSNR is at most
100 dB, or one result that equals its original would make the mean infinite.

Shapes: B images, H and W pixels, h and w of what is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor

from cascade.conditioning.luminance import luminance
from cascade.evaluation.bootstrap import mean_estimate
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.findings import REAL, Findings
from cascade.evaluation.metrics import low_res_error, psnr, ssim
from cascade.evaluation.observation import UNITS_8_BIT, Observation, Observer
from cascade.evaluation.pictures import Pictures, Report
from cascade.evaluation.scores import Better, Measured, Score
from cascade.evaluation.set_scores import colour_scores, distance_scores
from cascade.imaging.writing import to_uint8
from cascade.pipeline import CascadePipeline
from cascade.resizing import quantise, resize
from cascade.restoration.colouring import Colouring, colourise_image
from cascade.restoration.upscaling import Upscaling, upscale_image
from cascade.stage import Stage

SECOND_SEEDS = 8  # pictures that are restored again with another seed
SECOND_SEED_AFTER = 1_000_003
SHOWN = 6
MOST_PSNR_DB = 100.0
TRUTH = "originals"
GREY_COPY = "grey copy"
FEWEST_FOR_DISTANCES = 2
CONSISTENCY, LUMINANCE = "LR-consistency, 8-bit squared", "luminance error, 8-bit"
BETWEEN = "between two seeds"
BETTER: dict[str, Better] = {"PSNR, dB": "higher", "SSIM": "higher"}
Restore = Callable[[Tensor, int], Tensor]
Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Way:
    """A way to restore pictures.

    Attributes:
        subject: its name.
        stages: whose first says what is given, and whose last the size of the result.
        restore: a result (3, H, W) from what is given (C, h, w) and a seed.
        repeated: whether another seed may give another result.
    """

    subject: str
    stages: Sequence[Stage]
    restore: Restore
    repeated: bool = True


def evaluate_restored(
    pipeline: CascadePipeline,
    held_out: Pictures,
    extractor: FeatureExtractor,
    distances: Mapping[str, Distance],
    *,
    num_images: int,
    seed: int,
    report: Report,
) -> Findings:
    """Measure a pipeline whose first stage takes an image.

    Args:
        pipeline: to measure, on its device.
        held_out: pictures that it was not trained on.
        extractor: of the features of sets.
        distances: of results (B, 3, H, W) from originals, such as LPIPS, by name.
        num_images: how many pictures to restore.
        seed: of the first picture.
        report: called with what is being done, how much of it is done, and of how much.

    Raises:
        DataError: if there are too few pictures, or one is damaged or too small.
    """
    found = Findings()
    stages = dict(pipeline.stages.items())
    found.settings = {name: asdict(stage.sampling) for name, stage in stages.items()}
    last = pipeline.stages[pipeline.stages.names[-1]].contract
    held_out.check(num_images, last, report)
    measuring = _Measuring(
        held_out=held_out,
        extractor=extractor,
        distances=distances,
        count=num_images,
        seed=seed,
        device=pipeline.device,
        report=report,
    )
    given, truth = pairs(held_out, range(min(SHOWN, num_images)), list(stages.values()))
    shown = {"given": to_uint8(given)}
    for way in _ways(stages):
        measured, results = measuring.of(way)
        found.measured.append(measured)
        if way.subject != GREY_COPY:  # which is what is given
            shown[way.subject] = results
    shown["original"] = to_uint8(truth)
    size = (truth.shape[-2], truth.shape[-1])
    for name, images in shown.items():  # of one size, and in colour, to stand beside each other
        found.pictures[name] = F.interpolate(images, size=size).expand(-1, 3, -1, -1)
    if num_images < FEWEST_FOR_DISTANCES:
        found.notes.append("distances of sets need at least 2 pictures, and are left out.")
    return found


def _ways(stages: dict[str, Stage]) -> list[Way]:
    members = list(stages.values())
    if members[0].contract.takes == "grey":
        simple = Way(GREY_COPY, members[:1], lambda given, seed: given.expand(3, -1, -1), False)
    else:
        simple = Way("bicubic", members, _bicubic(members), False)
    alone = [
        Way(f"{name}, alone", [stage], restoring([stage]))
        for name, stage in stages.items()
        if len(stages) > 1
    ]
    return [simple, *alone, Way("whole pipeline", members, restoring(members))]


def _bicubic(stages: Sequence[Stage]) -> Restore:
    side = stages[-1].contract.size_px
    return lambda given, seed: resize(given[None], (side, side), "bicubic")[0]


def restoring(stages: Sequence[Stage]) -> Restore:
    """What a user gets of stages, the first of which takes an image."""
    colours = stages[0].contract.takes == "grey"
    upsamplers = stages[1:] if colours else stages

    def restore(given: Tensor, seed: int) -> Tensor:
        if colours:
            given = colourise_image(stages[:1], given, Colouring(seed=seed))
        return upscale_image(upsamplers, given, Upscaling(seed=seed)) if upsamplers else given

    return restore


def pairs(
    held_out: Pictures, places: Sequence[int], stages: Sequence[Stage]
) -> tuple[Tensor, Tensor]:
    """What the first stage is given, and what the last should make of it.

    Args:
        held_out: the originals.
        places: in their mixed order; the seeds of damage, too.
        stages: a chain, the first of which takes an image.

    Returns:
        (B, C, h, w) and (B, 3, H, W), both in [-1, 1].
    """
    truth, _ = held_out.read(places, stages[-1].contract)
    first, damage = stages[0].contract, stages[0].degradation
    side = first.low_res_px or first.size_px
    given = resize(truth, (side, side), first.resize_kernel)
    if damage is not None:
        large = resize(truth, (first.size_px, first.size_px), first.resize_kernel)
        given = damage.apply(large, given, first.resize_kernel, places)
    return quantise(luminance(given) if first.takes == "grey" else given), truth


def pair_values(
    first: Stage,
    given: Tensor,
    result: Tensor,
    truth: Tensor,
    distances: Mapping[str, Distance],
) -> dict[str, float]:
    """The figures of one result.

    Args:
        first: the stage that was given something.
        given: (1, C, h, w), what it was.
        result: (1, 3, H, W), rounded to 8 bits.
        truth: (1, 3, H, W).
        distances: of a result from the truth, by name.
    """
    ratio = min(float(psnr(result, truth)), MOST_PSNR_DB)
    values = {"PSNR, dB": ratio, "SSIM": float(ssim(result, truth))}
    values |= {name: float(far(result, truth)) for name, far in distances.items()}
    kernel = first.contract.resize_kernel
    if first.contract.takes == "grey":
        small = resize(result, (given.shape[-2], given.shape[-1]), kernel)
        values[LUMINANCE] = float((luminance(small) - given).abs().mean()) * UNITS_8_BIT
    elif first.degradation is None:  # else what is given is not to be agreed with
        values[CONSISTENCY] = float(low_res_error(result, given, kernel))
    return values


@dataclass(frozen=True, kw_only=True)
class _Measuring:
    """Restores pictures in one way after another and compares the results with the originals."""

    held_out: Pictures
    extractor: FeatureExtractor
    distances: Mapping[str, Distance]
    count: int
    seed: int
    device: torch.device
    report: Report

    def of(self, way: Way) -> tuple[Measured, Tensor]:
        """The figures of one way, and its first results (B, 3, H, W) uint8."""
        seen, real = (Observer(self.extractor, self.device) for _ in range(2))
        values: dict[str, list[float]] = {}
        seconds, shown = 0.0, []
        for place in range(self.count):
            self.report(way.subject, place, self.count)
            given, truth = pairs(self.held_out, [place], way.stages)
            begun = time.perf_counter()
            result = quantise(way.restore(given[0], self.seed + place)[None])
            seconds += time.perf_counter() - begun
            for name, value in self._pair_values(way, place, given, result, truth).items():
                values.setdefault(name, []).append(value)
            seen.add(result)
            real.add(truth)
            shown += [to_uint8(result)] if place < SHOWN else []
        self.report(way.subject, self.count, self.count)
        measured = Measured(
            subject=way.subject,
            given=_given(way.stages[0]),
            size_px=way.stages[-1].contract.size_px,
            seconds_per_image=seconds / self.count,
            scores=(*_means(values), *self._set_scores(seen.finish(), real.finish())),
        )
        return measured, torch.cat(shown)

    def _pair_values(
        self, way: Way, place: int, given: Tensor, result: Tensor, truth: Tensor
    ) -> dict[str, float]:
        values = pair_values(way.stages[0], given, result, truth, self.distances)
        if way.repeated and place < SECOND_SEEDS:
            again = quantise(way.restore(given[0], self.seed + place + SECOND_SEED_AFTER)[None])
            between = {name: float(far(again, result)) for name, far in self.distances.items()}
            values |= {f"{name} {BETWEEN}": value for name, value in between.items()}
        return values

    def _set_scores(self, seen: Observation, real: Observation) -> list[Score]:
        colours = colour_scores(seen, real, TRUTH)
        if self.count < FEWEST_FOR_DISTANCES:
            return colours
        return [*distance_scores(self.extractor, seen, real, TRUTH), *colours]


def _given(first: Stage) -> str:
    made = "grey" if first.contract.takes == "grey" else f"{first.contract.low_res_px} px"
    return f"{REAL}, {made}" + ("" if first.degradation is None else ", damaged")


def _means(values: Mapping[str, Sequence[float]]) -> list[Score]:
    """The mean over pictures of each figure, with its interval where there are several."""
    scores = []
    for name, found in values.items():
        repeated = name.endswith(BETWEEN)
        reference = "results of another seed" if repeated else TRUTH
        if name in (CONSISTENCY, LUMINANCE):
            reference = "given pictures"
        estimate = mean_estimate(found) if len(found) > 1 else None
        scores.append(
            Score(
                name=name,
                value=fmean(found),
                low=estimate and estimate.low,
                high=estimate and estimate.high,
                n=len(found),
                reference=reference,
                n_reference=len(found),
                better="" if repeated else BETTER.get(name, "lower"),
            )
        )
    return scores
