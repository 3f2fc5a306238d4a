"""Low-resolution images made by the previous stage, mixed into an upsampler's training.

What an upsampler is given in a cascade is not a real small image: it carries the previous stage's
own faults. Seeing some of them in training, it learns to mend them.

Shapes: M images of the pool, s pixels of their side.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from cascade.diffusion.noise import derive_seed


class GeneratedLowRes(NamedTuple):
    """A pool of small images, each made from, and so paired with, one training image.

    Attributes:
        indices: (M,) int64, which image of the source each belongs to.
        low_res: (M, 3, s, s) uint8.
        fraction: of the samples that take their small image from here.
    """

    indices: Tensor
    low_res: Tensor
    fraction: float

    def draw(self, seed: int) -> tuple[int, Tensor] | None:
        """Decide whether the sample of a seed takes one, and which.

        Returns:
            The index of the training image and its small image (3, s, s), or None.
        """
        if derive_seed(seed, "is generated") % 2**32 >= self.fraction * 2**32:
            return None
        place = derive_seed(seed, "which generated") % len(self.indices)
        return int(self.indices[place]), self.low_res[place]
