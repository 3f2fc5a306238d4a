"""Noise by seed: each image draws the same numbers in any batch and on any machine.

Every image has its own generator on the CPU, so what it draws depends neither on the batch, nor on
the device, nor on the number of processes.

Shapes: B images.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from typing import Protocol, SupportsIndex

import torch
from torch import Tensor

from cascade.arguments import shown, whole_number
from cascade.errors import ContractError
from cascade.mapped_arrays import NUMBERS_AT_ONCE, release_pages

GeneratorLike = torch.Generator | Sequence[torch.Generator]


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

    @property
    def rows(self) -> slice:
        """The rows of the canvas that the step is for; `slice(None)` for all."""
        ...

    def normal(self, *shape: int) -> Tensor:
        """The next normal numbers of each image, float32: (B, *shape)."""
        ...


class SeededNoise:
    """One random stream per image.

    Args:
        seeds: B whole numbers of at least 0.
        stream: name of the stream; streams of the same seed are independent of each other.
        device: device to which draws are moved; they are made on the CPU.

    Raises:
        ContractError: if a seed is not a whole number of at least 0.

    Attributes:
        temperature: standard deviation of the next draws from `normal`; initially 1.
        rows: always all rows.
    """

    rows = slice(None)

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
            for part in _parts(each):
                part.normal_(generator=generator)
                if self.temperature != 1:
                    part *= self.temperature
                release_pages()

    def uniform(self, *shape: int) -> Tensor:
        """The next uniform numbers in [0, 1) of each image, float32: (B, *shape)."""
        return torch.stack([torch.rand(shape, generator=g) for g in self.generators]).to(
            self.device
        )


def _parts(canvas: Tensor) -> Sequence[Tensor]:
    """Parts of an image, in which torch draws the numbers that it draws in the whole.

    It draws 16 numbers together, and the last 16 anew if these are not a multiple.
    """
    if canvas.numel() <= NUMBERS_AT_ONCE or not canvas.is_contiguous():
        return [canvas]
    parts = list(canvas.view(-1).split(NUMBERS_AT_ONCE))
    if len(parts[-1]) < 16:
        last = len(parts[-1]) + len(parts[-2])
        parts = [*parts[:-2], canvas.view(-1)[-last:]]
    return parts


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on all parts and on nothing else: SHA-256 of their text."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def make_seeds(
    count: SupportsIndex,
    seed: SupportsIndex | None,
    seeds: Sequence[int] | None,
    generator: GeneratorLike | None = None,
) -> list[int]:
    """One seed per image: `seeds`, or numbers that count up from `seed`.

    Args:
        count: number of images, at least 1.
        seed: seed of the first image; None draws one at random.
        seeds: seeds of all images, instead of `seed`.
        generator: a generator whose initial seed takes the place of `seed`, or a list of one
            generator per image; their states are neither used nor changed.

    Raises:
        ContractError: if `count` is below 1 or not the number of seeds, if more than one of `seed`,
            `seeds` and `generator` is given, or if a seed is not a whole number of at least 0.
    """
    count = whole_number(
        "num_images",
        count,
        low=1,
        hint="texts go in prompt, class names in labels, images in image",
    )
    if sum(each is not None for each in (seed, seeds, generator)) > 1:
        raise ContractError("give only one of seed, seeds and generator.")
    if isinstance(generator, torch.Generator):
        seed = generator.initial_seed()
    elif generator is not None:
        return _initial_seeds(generator, count)
    if seeds is not None:
        if not hasattr(seeds, "__getitem__") or getattr(seeds, "ndim", 1) != 1:  # sets, 0-dim ones
            raise ContractError(
                f"seeds must be one whole number per image, got {shown(seeds)}; for the seed of "
                "the first image use seed."
            )
        if len(seeds) != count:
            raise ContractError(f"got {len(seeds)} seeds for {count} images.")
        return _whole(seeds)
    (first,) = _whole([secrets.randbelow(2**31) if seed is None else seed])
    return list(range(first, first + count))


def make_picture_seeds(count: int, seed: int | None, generator: GeneratorLike | None) -> list[int]:
    """One seed per picture: the same for all unless there is a generator for each.

    Args:
        count: number of pictures.
        seed: seed of every picture; None for 0.
        generator: a generator whose initial seed takes the place of `seed`, or a list of one
            generator per picture; their states are neither used nor changed.

    Raises:
        ContractError: if both `seed` and `generator` are given, or `count` is not the number of
            generators.
    """
    if seed is not None and generator is not None:
        raise ContractError("give only one of seed and generator.")
    if generator is None or isinstance(generator, torch.Generator):
        first = (seed or 0) if generator is None else generator.initial_seed()
        return [first] * count
    return _initial_seeds(generator, count)


def _initial_seeds(generators: Sequence[torch.Generator], count: int) -> list[int]:
    """The initial seed of each generator."""
    if not isinstance(generators, list | tuple) or not all(
        isinstance(each, torch.Generator) for each in generators
    ):
        raise ContractError(
            "generator must be a torch.Generator or a list of one per image, got "
            f"{shown(generators)}; a number goes in seed."
        )
    if len(generators) != count:
        raise ContractError(f"got {len(generators)} generators for {count} images.")
    return [each.initial_seed() for each in generators]


def _whole(seeds: Sequence[SupportsIndex]) -> list[int]:
    """Convert seeds of any integer type to Python integers."""
    if isinstance(seeds, str) or not isinstance(seeds, Iterable):
        raise ContractError(f"seeds must be one whole number per image, got {shown(seeds)}.")
    return [whole_number("a seed", seed, low=0) for seed in seeds]
