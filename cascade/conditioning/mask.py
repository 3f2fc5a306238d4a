"""The known part of an image as a condition, which makes a stage fill holes.

After Palette (Saharia et al. 2021, arXiv 2111.05826): holes of free form are drawn in training, and
the loss counts the pixels in them only, since the others are known in sampling too. Unlike there,
the network also sees where the hole is, as the last of its channels, and the colours around it
spread smoothly over it, as a first guess.

An image and its hole travel as one input of C + 1 channels, the last of which is the opacity, as in
a picture with transparent pixels: 1 where the image is known, -1 in the hole.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition
from cascade.conditioning.filling import filled
from cascade.conditioning.hole_shapes import draw_holes
from cascade.conditioning.inputs import Inputs, Request
from cascade.conditioning.noised_image import dropped, fit_to_canvas
from cascade.conditioning.signals import ChannelSignal, Signals
from cascade.conditioning.slots import Slots
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.space import Size, Space


def with_opacity(images: Tensor, hole: Tensor) -> Tensor:
    """Join images and their holes to the input of the condition.

    Args:
        images: (B, C, H, W) in [-1, 1].
        hole: (B, 1, H, W) bool, True where the image is not known.

    Returns:
        (B, C + 1, H, W): the images with 0 in the hole, and their opacity, 1 or -1.
    """
    opacity = torch.where(hole, -1.0, 1.0).to(images)
    return torch.cat([images.masked_fill(hole, 0), opacity], dim=1)


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """The recipe section of the known part; see `Mask`."""

    drop: float = 0.0


@final
@dataclass(frozen=True, kw_only=True)
class Mask(Condition):
    """The known part of an image of the stage's own size, and where it is.

    Attributes:
        drop: probability in [0, 1] that training hides the whole image, so that guidance can use
            the condition.

    Raises:
        ContractError: if a value is out of range.
    """

    name = "mask"
    input_name = "image"
    recipe = MaskOptions

    @property
    def resembles_result(self) -> bool:
        return True

    @property
    def fills(self) -> bool:
        return True

    def first_guess(self, image: Tensor) -> Tensor:
        return image[:, :-1]

    def slots(self, space: Space) -> Slots:
        return Slots(channels=space.channels + 1)

    def image_space(self, space: Space) -> Space:
        return space.resized(space.size, channels=space.channels + 1)

    def description(self, space: Space) -> str:
        return f"{space.size_text} with a hole"

    def accepts_size(self, size_px: Size, space: Space) -> bool:
        return True

    def result_size(self, inputs: Inputs, previous: Tensor | None, space: Space) -> Size:
        image = inputs.start_image(self.input_name, previous, self.description(space))
        if image.ndim != 4 or image.shape[1] != space.channels + 1:
            raise ContractError(
                f"images with holes must be (B, {space.channels + 1}, H, W), the last channel 1 at "
                f"known pixels and -1 in the hole; got {tuple(image.shape)}. Call edit with an "
                "image and a mask instead."
            )
        return image.shape[-2], image.shape[-1]

    def of_batch(self, batch: Batch, space: Space, noise: SeededNoise) -> Signals:
        signals = self._signals(self._with_hole(batch, noise))
        return dropped(signals, self.absent(signals), self.drop, noise)

    def of_request(self, request: Request) -> Signals:
        assert request.image is not None, "result_size checks it"
        image = request.image.to(request.device).float()
        return self._signals(fit_to_canvas(image, request))

    def absent(self, signals: Signals) -> Signals:
        image = signals.channels[self.name].image
        empty = torch.cat([torch.zeros_like(image[:, :-1]), torch.ones_like(image[:, -1:])], dim=1)
        return Signals(channels={self.name: ChannelSignal(empty)})

    def counted_pixels(self, signals: Signals) -> Tensor:
        return (signals.channels[self.name].image[:, -1:] > 0).float()

    def known_pixels(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return image[:, :-1], image[:, -1] > 0

    def input_of(self, batch: Batch, space: Space, *, degraded: bool = False) -> Tensor:
        """The images (B, C + 1, H, W) with the holes that training draws for the batch."""
        return self._with_hole(batch, SeededNoise(batch.seeds, "train").fork(self.name))

    def _with_hole(self, batch: Batch, noise: SeededNoise) -> Tensor:
        """Training images with a drawn hole each: (B, C + 1, H, W)."""
        hole = draw_holes(noise, (batch.images.shape[-2], batch.images.shape[-1]))
        return with_opacity(batch.images, hole.to(batch.images.device))

    def _signals(self, image: Tensor) -> Signals:
        """The first guess, and 1 in the hole, -1 where the image is known."""
        known = image[:, -1:] > 0  # (B, 1, H, W)
        guess = filled(image[:, :-1].clamp(-1, 1) * known, known)
        return Signals(
            channels={self.name: ChannelSignal(torch.cat([guess, -image[:, -1:].sign()], dim=1))}
        )
