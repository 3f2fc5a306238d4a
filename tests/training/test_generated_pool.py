from __future__ import annotations

import copy

import pytest
import torch

from cascade.contract import Contract
from cascade.data.source import SelectedSource
from cascade.data.sources import FolderSource
from cascade.data.training_images import TrainingImages, as_float
from cascade.errors import CascadeError, ContractError, RecipeError
from cascade.stage import Stage
from cascade.training import generated_pool as module
from cascade.training.generated_pool import generated_pool


@pytest.fixture
def images(pictures) -> TrainingImages:
    return TrainingImages(FolderSource(pictures), Contract(size_px=32, low_res_px=16))


@pytest.fixture
def base(trained) -> Stage:
    return Stage.from_pretrained(trained.base / "stage")


@pytest.fixture
def asked(monkeypatch) -> list[dict]:
    """What stages are asked to sample; they do it nevertheless."""
    calls = []
    plain = Stage.sample

    def sample(stage, seeds, **options):
        calls.append(options)
        return plain(stage, seeds, **options)

    monkeypatch.setattr(Stage, "sample", sample)
    return calls


def test_a_base_stage_changes_the_real_small_images_of_every_picture(
    base, images, tmp_path, monkeypatch, asked
):
    monkeypatch.setattr(module, "PART_IMAGES", 18)
    pool = generated_pool(base, images, tmp_path, count=36, fraction=1.0, strength=(0.1, 0.4))
    assert sorted(pool.indices[:18].tolist()) == list(range(18))  # every image once, then again
    assert pool.indices[:18].tolist() != pool.indices[18:].tolist()
    real = torch.stack([as_float(images.sized(int(i))[1]) for i in pool.indices])
    assert torch.cat([call["start_from"] for call in asked]).equal(real)
    names = [base.labels.decode(row)["class"] for call in asked for row in call["labels"].tolist()]
    assert names == [images.source.labels(int(i))["class"] for i in pool.indices]
    first, second = (call["strength"] for call in asked)
    assert 0.1 <= min(first, second) < max(first, second) <= 0.4
    again = 18 + pool.indices[18:].tolist().index(pool.indices[0])
    assert not pool.low_res[0].equal(pool.low_res[again])  # with other noise


def test_the_same_pool_is_made_again_and_what_is_there_is_kept(base, images, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART_IMAGES", 4)
    first = generated_pool(base, images, tmp_path, count=10, fraction=0.5)
    assert len(first.indices) == 12  # whole parts
    files = sorted(tmp_path.iterdir())
    files[1].write_bytes(files[1].read_bytes()[:100])
    mtime_ns = files[0].stat().st_mtime_ns
    again = generated_pool(base, images, tmp_path, count=10, fraction=0.5)
    assert again.indices.equal(first.indices)
    assert again.low_res.equal(first.low_res)
    assert files[0].stat().st_mtime_ns == mtime_ns


def test_a_pool_of_another_stage_strength_or_set_of_images_is_refused(
    base, images, pictures, tmp_path
):
    def make(previous=base, of=images, strength=(0.1, 0.5)):
        return generated_pool(previous, of, tmp_path, count=4, fraction=0.5, strength=strength)

    first = make()
    other = copy.deepcopy(base)
    with torch.no_grad():
        next(other.parameters()).add_(0.1)
    fewer = SelectedSource(images.source, {"class": ["red"]})
    for change in (
        {"previous": other},
        {"strength": (0.1, 0.6)},
        {"of": TrainingImages(fewer, images.contract)},
        {"of": TrainingImages(images.source, images.contract, seed=1)},
    ):
        with pytest.raises(CascadeError, match="were made by another stage, from other images or"):
            make(**change)
    assert make(of=TrainingImages(FolderSource(pictures), images.contract)).indices.equal(
        first.indices
    )


def test_an_upsampler_enlarges_a_smaller_real_image(
    trained, pictures, tmp_path, monkeypatch, asked
):
    monkeypatch.setattr(module, "PART_IMAGES", 2)
    previous = Stage.from_pretrained(trained.upsampler / "stage")
    wide = TrainingImages(FolderSource(pictures), Contract(size_px=32, low_res_px=32))
    pool = generated_pool(previous, wide, tmp_path, count=2, fraction=1.0)
    assert pool.low_res.shape == (2, 3, 32, 32)
    small = TrainingImages(FolderSource(pictures), Contract(size_px=32, low_res_px=16))
    for place, index in enumerate(pool.indices.tolist()):
        expected = as_float(small.sized(index)[1])
        assert (asked[0]["image"][place] - expected).abs().max() < 1.01 / 127.5  # one rounding less


def test_stages_that_do_not_join_are_refused(base, pictures, tmp_path):
    other = TrainingImages(FolderSource(pictures), Contract(size_px=32, low_res_px=8))
    with pytest.raises(ContractError, match="'generated_by' gives size_px 16, 'this' takes"):
        generated_pool(base, other, tmp_path, count=2, fraction=0.5)


def test_an_upsampler_trains_on_a_mixture_and_resumes(make_trainer, tmp_path, trained):
    values = [
        "condition.generated_fraction=0.5",
        "condition.generated_images=8",
        "train.images=64",
        "data.crop_px=null",
    ]
    by = f"condition.generated_by={trained.base}"
    options = {"recipe": "tiny-16-to-32"}
    trainer = make_trainer(tmp_path, *values, by, **options)
    assert trainer.images.generated is not None
    trainer.run()
    again = make_trainer(tmp_path, *values, by, "train.images=96", **options)
    assert again.state.images_seen == 64
    with pytest.raises(ValueError, match=r"data\.generated_fraction=0\.5 \(now 0\.25\)"):
        make_trainer(tmp_path, *values, by, "condition.generated_fraction=0.25", **options)


def test_a_mixture_needs_to_know_who_makes_it(make_trainer, tmp_path):
    with pytest.raises(RecipeError, match=r"needs condition\.generated_by"):
        make_trainer(tmp_path, "condition.generated_fraction=0.5", recipe="tiny-16-to-32")
