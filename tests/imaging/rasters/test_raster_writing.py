"""Wrong calls of `write_rasters` are refused in one line, and leave no file."""

from __future__ import annotations

import numpy as np
import pytest

from cascade.errors import ContractError, OutputError
from cascade.imaging.rasters.raster import Raster
from cascade.imaging.rasters.writing import write_rasters

RASTER = Raster(values=np.ones((2, 4, 5), np.uint8))


@pytest.mark.parametrize(
    ("rasters", "message"),
    [
        ([], "rasters must hold at least one Raster, got none"),
        (iter(()), "rasters must hold at least one Raster, got none"),
        (RASTER, "rasters must be a list of Rasters, got Raster"),
        (3, "rasters must be a list of Rasters, got 3"),
        ([RASTER, 3], "each of rasters must be a Raster, got 3"),
    ],
)
def test_what_is_no_list_of_rasters_is_refused(tmp_path, rasters, message):
    with pytest.raises(ContractError, match=message):
        write_rasters(tmp_path / "a.tif", rasters)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("images", "count", "message"),
    [
        (2, 1, "count says 1 image, but more came"),
        (1, 2, "count says 2 images, but fewer came"),
    ],
)
def test_an_array_holds_as_many_images_as_count(tmp_path, images, count, message):
    with pytest.raises(OutputError, match=message):
        write_rasters(tmp_path / "a.npy", [RASTER] * images, count)
    assert not list(tmp_path.iterdir())
    write_rasters(tmp_path / "a.npy", [RASTER] * images, images)
    assert np.load(tmp_path / "a.npy").size == images * RASTER.values.size
