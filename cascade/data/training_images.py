"""Makes training samples from a source, in an order that follows from a single number.

Position p of a run is image p mod N of epoch p div N, in an order drawn from the run's seed and the
epoch. Its crop, flip, noise and timestep come from a seed of its own, so that neither workers,
processes nor an interruption change what the network sees. If an image is broken or left out
because it is smaller than the stage, the next usable one of that epoch takes its position and its
seed.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cascade.conditioning.batch import Remark
from cascade.contract import Contract
from cascade.data.augmentation import Augmentation, Axis, Cut, middle_cut
from cascade.data.band_decoding import BandDecoding, Missing
from cascade.data.broken import BrokenImages, listed_by
from cascade.data.fitting import (
    as_float,
    check_covers,
    check_readable,
    compact,
    fit_known,
    fit_tensor,
    rounded,
)
from cascade.data.generated_images import GeneratedImages
from cascade.data.masking import check_masks
from cascade.data.pairs import PairReader, check_pairs
from cascade.data.preparation import (
    ENLARGED,
    LEFT_OUT,
    DecodedImage,
    Decoding,
    Outside,
    TooSmall,
    TooSmallError,
    ValueRange,
)
from cascade.data.samples import SizedImage, TrainingSample, UsableImage
from cascade.data.source import ImageSource
from cascade.data.tensors import TensorDataset, TensorSource, as_source
from cascade.diffusion.noise import derive_seed
from cascade.errors import DataError
from cascade.imaging.picture_reading import Truncated
from cascade.space import Size, Space

if TYPE_CHECKING:
    from cascade.data.encoded_images import EncodedImages

FIXED_SEED = 0
MOST_REDRAWS = 32  # of a crop; where known values are rarer, its loss is 0


class TrainingImages(Dataset[TrainingSample]):
    """Images at a stage's size, cropped, mirrored and rotated.

    Args:
        source: the encoded images, or a data set of tensors; see `TensorSource`.
        contract: contract of the stage in training.
        crop_px: side in pixels of the square that is cut out at random; None for the whole image.
        flip: axes along which half of the images are mirrored; see `Augmentation`.
        rotate90: whether to rotate images by multiples of 90 degrees.
        range: the numbers in image files that become black and white; see `Decoding`.
        too_small: what happens to images smaller than the stage: `error` ends the run, `skip`
            leaves them out, and `enlarge` upscales them.
        truncated: what happens to JPEG files whose end is missing; `keep` takes what is there.
        outside: what happens to numbers outside of the range.
        nodata: for bands, the number that stands for a missing one; see `BandDecoding`.
        axis: for bands, the axis of a volume along which it is cut into slices.
        missing: for bands, what happens to images with missing numbers: `refuse` counts them as
            broken; `mask` fills them, and the loss leaves them out, which not every objective can.
            A crop without any known number is drawn again, up to 32 times.
        seed: the run's seed.
        cache_mib: memory in MiB for decoded images, in each data worker.
        generated: images by the previous stage, which some of the samples use; None for no such
            images.
        max_broken_share: largest share of broken images, in [0, 1]; see `BrokenImages`.
        encoded: the images in the space of a stage that makes latents or embeddings; None for
            pixels and for data sets of tensors.
        embedded: the embeddings of the images for conditions, by name of the condition. A stage
            computes those that are missing from the images of each batch.
        max_shift_px: for pairs, the largest shift between both images; see `PairReader`.

    Raises:
        DataError: if the crop or the rotation does not fit, the first tensors of a data set do
            not, or missing numbers cannot be masked.
    """

    def __init__(
        self,
        source: ImageSource | TensorDataset,
        contract: Contract,
        *,
        crop_px: int | None = None,
        flip: Sequence[Axis] = ("x",),
        rotate90: bool = False,
        range: ValueRange | None = None,
        too_small: TooSmall = "skip",
        truncated: Truncated = "refuse",
        outside: Outside = "clip",
        nodata: float | None = None,
        axis: int = 2,
        missing: Missing = "refuse",
        seed: int = 0,
        cache_mib: int = 1024,
        generated: GeneratedImages | None = None,
        max_broken_share: float = 0.01,
        encoded: EncodedImages | None = None,
        max_shift_px: float | None = None,
        embedded: Mapping[str, EncodedImages] | None = None,
    ) -> None:
        self.source = as_source(source, contract)
        self.encoded = encoded
        self.embedded = dict(embedded or {})
        for name, each in self.embedded.items():
            each.check(_encoded_space(contract, name), self.source)
        if encoded is not None:
            encoded.check(contract.space, self.source)
        elif not isinstance(self.source, TensorSource):
            check_readable(contract.space)
        elif range is not None or truncated != "refuse" or missing != "refuse":
            raise DataError(
                "range, truncated and missing are for image files; scale the tensors in the data "
                "set."
            )
        self.decoding: Decoding | BandDecoding = Decoding(range, truncated, outside)
        if contract.space.has_bands:
            self.decoding = BandDecoding.of_space(
                contract.space, outside=outside, nodata=nodata, axis=axis, missing=missing
            )
        check_pairs(self.source, contract, too_small)
        self.pairs: PairReader | None = None
        if self.source.partners is not None:
            self.pairs = PairReader.of(self.source, contract, self.decoding, max_shift_px)
        self.augmentation = Augmentation(crop_px=crop_px, flip=tuple(flip), rotate90=rotate90)
        kinds = [encoded.space.kind] if encoded is not None else []
        kinds += [each.space.kind for each in self.embedded.values()]
        self.augmentation.check(contract, encoded=kinds[0] if kinds else "")
        self.masks_missing = missing == "mask"
        if self.masks_missing:
            check_masks(contract)
        self.contract = contract
        self.too_small: TooSmall = too_small
        self.seed = seed
        self.generated = generated
        self.max_broken_share = max_broken_share
        self._cache: dict[int, SizedImage] = {}
        self._too_small: dict[int, str] = {}  # so that none is decoded in every epoch
        self._cache_bytes_left = cache_mib * 2**20

    def __getitem__(self, position: int) -> TrainingSample:
        epoch, place = divmod(position, len(self.source))
        order = epoch_order(self.seed, epoch, len(self.source))
        seed = derive_seed(self.seed, "sample", int(order[place]), epoch)
        pair = None if self.generated is None else self.generated.draw(seed)
        if pair is None:
            usable = self.first_usable(order, place)
        else:
            assert self.generated is not None
            index, image = pair
            whole = self.sized(index)
            smaller = {**whole.smaller, self.generated.condition: image}
            usable = UsableImage(index, whole._replace(smaller=smaller))
        whole, index = usable.sized, usable.index
        cut = self._cut(whole, seed)
        conditions = {name: as_float(each) for name, each in cut.of_all(whole.smaller).items()}
        conditions |= {name: each.values(index) for name, each in self.embedded.items()}
        return TrainingSample(
            as_float(cut(whole.image)),
            conditions | self._annotated(index),
            seed,
            usable.broken,
            usable.remarks,
            None if whole.known is None else cut(whole.known),
        )

    def _cut(self, whole: SizedImage, seed: int) -> Cut:
        """The part of a whole image to use; one without known values is drawn again."""
        draw = partial(self.augmentation.draw, whole.size, self.contract.grid_px)
        cut = draw(derive_seed(seed, "crop"), self._window(whole))
        again = 0
        while whole.known is not None and again < MOST_REDRAWS and not cut(whole.known).any():
            again += 1
            cut = draw(derive_seed(seed, "crop", again), self._window(whole))
        return cut

    def first_usable(self, order: Tensor, place: int) -> UsableImage:
        """Find the first usable image at or after a place of an epoch.

        Args:
            order: (N,) int64, the order of the images in the epoch.
            place: position in that order, in [0, N).

        Raises:
            DataError: if no image can be used, or too many in a row are broken.
            TooSmallError: if an image is too small and `too_small` is `error`.
        """
        command = self.check_command
        broken = BrokenImages(len(self.source), self.max_broken_share, command=command)
        left_out: list[Remark] = []
        for ahead in range(len(order)):
            index = int(order[(place + ahead) % len(order)])
            try:
                self._annotated(index)  # a file of labels may be broken too
                sized = self.sized(index)
            except TooSmallError as error:
                if self.too_small == "error":
                    raise TooSmallError(
                        f"{error} Remove such images, or set too_small to skip or enlarge."
                        f"{listed_by(command)}"
                    ) from error
                left_out.append(Remark(LEFT_OUT, str(error)))
            except DataError as error:
                broken.add([str(error)])
            else:
                remarks = (*left_out, *sized.remarks)
                return UsableImage(index, sized, tuple(broken.names), remarks)
        reasons = [*broken.names, *(each.text for each in left_out)]
        small = f" {len(left_out)} are too small.{listed_by(command)}" if left_out else ""
        raise DataError(f"none of the {len(order)} images can be used: {reasons[0]}{small}")

    def fixed(self) -> TrainingImages:
        """The same images for measurements: in an order and with seeds that never change.

        Conditioning images are all made from the images themselves, and nothing is kept in memory.
        """
        other = copy.copy(self)
        other.seed, other.generated = FIXED_SEED, None
        other._cache, other._cache_bytes_left = {}, 0
        return other

    @property
    def check_command(self) -> str:
        """The command that lists broken, too small, truncated and clipped images; or empty."""
        if self.encoded is not None:
            return self.encoded.pictures.check_command
        words = self.decoding.check_words
        return self.source.check_command(*words, size_px=max(self.contract.space.size))

    def as_pictures(self, results: Tensor) -> Tensor:
        """Turn a stage's results (B, C, H, W) into pictures (B, 3, H, W) in [-1, 1] to look at."""
        return results if self.encoded is None else self.encoded.decode(results)

    def _annotated(self, index: int) -> dict[str, Any]:
        """The entries in a batch that conditions read from an image's annotations, by name."""
        if not any(each.annotation_fields for each in self.contract.conditions):
            return {}
        annotations = self.source.labels(index)
        values = {each.name: each.of_annotations(annotations) for each in self.contract.conditions}
        return {name: value for name, value in values.items() if value is not None}

    def sized(self, index: int) -> SizedImage:
        """A whole image at the stage's size, from the cache if it was read before.

        Images of pairs are not resized.

        Raises:
            DataError: naming the image, if it is damaged.
            TooSmallError: naming the image, if it is too small and not to be enlarged.
        """
        if self.encoded is not None:
            return SizedImage(self.encoded.values(index), {})
        if index in self._cache:
            return self._cache[index]
        if index in self._too_small:
            raise TooSmallError(self._too_small[index])
        image, remarks, known = self._whole(index)
        partner: dict[str, Tensor] = {}
        if self.pairs is None:
            image, remarks, known = self._fitted(index, DecodedImage(image, remarks, known))
        else:
            image = rounded(image, self.contract.space)
            partner, more = self._partner(self.pairs, index, as_float(image))
            remarks += more
        sized = SizedImage(image, self._smaller(as_float(image)) | partner, remarks, known)
        if sized.bytes <= self._cache_bytes_left:
            self._cache_bytes_left -= sized.bytes
            self._cache[index] = sized
        return sized

    def _whole(self, index: int) -> DecodedImage:
        """An image as it is stored (C, h, w) in [-1, 1]."""
        if isinstance(self.source, TensorSource):
            return DecodedImage(self.source.image(index))
        name, number = self.source.name(index), self.source.number_in_file(index)
        return self.decoding.load(self.source.read(index), name, number)

    def _fitted(self, index: int, decoded: DecodedImage) -> DecodedImage:
        """An image at the stage's size (C, H, W); colour from files is rounded to 8 bits."""
        name, space = self.source.name(index), self.contract.space
        is_tensor = isinstance(self.source, TensorSource)
        image, remarks, known = decoded
        if space.kind == "embeddings":
            return decoded
        try:
            fitted = fit_tensor(image, space, name)
        except TooSmallError as error:
            if self.too_small != "enlarge":
                self._too_small[index] = str(error)
                raise
            fitted = fit_tensor(image, space, name, enlarge=True)
            remarks = (*remarks, Remark(ENLARGED, str(error)))
        if known is not None:
            known = fit_known(known, space, name)
        return DecodedImage(
            compact(fitted) if is_tensor else rounded(fitted, space), remarks, known
        )

    def _partner(
        self, pairs: PairReader, index: int, image: Tensor
    ) -> tuple[dict[str, Tensor], tuple[Remark, ...]]:
        """The other image of a pair, by the name of its condition, and remarks about it."""
        try:
            check_covers(image, self.contract.space, self.source.name(index))
        except TooSmallError as error:
            self._too_small[index] = str(error)
            raise
        partner, remarks = pairs.load(index, image)
        return {pairs.condition.name: partner}, remarks

    def _window(self, whole: SizedImage) -> Size:
        """Height and width of the part that is used of a whole image that is not cropped."""
        return whole.size if self.pairs is None else self.contract.space.size

    def middle(self, index: int) -> SizedImage:
        """The middle of an image at the stage's size: all of it, except for pairs.

        Raises:
            DataError: as `sized`.
        """
        whole = self.sized(index)
        cut = middle_cut(whole.size, self._window(whole), self.contract.grid_px)
        known = None if whole.known is None else cut(whole.known)
        return SizedImage(cut(whole.image), cut.of_all(whole.smaller), whole.remarks, known)

    def _smaller(self, image: Tensor) -> dict[str, Tensor]:
        """The conditioning images of a whole image (C, H, W), by condition name."""
        space = self.contract.space
        paired = None if self.pairs is None else self.pairs.condition
        others = [each for each in self.contract.conditions if each is not paired]
        images = {each.name: each.of_picture(image, space) for each in others}
        return {name: compact(each) for name, each in images.items() if each is not None}


def _encoded_space(contract: Contract, name: str) -> Space:
    """The space of the embeddings that a condition takes.

    Raises:
        DataError: if there is no such condition, or it takes none.
    """
    condition = contract.condition(name)
    space = None if condition is None else condition.encoded_space
    if space is None:
        raise DataError(f"the stage has no condition {name!r} that takes embeddings of its images.")
    return space


def as_images(
    images: TrainingImages | TensorDataset, contract: Contract, *, seed: int
) -> TrainingImages:
    """Read a data set of tensors, which are mirrored half of the time unless they are latents."""
    if isinstance(images, TrainingImages):
        return images
    flip = () if contract.space.kind == "latents" else ("x",)
    return TrainingImages(images, contract, flip=flip, seed=seed)


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """The order of the images in an epoch: (count,) int64."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(count, generator=generator)
