"""DICOM files as images of bands, by pydicom.

- The numbers are those that the slope and the intercept stand for, such as Hounsfield units: int16
  if both are whole numbers and the result fits, else float32.
- MONOCHROME1, in which the lowest number is white, is inverted.
- Every frame is an image. Colour is RGB; palettes are refused.

Shapes: C bands, H and W pixels.
"""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass
from typing import Any, BinaryIO, final

import numpy as np

from cascade.errors import DataError
from cascade.imaging import opening
from cascade.imaging.rasters.origin import Origin
from cascade.imaging.rasters.packages import imported
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.tiff_origin import CENTIMETRES, TiffOrigin

MARK, MARK_AT = b"DICM", 128
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


@dataclass(frozen=True, kw_only=True)
class StoredNumbers:
    """What the numbers of a DICOM file stand for.

    Attributes:
        slope: by which a stored number is multiplied.
        intercept: what is added then.
        inverted_from: the number from which stored ones are subtracted first, since the lowest is
            white; None if they are not.
    """

    slope: float = 1.0
    intercept: float = 0.0
    inverted_from: int | None = None

    @classmethod
    def of(cls, dataset: Any) -> StoredNumbers:
        """Read the fields of a data set."""
        inverted_from = None
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            inverted_from = -1 if dataset.PixelRepresentation else 2**dataset.BitsStored - 1
        slope = float(dataset.get("RescaleSlope", 1) or 1)
        intercept = float(dataset.get("RescaleIntercept", 0) or 0)
        return cls(slope=slope, intercept=intercept, inverted_from=inverted_from)

    def measured(self, stored: np.ndarray) -> np.ndarray:
        """The measured numbers for stored ones: uint8, uint16, int16 or float32."""
        if self.inverted_from is not None:
            stored = (self.inverted_from - stored.astype(np.int64)).astype(stored.dtype)
        if (self.slope, self.intercept) == (1.0, 0.0):
            return stored
        if self.slope == round(self.slope) and self.intercept == round(self.intercept):
            whole = stored.astype(np.int64) * round(self.slope) + round(self.intercept)
            ends = np.iinfo(np.int16)
            if ends.min <= whole.min() and whole.max() <= ends.max:
                return whole.astype(np.int16)
        return (stored * self.slope + self.intercept).astype(np.float32)

    def stored(self, measured: np.ndarray, dtype: np.dtype, bits: int) -> np.ndarray:
        """The stored numbers for measured ones, the inverse of `measured`.

        Args:
            measured: any numbers; those that the bits do not hold are clipped.
            dtype: of the stored numbers.
            bits: that are used of them.
        """
        numbers = np.rint((measured.astype(np.float64) - self.intercept) / self.slope)
        if self.inverted_from is not None:
            numbers = self.inverted_from - numbers
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype.kind == "i" else (0, 2**bits)
        return np.clip(numbers, low, high - (dtype.kind == "u")).astype(dtype)


@final
@dataclass(frozen=True)
class DicomOrigin(Origin):
    """The data set of a DICOM file, in which the spacing of the pixels is brought up to date.

    Attributes:
        dataset: a `pydicom.Dataset`, with the pixels that it came with.
    """

    dataset: Any

    format = "DICOM"

    def scaled(self, factor_y: float, factor_x: float) -> DicomOrigin:
        dataset = copy.deepcopy(self.dataset)
        for part in _parts(dataset):
            for key in SPACINGS:
                if key in part and part[key].value:
                    rows, columns = map(float, part[key].value)
                    setattr(part, key, [_number(rows / factor_y), _number(columns / factor_x)])
        _move_first_pixel(self.dataset, dataset)
        return DicomOrigin(dataset)

    def for_floats(self) -> TiffOrigin:
        """The size of the pixels, for a TIFF: DICOM images hold no floats."""
        resolution = _resolution(self.dataset)
        return TiffOrigin(tags={}, resolution=resolution, resolution_unit=CENTIMETRES)


def _resolution(dataset: Any) -> tuple[float, float] | None:
    """Pixels per centimetre across and down, by the spacing that a data set states in mm."""
    for part in _parts(dataset):
        for key in SPACINGS:
            if key in part and part[key].value:
                rows, columns = map(float, part[key].value)
                return 10 / columns, 10 / rows
    return None


def _parts(dataset: Any) -> list[Any]:
    """The data sets that may state the spacing of the pixels: the whole one and those of frames."""
    groups = [*dataset.get("SharedFunctionalGroupsSequence", [])]
    groups += dataset.get("PerFrameFunctionalGroupsSequence", [])
    return [dataset, *(each for group in groups for each in group.get("PixelMeasuresSequence", []))]


def _move_first_pixel(before: Any, after: Any) -> None:
    """Move the centre of the first pixel, so that the corner of the image stays in its place."""
    keys = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    if not all(key in before and before[key].value for key in keys):
        return
    along_row, along_column = np.array(before.ImageOrientationPatient, float).reshape(2, 3)
    old_rows, old_columns = map(float, before.PixelSpacing)
    rows, columns = map(float, after.PixelSpacing)
    move = along_row * (columns - old_columns) / 2 + along_column * (rows - old_rows) / 2
    place = np.array(before.ImagePositionPatient, float) + move
    after.ImagePositionPatient = [_number(each) for each in place]


def _number(value: float) -> str:
    """A number in the 16 characters that DICOM allows."""
    return f"{value:.10g}"


def is_dicom(data: bytes) -> bool:
    """Whether a file says that it is DICOM."""
    return data[MARK_AT : MARK_AT + len(MARK)] == MARK


def read_dataset(data: bytes, name: str) -> Any:
    """Read a file as a `pydicom.Dataset` that holds an image.

    Raises:
        DataError: if it is damaged, or holds no pixels or those of a kind that is not read.
    """
    pydicom = imported("pydicom", "DICOM", name)
    with opening.readable(name):
        dataset = pydicom.dcmread(io.BytesIO(data))
        if "PixelData" not in dataset:
            kinds = [key for key in ("FloatPixelData", "DoubleFloatPixelData") if key in dataset]
            what = f"pixels of the kind {kinds[0]}" if kinds else "no pixels"
            raise DataError(f"{name}: a DICOM file with {what}; give one with PixelData.")
        opening.check_size(dataset.Columns, dataset.Rows, name)
        opening.check_page_count(frames_of(dataset), name)
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            raise DataError(f"{name}: has a palette, whose numbers are no measurements.")
        if dataset.BitsAllocated not in (8, 16):
            raise DataError(
                f"{name}: has numbers of {dataset.BitsAllocated} bits; 8 and 16 are read."
            )
    return dataset


def frames_of(dataset: Any) -> int:
    """The number of frames of a data set."""
    return int(dataset.get("NumberOfFrames", 1) or 1)


def decode_dicom(data: bytes, name: str, number: int) -> Raster:
    """Decode a frame of a DICOM file.

    Args:
        data: the file's bytes.
        name: the file's name, for error messages.
        number: which frame, counted from 0.

    Raises:
        DataError: if it cannot be read, or has no such frame.
    """
    dataset = read_dataset(data, name)
    frames = frames_of(dataset)
    if not 0 <= number < frames:
        raise DataError(f"{name}: has {frames} frames; there is no frame {number + 1}.")
    pixels = _pixels(dataset, name, number)
    bands = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    stored = np.ascontiguousarray(bands).astype(bands.dtype.newbyteorder("="), copy=False)
    stored = stored.astype(np.int16) if stored.dtype == np.int8 else stored
    values = StoredNumbers.of(dataset).measured(stored) if len(stored) == 1 else stored
    return Raster(values=values, origin=DicomOrigin(dataset))


def _pixels(dataset: Any, name: str, number: int) -> np.ndarray:
    """The stored numbers of a frame, (H, W) or (H, W, 3)."""
    with opening.readable(name):
        try:
            return imported("pydicom.pixels", "DICOM", name).pixel_array(dataset, index=number)
        except RuntimeError as error:  # pydicom has no decoder for it, or those it has fail
            compression = dataset.file_meta.TransferSyntaxUID.name
            raise DataError(
                f"{name}: not a readable image ({compression} needs another decoder of pydicom); "
                "install pylibjpeg[all], or save it without compression."
            ) from error


def count_frames(file: BinaryIO, name: str) -> int:
    """Count the frames of an open DICOM file by its head."""
    pydicom = imported("pydicom", "DICOM", name)
    with opening.readable(name):
        frames = frames_of(pydicom.dcmread(file, stop_before_pixels=True))
        opening.check_page_count(frames, name)
        return frames
