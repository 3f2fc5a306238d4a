"""What checking a data set finds about its pairs: their scales, and the shifts between both images.

Shapes: C bands, H and W pixels of an image; C', h and w of its input.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

from torch import Tensor

from cascade.data.band_decoding import BandDecoding
from cascade.data.pair_shift import SMALLEST_PX, Shift, measured_shift
from cascade.data.pairs import check_scale, scale_of
from cascade.data.preparation import Decoding
from cascade.data.source import ImageSource
from cascade.imaging.rasters.raster import Raster

MAX_SHIFT_PX = 0.5  # of the smaller image


class PairCheck(NamedTuple):
    """What is expected of the pairs of a data set.

    Attributes:
        decoding: how the files of inputs are read.
        scale: how many times as large as its input an image is; None for any whole number.
        max_shift_px: largest shift between both images, in pixels of the input; None not to
            measure it.
        encode: called with an input and the content of its file, see `examine`; None for nothing.
    """

    decoding: Decoding | BandDecoding
    scale: int | None = None
    max_shift_px: float | None = MAX_SHIFT_PX
    encode: Callable[[Any, bytes], Any] | None = None


class ExaminedPair(NamedTuple):
    """A pair after both of its images were read.

    Attributes:
        scale: how many times as large as its input the image is.
        shift: how far both images lie apart; None if that is not asked for.
        encoded: result of the encoder for the input, if there was one.
        content: sha256 of the pixels of the input and their shape; empty without a digest.
        is_small: whether the input is too small for its shift to be measured.
    """

    scale: int
    shift: Shift | None
    encoded: Any = None
    content: str = ""
    is_small: bool = False


def examine_pair(
    source: ImageSource, index: int, image: Tensor, check: PairCheck, *, digest: bool = False
) -> ExaminedPair:
    """Read the input of an image, and compare both.

    Args:
        source: images with partners.
        index: index of the image.
        image: (C, H, W), as `comparable` makes it of bands.
        check: what is expected of the pair.
        digest: whether to compute `ExaminedPair.content`.

    Raises:
        DataError: naming the image, if it has no input, or one that is damaged, of another size, or
            of numbers that training refuses.
    """
    partners, name = source.partners, source.name(index)
    assert partners is not None
    inputs, other = partners.source, partners.index_of(index, name)
    data, partner_name = inputs.read(other), inputs.name(other)
    if isinstance(check.decoding, BandDecoding):
        decoded = check.decoding.raster(data, partner_name, inputs.number_in_file(other))
        check.decoding.check(decoded, partner_name)
        partner = comparable(decoded, check.decoding)
    else:
        decoded = partner = check.decoding.image(
            check.decoding.picture(data, partner_name), partner_name
        )
    scale = scale_of(image, partner, name, partner_name)
    if check.scale is not None:
        check_scale(scale, check.scale, name, partner_name)
    encoded = None if check.encode is None else check.encode(decoded, data)
    shift = None if check.max_shift_px is None else measured_shift(image, partner)
    content = _content(partner) if digest else ""
    return ExaminedPair(scale, shift, encoded, content, min(partner.shape[-2:]) < SMALLEST_PX)


def comparable(raster: Raster, decoding: BandDecoding) -> Tensor:
    """Bands (C, H, W) float32, in [-1, 1] as in training if their ranges are known.

    Missing numbers come from their neighbours.
    """
    if decoding.space is not None:
        return raster.unit_image(decoding.space, clip=True)
    return raster.filled_rows(slice(0, raster.size[0]))


def _content(image: Tensor) -> str:
    digest = hashlib.sha256(repr(tuple(image.shape)).encode())
    digest.update(image.contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(kw_only=True)
class PairReport:
    """The pairs of a data set.

    Attributes:
        max_shift_px: largest shift between both images of a pair; None for any.
        scales: number of pairs by how many times as large as its input the image is.
        shifts: shifts by name of the image.
        small: number of pairs with a shift whose inputs are too small for it.
    """

    max_shift_px: float | None = None
    scales: Counter[int] = field(default_factory=Counter)
    shifts: dict[str, Shift] = field(default_factory=dict)
    small: int = 0

    def add(self, name: str, pair: ExaminedPair) -> None:
        """Take in a pair by the name of its image."""
        self.scales[pair.scale] += 1
        if pair.shift is not None:
            self.shifts[name] = pair.shift
            self.small += pair.is_small

    @property
    def shifted(self) -> list[str]:
        """One `name: reason` per pair whose images lie too far apart."""
        limit = self.max_shift_px
        if limit is None:
            return []
        return [
            f"{name}: is shifted {shift} from its partner, more than {limit:g} px."
            for name, shift in self.shifts.items()
            if shift.is_beyond(limit)
        ]

    def facts(self) -> dict[str, str]:
        """The scales and the shifts as text, by name."""
        if not self.scales:
            return {}
        scales = ", ".join(
            f"{count} of scale {scale}" for scale, count in self.scales.most_common()
        )
        shift = {"shift": self._shift_text()} if self.shifts else {}
        return {"pairs": scales, **shift}

    def _shift_text(self) -> str:
        certain = {name: shift for name, shift in self.shifts.items() if shift.is_certain}
        unknown = len(self.shifts) - len(certain) - self.small
        rest = f"; {self.small} not measured, below {SMALLEST_PX} px" if self.small else ""
        rest += f"; {unknown} show too little in common to be measured" if unknown else ""
        if not certain:
            return rest.removeprefix("; ")
        name = max(certain, key=lambda each: certain[each].distance_px)
        middle = Shift(
            median(each.x_px for each in certain.values()),
            median(each.y_px for each in certain.values()),
            0.0,
        )
        typical = f"{middle.distance_px:.2f} px ({middle.direction})"
        largest = certain[name].with_error
        return f"median {typical} of the smaller image, largest {largest} ({name}){rest}"
