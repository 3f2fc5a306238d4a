"""The score of a stage, against the closed form where the data are Gaussian."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from cascade.conditioning.luminance import Luminance
from cascade.conditioning.signals import ChannelSignal, Signals
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.space import Space
from cascade.training.students import student_of

MEAN, STD = 0.2, 0.3
TIMES = torch.tensor([0, 20, 60, 99])


class GaussianNetwork(nn.Module):
    """The best prediction for pixels N(MEAN, STD^2), with variances of 0 behind it if learned."""

    def __init__(self, process: NoiseProcess) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.process = process

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        alpha, sigma = self.process.schedule.alpha_sigma(t)
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        x0 = MEAN + gain * (x_t - alpha * MEAN)
        target = self.process.target(x0, self.process.eps(x0, x_t, t), t)
        learned = self.process.learned_variance
        return torch.cat([target, torch.zeros_like(target)], dim=1) if learned else target


@pytest.fixture
def x_t() -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(
    ("prediction", "zero_snr"), [("eps", False), ("x0", True), ("v", False), ("v", True)]
)
def test_whatever_the_network_predicts(base_stage, x_t, prediction, zero_snr, learned):
    schedule = NoiseSchedule("linear", train_steps=100, zero_terminal_snr=zero_snr)
    process = NoiseProcess(schedule, prediction=prediction, learned_variance=learned)
    stage = DiffusionStage(GaussianNetwork(process), process, base_stage.contract)
    alpha, sigma = schedule.alpha_sigma(TIMES)
    expected = -(x_t - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
    with torch.no_grad():
        score = stage.score(x_t, TIMES, Signals())
    torch.testing.assert_close(score, expected, rtol=2e-3, atol=2e-3)


def test_a_residual_stage_has_the_score_of_what_its_image_leaves_open(x_t):
    """A network that adds nothing leaves pixels N(base, residual_std^2)."""

    class Nothing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
            return torch.zeros_like(x_t)

    schedule = NoiseSchedule(train_steps=100)
    process = NoiseProcess(schedule, prediction="x0", residual_std=STD)
    stage = DiffusionStage(Nothing(), process, Contract(Space(size_px=16), (Luminance(),)))
    base = 0.5 * x_t.flip(-1)
    signals = Signals(channels={"luminance": ChannelSignal(base)})
    alpha, sigma = process.schedule.alpha_sigma(TIMES)
    expected = -(x_t - alpha * base) / (alpha**2 * STD**2 + sigma**2)
    torch.testing.assert_close(stage.score(x_t, TIMES, signals), expected, rtol=2e-3, atol=2e-3)


def test_a_student_has_none(base_stage, x_t):
    with pytest.raises(ContractError, match="a student of teacher, 4 steps has no score; take"):
        student_of(base_stage, steps=4).score(x_t, TIMES, Signals())
