"""Averages of the weights over a run, and averages of any width reconstructed afterwards.

Post-hoc EMA after Karras et al. 2024 (EDM2, arXiv 2312.02696, section 3 and appendix C): training
keeps two averages with power-function profiles and stores them at regular intervals. A linear
combination of the stored averages approximates the average that any other width would have given.

The width of an average is its relative standard deviation sigma_rel: 0.1 means that it looks back
over about a tenth of the run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cascade.errors import WeightsError
from cascade.stage import Stage
from cascade.stage_kinds import load_stage

STORED_WIDTHS = (0.05, 0.10)
LARGEST_WIDTH = 0.28  # a flat average has the width 12 ** -0.5
LARGEST_MISFIT = 0.25  # beyond it, the factors sum to much less than 1 and the weights shrink


class PowerAverage:
    """A running average whose weights grow as a power of the images seen (EDM2, eq. 127).

    Args:
        parameters: the tensors to average, at their initial values.
        width: sigma_rel, above 0 and at most 0.28.
    """

    def __init__(self, parameters: Sequence[Tensor], width: float) -> None:
        self.width = width
        self.exponent = width_to_exponent(width)
        self.values = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def step(self, parameters: Sequence[Tensor], *, images_seen: int, batch_size: int) -> None:
        """Include the weights after an optimiser step.

        Args:
            parameters: the new values, in the order of the constructor.
            images_seen: number of images the run has seen, with those of this step.
            batch_size: number of images in this step.
        """
        keep = (1 - batch_size / images_seen) ** (self.exponent + 1)
        torch._foreach_lerp_(self.values, [p.detach() for p in parameters], 1 - keep)


@dataclass(frozen=True)
class Snapshot:
    """A stored average.

    Attributes:
        folder: folder of a saved stage with the averaged weights.
        images_seen: number of images the run had seen.
        width: sigma_rel of the average.
    """

    folder: Path
    images_seen: int
    width: float


def snapshot_folder(folder: Path, images_seen: int, width: float) -> Path:
    """Where to store the average of a width after a number of images."""
    return folder / f"{images_seen:012d}-{width:.3f}"


def snapshots(folder: Path) -> list[Snapshot]:
    """The stored averages of a run, oldest first."""
    names = {
        path: re.fullmatch(r"(\d+)-(\d\.\d+)", path.name, re.ASCII) for path in folder.glob("*")
    }
    complete = [
        Snapshot(path, int(name[1]), float(name[2]))
        for path, name in names.items()
        if name and (path / "stage.json").is_file()
    ]
    return sorted(complete, key=lambda snapshot: (snapshot.images_seen, snapshot.width))


def reconstruct(run: Sequence[Snapshot], width: float, *, images_seen: int) -> Stage:
    """Make the stage whose weights are averaged over another width (EDM2, algorithm 3).

    Args:
        run: all snapshots of one run.
        width: sigma_rel of the new average, above 0 and at most 0.28.
        images_seen: the point in the run, which must be that of a snapshot; later snapshots are
            not used.

    Returns:
        The stage, in float32 on the CPU. Its buffers, such as the running statistics of batch
        norms, are those of the snapshot at that point.

    Raises:
        WeightsError: if there is no snapshot at that point, there are too few for that width, or
            one is damaged.
    """
    _check_point(run, images_seen)
    earlier = [snapshot for snapshot in run if snapshot.images_seen <= images_seen]
    profiles = [(snapshot.images_seen, snapshot.width) for snapshot in earlier]
    factors = combination(profiles, (images_seen, width))
    if misfit(profiles, factors, (images_seen, width)) > LARGEST_MISFIT:
        raise WeightsError(
            f"too few snapshots for an average of width {width} ({len(earlier)}); choose a width "
            f"closer to {' or '.join(map(str, STORED_WIDTHS))}, or train with a smaller "
            "snapshot_every_images."
        )
    return _combine(earlier, factors)


def _check_point(run: Sequence[Snapshot], images_seen: int) -> None:
    points = sorted({snapshot.images_seen for snapshot in run})
    if images_seen not in points:
        nearest = sorted(points, key=lambda point: abs(point - images_seen))[:5]
        raise WeightsError(
            f"no snapshot after {images_seen} images; the nearest are after "
            f"{', '.join(map(str, sorted(nearest)))}."
        )


def _combine(parts: Sequence[Snapshot], factors: Sequence[float]) -> Stage:
    """Sum the stages' parameters with the factors; buffers are those of the last stage."""
    total: dict[str, Tensor] = {}
    for snapshot, factor in zip(parts, factors, strict=True):
        stage = load_stage(snapshot.folder)
        for name, value in stage.named_parameters():
            term = value.detach().double() * factor
            total[name] = total[name] + term if name in total else term
    with torch.no_grad():
        for name, value in stage.named_parameters():
            value.copy_(total[name])
    return stage


def combination(averages: Sequence[tuple[int, float]], target: tuple[int, float]) -> list[float]:
    """Approximate an average by a linear combination of stored ones, by least squares.

    Args:
        averages: images seen and width of each stored average.
        target: images seen and width of the average to approximate.

    Returns:
        One factor for each stored average.
    """
    times, exponents = _profiles(averages)
    time, exponent = _profiles([target])
    products = _inner_product(times[:, None], exponents[:, None], times, exponents)
    projections = _inner_product(times, exponents, time, exponent)
    return np.linalg.lstsq(products, projections, rcond=None)[0].tolist()


def misfit(
    averages: Sequence[tuple[int, float]], factors: Sequence[float], target: tuple[int, float]
) -> float:
    """How far a combination of stored averages is from the target.

    Args:
        averages: images seen and width of each stored average.
        factors: one factor for each stored average.
        target: images seen and width of the average to approximate.

    Returns:
        The norm of the difference between the two profiles divided by the norm of the target's:
        0 is perfect.
    """
    times, exponents = _profiles([*averages, target])
    products = _inner_product(times[:, None], exponents[:, None], times, exponents)
    difference = np.array([*factors, -1.0])
    return float(np.sqrt(max(0.0, difference @ products @ difference) / products[-1, -1]))


def width_to_exponent(width: float) -> float:
    """The exponent gamma of the profile t^gamma with a relative width (EDM2, algorithm 2).

    Args:
        width: sigma_rel, above 0 and at most 0.28.

    Raises:
        WeightsError: if the width is out of range.
    """
    if not 0 < width <= LARGEST_WIDTH:
        raise WeightsError(
            f"the width of an average must be above 0 and at most {LARGEST_WIDTH}, got {width}."
        )
    inverse = width**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def _profiles(points: Sequence[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Times and exponents of averages."""
    times = np.array([float(images) for images, _ in points])
    return times, np.array([width_to_exponent(width) for _, width in points])


def _inner_product(
    time_a: np.ndarray, exponent_a: np.ndarray, time_b: np.ndarray, exponent_b: np.ndarray
) -> np.ndarray:
    """The inner product of two power-function profiles with different ends (EDM2, eq. 151)."""
    ratio = time_a / time_b
    power = np.where(time_a < time_b, exponent_b, -exponent_a)
    numerator = (exponent_a + 1) * (exponent_b + 1) * ratio**power
    return numerator / ((exponent_a + exponent_b + 1) * np.maximum(time_a, time_b))
