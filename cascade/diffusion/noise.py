"""Noise that belongs to an image: the same seed gives the same numbers in any batch, anywhere.

Every image has a generator of its own on the CPU, so that neither the batch, the device nor the
number of processes changes what it draws.
"""

from __future__ import annotations

import hashlib
import operator
import secrets
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from cascade.errors import ContractError


class NoiseSource(Protocol):
    """Whatever gives standard normal noise."""

    @property
    def generators(self) -> list[torch.Generator]:
        """One per image."""
        ...

    def normal(self, *shape: int) -> Tensor:
        """Standard normal noise, float32: (B, *shape)."""
        ...


class SeededNoise:
    """One random stream per image.

    Args:
        seeds: one integer per image of the batch.
        stream: name of the stream; streams of one seed are independent of each other.
        device: where the noise is put after it is drawn.

    Raises:
        ContractError: if a seed is no whole number.

    Attributes:
        temperature: standard deviation of what `normal` gives from now on; 1 at first.
    """

    def __init__(
        self, seeds: Sequence[int], stream: str = "", *, device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self.temperature = 1.0
        try:
            whole = [operator.index(seed) for seed in seeds]
        except TypeError as error:
            raise ContractError(f"a seed is a whole number; got {seeds!r} as seeds.") from error
        self._generators = [
            torch.Generator().manual_seed(derive_seed(seed, stream)) for seed in whole
        ]

    @property
    def generators(self) -> list[torch.Generator]:
        """One per image."""
        return self._generators

    def __len__(self) -> int:
        return len(self.generators)

    def normal(self, *shape: int) -> Tensor:
        """Normal noise, float32: (B, *shape), the next of each image's stream."""
        drawn = torch.empty(len(self), *shape)
        self.fill_normal(drawn)
        return drawn.to(self.device)

    def fill_normal(self, canvas: Tensor) -> None:
        """Fill a tensor (B, ...) on the CPU in place with what `normal` would give."""
        for each, generator in zip(canvas, self.generators, strict=True):
            each.normal_(generator=generator)
        if self.temperature != 1:
            canvas *= self.temperature

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), float32: (B, *shape), the next of each image's stream."""
        return torch.stack([torch.rand(shape, generator=g) for g in self.generators]).to(
            self.device
        )


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and on nothing else (SHA-256 of their text)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_seeds(count: int, seed: int | None, seeds: Sequence[int] | None) -> list[int]:
    """One seed per image: the ones that are given, or counted up from the first.

    Args:
        count: number of images.
        seed: of the first image; None to draw one.
        seeds: of all images, instead.

    Raises:
        ContractError: if the numbers disagree.
    """
    if count < 1:
        raise ContractError(f"num_images must be at least 1, got {count}.")
    if seeds is not None:
        if seed is not None:
            raise ContractError("give seed or seeds, not both.")
        if len(seeds) != count:
            raise ContractError(f"got {len(seeds)} seeds for {count} images.")
        return [int(each) for each in seeds]
    first = secrets.randbelow(2**31) if seed is None else int(seed)
    return list(range(first, first + count))
