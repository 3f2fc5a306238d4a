"""Reads every image of a source once, to find its size, content and labels, or what is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cascade.data.band_decoding import BandDecoding
from cascade.data.contents import BandValues, ImageValues
from cascade.data.fitting import KnownCheck
from cascade.data.loading import load_in_order
from cascade.data.overlap import thumbnail
from cascade.data.pair_report import ExaminedPair, PairCheck, comparable, examine_pair
from cascade.data.preparation import Decoding
from cascade.data.source import ImageSource
from cascade.errors import DataError
from cascade.imaging.pages import Pages
from cascade.imaging.picture_reading import FileFacts, file_facts
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.reading import raster_format
from cascade.imaging.writing import from_uint8, to_uint8


class EncodedImage(NamedTuple):
    """An image file ready to be written.

    Attributes:
        suffix: suffix of the file name, without dot.
        data: content of the file.
        losses: what of the original it does not hold, such as `16 bits are reduced to 8`.
        missing: share of its numbers that are NaN or nodata, in [0, 1].
    """

    suffix: str
    data: bytes
    losses: tuple[str, ...] = ()
    missing: float = 0.0


Encode = Callable[[Any, bytes], EncodedImage]


class ExaminedImage(NamedTuple):
    """One image of a source after it was read.

    Attributes:
        name: name for messages.
        key: path within the source.
        broken: `name: reason` if the image cannot be used, and the fields below are empty.
        width_px: width in pixels after applying the EXIF orientation.
        height_px: height in pixels after applying the EXIF orientation.
        content: sha256 of the decoded pixels and their shape; empty without a digest.
        labels: class names or captions, by field.
        facts: how the file stores its pixels; None if the image is broken.
        values: which numbers it uses; None if the image is broken.
        encoded: result of the encoder, if there was one.
        pair: the pair that it belongs to; None without a check of pairs.
        thumbnail: see `Look`; None without a digest, and for bands.
    """

    name: str
    key: str
    broken: str | None = None
    width_px: int = 0
    height_px: int = 0
    content: str = ""
    labels: dict[str, str] = {}  # noqa: RUF012  never changed
    facts: FileFacts | None = None
    values: ImageValues | BandValues | None = None
    encoded: EncodedImage | None = None
    pair: ExaminedPair | None = None
    thumbnail: Tensor | None = None

    @property
    def whole_content(self) -> str:
        """The content of the image, and of its input if it has one, to find duplicates."""
        return self.content if self.pair is None else f"{self.content} {self.pair.content}"

    @property
    def short_px(self) -> int:
        """Length of the shorter side."""
        return min(self.width_px, self.height_px)


def examine(
    source: ImageSource,
    *,
    order: Sequence[int] | None = None,
    encode: Encode | None = None,
    decoding: Decoding | BandDecoding | None = None,
    digest: bool = True,
    pairs: PairCheck | None = None,
    known: KnownCheck | None = None,
    all_pages: bool = False,
    workers: int = 0,
) -> Iterator[ExaminedImage]:
    """Read the images of a source one by one.

    Args:
        source: the images.
        order: indices of the images to read; default: all, in the order of the source.
        encode: called in the workers with an image (3, H, W) in [-1, 1] and its file's content; or
            with a `Raster` if files are read as bands.
        decoding: how files become images; default: by all their numbers, truncated ones refused.
        digest: whether to compute `ExaminedImage.content`.
        pairs: for images with partners, what is expected of the pairs; None to read no partners.
        known: for bands, what images with missing values must keep when they are resized; None to
            resize none.
        all_pages: whether to read the pages and frames behind the first too, which are not used.
        workers: number of processes that read images; 0 reads in this one.
    """
    order = range(len(source)) if order is None else order
    examination = _Examination(
        source,
        encode,
        decoding or Decoding(),
        digest=digest,
        pairs=pairs,
        known=known,
        all_pages=all_pages,
    )
    yield from load_in_order(examination, order, workers=workers)


class _Examination(Dataset[ExaminedImage]):
    def __init__(
        self,
        source: ImageSource,
        encode: Encode | None,
        decoding: Decoding | BandDecoding,
        *,
        digest: bool,
        pairs: PairCheck | None,
        known: KnownCheck | None,
        all_pages: bool,
    ) -> None:
        self.source = source
        self.encode = encode
        self.decoding = decoding
        self.digest = digest
        self.pairs = None if source.partners is None else pairs
        self.known = known
        self.all_pages = all_pages

    def __getitem__(self, index: int) -> ExaminedImage:
        name = self.source.name(index)
        try:
            return self._examined(index, name)
        except (DataError, MemoryError) as error:
            reason = str(error) or f"{name}: needs too much memory."
            return ExaminedImage(name, self.source.key(index), broken=reason)

    def _examined(self, index: int, name: str) -> ExaminedImage:
        if isinstance(self.decoding, BandDecoding):
            return self._examined_bands(index, name, self.decoding)
        data = self.source.read(index)
        picture = self.decoding.picture(data, name)
        self.decoding.check(picture, name)
        height_px, width_px = picture.size
        facts = file_facts(data, name)
        damage = _damaged_page(data, name) if self.all_pages and facts.pages > 1 else ""
        examined = ExaminedImage(
            name,
            self.source.key(index),
            width_px=width_px,
            height_px=height_px,
            labels=self.source.labels(index),
            facts=facts,
            values=ImageValues.of(picture, self.decoding.range, damaged_page=damage),
        )
        if self.encode is None and not self.digest and self.pairs is None:
            return examined
        image = self.decoding.image(picture, name)
        encoded = self._encoded(image, data, name)
        examined = examined._replace(encoded=encoded, pair=self._pair(index, lambda: image))
        if not self.digest:
            return examined
        return examined._replace(content=_content(image), thumbnail=thumbnail(image))

    def _examined_bands(self, index: int, name: str, decoding: BandDecoding) -> ExaminedImage:
        data = self.source.read(index)
        raster = decoding.raster(data, name, self.source.number_in_file(index))
        decoding.check(raster, name)
        if self.known is not None and (missing := raster.missing) is not None:
            self.known.check(torch.from_numpy(~missing), name)
        height_px, width_px = raster.size
        dtype, kind = raster.values.dtype, raster_format(data, name)
        return ExaminedImage(
            name,
            self.source.key(index),
            width_px=width_px,
            height_px=height_px,
            content=_digest_of_bands(raster) if self.digest else "",
            labels=self.source.labels(index),
            facts=FileFacts(
                format=kind,
                kind=str(dtype),
                bits=8 * dtype.itemsize,
                channels=raster.bands,
                pages=1,
            ),
            values=BandValues.of(raster, decoding.space),
            encoded=self._encoded(raster, data, name),
            pair=self._pair(index, lambda: comparable(raster, decoding)),
        )

    def _pair(self, index: int, image: Callable[[], Tensor]) -> ExaminedPair | None:
        if self.pairs is None:
            return None
        return examine_pair(self.source, index, image(), self.pairs, digest=self.digest)

    def _encoded(self, image: Tensor | Raster, data: bytes, name: str) -> EncodedImage | None:
        try:
            return None if self.encode is None else self.encode(image, data)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error


def _damaged_page(data: bytes, name: str) -> str:
    """Which page or frame of a file cannot be read, and why; empty if all can."""
    try:
        Pages(data, name)
    except DataError as error:
        return str(error)
    return ""


def _digest_of_bands(raster: Raster) -> str:
    digest = hashlib.sha256(f"{raster.values.shape} {raster.values.dtype}".encode())
    digest.update(np.ascontiguousarray(raster.values).tobytes())
    return digest.hexdigest()


def _content(image: Tensor) -> str:
    digest = hashlib.sha256(repr(tuple(image.shape)).encode())
    small = to_uint8(image)
    is_whole = from_uint8(small).equal(image)  # else two dark images of 16 bits might look the same
    digest.update((small if is_whole else image).numpy().tobytes())
    return digest.hexdigest()
