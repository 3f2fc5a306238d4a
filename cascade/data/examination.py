"""Reading every image of a source once: whether it can be decoded, its size, content and labels."""

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
    """An image file to be written: its suffix without dot, and its bytes."""

    suffix: str
    data: bytes


Encode = Callable[[Tensor, bytes], EncodedImage]


class Examined(NamedTuple):
    """What is known of one image after reading it.

    Attributes:
        name: for messages.
        key: its path within the source.
        broken: `name: reason`, or None; what follows is then empty.
        width_px: after EXIF orientation.
        height_px: likewise.
        content: sha256 of the decoded pixels and their shape.
        labels: by field.
        encoded: what an encoder made of it, if there was one.
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
        """The shorter side."""
        return min(self.width_px, self.height_px)


def examine(
    source: ImageSource,
    *,
    order: Sequence[int] | None = None,
    encode: Encode | None = None,
    workers: int = 0,
) -> Iterator[Examined]:
    """Read the images of a source one by one.

    Args:
        source: of the images.
        order: of the indices; default: the source's.
        encode: called in the workers with an image (3, H, W) in [-1, 1] and its file.
        workers: processes that read.
    """
    order = range(len(source)) if order is None else order
    yield from load_in_order(_Examination(source, encode), order, workers=workers)


class _Examination(Dataset[Examined]):
    def __init__(self, source: ImageSource, encode: Encode | None) -> None:
        self.source = source
        self.encode = encode

    def __getitem__(self, index: int) -> Examined:
        name, key = self.source.name(index), self.source.key(index)
        try:
            data = self.source.read(index)
            image = decode_image(data, name)
            labels = self.source.labels(index)
        except (DataError, MemoryError) as error:
            return Examined(name, key, broken=str(error) or f"{name}: needs too much memory.")
        height_px, width_px = image.shape[-2:]
        try:
            encoded = None if self.encode is None else self.encode(image, data)
        except DataError as error:
            return Examined(name, key, broken=f"{name}: {error}")
        return Examined(name, key, None, width_px, height_px, _content(image), labels, encoded)


def _content(image: Tensor) -> str:
    digest = hashlib.sha256(repr(tuple(image.shape)).encode())
    digest.update(to_uint8(image).numpy().tobytes())
    return digest.hexdigest()
