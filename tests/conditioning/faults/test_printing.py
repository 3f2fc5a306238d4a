import torch

from cascade.conditioning.faults.printing import dusty, halftone

GREY = torch.zeros(1, 3, 96, 96)


def test_dots_keep_the_mean_and_are_strongest_in_the_middle_tones():
    deviations = []
    for level in (0.0, 0.8, 1.0):
        printed = halftone(GREY + level, 8.0, 0.4, 0.8)
        assert abs(printed.mean() - level) < 0.02
        deviations.append(printed.std().item())
    assert deviations[0] > 2 * deviations[1] > 0
    assert deviations[2] == 0


def test_dots_repeat_at_their_distance():
    printed = halftone(GREY, 8.0, 0.0, 1.0)
    assert torch.allclose(printed[..., 8:], printed[..., :-8], atol=1e-4)
    assert not torch.allclose(printed[..., 4:], printed[..., :-4], atol=0.1)


def test_dust_covers_little_and_leaves_the_rest_as_it_is():
    draws = torch.tensor([[0.7, 0.5, 0.5, 1.0, 0.0, 0.5], [0.9, 0.2, 0.2, 0.0, 0.0, 0.5]])
    dirty = dusty(GREY, draws, 4.0)
    assert dirty.max() == 1  # a white hair
    assert dirty.min() == -1  # a black speck
    assert 0.005 < (dirty != 0).float().mean() < 0.1
    assert dirty[..., 48, 40:56].eq(1).all()
    left_out = torch.cat([torch.full((2, 1), 0.1), draws[:, 1:]], dim=1)
    assert dusty(GREY, left_out, 4.0).equal(GREY)
