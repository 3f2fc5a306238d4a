"""A torch data set of tensors as a source of training images.

Shapes: C channels, H and W pixels.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from cascade.contract import Contract
from cascade.data.annotations import texts_of
from cascade.data.source import ImageSource
from cascade.errors import DataError
from cascade.space import Space

FIRST_IMAGES = 8  # that are checked before training begins
HASHED_IMAGES = 32  # at most, from which a data set is recognised
TOLERANCE = 1e-3  # for values a little outside of [-1, 1], as resizing leaves them
ITEM_KEYS = ("image", "labels")
FORMS = 'an image, (image, label), or {"image": …, "labels": …}'
logger = logging.getLogger(__name__)


class TensorDataset(Protocol):
    """A map-style data set, such as `torch.utils.data.Dataset` with a length, or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class TensorItem(NamedTuple):
    """One item of a data set.

    Attributes:
        image: (C, H, W) float32 in [-1, 1].
        labels: class names or other text, by field.
    """

    image: Tensor
    labels: dict[str, str]


class TensorSource(ImageSource):
    """A data set of tensors (C, H, W) in [-1, 1], with or without labels.

    An item is an image, a pair (image, label), or a dictionary with the keys `image` and `labels`.
    A label is a class name or the index of one in the stage, -1 for "any"; for a stage that takes
    text, it is a caption or a list of captions. A stage with several label fields takes a
    dictionary of them. The data set must answer an index with the same item every time, because a
    resumed run repeats what it read.

    Args:
        dataset: the data set.
        contract: contract of the stage in training, which has the channels and the class names.

    Raises:
        DataError: if it is empty or has no positions, or one of its first items does not fit.
    """

    check_words = ()

    def __init__(self, dataset: TensorDataset, contract: Contract) -> None:
        _check_positions(dataset)
        self.dataset = dataset
        self._space = contract.space
        self._classes = {
            field: names for each in contract.conditions for field, names in each.classes.items()
        }
        self._fields = [f for each in contract.conditions for f in each.annotation_fields]
        self._last: tuple[int, TensorItem] | None = None
        self._labels: dict[int, dict[str, str]] = {}
        self._check_first()

    def __len__(self) -> int:
        return len(self.dataset)

    def key(self, index: int) -> str:
        return f"{index:09d}"

    def name(self, index: int) -> str:
        return f"{type(self.dataset).__name__}[{index}]"

    def read(self, index: int) -> bytes:
        raise DataError(f"{self.name(index)}: is a tensor, which has no image file.")

    def image(self, index: int) -> Tensor:
        """One image, (C, H, W) float32 in [-1, 1].

        Raises:
            DataError: if the item does not fit.
        """
        return self._item(index).image

    def labels(self, index: int) -> dict[str, str]:
        if index not in self._labels:  # they are part of the item, which takes time to make
            self._labels[index] = self._item(index).labels
        return dict(self._labels[index])

    def contents_digest(self) -> str:
        """A hash of up to 32 items, spread over the data set, with their labels.

        Items have no names by which to tell one data set from another of the same length. The hash
        is empty, with a warning, if any of the items differs from one reading to the next.
        """
        digests = self._digests()
        if self._digests() != digests:
            logger.warning(
                "the data set does not always answer an index with the same item, so that a "
                "resumed run is not exact; draw its augmentation from the index, or leave it to "
                "Cascade."
            )
            return ""
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def _digests(self) -> list[str]:
        """Hashes of some items, all of which are made anew."""
        self._last = None
        return [self._digest(index) for index in _spread(len(self), HASHED_IMAGES)]

    def _digest(self, index: int) -> str:
        item = self._item(index)
        digest = hashlib.sha256(item.image.contiguous().numpy().tobytes())
        digest.update(json.dumps([item.image.shape, item.labels], sort_keys=True).encode())
        return digest.hexdigest()

    def _item(self, index: int) -> TensorItem:
        """Make an item, or repeat the last one: its image and labels are asked for in turn."""
        if self._last is None or self._last[0] != index:
            image, label = _parts(self.dataset[index], self.name(index))
            checked = _checked(image, self._space, self.name(index))
            self._last = index, TensorItem(checked, self._named(label, self.name(index)))
        return self._last[1]

    def _named(self, label: Any, name: str) -> dict[str, str]:
        """Class names or other text, by field."""
        if not isinstance(label, Mapping):
            if label is None or not self._fields:
                return {}
            if len(self._fields) > 1:
                raise DataError(
                    f"{name}: has one label, but the stage has the fields "
                    f"{', '.join(self._fields)}; give a dictionary of them as its labels."
                )
            label = {self._fields[0]: label}
        texts = {
            field: texts_of({field: value}).get(field, value) for field, value in label.items()
        }
        texts = {
            field: _class_name(value, self._classes.get(field), f"{name}: label {field!r}")
            for field, value in texts.items()
        }
        return {field: text for field, text in texts.items() if text is not None}

    def _check_first(self) -> None:
        indices = _spread(len(self), FIRST_IMAGES)
        count = len(indices)
        lowest, fields = math.inf, set()
        for index in indices:
            lowest = min(lowest, float(self.image(index).min()))
            fields.update(self.labels(index))
        if lowest >= 0 and self._space.is_bounded:
            logger.warning(
                "no value in %s of the data set's images is below 0; images must fill [-1, 1], so "
                "convert them from [0, 1] by image * 2 - 1.",
                count,
            )
        others = f", but {', '.join(sorted(fields))}" if fields else ""
        for field in self._fields:
            if field not in fields:
                effect = "train as 'any'" if field in self._classes else "train without it"
                text = "none of %s items of the data set has the label %s%s; they %s."
                logger.warning(text, count, field, others, effect)


def as_source(images: ImageSource | TensorDataset, contract: Contract) -> ImageSource:
    """Return a source unchanged, and make one of a data set of tensors."""
    return images if isinstance(images, ImageSource) else TensorSource(images, contract)


def _spread(length: int, most: int) -> list[int]:
    """At most so many indices, evenly spread."""
    count = min(most, length)
    return [place * length // count for place in range(count)]


def _check_positions(dataset: Any) -> None:
    """Check that a data set has items at positions, so that a run can resume at one."""
    kind = type(dataset).__name__
    if isinstance(dataset, str | PathLike):
        raise DataError(f"got a path; open it first: open_source({str(dataset)!r}).")
    if isinstance(dataset, DataLoader):
        raise DataError(
            "got a DataLoader, but batches are made here; give its data set (loader.dataset)."
        )
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"{kind} can only be iterated over, so that a run could not resume at an item; give a "
            "Dataset with __len__ and __getitem__, such as list(dataset) if it fits in memory."
        )
    if not hasattr(dataset, "__len__"):
        raise DataError(f"{kind} has no length; give a Dataset with __len__ and __getitem__.")
    if not len(dataset):
        raise DataError(f"{kind} is empty; give a Dataset with at least one image.")


def _parts(item: Any, name: str) -> tuple[Any, Any]:
    """The image and the label of an item."""
    if isinstance(item, Mapping):
        if "image" not in item or not set(item) <= set(ITEM_KEYS):
            keys = ", ".join(map(repr, item)) or "no keys"
            raise DataError(f"{name}: has {keys}; an item must be {FORMS}.")
        return item["image"], item.get("labels")
    if isinstance(item, tuple | list):
        if len(item) not in (1, 2):
            raise DataError(f"{name}: has {len(item)} parts; an item must be {FORMS}.")
        return item[0], item[1] if len(item) == 2 else None
    return item, None


def _checked(image: Any, space: Space, name: str) -> Tensor:
    """The image as float32, if it is (C, H, W), and in [-1, 1] for pixels."""
    channels = space.channels
    if not isinstance(image, Tensor):
        raise DataError(
            f"{name}: the image must be a tensor ({channels}, H, W) in [-1, 1], got "
            f"{type(image).__name__}; convert it in the data set."
        )
    if image.ndim != 3 or image.shape[0] != channels:
        last = image.ndim == 3 and image.shape[-1] == channels
        advice = "move the channels first: image.permute(2, 0, 1)" if last else "change its shape"
        raise DataError(
            f"{name}: the image must be ({channels}, H, W), got {tuple(image.shape)}; {advice}."
        )
    if not image.dtype.is_floating_point:
        advice = "image / 127.5 - 1" if image.dtype == torch.uint8 else "image.float()"
        raise DataError(
            f"{name}: the image must hold floating-point numbers in [-1, 1], got {image.dtype}; "
            f"convert it, such as by {advice}."
        )
    return _in_range(image.detach().to("cpu", torch.float32), name, is_bounded=space.is_bounded)


def _in_range(image: Tensor, name: str, *, is_bounded: bool) -> Tensor:
    if not image.isfinite().all():
        raise DataError(f"{name}: the image has values that are not finite; replace them.")
    low, high = float(image.min()), float(image.max())
    if is_bounded and (low < -1 - TOLERANCE or high > 1 + TOLERANCE):
        raise DataError(
            f"{name}: the image has values from {low:g} to {high:g}, expected [-1, 1]; scale them "
            "with the same numbers for all images, such as by image / 127.5 - 1 for 0 to 255."
        )
    return image


def _class_name(value: Any, names: Sequence[str] | None, name: str) -> str | None:
    """The text of a label, or None for "any" and for numbers in fields that the stage lacks."""
    if value is None or isinstance(value, str):
        return value
    number = value.item() if hasattr(value, "item") and _has_one_element(value) else value
    if isinstance(number, bool) or not isinstance(number, int):
        raise DataError(
            f"{name} must be a class name or the index of one, got {type(value).__name__}."
        )
    if names is None or number == -1:
        return None
    if not -1 < number < len(names):
        raise DataError(f"{name} must be from -1 to {len(names) - 1}, got {number}.")
    return names[number]


def _has_one_element(value: Any) -> bool:
    """Whether a tensor, an array or a number of NumPy holds a single number."""
    return value.numel() == 1 if isinstance(value, Tensor) else getattr(value, "size", 0) == 1
