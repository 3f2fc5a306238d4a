"""The latents that an autoencoder stage decodes, which the stage before it makes.

They are no condition of a noise process: they are all that the stage's images are made from. As a
condition, they say which latents the stage takes, so that a chain refuses others.

Shapes: B batch, C channels of an image, H and W its pixels; c channels of the latents, h and w
their size, where H is f times h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from cascade.arguments import shown
from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition
from cascade.conditioning.inputs import Inputs, Request
from cascade.conditioning.signals import Signals
from cascade.conditioning.slots import Slots
from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.space import Size, Space

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LARGEST = 10_000  # beyond any latent; much larger numbers overflow in a decoder


@final
@dataclass(frozen=True, kw_only=True)
class Latents(Condition):
    """Latents of an autoencoder, shifted and scaled to a mean of 0 and a standard deviation of 1.

    A stage can do without them: then it draws its own.

    Attributes:
        channels: number c of channels.
        factor: number f of pixels of an image that one latent covers in each direction.
        encoder: hash of the encoder's weights; empty until it is trained.
        shift: number that is subtracted from what the encoder gives.
        scale: number that the difference is multiplied by.

    Raises:
        ContractError: if a value is out of range.
    """

    name = "latents"
    input_name = "latents"
    is_optional = True

    channels: int
    factor: int
    encoder: str = ""
    shift: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels < 1 or self.factor < 1:
            raise ContractError(
                f"latents need at least 1 channel and a factor of at least 1, got {self.channels} "
                f"and {self.factor}."
            )
        if self.drop:
            raise ContractError(f"drop must be 0 for latents, got {self.drop}.")

    def check(self, space: Space) -> None:
        self.check_size(space.size)
        self.image_space(space)

    def check_size(self, size_px: Size) -> None:
        """Check that images of a height and width in pixels have latents.

        Raises:
            ContractError: if the factor does not divide both.
        """
        if any(side % self.factor for side in size_px):
            height, width = size_px
            raise ContractError(
                f"an autoencoder that makes images smaller by {self.factor} takes sides that are "
                f"multiples of {self.factor} px, got {width}x{height} px."
            )

    def slots(self, space: Space) -> Slots:
        return Slots()

    def image_space(self, space: Space) -> Space:
        height, width = space.size
        return Space(
            size_px=(height // self.factor, width // self.factor),
            channels=self.channels,
            kind="latents",
            resize_kernel=space.resize_kernel,
            encoder=self.encoder,
            encoder_shift=self.shift,
            encoder_scale=self.scale,
        )

    def description(self, space: Space) -> str:
        return f"latents of {self.channels} channels, {self.image_space(space).size_text}"

    def result_size(self, inputs: Inputs, previous: Tensor | None, space: Space) -> Size | None:
        latents = inputs.get(self.input_name) if previous is None else previous
        if latents is None:
            return None
        self.image_space(space).check(latents)
        return latents.shape[-2] * self.factor, latents.shape[-1] * self.factor

    def of_batch(self, batch: Batch, space: Space, noise: SeededNoise) -> Signals:
        return Signals()

    def of_request(self, request: Request) -> Signals:
        return Signals()

    def absent(self, signals: Signals) -> Signals:
        return signals

    def input_of(self, batch: Batch, space: Space, *, degraded: bool = False) -> None:
        """Nothing: only the autoencoder can make latents of pictures."""

    def check_latents(self, latents: Any, space: Space) -> None:
        """Check latents that a user hands over to a pipeline.

        Args:
            latents: anything.
            space: space of the stage's images.

        Raises:
            ContractError: if they are not (B, c, h, w) of finite floats, where h and w are those of
                the stage's images divided by f, or are so large that no decoder could take them.
        """
        own = self.image_space(space)
        shape = (own.channels, *own.size)
        is_tensor = isinstance(latents, Tensor) and latents.dtype in FLOATS
        is_dense = is_tensor and latents.layout == torch.strided and not latents.is_meta
        if is_dense and latents.ndim == 4 and tuple(latents.shape[1:]) == shape and len(latents):
            if not (latents.abs() <= LARGEST).all():
                raise ContractError(
                    "latents must be finite numbers; their standard deviation is 1, and none may "
                    f"be beyond {LARGEST:,}. Got infinite ones, NaN, or larger ones."
                )
            return
        kind = f"{tuple(latents.shape)} of {latents.dtype}" if isinstance(latents, Tensor) else ""
        raise ContractError(
            f"latents must be a tensor (B, {shape[0]}, {shape[1]}, {shape[2]}) of floats, got "
            f"{kind or shown(latents)}."
        )

    def raw(self, latents: Tensor) -> Tensor:
        """Undo shift and scale; any shape."""
        return latents / self.scale + self.shift

    def normalised(self, raw: Tensor) -> Tensor:
        """Shift and scale what the encoder gives; any shape."""
        return (raw - self.shift) * self.scale
