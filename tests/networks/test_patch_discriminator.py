from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from cascade.errors import ContractError
from cascade.networks.patch_discriminator import PatchDiscriminator, check_size


@pytest.fixture(autouse=True)
def _same_weights():
    torch.manual_seed(0)


@pytest.mark.parametrize("channels", [1, 3, 6, 64])
def test_it_takes_any_number_of_channels_and_gives_one_logit_for_every_eight_pixels(channels):
    network = PatchDiscriminator(channels)
    assert network(torch.zeros(2, channels, 40, 27)).shape == (2, 1, 5, 3)
    norms = [each for each in network.modules() if isinstance(each, nn.GroupNorm)]
    assert len(norms) == 2


def test_a_logit_judges_a_patch_of_38_pixels():
    network = PatchDiscriminator(1)
    for place, layer in enumerate(network.layers):
        if isinstance(layer, nn.GroupNorm):  # its statistics are those of the whole picture
            network.layers[place] = nn.Identity()
    pictures = torch.zeros(1, 1, 96, 96, requires_grad=True)
    network(pictures)[0, 0, 6, 6].backward()
    assert pictures.grad is not None
    for dim in (2, 3):
        seen = pictures.grad.abs().sum(dim=5 - dim)[0, 0].nonzero().flatten()
        assert len(seen) == 38
        assert int(seen[-1] - seen[0]) == 37


def test_its_logits_are_those_of_the_layers_of_the_paper():
    network = PatchDiscriminator(3)
    convolutions = [each for each in network.modules() if isinstance(each, nn.Conv2d)]
    x = pictures = torch.rand(2, 3, 24, 16)
    for number, each in enumerate(convolutions[:-1]):
        x = functional.conv2d(x, each.weight, each.bias, stride=2, padding=1)
        if number > 0:
            x = functional.group_norm(x, 32)
        x = functional.leaky_relu(x, 0.2)
    last = convolutions[-1]
    expected = functional.conv2d(x, last.weight, last.bias, padding=1)
    torch.testing.assert_close(network(pictures), expected)


def test_batch_mates_do_not_change_the_logits_of_a_picture():
    network = PatchDiscriminator(3)
    pictures = torch.rand(4, 3, 24, 24) * torch.tensor([0.1, 1.0, 3.0, 9.0]).view(4, 1, 1, 1)
    alone = torch.cat([network(each[None]) for each in pictures])
    torch.testing.assert_close(network(pictures), alone)


def test_the_smallest_pictures_have_one_logit_and_smaller_ones_are_refused():
    assert PatchDiscriminator(3)(torch.zeros(1, 3, 8, 8)).shape == (1, 1, 1, 1)
    check_size((8, 8))
    for size in ((7, 16), (16, 7)):
        with pytest.raises(ContractError) as error:
            check_size(size)
        assert f"needs images of at least 8x8 px, got {size[0]}x{size[1]}; " in str(error.value)
        assert "\n" not in str(error.value)
