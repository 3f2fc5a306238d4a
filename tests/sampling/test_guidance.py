import math

import pytest
import torch

from cascade.conditioning.signals import Signals
from cascade.errors import ContractError
from cascade.sampling.guidance import Guidance, guide

WITH, WITHOUT = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_scales_0_and_1_are_the_two_predictions():
    torch.testing.assert_close(guide(WITH, WITHOUT, 1.0, channels=3), WITH)
    assert guide(WITH, WITHOUT, 0.0, channels=3).equal(WITHOUT)


def test_scale_extrapolates_from_the_unconditional_prediction():
    expected = 3.5 * WITH - 2.5 * WITHOUT
    torch.testing.assert_close(guide(WITH, WITHOUT, 3.5, channels=3), expected)


def test_learned_variances_are_not_guided():
    guided = guide(WITH, WITHOUT, 4.0, channels=1)
    torch.testing.assert_close(guided[:, :1], (4 * WITH - 3 * WITHOUT)[:, :1])
    assert guided[:, 1:].equal(WITH[:, 1:])


def test_both_halves_are_predicted_in_one_pass():
    calls = []

    def predict(x_t, t, signals):
        calls.append((x_t, t, signals.vectors["level"]))
        return x_t * signals.vectors["level"].view(-1, 1, 1, 1)

    x_t, t = torch.randn(2, 3, 4, 4), torch.tensor([5, 6])
    signals = Signals(vectors={"level": torch.tensor([1.0, 2.0])})
    without = Signals(vectors={"level": torch.tensor([0.5, 3.0])})
    output = Guidance(3.0).output(predict, x_t, t, signals, without)
    ((seen_x_t, seen_t, seen_level),) = calls
    assert seen_x_t.equal(torch.cat([x_t, x_t]))
    assert seen_t.tolist() == [5, 6, 5, 6]
    assert seen_level.tolist() == [1.0, 2.0, 0.5, 3.0]
    factors = torch.tensor([3 * 1.0 - 2 * 0.5, 3 * 2.0 - 2 * 3.0]).view(2, 1, 1, 1)
    torch.testing.assert_close(output, factors * x_t)


def alpha_bar_at(level: float) -> float:
    """Where sigma / alpha is the level."""
    return 1 / (1 + level**2)


def test_scale_1_is_no_guidance():
    assert not Guidance().applies(0.5)
    assert not Guidance(1.0, (0.0, 10.0)).applies(0.5)
    assert Guidance(1.5).applies(0.5)
    assert Guidance(0.0).applies(0.5)


def test_guidance_is_applied_between_the_noise_levels_of_its_interval():
    guidance = Guidance(2.0, (0.3, 5.0))
    levels = [0.1, 0.29, 0.31, 1.0, 4.9, 5.1, 100.0]
    applies = [guidance.applies(alpha_bar_at(level)) for level in levels]
    assert applies == [False, False, True, True, True, False, False]
    assert not guidance.applies(0.0)  # pure noise
    assert Guidance(2.0).applies(0.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": math.nan}, "guidance must be a finite number, got nan"),
        ({"scale": math.inf}, "guidance must be a finite number, got inf"),
        ({"scale": 2, "interval": (-0.1, 1.0)}, r"0 <= low < high, got \(-0.1, 1.0\)"),
        ({"scale": 2, "interval": (1.0, 1.0)}, r"0 <= low < high, got \(1.0, 1.0\)"),
        ({"scale": 2, "interval": (math.nan, 1.0)}, "guidance_interval must be"),
    ],
)
def test_impossible_numbers_are_refused(values, message):
    with pytest.raises(ContractError, match=message):
        Guidance(**values)
