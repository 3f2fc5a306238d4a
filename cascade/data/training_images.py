"""Makes training batches from a source, in an order that follows from a single number.

Position p of a run is image p mod N of epoch p div N, in an order drawn from the run's seed and the
epoch. Its crop, flip, noise and timestep come from a seed of its own, so that neither workers,
processes nor an interruption change what the network sees. If an image is broken, or smaller than
the stage, the next readable one of that epoch takes its position and its seed.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cascade.conditioning.batch import Batch
from cascade.contract import Contract
from cascade.data.broken import BrokenImages
from cascade.data.generated_images import GeneratedImages
from cascade.data.loading import load_in_order
from cascade.data.source import ImageSource
from cascade.data.tensors import TensorDataset, TensorSource, as_source
from cascade.diffusion.noise import derive_seed
from cascade.errors import CascadeError, DataError
from cascade.imaging.reading import decode_image
from cascade.imaging.writing import from_uint8, to_uint8
from cascade.resizing import resize
from cascade.space import Space


class TrainingSample(NamedTuple):
    """One image with its seed.

    Attributes:
        image: (C, H, W) in [-1, 1].
        conditions: the image's entry in a batch for each condition of the stage, by its name.
        seed: whole number from which all random draws for the image come.
        broken: unusable images that this one replaces, as `name: reason`.
    """

    image: Tensor
    conditions: dict[str, Tensor]
    seed: int
    broken: tuple[str, ...] = ()


class SizedImage(NamedTuple):
    """A whole image at the stage's size.

    Attributes:
        image: (C, H, W); uint8 if that loses nothing.
        smaller: conditioning images made from it, by condition name, each (C', h, w); uint8 if
            that loses nothing.
    """

    image: Tensor
    smaller: dict[str, Tensor]

    @property
    def bytes(self) -> int:
        """Memory of all images in bytes."""
        return self.image.nbytes + sum(each.nbytes for each in self.smaller.values())


class TrainingImages(Dataset[TrainingSample]):
    """Images at a stage's size, cropped and flipped.

    Args:
        source: the encoded images, or a data set of tensors; see `TensorSource`.
        contract: contract of the stage in training.
        crop_px: side in pixels of the square that is cut out at random; None for the whole image.
        flip: whether to mirror half of the images.
        seed: the run's seed.
        cache_mib: memory in MiB for decoded images, in each data worker.
        generated: images by the previous stage, which some of the samples use; None for no such
            images.
        max_broken_share: largest share of broken images, in [0, 1]; see `BrokenImages`.

    Raises:
        DataError: if the crop does not fit, or the first tensors of a data set do not.
    """

    def __init__(
        self,
        source: ImageSource | TensorDataset,
        contract: Contract,
        *,
        crop_px: int | None = None,
        flip: bool = True,
        seed: int = 0,
        cache_mib: int = 1024,
        generated: GeneratedImages | None = None,
        max_broken_share: float = 0.01,
    ) -> None:
        self.source = as_source(source, contract)
        if not isinstance(self.source, TensorSource):
            check_readable(contract.space)
        check_crop(crop_px, contract)
        self.contract = contract
        self.crop_px = crop_px
        self.flip = flip
        self.seed = seed
        self.generated = generated
        self.max_broken_share = max_broken_share
        self._cache: dict[int, SizedImage] = {}
        self._cache_bytes_left = cache_mib * 2**20

    def __getitem__(self, position: int) -> TrainingSample:
        epoch, place = divmod(position, len(self.source))
        order = epoch_order(self.seed, epoch, len(self.source))
        seed = derive_seed(self.seed, "sample", int(order[place]), epoch)
        pair = None if self.generated is None else self.generated.draw(seed)
        if pair is None:
            index, sized, broken = self.first_readable(order, place)
        else:
            assert self.generated is not None
            (index, image), broken = pair, ()
            whole = self.sized(index)
            sized = whole._replace(smaller={**whole.smaller, self.generated.condition: image})
        image, smaller = self._crop_and_flip(sized, seed)
        return TrainingSample(
            as_float(image),
            {name: as_float(each) for name, each in smaller.items()} | self._annotated(index),
            seed,
            broken,
        )

    def first_readable(self, order: Tensor, place: int) -> tuple[int, SizedImage, tuple[str, ...]]:
        """Find the first usable image at or after a place of an epoch.

        Args:
            order: (N,) int64, the order of the images in the epoch.
            place: position in that order, in [0, N).

        Returns:
            The index of the image, the image, and why those before it cannot be used.

        Raises:
            DataError: if no image can be used, or too many in a row cannot.
        """
        broken = BrokenImages(len(self.source), self.max_broken_share)
        for ahead in range(len(order)):
            index = int(order[(place + ahead) % len(order)])
            try:
                self._annotated(index)  # a file of labels may be broken too
                return index, self.sized(index), tuple(broken.names)
            except DataError as error:
                broken.add([str(error)])
        raise DataError(f"none of the {len(order)} images can be used: {broken.names[0]}")

    def _annotated(self, index: int) -> dict[str, Tensor]:
        """The entries in a batch that conditions read from an image's annotations, by name."""
        if not any(each.annotation_fields for each in self.contract.conditions):
            return {}
        annotations = self.source.labels(index)
        values = {each.name: each.of_annotations(annotations) for each in self.contract.conditions}
        return {name: value for name, value in values.items() if value is not None}

    def sized(self, index: int) -> SizedImage:
        """A whole image at the stage's size, from the cache if it was read before.

        Raises:
            DataError: naming the image, if it is damaged or too small.
        """
        if index in self._cache:
            return self._cache[index]
        image = self._fitted(index)
        sized = SizedImage(image, self._smaller(as_float(image)))
        if sized.bytes <= self._cache_bytes_left:
            self._cache_bytes_left -= sized.bytes
            self._cache[index] = sized
        return sized

    def _fitted(self, index: int) -> Tensor:
        """A whole image at the stage's size; those from files are rounded to 8 bits."""
        name, space = self.source.name(index), self.contract.space
        if isinstance(self.source, TensorSource):
            return _compact(fit_tensor(self.source.image(index), space, name))
        return fit_size(decode_image(self.source.read(index), name), space, name)

    def _smaller(self, image: Tensor) -> dict[str, Tensor]:
        """The conditioning images of a whole image (C, H, W), by condition name."""
        space = self.contract.space
        images = {each.name: each.of_picture(image, space) for each in self.contract.conditions}
        return {name: _compact(each) for name, each in images.items() if each is not None}

    def _crop_and_flip(self, sized: SizedImage, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Cut the same part out of all images, along whole pixels of the smallest one."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "crop"))
        step = self.contract.grid_px
        height, width = sized.image.shape[-2:]
        size = (self.crop_px or height, self.crop_px or width)
        spare = [side - cut for side, cut in zip((height, width), size, strict=True)]
        offset = [
            int(torch.randint(free // step + 1, (1,), generator=generator)) * step for free in spare
        ]
        mirrored = self.flip and bool(torch.rand((), generator=generator) < 0.5)

        def cut(image: Tensor) -> Tensor:
            scale = height // image.shape[-2]
            y, x = (each // scale for each in offset)
            rows, columns = (each // scale for each in size)
            part = image[:, y : y + rows, x : x + columns]
            return part.flip(-1) if mirrored else part

        return cut(sized.image), {name: cut(each) for name, each in sized.smaller.items()}


def _compact(image: Tensor) -> Tensor:
    """Convert an image to uint8 if that keeps its values, else return it unchanged."""
    small = to_uint8(image)
    return small if torch.equal(from_uint8(small), image) else image


def check_readable(space: Space) -> None:
    """Check that image files hold what a stage gives: they are read as 8-bit RGB.

    Raises:
        DataError: if the stage has other channels or another range.
    """
    if space.channels != 3 or space.range != (0, 255):
        low, high = space.range
        raise DataError(
            f"image files are read as 3 channels of 0 to 255, but the stage has {space.channels} "
            f"channels of {low:g} to {high:g}; train it from Python on a Dataset of tensors."
        )


def check_crop(crop_px: int | None, contract: Contract) -> None:
    """Check that a crop can be cut out of a stage's images and its conditioning images.

    Raises:
        DataError: if the crop is too large or not a multiple of the scale.
    """
    smallest_px = min(contract.space.size)
    if crop_px is not None and (crop_px > smallest_px or crop_px % contract.grid_px):
        raise DataError(
            f"crop_px must be at most the stage's {smallest_px} px and a multiple of its "
            f"scale {contract.grid_px}, got {crop_px}."
        )


def fit_size(image: Tensor, space: Space, name: str) -> Tensor:
    """Fit an image into the stage's size and round it to 8 bits; see `fit_tensor`.

    Returns:
        (C, *space.size) uint8.
    """
    return to_uint8(fit_tensor(image, space, name))


def fit_tensor(image: Tensor, space: Space, name: str) -> Tensor:
    """Downscale an image until it just covers the stage's size, and cut out the middle.

    Args:
        image: (C, H, W) in [-1, 1].
        space: space of the stage.
        name: name of the image for messages.

    Returns:
        (C, *space.size) in [-1, 1].

    Raises:
        DataError: if the image is smaller than the stage's size, since training must not upscale.
    """
    height, width = space.size
    rows, columns = image.shape[-2:]
    if rows < height or columns < width:
        raise DataError(
            f"{name}: {columns}x{rows} px is smaller than the stage's {space.size_text}; remove it "
            "or train a smaller stage."
        )
    factor = min(rows / height, columns / width)
    if space.resize_kernel == "area":
        factor = math.floor(factor)  # it averages exactly by whole factors only
    cut = (min(rows, round(height * factor)), min(columns, round(width * factor)))
    y, x = (rows - cut[0]) // 2, (columns - cut[1]) // 2
    middle = image[None, :, y : y + cut[0], x : x + cut[1]]
    return resize(middle, space.size, space.resize_kernel)[0]


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """The order of the images in an epoch: (count,) int64."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(count, generator=generator)


class PositionBatches(Sampler[list[int]]):
    """The positions of one process's batches, from a point in a run to its end.

    Args:
        start_images: number of images that the run has seen.
        end_images: number of images that the run sees in total.
        batch_size: number of images per step over all processes.
        rank: number of this process, from 0.
        processes: number of processes; it must divide the batch size.
    """

    def __init__(
        self,
        start_images: int,
        end_images: int,
        batch_size: int,
        *,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if batch_size % processes:
            raise DataError(
                f"batch_size {batch_size} must be a multiple of the {processes} processes."
            )
        self.start_images = start_images
        self.end_images = end_images
        self.batch_size = batch_size
        self.share = batch_size // processes
        self.rank = rank

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(self.start_images, self.end_images, self.batch_size):
            mine = first + self.rank * self.share
            yield list(range(mine, mine + self.share))

    def __len__(self) -> int:
        return max(0, -(-(self.end_images - self.start_images) // self.batch_size))


class _Batches(Dataset[Batch | CascadeError]):
    """Batches by positions. It returns errors: a worker would add its traceback to raised ones."""

    def __init__(self, images: TrainingImages) -> None:
        self.images = images

    def __getitem__(self, positions: list[int]) -> Batch | CascadeError:
        try:
            return collate([self.images[position] for position in positions])
        except CascadeError as error:
            return error
        except (OSError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or error or "out of memory"
            return DataError(f"the data cannot be loaded: {reason}.")


def load_batches(
    images: TrainingImages, positions: PositionBatches, *, workers: int = 0
) -> Iterator[Batch]:
    """Load batches in order, with any number of worker processes.

    Raises:
        DataError: if there are fewer images than a batch takes, or too many in a row are broken.
    """
    if len(images.source) < positions.batch_size:
        raise DataError(
            f"{len(images.source)} images are too few for a batch of {positions.batch_size}; add "
            "images or use a smaller batch."
        )
    for batch in load_in_order(_Batches(images), positions, workers=workers):
        if isinstance(batch, CascadeError):
            raise batch
        yield batch


def collate(samples: list[TrainingSample]) -> Batch:
    """Stack samples into a batch."""
    names = samples[0].conditions
    return Batch(
        images=torch.stack([sample.image for sample in samples]),
        seeds=tuple(sample.seed for sample in samples),
        conditions={
            name: torch.stack([sample.conditions[name] for sample in samples]) for name in names
        },
        broken=tuple(dict.fromkeys(name for sample in samples for name in sample.broken)),
    )


def as_float(image: Tensor) -> Tensor:
    """Convert an image that may be uint8 to float32 in [-1, 1]."""
    return from_uint8(image) if image.dtype == torch.uint8 else image
