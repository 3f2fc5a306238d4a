"""Splits images between training, validation and test by a hash of what they hold.

The place of an image depends on its own content or label and on a seed, never on other images. So
equal images stay together, and images that are added later move none of the earlier ones.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cascade.data.source import ImageSource, SelectedSource
from cascade.diffusion.noise import derive_seed
from cascade.errors import DataError

SPLITS = ("train", "validation", "test")
TOLERANCE = 1e-6  # of a sum of shares


class Shares(NamedTuple):
    """The expected shares of all images in each split; together they are 1.

    Attributes:
        train: share of the training split, above 0.
        validation: share of the validation split.
        test: share of the test split.
    """

    train: float = 1.0
    validation: float = 0.0
    test: float = 0.0

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Shares:
        """Check shares, of which the later ones may be missing.

        Raises:
            DataError: if they are not shares of a whole.
        """
        fits = 1 <= len(numbers) <= len(SPLITS) and all(0 <= each <= 1 for each in numbers)
        if not fits or numbers[0] <= 0 or not math.isclose(sum(numbers), 1, abs_tol=TOLERANCE):
            text = ",".join(f"{each:g}" for each in numbers)
            raise DataError(
                "a split must be two or three shares for training, validation and test that add "
                f"up to 1, such as 0.8,0.1,0.1; got {text}."
            )
        return cls(*numbers)

    def split_of(self, group: str, seed: int = 0) -> str:
        """The split of all images of a group.

        The test split does not depend on the share of the validation split.

        Args:
            group: the content of an image, or a name that images share.
            seed: whole number; another one gives another split.
        """
        place = derive_seed(seed, "split", group) / 2**63
        if place < self.test:
            return "test"
        return "validation" if place < self.test + self.validation else "train"


def split_off(
    source: ImageSource, share: float, by: str | None = None
) -> tuple[SelectedSource, SelectedSource]:
    """Divide the images of a source between training and validation.

    All images of one file stay together, and so do files with the same content.

    Args:
        source: all images.
        share: expected share of the images for validation, or of the names in `by`, in (0, 1).
        by: a label field; all images with the same name in it stay together. None to go by content.

    Returns:
        The training images and the validation images.

    Raises:
        DataError: if no image has the field, or one part is empty.
    """
    if by is not None:
        source.vocabulary([by])  # raises if no image has the field
    shares = Shares(1 - share, share)
    parts: dict[str, list[int]] = {name: [] for name in SPLITS}
    for index, content in enumerate(file_contents(source)):
        group = source.readable_labels(index).get(by) if by else None
        parts[shares.split_of(group or content)].append(index)
    for part, name, cure in (
        ("validation", "validation", "a larger share"),
        ("train", "training", "a smaller share"),
    ):
        if not parts[part]:
            unit = "images" if by is None else f"names of {by!r}"
            raise DataError(
                f"a share of {share:g} of the {unit} leaves no {name} images, of {len(source)} in "
                f"all; add images or take {cure}."
            )
    return SelectedSource(source, parts["train"]), SelectedSource(source, parts["validation"])


class FileGroups:
    """Keeps the images of each stack or volume in one split, though they come in any order.

    Args:
        source: all images.
    """

    def __init__(self, source: ImageSource) -> None:
        self.source = source
        self._firsts: dict[int, int] = {}  # first image of each file that holds several, by image
        self._contents: dict[int, str] = {}
        first = 0
        for index in range(len(source)):
            if source.number_in_file(index) == 0:
                first = index
            else:
                self._firsts[first] = self._firsts[index] = first

    def name_of(self, index: int) -> str:
        """A name that the images of a stack or volume share; its own for an image of its own."""
        return self.source.volume(index) or self.source.name(self._firsts.get(index, index))

    def group_of(self, index: int) -> str | None:
        """What all images of a stack or volume share; None for an image of its own."""
        if (volume := self.source.volume(index)) is not None:
            return volume
        first = self._firsts.get(index)
        if first is None:
            return None
        if first not in self._contents:
            self._contents[first] = file_content(self.source, first)
        return self._contents[first]


def file_contents(source: ImageSource) -> Iterator[str]:
    """A hash of the file of each image, in order; all images of a stack or volume have the same.

    In shards, where each slice is a file of its own, the name of the volume stands for it.
    """
    content = ""
    for index in range(len(source)):
        if (volume := source.volume(index)) is not None:
            content = volume
        elif source.number_in_file(index) == 0:  # the others of the file follow
            content = file_content(source, index)
        yield content


def file_content(source: ImageSource, index: int) -> str:
    """A hash of the file of an image; of its name if it cannot be read."""
    try:
        data = source.read(index)
    except DataError:
        data = source.name(index).encode()
    return hashlib.blake2b(data, digest_size=16).hexdigest()
