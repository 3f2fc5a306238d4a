"""Reads the options about pairs of the commands `data check` and `data build`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cascade.data.band_decoding import BandDecoding
from cascade.data.band_encoding import BandEncoding
from cascade.data.encoding import Encoding, ImageFormat
from cascade.data.joining import Pairing
from cascade.data.pair_report import MAX_SHIFT_PX, PairCheck
from cascade.data.preparation import Decoding, ValueRange

if TYPE_CHECKING:
    from cascade.imaging.picture_reading import Truncated


def input_bands(
    pairs: str | None, pair_bands: int | None, decoding: BandDecoding | None
) -> BandDecoding | None:
    """How inputs of bands are read; None for colour pictures, or without pairs.

    Args:
        pairs: the option `--pairs`.
        pair_bands: the option `--pair-bands`.
        decoding: how the images themselves are read; None for colour pictures.

    Raises:
        BadParameter: if there are bands of inputs, but no inputs.
    """
    if pairs is None:
        if pair_bands is not None:
            raise typer.BadParameter("--pair-bands needs --pairs.")
        return None
    if pair_bands is None:
        return decoding
    return (decoding or BandDecoding())._replace(bands=pair_bands)


def pairing(pairs: str | None, bands: BandDecoding | None) -> Pairing | None:
    """Where the inputs are; None without pairs."""
    return None if pairs is None else Pairing(pairs, None if bands is None else bands.layout)


def checked(
    pairs: str | None,
    bands: BandDecoding | None,
    max_shift_px: float | None,
    value_range: ValueRange | None,
    truncated: Truncated,
) -> PairCheck | None:
    """What `data check` expects of pairs; None without pairs.

    Raises:
        BadParameter: if there is a largest shift, but no pairs.
    """
    if pairs is None:
        if max_shift_px is not None:
            raise typer.BadParameter("--max-shift-px needs --pairs.")
        return None
    limit = MAX_SHIFT_PX if max_shift_px is None else max_shift_px
    return PairCheck(bands or Decoding(value_range, truncated), max_shift_px=limit)


def written(
    pairs: str | None,
    bands: BandDecoding | None,
    file_format: ImageFormat | None,
    value_range: ValueRange | None,
) -> PairCheck | None:
    """How `data build` reads and writes inputs; None without pairs."""
    if pairs is None:
        return None
    if bands is not None:
        decoding = bands._replace(missing="keep")
        return PairCheck(decoding, max_shift_px=None, encode=BandEncoding())
    encoding = Encoding(image_format=file_format, range=value_range)
    return PairCheck(Decoding(value_range), max_shift_px=None, encode=encoding)
