"""The mean and the standard deviation of the results that several seeds give.

Where the standard deviation is large, the model could have drawn something else, so the result is
in doubt there. Both are those of the results that the seeds give one by one: of their numbers as
they are stored, rounded if the type is whole. The sums grow with the picture, not with the number
of seeds (Welford 1962), and are files if they are large.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cascade.errors import ContractError
from cascade.imaging.picture import Picture
from cascade.imaging.rasters.raster import Raster
from cascade.mapped_arrays import new_array, release_pages, row_slices
from cascade.restoration.bands import beside_missing
from cascade.sampling.canvas import new_canvas
from cascade.sampling.walk import Progress

FEWEST_SEEDS = 2
ROWS = 256  # that are added at a time
PROGRESS_PARTS = 1000
Result = TypeVar("Result", Picture, Raster, Tensor)


def check_seeds(count: int) -> None:
    """Check that there are enough seeds for a standard deviation.

    Raises:
        ContractError: if there are not.
    """
    if count < FEWEST_SEEDS:
        raise ContractError(
            f"a standard deviation over seeds needs at least {FEWEST_SEEDS} seeds, got {count}; "
            "ask for more, such as 8."
        )


@final
class Moments:
    """Mean and standard deviation of images that come one at a time.

    Attributes:
        count: number of images so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._squares = torch.empty(0)

    def add(self, image: Tensor) -> None:
        """Add an image (C, H, W) of any type; all have one shape."""
        if not self.count:
            self._mean, self._squares = (new_canvas(image.shape, np.float64) for _ in range(2))
            self._mean.zero_()
            self._squares.zero_()
        self.count += 1
        for first in range(0, image.shape[-2], ROWS):
            rows = slice(first, first + ROWS)
            values, mean = image[:, rows].double(), self._mean[:, rows]
            before = values - mean
            mean += before / self.count
            self._squares[:, rows] += before * (values - mean)

    @property
    def mean(self) -> Tensor:
        """The mean, (C, H, W) float64."""
        return self._mean

    def std(self) -> Tensor:
        """The standard deviation, (C, H, W) float32, estimated with n - 1 for n images.

        Raises:
            ContractError: if there are too few images.
        """
        check_seeds(self.count)
        std = new_canvas(self._squares.shape)
        for first in range(0, std.shape[-2], ROWS):
            rows = slice(first, first + ROWS)
            std[:, rows] = (self._squares[:, rows] / (self.count - 1)).sqrt()
        return std


def over_seeds(
    make: Callable[[int, Progress], Result],
    seeds: Sequence[int],
    *,
    progress: Progress | None = None,
) -> tuple[Result, Any]:
    """Make a result with each seed, and take the mean and the standard deviation of all.

    Args:
        make: makes the result of a seed; the results differ in their numbers alone.
        seeds: whole numbers, at least two.
        progress: called as `progress(done, total)` while results are made.

    Returns:
        The mean, which is like a result, and the standard deviation in units of its numbers: a
        tensor (C, H, W) float32; or for a `Raster` one of float32, NaN where numbers are missing.

    Raises:
        ContractError: if there are too few seeds, or as `make`.
    """
    check_seeds(len(seeds))
    moments = Moments()
    result = None
    for number, seed in enumerate(seeds):
        result = make(seed, _part_of(progress, number, len(seeds)))
        moments.add(_numbers(result))
    assert result is not None
    if isinstance(result, Raster):
        return _raster_mean(result, moments), _raster_std(result, moments)
    if isinstance(result, Picture):
        colour = _in_type(moments.mean, result.colour)
        return result.with_pixels(colour, result.alpha), moments.std()
    return _in_type(moments.mean, result), moments.std()


def std_like(image: Any, stds: Sequence[Tensor | Raster]) -> Any:
    """Standard deviations in the form of the pictures that callers gave.

    Args:
        image: a PIL image, `Picture`, `Raster`, array or tensor, or a list of these.
        stds: the standard deviation of each image, in units of `over_seeds`; for arrays in those of
            [-1, 1].

    Returns:
        Arrays (H, W, C) or (H, W) for PIL images, and float arrays of the shape of the results for
        arrays, both in units of their numbers; tensors of the shape of the results for `Picture`s
        and tensors; a `Raster` for a `Raster`; a list for a list.
    """
    remaining = iter(stds)
    return _std_like(image, lambda count: [next(remaining) for _ in range(count)])


def _std_like(image: Any, take: Callable[[int], list[Any]]) -> Any:
    if isinstance(image, list | tuple):
        return [_std_like(each, take) for each in image]
    if isinstance(image, Picture | Raster):
        return take(1)[0]
    if isinstance(image, Image.Image):
        std = take(1)[0].permute(1, 2, 0).numpy()
        return std[..., 0] if std.shape[-1] == 1 else std
    std = torch.stack(take(len(image) if image.ndim == 4 else 1))  # (B, C, H, W)
    if isinstance(image, Tensor):
        return std if image.ndim == 4 else std[0]
    whole = image.dtype.kind == "u"
    std = std.permute(0, 2, 3, 1).numpy() * ((np.iinfo(image.dtype).max if whole else 1.0) / 2)
    std = std.astype(np.float32 if whole else image.dtype)
    if image.ndim == 4:
        return std
    return std[0, ..., 0] if image.ndim == 2 and std.shape[-1] == 1 else std[0]


def _numbers(result: Picture | Raster | Tensor) -> Tensor:
    if isinstance(result, Picture):
        return result.colour
    return result if isinstance(result, Tensor) else torch.from_numpy(result.values)


def _in_type(mean: Tensor, like: Tensor) -> Tensor:
    """A mean in the type of what it is the mean of; that of whole numbers is rounded."""
    result = torch.from_numpy(new_array(like.shape, like.numpy().dtype))
    for first in range(0, mean.shape[-2], ROWS):
        rows = slice(first, first + ROWS)
        part = mean[:, rows]
        result[:, rows] = part.to(like.dtype) if like.is_floating_point() else part.round()
    return result


def _raster_mean(result: Raster, moments: Moments) -> Raster:
    """The mean in the type of a result, with its missing numbers where they are."""
    mean = _in_type(moments.mean, torch.from_numpy(result.values)).numpy()
    for rows in row_slices(mean.shape):
        missing, part = result.missing_rows(rows), beside_missing(mean[:, rows], result.nodata)
        mean[:, rows] = np.where(missing, result.values[:, rows], part)
        release_pages()
    return replace(result, values=mean)


def _raster_std(result: Raster, moments: Moments) -> Raster:
    """The standard deviation as an image of its own, at the place of a result."""
    std, misses_any = moments.std().numpy(), False
    for rows in row_slices(std.shape):
        missing = result.missing_rows(rows)
        misses_any = misses_any or bool(missing.any())
        std[:, rows][missing] = np.nan
        release_pages()
    origin = result.origin and result.origin.for_numbers(std.dtype)
    return Raster(values=std, nodata=float("nan") if misses_any else None, origin=origin)


def _part_of(progress: Progress | None, number: int, count: int) -> Progress:
    """Convert the progress of one seed to progress of all."""

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(round(PROGRESS_PARTS * (number + done / total)), PROGRESS_PARTS * count)

    return report
