"""How noisy and how compressed a low-resolution image is, as a condition.

In training the network receives what the degradation really did, with the errors that a measurement
would have; in sampling, what is measured on the input (`noise_level.py`, `jpeg_quality.py`). One
network can then leave clean images alone and repair poor ones, and `denoise` is a dial on what it
is told.

Shapes: B batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition
from cascade.conditioning.inputs import Request
from cascade.conditioning.jpeg_quality import NO_LOSS, jpeg_quality
from cascade.conditioning.noise_level import noise_level
from cascade.conditioning.signals import Signals
from cascade.conditioning.slots import Dense, Slots
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.space import Space

NAME = "defects"  # also the name under which `LowResolution` shares them with this condition
WIDTH = 4  # each number, and whether it is known
NOISE_UNIT = 32.0  # 8-bit steps
DETAIL_PROBABILITY = 0.2  # that detail everywhere in an image is taken for noise
DETAIL_STEPS = 8.0  # at most, in 8-bit steps
LEAST_NOISE_ERROR = 0.6  # 8-bit steps
GOOD_QUALITY = 90.0  # from which pixels often show no compression
DOUBTFUL_NOISE = 6.0  # 8-bit steps; less is taken for detail in pictures up to this side
DOUBTFUL_PX = 64


class Defects(NamedTuple):
    """What is wrong with a picture.

    Attributes:
        noise: standard deviation of the noise of its luminance in 8-bit steps.
        quality: quality of the JPEG that it was, 1 to 100; 100 for none.
    """

    noise: float
    quality: float

    @classmethod
    def of(cls, image: Tensor) -> Defects:
        """Measure a picture (C, H, W) in [-1, 1]."""
        return cls.believed(noise_level(image), jpeg_quality(image), image)

    @classmethod
    def believed(cls, noise: float, quality: float, image: Tensor) -> Defects:
        """What to believe of a measurement of a picture (C, H, W).

        Detail everywhere measures as a little noise, and the smaller a picture is, the fewer flat
        places it has. Little noise counts as none, unless the picture was compressed, which makes
        noise likely.
        """
        side_px = max(DOUBTFUL_PX, math.sqrt(image[0].numel()))
        doubtful = DOUBTFUL_NOISE * math.sqrt(DOUBTFUL_PX / side_px)
        is_detail = quality >= GOOD_QUALITY and noise < doubtful
        return cls(0.0 if is_detail else noise, quality)


CLEAN = Defects(0.0, NO_LOSS)


@dataclass(frozen=True, kw_only=True)
class DefectsOptions:
    """The recipe section of the defects; see `DefectsCondition`."""

    drop: float = 0.1
    noise_error: float = 0.15
    quality_error: float = 3.0


@final
@dataclass(frozen=True, kw_only=True)
class DefectsCondition(Condition):
    """Noise and JPEG quality of the low-resolution image, which training degrades.

    The input is a tensor (B, 2) of both numbers, NaN where one is unknown; without it, they are
    measured on the image.

    Attributes:
        drop: probability in [0, 1] that training hides a number, for each of both.
        noise_error: relative standard deviation of the error of the noise in training, 0 to 1.
        quality_error: standard deviation of the error of the quality in training, 0 to 50.

    Raises:
        ContractError: if a value is out of range.
    """

    name = NAME
    input_name = NAME
    recipe = DefectsOptions
    has_dial = True

    drop: float = 0.1
    noise_error: float = 0.15
    quality_error: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.noise_error <= 1 and 0 <= self.quality_error <= 50):
            raise ContractError(
                "defects.noise_error must be from 0 to 1 and quality_error from 0 to 50, got "
                f"{self.noise_error} and {self.quality_error}."
            )

    def check(self, space: Space) -> None:
        if space.kind != "pixels" or space.channels not in (1, 3):
            raise ContractError(
                "defects are measured on pixels of 1 or 3 channels, this stage has "
                f"{space.kind} of {space.channels}."
            )

    def slots(self, space: Space) -> Slots:
        return Slots(vector=Dense(WIDTH))

    def of_batch(self, batch: Batch, space: Space, noise: SeededNoise) -> Signals:
        true = batch.shared.get(NAME)
        if true is None:
            raise ContractError(
                "the condition 'defects' needs a condition 'low_resolution' with a degradation, "
                "before it."
            )
        measured = self._with_errors(true.to(noise.device), noise)
        measured[noise.uniform(2) < self.drop] = math.nan
        return Signals(vectors={NAME: as_vector(measured)})

    def of_request(self, request: Request) -> Signals:
        values = request.inputs.get(self.input_name)
        if values is None and request.image is not None:
            values = torch.tensor([Defects.of(image) for image in request.image.float().cpu()])
        if values is None:
            values = torch.full((request.count, 2), math.nan)
        values = checked_defects(values, request.count).to(request.device)
        return Signals(vectors={NAME: as_vector(scaled_defects(values, request.denoise))})

    def absent(self, signals: Signals) -> Signals:
        vectors = {name: torch.zeros_like(each) for name, each in signals.vectors.items()}
        return Signals(vectors=vectors)

    def completed(self, value: Any, seeds: Sequence[int], *, draw: bool) -> Any:
        return None if value is None else checked_defects(value, len(seeds))

    def input_of(self, batch: Batch, space: Space, *, degraded: bool = False) -> None:
        """None: a user would let them be measured."""

    def _with_errors(self, true: Tensor, noise: SeededNoise) -> Tensor:
        """What a measurement would find where the defects (B, 2) are true."""
        uniform, normal = noise.uniform(3), noise.normal(3)
        std = true[:, 0] * (1 + self.noise_error * normal[:, 0])
        std = std + LEAST_NOISE_ERROR * normal[:, 1].abs()
        std = std + DETAIL_STEPS * uniform[:, 1] * (uniform[:, 0] < DETAIL_PROBABILITY)
        quality = (true[:, 1] + self.quality_error * normal[:, 2]).clamp(1, NO_LOSS)
        seems_uncompressed = (true[:, 1] >= GOOD_QUALITY) | true[:, 1].isnan()
        seems_uncompressed &= (uniform[:, 2] < 0.5) | (true[:, 1] == NO_LOSS)
        quality = torch.where(seems_uncompressed, NO_LOSS, quality)
        return torch.stack([std.clamp(min=0), quality], dim=1)


def checked_defects(values: Any, count: int) -> Tensor:
    """The defects (B, 2) that a user states.

    Args:
        values: a pair for each image.
        count: number of images.

    Raises:
        ContractError: if they are no pair for each image.
    """
    try:
        pairs = torch.as_tensor(values, dtype=torch.float32)
    except (TypeError, ValueError):
        pairs = torch.empty(0)
    if pairs.shape != (count, 2) or (pairs < 0).any() or (pairs[:, 1] > NO_LOSS).any():
        raise ContractError(
            "defects must be a pair of noise (8-bit steps, from 0) and JPEG quality (0 to 100) "
            f"for each of {count} images, got {values!r}."
        )
    return pairs


def scaled_defects(defects: Tensor, denoise: float) -> Tensor:
    """Scale defects (B, 2): 1 leaves them, at 0 the picture is clean; unknown ones stay unknown."""
    clean = torch.tensor(CLEAN, device=defects.device).expand_as(defects)
    return clean.clone() if denoise == 0 else clean + denoise * (defects - clean)


def as_vector(defects: Tensor) -> Tensor:
    """The vector (B, 4) of defects (B, 2): how far each is from clean, and whether it is known."""
    far = torch.stack([defects[:, 0] / NOISE_UNIT, 1 - defects[:, 1] / NO_LOSS], dim=1)
    is_known = far.isfinite()
    return torch.stack([far.nan_to_num(0.0), is_known.float()], dim=2).flatten(1)
