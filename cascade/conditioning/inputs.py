"""The user's inputs to a batch of images, which pass unchanged through a whole chain of stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cascade.diffusion.noise import SeededNoise
from cascade.errors import ContractError
from cascade.space import Size, Space


@dataclass(frozen=True)
class Inputs:
    """Values by name of the input, such as `image` or `labels`.

    Attributes:
        values: each a tensor (B, …) or a sequence of B entries; None values are left out. Every
            condition reads its own, at the size of its own stage.

    Raises:
        ContractError: if a value is a single text, or values are for different numbers of images.
    """

    values: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        present = {name: value for name, value in self.values.items() if value is not None}
        object.__setattr__(self, "values", present)
        single = next((name for name, value in present.items() if isinstance(value, str)), None)
        if single is not None:
            raise ContractError(
                f"{single} must be a list with one entry for each image, got a single text."
            )
        counts = {name: len(value) for name, value in present.items()}
        if len(set(counts.values())) > 1:
            text = ", ".join(f"{count} for {name}" for name, count in counts.items())
            raise ContractError(f"inputs must be for the same number of images, got {text}.")

    def get(self, name: str) -> Any:
        """The value of an input; None if it is missing."""
        return self.values.get(name)

    def start_image(self, name: str, previous: Tensor | None, expected: str) -> Tensor:
        """The image that a stage starts from: the previous stage's, or else an input.

        Args:
            name: name of the input.
            previous: images of the previous stage; None for the first one.
            expected: the image in words, for the error message.

        Raises:
            ContractError: if there is none.
        """
        image = self.get(name) if previous is None else previous
        if image is None:
            raise ContractError(f"this stage needs an image to start from: {expected}.")
        return image

    def check_count(self, count: int) -> None:
        """Check that every input is for `count` images.

        Raises:
            ContractError: naming the input that is not.
        """
        for name, value in self.values.items():
            if len(value) != count:
                raise ContractError(f"got {len(value)} entries of {name} for {count} seeds.")

    def part(self, places: slice) -> Inputs:
        """The inputs of a part of the images."""
        return Inputs({name: value[places] for name, value in self.values.items()})

    def only(self, names: Sequence[str]) -> Inputs:
        """The inputs with these names."""
        return Inputs({name: value for name, value in self.values.items() if name in names})

    def with_value(self, name: str, value: Tensor | Sequence[Any] | None) -> Inputs:
        """The same inputs with one added or replaced."""
        return Inputs({**self.values, name: value})


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of a stage, as its conditions see it.

    Attributes:
        inputs: the user's inputs.
        previous: (B, C, h, w), the result of the previous stage, in [-1, 1] for pixels; None for
            the first stage of a run, which takes the user's `image`.
        space: space of the stage's images.
        size_px: height and width of the canvas, which may be a little larger than the result
            because networks take only multiples of some size.
        result_px: height and width of the result; None if the canvas is no larger.
        augmentation_level: level of noise on conditioning images, in [0, 1].
        denoise: share of the measured defects that the network is told, in [0, 1].
        noise: the random stream of each image, on the device where signals are made; every
            condition gets one of its own.
    """

    inputs: Inputs
    previous: Tensor | None
    space: Space
    size_px: Size
    augmentation_level: float
    noise: SeededNoise
    result_px: Size | None = None
    denoise: float = 1.0

    @property
    def count(self) -> int:
        """Number B of images."""
        return len(self.noise)

    @property
    def device(self) -> torch.device:
        """The device where signals are made."""
        return self.noise.device

    @property
    def image(self) -> Tensor | None:
        """The result of the previous stage, or the user's image if there was none."""

        return self.inputs.get("image") if self.previous is None else self.previous
