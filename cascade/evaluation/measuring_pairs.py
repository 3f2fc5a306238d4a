"""Measures what a pipeline makes from held-out pictures, one by one beside the originals.

The pipeline gets what a user would give it for these pictures, such as smaller or grey copies, with
damage if it was trained to mend them. A stage of several is measured alone too, at its own size.
The task's baseline, which costs nothing, stands beside them.

Conventions: RGB, no border cut off, results rounded to 8 bits, levels of 255; PSNR is at most
100 dB, or one result that equals its original would make the mean infinite.

Shapes: B images, C channels, H and W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import final

import torch
from torch import Tensor

from cascade.conditioning.inputs import Inputs
from cascade.contract import Contract
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.figures import Better, Measured, Score
from cascade.evaluation.image_metrics import psnr, ssim
from cascade.evaluation.image_set import ImageSet, ImageSetBuilder
from cascade.evaluation.intervals import mean_estimate
from cascade.evaluation.perceptual_distances import Distance
from cascade.evaluation.progress import NamedProgress
from cascade.evaluation.real_pictures import REAL, RealPictures
from cascade.evaluation.results import Measurements
from cascade.evaluation.set_figures import colour_scores, distance_scores
from cascade.evaluation.sheets import before_and_after_sheet
from cascade.imaging.writing import to_uint8
from cascade.pipeline import CascadePipeline
from cascade.resizing import quantise
from cascade.stage import Stage
from cascade.tasks.table import task_of
from cascade.tasks.task import PairedTask, PairFigure

SECOND_SEEDS = 8  # pictures that are made again with another seed
SECOND_SEED_AFTER = 1_000_003
SHOWN = 6
MOST_PSNR_DB = 100.0
TRUTH = "originals"
GIVEN = "given pictures"
FEWEST_FOR_DISTANCES = 2
BETWEEN = "between two seeds"
BETTER: dict[str, Better] = {"PSNR, dB": "higher", "SSIM": "higher"}


@dataclass(frozen=True)
class Way:
    """A way to make results from what is given.

    Attributes:
        subject: its name.
        contracts: of the stages, whose first says what is given and whose last the size of results.
        figures: how well a result agrees with what was given, by name.
        run: a result (C, H, W) from inputs and a seed.
        is_random: whether another seed may give another result.
    """

    subject: str
    contracts: Sequence[Contract]
    figures: Mapping[str, PairFigure]
    run: Callable[[Inputs, int], Tensor]
    is_random: bool = True


@final
@dataclass(frozen=True, kw_only=True)
class PairMeasurer:
    """Makes results from held-out pictures and compares them with the originals.

    Attributes:
        pipeline: to measure, on its device.
        held_out: pictures that it was not trained on.
        extractor: of the features of sets.
        distances: of results from originals, such as LPIPS, by name.
        num_images: how many pictures to work on.
        seed: of the first picture.
        progress: called as the work goes on.
    """

    pipeline: CascadePipeline
    held_out: RealPictures
    extractor: FeatureExtractor
    distances: Mapping[str, Distance]
    num_images: int
    seed: int
    progress: NamedProgress

    def measure(self) -> Measurements:
        """Measure the pipeline.

        Raises:
            DataError: if there are too few pictures, or one is damaged or too small.
        """
        stages = dict(self.pipeline.stages.items())
        contracts = self.pipeline.stages.contracts
        self.held_out.check(self.num_images, contracts[-1].space, self.progress)
        inputs, truth = pairs(self.held_out, range(min(SHOWN, self.num_images)), contracts)
        measured, columns = [], _shown_inputs(inputs)
        for way in _ways(stages):
            each, results = self._measured(way)
            measured.append(each)
            if not any(_same(results, other) for other in columns.values()):
                columns[way.subject] = results
        columns["original"] = to_uint8(truth)
        notes = []
        if self.num_images < FEWEST_FOR_DISTANCES:
            notes.append("distances of sets need at least 2 pictures, and are left out.")
        return Measurements(
            measured=measured,
            settings={name: stage.sampling.to_dict() for name, stage in stages.items()},
            notes=notes,
            sheets=[before_and_after_sheet(columns)],
        )

    def _measured(self, way: Way) -> tuple[Measured, Tensor]:
        """The figures of one way, and its first results (B, 3, H, W) uint8."""
        results, originals = (
            ImageSetBuilder(self.extractor, self.pipeline.device) for _ in range(2)
        )
        values: dict[str, list[float]] = {}
        seconds, shown = 0.0, []
        for place in range(self.num_images):
            self.progress(way.subject, place, self.num_images)
            inputs, truth = pairs(self.held_out, [place], way.contracts)
            begun = time.perf_counter()
            result = quantise(way.run(inputs, self.seed + place)[None])
            seconds += time.perf_counter() - begun
            for name, value in self._values(way, place, inputs, result, truth).items():
                values.setdefault(name, []).append(value)
            results.add(result)
            originals.add(truth)
            shown += [to_uint8(result)] if place < SHOWN else []
        self.progress(way.subject, self.num_images, self.num_images)
        sets = self._set_scores(results.finish(), originals.finish())
        measured = Measured(
            subject=way.subject,
            given=_given(way.contracts[0]),
            size_px=way.contracts[-1].space.longer_px,
            seconds_per_image=seconds / self.num_images,
            scores=(*_means(values, way.figures), *sets),
        )
        return measured, torch.cat(shown)

    def _values(
        self, way: Way, place: int, inputs: Inputs, result: Tensor, truth: Tensor
    ) -> dict[str, float]:
        values = pair_values(result, truth, self.distances)
        values |= {name: figure(result, inputs) for name, figure in way.figures.items()}
        if way.is_random and place < SECOND_SEEDS:
            again = quantise(way.run(inputs, self.seed + place + SECOND_SEED_AFTER)[None])
            between = distance_values(again, result, self.distances)
            values |= {f"{name} {BETWEEN}": value for name, value in between.items()}
        return values

    def _set_scores(self, results: ImageSet, originals: ImageSet) -> list[Score]:
        colours = colour_scores(results, originals, TRUTH)
        if self.num_images < FEWEST_FOR_DISTANCES:
            return colours
        return [*distance_scores(self.extractor, results, originals, TRUTH), *colours]


def _shown_inputs(inputs: Inputs) -> dict[str, Tensor]:
    """The image (B, 1 or 3, h, w) uint8 that was given, if there is one that can be shown."""
    image = inputs.get("image")
    if image is None or image.shape[1] not in (1, 3):
        return {}
    return {"given": to_uint8(image)}


def _same(images: Tensor, others: Tensor) -> bool:
    """Whether images (B, C, H, W) show the same as others of perhaps one channel."""
    same_size = images.shape[-2:] == others.shape[-2:]
    return same_size and torch.equal(images, others.expand_as(images))


def paired_task(contracts: Sequence[Contract]) -> PairedTask:
    """The task of a chain whose first stage takes an image.

    Args:
        contracts: of the stages, first stage first.

    Raises:
        ContractError: if no kind of task suits it.
    """
    task = task_of(contracts)
    assert isinstance(task, PairedTask), f"{task.name} has no originals"
    return task


def _ways(stages: Mapping[str, Stage]) -> list[Way]:
    """The baseline, each of several stages alone, and the whole pipeline."""
    members = list(stages.values())
    contracts = [stage.contract for stage in members]
    task, space = paired_task(contracts), contracts[-1].space
    baseline = Way(
        task.baseline_name,
        contracts,
        task.figures(contracts),
        lambda inputs, seed: task.baseline(inputs, space),
        is_random=False,
    )
    alone = [_way(f"{name}, alone", [stage]) for name, stage in stages.items() if len(members) > 1]
    return [baseline, *alone, _way("whole pipeline", members)]


def _way(subject: str, stages: Sequence[Stage]) -> Way:
    contracts = [stage.contract for stage in stages]
    task = paired_task(contracts)
    return Way(
        subject,
        contracts,
        task.figures(contracts),
        lambda inputs, seed: task.run(stages, inputs, seed),
    )


def pairs(
    held_out: RealPictures, places: Sequence[int], contracts: Sequence[Contract]
) -> tuple[Inputs, Tensor]:
    """What a chain of stages is given, and what it should make of it.

    Args:
        held_out: the originals.
        places: in their mixed order; the seeds of the damage, too.
        contracts: of the stages, first stage first.

    Returns:
        The inputs, and the originals (B, 3, H, W) in [-1, 1] at the last stage's size.

    Raises:
        DataError: naming a picture that is damaged or too small.
    """
    truth = held_out.read(places, contracts[-1].space)
    return held_out.inputs(places, contracts, damaged=True), truth


def pair_values(
    result: Tensor, truth: Tensor, distances: Mapping[str, Distance]
) -> dict[str, float]:
    """The figures of one result beside its original: those of `BETTER`, and the distances.

    Args:
        result: (1, 3, H, W) in [-1, 1], rounded to 8 bits.
        truth: (1, 3, H, W) in [-1, 1].
        distances: of a result from the original, by name.
    """
    ratio = min(float(psnr(result, truth)), MOST_PSNR_DB)
    values = {"PSNR, dB": ratio, "SSIM": float(ssim(result, truth))}
    return values | distance_values(result, truth, distances)


def distance_values(
    result: Tensor, other: Tensor, distances: Mapping[str, Distance]
) -> dict[str, float]:
    """Distances of one image (1, 3, H, W) from another, by name."""
    return {name: float(distance(result, other)) for name, distance in distances.items()}


def _given(first: Contract) -> str:
    return f"{REAL}, {first.description}" + (", damaged" if first.mends else "")


def _means(values: Mapping[str, Sequence[float]], figures: Mapping[str, PairFigure]) -> list[Score]:
    """The mean over pictures of each figure, with its interval if there are several pictures.

    Args:
        values: of each picture, by the name of the figure.
        figures: those that compare results with what was given.
    """
    scores = []
    for name, each in values.items():
        between = name.endswith(BETWEEN)
        reference = GIVEN if name in figures else TRUTH
        estimate = mean_estimate(each) if len(each) > 1 else None
        scores.append(
            Score(
                name=name,
                value=fmean(each),
                low=estimate and estimate.low,
                high=estimate and estimate.high,
                n=len(each),
                reference="results of another seed" if between else reference,
                n_reference=len(each),
                better="" if between else BETTER.get(name, "lower"),
            )
        )
    return scores
