"""The first image of a pair as a condition: the stage makes the second one from it.

Both are files of the user: a damaged scan and a clean one, one band and another, a grey scan and
one in colour. Nothing is known about how one follows from the other. Both have the same size; the
first may have other bands and another range.

Shapes: B batch, C' bands of the first image, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition
from cascade.conditioning.inputs import Inputs, Request
from cascade.conditioning.noised_image import (
    check_range,
    draw_level,
    dropped,
    noised_image,
    noised_request,
    without_image,
)
from cascade.conditioning.signals import Signals
from cascade.conditioning.slots import Level, Slots
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.reporting.words import counted
from cascade.space import Range, Size, Space


@dataclass(frozen=True, kw_only=True)
class PairedImageOptions:
    """The recipe section of the first image of a pair; see `PairedImage`."""

    channels: int | None = None
    range: tuple[float, float] | list[tuple[float, float]] | None = None
    augmentation_range: tuple[float, float] = (0.0, 0.0)
    drop: float = 0.0


@final
@dataclass(frozen=True, kw_only=True)
class PairedImage(Condition):
    """The first image of a pair, of the stage's own size.

    Attributes:
        channels: number of its bands; None for those of the result.
        range: the numbers in its files that -1 and 1 stand for, or one such pair per band; None for
            the range of the result.
        augmentation_range: lowest and highest level of noise-conditioning augmentation in training,
            within [0, 1]. The level is drawn per image and passed to the network.
        drop: probability in [0, 1] that training hides it; above 0, guidance can use it.

    Raises:
        ContractError: if a value is out of range.
    """

    name = "paired_image"
    input_name = "image"
    recipe = PairedImageOptions

    channels: int | None = None
    range: Range | tuple[Range, ...] | None = None
    augmentation_range: tuple[float, float] = (0.0, 0.0)
    drop: float = 0.0

    def __post_init__(self) -> None:
        levels = self.augmentation_range
        object.__setattr__(self, "augmentation_range", (levels[0], levels[1]))
        object.__setattr__(self, "range", _as_tuples(self.range))
        check_range(self.augmentation_range)
        super().__post_init__()

    @property
    def resembles_result(self) -> bool:
        """Whether it has the bands and the range of the result."""
        return self.channels is None and self.range is None

    @property
    def restores(self) -> bool:
        return True

    @property
    def needs_partner(self) -> bool:
        return True

    def check(self, space: Space) -> None:
        if space.kind != "pixels":
            raise ContractError(f"pairs are for stages that make pixels, this makes {space.kind}.")
        self.image_space(space)

    def slots(self, space: Space) -> Slots:
        return Slots(channels=self.image_space(space).channels, vector=Level())

    def image_space(self, space: Space) -> Space:
        if self.resembles_result:
            return space
        channels = space.channels if self.channels is None else self.channels
        if self.range is None and channels != space.channels and len(set(space.ranges)) > 1:
            raise ContractError(
                f"the first image of a pair has {counted(channels, 'band')}, and the result has "
                f"ranges for {space.channels}; state the range of the first image too."
            )
        stated = space.range if self.range is None else self.range
        plain = replace(space, show=(), colour_map="grey", unit="", range=space.ranges[0])
        return replace(plain, channels=channels, range=stated)

    def partner_space(self, space: Space) -> Space:
        return self.image_space(space)

    def description(self, space: Space) -> str:
        own = self.image_space(space)
        if own.channels == space.channels:
            return f"another image of {space.size_text}"
        return f"an image of {counted(own.channels, 'band')}, {space.size_text}"

    def accepts_size(self, size_px: Size, space: Space) -> bool:
        return True

    def result_size(self, inputs: Inputs, previous: Tensor | None, space: Space) -> Size:
        image = inputs.start_image(self.input_name, previous, self.description(space))
        self.image_space(space).check(image)
        return image.shape[-2], image.shape[-1]

    def of_batch(self, batch: Batch, space: Space, noise: SeededNoise) -> Signals:
        image = self.input_of(batch, space)
        level = draw_level(self.augmentation_range, noise)
        signals = noised_image(self.name, image, level, noise, scale=1)
        return dropped(signals, self.absent(signals), self.drop, noise)

    def of_request(self, request: Request) -> Signals:
        assert request.image is not None, "result_size checks it"
        image = request.image.to(request.device).float().clamp(-1, 1)
        return noised_request(self.name, image, request, scale=1)

    def absent(self, signals: Signals) -> Signals:
        return without_image(signals)

    def input_of(self, batch: Batch, space: Space, *, degraded: bool = False) -> Tensor:
        """The first images (B, C', H, W) of the batch.

        Raises:
            ContractError: if the batch has none, or they have another shape than its images.
        """
        image = batch.conditions.get(self.name)
        if image is None:
            raise ContractError(
                "this stage makes one image of a pair from the other, which is missing; give pairs."
            )
        self.image_space(space).check(image)
        if image.shape[-2:] != batch.images.shape[-2:]:
            sizes = [f"{each.shape[-1]}x{each.shape[-2]}" for each in (image, batch.images)]
            raise ContractError(
                f"both images of a pair must have the same size, got {sizes[0]} and {sizes[1]} px."
            )
        return image.clamp(-1, 1)


def _as_tuples(range: Any) -> Any:
    """A range of lists, as JSON has it, in tuples."""
    if not isinstance(range, Sequence) or isinstance(range, str):
        return range
    return tuple(_as_tuples(each) for each in range)
