"""What the stored numbers of DICOM files stand for: slope, intercept, inversion and padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cascade.errors import DataError

FRAMES, SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"
TRANSFORMATION = "PixelValueTransformationSequence"


@dataclass(frozen=True, kw_only=True)
class StoredNumbers:
    """What the stored numbers of a frame stand for.

    Attributes:
        signed: whether they may be negative.
        bits: that are used of them.
        slope: by which a stored number is multiplied.
        intercept: what is added then.
        is_inverted: whether the lowest number is white, so that the range is turned round first.
        padding: stored number of missing pixels, and the other end of the range of their numbers;
            None if none is missing.
    """

    signed: bool
    bits: int
    slope: float = 1.0
    intercept: float = 0.0
    is_inverted: bool = False
    padding: tuple[int, int] | None = None

    @classmethod
    def of(cls, dataset: Any, frame: int) -> StoredNumbers:
        """Read the fields of a data set for a frame, counted from 0."""
        item = functional_item(dataset, frame, TRANSFORMATION) or dataset
        slope = float(item.get("RescaleSlope", 1) or 1)
        intercept = float(item.get("RescaleIntercept", 0) or 0)
        return cls(
            signed=bool(dataset.PixelRepresentation),
            bits=int(dataset.BitsStored),
            slope=slope,
            intercept=intercept,
            is_inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
            padding=_padding(dataset),
        )

    @property
    def ends(self) -> tuple[int, int]:
        """The lowest and the highest number that the bits hold."""
        lowest = -(2 ** (self.bits - 1)) if self.signed else 0
        return lowest, lowest + 2**self.bits - 1

    @property
    def is_plain(self) -> bool:
        """Whether the stored numbers are the measured ones, perhaps inverted."""
        return (self.slope, self.intercept) == (1.0, 0.0)

    def fits(self, dtype: str) -> bool:
        """Whether all measured numbers are whole and lie in a type of whole numbers."""
        if self.slope != round(self.slope) or self.intercept != round(self.intercept):
            return False
        stored = [*self.ends, *(self.padding or ())]
        measured, ends = self._measured(np.array(stored, np.float64)), np.iinfo(dtype)
        return ends.min <= measured.min() and measured.max() <= ends.max

    @property
    def nodata(self) -> float | None:
        """The measured number of missing pixels."""
        if self.padding is None:
            return None
        return float(self._measured(np.array(self.padding[0], np.float64)))

    def measured(self, stored: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """The measured numbers for stored ones.

        Args:
            stored: the numbers of a frame.
            dtype: type of the result.

        Raises:
            DataError: if a number needs more bits than the file declares.
        """
        numbers, (low, high) = stored.astype(np.int64), self.ends
        is_padding = np.zeros(stored.shape, bool)
        if self.padding is not None:
            is_padding = (min(self.padding) <= numbers) & (numbers <= max(self.padding))
            numbers[is_padding] = self.padding[0]
        beyond = ((numbers < low) | (high < numbers)) & ~is_padding
        if beyond.any():
            raise DataError(
                f"holds values such as {numbers[beyond][0]}, which need more than the "
                f"{self.bits} bits that it declares."
            )
        return self._measured(numbers).astype(dtype)

    def _measured(self, stored: np.ndarray) -> np.ndarray:
        if self.is_inverted:
            stored = sum(self.ends) - stored
        return stored if self.is_plain else stored * self.slope + self.intercept

    def stored(self, measured: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """The stored numbers for measured ones, the inverse of `measured`.

        Args:
            measured: any numbers; those that the bits do not hold are clipped.
            dtype: type of the result.
        """
        numbers = np.rint((measured.astype(np.float64) - self.intercept) / self.slope)
        if self.is_inverted:
            numbers = sum(self.ends) - numbers
        ends = (*self.ends, *(self.padding or ()))
        return np.clip(numbers, min(ends), max(ends)).astype(dtype)


def measured_dtype(numbers: Sequence[StoredNumbers], stored: np.dtype) -> np.dtype:
    """The type of the measured numbers, one for all frames of a file.

    Args:
        numbers: those of each frame.
        stored: type of the stored numbers.
    """
    if all(each.is_plain for each in numbers):
        return np.dtype("int16") if stored == np.int8 else stored
    return np.dtype("int16" if all(each.fits("int16") for each in numbers) else "float32")


def _padding(dataset: Any) -> tuple[int, int] | None:
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    return int(value), int(dataset.get("PixelPaddingRangeLimit", value))


def functional_item(dataset: Any, frame: int, sequence: str) -> Any:
    """The item of a sequence that an enhanced file has for a frame or for all; None if it has none.

    Args:
        dataset: a `pydicom.Dataset`.
        frame: counted from 0.
        sequence: keyword of the sequence.
    """
    groups = [*(dataset.get(FRAMES) or [])[frame : frame + 1], *(dataset.get(SHARED) or [])[:1]]
    items = [group.get(sequence) for group in groups]
    return next((each[0] for each in items if each), None)
