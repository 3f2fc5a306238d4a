"""From a source to training batches, in an order that is known from one number.

Position p of a run is image p mod N of epoch p div N, in an order drawn from the run's seed and the
epoch. Its crop, flip, noise and timestep come from a seed of its own, so that neither workers,
processes nor an interruption change what the network sees. Where an image is broken, or smaller
than the stage, the next readable one of that epoch takes its place and the place's seed.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cascade.conditioning.labels import LabelVocabulary
from cascade.conditioning.low_resolution import resize
from cascade.contract import Contract
from cascade.data.batch import Batch
from cascade.data.broken import BrokenImages
from cascade.data.generated_low_res import GeneratedLowRes
from cascade.data.loading import load_in_order
from cascade.data.sources import ImageSource
from cascade.diffusion.noise import derive_seed
from cascade.errors import CascadeError, DataError
from cascade.imaging.reading import decode_image
from cascade.imaging.writing import from_uint8, to_uint8


class TrainingSample(NamedTuple):
    """One image, its low-resolution version, label indices, seed, and what it stands in for."""

    image: Tensor
    low_res: Tensor | None
    labels: list[int]
    seed: int
    broken: tuple[str, ...] = ()


class TrainingImages(Dataset[TrainingSample]):
    """Images at a stage's size, cropped and flipped.

    Args:
        source: of the encoded images.
        contract: of the stage: size, low-resolution size, kernel.
        labels: names of the classes, or None.
        crop_px: side of the square that is cut out at random; None for the whole image.
        flip: whether to mirror half of the images.
        seed: of the run.
        cache_mib: memory for decoded images, in each data worker.
        generated: small images by the previous stage, which a part of the samples take.
        max_broken_share: of the images that may be broken; see `BrokenImages`.

    Raises:
        DataError: if the crop does not fit.
    """

    def __init__(
        self,
        source: ImageSource,
        contract: Contract,
        *,
        labels: LabelVocabulary | None = None,
        crop_px: int | None = None,
        flip: bool = True,
        seed: int = 0,
        cache_mib: int = 1024,
        generated: GeneratedLowRes | None = None,
        max_broken_share: float = 0.01,
    ) -> None:
        check_crop(crop_px, contract)
        self.source = source
        self.contract = contract
        self.vocabulary = labels
        self.crop_px = crop_px or contract.size_px
        self.flip = flip
        self.seed = seed
        self.generated = generated
        self.max_broken_share = max_broken_share
        self._cache: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._cache_bytes_left = cache_mib * 2**20

    def __getitem__(self, position: int) -> TrainingSample:
        epoch, place = divmod(position, len(self.source))
        order = epoch_order(self.seed, epoch, len(self.source))
        seed = derive_seed(self.seed, "sample", int(order[place]), epoch)
        drawn = None if self.generated is None else self.generated.draw(seed)
        if drawn is None:
            index, (image, low_res), broken = self.first_readable(order, place)
        else:
            (index, low_res), broken = drawn, ()
            image, _ = self.sized(index)
        image, low_res = self._crop_and_flip(image, low_res, seed)
        labels = [] if self.vocabulary is None else self._labels(index, self.vocabulary)
        return TrainingSample(
            from_uint8(image),
            None if low_res is None else as_float(low_res),
            labels,
            seed,
            broken,
        )

    def first_readable(
        self, order: Tensor, place: int
    ) -> tuple[int, tuple[Tensor, Tensor | None], tuple[str, ...]]:
        """The first image from a place on that can be used, and why those before it cannot.

        Args:
            order: of the images in an epoch.
            place: in it.

        Returns:
            The index of the image, what `sized` gives for it, and the reasons.

        Raises:
            DataError: if none can be used, or too many in a row cannot.
        """
        broken = BrokenImages(len(self.source), self.max_broken_share)
        for ahead in range(len(order)):
            index = int(order[(place + ahead) % len(order)])
            try:
                if self.vocabulary is not None:
                    self._labels(index, self.vocabulary)  # of which a file may be broken too
                return index, self.sized(index), tuple(broken.names)
            except DataError as error:
                broken.add([str(error)])
        raise DataError(f"none of the {len(order)} images can be used: {broken.names[0]}")

    def _labels(self, index: int, vocabulary: LabelVocabulary) -> list[int]:
        labels = self.source.labels(index)
        return vocabulary.encode({f: labels[f] for f in vocabulary.fields if f in labels})

    def sized(self, index: int) -> tuple[Tensor, Tensor | None]:
        """Image (3, S, S) uint8 and low-resolution image (3, s, s), uint8 if it is quantised."""
        if index in self._cache:
            return self._cache[index]
        image = decode_image(self.source.read(index), self.source.name(index))
        image = fit_square(image, self.contract, self.source.name(index))
        low_res = None
        if self.contract.low_res_px is not None:
            small = (self.contract.low_res_px, self.contract.low_res_px)
            low_res = resize(from_uint8(image)[None], small, self.contract.resize_kernel)[0]
            low_res = to_uint8(low_res) if self.contract.quantised else low_res
        size_bytes = image.nbytes + (0 if low_res is None else low_res.nbytes)
        if size_bytes <= self._cache_bytes_left:
            self._cache_bytes_left -= size_bytes
            self._cache[index] = (image, low_res)
        return image, low_res

    def _crop_and_flip(
        self, image: Tensor, low_res: Tensor | None, seed: int
    ) -> tuple[Tensor, Tensor | None]:
        """Cut the same place out of both; the offset is a multiple of the scale."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "crop"))
        scale = self.contract.scale
        places = (self.contract.size_px - self.crop_px) // scale + 1
        top, left = torch.randint(places, (2,), generator=generator).tolist()
        mirrored = self.flip and bool(torch.rand((), generator=generator) < 0.5)
        cut = _cut(image, top * scale, left * scale, self.crop_px, mirrored)
        if low_res is None:
            return cut, None
        return cut, _cut(low_res, top, left, self.crop_px // scale, mirrored)


def check_crop(crop_px: int | None, contract: Contract) -> None:
    """Check that a crop can be cut out of a stage's images and its low-resolution images.

    Raises:
        DataError: if it is too large or not a multiple of the scale.
    """
    if crop_px is not None and (crop_px > contract.size_px or crop_px % contract.scale):
        raise DataError(
            f"crop_px must be at most the stage's {contract.size_px} px and a multiple of its "
            f"scale {contract.scale}, got {crop_px}."
        )


def fit_square(image: Tensor, contract: Contract, name: str) -> Tensor:
    """Shrink an image's shorter side to the stage's size and cut the middle square.

    Args:
        image: (3, H, W) in [-1, 1].
        contract: of the stage.
        name: of the image, for messages.

    Returns:
        (3, S, S) uint8.

    Raises:
        DataError: if the image is smaller than the stage's size, so that it would be invented.
    """
    size = contract.size_px
    height, width = image.shape[-2:]
    short = min(height, width)
    if short < size:
        raise DataError(
            f"{name}: {width}x{height} px is smaller than the stage's {size} px; remove it or "
            "train a smaller stage."
        )
    top, left = (height - short) // 2, (width - short) // 2
    square = image[None, :, top : top + short, left : left + short]
    if contract.resize_kernel == "area" and short % size:
        square = square[..., : short - short % size, : short - short % size]
    return to_uint8(resize(square, (size, size), contract.resize_kernel)[0])


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """The order of the images in an epoch: (count,) int64."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(count, generator=generator)


class PositionBatches(Sampler[list[int]]):
    """The positions of one process's batches, from where a run stands to its end.

    Args:
        start_images: how many images the run has seen.
        end_images: where it ends.
        batch_size: images per step over all processes.
        rank: of this process.
        processes: how many there are; must divide the batch.
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
    """Batches by their positions. An error is a value, or a worker would add its traceback."""

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
            "images or lower train.batch_size."
        )
    for batch in load_in_order(_Batches(images), positions, workers=workers):
        if isinstance(batch, CascadeError):
            raise batch
        yield batch


def collate(samples: list[TrainingSample]) -> Batch:
    """Stack samples into a batch."""
    low_res = [sample.low_res for sample in samples if sample.low_res is not None]
    labels = [sample.labels for sample in samples]
    return Batch(
        images=torch.stack([sample.image for sample in samples]),
        seeds=tuple(sample.seed for sample in samples),
        labels=torch.tensor(labels, dtype=torch.long) if labels[0] else None,
        low_res=torch.stack(low_res) if low_res else None,
        broken=tuple(dict.fromkeys(name for sample in samples for name in sample.broken)),
    )


def as_float(image: Tensor) -> Tensor:
    """An image in [-1, 1], float32, from one that may be kept as uint8."""
    return from_uint8(image) if image.dtype == torch.uint8 else image


def _cut(image: Tensor, top: int, left: int, size_px: int, mirrored: bool) -> Tensor:
    cut = image[:, top : top + size_px, left : left + size_px]
    return cut.flip(-1) if mirrored else cut
