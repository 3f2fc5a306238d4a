"""Training a stage whose network is a module of one's own, on images that are not square."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
import torch
from run_own_network import Normed
from run_own_network import images as tensors
from run_own_network import make_trainer as train_normed
from torch import nn

from cascade.conditioning.labels import Labels
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.data.sources import FolderSource
from cascade.data.training_images import TrainingImages
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import WeightsError
from cascade.networks.stage_network import MODULES
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space
from cascade.stage_kinds import load_stage
from cascade.training.image_list import FILE, OtherImagesError
from cascade.training.settings import TrainingSettings
from cascade.training.starting_point import start_from
from cascade.training.trainer import Trainer

SCRIPT = Path(__file__).with_name("run_own_network.py")
NAMES = ["blue", "red", "red-dot"]


class Convolution(nn.Module):
    """Adds a colour for the class to what a convolution makes of both images."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {}
        self.layer = nn.Conv2d(6, 3, 3, padding=1)
        self.colours = nn.Embedding(4, 3)

    def forward(self, x_t, t, signals):
        images = torch.cat([x_t, signals.channels["low_resolution"].image], dim=1)
        colours = self.colours(signals.vectors["labels"][:, 0] % 4)
        return self.layer(images) + colours[..., None, None]


@pytest.fixture
def known(monkeypatch):
    """Enters the network into the table of those that can be loaded."""
    monkeypatch.setitem(MODULES, "convolution", Convolution)


def make_stage(names: list[str] = NAMES) -> DiffusionStage:
    torch.manual_seed(0)
    low_resolution = LowResolution(size_px=(8, 12), augmentation_range=(0.0, 0.5), drop=0.2)
    contract = Contract(Space(size_px=(16, 24)), (Labels(fields={"class": names}), low_resolution))
    process = NoiseProcess(NoiseSchedule(train_steps=100))
    return DiffusionStage(Convolution(), process, contract, sampling=SamplingSettings(steps=2))


def make_trainer(pictures, out, images: int) -> Trainer:
    stage = make_stage()
    settings = TrainingSettings(
        images=images,
        batch_size=8,
        warmup_images=8,
        schedule="constant",
        precision="fp32",
        checkpoint_every_images=1000,
        sample_every_images=24,
        sample_count=4,
        trackers=(),
    )
    data = TrainingImages(FolderSource(pictures), stage.contract)
    return Trainer(stage, data, out, settings)


def test_a_run_resumes_exactly_and_leaves_a_stage_that_can_be_loaded(known, pictures, tmp_path):
    whole = make_trainer(pictures, tmp_path / "whole", 48)
    whole.run()
    make_trainer(pictures, tmp_path / "parts", 24).run()
    resumed = make_trainer(pictures, tmp_path / "parts", 48)
    assert resumed.state.images_seen == 24
    resumed.run()
    for mine, theirs in zip(
        resumed.state.ema.shadow_params, whole.state.ema.shadow_params, strict=True
    ):
        assert mine.equal(theirs)
    loaded = load_stage(tmp_path / "parts" / "stage")
    assert loaded.contract == make_stage().contract
    for parameter, value in zip(loaded.parameters(), resumed.state.ema.shadow_params, strict=True):
        assert parameter.equal(value)
    assert sorted(path.name for path in (tmp_path / "parts" / "samples").iterdir()) == [
        "000000000024.png",
        "000000000048.png",
    ]


def test_a_parameter_that_gets_no_gradient_is_left_alone_when_a_run_resumes(tmp_path):
    trainers = {}
    for out, images in (("whole", 64), ("parts", 32), ("parts", 64)):
        torch.manual_seed(0)
        module = Normed(dropout=0.0, unused=True)
        before = module.get_parameter("unused.weight").clone()
        trainers[out] = train_normed(tmp_path / out, module, images=images, weight_decay=0.1)
        trainers[out].run()
        assert module.get_parameter("unused.weight").equal(before)
    stages = [trainers[out].state.stage.state_dict() for out in ("whole", "parts")]
    assert trainers["parts"].state.steps == 4
    unused = {f"network.module.unused.{name}" for name in ("weight", "bias")}
    for name in stages[0].keys() - unused:
        assert stages[0][name].equal(stages[1][name]), name


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_a_run_with_dropout_resumes_exactly(tmp_path, accumulation_steps):
    states = []
    for out, images in (("whole", 64), ("parts", 32), ("parts", 64)):
        torch.manual_seed(0)
        trainer = train_normed(
            tmp_path / out, Normed(), images=images, accumulation_steps=accumulation_steps
        )
        torch.rand(images)  # whatever draws from torch's own generator in between
        trainer.run()
        states.append(trainer.state.stage.state_dict())
    for name, value in states[0].items():
        assert states[2][name].equal(value), name


def test_each_step_and_process_has_masks_of_its_own(server, tmp_path):
    masks = []
    for images in (16, 32):
        out = tmp_path / str(images)
        assert server.run([out, images], tmp_path / "said", 2, script=SCRIPT) == [0, 0]
        masks += [torch.load(f"{out}.{rank}.pt")["masks"] for rank in range(2)]
    assert len({tuple(mask.tolist()) for mask in masks}) == 4


def test_other_tensors_are_told(tmp_path, caplog):
    """They may be the same ones, with rare augmentation."""
    train_normed(tmp_path, images=32).run()
    assert train_normed(tmp_path, data=tensors()).state.images_seen == 32
    assert "not those that the run began with" not in caplog.text
    trainer = train_normed(tmp_path, data=[-each for each in tensors()])
    assert trainer.state.images_seen == 32
    assert "it is another data set, or draws random numbers in __getitem__" in caplog.text
    with pytest.raises(OtherImagesError, match="on 32 images, and the data now has 31"):
        train_normed(tmp_path, data=tensors()[1:])


def test_a_run_whose_data_set_rarely_augments_resumes(tmp_path):
    numbers = random.Random(0)

    class Mirrored(list):
        def __getitem__(self, index):
            each = super().__getitem__(index)
            return each.flip(-1) if numbers.random() < 0.05 else each

    train_normed(tmp_path, images=32, data=Mirrored(tensors())).run()
    for _ in range(8):
        assert train_normed(tmp_path, data=Mirrored(tensors())).state.images_seen == 32


def test_tensors_do_not_take_the_place_of_files(tmp_path):
    train_normed(tmp_path, images=32).run()
    (tmp_path / FILE).write_bytes(gzip.compress(b'["a", 1]\n'))
    with pytest.raises(OtherImagesError, match="1 removed"):
        train_normed(tmp_path, data=[-each for each in tensors()])


def test_one_that_could_not_be_loaded_again_is_refused_before_the_training(pictures, tmp_path):
    with pytest.raises(WeightsError, match="Convolution could not be loaded again: add its"):
        make_trainer(pictures, tmp_path / "run", 48)
    assert not (tmp_path / "run").exists()


def test_a_run_starts_from_its_weights_only_with_the_same_names():
    """Where the network keeps the embedding of a class, only the network knows."""
    trained, stage = make_stage(), make_stage()
    with torch.no_grad():
        trained.network.module.colours.weight.fill_(2.0)
    start_from(stage, trained)
    assert (stage.network.module.colours.weight == 2).all()
    with pytest.raises(WeightsError, match="the names of 'class' differ"):
        start_from(make_stage(["red", "blue", "red-dot"]), trained)
