"""Training images that are too small, truncated, or use a part of their numbers."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from cascade.conditioning.batch import Remark
from cascade.contract import Contract
from cascade.data.batches import PositionBatches, load_batches
from cascade.data.preparation import TooSmallError
from cascade.data.remark_log import NAMED, RemarkLog
from cascade.data.sources import FolderSource, open_source
from cascade.data.training_images import TrainingImages
from cascade.errors import DataError
from cascade.resizing import resize
from cascade.space import Space

STAGE = Contract(Space(size_px=16))


@pytest.fixture
def mostly_small(pictures, tmp_path):
    """Three images that are large enough, and nine that are not."""
    folder = tmp_path / "in"
    for number in range(12):
        if number < 3:
            (folder / "red").mkdir(parents=True, exist_ok=True)
            shutil.copy(pictures / "red" / f"{number}.png", folder / "red")
        else:
            Image.new("RGB", (15, 30), (number, 0, 0)).save(folder / f"{number}.png")
    return folder


def test_any_number_of_too_small_images_is_left_out_and_named(mostly_small):
    images = TrainingImages(open_source(str(mostly_small)), STAGE, max_broken_share=0)
    batches = list(load_batches(images, PositionBatches(0, 12, 4)))
    assert not any(batch.broken for batch in batches)
    remarks = {remark for batch in batches for remark in batch.remarks}
    assert {remark.kind for remark in remarks} == {"too small, left out"}
    assert len(remarks) == 9
    whole = [images.sized(index) for index in range(12) if "red" in images.source.name(index)]
    for image in (image for batch in batches for image in batch.images):
        alike = [((each.image / 127.5 - 1) - image).abs().max() for each in whole]
        mirrored = [((each.image.flip(-1) / 127.5 - 1) - image).abs().max() for each in whole]
        assert min(*alike, *mirrored) < 1e-6


def test_if_all_are_too_small_the_command_that_lists_them_can_be_pasted(mostly_small, tmp_path):
    shutil.move(mostly_small, tmp_path / "my in")
    images = TrainingImages(open_source(str(tmp_path / "my in")), Contract(Space(size_px=64)))
    with pytest.raises(DataError, match="none of the 12 images can be used") as error:
        _ = images[0]
    command = f"cascade data check '{tmp_path}/my in' --size 64"
    assert f"12 are too small. {command} lists them." in str(error.value)


def test_too_small_images_end_the_run_if_they_must_not_be_left_out(mostly_small):
    images = TrainingImages(open_source(str(mostly_small)), STAGE, too_small="error")
    with pytest.raises(TooSmallError, match=r"15x30 px is smaller than the stage's 16 px") as error:
        list(load_batches(images, PositionBatches(0, 12, 4)))
    assert f"cascade data check {mostly_small} --size 16 lists them" in str(error.value)


@pytest.mark.parametrize("kernel", ["bicubic", "area"])
def test_too_small_images_can_be_enlarged_by_the_stage_s_kernel(tmp_path, kernel):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    space = Space(size_px=14, resize_kernel=kernel)
    images = TrainingImages(FolderSource(tmp_path), Contract(space), too_small="enlarge")
    sized = images.sized(0)
    middle = torch.from_numpy(pixels[1:8]).permute(2, 0, 1)[None] / 127.5 - 1
    smooth = "bicubic" if kernel == "area" else kernel
    expected = resize(middle, (14, 14), smooth)[0]
    assert (sized.image / 127.5 - 1 - expected).abs().max() <= 1 / 255 + 1e-6
    (remark,) = images[0].remarks
    assert remark.kind == "too small, enlarged"


def test_images_in_a_part_of_their_numbers_are_stretched_and_clipped_ones_are_counted(tmp_path):
    frame = np.linspace(840, 1177, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(frame).save(tmp_path / "a.tif")
    plain = TrainingImages(FolderSource(tmp_path), STAGE, flip=())
    assert plain[0].image.max() < -0.95
    images = TrainingImages(FolderSource(tmp_path), STAGE, flip=(), range=(840, 1177))
    sample = images[0]
    expected = np.linspace(0, 255, 256).reshape(16, 16)
    values = (sample.image[0].numpy() + 1) * 127.5
    assert np.abs(values - expected).max() <= 1
    assert sample.remarks == ()
    clipped = TrainingImages(FolderSource(tmp_path), STAGE, flip=(), range=(840, 1000))[0]
    (remark,) = clipped.remarks
    assert remark.kind == "with values outside the range, which are clipped"
    outside = 100 * (frame > 1000).mean()
    assert f"a.tif: {outside:.3g} % of its values" in remark.text


def test_a_range_that_an_image_cannot_have_makes_it_broken(tmp_path):
    Image.new("L", (16, 16)).save(tmp_path / "a.png")
    images = TrainingImages(FolderSource(tmp_path), STAGE, range=(840, 1177))
    with pytest.raises(DataError, match=r"a\.png: the range 840 to 1177 .* 8 bits"):
        images.sized(0)


def test_truncated_images_are_kept_and_counted_if_asked_for(pictures, tmp_path):
    Image.open(pictures / "red" / "0.png").save(tmp_path / "a.jpg", quality=95)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(DataError, match=r"a\.jpg: its end is missing; truncated=keep reads it"):
        _ = TrainingImages(FolderSource(tmp_path), STAGE, max_broken_share=1.0)[0]
    sample = TrainingImages(FolderSource(tmp_path), STAGE, truncated="keep")[0]
    (remark,) = sample.remarks
    assert remark.kind == "truncated, kept"
    assert sample.broken == ()


def test_a_log_names_a_few_of_each_kind_and_counts_all_of_them_once():
    log = RemarkLog("cascade data check x")
    small = [Remark("too small, left out", f"{n}.png: 3x3 px.") for n in range(NAMED + 4)]
    lines = log.add([*small, *small, Remark("truncated, kept", "t.jpg: gone.")])
    assert lines[0] == "image too small, left out: 0.png: 3x3 px."
    assert lines[NAMED:] == [
        "further images too small, left out, are only counted.",
        "image truncated, kept: t.jpg: gone.",
    ]
    assert log.add(small) == []
    assert log.totals() == [
        f"images too small, left out: {NAMED + 4}. cascade data check x lists them.",
        "images truncated, kept: 1. cascade data check x lists them.",
    ]
    assert log.totals() == []
    log.add([Remark("truncated, kept", "u.jpg: gone.")])
    assert log.totals() == ["images truncated, kept: 2. cascade data check x lists them."]
