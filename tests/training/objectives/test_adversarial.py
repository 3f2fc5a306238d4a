"""Stage and discriminator each learn by their own term alone, and only in training."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_autoencoders import linear_stage
from torch import Tensor, nn
from torch.nn.functional import relu

from cascade.autoencoder_stage import AutoencoderStage
from cascade.conditioning.batch import Batch
from cascade.devices import autocast
from cascade.errors import ContractError
from cascade.space import Space
from cascade.training.objectives.adversarial import deceiving_loss, discerned, discerning_loss
from cascade.training.objectives.autoencoding import Autoencoding, restore
from cascade.training.validation_figures import losses

CPU = torch.device("cpu")
OPTIONS = {"channels": [8, 8], "norm_groups": 4}


@pytest.fixture(params=[1, 3], ids=lambda channels: f"{channels} channels")
def stage(request) -> AutoencoderStage:
    torch.manual_seed(0)
    return AutoencoderStage.build(
        Space(size_px=16, channels=request.param), network_options=OPTIONS
    )


def batch_for(stage: AutoencoderStage, count: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, stage.space.channels, 16, 16, generator=generator) * 2 - 1
    return Batch(images=images, seeds=tuple(range(count)))


def begun(stage: AutoencoderStage, share: float = 0.5, **values: float) -> Autoencoding:
    """An objective with a discriminator, at a share of its run."""
    objective = Autoencoding(**{"adversarial_weight": 0.3, **values})
    objective.begin(stage, CPU)
    objective.set_progress(share)
    return objective


def discriminator_of(objective: Autoencoding) -> nn.Module:
    assert objective.learned is not None
    return objective.learned


def gradients(module: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(module.parameters()), retain_graph=True))


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert max(float(each.abs().max()) for each in theirs) > 1e-4
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


# ---- who learns what ----------------------------------------------------------------------------


def test_the_stage_learns_to_raise_the_logits_of_a_frozen_discriminator(stage):
    objective, batch = begun(stage), batch_for(stage)
    discriminator = discriminator_of(objective)
    ours = gradients(stage, objective.loss(stage, batch).sum())
    plain = gradients(stage, Autoencoding().loss(stage, batch).sum())
    for parameter in discriminator.parameters():
        parameter.requires_grad_(False)
    logits = discriminator(restore(stage, batch)[0])
    theirs = gradients(stage, -0.3 * logits.flatten(1).mean(dim=1).sum())
    assert_same([a - b for a, b in zip(ours, plain, strict=True)], theirs)


def test_the_discriminator_learns_by_the_plain_hinges(stage):
    objective, batch = begun(stage), batch_for(stage)
    discriminator = discriminator_of(objective)
    ours = gradients(discriminator, objective.loss(stage, batch).sum())
    with torch.no_grad():
        restored, _ = restore(stage, batch)
    hinges = relu(1 - discriminator(batch.images)) + relu(1 + discriminator(restored))
    assert_same(ours, gradients(discriminator, hinges.mean(dim=(1, 2, 3)).sum()))


def test_logits_beyond_the_hinges_teach_the_discriminator_nothing():
    class Sure(nn.Module):
        """The value of a picture times a weight."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(2.0))

        def forward(self, pictures: Tensor) -> Tensor:
            return self.weight * pictures

    sure, one = Sure(), torch.ones(2, 1, 4, 4)
    loss = discerning_loss(sure, -one, one)
    assert loss.tolist() == [0, 0]
    assert float(gradients(sure, loss.sum())[0]) == 0
    assert discerning_loss(sure, one, -one).tolist() == [6, 6]  # 1 + 2 for each of both
    assert float(gradients(sure, discerning_loss(sure, one, -one).sum())[0]) == 4
    assert deceiving_loss(sure, one).tolist() == [-2, -2]
    mixed = torch.cat([one[:1], -one[:1]])
    assert discerned(sure, mixed, one) == {"discerned_true": 1, "discerned_restored": 0.5}


# ---- when it has a part in the loss -------------------------------------------------------------


def test_without_a_weight_the_loss_is_that_without_a_discriminator_bit_by_bit(stage):
    objective, batch = begun(stage, adversarial_weight=0.0), batch_for(stage)
    assert objective.learned is None
    assert objective.loss(stage, batch).equal(Autoencoding().loss(stage, batch))
    assert objective.identity() == Autoencoding().identity()


@pytest.mark.parametrize("start", [0.0, 0.5, 0.9])
def test_it_begins_after_its_share_of_the_run(stage, start):
    batch = batch_for(stage)
    plain = Autoencoding().loss(stage, batch)
    for share in (0.0, 0.49, 0.5, 0.89, 0.9, 0.99):
        objective = begun(stage, share, adversarial_start=start)
        loss = objective.loss(stage, batch)
        assert loss.equal(plain) == (share < start)
        loss.sum().backward()
        learns = [each.grad is not None for each in discriminator_of(objective).parameters()]
        assert set(learns) == {share >= start}


def test_where_the_loss_is_measured_it_has_no_part(stage):
    objective, batch = begun(stage), batch_for(stage)
    plain = losses(stage.eval(), Autoencoding(), batch)
    assert losses(stage, objective, batch).equal(plain)
    assert not losses(stage.train(), objective, batch).equal(plain)


def test_the_loss_of_an_image_does_not_depend_on_its_batch_mates(stage):
    objective, batch = begun(stage), batch_for(stage)
    alone = [objective.loss(stage, part) for part in batch.parts(len(batch))]
    torch.testing.assert_close(objective.loss(stage, batch), torch.cat(alone))


def test_its_first_weights_follow_from_the_seed_alone_and_change_no_other_draw(stage):
    def drawn(seed: int, draws: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        torch.rand(draws)
        objective = begun(stage)
        weights = [each.flatten() for each in discriminator_of(objective).parameters()]
        return torch.cat(weights).detach(), torch.rand(1)

    weights, later = drawn(5, draws=1)
    torch.manual_seed(5)
    assert torch.rand(2)[1:].equal(later)
    assert drawn(5, draws=3)[0].equal(weights)
    assert not drawn(6, draws=1)[0].equal(weights)


def test_half_precision_trains_it_too(stage):
    objective, batch = begun(stage), batch_for(stage)
    with autocast(CPU, "bf16"):
        loss = objective.loss(stage, batch)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, objective.loss(stage, batch), rtol=0.1, atol=0.1)


def test_a_stage_without_distributions_learns_with_it():
    stage = AutoencoderStage.build(
        Space(size_px=16), network="autoencoder_tiny", network_options={"width": 8, "levels": 1}
    )
    plain, objective = Autoencoding(beta=0.0), begun(stage, beta=0.0)
    batch = batch_for(stage)
    objective.check(stage)
    difference = objective.loss(stage, batch) - plain.loss(stage, batch)
    restored, _ = restore(stage, batch)
    discriminator = discriminator_of(objective)
    expected = 0.3 * deceiving_loss(discriminator, restored)
    expected += discerning_loss(discriminator, restored, batch.images)
    torch.testing.assert_close(difference, expected)


def test_the_meters_tell_true_patches_from_restored_ones_once_it_has_begun(stage):
    batch = batch_for(stage)
    early = begun(stage, 0.4).meters(stage, batch, batch.images, "fp32")
    assert not [name for name in early if name.startswith("discerned")]
    objective = begun(stage)
    discriminator = discriminator_of(objective)
    meters = objective.meters(stage, batch, batch.images, "fp32")
    share = float((discriminator(batch.images) > 0).float().mean())
    assert meters["discerned_true"] == pytest.approx(share)
    assert meters["discerned_restored"] == pytest.approx(1 - share)  # the same pictures


# ---- what does not fit --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"adversarial_weight": -0.1}, "adversarial_weight must be a number of at least 0, got"),
        ({"adversarial_weight": math.nan}, "adversarial_weight must be a number of at least 0"),
        ({"adversarial_weight": math.inf}, "adversarial_weight must be a number of at least 0"),
        ({"adversarial_start": 1.0}, "adversarial_start must be at least 0 and below 1, got 1.0"),
        ({"adversarial_start": -0.1}, "adversarial_start must be at least 0 and below 1"),
        ({"adversarial_start": math.nan}, "adversarial_start must be at least 0 and below 1"),
    ],
)
def test_wrong_values_are_refused(values, message):
    with pytest.raises(ContractError, match=message):
        Autoencoding(**values)


def test_pictures_and_crops_that_are_too_small_are_refused_before_it_begins(stage):
    with pytest.raises(ContractError, match="needs images of at least 8x8 px, got 1x1"):
        Autoencoding(adversarial_weight=0.1).check(linear_stage(5, 2))
    batch = batch_for(stage)
    crops = Batch(images=batch.images[..., :4], seeds=batch.seeds)
    with pytest.raises(ContractError, match="needs images of at least 8x8 px, got 16x4"):
        begun(stage, 0.0).loss(stage, crops)
