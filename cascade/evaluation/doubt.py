"""How well the standard deviation over seeds predicts the errors of results, on held-out pictures.

The mean over n seeds is compared with the original. If the original were one more draw of the same
distribution, the variance of their difference would be that over seeds times 1 + 1/n (Fortin et al.
2014, doi 10.1175/JHM-D-14-0008.1), so the predicted deviation is widened by the root of this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cascade.conditioning.mask import Mask
from cascade.errors import ContractError
from cascade.evaluation.calibration import Calibration, CalibrationCurve, rank_correlation
from cascade.evaluation.error_curve import error_curve
from cascade.evaluation.figures import Better, Score
from cascade.evaluation.intervals import mean_interval
from cascade.evaluation.measuring_pairs import TRUTH, pairs
from cascade.evaluation.progress import NamedProgress
from cascade.evaluation.real_pictures import RealPictures
from cascade.evaluation.results import Measurements
from cascade.pipeline import CascadePipeline
from cascade.resizing import resize
from cascade.restoration.doubt import check_seeds, over_seeds
from cascade.restoration.expected_error import ExpectedError, model_digest
from cascade.space import Space
from cascade.tasks.table import paired_task_of, task_of
from cascade.tasks.task import PairedTask

MOST_PICTURES = 100
SUBJECT = "uncertainty"
UNITS_8_BIT, PERCENT = 127.5, 50.0  # per unit of [-1, 1]


def check_doubt(pipeline: CascadePipeline, seeds: int) -> None:
    """Check that results have originals, and that there are enough seeds.

    Raises:
        ContractError: if not.
    """
    if not isinstance(task_of(pipeline.stages.contracts), PairedTask):
        raise ContractError(
            "the standard deviation over seeds is compared with errors, which need originals, but "
            "this pipeline starts from noise; leave doubt_seeds out."
        )
    check_seeds(seeds)


def with_doubt(
    measurements: Measurements,
    pipeline: CascadePipeline,
    held_out: RealPictures,
    seeds: int,
    num_images: int,
    *,
    seed: int,
    progress: NamedProgress,
) -> Measurements:
    """Measure how well deviations predict errors, and add the figures to those of the pipeline.

    Args:
        measurements: the other figures of the pipeline.
        pipeline: the pipeline, on its device.
        held_out: pictures that it was not trained on.
        seeds: number of seeds for each picture.
        num_images: number of pictures, of which the first 100 are measured.
        seed: first seed of the first picture; each further picture starts one higher.
        progress: called while the measurement runs.
    """
    count = min(num_images, MOST_PICTURES)
    space = pipeline.stages.last.space
    names = _names(space)
    correlations: list[list[float]] = [[] for _ in names]
    calibrations = [Calibration() for _ in names]
    for place in range(count):
        progress(f"{SUBJECT} over {seeds} seeds", place, count)
        deviation, error = _predicted(
            pipeline, held_out, place, range(seed + place, seed + place + seeds)
        )
        for band, calibration in enumerate(calibrations):
            part = slice(band, band + 1) if len(names) > 1 else slice(None)
            calibration.add(deviation[part], error[part])
            correlations[band].append(rank_correlation(deviation[part], error[part]))
    progress(f"{SUBJECT} over {seeds} seeds", count, count)
    unit, factor = ("% of the range", PERCENT) if space.has_bands else ("8-bit", UNITS_8_BIT)
    widening = float(predicted_deviation(torch.ones(1), seeds))
    expected_error = ExpectedError(
        seeds=seeds,
        pictures=count,
        model=model_digest([stage for _, stage in pipeline.stages.items()]),
        curves=tuple(
            error_curve(calibration, widening, values, held_out.files)
            for calibration, values in zip(calibrations, correlations, strict=True)
        ),
    )
    curves = [
        calibration.curve(name, unit, factor)
        for name, calibration in zip(names, calibrations, strict=True)
    ]
    scores = [
        score
        for values, curve in zip(correlations, curves, strict=True)
        for score in _scores(values, held_out.files, curve)
    ]
    whole = measurements.measured[-1]
    measured = [*measurements.measured[:-1], replace(whole, scores=(*whole.scores, *scores))]
    notes = [*measurements.notes, _note(seeds, count, fills=pipeline.stages.contracts[0].fills)]
    return replace(
        measurements,
        measured=measured,
        notes=notes,
        calibration=curves,
        expected_error=expected_error,
    )


def predicted_deviation(std: Tensor, seeds: int) -> Tensor:
    """The deviation of the mean over seeds from the truth, if the truth were one more draw.

    Args:
        std: standard deviation over the seeds, estimated with n - 1.
        seeds: number n of seeds.
    """
    return std * math.sqrt(1 + 1 / seeds)


def _predicted(
    pipeline: CascadePipeline, held_out: RealPictures, place: int, seeds: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Predicted deviations and errors of a picture, in units of [-1, 1].

    Returns:
        Both (C, H, W); of pictures with holes (C, N) for the N pixels in the hole, because the
        others are those of the picture, without deviation and error.
    """
    stages = [stage for _, stage in pipeline.stages.items()]
    contracts = pipeline.stages.contracts
    task = paired_task_of(contracts)
    inputs, truth = pairs(held_out, [place], contracts)
    mean, std = over_seeds(lambda seed, part: task.run(stages, inputs, seed), seeds)
    deviation, error = predicted_deviation(std, len(seeds)), mean - truth[0]
    if not contracts[0].fills:
        return deviation, error
    hole = inputs.get(Mask.input_name)[:, -1:].cpu() <= 0  # (1, 1, H, W) of the first stage
    inside = resize(hole.float(), contracts[-1].space.size, "area")[0, 0] > 0
    return deviation[:, inside], error[:, inside]


def _names(space: Space) -> list[str]:
    """What curves are measured of: each of several bands, else all channels together."""
    if space.has_bands and space.channels > 1:
        return [f"band {band + 1}" for band in range(space.channels)]
    return [""]


def _scores(
    correlations: Sequence[float], files: Sequence[str], curve: CalibrationCurve
) -> list[Score]:
    low, high = mean_interval(correlations, files)
    n = len(correlations)
    ends = f", {curve.name}" if curve.name else ""

    def score(name: str, value: float, better: Better) -> Score:
        return Score(
            name=f"{SUBJECT}, {name}{ends}",
            value=value,
            n=n,
            reference=TRUTH,
            n_reference=n,
            better=better,
        )

    correlation = score("rank correlation", sum(correlations) / n, "higher")
    return [
        replace(correlation, low=low, high=high),
        score(f"calibration error, {curve.unit}", curve.expected_error, "lower"),
        score("deviation / error", curve.ratio, "nearer to 1"),
    ]


def _note(seeds: int, count: int, *, fills: bool) -> str:
    pixels = "pixels in the holes" if fills else "pixels"
    return (
        f"uncertainty: standard deviation over {seeds} seeds against the errors of their mean, "
        f"over the {pixels} of {count} images; deviation / error below 1 means overconfident."
    )
