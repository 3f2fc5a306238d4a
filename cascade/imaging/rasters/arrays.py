"""`.npy` and `.npz` files of numpy. Nothing is unpickled."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from typing import BinaryIO, final

import numpy as np

from cascade.errors import DataError
from cascade.imaging.opening import readable
from cascade.imaging.rasters.layout import Layout, divided
from cascade.imaging.rasters.origin import Origin
from cascade.imaging.rasters.raster import Raster

NPY_HEAD, NPZ_HEAD = b"\x93NUMPY", b"PK\x03\x04"
HEAD_BYTES = 2**16  # in which the head of an array ends
MAX_BYTES = 4 * 2**30  # of the numbers of a file
PREFERRED = "image"  # the array of several in a file


@final
@dataclass(frozen=True, kw_only=True)
class ArrayOrigin(Origin):
    """How the axes of an array were ordered.

    Attributes:
        shape: of the array.
        bands_last: whether an image is (H, W, C), or (H, W) for one band, rather than (C, H, W).
    """

    shape: tuple[int, ...]
    bands_last: bool

    format = "numpy"

    def scaled(self, factor_y: float, factor_x: float) -> ArrayOrigin:
        return self

    def for_floats(self) -> ArrayOrigin:
        return self


def decode_array(data: bytes, name: str, number: int, layout: Layout) -> Raster:
    """Decode an image of a file.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.
        number: which image, counted from 0.
        layout: how the file is divided into images.

    Raises:
        DataError: if it is damaged, holds objects or several arrays, or has no such image.
    """
    array = _array(data, name)
    images, shape = divided(array, layout, name), array.shape
    if not 0 <= number < len(images):
        raise DataError(f"{name}: has {len(images)} images; there is no image {number + 1}.")
    values = np.ascontiguousarray(images[number])
    origin = ArrayOrigin(shape=shape, bands_last=images.shape[1:] != shape[-3:])
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    return Raster(values=values, origin=origin)


def count_arrays(file: BinaryIO, name: str, layout: Layout) -> int:
    """Count the images of an open file; see `decode_array`."""
    head = file.read(HEAD_BYTES)
    file.seek(0)
    data = head if head.startswith(NPY_HEAD) else _member(file.read(), name)
    shape = _header(data, name)[0]
    return len(divided(np.broadcast_to(np.uint8(0), shape), layout, name))


def _array(data: bytes, name: str) -> np.ndarray:
    member = _member(data, name)
    shape, dtype = _header(member, name)
    if dtype.hasobject:
        raise DataError(f"{name}: holds Python objects, which are not read; save plain numbers.")
    with readable(name):
        array = np.load(io.BytesIO(member), allow_pickle=False)
    assert array.shape == shape
    return array


def _header(member: bytes, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and the type of an array."""
    with readable(name):
        file = io.BytesIO(member)
        version = np.lib.format.read_magic(file)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, _, dtype = read[version[0]](file)
    if math.prod(shape) * max(1, dtype.itemsize) > MAX_BYTES:
        raise DataError(f"{name}: has more than {MAX_BYTES // 2**30} GiB of numbers; split it.")
    return shape, dtype


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
            raise DataError(f"{name}: has more than {MAX_BYTES // 2**30} GiB of numbers; split it.")
        return archive.read(member)
