"""Compares the results that a pipeline makes from held-out pictures with the originals, in pairs.

The pipeline gets inputs such as a user has: the inputs of pairs, or smaller or greyscale copies of
these pictures, degraded if the pipeline was trained to restore them. If there are several stages,
each is measured alone too, at its own size. The task's baseline is measured beside them.

Conventions: RGB, no border cut off, results rounded to 8 bits, levels of 255. Bands of measured
numbers are rounded to 16 bits of their range, which is the peak. PSNR is at most
100 dB, since one result that equals its original would make the mean infinite.

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

from cascade.chain_settings import sampling_of
from cascade.conditioning.inputs import Inputs
from cascade.contract import Contract
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.figures import Better, Measured, Score
from cascade.evaluation.image_set import ImageSet, ImageSetBuilder
from cascade.evaluation.intervals import mean_interval
from cascade.evaluation.peer_upscalers import PeerUpscaler
from cascade.evaluation.perceptual_distances import Distance
from cascade.evaluation.progress import NamedProgress
from cascade.evaluation.real_pictures import REAL, RealPictures
from cascade.evaluation.results import Measurements
from cascade.evaluation.set_figures import colour_scores, distance_scores
from cascade.evaluation.sheets import before_and_after_sheet
from cascade.imaging.rasters.showing import as_rgb
from cascade.imaging.writing import to_uint8
from cascade.pipeline import CascadePipeline
from cascade.space import Space
from cascade.stage import Stage
from cascade.tasks.enlarging import IMAGE
from cascade.tasks.image_metrics import BAND_LEVELS, MOST_PSNR_DB, psnr, ssim
from cascade.tasks.table import paired_task_of
from cascade.tasks.task import PairFigure

SECOND_SEEDS = 8  # pictures that are made again with another seed
SECOND_SEED_AFTER = 1_000_003
SHOWN = 6
TRUTH = "originals"
INPUTS = "input images"
FEWEST_FOR_DISTANCES = 2
BETWEEN = "between two seeds"
BETTER: dict[str, Better] = {"PSNR, dB": "higher", "SSIM": "higher"}


@dataclass(frozen=True)
class Way:
    """A way to make results from inputs: a stage, a chain, the baseline, or another upscaler.

    Attributes:
        subject: its name in tables.
        contracts: contracts of the stages. The first one determines the inputs, the last one the
            size of results.
        figures: functions of a result and its inputs, by figure name.
        run: makes a result (C, H, W) in [-1, 1] from inputs and a seed.
        is_random: whether another seed can give another result.
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
        pipeline: the pipeline to measure, on its device.
        held_out: pictures that it was not trained on.
        extractor: computes the features of the sets of results and originals.
        distances: distances between results and originals by name, such as LPIPS.
        num_images: number of pictures to work on.
        seed: seed of the first picture; each further picture has the next seed.
        progress: called while the measurement runs.
        peers: upscalers of other projects, which get the inputs of the whole pipeline.
    """

    pipeline: CascadePipeline
    held_out: RealPictures
    extractor: FeatureExtractor
    distances: Mapping[str, Distance]
    num_images: int
    seed: int
    progress: NamedProgress
    peers: Sequence[PeerUpscaler] = ()

    def measure(self) -> Measurements:
        """Measure the pipeline.

        Raises:
            DataError: if there are too few pictures, or one is damaged or too small.
            WeightsError: if a stage makes values that are not finite.
        """
        stages = dict(self.pipeline.stages.items())
        contracts = self.pipeline.stages.contracts
        self.held_out.check(self.num_images, contracts[-1].space, self.progress)
        inputs, truth = pairs(self.held_out, range(min(SHOWN, self.num_images)), contracts)
        subjects, columns = [], _input_column(inputs, contracts[0].space)
        for way in _ways(stages, self.peers):
            subject, results = self._measured(way)
            subjects.append(subject)
            if not any(_same(results, other) for other in columns.values()):
                columns[way.subject] = results
        columns["original"] = to_uint8(as_rgb(truth, contracts[-1].space))
        notes = [peer.about for peer in self.peers]
        if self.num_images < FEWEST_FOR_DISTANCES:
            notes.append("distances of sets need at least 2 images, and are left out.")
        return Measurements(
            measured=subjects,
            settings=sampling_of(stages.items()),
            notes=notes,
            sheets=[before_and_after_sheet(columns)],
        )

    def _measured(self, way: Way) -> tuple[Measured, Tensor]:
        """Measure one way.

        Returns:
            Its figures, and its first results (6 or fewer, 3, H, W) uint8.
        """
        device, count = self.pipeline.device, self.num_images
        space = way.contracts[-1].space
        results, originals = (
            ImageSetBuilder(self.extractor, device, space=space) for _ in range(2)
        )
        values: dict[str, list[float]] = {}
        seconds, first_results = 0.0, []
        for place in range(count):
            self.progress(way.subject, place, count)
            inputs, truth = pairs(self.held_out, [place], way.contracts)
            start_s = time.perf_counter()
            result = space.rounded(way.run(inputs, self.seed + place)[None])
            seconds += time.perf_counter() - start_s
            for name, value in self._values(way, place, inputs, result, truth).items():
                values.setdefault(name, []).append(value)
            results.add(result)
            originals.add(truth)
            first_results += [to_uint8(as_rgb(result, space))] if place < SHOWN else []
        self.progress(way.subject, count, count)
        subject = Measured(
            subject=way.subject,
            input=_input_text(way.contracts[0], self.held_out),
            size_px=way.contracts[-1].space.longer_px,
            seconds_per_image=seconds / count,
            scores=(
                *_means(values, way.figures, self.held_out.files),
                *self._set_scores(results.finish(), originals.finish()),
            ),
        )
        return subject, torch.cat(first_results)

    def _values(
        self, way: Way, place: int, inputs: Inputs, result: Tensor, truth: Tensor
    ) -> dict[str, float]:
        values = pair_values(result, truth, self.distances, way.contracts[-1].space)
        values |= {name: figure(result, inputs) for name, figure in way.figures.items()}
        if way.is_random and place < SECOND_SEEDS:
            again = way.contracts[-1].space.rounded(
                way.run(inputs, self.seed + place + SECOND_SEED_AFTER)[None]
            )
            between = distance_values(again, result, self.distances, way.contracts[-1].space)
            values |= {f"{name} {BETWEEN}": value for name, value in between.items()}
        return values

    def _set_scores(self, results: ImageSet, originals: ImageSet) -> list[Score]:
        colours = colour_scores(results, originals, TRUTH)
        if self.num_images < FEWEST_FOR_DISTANCES:
            return colours
        return [*distance_scores(self.extractor, results, originals, TRUTH), *colours]


def _input_column(inputs: Inputs, space: Space) -> dict[str, Tensor]:
    """Column of the sheet with the image inputs (B, 1 or 3, h, w) uint8, if they can be shown."""
    image = inputs.get("image")
    if image is not None and image.shape[1] == space.channels:
        return {"input": to_uint8(as_rgb(image, space))}
    if image is None or image.shape[1] not in (1, 3):
        return {}
    return {"input": to_uint8(image)}


def _same(images: Tensor, others: Tensor) -> bool:
    """Whether images (B, 3, H, W) equal others (B, 1 or 3, H, W)."""
    same_size = images.shape[-2:] == others.shape[-2:]
    return same_size and torch.equal(images, others.expand_as(images))


def _ways(stages: Mapping[str, Stage], peers: Sequence[PeerUpscaler]) -> list[Way]:
    """List the baseline, peers, each stage alone if there are several, and the whole pipeline."""
    members = list(stages.values())
    contracts = [stage.contract for stage in members]
    task, space = paired_task_of(contracts), contracts[-1].space
    baseline = Way(
        task.baseline_name,
        contracts,
        task.figures(contracts),
        lambda inputs, seed: task.baseline(inputs, space),
        is_random=False,
    )
    alone = [_way(f"{name}, alone", [stage]) for name, stage in stages.items() if len(members) > 1]
    others = [_way_of_peer(peer, contracts) for peer in peers]
    return [baseline, *others, *alone, _way("whole pipeline", members)]


def _way_of_peer(peer: PeerUpscaler, contracts: Sequence[Contract]) -> Way:
    return Way(
        peer.name,
        contracts,
        paired_task_of(contracts).figures(contracts),
        lambda inputs, seed: peer.upscale(inputs.get(IMAGE)[0], seed),
        is_random=False,
    )


def _way(subject: str, stages: Sequence[Stage]) -> Way:
    contracts = [stage.contract for stage in stages]
    task = paired_task_of(contracts)
    return Way(
        subject,
        contracts,
        task.figures(contracts),
        lambda inputs, seed: task.run(stages, inputs, seed),
    )


def pairs(
    held_out: RealPictures, places: Sequence[int], contracts: Sequence[Contract]
) -> tuple[Inputs, Tensor]:
    """Make the inputs of a chain from held-out pictures, and read the originals.

    Args:
        held_out: the originals.
        places: numbers of the pictures, which also seed the degradation.
        contracts: contracts of the stages, first stage first.

    Returns:
        The inputs, and the originals (B, 3, H, W) in [-1, 1] at the last stage's size.

    Raises:
        DataError: naming a picture that is damaged or too small.
    """
    truth = held_out.read(places, contracts[-1].space)
    return held_out.inputs(places, contracts, degraded=True), truth


def pair_values(
    result: Tensor, truth: Tensor, distances: Mapping[str, Distance], space: Space
) -> dict[str, float]:
    """Measure one result beside its original: the figures of `BETTER`, and the distances.

    Args:
        result: (1, C, H, W) in [-1, 1], rounded by the space.
        truth: (1, C, H, W) in [-1, 1], the original.
        distances: distances between results and originals by name.
        space: their space. Of bands, each one is measured too, over its whole range.
    """
    levels = BAND_LEVELS if space.has_bands else None
    values = {
        "PSNR, dB": min(float(psnr(result, truth, levels)), MOST_PSNR_DB),
        "SSIM": float(ssim(result, truth, levels)),
    }
    for band in range(space.channels if space.has_bands and space.channels > 1 else 0):
        one, other = (each[:, band : band + 1] for each in (result, truth))
        values[f"PSNR, dB, band {band + 1}"] = min(float(psnr(one, other, levels)), MOST_PSNR_DB)
        values[f"SSIM, band {band + 1}"] = float(ssim(one, other, levels))
    return values | distance_values(result, truth, distances, space)


def distance_values(
    result: Tensor, other: Tensor, distances: Mapping[str, Distance], space: Space
) -> dict[str, float]:
    """Measure the distances between two images (1, C, H, W) in [-1, 1], by name."""
    result, other = as_rgb(result, space), as_rgb(other, space)
    return {name: float(distance(result, other)) for name, distance in distances.items()}


def _input_text(first: Contract, held_out: RealPictures) -> str:
    if held_out.are_pairs:
        return f"{INPUTS} of pairs, {first.description}"
    return f"{REAL}, {first.description}" + (", degraded" if first.restores else "")


def _means(
    values: Mapping[str, Sequence[float]],
    figures: Mapping[str, PairFigure],
    files: Sequence[str],
) -> list[Score]:
    """Average each figure over pictures, with an interval if there are several.

    Args:
        values: one value per picture, by figure name.
        figures: the figures that compare results with their inputs, by name.
        files: the file of each picture.
    """
    scores = []
    for name, each in values.items():
        between = name.endswith(BETWEEN)
        reference = INPUTS if name in figures else TRUTH
        low, high = mean_interval(each, files)
        scores.append(
            Score(
                name=name,
                value=fmean(each),
                low=low,
                high=high,
                n=len(each),
                reference="results of another seed" if between else reference,
                n_reference=len(each),
                better="" if between else better_of(name),
            )
        )
    return scores


def better_of(name: str) -> Better:
    """Which values of a figure of single results are better."""
    return BETTER.get(name.partition(", band")[0], "lower")
