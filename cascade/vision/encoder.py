"""VisionEncoder: a frozen model that turns an image into a vector, near those of similar images.

Encoders make vectors of length 1, whose numbers are far too small for diffusion: about ±0.06 with
256 of them. Everywhere outside of this module, an embedding is an image of 1 px whose E channels
are the vector times the square root of E, so that their root mean square is 1.

Shapes: B images, H and W pixels, S pixels of a side that the encoder sees, E numbers of a vector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cascade.errors import ContractError
from cascade.resizing import quantise, resize
from cascade.space import Space


@dataclass(frozen=True)
class VisionFacts:
    """What a stage's contract states about an encoder of images.

    Attributes:
        name: names the encoder in recipes; see `cascade.vision.encoders.find_vision_encoder`.
        sha256: hash of the encoder's weights.
        width: number E of a vector's entries.
    """

    name: str
    sha256: str
    width: int

    @property
    def space(self) -> Space:
        """The space of its embeddings."""
        return Space(
            size_px=1,
            channels=self.width,
            kind="embeddings",
            encoder=self.sha256,
            encoder_name=self.name,
        )


class VisionEncoder(ABC):
    """A frozen model that turns images into vectors of length 1."""

    @property
    @abstractmethod
    def facts(self) -> VisionFacts:
        """Its name, hash and width."""

    @property
    @abstractmethod
    def seen_px(self) -> int:
        """The side S to which images are resized, whatever their own size."""

    @abstractmethod
    def directions(self, seen: Tensor) -> Tensor:
        """Embed images (B, 3, S, S) in [-1, 1]: (B, E) float32 of length 1."""

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move the model to a device, where it takes images from any device."""

    def seen(self, images: Tensor) -> Tensor:
        """The middle square of images (B, C, H, W) at the size that the encoder sees.

        Returns:
            (B, 3, S, S) in [-1, 1], rounded to 8 bits.

        Raises:
            ContractError: if the images are neither grey nor RGB.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ContractError(
                f"images to embed must be (B, 1 or 3, H, W), got {tuple(images.shape)}."
            )
        height, width = images.shape[-2:]
        short = min(height, width)
        y, x = (height - short) // 2, (width - short) // 2
        middle = images[..., y : y + short, x : x + short].expand(-1, 3, -1, -1)
        if short != self.seen_px:
            middle = resize(middle, (self.seen_px, self.seen_px), "bicubic")
        return quantise(middle)

    def encode(self, images: Tensor) -> Tensor:
        """Embed images (B, 1 or 3, H, W) in [-1, 1]: (B, E, 1, 1), see `as_images`.

        Raises:
            ContractError: if the images are neither grey nor RGB.
        """
        return as_images(self.directions(self.seen(images)))


def as_images(vectors: Tensor) -> Tensor:
    """Scale vectors (B, E) of length 1 to images (B, E, 1, 1) with a root mean square of 1.

    They are rounded to half precision first, so that small differences between machines vanish.
    """
    return (vectors.half().float() * vectors.shape[1] ** 0.5)[..., None, None]


def check_embeddings(values: Any, facts: VisionFacts) -> Tensor:
    """Check that values have the shape of an encoder's embeddings.

    Returns:
        (B, E, 1, 1) float32.

    Raises:
        ContractError: naming the width that was expected.
    """
    shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    if not isinstance(values, Tensor) or values.ndim != 4 or shape[1:] != (facts.width, 1, 1):
        raise ContractError(
            f"image embeddings must be (B, {facts.width}, 1, 1), those of {facts.name}, got "
            f"{shape}."
        )
    if not values.isfinite().all():
        raise ContractError("image embeddings must be finite numbers.")
    return values.to(torch.float32)
