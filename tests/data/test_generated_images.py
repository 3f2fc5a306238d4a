from __future__ import annotations

import pytest
import torch

from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.data.fitting import as_float
from cascade.data.generated_images import GeneratedImages
from cascade.data.sources import FolderSource
from cascade.data.training_images import TrainingImages
from cascade.space import Space

CONTRACT = Contract(Space(size_px=32), (LowResolution(size_px=16),))


def pool(fraction: float) -> GeneratedImages:
    """Three entries for images 7, 2 and 7, each of one colour."""
    colours = torch.tensor([10, 100, 200], dtype=torch.uint8).view(3, 1, 1, 1)
    indices = torch.tensor([7, 2, 7])
    return GeneratedImages("low_resolution", indices, colours.expand(3, 3, 16, 16), fraction)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_a_share_of_the_samples_is_drawn_and_all_entries_alike(fraction):
    draws = [pool(fraction).draw(seed) for seed in range(4000)]
    entries = [each for each in draws if each is not None]
    assert len(entries) / 4000 == pytest.approx(fraction, abs=0.03)
    for colour in (10, 100, 200):
        share = sum(int(image[0, 0, 0]) == colour for _, image in entries)
        assert share == pytest.approx(len(entries) / 3, abs=120)


@pytest.mark.parametrize("crop_px", [None, 16])
def test_a_generated_small_image_comes_with_its_own_large_one(pictures, crop_px):
    source = FolderSource(pictures)
    options = {"crop_px": crop_px, "flip": ()}
    plain = TrainingImages(source, CONTRACT, **options)
    mixed = TrainingImages(source, CONTRACT, generated=pool(0.5), **options)
    counts = {"real": 0, "generated": 0}
    for position in range(36):
        sample, real = mixed[position], plain[position]
        assert sample.seed == real.seed
        low_res = sample.conditions["low_resolution"]
        entry = pool(0.5).draw(sample.seed)
        if entry is None:
            assert sample.image.equal(real.image)
            assert low_res.equal(real.conditions["low_resolution"])
            counts["real"] += 1
            continue
        index, image = entry
        assert low_res.shape[-1] == (crop_px or 32) // 2
        assert low_res.unique().tolist() == as_float(image).unique().tolist()
        whole = as_float(plain.sized(index).image)
        windows = whole.unfold(1, crop_px or 32, 2).unfold(2, crop_px or 32, 2)
        same = (windows == sample.image[:, None, None]).all(dim=(0, 3, 4))
        assert same.any()
        counts["generated"] += 1
    assert min(counts.values()) > 8
