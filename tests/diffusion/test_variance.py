import pytest
import torch
from torch.distributions import Normal, kl_divergence

from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion.variance import interpolate_log_variance, variational_bound
from cascade.sampling.steps import ddpm_step

SCHEDULE = NoiseSchedule("linear", train_steps=100)


@pytest.fixture
def images():
    """x0, a guess of it, and interpolations of the variance: (2, 1, 3, 3) each."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(2, 1, 3, 3, generator=generator) * 1.8 - 0.9
    guess = x0 + 0.1 * torch.randn(x0.shape, generator=generator)
    return x0, guess, torch.rand(x0.shape, generator=generator) * 2 - 1


def test_interpolation_is_geometric():
    variance = torch.tensor([-1.0, 0.0, 1.0])
    logs = interpolate_log_variance(variance, torch.tensor(0.01).log(), torch.tensor(0.04).log())
    torch.testing.assert_close(logs.exp(), torch.tensor([0.01, 0.02, 0.04]))


@pytest.mark.parametrize("t", [1, 40, 99])
def test_bound_is_the_divergence_of_the_two_steps(images, t):
    x0, guess, variance = images
    x_t = SCHEDULE.add_noise(x0, torch.ones_like(x0), torch.tensor([t, t]))

    def step(image, noise, **options):
        return ddpm_step(SCHEDULE, x_t, image, t, t - 1, noise, **options)

    zero, one = torch.zeros_like(x0), torch.ones_like(x0)
    mean, mean_hat = step(x0, zero), step(guess, zero)
    true = Normal(mean, step(x0, one) - mean)
    learned = Normal(mean_hat, step(guess, one, learned=variance) - mean_hat)
    expected = kl_divergence(true, learned).mean(dim=(1, 2, 3))
    bound = variational_bound(SCHEDULE, x0, guess, x_t, torch.tensor([t, t]), variance)
    torch.testing.assert_close(bound, expected, rtol=2e-3, atol=1e-5)


def test_bound_is_least_for_the_true_image_and_the_posterior_variance(images):
    x0, guess, variance = images
    t = torch.tensor([30, 60])
    x_t = SCHEDULE.add_noise(x0, torch.ones_like(x0), t)
    perfect = variational_bound(SCHEDULE, x0, x0, x_t, t, -torch.ones_like(x0))
    torch.testing.assert_close(perfect, torch.zeros(2), rtol=0, atol=1e-6)
    assert (variational_bound(SCHEDULE, x0, guess, x_t, t, variance) > 0).all()


def test_likelihood_at_timestep_0_sums_to_1_over_the_256_values():
    values = (torch.arange(256.0) / 127.5 - 1).view(256, 1, 1, 1)
    t = torch.zeros(256, dtype=torch.long)
    for centre in (-1.0, -0.3, 0.999):
        guess = torch.full_like(values, centre)
        nats = variational_bound(SCHEDULE, values, guess, values, t, torch.full_like(values, 0.5))
        assert (-nats).exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_each_image_has_the_bound_of_its_own_timestep(images):
    x0, guess, variance = images
    t = torch.tensor([0, 40])
    both = variational_bound(SCHEDULE, x0, guess, x0, t, variance)
    for i in range(2):
        one = slice(i, i + 1)
        alone = variational_bound(SCHEDULE, x0[one], guess[one], x0[one], t[one], variance[one])
        torch.testing.assert_close(both[one], alone)
