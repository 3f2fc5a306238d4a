from __future__ import annotations

import pytest
import torch

from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.residual import Residual
from cascade.diffusion.schedule import NoiseSchedule
from cascade.errors import RecipeError

STD = 0.1


@pytest.fixture
def residual() -> Residual:
    return Residual(NoiseSchedule(), STD)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("t", [0, 30, 200, 600, 999])
def test_input_and_ideal_output_have_variance_1_and_are_independent(residual, t):
    base = normal(1, 1, 400, 400, seed=0).clamp(-1, 1)
    x0 = base + STD * normal(1, 1, 400, 400, seed=1)
    times = torch.tensor([t])
    x_t = residual.schedule.add_noise(x0, normal(1, 1, 400, 400, seed=2), times)
    network_input = residual.network_input(x_t, base, times)
    nothing, one = (residual.x0(torch.full_like(x0, n), x_t, base, times) for n in (0.0, 1.0))
    ideal = (x0 - nothing) / (one - nothing)  # the output that gives x0
    assert network_input.std() == pytest.approx(1, abs=0.01)
    assert ideal.std() == pytest.approx(1, abs=0.01)
    assert float((network_input * ideal).mean()) == pytest.approx(
        0, abs=0.01
    )  # the guess was the best
    torch.testing.assert_close(residual.x0(ideal, x_t, base, times), x0, rtol=0, atol=1e-5)


def test_at_the_ends_the_guess_is_the_noisy_image_or_the_base(residual):
    base, x_t = normal(1, 3, 4, 4, seed=0), normal(1, 3, 4, 4, seed=1)
    nothing = torch.zeros_like(base)
    first, last = (residual.x0(nothing, x_t, base, torch.tensor([t])) for t in (0, 999))
    alpha, _ = residual.schedule.alpha_sigma(torch.tensor([0]))
    assert (first - x_t / alpha).abs().max() < 0.2
    torch.testing.assert_close(last, base, rtol=0, atol=1e-2)


def test_the_weighted_loss_is_the_squared_error_of_the_output(residual):
    process = NoiseProcess(NoiseSchedule(), prediction="x0", weighting="residual", residual_std=STD)
    times = torch.tensor([3, 500, 999])
    base, x_t, x0 = (normal(3, 3, 8, 8, seed=seed) for seed in range(3))
    nothing, output = torch.zeros_like(x0), normal(3, 3, 8, 8, seed=5)
    ideal = (x0 - residual.x0(nothing, x_t, base, times)) / (
        residual.x0(nothing + 1, x_t, base, times) - residual.x0(nothing, x_t, base, times)
    )
    loss = process.loss(residual.x0(output, x_t, base, times), x0, x_t, nothing, times)
    torch.testing.assert_close(loss, (output - ideal).pow(2).mean((1, 2, 3)), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"prediction": "v", "residual_std": 0.1},
            "residual_std needs x0 prediction without .* got v prediction",
        ),
        (
            {"prediction": "x0", "residual_std": 0.1, "learned_variance": True},
            "without learned_variance, got x0 prediction with it",
        ),
        ({"prediction": "x0", "weighting": "residual"}, "residual weighting needs residual_std"),
        ({"prediction": "x0", "residual_std": 0.0}, "residual_std must be above 0"),
    ],
)
def test_what_does_not_go_together_is_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        NoiseProcess(NoiseSchedule(), **values)
