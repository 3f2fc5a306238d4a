"""The loss of a diffusion stage: what it draws, what it drops, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from cascade.conditioning.batch import Batch
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.resizing import resize
from cascade.training.objectives.denoising import Denoising
from cascade.training.objectives.objective import Learner

denoising = Denoising()


@pytest.fixture
def batch(low_res, labels):
    """Four images of 32 px with labels."""
    images = resize(low_res[:4], (32, 32), "bilinear")
    return Batch(images=images, seeds=(3, 4, 5, 6), conditions={"labels": labels[:4]})


def part(batch, places):
    return Batch(
        images=batch.images[places],
        seeds=tuple(torch.tensor(batch.seeds)[places].tolist()),
        conditions={name: each[places] for name, each in batch.conditions.items()},
    )


# ---- what is drawn ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["base_stage", "upsampler", "colouriser"])
def test_loss_of_an_image_depends_on_its_seed_alone(name, batch, request):
    stage = request.getfixturevalue(name)
    together = denoising.loss(stage, batch)
    assert together.shape == (4,)
    for i in range(4):
        alone = denoising.loss(stage, part(batch, slice(i, i + 1)))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-6)
    reordered = denoising.loss(stage, part(batch, [3, 0, 2, 1]))
    torch.testing.assert_close(together[[3, 0, 2, 1]], reordered, rtol=1e-4, atol=1e-6)


def test_a_learner_gives_the_loss_of_its_stage(base_stage, batch):
    assert Learner(base_stage, denoising)(batch).equal(denoising.loss(base_stage, batch))


def test_given_timesteps_replace_the_drawn_ones_and_nothing_else(upsampler, batch, record):
    calls = record(upsampler)
    denoising.loss(upsampler, batch)
    drawn = calls[0][1]
    denoising.loss_at(upsampler, batch, drawn)
    denoising.loss_at(upsampler, batch, torch.tensor([0, 5, 50, 99]))
    (first, _, signals), (again, _, _), (x_t, t, same_signals) = calls
    assert again.equal(first)
    assert t.tolist() == [0, 5, 50, 99]
    schedule = upsampler.process.schedule
    alpha, sigma = schedule.alpha_sigma(drawn)
    eps = (first - alpha * batch.images) / sigma
    expected = schedule.add_noise(batch.images, eps, t)
    torch.testing.assert_close(x_t, expected, rtol=1e-3, atol=1e-4)
    level, same_level = (each.vectors["low_resolution"] for each in (signals, same_signals))
    assert same_level.equal(level)
    image, same_image = (each.channels["low_resolution"].image for each in (signals, same_signals))
    assert same_image.equal(image)


def test_each_image_has_its_own_timestep_and_level(upsampler, batch, record):
    calls = record(upsampler)
    denoising.loss(upsampler, batch)
    ((_, t, signals),) = calls
    assert len(set(t.tolist())) == 4
    assert len(set(signals.vectors["low_resolution"].tolist())) == 4


def test_a_condition_more_changes_no_other_draw(upsampler, batch, record):
    calls = record(upsampler)
    without = Contract(upsampler.space, upsampler.conditions[1:])
    assert [each.name for each in without.conditions] == ["low_resolution"]
    denoising.loss(upsampler, batch)
    denoising.loss(DiffusionStage(upsampler.network, upsampler.process, without), batch)
    (x_t, t, signals), (same_x_t, same_t, same_signals) = calls
    assert same_x_t.equal(x_t)
    assert same_t.equal(t)
    assert set(same_signals.vectors) == {"low_resolution"}
    for mine, theirs in (
        (signals.vectors["low_resolution"], same_signals.vectors["low_resolution"]),
        (signals.channels["low_resolution"].image, same_signals.channels["low_resolution"].image),
    ):
        assert mine.equal(theirs)


@pytest.mark.parametrize(
    ("label_drop", "image_drop", "field", "both", "image"),
    [(0.0, 0.0, 0, 0, 0), (1.0, 1.0, 1, 1, 1), (0.2, 0.3, 0.36, 0.2 + 0.8 * 0.04, 0.3)],
)
def test_conditions_are_dropped_as_often_as_asked_and_independently(
    upsampler, reconditioned, record, label_drop, image_drop, field, both, image
):
    stage = reconditioned(upsampler, "labels", drop=label_drop)
    stage = reconditioned(stage, "low_resolution", drop=image_drop)
    calls = record(stage)
    images = torch.ones(1000, 3, 4, 4)
    labels = torch.zeros(1000, 2, dtype=torch.long)
    seeds = tuple(range(1000))
    denoising.loss(stage, Batch(images=images, seeds=seeds, conditions={"labels": labels}))
    ((_, _, signals),) = calls
    dropped = signals.vectors["labels"] == -1
    emptied = (signals.channels["low_resolution"].image == 0).flatten(1).all(dim=1)
    assert emptied.equal(signals.vectors["low_resolution"] == 1)
    for rate, expected in (
        *((dropped[:, i], field) for i in range(2)),
        (dropped.all(dim=1), both),
        (emptied, image),
        (emptied & dropped.all(dim=1), both * image),
    ):
        tolerance = 5 * math.sqrt(expected * (1 - expected) / 1000)
        assert rate.float().mean().item() == pytest.approx(expected, abs=tolerance)


# ---- what the loss is ---------------------------------------------------------------------------


class Oracle(nn.Module):
    """Knows the clean images, and predicts exactly what the process asks for."""

    def __init__(self, process, x0):
        super().__init__()
        self.process, self.x0 = process, x0

    def forward(self, x_t, t, signals):
        return self.process.target(self.x0, self.process.eps(self.x0, x_t, t), t)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_an_oracle_has_no_loss_and_the_batch_stays_as_it_was(upsampler, batch, low_res, prediction):
    process = NoiseProcess(upsampler.process.schedule, prediction=prediction)
    stage = DiffusionStage(Oracle(process, batch.images.clone()), process, upsampler.contract)
    batch = Batch(
        images=batch.images.clone(),
        seeds=batch.seeds,
        conditions={
            "labels": batch.conditions["labels"].clone(),
            "low_resolution": low_res[:4].clone(),
        },
    )
    tensors = (batch.images, *batch.conditions.values())
    copies = [tensor.clone() for tensor in tensors]
    assert denoising.loss(stage, batch).max() < 1e-6
    for tensor, copied in zip(tensors, copies, strict=True):
        assert tensor.equal(copied)


# ---- what is refused ----------------------------------------------------------------------------


def test_a_batch_with_too_few_seeds_is_refused(base_stage, batch):
    with pytest.raises(ContractError, match="1 seeds for 4 images"):
        denoising.loss(
            base_stage, Batch(images=batch.images, seeds=(1,), conditions=batch.conditions)
        )


@pytest.mark.parametrize(
    ("images", "conditions", "message"),
    [
        ((4, 1, 32, 32), {}, r"must be \(B, 3, H, W\), got \(4, 1, 32, 32\)"),
        ((4, 3, 32, 32), {"labels": None}, "class-conditional, but the batch has no labels"),
        ((4, 3, 32, 32), {"low_resolution": torch.zeros(4, 3, 8, 8)}, "must be 16x16 px, got 8x8"),
    ],
)
def test_batches_that_do_not_fit_are_refused(upsampler, batch, images, conditions, message):
    conditions = {**batch.conditions, **conditions}
    conditions = {name: each for name, each in conditions.items() if each is not None}
    with pytest.raises(ContractError, match=message):
        denoising.loss(
            upsampler,
            Batch(images=torch.zeros(images), seeds=batch.seeds, conditions=conditions),
        )
