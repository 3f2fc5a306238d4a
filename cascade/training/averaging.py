"""Averages of the weights over a run, and averages of any width made afterwards.

Post-hoc EMA after Karras et al. 2024 (EDM2, arXiv 2312.02696, section 3 and appendix C): two
averages with power-function profiles are kept in training and stored now and then; a linear
combination of the stored ones comes close to the average that any other width would have had.

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
LARGEST_WIDTH = 0.28  # that of a flat average is 12 ** -0.5
MOST_MISFIT = 0.25  # beyond, the factors do not come near 1 in sum, and the weights shrink


class PowerAverage:
    """A running average whose weights grow as a power of the images seen (EDM2, eq. 127).

    Args:
        parameters: what is averaged.
        width: sigma_rel, above 0 and below 0.28.
    """

    def __init__(self, parameters: Sequence[Tensor], width: float) -> None:
        self.width = width
        self.exponent = width_to_exponent(width)
        self.values = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def step(self, parameters: Sequence[Tensor], *, images_seen: int, batch_size: int) -> None:
        """Take in the weights after a step.

        Args:
            parameters: the new weights.
            images_seen: after the step.
            batch_size: images of the step.
        """
        keep = (1 - batch_size / images_seen) ** (self.exponent + 1)
        torch._foreach_lerp_(self.values, [p.detach() for p in parameters], 1 - keep)


@dataclass(frozen=True)
class Snapshot:
    """A stored average.

    Attributes:
        folder: with the stage that has these weights.
        images_seen: when it was stored.
        width: its sigma_rel.
    """

    folder: Path
    images_seen: int
    width: float


def snapshot_folder(folder: Path, images_seen: int, width: float) -> Path:
    """Where the average of a width after so many images is stored."""
    return folder / f"{images_seen:012d}-{width:.3f}"


def snapshots(folder: Path) -> list[Snapshot]:
    """The stored averages of a run, oldest first."""
    found = []
    for path in folder.glob("[0-9]*-[0-9]*"):
        name = re.fullmatch(r"(\d+)-(\d\.\d+)", path.name, re.ASCII)
        if name and (path / "stage.json").is_file():
            found.append(Snapshot(path, int(name[1]), float(name[2])))
    return sorted(found, key=lambda each: (each.images_seen, each.width))


def reconstruct(stored: Sequence[Snapshot], width: float, *, images_seen: int) -> Stage:
    """Make the stage whose weights are averaged over another width (EDM2, algorithm 3).

    Args:
        stored: snapshots of one run.
        width: the sigma_rel that is wanted, above 0 and below 0.28.
        images_seen: at which point of the run, one of those that were stored; snapshots after it
            are not used.

    Returns:
        The stage, in float32 on the CPU.

    Raises:
        WeightsError: if there is no snapshot of that point, too few for that width, or one that is
            damaged.
    """
    points = sorted({each.images_seen for each in stored})
    if images_seen not in points:
        near = sorted(points, key=lambda point: abs(point - images_seen))[:5]
        raise WeightsError(
            f"no snapshot after {images_seen} images; the nearest are after "
            f"{', '.join(map(str, sorted(near)))}."
        )
    usable = [each for each in stored if each.images_seen <= images_seen]
    profiles = [(each.images_seen, each.width) for each in usable]
    weights = combination(profiles, (images_seen, width))
    if misfit(profiles, weights, (images_seen, width)) > MOST_MISFIT:
        raise WeightsError(
            f"too few snapshots for an average of width {width} ({len(usable)}); take a width "
            f"nearer to {' or '.join(map(str, STORED_WIDTHS))}, or train with a smaller "
            "train.snapshot_every_images."
        )
    total: dict[str, Tensor] = {}
    for snapshot, weight in zip(usable, weights, strict=True):
        stage = load_stage(snapshot.folder)
        for name, value in stage.named_parameters():
            part = value.detach().double() * weight
            total[name] = total[name] + part if name in total else part
    with torch.no_grad():  # buffers are constants, and the factors do not sum to 1 exactly
        for name, value in stage.named_parameters():
            value.copy_(total[name])
    return stage


def combination(stored: Sequence[tuple[int, float]], wanted: tuple[int, float]) -> list[float]:
    """How much of each stored average the wanted one is made of, by least squares.

    Args:
        stored: images seen and width of each.
        wanted: images seen and width.

    Returns:
        One factor for each stored average.
    """
    times, exponents = _profiles(stored)
    time, exponent = _profiles([wanted])
    products = _inner_product(times[:, None], exponents[:, None], times, exponents)
    return np.linalg.lstsq(products, _inner_product(times, exponents, time, exponent), rcond=None)[
        0
    ].tolist()


def misfit(
    stored: Sequence[tuple[int, float]], factors: Sequence[float], wanted: tuple[int, float]
) -> float:
    """How far a combination of stored averages is from the wanted one.

    Args:
        stored: images seen and width of each.
        factors: of each.
        wanted: images seen and width.

    Returns:
        The norm of the difference of the two profiles over that of the wanted one: 0 is perfect.
    """
    every = [*stored, wanted]
    times, exponents = _profiles(every)
    products = _inner_product(times[:, None], exponents[:, None], times, exponents)
    difference = np.array([*factors, -1.0])
    return float(np.sqrt(max(0.0, difference @ products @ difference) / products[-1, -1]))


def width_to_exponent(width: float) -> float:
    """The exponent gamma of the profile t^gamma that has a relative width (EDM2, algorithm 2)."""
    if not 0 < width <= LARGEST_WIDTH:
        raise WeightsError(
            f"the width of an average must be above 0 and at most {LARGEST_WIDTH}, got {width}."
        )
    inverse = width**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def _profiles(points: Sequence[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    times = np.array([float(images) for images, _ in points])
    return times, np.array([width_to_exponent(width) for _, width in points])


def _inner_product(
    time_a: np.ndarray, exponent_a: np.ndarray, time_b: np.ndarray, exponent_b: np.ndarray
) -> np.ndarray:
    """Of two power-function profiles that end at different times (EDM2, eq. 151)."""
    ratio = time_a / time_b
    power = np.where(time_a < time_b, exponent_b, -exponent_a)
    numerator = (exponent_a + 1) * (exponent_b + 1) * ratio**power
    return numerator / ((exponent_a + exponent_b + 1) * np.maximum(time_a, time_b))
