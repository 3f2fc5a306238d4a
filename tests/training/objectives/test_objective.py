"""Objectives by name, the module that DDP wraps, and the denoising loss in closed form."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cascade.conditioning.batch import Batch
from cascade.contract import Contract
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.space import Space
from cascade.training.objectives.denoising import Denoising
from cascade.training.objectives.objective import Learner, Objective
from cascade.training.objectives.table import OBJECTIVES, make_objective


class Constant(nn.Module):
    """Predicts the same number everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x_t, t, signals):
        return self.value.expand_as(x_t)


def constant_stage(value: float, **options) -> DiffusionStage:
    process = NoiseProcess(NoiseSchedule(train_steps=100), **options)
    return DiffusionStage(Constant(value), process, Contract(Space(size_px=8)))


@pytest.fixture
def batch() -> Batch:
    """Five images of 8 px."""
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Batch(images=images, seeds=(3, 1, 4, 15, 9))


def test_every_name_of_the_table_makes_its_objective_and_others_the_nearest_name():
    for name, kind in OBJECTIVES.items():
        assert type(make_objective(name)) is kind
    with pytest.raises(ContractError, match="unknown objective 'denoisng': did you mean 'denois"):
        make_objective("denoisng")


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_the_loss_of_a_constant_is_its_distance_from_what_is_asked_for(prediction, batch):
    stage = constant_stage(0.25, prediction=prediction)
    t = torch.tensor([0, 10, 50, 90, 98])
    alpha, sigma = stage.process.schedule.alpha_sigma(t)
    eps = SeededNoise(batch.seeds, "train noise").normal(3, 8, 8)
    targets = {"eps": eps, "x0": batch.images, "v": alpha * eps - sigma * batch.images}
    expected = ((0.25 - targets[prediction]) ** 2).mean(dim=(1, 2, 3))
    loss = Denoising().loss_at(stage, batch, t)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_timesteps_are_drawn_from_the_seeds_as_the_process_says(batch):
    stage = constant_stage(0.0)
    draws = SeededNoise(batch.seeds, "train").uniform().view(-1)
    drawn = Denoising().loss_at(stage, batch, stage.process.draw_timesteps(draws))
    assert Denoising().loss(stage, batch).equal(drawn)
    last = constant_stage(0.0, timesteps="last")
    at_end = Denoising().loss_at(last, batch, torch.full((5,), 99))
    assert Denoising().loss(last, batch).equal(at_end)


def test_what_ddp_wraps_is_a_learner_with_the_parameters_of_its_stage(batch, tmp_path):
    stage = constant_stage(0.5)
    learner = Learner(stage, Denoising())
    assert list(map(id, learner.parameters())) == list(map(id, stage.parameters()))
    Denoising().loss(stage, batch).mean().backward()
    expected = stage.network.module.value.grad.clone()
    stage.zero_grad()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        loss = DistributedDataParallel(learner)(batch)
        assert loss.detach().equal(Denoising().loss(stage, batch).detach())
        loss.mean().backward()
    finally:
        dist.destroy_process_group()
    torch.testing.assert_close(stage.network.module.value.grad, expected)


def test_a_trainer_trains_a_learner_of_the_named_objective(make_trainer, tmp_path, monkeypatch):
    class Other(Objective):
        def check(self, stage):
            """Any stage."""

        def loss(self, stage, batch):
            total = sum(each.sum() for each in stage.parameters())
            return total.expand(len(batch)) * 0 + 7

    monkeypatch.setitem(OBJECTIVES, "seven", Other)
    lines: list[dict[str, float]] = []
    trainer = make_trainer(
        tmp_path, "train.objective=seven", "train.images=160", report=lines.append
    )
    assert isinstance(trainer.model, Learner)
    assert isinstance(trainer.model.objective, Other)
    assert trainer.model.stage is trainer.state.stage
    trainer.run()
    assert lines[0]["loss"] == 7
