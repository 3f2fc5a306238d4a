"""What a TIFF file says about an image of bands: georeference, resolution, OME's sizes.

GeoTIFF: a tie point or a matrix maps places in the image to the map. Places are counted from the
corner of the first pixel, or from its centre if the file says that pixels are points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import DTypeLike

from cascade.imaging.orientation import upright_dpi
from cascade.imaging.rasters.origin import Origin
from cascade.imaging.tiff_pages import RGB, photometric_of

PIXEL_SCALE, TIE_POINTS, TRANSFORMATION = 33550, 33922, 34264
GEO_KEYS, GEO_DOUBLES, GEO_TEXTS, GDAL_METADATA = 34735, 34736, 34737, 42112
RESOLUTION_UNIT, RESOLUTIONS = 296, (282, 283)  # of columns, of rows
CENTIMETRES = 3  # of RESOLUTION_UNIT
RASTER_TYPE_KEY, PIXEL_IS_POINT = 1025, 2
DOUBLES, SHORTS, TEXT = "d", "H", "s"
TYPES = {PIXEL_SCALE: DOUBLES, TIE_POINTS: DOUBLES, TRANSFORMATION: DOUBLES, GEO_KEYS: SHORTS}
TYPES |= {GEO_DOUBLES: DOUBLES, GEO_TEXTS: TEXT, GDAL_METADATA: TEXT}
RPC = 50844  # rational polynomials from places on the ground to pixels
TYPES |= {RPC: DOUBLES}
PLACES = {PIXEL_SCALE, TIE_POINTS, TRANSFORMATION, RPC}
RPC_OFFSETS, RPC_SCALES = slice(2, 4), slice(7, 9)  # of rows and of columns, in RPC
GDAL_NODATA, ORIENTATION, EXTRA_SAMPLES = 42113, 274, 338
PHYSICAL_SIZES = ("PhysicalSizeX", "PhysicalSizeY")
OME_VALUES = (*PHYSICAL_SIZES, "PhysicalSizeXUnit", "PhysicalSizeYUnit")
OME_VALUES += ("PhysicalSizeZ", "PhysicalSizeZUnit", "TimeIncrement", "TimeIncrementUnit")


@dataclass(frozen=True, kw_only=True)
class TiffOrigin(Origin):
    """What a TIFF file says about an image.

    Attributes:
        tags: values of the tags of the georeference, by number.
        resolution: pixels per unit across and down; None if the file states none.
        resolution_unit: 1 for none, 2 for inches, 3 for centimetres.
        ome: sizes and units that an OME-TIFF states, by name; None for other files.
        ome_channels: names of its channels.
        ome_axes: axes of its images, outermost first, with their lengths; none for a single one.
        orientation: from 1 to 8, as in EXIF.
        is_rgb: whether the first three bands are red, green and blue.
        extra_samples: what further bands are: 0 for unspecified, 1 and 2 for alpha.
        is_generated: whether the file says that a model drew it from noise.
    """

    format = "TIFF"
    tags: dict[int, Any]
    resolution: tuple[float, float] | None = None
    resolution_unit: int = 1
    ome: dict[str, Any] | None = None
    ome_channels: tuple[str, ...] = ()
    ome_axes: tuple[tuple[str, int], ...] = ()
    orientation: int = 1
    is_rgb: bool = False
    extra_samples: tuple[int, ...] = ()
    is_generated: bool = False

    @classmethod
    def of(cls, file: Any, page: Any, *, is_generated: bool) -> TiffOrigin:
        """Read the tags of a page.

        Args:
            file: `tifffile.TiffFile`.
            page: `tifffile.TiffPage`.
            is_generated: whether the file says that a model drew it from noise.
        """
        tags = {tag: page.tags.valueof(tag) for tag in TYPES if page.tags.valueof(tag) is not None}
        pairs = [page.tags.valueof(tag) for tag in RESOLUTIONS]
        numbers = [a / b for a, b in (pair or (0, 1) for pair in pairs) if b]
        has_resolution = len(numbers) == 2 and min(numbers) > 0
        origin = cls(
            tags=tags,
            resolution=(numbers[0], numbers[1]) if has_resolution else None,
            resolution_unit=int(page.tags.valueof(RESOLUTION_UNIT, 2)),
            orientation=int(page.tags.valueof(ORIENTATION, 1)),
            is_rgb=photometric_of(page) == RGB,
            extra_samples=tuple(map(int, np.atleast_1d(page.tags.valueof(EXTRA_SAMPLES, ())))),
            is_generated=is_generated,
        )
        return _with_ome(origin, file) if file.is_ome else origin

    @property
    def is_georeferenced(self) -> bool:
        """Whether the file maps its pixels to places on the ground."""
        return bool(PLACES & self.tags.keys())

    def upright(self) -> TiffOrigin:
        """The origin of the image after it was turned upright."""
        across, down = upright_dpi(self.resolution, self.orientation) or (0.0, 0.0)
        resolution = None if self.resolution is None else (across, down)
        return replace(self, orientation=1, resolution=resolution)

    def cropped(self, top: int, left: int) -> TiffOrigin:
        """The origin of a part of the image, which begins at a pixel."""
        return replace(self, tags=self._moved_tags(np.ones(2), np.array([left, top])))

    def scaled(self, factor_y: float, factor_x: float) -> TiffOrigin:
        tags = self._moved_tags(np.array([factor_x, factor_y]), np.zeros(2))
        ome = None if self.ome is None else dict(self.ome)
        for name, factor in zip(PHYSICAL_SIZES, (factor_x, factor_y), strict=True):
            if ome is not None and name in ome:
                ome[name] = ome[name] / factor
        across, down = self.resolution or (0.0, 0.0)
        resolution = (across * factor_x, down * factor_y) if self.resolution else None
        return replace(self, tags=tags, resolution=resolution, ome=ome)

    def _moved_tags(self, factors: np.ndarray, start: np.ndarray) -> dict[int, Any]:
        """The tags after the image was cropped at `start` and enlarged, (x, y) each."""
        tags, three = dict(self.tags), np.array([*factors, 1.0])
        offset = 0.5 if self._pixels_are_points else 0.0  # from the place of a pixel to its corner
        if PIXEL_SCALE in tags:
            tags[PIXEL_SCALE] = tuple((np.array(tags[PIXEL_SCALE]) / three).tolist())
        if TIE_POINTS in tags:
            points = np.array(tags[TIE_POINTS], np.float64).reshape(-1, 6)
            points[:, :2] = (points[:, :2] - start + offset) * factors - offset
            tags[TIE_POINTS] = tuple(points.reshape(-1).tolist())
        if TRANSFORMATION in tags:
            matrix = np.array(tags[TRANSFORMATION], np.float64).reshape(4, 4)
            to_old = np.diag([*(1 / three), 1])
            to_old[:2, 3] = offset / factors - offset + start
            tags[TRANSFORMATION] = tuple((matrix @ to_old).reshape(-1).tolist())
        if RPC in tags:
            numbers = np.array(tags[RPC], np.float64)
            y_x = factors[::-1]
            numbers[RPC_OFFSETS] = (numbers[RPC_OFFSETS] - start[::-1] + 0.5) * y_x - 0.5
            numbers[RPC_SCALES] *= y_x
            tags[RPC] = tuple(numbers.tolist())
        return tags

    def for_numbers(self, dtype: DTypeLike, *, same_bands: bool = True) -> TiffOrigin:
        if same_bands:
            return self
        tags = {tag: value for tag, value in self.tags.items() if tag != GDAL_METADATA}
        return replace(self, tags=tags, ome_channels=(), is_rgb=False, extra_samples=())

    @property
    def _pixels_are_points(self) -> bool:
        keys = np.array(self.tags.get(GEO_KEYS, ()), np.int64).reshape(-1, 4)
        return bool(((keys[:, 0] == RASTER_TYPE_KEY) & (keys[:, 3] == PIXEL_IS_POINT)).any())

    @property
    def extra_tags(self) -> list[tuple[int, str, int, Any, bool]]:
        """The tags as tifffile writes them."""
        written: list[tuple[int, str, int, Any, bool]] = []
        for tag, value in self.tags.items():
            is_text = TYPES[tag] == TEXT  # tifffile takes texts beyond ASCII as bytes alone
            count, stored = (0, value.encode()) if is_text else (len(value), value)
            written.append((tag, TYPES[tag], count, stored, True))
        if self.orientation != 1:
            written.append((ORIENTATION, SHORTS, 1, self.orientation, True))
        return written


def _with_ome(origin: TiffOrigin, file: Any) -> TiffOrigin:
    """Add what the XML of an OME-TIFF says about its first image."""
    try:
        root = ElementTree.fromstring(file.ome_metadata)
    except ElementTree.ParseError:
        return origin
    pixels = next((each for each in root.iter() if each.tag.endswith("}Pixels")), None)
    if pixels is None:
        return origin
    values: dict[str, Any] = {n: pixels.get(n) for n in OME_VALUES if pixels.get(n) is not None}
    for name, value in values.items():
        if not name.endswith("Unit"):
            values[name] = float(value)
    channels = [each.get("Name") for each in pixels if each.tag.endswith("}Channel")]
    series = file.series[0]
    axes = tuple(
        (axis, int(length))
        for axis, length in zip(series.axes, series.shape, strict=True)
        if axis not in "CYXS"
    )
    names = tuple(name for name in channels if name)
    has_names = len(names) == len(channels)
    return replace(origin, ome=values, ome_channels=names if has_names else (), ome_axes=axes)
