from __future__ import annotations

import pytest
import torch

from cascade.contract import Contract
from cascade.data.generated_low_res import GeneratedLowRes
from cascade.data.sources import FolderSource
from cascade.data.training_images import TrainingImages, as_float

CONTRACT = Contract(size_px=32, low_res_px=16)


def pool(fraction: float) -> GeneratedLowRes:
    """Three entries for images 7, 2 and 7, each of one colour."""
    low_res = torch.tensor([10, 100, 200], dtype=torch.uint8).view(3, 1, 1, 1)
    return GeneratedLowRes(torch.tensor([7, 2, 7]), low_res.expand(3, 3, 16, 16), fraction)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_a_share_of_the_samples_is_drawn_and_all_entries_alike(fraction):
    drawn = [pool(fraction).draw(seed) for seed in range(4000)]
    taken = [entry for entry in drawn if entry is not None]
    assert len(taken) / 4000 == pytest.approx(fraction, abs=0.03)
    for entry in (10, 100, 200):
        share = sum(int(low_res[0, 0, 0]) == entry for _, low_res in taken)
        assert share == pytest.approx(len(taken) / 3, abs=120)


@pytest.mark.parametrize("crop_px", [None, 16])
def test_a_generated_small_image_comes_with_its_own_large_one(pictures, crop_px):
    source = FolderSource(pictures)
    options = {"crop_px": crop_px, "flip": False}
    plain = TrainingImages(source, CONTRACT, **options)
    mixed = TrainingImages(source, CONTRACT, generated=pool(0.5), **options)
    counts = {"real": 0, "generated": 0}
    for position in range(36):
        sample, real = mixed[position], plain[position]
        assert sample.seed == real.seed
        drawn = pool(0.5).draw(sample.seed)
        if drawn is None:
            assert sample.image.equal(real.image)
            assert sample.low_res.equal(real.low_res)
            counts["real"] += 1
            continue
        index, low_res = drawn
        assert sample.low_res.shape[-1] == (crop_px or 32) // 2
        assert sample.low_res.unique().tolist() == as_float(low_res).unique().tolist()
        whole = as_float(plain.sized(index)[0])
        windows = whole.unfold(1, crop_px or 32, 2).unfold(2, crop_px or 32, 2)
        same = (windows == sample.image[:, None, None]).all(dim=(0, 3, 4))
        assert same.any()
        counts["generated"] += 1
    assert min(counts.values()) > 8
