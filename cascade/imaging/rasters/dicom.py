"""DICOM files as images of bands, by pydicom.

- The numbers are those that the slope and the intercept stand for, such as Hounsfield units. Those
  of a frame come before those of all frames, and these before those of the file. Lookup tables are
  refused.
- Their type follows from the head of the file: the stored one without slope and intercept; int16 if
  both are whole and every number that the stored bits can hold fits; else float32.
- MONOCHROME1, in which the lowest number is white, is inverted.
- Pixels with the padding value, or up to its limit, are missing.
- Every frame is an image. Colour is RGB; palettes are refused.

Shapes: C bands, H and W pixels.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, BinaryIO, final

import numpy as np
from numpy.typing import DTypeLike

from cascade.errors import DataError
from cascade.imaging import opening
from cascade.imaging.rasters.dicom_mark import read_dicom_mark
from cascade.imaging.rasters.dicom_numbers import (
    FRAMES,
    StoredNumbers,
    functional_item,
    measured_dtype,
)
from cascade.imaging.rasters.origin import Origin
from cascade.imaging.rasters.packages import imported, silenced
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.raster_file import RasterFile, SeriesPlace
from cascade.imaging.rasters.tiff_origin import CENTIMETRES, TiffOrigin
from cascade.reporting.words import counted

MARK, MARK_AT = b"DICM", 128
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
MEASURES, ORIENTATION = "PixelMeasuresSequence", "PlaneOrientationSequence"
POSITION = "PlanePositionSequence"
WORD_BYTES = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}  # of values that pydicom keeps as bytes


@final
@dataclass(frozen=True, kw_only=True)
class DicomOrigin(Origin):
    """The frame of a DICOM file that an image comes from.

    Attributes:
        head: a `pydicom.Dataset` without pixels.
        frame: which frame it is, counted from 0.
        factors: by which the height and the width of a frame have grown.
        is_generated: whether the file says that a model drew it from noise.
    """

    head: Any
    frame: int = 0
    factors: tuple[float, float] = (1.0, 1.0)
    is_generated: bool = False

    format = "DICOM"

    def scaled(self, factor_y: float, factor_x: float) -> DicomOrigin:
        rows, columns = self.factors
        return replace(self, factors=(rows * factor_y, columns * factor_x))

    @property
    def numbers(self) -> StoredNumbers:
        """What the stored numbers of the frame stand for."""
        return StoredNumbers.of(self.head, self.frame)

    def for_numbers(self, dtype: DTypeLike, *, same_bands: bool = True) -> TiffOrigin:
        """The size of the pixels, for a TIFF: the head of the file describes its own numbers."""
        part = functional_item(self.head, self.frame, MEASURES) or self.head
        spacing = next((part.get(key) for key in SPACINGS if part.get(key)), None)
        if spacing is None:
            return TiffOrigin(tags={}, is_generated=self.is_generated)
        rows, columns = (float(mm) / f for mm, f in zip(spacing, self.factors, strict=True))
        resolution = 10 / columns, 10 / rows
        return TiffOrigin(
            tags={},
            resolution=resolution,
            resolution_unit=CENTIMETRES,
            is_generated=self.is_generated,
        )


def to_little_endian(dataset: Any) -> None:
    """Make the elements of a big-endian data set ready for a little-endian file."""
    if dataset.original_encoding[1] is not False:
        return
    for element in dataset.iterall():  # which reads each of them as big-endian
        if (size := WORD_BYTES.get(element.VR)) and isinstance(element.value, bytes):
            element.value = np.frombuffer(element.value, f">u{size}").astype(f"<u{size}").tobytes()
    dataset.set_original_encoding(False, True)


def head_for(origins: Sequence[DicomOrigin]) -> Any:
    """The data set, without pixels, of a file of images, with their spacing and places.

    Args:
        origins: those of the images in order; of one file, and of one size.
    """
    before = origins[0].head
    head, factors = copy.deepcopy(before), origins[0].factors
    if FRAMES in head:
        groups = head.get(FRAMES)
        setattr(head, FRAMES, [groups[each.frame] for each in origins])
    for number, part in _each_once(head, POSITION, len(origins)):
        _move_first_pixel(part, before, origins[number].frame, factors)
    for _, part in [(0, head), *_each_once(head, MEASURES, len(origins))]:
        for key in SPACINGS:
            if part.get(key):
                sides = zip(map(float, part.get(key)), factors, strict=True)
                setattr(part, key, [_number(side / factor) for side, factor in sides])
    return head


def _each_once(head: Any, sequence: str, frames: int) -> list[tuple[int, Any]]:
    """The items of a sequence, each with a frame that has it; of an older file, the data set."""
    items = [functional_item(head, frame, sequence) for frame in range(frames)]
    by_identity = {id(item): (frame, item) for frame, item in enumerate(items) if item is not None}
    return [*by_identity.values()] or ([(0, head)] if sequence == POSITION else [])


def _move_first_pixel(part: Any, before: Any, frame: int, factors: tuple[float, float]) -> None:
    """Move the centre of the first pixel, so that the corner of the frame stays in its place."""
    items = [functional_item(before, frame, each) for each in (POSITION, ORIENTATION, MEASURES)]
    keys = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    values = [(item or before).get(key) for item, key in zip(items, keys, strict=True)]
    if not all(values):
        return
    place, orientation, spacing = (np.array(each, float) for each in values)
    along_row, along_column = orientation.reshape(2, 3)
    rows, columns = spacing / factors - spacing  # by how much the pixels grow
    place = place + along_row * columns / 2 + along_column * rows / 2
    part.ImagePositionPatient = [_number(each) for each in place]


def _number(value: float) -> str:
    """A number in the 16 characters that DICOM allows."""
    return f"{value:.10g}"


def is_dicom(data: bytes) -> bool:
    """Whether a file says that it is DICOM."""
    return data[MARK_AT : MARK_AT + len(MARK)] == MARK


@final
class DicomFile(RasterFile):
    """An opened DICOM file.

    Args:
        file: open at its start.
        name: the file's name, for error messages.

    Raises:
        DataError: if it is damaged.
    """

    unit = "frame"

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(name)
        self._file = file
        with opening.readable(name):
            self._head = imported("pydicom", "DICOM", name).dcmread(file, stop_before_pixels=True)
            self._count = int(self._head.get("NumberOfFrames", 1) or 1)
            opening.check_page_count(self._count, name)
            self.place = _place_of(self._head) if self._count == 1 else None

    def __len__(self) -> int:
        return self._count

    def decoded(self, number: int) -> Raster:
        pixels = self._pixels(number)
        bands = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
        stored = np.ascontiguousarray(bands).astype(bands.dtype.newbyteorder("="), copy=False)
        is_generated = read_dicom_mark(self._head).is_generated
        origin = DicomOrigin(head=self._head, frame=number, is_generated=is_generated)
        if len(stored) > 1:
            return Raster(values=stored, origin=origin)
        every = [StoredNumbers.of(self._head, frame) for frame in range(self._count)]
        values = every[number].measured(stored, measured_dtype(every, stored.dtype))
        return Raster(values=values, nodata=every[number].nodata, origin=origin)

    def _pixels(self, number: int) -> np.ndarray:
        """The stored numbers of a frame, (H, W) or (H, W, 3)."""
        name, dataset = self.name, self._dataset
        with opening.readable(name), silenced("pydicom"):
            try:
                return imported("pydicom.pixels", "DICOM", name).pixel_array(dataset, index=number)
            except RuntimeError as error:  # pydicom has no decoder for it, or those it has fail
                compression = dataset.file_meta.TransferSyntaxUID.name
                raise DataError(
                    f"{name}: not a readable image ({compression} needs another decoder of "
                    "pydicom); install pylibjpeg[all], or save it without compression."
                ) from error

    @cached_property
    def _dataset(self) -> Any:
        """The whole file.

        Raises:
            DataError: if it holds no pixels, or those of a kind that is not read.
        """
        name = self.name
        with opening.readable(name):
            self._file.seek(0)
            dataset = imported("pydicom", "DICOM", name).dcmread(io.BytesIO(self._file.read()))
            _check_kind(dataset, name)
        return dataset


def _place_of(head: Any) -> SeriesPlace | None:
    """The place of a file of one frame in its series; None if it names no series.

    The position is that of the first pixel along the normal of the plane (DICOM PS3.3, C.7.6.2.1),
    because numbers of slices and names of files may run the other way.
    """
    series = head.get("SeriesInstanceUID")
    if not series:
        return None
    place = SeriesPlace(str(series))
    unreadable = ValueError, TypeError, AttributeError  # what is damaged or absent is unknown
    with suppress(*unreadable):
        place = place._replace(number=int(head.get("InstanceNumber") or 0))
    with suppress(*unreadable):
        place = place._replace(position_mm=float(head.get("SliceLocation") or 0))
    with suppress(*unreadable):
        row, column = np.array(head.get("ImageOrientationPatient"), float).reshape(2, 3)
        position_mm = float(np.cross(row, column) @ np.array(head.ImagePositionPatient, float))
        directions = tuple(round(float(each), 4) + 0.0 for each in (*row, *column))
        place = place._replace(orientation=directions, position_mm=round(position_mm, 4))
    return place


def _check_kind(dataset: Any, name: str) -> None:
    if "PixelData" not in dataset:
        kinds = [key for key in ("FloatPixelData", "DoubleFloatPixelData") if key in dataset]
        what = f"pixels of the kind {kinds[0]}" if kinds else "no pixels"
        raise DataError(f"{name}: a DICOM file with {what}; give one with PixelData.")
    opening.check_size(dataset.Columns, dataset.Rows, name)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        raise DataError(f"{name}: has a palette, whose indices are not measured values.")
    if dataset.get("ModalityLUTSequence"):
        raise DataError(
            f"{name}: has a lookup table for its values (ModalityLUTSequence), which is not "
            "read; save it with a slope and an intercept."
        )
    if dataset.BitsAllocated not in (8, 16):
        bits = counted(dataset.BitsAllocated, "bit")
        raise DataError(f"{name}: has values of {bits}; 8 and 16 are read.")
