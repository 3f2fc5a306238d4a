"""What `validate` and the start of `train` find in a sample of a recipe's images."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from cascade.building.data_preview import SAMPLE_IMAGES, first_images_warnings, preview_data
from cascade.building.validation import OpenedData, overlap_warnings
from cascade.data.sources import open_source
from cascade.data.training_images import epoch_order
from cascade.errors import RecipeError
from cascade.imaging.rasters.layout import Layout
from cascade.recipe.finding import find_recipe
from cascade.recipe.reading import load_stage_recipe

TINY = find_recipe("tiny-16", "stages")


def preview(path, *values: str, **options):
    recipe = load_stage_recipe(TINY, [f"data.path={path}", "train.batch_size=4", *values])
    return preview_data(recipe, **options)


def test_facts_name_images_classes_and_what_files_hold(pictures):
    findings = preview(pictures)
    assert findings.errors == findings.warnings == []
    assert findings.facts == [
        f"data:    {pictures}: 18 images, all decoded",
        "class:   3 classes: blue, red, red-dot",
        "formats: PNG",
        "modes:   RGB, 8 bits, 3 channels",
        "pages:   1 in each file",
        "values:  0 to 255 of 255",
        "sizes:   shorter side 36 to 36 px, median 36; most common 36x40 (18)",
    ]


def test_of_many_images_those_are_decoded_that_training_sees_first(tmp_path):
    image = Image.new("RGB", (16, 16))
    for number in range(SAMPLE_IMAGES + 5):
        image.save(tmp_path / f"{number}.png")
    labels = ["condition.labels=null", "sampling.guidance=1"]
    (first, *_) = preview(tmp_path, *labels).facts
    assert first.endswith(f"{SAMPLE_IMAGES + 5} images, the first {SAMPLE_IMAGES} of a run decoded")


@pytest.mark.parametrize(
    ("values", "warnings", "errors"),
    [
        (["space.size_px=32"], ["stage's 32 px: 1 of 18; training leaves them out"], []),
        (
            ["space.size_px=40"],
            [],
            ["all 18 readable images are smaller than the stage's 40 px: 20x20 to 36x40 px"],
        ),
        (["space.size_px=32", "data.too_small=enlarge"], ["training upscales them"], []),
        (["space.size_px=32", "data.too_small=error"], [], ["training would stop at the first"]),
        (["train.batch_size=99"], [], ["18 images are too few for a batch of 99"]),
        (["condition.labels.fields=[kind]"], [], ["no image has a label 'kind'"]),
        (["data.range=[5,300]"], [], ["broken images: 18 of 18", "the range 5 to 300"]),
        (
            ["data.range=[5,200]"],
            ["18 images with values outside the range, which are clipped"],
            [],
        ),
    ],
)
def test_errors_are_what_training_would_fail_on(pictures, tmp_path, values, warnings, errors):
    shutil.copytree(pictures, tmp_path / "in")
    Image.open(pictures / "red" / "0.png").resize((20, 20)).save(tmp_path / "in" / "red" / "0.png")
    findings = preview(tmp_path / "in", *values)
    for lines, words in ((findings.warnings, warnings), (findings.errors, errors)):
        assert bool(lines) == bool(words), lines
        for word in words:
            assert word in " ".join(lines)
    for line in [*findings.warnings, *findings.errors]:
        if "smaller" in line:
            assert f"cascade data check {tmp_path / 'in'} --size" in line


UPSAMPLER = ["condition.labels=null", "sampling.guidance=1", "space.size_px=64"]
UPSAMPLER += ["condition.low_resolution={size_px: 16}", "network.patch_size=4"]


def test_without_an_image_that_fits_the_error_names_both_sizes_to_set(tmp_path):
    image = Image.new("RGB", (40, 48))
    for number in range(SAMPLE_IMAGES + 5):  # more than the sample
        image.save(tmp_path / f"{number}.png")
    (error,) = preview(tmp_path, *UPSAMPLER).errors
    assert f"all {SAMPLE_IMAGES + 5} readable images are smaller than the stage's 64 px" in error
    assert ": 40x48 px. Training would have none; set space.size_px to a size" in error
    assert "and condition.low_resolution.size_px to 1/4 of it" in error
    recipe = load_stage_recipe(TINY, [f"data.path={tmp_path}", *UPSAMPLER])
    order = epoch_order(recipe.train.seed, 0, SAMPLE_IMAGES + 5).tolist()
    names = sorted(f"{number}.png" for number in range(SAMPLE_IMAGES + 5))
    Image.new("RGB", (64, 64)).save(tmp_path / names[order[-1]])  # the last that training reads
    findings = preview(tmp_path, *UPSAMPLER)
    assert findings.errors == []
    assert f"{SAMPLE_IMAGES} of {SAMPLE_IMAGES}; training leaves them out" in findings.warnings[0]


def test_a_few_broken_images_are_a_warning_and_many_an_error(pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "in")
    files = sorted((tmp_path / "in").rglob("*.png"))
    files[0].write_bytes(b"no image")
    assert "broken images: 1 of 18" in preview(tmp_path / "in").warnings[0]
    for file in files[:4]:
        file.write_bytes(b"no image")
    assert "broken images: 4 of 18" in preview(tmp_path / "in").errors[0]


def test_missing_data_is_an_error_unless_it_is_that_of_a_bundled_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (error,) = preview("nosuch").errors
    assert "no data at nosuch" in error
    assert "--no-data" in error
    bundled = preview("data/images", own_path=False)
    assert bundled.errors == []
    assert "data.path=FOLDER" in bundled.warnings[0]
    assert preview("data/images").errors  # the user gave it


def test_remote_data_is_not_fetched(monkeypatch):
    monkeypatch.setattr("cascade.building.data_preview.open_data", None)
    for path in ("https://user:secret@host/a.tar", "hf:someone/images"):
        findings = preview(path)
        assert findings.errors == findings.facts == []
        assert "is remote and was not opened" in findings.warnings[0]
        assert "secret" not in findings.warnings[0]


@pytest.mark.parametrize("key", ["pairs", "validation_pairs"])
def test_remote_inputs_of_pairs_are_not_fetched(monkeypatch, key):
    monkeypatch.setattr("cascade.building.data_preview.open_data", None)
    recipe = load_stage_recipe(TINY, ["data.path=photos"])
    data = recipe.data.model_copy(update={key: "https://host/a.tar"})
    findings = preview_data(recipe.model_copy(update={"data": data}))
    assert "is remote and was not opened; cascade data check https" in findings.warnings[0]


def test_validation_volumes_that_are_all_training_volumes_are_refused(tmp_path):
    for number in range(2):
        volume = np.random.default_rng(number).integers(0, 99, (3, 4, 4, 1), dtype=np.uint16)
        np.save(tmp_path / f"{number}.npy", volume)
    source = open_source(str(tmp_path), layout=Layout(1))
    recipe = load_stage_recipe(TINY, [f"data.path={tmp_path}"])
    with pytest.raises(RecipeError, match="all 2 validation images are training images too"):
        overlap_warnings(OpenedData(source, source), recipe)


def test_a_run_that_begins_on_black_images_is_warned_of(tmp_path):
    frame = np.linspace(840, 1177, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(frame).save(tmp_path / "a.tif")
    source = open_source(str(tmp_path))
    values = [f"data.path={tmp_path}", "condition.labels=null", "sampling.guidance=1"]
    (warning,) = first_images_warnings(source, load_stage_recipe(TINY, values))
    assert "make 840 black and 1177 white with data.range=[840,1177]" in warning
    ranged = load_stage_recipe(TINY, [*values, "data.range=[840,1177]"])
    assert first_images_warnings(source, ranged) == []


def test_a_run_on_colour_images_is_warned_of_channels_that_are_not_read(tmp_path):
    tile = np.arange(16 * 16 * 5, dtype=np.uint8).reshape(16, 16, 5)
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", tile, **options)
    source = open_source(str(tmp_path))
    values = [f"data.path={tmp_path}", "condition.labels=null", "sampling.guidance=1"]
    (warning,) = first_images_warnings(source, load_stage_recipe(TINY, values))
    assert "1 image of up to 5 channels, of which only the colour channels are read" in warning
