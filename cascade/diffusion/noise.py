"""Noise by seed: each image draws the same numbers in any batch and on any machine.

Every image has its own generator on the CPU, so what it draws depends neither on the batch, nor on
the device, nor on the number of processes.

Shapes: B images.
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
    """A source of normal noise for a batch."""

    @property
    def generators(self) -> list[torch.Generator]:
        """One generator per image."""
        ...

    @property
    def temperature(self) -> float:
        """Standard deviation of what `normal` returns; the generators themselves know none."""
        ...

    def normal(self, *shape: int) -> Tensor:
        """The next normal numbers of each image, float32: (B, *shape)."""
        ...


class SeededNoise:
    """One random stream per image.

    Args:
        seeds: B whole numbers.
        stream: name of the stream; streams of the same seed are independent of each other.
        device: device to which draws are moved; they are made on the CPU.

    Raises:
        ContractError: if a seed is not a whole number.

    Attributes:
        temperature: standard deviation of the next draws from `normal`; initially 1.
    """

    def __init__(
        self, seeds: Sequence[int], stream: str = "", *, device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self.temperature = 1.0
        self._seeds, self._stream = _whole(seeds), stream
        self._generators = [
            torch.Generator().manual_seed(derive_seed(seed, stream)) for seed in self._seeds
        ]

    @property
    def generators(self) -> list[torch.Generator]:
        """One generator per image."""
        return self._generators

    def __len__(self) -> int:
        return len(self.generators)

    def fork(self, name: str) -> SeededNoise:
        """Start an independent stream of the same seeds, whatever this one has drawn."""
        return SeededNoise(self._seeds, f"{self._stream} {name}", device=self.device)

    def normal(self, *shape: int) -> Tensor:
        """The next normal numbers of each image, float32: (B, *shape)."""
        noise = torch.empty(len(self), *shape)
        self.fill_normal(noise)
        return noise.to(self.device)

    def fill_normal(self, canvas: Tensor) -> None:
        """Fill a float32 tensor (B, …) on the CPU with the numbers that `normal` would return."""
        for each, generator in zip(canvas, self.generators, strict=True):
            each.normal_(generator=generator)
        if self.temperature != 1:
            canvas *= self.temperature

    def uniform(self, *shape: int) -> Tensor:
        """The next uniform numbers in [0, 1) of each image, float32: (B, *shape)."""
        return torch.stack([torch.rand(shape, generator=g) for g in self.generators]).to(
            self.device
        )


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on all parts and on nothing else: SHA-256 of their text."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_seeds(count: int, seed: int | None, seeds: Sequence[int] | None) -> list[int]:
    """One seed per image: `seeds`, or numbers that count up from `seed`.

    Args:
        count: number of images, at least 1.
        seed: seed of the first image; None draws one at random.
        seeds: seeds of all images, instead of `seed`.

    Raises:
        ContractError: if `count` is below 1 or not the number of seeds, if both `seed` and `seeds`
            are given, or if one is not a whole number.
    """
    if count < 1:
        raise ContractError(f"num_images must be at least 1, got {count}.")
    if seeds is not None:
        if seed is not None:
            raise ContractError("give seed or seeds, not both.")
        if len(seeds) != count:
            raise ContractError(f"got {len(seeds)} seeds for {count} images.")
        return _whole(seeds)
    (first,) = _whole([secrets.randbelow(2**31) if seed is None else seed])
    return list(range(first, first + count))


def _whole(seeds: Sequence[int]) -> list[int]:
    """Convert seeds of any integer type to Python integers."""
    try:
        return [operator.index(seed) for seed in seeds]
    except TypeError as error:
        raise ContractError(f"a seed is a whole number; got {seeds!r} as seeds.") from error
