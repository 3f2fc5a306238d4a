from __future__ import annotations

import copy

import pytest
import torch

from cascade.conditioning.labels import Labels
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.luminance import Luminance, luminance
from cascade.contract import Contract
from cascade.data.fitting import as_float
from cascade.data.generated_images import GeneratedImages
from cascade.data.source import with_labels
from cascade.data.sources import FolderSource
from cascade.data.training_images import TrainingImages
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import CascadeError, ContractError, RecipeError
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space
from cascade.stage import Stage
from cascade.stage_kinds import load_stage
from cascade.training import generated_pool as module
from cascade.training.generated_pool import generated_pool

NAME = "low_resolution"


def images_of(pictures, size_px: int = 32, low_res_px: int = 16, **options) -> TrainingImages:
    """The pictures for an upsampler."""
    contract = Contract(Space(size_px=size_px), (LowResolution(size_px=low_res_px),))
    return TrainingImages(FolderSource(pictures), contract, **options)


def pool_of(previous: Stage, images: TrainingImages, folder, **options):
    return generated_pool(previous, images, folder, condition=NAME, **options)


@pytest.fixture
def images(pictures) -> TrainingImages:
    return images_of(pictures)


@pytest.fixture
def base(trained) -> Stage:
    return load_stage(trained.base / "stage")


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    """Inputs and `Run` of every call of a stage, which samples nevertheless."""
    calls = []
    plain = DiffusionStage.run

    def run_and_keep(stage, seeds, inputs, *, run):
        calls.append((inputs, run))
        return plain(stage, seeds, inputs, run=run)

    monkeypatch.setattr(DiffusionStage, "run", run_and_keep)
    return calls


def test_a_base_stage_changes_the_real_small_images_of_every_picture(
    base, images, tmp_path, monkeypatch, calls
):
    monkeypatch.setattr(module, "PART_IMAGES", 18)
    pool = pool_of(base, images, tmp_path, count=36, fraction=1.0, strength=(0.1, 0.4))
    assert sorted(pool.indices[:18].tolist()) == list(range(18))  # every image once, then again
    assert pool.indices[:18].tolist() != pool.indices[18:].tolist()
    real = torch.stack([as_float(images.sized(int(i)).smaller[NAME]) for i in pool.indices])
    starts = [run.hooks.start_from for _, run in calls]
    assert torch.cat([start.image for start in starts]).equal(real)
    names = [labels["class"] for inputs, _ in calls for labels in inputs.get("labels")]
    assert names == [images.source.labels(int(i))["class"] for i in pool.indices]
    first, second = (start.strength for start in starts)
    assert 0.1 <= min(first, second) < max(first, second) <= 0.4
    again = 18 + pool.indices[18:].tolist().index(pool.indices[0])
    assert not pool.images[0].equal(pool.images[again])  # with other noise


def test_the_same_pool_is_made_again_and_what_is_there_is_kept(base, images, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART_IMAGES", 4)
    first = pool_of(base, images, tmp_path, count=10, fraction=0.5)
    assert len(first.indices) == 12  # whole parts
    files = sorted(tmp_path.iterdir())
    files[1].write_bytes(files[1].read_bytes()[:100])
    mtime_ns = files[0].stat().st_mtime_ns
    again = pool_of(base, images, tmp_path, count=10, fraction=0.5)
    assert again.indices.equal(first.indices)
    assert again.images.equal(first.images)
    assert files[0].stat().st_mtime_ns == mtime_ns


def test_a_pool_of_another_stage_strength_or_set_of_images_is_refused(
    base, images, pictures, tmp_path
):
    def make(previous=base, of=images, strength=(0.1, 0.5)):
        return pool_of(previous, of, tmp_path, count=4, fraction=0.5, strength=strength)

    first = make()
    other = copy.deepcopy(base)
    with torch.no_grad():
        next(other.parameters()).add_(0.1)
    fewer = with_labels(images.source, {"class": ["red"]})
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
    trained, pictures, tmp_path, monkeypatch, calls
):
    monkeypatch.setattr(module, "PART_IMAGES", 2)
    previous = load_stage(trained.upsampler / "stage")
    wide = images_of(pictures, low_res_px=32)
    pool = pool_of(previous, wide, tmp_path, count=2, fraction=1.0)
    assert pool.images.shape == (2, 3, 32, 32)
    small = images_of(pictures)
    ((inputs, run),) = calls
    assert run.hooks.start_from is None
    for place, index in enumerate(pool.indices.tolist()):
        real = as_float(small.sized(index).smaller[NAME])
        assert inputs.get("image")[place].equal(real)


def test_a_colourising_stage_colours_the_luminance_of_a_real_image(
    colouriser, images, tmp_path, monkeypatch, calls
):
    monkeypatch.setattr(module, "PART_IMAGES", 2)
    pool = pool_of(colouriser, images, tmp_path, count=2, fraction=1.0)
    assert pool.images.shape == (2, 3, 16, 16)
    ((inputs, _),) = calls
    for grey, index in zip(inputs.get("image"), pool.indices.tolist(), strict=True):
        real = as_float(images.sized(index).smaller[NAME])
        assert (grey - luminance(real[None])[0]).abs().max() < 0.51 / 127.5


def test_rectangular_stages_have_pools_too(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PART_IMAGES", 2)
    base = DiffusionStage.build(
        Contract(Space(size_px=(8, 16)), (Labels(fields={"class": ["red", "blue"]}),)),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8, 16), "blocks": 1},
        sampling=SamplingSettings(steps=2),
    )
    contract = Contract(Space(size_px=(16, 32)), (LowResolution(size_px=(8, 16)),))
    images = TrainingImages(FolderSource(pictures), contract, crop_px=8)
    images.generated = pool_of(base, images, tmp_path, count=4, fraction=1.0)
    assert images.generated.images.shape == (4, 3, 8, 16)
    assert images[0].image.shape == (3, 8, 8)
    assert images[0].conditions[NAME].shape == (3, 4, 4)


def test_what_is_measured_is_made_from_the_true_image_alone(images):
    """Else a run with a pool would be measured on inputs that other stages generated."""
    true = [images.fixed()[place].conditions[NAME] for place in range(4)]
    indices, pool = torch.arange(len(images.source)), torch.zeros(len(images.source), 3, 16, 16)
    images.generated = GeneratedImages(NAME, indices, pool.to(torch.uint8), 1.0)
    for place, expected in enumerate(true):
        assert images[place].conditions[NAME].eq(-1).all()
        assert images.fixed()[place].conditions[NAME].equal(expected)


def test_stages_that_do_not_join_are_refused(base, pictures, tmp_path):
    words = "'the previous stage' gives size_px 16x16, 'this stage' takes 8x8"
    with pytest.raises(ContractError, match=words):
        pool_of(base, images_of(pictures, low_res_px=8), tmp_path, count=2, fraction=0.5)


def test_a_pool_for_a_condition_that_takes_none_is_refused(base, pictures, tmp_path):
    grey = TrainingImages(FolderSource(pictures), Contract(Space(size_px=16), (Luminance(),)))
    for name in ("low_resolution", "luminance"):
        with pytest.raises(ContractError, match=f"no condition {name!r} to make images for"):
            generated_pool(base, grey, tmp_path, condition=name, count=2, fraction=0.5)


def test_an_upsampler_trains_on_a_mixture_and_resumes(make_trainer, tmp_path, trained):
    generated = "condition.low_resolution.generated"
    values = [
        f"{generated}.fraction=0.5",
        f"{generated}.images=8",
        "train.images=64",
        "data.crop_px=null",
    ]
    by = f"{generated}.by={trained.base}"
    options = {"recipe": "tiny-16-to-32"}
    trainer = make_trainer(tmp_path, *values, by, **options)
    assert trainer.images.generated is not None
    trainer.run()
    again = make_trainer(tmp_path, *values, by, "train.images=96", **options)
    assert again.state.images_seen == 64
    with pytest.raises(ValueError, match=r"data\.generated_fraction=0\.5 \(now 0\.25\)"):
        make_trainer(tmp_path, *values, by, f"{generated}.fraction=0.25", **options)


def test_a_mixture_needs_to_know_who_makes_it(make_trainer, tmp_path):
    key = "condition.low_resolution.generated"
    with pytest.raises(RecipeError, match=rf"{key}\.fraction needs {key}\.by"):
        make_trainer(tmp_path, f"{key}.fraction=0.5", recipe="tiny-16-to-32")
