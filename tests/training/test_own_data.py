"""Training on data sets of tensors."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from cascade.data.training_images import TrainingImages
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import CascadeError, DataError
from cascade.training.settings import TrainingSettings
from cascade.training.trainer import Trainer

SETTINGS = TrainingSettings(
    images=64,
    batch_size=8,
    warmup_images=8,
    schedule="constant",  # the others depend on the number of images
    precision="fp32",
    sample_every_images=64,
    sample_count=2,
    checkpoint_every_images=64,
    trackers=(),
)


class Colours(Dataset):
    """Plain images with two labels."""

    def __init__(self, count: int = 20, size_px: int = 16) -> None:
        self.count, self.size_px = count, size_px

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        side = self.size_px
        image = torch.linspace(-1, 1, 3 * side * side).roll(index * 7).view(3, side, side)
        return {"image": image, "labels": {"animal": index % 2, "style": "noto"}}


def train(stage: DiffusionStage, out: Path, data: object = None, **changes) -> Trainer:
    settings = dataclasses.replace(SETTINGS, **changes)
    trainer = Trainer(stage, data or Colours(), out, settings)  # pyright: ignore
    trainer.run()
    return trainer


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_trains_and_resumes_exactly(base_stage, tmp_path, workers):
    whole = train(copy.deepcopy(base_stage), tmp_path / "whole")
    train(copy.deepcopy(base_stage), tmp_path / "parts", images=32, workers=workers)
    again = train(copy.deepcopy(base_stage), tmp_path / "parts", workers=workers)
    assert again.state.images_seen == 64
    pairs = zip(whole.state.stage.parameters(), again.state.stage.parameters(), strict=True)
    assert all(a.equal(b) for a, b in pairs)
    assert not (tmp_path / "whole" / "images.jsonl.gz").exists()  # they have no names


def test_an_upsampler_makes_its_small_images_from_the_data_set(upsampler, tmp_path):
    trainer = train(upsampler, tmp_path, Colours(size_px=32), images=16, sample_every_images=16)
    assert trainer.images[0].conditions["low_resolution"].shape == (3, 16, 16)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["000000000016.png"]


def test_a_grown_data_set_is_another_run(base_stage, tmp_path):
    train(base_stage, tmp_path, images=16)
    with pytest.raises(CascadeError) as error:
        Trainer(base_stage, Colours(21), tmp_path, SETTINGS)
    assert str(error.value) == (
        f"{tmp_path} was trained on 20 images, and the data now has 21. A run resumes only with "
        "its own images and labels; restore them, or start another run in another folder."
    )


def test_a_run_without_a_recipe_logs_and_records_the_settings_that_change(
    base_stage, tmp_path, caplog
):
    train(base_stage, tmp_path, images=16)
    caplog.set_level("INFO")
    train(base_stage, tmp_path, images=32, learning_rate=1e-5)
    lines = [record.getMessage() for record in caplog.records]
    changes = ["images=32, which was 16", "learning_rate=1e-05, which was 0.0003"]
    assert lines == [
        f"resuming {tmp_path} at image 16 of 32, with the weights, averages and optimiser of "
        "checkpoints/000000000016.",
        *(f"resuming with {change}." for change in changes),
    ]
    parts = json.loads((tmp_path / "about.json").read_text())["parts"]
    assert [part["changes"] for part in parts] == [[], changes]
    assert f"with {changes[1]}" in (tmp_path / "report.html").read_text()


def test_what_does_not_fit_leaves_no_run(base_stage, tmp_path):
    with pytest.raises(DataError, match=r"must be \(3, H, W\)"):
        Trainer(base_stage, [torch.zeros(16, 16)] * 8, tmp_path / "run", SETTINGS)
    assert not (tmp_path / "run").exists()


def test_crops_and_flips_are_chosen_by_training_images(base_stage, tmp_path):
    images = TrainingImages(Colours(), base_stage.contract, crop_px=8, flip=())
    assert train(base_stage, tmp_path, images, images=16, sample_every_images=0).images is images


def test_a_trained_stage_can_be_trained_further(base_stage, tmp_path):
    settings = dataclasses.replace(SETTINGS, images=8, sample_every_images=0)
    frozen = next(base_stage.parameters()).requires_grad_(False)
    flags = [parameter.requires_grad for parameter in base_stage.parameters()]
    stage = Trainer(base_stage, Colours(), tmp_path / "run", settings).run()
    assert [parameter.requires_grad for parameter in stage.parameters()] == flags
    assert any(flags)
    assert not frozen.requires_grad
    before = copy.deepcopy(stage)
    further = Trainer(stage, Colours(), tmp_path / "further", settings).run()
    pairs = zip(before.parameters(), further.parameters(), strict=True)
    assert not all(a.equal(b) for a, b in pairs)
