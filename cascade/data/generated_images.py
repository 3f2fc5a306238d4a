"""Images made by the previous stage, mixed into the training of the next one.

In a cascade, a stage does not get a downscaled true image, but one with the faults of the previous
stage. If it sees some of these in training, it learns to correct them.

Shapes: M images of the pool, h and w pixels of one.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from cascade.diffusion.noise import derive_seed


class GeneratedImages(NamedTuple):
    """A pool of images, each made from one training image.

    Attributes:
        condition: name of the condition whose image they replace.
        indices: (M,) int64, indices in the source of the training images that they were made from.
        images: (M, C, h, w) uint8; float32 in [-1, 1] for bands.
        fraction: share of the training samples that take their image from the pool, in [0, 1].
    """

    condition: str
    indices: Tensor
    images: Tensor
    fraction: float

    def draw(self, seed: int) -> tuple[int, Tensor] | None:
        """Decide by a sample's seed whether it takes an image of the pool, and which one.

        Returns:
            The index of the training image, and the image (C, h, w); None for no image.
        """
        if derive_seed(seed, "is generated") % 2**32 >= self.fraction * 2**32:
            return None
        place = derive_seed(seed, "which generated") % len(self.indices)
        return int(self.indices[place]), self.images[place]
