"""FileReading: what files of pictures do not say about their numbers, as options state it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cascade.arguments import real_number, shown, whole_number
from cascade.data.preparation import ValueRange
from cascade.errors import ContractError
from cascade.imaging.rasters.layout import Layout


class FileReading(NamedTuple):
    """What the files of pictures do not say about their numbers.

    Attributes:
        range: the numbers that become black and white, from 0 to 255 or 65535; None for all that a
            picture's bits allow. Of bands, the stage has the range.
        nodata: for bands, a number that stands for a missing one besides what files say; None for
            none.
        axis: for bands, axis of a volume along which it is cut into slices, 0, 1 or 2; None for the
            last one.
    """

    range: ValueRange | None = None
    nodata: float | None = None
    axis: int | None = None

    def check(self, *, bands: bool) -> None:
        """Check the values, and that each has an effect.

        Args:
            bands: whether the pictures are bands of measured numbers.

        Raises:
            ContractError: naming what is wrong.
        """
        self.check_values()
        check_effects(self.for_colours, self.for_bands, bands=bands)

    def check_values(self) -> None:
        """Check the values.

        Raises:
            ContractError: naming the one that is wrong.
        """
        if self.range is not None:
            _check_range(self.range)
        if self.axis is not None and whole_number("axis", self.axis) not in (0, 1, 2):
            raise ContractError(f"axis must be 0, 1 or 2, got {self.axis}.")
        if self.nodata is not None:
            real_number("nodata", self.nodata)

    @property
    def for_colours(self) -> dict[str, Any]:
        """What has an effect on colour images alone, by its name in messages."""
        return {"a range for black and white": self.range}

    @property
    def for_bands(self) -> dict[str, Any]:
        """What has an effect on bands alone, by its name in messages."""
        return {"an axis of volumes": self.axis, "a value for missing data": self.nodata}

    @property
    def slicing_axis(self) -> int:
        """The axis along which volumes are cut into slices."""
        return Layout().axis if self.axis is None else self.axis

    def to_dict(self) -> dict[str, Any]:
        """What is stated, as plain values for JSON."""
        stated = {name: value for name, value in self._asdict().items() if value is not None}
        return stated if self.range is None else stated | {"range": list(self.range)}


def _check_range(value: Any) -> None:
    is_pair = isinstance(value, list | tuple) and len(value) == 2
    ends = [whole_number("range", each) for each in value] if is_pair else []
    if not is_pair or not 0 <= ends[0] < ends[1] <= 65535:
        raise ContractError(
            "the range must be two numbers from 0 to 65535, black first and white larger, got "
            f"{shown(value)}."
        )


def check_effects(colours: Mapping[str, Any], numbers: Mapping[str, Any], *, bands: bool) -> None:
    """Refuse options that have no effect on bands, or on colour images.

    Args:
        colours: options for colour images alone, by their names in messages; None is not given.
        numbers: likewise for bands alone.
        bands: whether the pictures are bands.

    Raises:
        ContractError: naming the option.
    """
    unused = [name for name, value in (colours if bands else numbers).items() if value is not None]
    if unused:
        kind, other = ("colour images", "bands") if bands else ("bands", "colour images")
        raise ContractError(
            f"{unused[0]} is for {kind}, but this model makes {other}; leave it out."
        )
