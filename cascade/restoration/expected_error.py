"""What the standard deviation over seeds says about errors: curves from held-out pictures.

A curve leads from the standard deviation over n seeds to the root mean square error of their mean.
It holds for the weights, the sampling settings and the number of seeds that it was measured with.
A hash of the first two is saved with it, in a file beside the model's stages.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np
from torch import Tensor

from cascade.errors import WeightsError
from cascade.imaging.picture import Picture
from cascade.imaging.rasters.raster import Raster
from cascade.mapped_arrays import release_pages, row_slices
from cascade.restoration.colouring import Colouring
from cascade.restoration.editing import Editing
from cascade.restoration.restoring import Restoration
from cascade.restoration.upscaling import Upscaling
from cascade.saving.atomic import atomic_file
from cascade.saving.components import read_json
from cascade.saving.pipelines import DOUBT
from cascade.space import Space
from cascade.stage import Stage, stages_digest

Std = TypeVar("Std", Tensor, Raster)
How = Upscaling | Colouring | Restoration | Editing


@final
@dataclass(frozen=True, kw_only=True)
class ErrorCurve:
    """What deviations say about errors, in units of [-1, 1], of one band or of all channels.

    Attributes:
        deviations: standard deviations over seeds, ascending.
        errors: the root mean square error at each of them, never falling.
        correlation: rank correlation of deviations with errors, a mean over pictures.
        low: lower end of its interval of 95 %; None for no interval.
        high: upper end of the interval.
    """

    deviations: tuple[float, ...]
    errors: tuple[float, ...]
    correlation: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        ends = len(self.deviations), len(self.errors)
        if ends[0] != ends[1] or not ends[0] or not _rise(self.deviations, self.errors):
            raise ValueError("a curve needs as many deviations as errors, both rising")

    @property
    def says_nothing(self) -> bool:
        """Whether larger deviations need not go with larger errors at all."""
        return self.low is not None and self.low <= 0

    def at(self, deviations: np.ndarray, unit: float) -> np.ndarray:
        """The expected errors at deviations, both in units of which `unit` is 1 of [-1, 1]."""
        return np.interp(deviations / unit, self.deviations, self.errors) * unit


@final
@dataclass(frozen=True, kw_only=True)
class ExpectedError:
    """The curves of a model.

    Attributes:
        seeds: number of seeds that were drawn of each picture.
        pictures: number of pictures.
        model: hash of weights and settings, see `model_digest`.
        curves: one for all channels, or one for each band.
    """

    seeds: int
    pictures: int
    model: str
    curves: tuple[ErrorCurve, ...]

    @property
    def digest(self) -> str:
        """A hash of everything."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]

    @property
    def remark(self) -> str:
        """What users should know before they trust a map; empty for nothing."""
        bands = [number for number, curve in enumerate(self.curves, 1) if curve.says_nothing]
        if not bands:
            return ""
        names = ", ".join(map(str, bands))
        place = f" in band {names}" if len(bands) < len(self.curves) else ""
        return (
            f"the standard deviation over seeds does not predict errors here{place}: on "
            f"{self.pictures} images, the interval of their rank correlation includes 0."
        )

    @property
    def elsewhere(self) -> str:
        """What users should know if results are made in another way."""
        return (
            f"expected errors are known for {self.seeds} seeds and the model's own task, with "
            "the weights, scale and settings that they were measured with and no further "
            "options; this is the standard deviation, not an error."
        )

    def holds_for(self, stages: Sequence[Stage], seeds: int, how: How) -> bool:
        """Whether results are made as those that the curves were measured on.

        Args:
            stages: the stages that run, with their sampling settings.
            seeds: number of seeds of each result.
            how: what is done to pictures; neither the seed nor the size of tiles matters, nor for
                edits by how much a hole grows and whether grey pictures stay grey.
        """
        is_alike = seeds == self.seeds and _is_plain(how, stages)
        return is_alike and model_digest(stages) == self.model

    def of(
        self,
        std: Std,
        mean: Picture | Raster | Tensor,
        space: Space | None = None,
        drawn: Tensor | None = None,
    ) -> Std:
        """The expected errors of a result, which replace its standard deviations in place.

        Args:
            std: standard deviations over seeds, in units of the numbers of the result.
            mean: the result.
            space: the space of the result, if it is a `Raster`.
            drawn: (H, W) bool, the pixels that the model drew; the others are without error. None
                for all.
        """
        values = std.values if isinstance(std, Raster) else std.numpy()  # (C, H, W)
        units = _units(mean, space, len(values))
        curves = self.curves if len(self.curves) == len(values) else self.curves[:1] * len(values)
        for rows in row_slices(values.shape):
            for band, curve, unit in zip(values, curves, units, strict=True):
                band[rows] = curve.at(band[rows], unit)
                if drawn is not None:
                    band[rows] *= drawn[rows].numpy()
            release_pages()
        return std

    def save(self, folder: Path) -> Path:
        """Write the curves beside the stages of a model; returns the file.

        Raises:
            OutputError: if it cannot be written.
        """
        with atomic_file(folder / DOUBT) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return folder / DOUBT


def load_expected_error(folder: Path) -> ExpectedError | None:
    """Read the curves in the folder of a model; None if it has none.

    Raises:
        WeightsError: if the file is damaged.
    """
    file = folder / DOUBT
    if not file.is_file():
        return None
    values = read_json(file)
    try:
        curves = tuple(_curve(each) for each in values.pop("curves"))
        result = ExpectedError(**values, curves=curves)
        if not curves or not isinstance(result.seeds, int) or not isinstance(result.pictures, int):
            raise ValueError("it has no curves, or no whole numbers of seeds and images")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{file} does not describe the errors of a model ({error}); remove it, or measure them "
            "again."
        ) from error
    return result


def model_digest(stages: Sequence[Stage]) -> str:
    """A hash of the weights and of all settings of stages."""
    settings = [stage.sampling.to_dict() for stage in stages]
    text = json.dumps([stages_digest(stages), settings])
    return hashlib.sha256(text.encode()).hexdigest()


def _curve(values: Mapping[str, Any]) -> ErrorCurve:
    lists = {name: tuple(map(_number, values[name])) for name in ("deviations", "errors")}
    numbers: dict[str, Any] = {
        name: _number(value)
        for name, value in values.items()
        if name not in lists and value is not None
    }
    return ErrorCurve(**lists, **numbers)


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _rise(*each: Sequence[float]) -> bool:
    return all(a <= b for values in each for a, b in pairwise(values))


def _is_plain(how: How, stages: Sequence[Stage]) -> bool:
    """Whether pictures are worked on by the default options, as evaluation does."""
    same = {"seed": 0, "tile_px": None, "grow_px": 0, "stays_grey": False}
    if isinstance(how, Editing):
        if not stages[0].contract.fills:  # what it was measured on is another task
            return False
    elif isinstance(how, Upscaling):
        if how.scale == math.prod(stage.contract.scale for stage in stages):
            same["scale"] = None
        if how.is_consistent(stages) == replace(how, consistent=None).is_consistent(stages):
            same["consistent"] = None
    elif len(stages) > 1:  # upsamplers that follow take part in evaluation alone
        return False
    names = {field.name for field in fields(how)}
    return replace(how, **{n: value for n, value in same.items() if n in names}) == type(how)()


def _units(mean: Picture | Raster | Tensor, space: Space | None, count: int) -> list[float]:
    """For each channel, the units of a result that 1 of [-1, 1] stands for."""
    if isinstance(mean, Picture):
        return [(2**mean.bits - 1) / 2] * count
    if isinstance(mean, Raster):
        assert space is not None
        return [(high - low) / 2 for low, high in space.ranges]
    return [1.0] * count
