"""Facts about benchmarks/photos.py: which crops it takes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from cascade.errors import DataError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "photos.py"


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("photos_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


photos = load_script()


def test_crops_come_in_the_order_of_their_names(tmp_path):
    for name, level in (("b", 255), ("a", 0), ("c", 9)):
        Image.new("RGB", (8, 4), (level,) * 3).save(tmp_path / f"{name}.png")
    crops = photos.read_crops(str(tmp_path), 2)
    assert crops.shape == (2, 3, 4, 8)
    assert crops[:, 0, 0, 0].equal(torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize("sizes", [[(8, 8)], [(8, 8), (8, 12)], [(8, 6), (8, 6)]])
def test_crops_that_cannot_be_compared_are_one_clear_error(tmp_path, sizes):
    for number, size in enumerate(sizes):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
    with pytest.raises(DataError, match=rf"at least 2 crops of one size.*got {len(sizes)} of"):
        photos.read_crops(str(tmp_path), None)
