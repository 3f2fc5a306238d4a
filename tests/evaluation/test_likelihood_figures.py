"""Bits per dimension among the figures of an evaluation."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from tiny_autoencoders import IdentityAutoencoder, linear_stage

from cascade.autoencoder_stage import AutoencoderStage
from cascade.conditioning.batch import Batch
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.evaluation import likelihood_figures
from cascade.evaluation.figures import Measured
from cascade.evaluation.flow_likelihood import flow_bits_per_dimension
from cascade.evaluation.likelihood import bits_per_dimension
from cascade.evaluation.likelihood_figures import check_stages, with_likelihood
from cascade.evaluation.progress import no_progress
from cascade.evaluation.real_pictures import RealPictures
from cascade.evaluation.results import Measurements
from cascade.pipeline import CascadePipeline
from cascade.resizing import quantise
from cascade.space import Space
from cascade.training.students import student_of


class Many:
    """Pictures of which only the number matters."""

    files = tuple(str(number) for number in range(2000))

    def __len__(self) -> int:
        return 2000

    def batch(self, places, contract):
        return len(places)


def measurements(*subjects: str) -> Measurements:
    return Measurements(
        measured=[
            Measured(subject=each, input="", size_px=16, seconds_per_image=1.0, scores=())
            for each in subjects
        ],
        settings={},
        notes=["another note"],
    )


def test_each_stage_of_a_chain_has_the_figure_alone(cascade, held_out, monkeypatch):
    monkeypatch.setattr(likelihood_figures, "BOUND_TIMESTEPS", 3)
    pictures = RealPictures(held_out, name="", vocabulary=cascade.labels)
    before = measurements("base", "upsampler, alone", "whole pipeline")
    after = with_likelihood(before, cascade, pictures, "bound", 3, no_progress)
    for measured, name in zip(after.measured, ("base", "upsampler"), strict=False):
        stage = cascade.stages[name]
        batch = pictures.batch(range(3), stage.contract)
        (score,) = measured.scores
        expected = bits_per_dimension(stage, batch, timesteps=3).total
        assert score.value == pytest.approx(float(expected.mean()), rel=1e-4)
        assert (score.name, score.n, score.better) == ("bits/dim (bound)", 3, "lower")
        assert score.low < score.value < score.high
    assert after.measured[-1].scores == ()
    assert after.notes[0] == "another note"
    assert "variational bound of sampling with ddpm" in after.notes[1]
    assert len(after.notes) == 2


def test_a_stage_of_its_own_is_the_whole_pipeline(base_stage, held_out, monkeypatch):
    quick = partial(flow_bits_per_dimension, steps=3)
    monkeypatch.setattr(likelihood_figures, "flow_bits_per_dimension", quick)
    pipeline = CascadePipeline.from_stages({"stage": base_stage})
    pictures = RealPictures(held_out, name="")
    after = with_likelihood(
        measurements("bicubic", "whole pipeline"), pipeline, pictures, "ode", 1, no_progress
    )
    batch = pictures.batch([0], base_stage.contract)
    expected = quick(base_stage, batch)
    (score,) = after.measured[-1].scores
    assert score.value == pytest.approx(float(expected[0]), rel=1e-4)
    assert (score.name, score.n, score.low) == ("bits/dim (ODE)", 1, None)
    assert "uniform noise of one step dequantises" in after.notes[-1]


def test_a_stage_that_saw_little_at_low_noise_is_named(base_stage, monkeypatch):
    monkeypatch.setattr(likelihood_figures, "_bits", lambda stage, batch, likelihood: torch.ones(1))
    process = NoiseProcess(base_stage.process.schedule, timesteps="logit_normal")
    stage = DiffusionStage(base_stage.network, process, base_stage.contract)
    pipeline = CascadePipeline.from_stages({"stage": stage})
    after = with_likelihood(measurements("whole pipeline"), pipeline, Many(), "ode", 1, no_progress)
    assert "stage 'stage' was trained with timesteps logit_normal" in after.notes[-1]


def test_at_most_100_pictures_are_measured(base_stage, monkeypatch):
    monkeypatch.setattr(
        likelihood_figures, "flow_bits_per_dimension", lambda stage, count: torch.ones(count)
    )
    pipeline = CascadePipeline.from_stages({"stage": base_stage})
    after = with_likelihood(
        measurements("whole pipeline"), pipeline, Many(), "ode", 1000, no_progress
    )
    assert after.measured[-1].scores[0].n == 100


def test_students_and_unknown_kinds_are_refused_before_any_work(base_stage):
    pipeline = CascadePipeline.from_stages({"stage": student_of(base_stage, steps=4)})
    with pytest.raises(ContractError, match=r"stage 'stage' has no likelihood: .*, 4 steps"):
        check_stages(pipeline, "ode")
    with pytest.raises(ContractError, match="likelihood must be bound or ode, got 'exact'"):
        check_stages(pipeline, "exact")


def test_in_a_chain_of_latents_pixels_are_measured_and_the_rest_is_named(base_stage, monkeypatch):
    monkeypatch.setattr(likelihood_figures, "_bits", lambda stage, batch, likelihood: torch.ones(1))
    decoder = AutoencoderStage.of_network(IdentityAutoencoder(), Space(size_px=16)).scaled(0, 1)
    contract = replace(base_stage.contract, space=decoder.latent_space)
    latent = DiffusionStage(base_stage.network, base_stage.process, contract)
    pixels = DiffusionStage(base_stage.network, base_stage.process, base_stage.contract)
    stages = {"latent": latent, "decoder": decoder, "up": pixels}
    names = SimpleNamespace(stages=SimpleNamespace(items=stages.items, names=list(stages)))
    after = with_likelihood(
        measurements("decoder, alone", "up, alone"), names, Many(), "ode", 1, no_progress
    )
    assert [len(each.scores) for each in after.measured] == [0, 1]
    assert "stage 'latent' has no likelihood: bits per dimension are for pixels" in after.notes[1]
    assert "stage 'decoder' has no likelihood: identity has no distributions" in after.notes[2]
    chain = CascadePipeline.from_stages({"latent": latent, "decoder": decoder})
    with pytest.raises(ContractError, match=r"stage 'latent' has no likelihood: .* makes latents"):
        check_stages(chain, "bound")


class OwnPictures:
    """Pictures of two Gaussian channels with 8 bits, as a linear autoencoder models them."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images
        self.files = [str(number) for number in range(len(images))]

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, places, contract):
        return Batch(images=self.images[list(places)], seeds=tuple(places))


def test_a_variational_autoencoder_has_the_bits_of_its_density():
    """For p(x) = N(0, W W^T + s^2), with the exact posterior, the bound is the density."""
    stage, std = linear_stage(2, 1), 0.1
    network = stage.network
    with torch.no_grad():
        network.decoder.copy_(torch.tensor([[0.3], [0.2]]))
        precision = float(1 + network.decoder.square().sum() / std**2)
        network.encoder.copy_(network.decoder.T / std**2 / precision)
        network.log_variance.fill_(-math.log(precision))
        covariance = network.decoder @ network.decoder.T + std**2 * torch.eye(2)
    torch.manual_seed(0)
    normal = torch.distributions.MultivariateNormal(torch.zeros(2), covariance)
    images = quantise(normal.sample((100,)).clamp(-1, 1))
    pixels = AutoencoderStage.of_network(network, Space(size_px=1, channels=2))
    pipeline = CascadePipeline.from_stages({"vae": pixels})
    check_stages(pipeline, "bound")
    after = with_likelihood(
        measurements("whole pipeline"),
        pipeline,
        OwnPictures(images[..., None, None]),
        "bound",
        100,
        no_progress,
    )
    (score,) = after.measured[0].scores
    expected = math.log2(127.5) - normal.log_prob(images).mean() / 2 / math.log(2)
    assert score.value == pytest.approx(float(expected), abs=0.02)
    assert "importance-weighted bound of 16 latents" in after.notes[1]
    with pytest.raises(ContractError, match="an autoencoder has no flow; use the bound"):
        check_stages(pipeline, "ode")
