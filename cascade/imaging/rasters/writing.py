"""From images of bands to a file: the bands, the type and the place that they came with.

| ending | what it holds |
|---|---|
| `.tif`, `.tiff`, `.btf`, `.tf8` | any images; georeference, resolution, nodata, OME's sizes |
| `.npy`, `.npz` | any images, with their axes in the order in which they came |
| `.dcm`, `.dicom`, `.ima` | images from a DICOM file |
| `.nii`, `.nii.gz` | slices of a NIfTI volume |
| `.png` | one image of 1 or 3 bands of uint8 or uint16 without missing numbers |

Shapes: N images, C bands, H and W pixels.
"""

from __future__ import annotations

import gzip
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cascade.arguments import check_kind, shown
from cascade.errors import ContractError, OutputError
from cascade.imaging.metadata import Metadata
from cascade.imaging.picture import Picture
from cascade.imaging.picture_writing import write_picture
from cascade.imaging.rasters.arrays import ArrayOrigin
from cascade.imaging.rasters.dicom import DicomOrigin, head_for, to_little_endian
from cascade.imaging.rasters.dicom_mark import mark_dicom
from cascade.imaging.rasters.dicom_numbers import FRAMES, SHARED
from cascade.imaging.rasters.file_mark import FileMark
from cascade.imaging.rasters.nifti import (
    NiftiOrigin,
    bands_are_an_axis,
    is_scaled,
    slices_of,
    stored_dtype,
)
from cascade.imaging.rasters.nifti_mark import mark_nifti
from cascade.imaging.rasters.packages import imported
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.reading import suffix_of
from cascade.imaging.rasters.tiff_origin import TiffOrigin
from cascade.imaging.rasters.tiff_writing import write_ome_tiff, write_tiff
from cascade.imaging.writing import RECORD
from cascade.reporting.words import counted
from cascade.saving.atomic import atomic_file

KINDS: dict[str, str] = dict.fromkeys((".tif", ".tiff", ".btf", ".tf8"), "TIFF")
KINDS |= dict.fromkeys((".dcm", ".dicom", ".ima"), "DICOM")
KINDS |= dict.fromkeys((".nii", ".nii.gz"), "NIfTI")
KINDS |= dict.fromkeys((".npy", ".npz"), "numpy") | {".png": "PNG"}
PNG_TYPES = {"uint8": 8, "uint16": 16}


def check_raster_format(path: Path, raster: Raster, count: int = 1) -> str:
    """Check, before the work is done, that a file of this name can hold images.

    Args:
        path: the file to write; its ending names the format.
        raster: the first image, or one of 1 px of its kind; its place may be that of the input.
        count: number of images.

    Returns:
        The format.

    Raises:
        OutputError: if the ending names no format, or its format cannot hold the images.
    """
    kind = KINDS.get(suffix_of(path.name))
    if kind is None:
        raise OutputError(
            f"cannot write {path}: the ending {path.suffix!r} names no format for bands; use "
            f"{', '.join(KINDS)}."
        )
    origin = None if raster.origin is None else raster.origin.format
    if kind in ("DICOM", "NIfTI") and origin != kind:
        raise OutputError(
            f"cannot write {path}: {kind} is written for images that come from it and "
            "keep their bands and range; write TIFF."
        )
    if isinstance(raster.origin, NiftiOrigin) and kind == "NIfTI":
        bands = raster.origin.bands
        if raster.bands != bands:
            raise OutputError(
                f"cannot write {path}: each slice of the volume has {counted(bands, 'band')}, but "
                f"its result has {raster.bands}; write TIFF."
            )
    if kind == "PNG" and (
        raster.bands not in (1, 3)
        or str(raster.values.dtype) not in PNG_TYPES
        or count > 1
        or raster.missing is not None
    ):
        raise OutputError(
            f"cannot write {path}: PNG holds one image of 1 or 3 bands of uint8 or uint16 "
            "without missing values; write TIFF."
        )
    return kind


def write_rasters(
    path: str | Path,
    rasters: Iterable[Raster],
    count: int = 1,
    *,
    description: str | None = None,
    mark: FileMark | None = None,
) -> None:
    """Write images of one size to a file, which appears under its name when it is complete.

    Args:
        path: the file; its ending names the format.
        rasters: the images, at least one, which are taken one at a time.
        count: how many these are.
        description: ASCII that says what the numbers are. TIFF alone has a place for it, unless it
            is OME-TIFF, where OME's own XML is.
        mark: how a trained model made them; None to say nothing, also of an earlier mark of
            Cascade in the file that they come from. `.npy` has no place for it.

    Raises:
        ContractError: if `rasters` is a single image, or has no images or other things.
        OutputError: if the format cannot hold the images, they are not as many as `count` in an
            array, or the file cannot be written.
    """
    if isinstance(rasters, Raster) or not isinstance(rasters, Iterable):
        raise ContractError(f"rasters must be a list of Rasters, got {shown(rasters)}.")
    path, rasters = Path(path), map(_checked, rasters)
    first = next(rasters, None)
    if first is None:
        raise ContractError("rasters must hold at least one Raster, got none.")
    kind = check_raster_format(path, first, count)
    every = itertools.chain([first], rasters)
    if kind == "PNG":
        values = torch.from_numpy(first.values)
        bits = 8 if first.values.dtype == np.uint8 else 16
        kept = Metadata(xmp=None if mark is None else mark.packet)
        picture = Picture(colour=values, bits=bits, metadata=kept)
        write_picture(picture, path, settings=None if mark is None else mark.settings)
        return
    with atomic_file(path) as temporary:
        if kind == "TIFF":
            is_ome = isinstance(first.origin, TiffOrigin) and first.origin.ome is not None
            with temporary.open("wb") as file:
                size_bytes = first.values.nbytes * count
                if is_ome:
                    write_ome_tiff(file, every, size_bytes, count, mark=mark)
                else:
                    write_tiff(file, every, size_bytes, description=description, mark=mark)
        elif kind == "numpy":
            array = _array_of(first, every, count)
            texts: dict[str, Any] = {} if mark is None else {RECORD: mark.text}
            with temporary.open("wb") as file:
                if suffix_of(path.name) == ".npz":
                    np.savez_compressed(file, image=array, **texts)
                else:
                    np.save(file, array)
        elif kind == "NIfTI":
            volume = _volume(first, every, count, path, mark)
            _save_nifti(volume, temporary, packed=suffix_of(path.name) == ".nii.gz")
        else:
            temporary.write_bytes(_dicom(every, path, mark))


def _checked(raster: Any) -> Raster:
    check_kind("each of rasters", raster, Raster, "a Raster")
    return raster


def _array_of(first: Raster, rasters: Iterator[Raster], count: int) -> np.ndarray:
    """An array with the axes in the order of the file that the images came from."""
    origin = first.origin if isinstance(first.origin, ArrayOrigin) else None
    dimensions = 3 if origin is None else len(origin.shape)
    dimensions = max(dimensions, 4) if count > 1 and first.bands > 1 else dimensions
    bands_last = origin is not None and origin.bands_last
    shape = (*first.size, first.bands) if bands_last else first.values.shape
    array, number = np.empty((count, *shape), first.values.dtype), -1
    for number, raster in enumerate(itertools.islice(rasters, count)):
        _check_alike(raster, first)
        array[number] = np.moveaxis(raster.values, 0, -1) if bands_last else raster.values
    if number + 1 != count or next(rasters, None) is not None:
        came = "fewer" if number + 1 < count else "more"
        raise OutputError(f"count says {counted(count, 'image')}, but {came} came; correct count.")
    has_no_axis_of_bands = dimensions == 2 or (dimensions == 3 and count > 1)
    if has_no_axis_of_bands and first.bands == 1:
        array = array[..., 0] if bands_last else array[:, 0]
    return array[0] if count == 1 and dimensions < 4 else array


def _check_alike(raster: Raster, first: Raster) -> None:
    """Check that an image fits into one array with the first one.

    Raises:
        OutputError: if its type or its shape differs.
    """
    both = [f"{each.values.shape} of {each.values.dtype}" for each in (first, raster)]
    if both[0] != both[1]:
        raise OutputError(
            f"an array holds images of one shape and one type, got {both[0]} and {both[1]}; write "
            "TIFF."
        )


def _dicom(rasters: Iterator[Raster], path: Path, mark: FileMark | None) -> bytes:
    """A DICOM file with the data set that the images came with, uncompressed."""
    name = str(path)
    pixels = imported("pydicom.pixels", "DICOM", name)
    uids = imported("pydicom.uid", "DICOM", name)
    frames, origins = [], []
    for raster in rasters:
        origin = raster.origin
        assert isinstance(origin, DicomOrigin)
        origins.append(origin)
        kind = "i" if origin.numbers.signed else "u"
        dtype = np.dtype(f"{kind}{origin.head.BitsAllocated // 8}")
        if raster.bands == 1:
            frames.append(origin.numbers.stored(raster.values[0], dtype))
        else:
            frames.append(np.moveaxis(raster.values, 0, -1).astype(dtype))
    dataset = head_for(origins)
    to_little_endian(dataset)
    meaning = dataset.PhotometricInterpretation if frames[0].ndim == 2 else "RGB"
    dataset.file_meta.TransferSyntaxUID = uids.ExplicitVRLittleEndian
    for key in ("SmallestImagePixelValue", "LargestImagePixelValue", "NumberOfFrames"):
        dataset.pop(key, None)
    is_enhanced = FRAMES in dataset or SHARED in dataset
    stacked = np.stack(frames) if len(frames) > 1 else frames[0]
    pixels.set_pixel_data(dataset, np.ascontiguousarray(stacked), meaning, dataset.BitsStored)
    if is_enhanced:
        dataset.NumberOfFrames = len(frames)
    if series := dataset.get("SeriesInstanceUID"):  # the same for all results of one series
        entropy = [str(series), f"{dataset.Rows} x {dataset.Columns}"]
        dataset.SeriesInstanceUID = uids.generate_uid(entropy_srcs=entropy)
    kinds = list(dataset.get("ImageType", ["", "SECONDARY"]))
    dataset.ImageType = ["DERIVED", *kinds[1:]]
    mark_dicom(dataset, mark, name)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _volume(
    first: Raster, rasters: Iterator[Raster], count: int, path: Path, mark: FileMark | None
) -> Any:
    """Put a volume together from its slices: a nibabel image."""
    origin = first.origin
    assert isinstance(origin, NiftiOrigin)
    image, axis = origin.image, origin.layout.axis
    places = slices_of(image, origin.layout, str(path))
    shape = [*image.shape, *(1,) * (3 - len(image.shape))]
    inner = [each for each in range(3) if each != axis]
    shape[inner[0]], shape[inner[1]] = first.size[::-1]
    if count < len(places):  # the first slices alone
        shape[axis] = count
        if not bands_are_an_axis(image, origin.layout):
            shape[3:] = [1] * len(shape[3:])
    dtype: np.dtype = stored_dtype(image) if origin.dtype is None else origin.dtype
    volume = np.zeros(shape, dtype)
    for place, raster in zip(places, rasters, strict=False):
        values = raster.values.transpose(2, 1, 0)  # (X, Y, C)
        if origin.dtype is None:
            values = _stored_slice(values, image)
        volume[place] = values.reshape(volume[place].shape)
    result = type(image)(volume, origin.affine, header=image.header)
    result.set_data_dtype(volume.dtype)
    for get, put in (("get_qform", "set_qform"), ("get_sform", "set_sform")):
        code = getattr(image, get)(coded=True)[1]
        getattr(result, put)(origin.affine, code=int(code))
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    has_slope = is_scaled(image) and origin.dtype is None
    result.header.set_slope_inter(*((slope, intercept) if has_slope else (1.0, 0.0)))
    mark_nifti(result.header, mark, str(path))
    return result


def _save_nifti(image: Any, path: Path, *, packed: bool) -> None:
    with path.open("wb") as file:
        if not packed:
            image.to_stream(file)
            return
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream:  # equal results, equal bytes
            image.to_stream(stream)


def _stored_slice(values: np.ndarray, image: Any) -> np.ndarray:
    """The stored numbers of a slice, before the slope and the intercept of its volume."""
    dtype = stored_dtype(image)
    if is_scaled(image):
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
        values = (values.astype(np.float64) - intercept) / slope
        if dtype.kind in "ui":
            ends = np.iinfo(dtype)
            values = np.rint(np.nan_to_num(values)).clip(ends.min, ends.max)
    return values.astype(dtype)
