import torch

from cascade.sampling.guidance import guide

WITH, WITHOUT = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_scales_0_and_1_are_the_two_predictions():
    torch.testing.assert_close(guide(WITH, WITHOUT, 1.0, channels=3), WITH)
    assert guide(WITH, WITHOUT, 0.0, channels=3).equal(WITHOUT)


def test_scale_extrapolates_from_the_unconditional_prediction():
    expected = 3.5 * WITH - 2.5 * WITHOUT
    torch.testing.assert_close(guide(WITH, WITHOUT, 3.5, channels=3), expected)


def test_learned_variances_are_not_guided():  # trap 11
    guided = guide(WITH, WITHOUT, 4.0, channels=1)
    torch.testing.assert_close(guided[:, :1], (4 * WITH - 3 * WITHOUT)[:, :1])
    assert guided[:, 1:].equal(WITH[:, 1:])
