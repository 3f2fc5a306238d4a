"""Recipes of stages whose images are bands of measured numbers."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pytest
import tifffile

from cascade.building import spaces
from cascade.building.data_preview import preview_data
from cascade.building.pipelines import check_recipe
from cascade.building.residual_size import measured_residual
from cascade.building.spaces import colour_range, space_of
from cascade.building.training import build_trainer
from cascade.conditioning.low_resolution import LowResolution
from cascade.data.sources import open_source
from cascade.errors import CascadeError, RecipeError
from cascade.imaging.rasters.layout import Layout
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe
from cascade.stage_kinds import load_stage

TINY = find_recipe("tiny-16", "stages")
SMALL = [
    "condition.labels=null",
    "sampling.guidance=1",
    "space.channels=2",
    "network={kind: transformer, patch_size: 4, width: 16, depth: 1, fine_width: 8, fine_depth: 1}",
    "network.head_channels=8",
    "train={images: 4, batch_size: 2, sample_every_images: 0, checkpoint_every_images: 4}",
    "train.trackers=[]",
]


def recipe_of(*overrides: str):
    return load_stage_recipe(TINY, [*SMALL, *overrides])


@pytest.fixture
def tiles(tmp_path):
    folder = tmp_path / "tiles"
    folder.mkdir()
    for number in range(3):
        values = np.full((2, 16, 16), 100 * number, np.uint16)
        values[1, :, 8:] = 4000
        options = {"planarconfig": "separate", "photometric": "minisblack"}
        tifffile.imwrite(folder / f"{number}.tif", values, **options)
    return folder


def test_the_range_of_the_data_is_the_range_of_the_space():
    assert space_of(recipe_of("data.range=[0,10000]")).range == (0, 10_000)
    assert space_of(recipe_of("data.range=[[0,10],[0,20]]")).range == ((0, 10), (0, 20))
    assert space_of(recipe_of("space.range=[[0,10],[0,20]]")).range == ((0, 10), (0, 20))


def test_one_range_of_three_channels_is_one_of_colour_pictures():
    recipe = recipe_of("space.channels=3", "data.range=[840,1177]")
    assert space_of(recipe).is_colour
    assert colour_range(recipe) == (840, 1177)
    per_band = recipe_of("space.channels=3", "data.range=[[0,10],[0,20],[0,10]]")
    assert space_of(per_band).range == ((0, 10), (0, 20), (0, 10))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            "space.range=[0,10] data.range=[0,20]",
            "key 'data.range': data.range and space.range both state the range",
        ),
        (
            "space.range=[0,10] data.percentiles=[1,99]",
            "key 'space.range': data.percentiles and space.range both",
        ),
        (
            "data.range=[0,10] data.percentiles=[1,99]",
            "key 'data.range': .* leave one out, as data.percentiles=null does",
        ),
        ("data.range=[[0,10]]", "1 pairs for 2 channels"),
        ("data.range=[[0,10],[0,20],[0,30]]", "3 pairs for 2 channels"),
        ("space.channels=3 data.range=[0,0.5]", "two whole numbers .black, white. from 0 to 65535"),
        ("space.channels=3 data.range=[-5,70000]", "two whole numbers .black, white. from 0 to"),
    ],
)
def test_ranges_that_do_not_fit_are_refused(overrides, words):
    recipe = recipe_of(*overrides.split())
    with pytest.raises(CascadeError, match=words) as error:
        check_recipe(recipe)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "override",
    ["data.range=[5,5]", "data.range=[[0,1],[3,2]]", "data.percentiles=[99,1]", "data.axis=3"],
)
def test_values_that_cannot_be_are_refused_by_the_recipe(override):
    with pytest.raises(RecipeError, match=f"key '{override.split('=')[0]}'"):
        recipe_of(override)


def test_measured_percentiles_are_saved_with_the_stage_and_kept_by_a_resumed_run(tiles, tmp_path):
    recipe = recipe_of(f"data.path={tiles}", "data.percentiles=[0,100]")
    check_recipe(recipe)
    out = tmp_path / "run"
    build_trainer(recipe, out).run()
    stage = load_stage(out / "stage")
    assert stage.space.range == ((0, 200), (0, 4000))
    saved = load_stage_recipe(out / "recipe.yaml")
    assert saved.data.percentiles is None
    assert space_of(saved) == stage.space
    brighter = tifffile.imread(tiles / "0.tif") + 5000
    tifffile.imwrite(tiles / "0.tif", brighter, photometric="minisblack", planarconfig="separate")
    build_trainer(recipe, out)  # refuses a run that resumes with another range


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("space.channels=65", "at most 64 bands"),
        ("network.patch_size=5", "patch_size"),
        ("diffusion.residual_std=0.1", "residual"),
        ("data.crop_px=7", "multiple of 4"),
    ],
)
def test_faults_of_a_recipe_are_named_before_the_range_is_measured(
    tiles, tmp_path, monkeypatch, overrides, words
):
    monkeypatch.setattr(spaces, "measured_ranges", Mock(side_effect=AssertionError))
    options = [f"data.path={tiles}", "data.percentiles=[0,100]", *overrides.split()]
    with pytest.raises(CascadeError, match=words):
        build_trainer(recipe_of(*options), tmp_path / "run")


def test_a_preview_reads_the_bands_and_names_what_does_not_fit(tiles):
    findings = preview_data(recipe_of(f"data.path={tiles}", "data.range=[0,5000]"))
    assert findings.errors == []
    assert any("2 bands of uint16" in line for line in findings.facts)
    findings = preview_data(recipe_of(f"data.path={tiles}", "space.channels=5"))
    assert "has 2 bands, but the stage takes 5 bands" in findings.errors[0]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            "space.channels=3",
            "key 'data.missing': missing=mask is for bands, but the stage",
        ),
        (
            "data.range=[0,10] student.steps=2 sampling.steps=2 train.objective=consistency",
            "key 'data.missing': .* as denoising does, but consistency counts all",
        ),
    ],
)
def test_stages_that_count_all_values_refuse_to_mask_missing_ones(overrides, words):
    with pytest.raises(RecipeError, match=words):
        check_recipe(recipe_of("data.missing=mask", *overrides.split()))


def test_a_preview_counts_images_with_missing_values_as_training_will(tiles):
    values = tifffile.imread(tiles / "1.tif").astype(np.float32)
    values[0, :4] = np.nan
    options = {"planarconfig": "separate", "photometric": "minisblack"}
    tifffile.imwrite(tiles / "1.tif", values, **options)
    tifffile.imwrite(tiles / "2.tif", np.full((2, 16, 16), np.nan, np.float32), **options)
    recipe = recipe_of(f"data.path={tiles}", "data.range=[0,5000]")
    (broken,) = preview_data(recipe).warnings
    assert "broken images: 2 of 3" in broken
    assert "or train with data.missing=mask" in broken
    recipe = recipe_of(f"data.path={tiles}", "data.range=[0,5000]", "data.missing=mask")
    findings = preview_data(recipe)
    assert findings.errors == []
    broken, missing = findings.warnings
    assert "broken images: 1 of 3" in broken
    assert "2.tif: 100 % of its values are NaN or nodata, so that nothing can be" in broken
    assert "--bands 2 --missing mask lists them all" in broken
    assert "1 image with NaN or nodata: up to 12.5 % of an image" in missing


@pytest.mark.parametrize(
    ("override", "errors"),
    [
        ("data.too_small=skip", 1),
        ("space.resize_kernel=area", 0),  # which cuts out 16x16 px of 24x24, and resizes nothing
        ("space.size_px=32", 0),  # too small for the stage, which is no damage
        ("space.size_px=32 data.too_small=enlarge", 1),
    ],
)
def test_a_preview_finds_images_of_which_nothing_is_known_at_the_size(tmp_path, override, errors):
    for number in range(6):
        values = np.full((2, 24, 24), np.nan, np.float32)
        values[:, ::3] = 100
        np.save(tmp_path / f"{number}.npy", values)
    values = [f"data.path={tmp_path}", "data.range=[0,5000]", "data.missing=mask"]
    findings = preview_data(recipe_of(*values, *override.split()))
    broken = [each for each in findings.errors if each.startswith("broken images: 6 of 6")]
    assert len(broken) == errors
    for each in broken:
        assert "every value depends on one that is NaN or nodata" in each


def test_the_residual_is_measured_where_values_are_known(tmp_path):
    values = np.zeros((2, 16, 16), np.float32)
    values[0, ::2, ::2] = 400  # half of the range, beside 0
    (tmp_path / "whole").mkdir()
    (tmp_path / "marked").mkdir()
    np.save(tmp_path / "whole" / "a.npy", values)
    np.save(tmp_path / "marked" / "a.npy", np.concatenate([values[:1], values[1:] * np.nan]))
    condition, residuals = LowResolution(size_px=8, quantised=False), []
    for name, missing in (("whole", "refuse"), ("marked", "mask")):
        recipe = recipe_of(
            f"data.path={tmp_path / name}", "space.range=[0,800]", f"data.missing={missing}"
        )
        source = open_source(recipe.data.path, layout=Layout(2))
        measured = measured_residual(recipe, source, (condition,), 1)
        assert measured is not None
        residuals.append(measured[0])
    assert residuals[1] == pytest.approx(residuals[0] * 2**0.5, rel=1e-4)  # the first band alone
