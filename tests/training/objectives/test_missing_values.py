"""The loss of images with missing values, which leaves them out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from cascade.conditioning.assembling import training_signals
from cascade.conditioning.batch import Batch
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.mask import Mask
from cascade.contract import Contract
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion.variance import variational_terms
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.space import Space
from cascade.training.objectives.autoencoding import Autoencoding
from cascade.training.objectives.consistency import Consistency
from cascade.training.objectives.denoising import Denoising

SPACE = Space(size_px=16, channels=2, range=(0, 1000))
UPSAMPLER = (LowResolution(size_px=8, augmentation_range=(0.0, 0.5)),)
T = torch.tensor([0, 30, 99])


def stage_of(*conditions, **process) -> DiffusionStage:
    torch.manual_seed(0)
    return DiffusionStage.build(
        Contract(SPACE, conditions),
        NoiseProcess(NoiseSchedule("cosine", train_steps=100), **process),
        network_options={"channels": (8, 16), "blocks": 1, "patch_size": 2},
        embedding_dim=16,
    )


@pytest.fixture
def batch() -> Batch:
    """Three images of two bands: one without a corner and a row, one complete, one mostly lost."""
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(3, 2, 16, 16, generator=generator) * 2 - 1
    known = torch.ones(3, 2, 16, 16, dtype=torch.bool)
    known[0, 0, :5, :7] = False
    known[0, 1, 11] = False
    known[2] = torch.rand(2, 16, 16, generator=generator) < 0.02
    return Batch(images=images, seeds=(5, 6, 7), known=known)


def terms(stage: DiffusionStage, batch: Batch, t: Tensor) -> Tensor:
    """What the loss averages, at every value (B, C, H, W), by the formulas of the papers."""
    x0, process = batch.images, stage.process
    eps = SeededNoise(batch.seeds, "train noise").normal(*x0.shape[1:])
    x_t = process.schedule.add_noise(x0, eps, t)
    signals = training_signals(stage.conditions, batch, stage.space)
    prediction, variance = process.split(stage.predict(x_t, t, signals))
    values = process.weight(t) * (prediction - process.target(x0, eps, t)) ** 2
    if variance is None:
        return values
    x0_hat = process.x0(prediction, x_t, t).detach()
    bound = variational_terms(process.schedule, x0, x0_hat, x_t, t, variance)
    return values + 1e-3 * process.schedule.train_steps * bound


@pytest.mark.parametrize(
    ("conditions", "process"),
    [
        ((), {"prediction": "v"}),
        ((), {"prediction": "v", "learned_variance": True}),
        (UPSAMPLER, {"prediction": "x0", "weighting": "velocity"}),
        (UPSAMPLER, {"prediction": "x0", "weighting": "residual", "residual_std": 0.3}),
    ],
)
def test_the_loss_is_the_mean_over_the_known_values_of_each_image(
    batch, fill_zeros, conditions, process
):
    stage = fill_zeros(stage_of(*conditions, **process))
    losses = Denoising().loss_at(stage, batch, T)
    each = terms(stage, batch, T)
    assert batch.known is not None
    expected = [each[i][batch.known[i]].mean().item() for i in range(3)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-4)
    plain = Denoising().loss_at(stage, replace(batch, known=None), T)
    assert plain.tolist() == pytest.approx(each.mean(dim=(1, 2, 3)).tolist(), rel=1e-4)
    assert abs(plain[0].item() / losses[0].item() - 1) > 1e-4


def test_a_hole_to_fill_counts_where_it_is_known(batch, fill_zeros):
    stage = fill_zeros(stage_of(Mask(), prediction="v"))
    losses = Denoising().loss_at(stage, batch, T)
    hole = Mask().input_of(batch, SPACE)[:, -1:] < 0  # (B, 1, H, W)
    assert batch.known is not None
    counted = batch.known & hole
    each = terms(stage, batch, T)
    assert losses[0].item() == pytest.approx(float(each[0][counted[0]].mean()), rel=1e-4)


@pytest.mark.parametrize("learned_variance", [False, True])
def test_values_and_gradients_do_not_depend_on_the_target_where_it_is_missing(
    batch, learned_variance
):
    schedule = NoiseSchedule("cosine", train_steps=100)
    process = NoiseProcess(schedule, learned_variance=learned_variance)
    eps = SeededNoise(batch.seeds, "train noise").normal(2, 16, 16)
    x_t = schedule.add_noise(batch.images, eps, T)
    channels = process.output_channels(2)
    output = torch.randn(3, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    assert batch.known is not None
    results = []
    for fill in (batch.images, torch.zeros(1), torch.full((1,), 0.7)):
        x0 = torch.where(batch.known, batch.images, fill)
        guess = output.clone().requires_grad_()
        losses = process.loss(guess, x0, x_t, eps, T, counted=batch.known.float())
        losses.sum().backward()
        assert guess.grad is not None
        missing = ~batch.known.repeat(1, channels // 2, 1, 1)
        assert not guess.grad[missing].any()
        assert (guess.grad[~missing] != 0).float().mean() > 0.9
        results.append((losses, guess.grad))
    for losses, gradient in results[1:]:
        assert losses.equal(results[0][0])
        assert gradient.equal(results[0][1])


class Pointwise(nn.Module):
    """Predicts each value from the same value of the noisy image."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, x_t: Tensor, t: Tensor, signals: object) -> Tensor:
        return self.factor * x_t


def test_another_fill_changes_nothing_if_the_network_does_not_look_at_it(batch):
    stage = DiffusionStage(Pointwise(), NoiseProcess(NoiseSchedule()), Contract(SPACE))
    assert batch.known is not None
    results = []
    for fill in (0.9, -0.9):
        images = torch.where(batch.known, batch.images, fill)
        losses = Denoising().loss(stage, replace(batch, images=images))
        stage.zero_grad()
        losses.mean().backward()
        (factor,) = stage.parameters()
        assert factor.grad is not None
        results.append((losses.tolist(), factor.grad.item()))
    assert results[0] == results[1]
    assert results[0][1] != 0


def test_images_without_missing_values_have_the_loss_without_a_mask_bit_for_bit(batch, fill_zeros):
    stage = fill_zeros(stage_of(*UPSAMPLER, prediction="x0", weighting="velocity"))
    gradients = []
    for known in (None, torch.ones_like(batch.images, dtype=torch.bool)):
        losses = Denoising().loss(stage, replace(batch, known=known))
        stage.zero_grad()
        losses.sum().backward()
        gradients.append([losses, *(each.grad for each in stage.parameters())])
    assert all(a.equal(b) for a, b in zip(*gradients, strict=True))
    masked = Denoising().loss(stage, batch)
    assert masked[1].equal(gradients[0][0][1])  # in a batch with others that lack some
    assert not masked[0].equal(gradients[0][0][0])


def test_an_image_of_which_nothing_is_known_has_no_loss_and_no_gradient(batch, fill_zeros):
    stage = fill_zeros(stage_of(prediction="v", learned_variance=True))
    known = torch.zeros_like(batch.images, dtype=torch.bool)
    losses = Denoising().loss(stage, replace(batch, known=known))
    losses.sum().backward()
    assert losses.tolist() == [0, 0, 0]
    assert not any(each.grad.any() for each in stage.parameters() if each.grad is not None)
    known[0, 0, 0, 0] = True  # one value of 512 is a whole mean
    one = Denoising().loss_at(stage, replace(batch, known=known), T)
    assert one[0].item() == pytest.approx(float(terms(stage, batch, T)[0, 0, 0, 0]), rel=1e-4)


@pytest.mark.parametrize("objective", [Consistency(), Autoencoding()])
def test_objectives_that_count_all_values_are_refused(objective):
    name = type(objective).__name__.lower()
    with pytest.raises(ContractError, match=f"as denoising does, but {name} counts all; use miss"):
        objective.check_leaves_out_missing()
    Denoising().check_leaves_out_missing()
