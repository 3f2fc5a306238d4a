"""What `validate` says about `residual_std`: the stated number beside the measured one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cascade.building.data_preview import preview_data
from cascade.building.residual_size import measured_residual
from cascade.conditioning.mask import Mask
from cascade.contract import Contract
from cascade.data.batches import collate
from cascade.data.fitting import as_float, fit_size
from cascade.data.sources import open_source
from cascade.data.training_images import TrainingImages
from cascade.diffusion.noise import SeededNoise
from cascade.imaging.exchange import to_tensor
from cascade.imaging.writing import to_uint8
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.resizing import resize
from cascade.space import Space

TINY = find_recipe("tiny-16", "stages")
RESIDUAL = ["condition.labels=null", "sampling.guidance=1", "data.crop_px=8", "data.flip=[]"]
RESIDUAL += ["diffusion.prediction=x0", "diffusion.weighting=residual"]


def preview(path, *values: str):
    given = [f"data.path={path}", "train.batch_size=4", *RESIDUAL, *values]
    return preview_data(load_stage_recipe(TINY, given))


@pytest.fixture
def pairs(tmp_path):
    """Grey pairs whose images are 51 levels apart: 0.4 of [-1, 1]."""
    for folder, level in (("high", 151), ("low", 100)):
        (tmp_path / folder).mkdir()
        for number in range(6):
            Image.new("RGB", (16, 16), (level,) * 3).save(tmp_path / folder / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("stated", "warned"), [("0.25", False), ("0.75", False), ("0.15", True), ("0.9", True)]
)
def test_the_stated_residual_is_shown_beside_the_measured_one(pairs, stated, warned):
    values = [f"data.pairs={pairs / 'low'}", "condition.paired_image={}"]
    findings = preview(pairs / "high", *values, f"diffusion.residual_std={stated}")
    assert findings.errors == []
    assert f"residual_std: {stated}; measured on 6 training images: 0.4" in findings.facts
    warnings = [each for each in findings.warnings if "set diffusion.residual_std=0.4." in each]
    assert bool(warnings) == warned


def test_a_run_that_starts_from_a_stage_keeps_its_residual(pairs):
    values = [f"data.pairs={pairs / 'low'}", "condition.paired_image={}", "train.init_from=stage"]
    findings = preview(pairs / "high", *values, "diffusion.residual_std=0.05")
    assert not [each for each in findings.warnings if "residual_std" in each]


def test_the_residual_of_an_upsampler_is_what_enlarging_loses(pictures):
    values = ["space.size_px=32", "data.crop_px=null", "diffusion.residual_std=0.3"]
    values += ["condition.low_resolution={size_px: 8, augmentation_range: [0, 0]}"]
    (line,) = [each for each in preview(pictures, *values).facts if "measured" in each]
    squares = []
    for file in sorted(pictures.rglob("*.png")):
        image = fit_size(to_tensor(Image.open(file))[0], Space(size_px=32), file.name)
        x0 = as_float(image)[None]
        small = as_float(to_uint8(resize(x0, (8, 8), "bicubic")))
        base = F.interpolate(small, size=(32, 32), mode="bicubic")
        squares.append(float(((x0 - base) ** 2).mean()))
    assert line.endswith(f"0.3; measured on 18 training images: {np.mean(squares) ** 0.5:.2g}")


def test_the_residual_of_a_filler_is_measured_in_the_hole_alone(pictures):
    values = ["condition.mask={}", "data.crop_px=null", "diffusion.residual_std=0.3"]
    recipe = load_stage_recipe(TINY, [f"data.path={pictures}", *RESIDUAL, *values])
    source = open_source(str(pictures))
    measured = measured_residual(recipe, source, (Mask(),), 4)
    assert measured is not None
    value, count = measured
    contract = Contract(Space(size_px=16), (Mask(),))
    images = TrainingImages(source, contract, flip=(), seed=recipe.train.seed)
    errors = []
    for position in range(count):
        batch = collate([images[position]])
        with_hole = Mask().input_of(batch, images.contract.space)  # (1, 4, H, W)
        hole = (with_hole[:, -1:] <= 0).expand_as(batch.images)
        noise = SeededNoise(batch.seeds, "train").fork("mask")
        guess = Mask().of_batch(batch, images.contract.space, noise).channels["mask"].image[:, :-1]
        errors.append((batch.images - guess)[hole])
    assert value == pytest.approx(float(torch.cat(errors).square().mean().sqrt()))
