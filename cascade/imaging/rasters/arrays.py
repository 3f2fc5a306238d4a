"""`.npy` and `.npz` files of numpy. Nothing is unpickled."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO, final

import numpy as np
from numpy.typing import DTypeLike

from cascade.errors import DataError
from cascade.imaging.opening import readable
from cascade.imaging.rasters.file_mark import ReadMark, read_text
from cascade.imaging.rasters.layout import Layout, divided
from cascade.imaging.rasters.origin import Origin
from cascade.imaging.rasters.raster import Raster, check_dtype
from cascade.imaging.rasters.raster_file import MAX_BYTES, RasterFile, too_large
from cascade.imaging.writing import RECORD

NPY_HEAD, NPZ_HEAD = b"\x93NUMPY", b"PK\x03\x04"
HEAD_BYTES = 2**16  # in which the head of an array ends
PREFERRED = "image"  # the array of several in a file
MARK_MEMBER, MOST_MARK_BYTES = f"{RECORD}.npy", 2**20


@final
@dataclass(frozen=True, kw_only=True)
class ArrayOrigin(Origin):
    """How the axes of an array were ordered.

    Attributes:
        shape: of the array.
        bands_last: whether an image is (H, W, C), or (H, W) for one band, rather than (C, H, W).
        is_generated: whether the file says that a model drew it from noise.
    """

    shape: tuple[int, ...]
    bands_last: bool
    is_generated: bool = False

    format = "numpy"

    def scaled(self, factor_y: float, factor_x: float) -> ArrayOrigin:
        return self

    def for_numbers(self, dtype: DTypeLike, *, same_bands: bool = True) -> ArrayOrigin:
        return self


@final
class ArrayFile(RasterFile):
    """An opened `.npy` or `.npz`.

    Args:
        file: open at its start.
        name: the file's name, for error messages.
        layout: how the file is divided into images.

    Raises:
        DataError: if it is damaged, or holds several arrays.
    """

    def __init__(self, file: BinaryIO, name: str, layout: Layout) -> None:
        super().__init__(name)
        self._file, self._layout = file, layout
        head = file.read(HEAD_BYTES)
        file.seek(0)
        self._is_generated = False
        if not head.startswith(NPY_HEAD):
            data = file.read()
            self._is_generated = read_npz_mark(data, name).is_generated
            head = _member(data, name)
        shape = _shape(head, name)
        self._count = len(divided(np.broadcast_to(np.uint8(0), shape), layout, name))

    def __len__(self) -> int:
        return self._count

    @cached_property
    def _array(self) -> np.ndarray:
        self._file.seek(0)
        return _array(self._file.read(), self.name)

    def decoded(self, number: int) -> Raster:
        array = self._array
        images = divided(array, self._layout, self.name)
        values = np.ascontiguousarray(images[number])
        origin = ArrayOrigin(
            shape=array.shape,
            bands_last=images.shape[1:] != array.shape[-3:],
            is_generated=self._is_generated,
        )
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        return Raster(values=values, origin=origin)


def read_npz_mark(data: bytes, name: str) -> ReadMark:
    """Read the mark in a `.npz`, a text of its own beside the array of the image.

    Raises:
        DataError: if the archive is damaged.
    """
    with readable(name), zipfile.ZipFile(io.BytesIO(data)) as archive:
        if MARK_MEMBER not in archive.namelist():
            return ReadMark({}, {})
        if archive.getinfo(MARK_MEMBER).file_size > MOST_MARK_BYTES:
            return ReadMark({}, {})
        member = archive.read(MARK_MEMBER)
    try:
        text = np.load(io.BytesIO(member), allow_pickle=False)
    except (ValueError, EOFError):  # an array of somebody else
        return ReadMark({}, {})
    return read_text(str(text))


def _array(data: bytes, name: str) -> np.ndarray:
    member = _member(data, name)
    shape = _shape(member, name)
    with readable(name):
        array = np.load(io.BytesIO(member), allow_pickle=False)
    assert array.shape == shape
    return array


def _shape(member: bytes, name: str) -> tuple[int, ...]:
    """The shape of an array of numbers, by its head."""
    with readable(name):
        file = io.BytesIO(member)
        version = np.lib.format.read_magic(file)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, _, dtype = read[version[0]](file)
    if dtype.hasobject:
        raise DataError(f"{name}: holds Python objects, which are not read; save plain values.")
    check_dtype(dtype.newbyteorder("="), name)
    if math.prod(shape) * max(1, dtype.itemsize) > MAX_BYTES:
        raise too_large(name)
    return shape


def _member(data: bytes, name: str) -> bytes:
    """The bytes of the array as `.npy`, whether it lies in an archive or not."""
    if data.startswith(NPY_HEAD):
        return data
    with readable(name), zipfile.ZipFile(io.BytesIO(data)) as archive:
        arrays = {each.filename.removesuffix(".npy"): each for each in archive.infolist()}
        if len(arrays) > 1 and PREFERRED not in arrays:
            raise DataError(
                f"{name}: holds the arrays {', '.join(arrays)}; save one, or call it {PREFERRED!r}."
            )
        member = arrays[PREFERRED] if PREFERRED in arrays else next(iter(arrays.values()))
        if member.file_size > MAX_BYTES:
            raise too_large(name)
        return archive.read(member)
