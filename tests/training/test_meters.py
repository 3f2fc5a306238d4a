"""Meters against closed forms: stages whose networks answer the truth, or the truth and a bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from cascade.conditioning.batch import Batch
from cascade.conditioning.low_resolution import LowResolution
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.resizing import quantise, resize
from cascade.sampling.settings import SamplingSettings
from cascade.space import Space
from cascade.training.grids import draw_samples
from cascade.training.meters import (
    LOG_SNRS,
    colour_drift,
    loss_by_noise_level,
    measure,
    nearest_timestep,
)

UNIT = 1 / 127.5


class Answer(nn.Module):
    """A network that knows the clean images."""

    def __init__(self, x0: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.x0 = x0

    def forward(self, x_t: Tensor, t: Tensor, signals: object) -> Tensor:
        return self.x0 + 0 * self.weight


@pytest.fixture
def batch() -> Batch:
    """Four smooth images of 32 px within [-0.7, 0.7], and small ones as a stage makes them."""
    noise = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 1.2 - 0.6
    images = quantise(resize(noise, (32, 32), "bilinear"))
    return Batch(
        images=images,
        seeds=(1, 2, 3, 4),
        conditions={
            "labels": torch.zeros(4, 2, dtype=torch.long),
            "low_resolution": quantise(resize(images, (16, 16), "bicubic")),
        },
    )


def knowing(stage, answer: Tensor, **process):
    """The stage with a network that answers x0."""
    process = NoiseProcess(NoiseSchedule(train_steps=100), prediction="x0", **process)
    sampling = SamplingSettings(steps=4, guidance=1.0, augmentation_level=0.0)
    return DiffusionStage(Answer(answer), process, stage.contract, sampling=sampling)


def test_a_stage_that_answers_the_truth_has_neither_drift_nor_inconsistency(upsampler, batch):
    stage = knowing(upsampler, batch.images)
    values = measure(stage, batch, draw_samples(stage, batch, precision="fp32"))
    assert values == pytest.approx({name: 0 for name in values}, abs=1e-4)
    assert len(values) == 1 + 6 + 8


@pytest.mark.parametrize("units", [8, -3])
def test_a_stage_that_is_off_by_a_constant_drifts_by_that_constant(upsampler, batch, units):
    stage = knowing(upsampler, batch.images + units * UNIT)
    values = measure(stage, batch, draw_samples(stage, batch, precision="fp32"))
    for name in ("red", "green", "blue"):
        assert values[f"colour_mean_{name}"] == pytest.approx(units, abs=1e-3)
        assert values[f"colour_spread_{name}"] == pytest.approx(0, abs=1e-3)
    assert values["low_res_consistency"] == pytest.approx(units**2, rel=1e-3)


def test_missing_values_are_in_no_meter(upsampler, batch):
    known = torch.ones_like(batch.images, dtype=torch.bool)
    known[0, 1, :9, :20] = False
    known[2, :, 16:] = False
    known[:, 2] = False
    lost = torch.where(known, batch.images, 0.9)
    stage = knowing(upsampler, batch.images + 4 * UNIT)
    samples = draw_samples(stage, batch, precision="fp32")
    values = measure(stage, replace(batch, images=lost, known=known), samples)
    assert values["colour_mean_red"] == pytest.approx(4, abs=1e-3)
    assert values["colour_mean_green"] == pytest.approx(4, abs=1e-3)
    assert values["colour_spread_green"] == pytest.approx(0, abs=1e-3)
    assert "colour_mean_blue" not in values  # of which nothing is known
    assert values["low_res_consistency"] == pytest.approx(16, rel=1e-3)
    wrong = torch.where(known, samples, -0.9)
    again = measure(stage, replace(batch, images=lost, known=known), wrong)
    assert again == pytest.approx(values, rel=1e-3, abs=1e-3)
    assert measure(stage, replace(batch, images=lost), wrong)["low_res_consistency"] > 100
    weight = {name: each for name, each in values.items() if "log_snr" in name}
    assert list(weight.values()) == pytest.approx([(4 * UNIT) ** 2] * 8, rel=1e-3)


def test_drift_is_told_by_channel_and_spread_by_its_own_scale(batch):
    truth = batch.images
    scale = torch.tensor([1.0, 0.5, 1.25]).view(1, 3, 1, 1)
    centre = truth.mean(dim=(0, 2, 3), keepdim=True)
    drift = colour_drift(centre + scale * (truth - centre), truth)
    spread = (truth.transpose(0, 1).flatten(1).std(dim=1, correction=0) / UNIT).tolist()
    assert drift.mean == pytest.approx([0, 0, 0], abs=1e-3)
    assert drift.spread == pytest.approx([0, -0.5 * spread[1], 0.25 * spread[2]], abs=1e-3)


def test_detail_that_downscaling_removes_is_consistent(batch):
    condition, space = LowResolution(size_px=16), Space(size_px=32, resize_kernel="area")
    small = quantise(resize(batch.images, (16, 16), "area"))
    enlarged = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    detail = 0.2 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16)
    key = "low_res_consistency"
    assert condition.deviation(enlarged + detail, small, space)[key] == pytest.approx(0, abs=1e-6)
    assert condition.deviation(enlarged.flip(-1), small, space)[key] > 1


def test_each_condition_names_its_own_figure_and_others_none(base_stage, colouriser, batch):
    for stage in (base_stage, colouriser):
        small = replace(batch, images=batch.images[..., :16, :16])
        samples = draw_samples(stage, small, precision="fp32")
        assert "low_res_consistency" not in measure(stage, small, samples)


def test_channels_that_are_not_colours_are_numbered():
    stage = DiffusionStage(
        Answer(torch.zeros(2, 5, 8, 8)),
        NoiseProcess(NoiseSchedule()),
        Contract(Space(size_px=8, channels=5)),
    )
    truth = torch.zeros(2, 5, 8, 8)
    offsets = torch.arange(5.0).view(1, 5, 1, 1) * UNIT
    values = measure(stage, Batch(images=truth, seeds=(0, 1)), truth + offsets)
    assert [values[f"colour_mean_{n}"] for n in range(5)] == pytest.approx(range(5), abs=1e-3)


def test_the_loss_at_each_level_is_that_of_its_timestep(upsampler, batch):
    stage = knowing(upsampler, batch.images + 0.1, weighting="min_snr", min_snr_gamma=5.0)
    losses = {k: float(v.mean()) for k, v in loss_by_noise_level(stage, batch).items()}
    assert list(losses) == list(LOG_SNRS)
    for log_snr, loss in losses.items():
        t = nearest_timestep(stage.process.schedule, log_snr)
        alpha_bar = float(stage.process.schedule.alpha_bar[t])
        assert loss == pytest.approx(0.01 * min(alpha_bar / (1 - alpha_bar), 5), rel=1e-4)
    assert losses[7] == losses[3] > losses[-1] > losses[-7]


@pytest.mark.parametrize("options", [{}, {"shift": 0.25}, {"zero_terminal_snr": True}])
@pytest.mark.parametrize("log_snr", LOG_SNRS)
def test_levels_are_the_same_for_every_schedule(options, log_snr):
    schedule = NoiseSchedule(train_steps=1000, **options)
    nearest = 2 * float(schedule.log_alpha_sigma[nearest_timestep(schedule, log_snr)])
    assert nearest == pytest.approx(log_snr, abs=0.4)


def test_a_stage_measures_the_same_every_time_and_its_training_is_left_alone(upsampler, batch):
    state = torch.get_rng_state()
    first = loss_by_noise_level(upsampler, batch)
    again = loss_by_noise_level(upsampler, batch)
    assert all(again[level].equal(losses) for level, losses in first.items())
    assert torch.get_rng_state().equal(state)
    assert all(parameter.grad is None for parameter in upsampler.parameters())
