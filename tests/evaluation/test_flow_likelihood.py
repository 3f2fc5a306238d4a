"""The probability flow's bits per dimension, against densities that are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from cascade.conditioning.batch import Batch
from cascade.conditioning.signals import Signals
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.evaluation.flow_likelihood import flow_bits_per_dimension
from cascade.resizing import quantise
from cascade.training.students import student_of

STD = 0.3  # of a pixel; 0.1 % of such pixels are out of the range of images
ENTROPY_BITS = math.log2(STD * math.sqrt(2 * math.pi * math.e) * 127.5)  # of its 8-bit value


class ExactGaussian(nn.Module):
    """Answers E[x0 | x_t] of pixels N(0, covariance), where covariance is about the columns.

    Args:
        schedule: noise schedule.
        covariance: (W, W) of the pixels of a row; rows and channels are independent.
    """

    def __init__(self, schedule: NoiseSchedule, covariance: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.schedule = schedule
        self.variances, self.axes = torch.linalg.eigh(covariance.double())
        self.calls = 0

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        self.calls += 1
        alpha_bar = self.schedule.alpha_bar[t].view(-1, 1, 1, 1)
        gain = alpha_bar.sqrt() * self.variances / (alpha_bar * self.variances + 1 - alpha_bar)
        return (x_t.double() @ self.axes * gain @ self.axes.T).float()


def stage_of(base: DiffusionStage, schedule: NoiseSchedule, covariance: Tensor) -> DiffusionStage:
    process = NoiseProcess(schedule, prediction="x0")
    return DiffusionStage(ExactGaussian(schedule, covariance), process, base.contract).eval()


def true_bits(batch: Batch, schedule: NoiseSchedule, covariance: Tensor) -> Tensor:
    """Bits per dimension of the batch, from the Gaussian density of its images at timestep 0."""
    shape = batch.images.shape[1:]
    dither = SeededNoise(batch.seeds, "likelihood").uniform(*shape)
    images = quantise(batch.images) + (2 * dither - 1) / 255
    alpha_bar = schedule.alpha_bar[0]
    noise = (1 - alpha_bar) / alpha_bar * torch.eye(len(covariance))
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(len(covariance)).double(), covariance.double() + noise
    )
    nats = normal.log_prob(images.double()).mean(dim=(1, 2)) / len(covariance)
    return math.log2(127.5) - nats / math.log(2)


@pytest.fixture
def batch() -> Batch:
    draw = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return Batch(images=quantise(STD * draw), seeds=tuple(range(6)))


@pytest.mark.parametrize(("kind", "tolerance"), [("cosine", 1e-4), ("linear", 2e-4)])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_on_independent_pixels_it_is_the_density_of_every_image(
    base_stage, batch, kind, tolerance, zero_snr
):
    """Probes of -1 and 1 make no error where no pixel depends on another one."""
    schedule = NoiseSchedule(kind, train_steps=1000, zero_terminal_snr=zero_snr)
    covariance = STD**2 * torch.eye(16)
    stage = stage_of(base_stage, schedule, covariance)
    images = Batch(images=batch.images[:2], seeds=batch.seeds[:2])
    bits = flow_bits_per_dimension(stage, images, steps=250)
    expected = true_bits(images, schedule, covariance)
    torch.testing.assert_close(bits, expected, rtol=0, atol=tolerance)


def test_probes_of_dependent_pixels_have_no_bias(base_stage):
    schedule = NoiseSchedule(train_steps=200)
    distance = (torch.arange(16)[:, None] - torch.arange(16)).abs()
    covariance = STD**2 * 0.9**distance
    root = torch.linalg.cholesky(covariance)
    image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) @ root.T
    many = Batch(images=image.expand(200, -1, -1, -1), seeds=tuple(range(200)))
    bits = flow_bits_per_dimension(stage_of(base_stage, schedule, covariance), many, steps=60)
    difference = bits - true_bits(many, schedule, covariance)
    error = float(difference.std()) / math.sqrt(200)
    assert 0.0003 < error < 0.01  # so a probe matters
    assert float(difference.mean()) == pytest.approx(0, abs=4 * error + 0.003)


def test_of_gaussian_images_it_is_the_entropy_of_their_8_bit_values(base_stage):
    """The offset is log2(127.5): 255 steps of 8 bits in a range of 2."""
    schedule = NoiseSchedule(train_steps=1000)
    draw = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images = Batch(images=STD * draw, seeds=tuple(range(24)))
    stage = stage_of(base_stage, schedule, STD**2 * torch.eye(16))
    bits = flow_bits_per_dimension(stage, images)
    error = float(bits.std()) / math.sqrt(24)
    assert bits.shape == (24,)
    assert float(bits.mean()) == pytest.approx(ENTROPY_BITS, abs=4 * error)
    assert error < 0.01
    assert stage.network.module.calls == 2 * 49


def test_an_image_has_the_same_bits_in_any_batch(upsampler, low_res):
    images = torch.nn.functional.interpolate(low_res, size=32)
    whole = Batch(images=images, seeds=(3, 4, 5, 6, 7), conditions={"low_resolution": low_res})
    one = Batch(images=images[2:3], seeds=(5,), conditions={"low_resolution": low_res[2:3]})
    bits = [flow_bits_per_dimension(upsampler, each, steps=3) for each in (whole, one)]
    torch.testing.assert_close(bits[0][2:3], bits[1], rtol=1e-4, atol=1e-4)
    assert all(parameter.grad is None for parameter in upsampler.parameters())


@pytest.mark.parametrize("steps", [1, 101])
def test_steps_out_of_range_are_refused(base_stage, batch, steps):
    with pytest.raises(ContractError, match=f"steps must be from 2 to 100, got {steps}"):
        flow_bits_per_dimension(base_stage, batch, steps=steps)


def test_a_student_which_does_not_denoise_is_refused(base_stage, batch):
    with pytest.raises(ContractError, match="not for a student of teacher, 4 steps"):
        flow_bits_per_dimension(student_of(base_stage, steps=4), batch)
