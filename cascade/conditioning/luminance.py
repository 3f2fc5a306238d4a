"""The luminance of an image as a condition, which makes a stage colour grey images.

Luminance here is the luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B of the gamma-encoded values.
Pillow's mode "L", OpenCV, JPEG and most image editors compute it, so grey pictures usually hold it.
Training and sampling share one function.

Shapes: B batch, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
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
from cascade.space import Size, Space


def luminance(images: Tensor) -> Tensor:
    """Convert colour images to grey.

    Args:
        images: (B, 3, H, W) in [-1, 1], or (B, 1, H, W), which is returned as it is.

    Returns:
        (B, 1, H, W) in [-1, 1]. Where the channels are equal, it is exactly their value.

    Raises:
        ContractError: for another number of channels.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ContractError(f"images must have 1 or 3 channels, got {tuple(images.shape)}.")
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return green + 0.299 * (red - green) + 0.114 * (blue - green)


def impose_luminance(images: Tensor, grey: Tensor) -> Tensor:
    """Give colour images exactly the luminance of grey images.

    The difference is added to all three channels, which keeps the colour differences. Where the sum
    leaves [-1, 1], saturation is reduced just far enough to fit; the hue stays.

    Args:
        images: (B, 3, H, W) in [-1, 1].
        grey: (B, 1, H, W) in [-1, 1].

    Returns:
        (B, 3, H, W) in [-1, 1], whose luminance is `grey`.

    Raises:
        ContractError: if the shapes do not match.
    """
    if images.shape[1] != 3 or images[:, :1].shape != grey.shape:
        raise ContractError(
            f"images (B, 3, H, W) and grey (B, 1, H, W) must match, got {tuple(images.shape)} and "
            f"{tuple(grey.shape)}."
        )
    chroma = images - luminance(images)  # its own luminance is 0, so it may be scaled
    room = torch.where(chroma > 0, 1 - grey, -1 - grey)
    tiny = torch.finfo(chroma.dtype).tiny
    fits = torch.where(chroma.abs() > tiny, room / chroma, 1.0)  # how much of each would fit
    share = fits.amin(dim=1, keepdim=True).clamp(0, 1)
    return (grey + share * chroma).clamp(-1, 1)


@dataclass(frozen=True, kw_only=True)
class LuminanceOptions:
    """The recipe section of the grey image; see `Luminance`."""

    quantised: bool = True
    augmentation_range: tuple[float, float] = (0.0, 0.0)
    drop: float = 0.0


@final
@dataclass(frozen=True, kw_only=True)
class Luminance(Condition):
    """The luminance of an image of the stage's own size.

    Attributes:
        quantised: whether it is rounded to the whole numbers of the space's range.
        augmentation_range: lowest and highest level of noise-conditioning augmentation in training,
            within [0, 1]. The level is drawn per image and passed to the network.
        drop: probability in [0, 1] that training hides it; above 0, guidance can use it.

    Raises:
        ContractError: if a value is out of range.
    """

    name = "luminance"
    input_name = "image"
    recipe = LuminanceOptions

    quantised: bool = True
    augmentation_range: tuple[float, float] = (0.0, 0.0)
    drop: float = 0.0

    def __post_init__(self) -> None:
        levels = self.augmentation_range
        object.__setattr__(self, "augmentation_range", (levels[0], levels[1]))
        check_range(self.augmentation_range)
        super().__post_init__()

    @property
    def resembles_result(self) -> bool:
        return True

    def check(self, space: Space) -> None:
        _ = self.quantised and space.levels
        if space.channels != 3:
            raise ContractError(
                f"a stage that colourises greyscale images needs 3 channels, got {space.channels}."
            )
        if len(set(space.ranges)) > 1:
            raise ContractError(
                "a stage that colourises greyscale images needs one range for all channels, got "
                f"{space.range}."
            )

    def slots(self, space: Space) -> Slots:
        return Slots(channels=1, vector=Level())

    def image_space(self, space: Space) -> Space:
        return space.resized(space.size, channels=1)

    def description(self, space: Space) -> str:
        return f"greyscale {space.size_text}"

    def accepts_size(self, size_px: Size, space: Space) -> bool:
        return True

    def result_size(self, inputs: Inputs, previous: Tensor | None, space: Space) -> Size:
        image = inputs.start_image(self.input_name, previous, self.description(space))
        if image.ndim != 4 or image.shape[1] not in (1, 3):
            raise ContractError(
                "images to colourise must be (B, 1, H, W), or (B, 3, H, W) whose luminance is "
                f"used, got {tuple(image.shape)}."
            )
        return image.shape[-2], image.shape[-1]

    def of_batch(self, batch: Batch, space: Space, noise: SeededNoise) -> Signals:
        image = self.input_of(batch, space)
        level = draw_level(self.augmentation_range, noise)
        signals = noised_image(self.name, image, level, noise, scale=1)
        return dropped(signals, self.absent(signals), self.drop, noise)

    def of_request(self, request: Request) -> Signals:
        assert request.image is not None, "result_size checks it"
        image = self._grey(request.image.to(request.device).float(), request.space)
        return noised_request(self.name, image, request, scale=1)

    def absent(self, signals: Signals) -> Signals:
        return without_image(signals)

    def input_of(self, batch: Batch, space: Space, *, degraded: bool = False) -> Tensor:
        """The luminance (B, 1, H, W) of the batch."""
        return self._grey(batch.images, space)

    def _grey(self, image: Tensor, space: Space) -> Tensor:
        grey = luminance(image)
        return space.quantise(grey) if self.quantised else grey.clamp(-1, 1)
