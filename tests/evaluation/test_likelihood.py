"""Bits per dimension against the entropy of Gaussian images, for which everything is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from cascade.conditioning.batch import Batch
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.evaluation.likelihood import bits_per_dimension, check_likelihood
from cascade.resizing import quantise
from cascade.training.students import student_of

IMAGES = 12  # their 9,216 pixels have the entropy to within 0.01 bits
STD = 0.3  # of a pixel; 0.1 % of such pixels are out of the range of images
ENTROPY_BITS = math.log2(STD * math.sqrt(2 * math.pi * math.e) * 127.5)  # of its 8-bit value


class ExactGaussian(nn.Module):
    """Answers E[x0 | x_t] of independent pixels, and with `learned` the exact variance of steps."""

    def __init__(self, schedule: NoiseSchedule, *, learned: bool, std: float = STD) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        alpha_bar = schedule.alpha_bar
        before = torch.cat([torch.ones(1).double(), alpha_bar[:-1]])
        total = alpha_bar * std**2 + 1 - alpha_bar
        self.gain = (alpha_bar.sqrt() * std**2 / total).float()
        beta = 1 - alpha_bar / before
        small = beta * (1 - before) / (1 - alpha_bar)
        from_x0 = before.sqrt() * beta / (1 - alpha_bar)
        exact = small + from_x0**2 * std**2 * (1 - alpha_bar) / total
        small = small.clamp(min=float(small[1]))
        fraction = (exact / small).log() / (beta / small).log()
        self.fraction = (2 * fraction - 1).float()
        self.learned = learned

    def forward(self, x_t, t, signals):
        mean = self.gain[t].view(-1, 1, 1, 1) * x_t
        if not self.learned:
            return mean
        return torch.cat([mean, self.fraction[t].view(-1, 1, 1, 1).expand_as(x_t)], dim=1)


def stage_of(
    base: DiffusionStage, schedule: NoiseSchedule, *, learned: bool, std: float = STD
) -> DiffusionStage:
    process = NoiseProcess(schedule, prediction="x0", learned_variance=learned)
    network = ExactGaussian(schedule, learned=learned, std=std)
    return DiffusionStage(network, process, base.contract).eval()


@pytest.fixture
def batch() -> Batch:
    draw = torch.randn(IMAGES, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return Batch(images=quantise(STD * draw), seeds=tuple(range(IMAGES)))


@pytest.mark.parametrize("zero_snr", [False, True])
def test_with_exact_mean_and_variance_the_bound_is_the_entropy(base_stage, batch, zero_snr):
    schedule = NoiseSchedule(train_steps=400, zero_terminal_snr=zero_snr)
    bound = bits_per_dimension(stage_of(base_stage, schedule, learned=True), batch)
    assert float(bound.total.mean()) == pytest.approx(ENTROPY_BITS, abs=0.03)


def test_with_a_fixed_variance_it_is_above(base_stage, batch):
    stage = stage_of(base_stage, NoiseSchedule(train_steps=400), learned=False)
    large, small = (
        float(bits_per_dimension(stage, batch, variance=variance).total.mean())
        for variance in ("large", "small")
    )
    assert ENTROPY_BITS < large < ENTROPY_BITS + 0.25
    assert small > large


def test_a_wrong_stage_needs_more_by_its_divergence(base_stage, batch):
    # A Gaussian of twice the spread costs KL = ln 2 + 1/8 - 1/2 nats more.
    stage = stage_of(base_stage, NoiseSchedule(train_steps=400), learned=True, std=2 * STD)
    bits = float(bits_per_dimension(stage, batch).total.mean())
    expected = ENTROPY_BITS + (math.log(2) + 1 / 8 - 1 / 2) / math.log(2)
    assert bits == pytest.approx(expected, abs=0.03)


def test_some_timesteps_give_the_same_without_bias(base_stage, batch):
    stage = stage_of(base_stage, NoiseSchedule(train_steps=400), learned=True)
    whole = bits_per_dimension(stage, batch)
    many = Batch(images=batch.images.repeat(20, 1, 1, 1), seeds=tuple(range(20 * IMAGES)))
    part = bits_per_dimension(stage, many, timesteps=40)
    error = float(part.steps.std()) / math.sqrt(len(many))
    assert float(part.steps.mean()) == pytest.approx(float(whole.steps.mean()), abs=4 * error)
    assert error < 0.1
    torch.testing.assert_close(part.prior[:IMAGES], whole.prior)


def test_the_prior_is_the_divergence_of_the_last_noisy_image_from_noise(base_stage, batch):
    schedule = NoiseSchedule("linear", train_steps=1000, shift=20.0)  # ends before all is noise
    bound = bits_per_dimension(stage_of(base_stage, schedule, learned=False), batch, timesteps=1)
    alpha_bar = float(schedule.alpha_bar[-1])
    assert alpha_bar > 0.001
    last = Normal(math.sqrt(alpha_bar) * batch.images.double(), math.sqrt(1 - alpha_bar))
    nats = kl_divergence(last, Normal(0.0, 1.0)).mean(dim=(1, 2, 3))
    torch.testing.assert_close(bound.prior, nats / math.log(2))


def test_timesteps_are_drawn_evenly_one_from_each_part(base_stage, record):
    process = NoiseProcess(NoiseSchedule(train_steps=10))
    stage = DiffusionStage(base_stage.network, process, base_stage.contract)
    calls = record(stage)
    images = torch.zeros(300, 3, 1, 1)
    bits_per_dimension(stage, Batch(images=images, seeds=tuple(range(300))), timesteps=3)
    for number, (_, t, _) in enumerate(calls[:3]):
        counts = torch.bincount(t, minlength=10)
        part = counts[1 + 3 * number : 4 + 3 * number]
        assert part.sum() == 300
        assert (part > 70).all()  # a hundred each
    assert calls[3][1].tolist() == [0] * 300


def test_an_image_has_the_same_bits_in_any_batch(upsampler, low_res):
    images = torch.nn.functional.interpolate(low_res, size=32)
    whole = Batch(images=images, seeds=(3, 4, 5, 6, 7), conditions={"low_resolution": low_res})
    one = Batch(images=images[2:3], seeds=(5,), conditions={"low_resolution": low_res[2:3]})
    bits = [bits_per_dimension(upsampler, each, timesteps=3).total for each in (whole, one)]
    torch.testing.assert_close(bits[0][2:3], bits[1], rtol=1e-4, atol=1e-4)
    assert (bits[0] > 0).all()


def test_an_upsampler_is_conditioned_as_in_sampling(upsampler, low_res, record):
    calls = record(upsampler)
    images = torch.nn.functional.interpolate(low_res, size=32)
    batch = Batch(images=images, seeds=(1, 2, 3, 4, 5), conditions={"low_resolution": low_res})
    bits_per_dimension(upsampler, batch, timesteps=2)
    _, _, signals = calls[0]
    level = signals.vectors["low_resolution"]
    assert level.tolist() == pytest.approx([0.3] * 5)  # its own, of sampling
    assert signals.channels["low_resolution"].image.shape == (5, 3, 32, 32)
    assert calls[-1][1].tolist() == [0] * 5


def test_timesteps_that_are_not_there_are_refused(base_stage, batch):
    stage = stage_of(base_stage, NoiseSchedule(train_steps=10), learned=False)
    for count in (0, 10):
        with pytest.raises(ContractError, match=f"from 1 to 9, got {count}"):
            bits_per_dimension(stage, batch, timesteps=count)


def test_a_variance_that_is_not_there_is_refused(base_stage, batch):
    with pytest.raises(ContractError, match=r"variance must be one of .* got 'learned'"):
        bits_per_dimension(base_stage, batch, variance="learned")


def test_a_student_which_does_not_denoise_is_refused(base_stage, batch):
    with pytest.raises(ContractError, match="not for a student of teacher, 4 steps"):
        bits_per_dimension(student_of(base_stage, steps=4), batch)


@pytest.mark.parametrize("kind", ["latents", "embeddings"])
def test_what_has_no_levels_has_no_bits(base_stage, kind):
    contract = replace(base_stage.contract, space=replace(base_stage.space, kind=kind))
    stage = DiffusionStage(base_stage.network, base_stage.process, contract)
    with pytest.raises(ContractError, match=f"are for pixels, but this stage makes {kind}"):
        check_likelihood(stage)
