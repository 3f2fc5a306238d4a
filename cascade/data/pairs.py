"""Reads the inputs of pairs, and checks that they belong to their images.

The two images of a pair are never resized, because nothing is known of the kernel between them. So
the larger one must be exactly as many times as large as the stage makes its results, and training
cuts parts of the stage's size out of both.

Shapes: C bands of the image that the stage makes, C' of its input, H and W pixels, h and w of the
input.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from cascade.conditioning.batch import Remark
from cascade.conditioning.condition import Condition
from cascade.contract import Contract
from cascade.data.band_decoding import BandDecoding
from cascade.data.fitting import as_float, compact, rounded
from cascade.data.pair_shift import Shift, measured_shift
from cascade.data.preparation import Decoding, TooSmall
from cascade.data.source import ImageSource, Partners
from cascade.errors import DataError
from cascade.space import Space


def check_pairs(source: ImageSource, contract: Contract, too_small: TooSmall = "skip") -> None:
    """Check that a stage takes pairs if a source holds them, and that the source does if it must.

    Raises:
        DataError: saying which of both is missing.
    """
    if source.partners is None:
        if contract.needs_partner:
            raise DataError(
                "the stage makes one image of a pair from the other, but the data holds no "
                "pairs; name the folder or the shards of the inputs, or beside."
            )
        return
    if contract.paired_condition is None:
        raise DataError(
            "the data holds pairs, but no condition of the stage takes an image of a pair; use "
            "low_resolution for smaller inputs, or paired_image for inputs of the same size."
        )
    if too_small == "enlarge":
        raise DataError("images of pairs are not resized; set too_small to skip or error.")


def scale_of(image: Tensor, partner: Tensor, name: str, partner_name: str) -> int:
    """How many times as large an image (C, H, W) is as its partner (C', h, w).

    Raises:
        DataError: naming both, if it is no whole number, or not the same for both sides.
    """
    (height, width), (rows, columns) = image.shape[-2:], partner.shape[-2:]
    scale = height // rows
    if scale < 1 or (rows * scale, columns * scale) != (height, width):
        raise DataError(
            f"{name}: has {width}x{height} px, which is not a whole multiple of the "
            f"{columns}x{rows} px of its partner {partner_name}; cut both to the same area."
        )
    return scale


def check_scale(scale: int, stage_scale: int, name: str, partner_name: str) -> None:
    """Check that an image is as many times as large as its partner as a stage makes its results.

    Raises:
        DataError: naming both, if it is not.
    """
    if scale != stage_scale:
        expected = "as large" if stage_scale == 1 else f"{stage_scale} times as large"
        raise DataError(
            f"{name}: is {'as' if scale == 1 else f'{scale} times as'} large as its partner "
            f"{partner_name}, but the results of the stage are {expected} as its inputs."
        )


def partner_decoding(decoding: Decoding | BandDecoding, space: Space) -> Decoding | BandDecoding:
    """How the files of inputs are read.

    Args:
        decoding: how the files of the images are read that the stage makes.
        space: space of the inputs.
    """
    if space.has_bands:
        if isinstance(decoding, BandDecoding):
            return decoding._replace(bands=space.channels, space=space)
        return BandDecoding.of_space(space, outside=decoding.outside)
    return decoding if isinstance(decoding, Decoding) else Decoding(outside=decoding.outside)


@final
@dataclass(frozen=True, kw_only=True)
class PairReader:
    """Reads the inputs of pairs for a stage.

    Attributes:
        source: the images that the stage makes.
        partners: their inputs.
        condition: the condition that takes the inputs.
        space: space of the inputs.
        scale: how many times as large results are as inputs.
        decoding: how files of inputs are read.
        max_shift_px: the largest shift between both images, in pixels of the input; None for any.
    """

    source: ImageSource
    partners: Partners
    condition: Condition
    space: Space
    scale: int
    decoding: Decoding | BandDecoding
    max_shift_px: float | None
    _shifts: dict[int, Shift] = field(default_factory=dict)  # so that each is measured once

    @classmethod
    def of(
        cls,
        source: ImageSource,
        contract: Contract,
        decoding: Decoding | BandDecoding,
        max_shift_px: float | None = None,
    ) -> PairReader:
        """Make the reader for a stage.

        Args:
            source: images with partners.
            contract: contract of the stage, which `check_pairs` accepts.
            decoding: how the files of the images are read that the stage makes.
            max_shift_px: the largest shift between both images, in pixels of the input.
        """
        condition, partners = contract.paired_condition, source.partners
        assert condition is not None
        assert partners is not None
        space = condition.partner_space(contract.space)
        assert space is not None
        return cls(
            source=source,
            partners=partners,
            condition=condition,
            space=space,
            scale=contract.space.scale_from(space.size),
            decoding=partner_decoding(decoding, space),
            max_shift_px=max_shift_px,
        )

    def load(self, index: int, image: Tensor) -> tuple[Tensor, tuple[Remark, ...]]:
        """Read the input of an image, and check that it belongs to it.

        Args:
            index: index of the image.
            image: (C, H, W) in [-1, 1], the whole image.

        Returns:
            The input (C', h, w), uint8 if that loses nothing, with missing numbers filled; and
            remarks about it.

        Raises:
            DataError: naming the image, if it has no input, or one that is damaged, of another size
                or shifted.
        """
        name, inputs = self.source.name(index), self.partners.source
        other = self.partners.index_of(index, name)
        partner_name = inputs.name(other)
        partner, remarks, _ = self.decoding.load(
            inputs.read(other), partner_name, inputs.number_in_file(other)
        )
        scale = scale_of(image, partner, name, partner_name)
        check_scale(scale, self.scale, name, partner_name)
        partner = compact(as_float(rounded(partner, self.space)))
        if self.max_shift_px is not None:
            self._check_shift(index, image, as_float(partner), self.max_shift_px)
        return partner, remarks

    def _check_shift(self, index: int, image: Tensor, partner: Tensor, max_shift_px: float) -> None:
        if index not in self._shifts:
            self._shifts[index] = measured_shift(image, partner)
        shift = self._shifts[index]
        if shift.is_beyond(max_shift_px):
            raise DataError(
                f"{self.source.name(index)}: is shifted {shift} from its partner, but at most "
                f"{max_shift_px:g} px of the partner are allowed; align the pair, or allow more."
            )
