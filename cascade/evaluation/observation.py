"""What is kept of a set of images while it is made or read: features and colours, not pixels.

Shapes: B images, N of all of them, H and W pixels, F features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cascade.errors import WeightsError
from cascade.evaluation.features import FeatureExtractor
from cascade.evaluation.metrics import colourfulness
from cascade.imaging.writing import to_uint8
from cascade.resizing import quantise

UNITS_8_BIT = 127.5  # of an image in [-1, 1]
FEATURE_BATCH = 32
MOST_SHOWN = 36


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A set of images as metrics see it.

    Attributes:
        features: (N, F) float32.
        probabilities: (N, K) float32 of classes; None where the extractor is no classifier.
        colourfulness: (N,).
        colour_mean: (3,) over all pixels, in 8-bit units.
        colour_spread: (3,), their standard deviation.
        shown: the first images, (36 or fewer, 3, H, W) uint8.
    """

    features: Tensor
    probabilities: Tensor | None
    colourfulness: Tensor
    colour_mean: Tensor
    colour_spread: Tensor
    shown: Tensor

    def __len__(self) -> int:
        return len(self.features)


class Observer:
    """Takes images as they come, and keeps what an `Observation` holds.

    Args:
        extractor: of the features.
        device: where it computes.
    """

    def __init__(self, extractor: FeatureExtractor, device: torch.device) -> None:
        self._extractor = extractor
        self._device = device
        extractor.network.to(device)
        self._features: list[Tensor] = []
        self._probabilities: list[Tensor] = []
        self._colourfulness: list[Tensor] = []
        self._moments = torch.zeros(3, 3, dtype=torch.float64)  # number, sum, sum of squares
        self._shown: list[Tensor] = []

    @torch.no_grad()
    def add(self, images: Tensor) -> None:
        """Look at images (B, 3, H, W) in [-1, 1], rounded to 8 bits.

        Raises:
            WeightsError: if a value is not finite.
        """
        if not images.isfinite().all():
            raise WeightsError(
                "a stage made pictures with values that are not finite; its weights are spoilt, "
                "take those of an earlier checkpoint or train it again."
            )
        images = quantise(images.cpu())
        for part in images.split(FEATURE_BATCH):
            part = part.to(self._device)
            self._features.append(self._extractor.features(part).float().cpu())
            probabilities = self._extractor.classify(part)
            if probabilities is not None:
                self._probabilities.append(probabilities.float().cpu())
        self._colourfulness.append(colourfulness(images))
        pixels = images.double().transpose(0, 1).flatten(1) * UNITS_8_BIT  # (3, B H W)
        self._moments += torch.stack(
            [
                torch.full((3,), float(pixels.shape[1])),
                pixels.sum(dim=1),
                pixels.square().sum(dim=1),
            ]
        )
        room = MOST_SHOWN - sum(len(each) for each in self._shown)
        self._shown += [to_uint8(images[:room])] if room > 0 else []

    def finish(self) -> Observation:
        """What was seen; at least one image."""
        number, total, squares = self._moments
        mean = total / number
        return Observation(
            features=torch.cat(self._features),
            probabilities=torch.cat(self._probabilities) if self._probabilities else None,
            colourfulness=torch.cat(self._colourfulness),
            colour_mean=mean.float(),
            colour_spread=(squares / number - mean.square()).clamp(min=0).sqrt().float(),
            shown=torch.cat(self._shown),
        )
