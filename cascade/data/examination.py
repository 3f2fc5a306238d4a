"""Reads every image of a source once, to find its size, content and labels, or what is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from cascade.data.loading import load_in_order
from cascade.data.source import ImageSource
from cascade.errors import DataError
from cascade.imaging.reading import decode_image
from cascade.imaging.writing import to_uint8


class EncodedImage(NamedTuple):
    """An image file ready to be written.

    Attributes:
        suffix: suffix of the file name, without dot.
        data: content of the file.
        losses: what of the original it does not hold, such as `16 bits are reduced to 8`.
    """

    suffix: str
    data: bytes
    losses: tuple[str, ...] = ()


Encode = Callable[[Tensor, bytes], EncodedImage]


class ExaminedImage(NamedTuple):
    """One image of a source after it was read.

    Attributes:
        name: name for messages.
        key: path within the source.
        broken: `name: reason` if the image cannot be used, and the fields below are empty.
        width_px: width in pixels after applying the EXIF orientation.
        height_px: height in pixels after applying the EXIF orientation.
        content: sha256 of the decoded pixels and their shape.
        labels: class names or captions, by field.
        encoded: result of the encoder, if there was one.
    """

    name: str
    key: str
    broken: str | None = None
    width_px: int = 0
    height_px: int = 0
    content: str = ""
    labels: dict[str, str] = {}  # noqa: RUF012  never changed
    encoded: EncodedImage | None = None

    @property
    def short_px(self) -> int:
        """Length of the shorter side."""
        return min(self.width_px, self.height_px)


def examine(
    source: ImageSource,
    *,
    order: Sequence[int] | None = None,
    encode: Encode | None = None,
    workers: int = 0,
) -> Iterator[ExaminedImage]:
    """Read the images of a source one by one.

    Args:
        source: the images.
        order: indices of the images to read; default: all, in the order of the source.
        encode: called in the workers with an image (3, H, W) in [-1, 1] and its file's content.
        workers: number of processes that read images; 0 reads in this one.
    """
    order = range(len(source)) if order is None else order
    yield from load_in_order(_Examination(source, encode), order, workers=workers)


class _Examination(Dataset[ExaminedImage]):
    def __init__(self, source: ImageSource, encode: Encode | None) -> None:
        self.source = source
        self.encode = encode

    def __getitem__(self, index: int) -> ExaminedImage:
        name, key = self.source.name(index), self.source.key(index)
        try:
            data = self.source.read(index)
            image = decode_image(data, name)
            labels = self.source.labels(index)
        except (DataError, MemoryError) as error:
            return ExaminedImage(name, key, broken=str(error) or f"{name}: needs too much memory.")
        height_px, width_px = image.shape[-2:]
        try:
            encoded = None if self.encode is None else self.encode(image, data)
        except DataError as error:
            return ExaminedImage(name, key, broken=f"{name}: {error}")
        return ExaminedImage(name, key, None, width_px, height_px, _content(image), labels, encoded)


def _content(image: Tensor) -> str:
    digest = hashlib.sha256(repr(tuple(image.shape)).encode())
    digest.update(to_uint8(image).numpy().tobytes())
    return digest.hexdigest()
