"""A set of images as metrics see it: features and colours instead of pixels.

Shapes: B images at a time, N in all, H and W pixels, F features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from cascade.errors import WeightsError
from cascade.evaluation.alignment.model import AlignmentModel
from cascade.evaluation.features import FeatureExtractor
from cascade.imaging.rasters.showing import as_rgb
from cascade.imaging.writing import to_uint8
from cascade.resizing import quantise
from cascade.space import UNITS_8_BIT, Space
from cascade.tasks.image_metrics import colourfulness

FEATURE_BATCH = 32
MOST_SHOWN = 36


@final
@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """The facts about a set of images that metrics need.

    Attributes:
        features: (N, F) float32, from an extractor.
        probabilities: (N, K) float32 class probabilities; None if the extractor is no classifier.
        colourfulness: (N,) colourfulness of each image.
        colour_mean: (3,) mean of each channel over all pixels, in 8-bit units.
        colour_spread: (3,) standard deviation of each channel, in 8-bit units.
        shown: (36 or fewer, 3, H, W) uint8, the first images.
        embeddings: (N, E) float32, from a model of alignment; None without one.
    """

    features: Tensor
    probabilities: Tensor | None
    colourfulness: Tensor
    colour_mean: Tensor
    colour_spread: Tensor
    shown: Tensor
    embeddings: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)

    def halves(self) -> tuple[ImageSet, ImageSet]:
        """Split into every other image and the rest; both keep the colours of the whole set."""
        return self._part(slice(0, None, 2)), self._part(slice(1, None, 2))

    def _part(self, places: slice) -> ImageSet:
        return replace(
            self,
            features=self.features[places],
            probabilities=None,
            colourfulness=self.colourfulness[places],
            shown=self.shown[:0],
            embeddings=None,
        )


@final
class ImageSetBuilder:
    """Collects an `ImageSet` from images that come some at a time.

    Args:
        extractor: computes the features.
        device: device of the extractor.
        alignment: embeds the images too.
        space: space of the images; of bands, those are seen that it shows. None for colours.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        device: torch.device,
        alignment: AlignmentModel | None = None,
        space: Space | None = None,
    ) -> None:
        self._space = space
        self._extractor = extractor
        self._alignment = alignment
        self._embeddings: list[Tensor] = []
        self._device = device
        extractor.network.to(device)
        self._features: list[Tensor] = []
        self._probabilities: list[Tensor] = []
        self._colourfulness: list[Tensor] = []
        self._moments = torch.zeros(3, 3, dtype=torch.float64)  # number, sum, sum of squares
        self._shown: list[Tensor] = []

    @torch.no_grad()
    def add(self, images: Tensor) -> None:
        """Add images (B, 3, H, W) in [-1, 1], or of the space, which are rounded to 8 bits.

        Raises:
            WeightsError: if a value is not finite.
        """
        if not images.isfinite().all():
            raise WeightsError(
                "a stage made images with values that are not finite, so its weights are "
                "unusable; use an earlier checkpoint, or train it again."
            )
        if self._space is not None:
            images = as_rgb(images, self._space)
        images = quantise(images.cpu())
        for part in images.split(FEATURE_BATCH):
            part = part.to(self._device)
            self._features.append(self._extractor.features(part).float().cpu())
            probabilities = self._extractor.classify(part)
            if probabilities is not None:
                self._probabilities.append(probabilities.float().cpu())
            if self._alignment is not None:
                self._embeddings.append(self._alignment.image_embeddings(part).float().cpu())
        self._colourfulness.append(colourfulness(images))
        self._moments += _moments(images)
        room = MOST_SHOWN - sum(len(each) for each in self._shown)
        self._shown += [to_uint8(images[:room])] if room > 0 else []

    def finish(self) -> ImageSet:
        """Return the set of all images that were added, at least one."""
        number, total, squares = self._moments
        mean = total / number
        return ImageSet(
            features=torch.cat(self._features),
            probabilities=torch.cat(self._probabilities) if self._probabilities else None,
            colourfulness=torch.cat(self._colourfulness),
            colour_mean=mean.float(),
            colour_spread=(squares / number - mean.square()).clamp(min=0).sqrt().float(),
            shown=torch.cat(self._shown),
            embeddings=torch.cat(self._embeddings) if self._embeddings else None,
        )


def _moments(images: Tensor) -> Tensor:
    """Number, sum and sum of squares (3, 3) of the pixels of each channel, in 8-bit units."""
    pixels = images.double().transpose(0, 1).flatten(1) * UNITS_8_BIT  # (3, B H W)
    number = torch.full((3,), float(pixels.shape[1]))
    return torch.stack([number, pixels.sum(dim=1), pixels.square().sum(dim=1)])
