"""Images made by the previous stage, mixed into the training of the next one.

What a stage gets in a cascade is not a downscaled true image: it carries the previous stage's own
faults. A stage that sees some of them in training learns to mend them.

Shapes: M images of the pool, h and w pixels of one.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from cascade.diffusion.noise import derive_seed


class GeneratedImages(NamedTuple):
    """A pool of images, each made from, and so paired with, one training image.

    Attributes:
        condition: the name of the condition whose image they replace.
        indices: (M,) int64, the training image in the source that each one belongs to.
        images: (M, C, h, w) uint8.
        fraction: share of the samples that take their image from here.
    """

    condition: str
    indices: Tensor
    images: Tensor
    fraction: float

    def draw(self, seed: int) -> tuple[int, Tensor] | None:
        """Decide whether the sample of a seed takes one, and which.

        Returns:
            The index of the training image, and the image (C, h, w), or None.
        """
        if derive_seed(seed, "is generated") % 2**32 >= self.fraction * 2**32:
            return None
        place = derive_seed(seed, "which generated") % len(self.indices)
        return int(self.indices[place]), self.images[place]
