"""Evaluation and sweep read the numbers in files as training did: range, nodata and axis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.contract import Contract
from cascade.data.file_reading import FileReading
from cascade.data.sources import open_source
from cascade.data.training_images import TrainingImages
from cascade.errors import ContractError, DataError
from cascade.evaluation.evaluate import evaluate
from cascade.evaluation.real_pictures import RealPictures
from cascade.evaluation.report import render
from cascade.imaging.rasters.layout import Layout
from cascade.pipeline import CascadePipeline
from cascade.space import Space
from cascade.sweeping.report import render as render_sweep
from cascade.sweeping.sweep import sweep

STATED = (0, 4080)
BANDS = Space(size_px=32, channels=1, range=(0.0, 100.0))


@pytest.fixture
def grey(tmp_path):
    """Six pictures of 12 bits in files of 16, and the same ones in files of 8."""
    draw = np.random.default_rng(0)
    for name in ("twelve", "eight"):
        (tmp_path / name).mkdir()
    for number in range(6):
        small = Image.fromarray(draw.integers(0, 256, (5, 5), dtype=np.uint8))
        pixels = np.asarray(small.resize((32, 32)))
        Image.fromarray(pixels).save(tmp_path / "eight" / f"{number}.png")
        Image.fromarray(pixels.astype(np.uint16) * 16).save(tmp_path / "twelve" / f"{number}.png")
    return tmp_path


@pytest.fixture
def pipeline(base_stage):
    return CascadePipeline.from_stages({"base": base_stage})


def test_pictures_are_read_by_the_stated_range_as_in_training(grey):
    space = Space(size_px=32)
    pictures = RealPictures(grey / "twelve", name="", reading=FileReading(range=STATED))
    read = pictures.read(range(6), space)
    assert torch.equal(read, RealPictures(grey / "eight", name="").read(range(6), space))
    source = open_source(str(grey / "twelve"))
    training = TrainingImages(source, Contract(space), flip=(), range=STATED)
    expected = torch.stack([training.middle(index).image for index in pictures.order])
    assert torch.equal(read, expected.float() / 127.5 - 1)


def test_an_evaluation_with_a_range_records_it_and_without_one_warns(
    pipeline, grey, extractor, tmp_path
):
    def measure(folder: str, **options):
        options |= {"extractor": extractor, "cache_dir": tmp_path / "cache"}
        return evaluate(pipeline, grey / folder, train=grey / folder, **options)

    eight, stated, bare = measure("eight"), measure("twelve", range=STATED), measure("twelve")
    assert stated.whole.scores == eight.whole.scores
    assert bare.whole.scores != eight.whole.scores
    assert stated.to_dict()["reading"] == {"range": [0, 4080]}
    assert "range 0 to 4080" in render(stated)
    assert bare.to_dict()["reading"] == {}
    (warning,) = [each for each in bare.notes if "almost no contrast" in each]
    assert "4080 of 65,535 in 6 images" in warning
    assert not [each for each in (*eight.notes, *stated.notes) if "no contrast" in each]


def test_a_sweep_with_another_range_recalls_nothing(pipeline, grey, extractor, tmp_path):
    def swept(out: str, **options):
        options |= {"extractor": extractor, "cache_dir": tmp_path / "cache"}
        return sweep(pipeline, grey / "twelve", ["steps=2"], out=tmp_path / out, **options)

    bare, stated = swept("out"), swept("out", range=STATED)
    assert len(list((tmp_path / "out" / "images").iterdir())) == 4
    values = [[each.value for each in result.outcomes[0].scores] for result in (bare, stated)]
    assert values[0] != values[1]
    assert stated.to_dict()["reading"] == {"range": [0, 4080]}
    assert "range 0 to 4080" in render_sweep(stated)
    assert any("almost no contrast" in each for each in bare.notes)


def test_missing_numbers_of_held_out_bands_are_refused_as_in_training(tmp_path):
    values = np.full((1, 32, 32), 50, np.float32)
    values[:, :16] = -9999
    np.save(tmp_path / "a.npy", values)
    pictures = RealPictures(tmp_path, name="", space=BANDS, reading=FileReading(nodata=-9999.0))
    with pytest.raises(DataError, match=r"50 % of its values are NaN or nodata"):
        pictures.read([0], BANDS)


def test_volumes_are_sliced_along_the_stated_axis(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    volume = np.arange(32 * 40 * 48, dtype=np.float32).reshape(32, 40, 48) % 100
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "v.nii")
    space = Space(size_px=(48, 40), channels=1, range=(0.0, 100.0))
    pictures = RealPictures(tmp_path, name="", space=space, reading=FileReading(axis=0))
    assert len(pictures) == 32
    assert len(RealPictures(tmp_path, name="", space=space)) == 48
    source = open_source(str(tmp_path), layout=Layout(1, axis=0))
    training = TrainingImages(source, Contract(space), flip=(), axis=0)
    expected = training.middle(pictures.order[5]).image
    assert torch.equal(pictures.read([5], space)[0], expected)


@pytest.mark.parametrize(
    ("reading", "space", "message"),
    [
        (FileReading(range=(5, 3)), None, r"the range must be two numbers .*, got \(5, 3\)"),
        (FileReading(axis=3), BANDS, "axis must be 0, 1 or 2, got 3"),
        (FileReading(axis=1), None, "an axis of volumes is for bands, but this model makes colour"),
        (FileReading(nodata=0.0), None, "a value for missing data is for bands"),
        (FileReading(range=STATED), BANDS, "a range for black and white is for colour images"),
    ],
)
def test_what_has_no_effect_is_refused(held_out, reading, space, message):
    with pytest.raises(ContractError, match=message):
        RealPictures(held_out, name="", space=space, reading=reading)
