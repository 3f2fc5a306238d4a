"""The perceptron for vectors: tokens behind the mask, single pixels, saving."""

from __future__ import annotations

import pytest
import torch

from cascade.conditioning.signals import Signals, TokenSignal
from cascade.conditioning.slots import Dense, Slots
from cascade.errors import RecipeError
from cascade.networks.backbone_network import NetworkShape
from cascade.networks.backbones import build_network
from cascade.saving.stage_folder import read_network, write_network

SLOTS = {"text": Slots(vector=Dense(6), tokens=5)}


def shape(size=(1, 1)) -> NetworkShape:
    return NetworkShape(image_channels=8, out_channels=8, size=size, slots=SLOTS, embedding_dim=16)


@pytest.fixture
def network(fill_zeros):
    torch.manual_seed(0)
    return fill_zeros(build_network("mlp", shape(), {"width": 32, "depth": 2})).eval()


def signals(padding: float = 0.0) -> Signals:
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 4, 5, generator=draw)
    mask = torch.arange(4) < torch.tensor([[4], [2], [0]])
    tokens = torch.where(mask[..., None], tokens, padding)
    vector = torch.randn(3, 6, generator=draw)
    return Signals(vectors={"text": vector}, tokens={"text": TokenSignal(tokens, mask)})


@torch.no_grad()
def test_tokens_behind_the_mask_may_be_anything(network):
    x_t, t = torch.randn(3, 8, 1, 1), torch.tensor([5, 50, 500])
    outputs = [network(x_t, t, signals(padding)) for padding in (0.0, 1e6, float("nan"))]
    assert outputs[0].equal(outputs[1])
    assert outputs[0].equal(outputs[2])


@torch.no_grad()
def test_a_vector_has_the_same_prediction_in_any_batch(network):
    x_t, t = torch.randn(3, 8, 1, 1), torch.tensor([5, 50, 500])
    whole = network(x_t, t, signals())
    part = signals().map(lambda each: each[1:2])
    torch.testing.assert_close(network(x_t[1:2], t[1:2], part), whole[1:2])
    assert (whole[0] - whole[1]).abs().max() > 1e-3


@torch.no_grad()
def test_it_is_read_back_as_it_was_written(network, tmp_path):
    write_network(network, tmp_path)
    loaded = read_network(tmp_path, "mlp", network.config())
    x_t, t = torch.randn(3, 8, 1, 1), torch.tensor([5, 50, 500])
    assert loaded(x_t, t, signals()).equal(network(x_t, t, signals()))


@torch.no_grad()
def test_every_pixel_is_a_vector_by_itself(network):
    x_t, t = torch.randn(3, 8, 2, 3), torch.tensor([5, 50, 500])
    whole = network(x_t, t, signals())
    alone = network(x_t[..., 1:, 2:], t, signals())
    torch.testing.assert_close(whole[..., 1:, 2:], alone)


def test_larger_images_are_refused():
    with pytest.raises(RecipeError, match=r"mlp is for vectors, .*got 16x16 px; use unet"):
        build_network("mlp", shape((16, 16)), {})
    with pytest.raises(RecipeError, match="width must be a multiple of 64, got 100"):
        build_network("mlp", shape(), {"width": 100})
