from __future__ import annotations

import torch

from cascade.imaging.transparency import fill_hidden


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_hidden_pixels_take_the_one_visible_colour():
    colour = noise(3, 13, 21) * 255
    alpha = torch.zeros(1, 13, 21)
    alpha[:, 4:6, 9:12] = 1
    colour[:, 4:6, 9:12] = torch.tensor([10.0, 200.0, 77.0]).view(3, 1, 1)
    filled = fill_hidden(colour, alpha)
    assert filled.amin(dim=(1, 2)).allclose(torch.tensor([10.0, 200.0, 77.0]))
    assert filled.amax(dim=(1, 2)).allclose(torch.tensor([10.0, 200.0, 77.0]))


def test_visible_pixels_keep_their_colours_and_gaps_stay_between_them():
    colour, alpha = noise(3, 37, 50), (noise(1, 37, 50) > 0.8).to(torch.uint8)
    visible = alpha.bool().expand_as(colour)
    recoloured = colour.masked_fill(~visible, 9.0)
    filled = fill_hidden(recoloured, alpha)
    assert filled[visible].equal(colour[visible])
    assert filled.max() <= colour[visible].max() + 1e-5
    assert filled.min() >= colour[visible].min() - 1e-5


def test_a_gap_has_the_colour_that_is_nearest():
    colour, alpha = torch.zeros(1, 16, 32), torch.ones(1, 16, 32)
    colour[..., 16:] = 1
    alpha[..., 4:8] = alpha[..., 24:28] = 0
    filled = fill_hidden(torch.where(alpha > 0, colour, torch.tensor(0.5)), alpha)
    assert filled.equal(colour)


def test_a_picture_that_is_opaque_or_invisible_keeps_its_colours():
    colour = torch.randint(0, 2**16, (3, 5, 4)).to(torch.uint16)
    for value in (0, 1):
        alpha = torch.full((1, 5, 4), value, dtype=torch.uint16)
        assert fill_hidden(colour, alpha).equal(colour.float())
