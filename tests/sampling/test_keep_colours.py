"""Results that get the colours of their low-resolution images (`keep_colours`)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cascade.conditioning.inputs import Inputs
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.signals import Signals
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.sampling.known_pixels import Known
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.tiles import Tiles
from cascade.sampling.walk import Hooks
from cascade.space import Space
from cascade.stage import Run

CAST = torch.tensor([0.2, 0.0, -0.2])[:, None, None]
TILES = Tiles(32, 8)


class Tinted(nn.Module):
    """Predicts the low-resolution image in other colours."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        return signals.channels["low_resolution"].image + CAST * self.weight


@pytest.fixture
def tinting() -> DiffusionStage:
    """An upsampler from 8 to 16 px, of other sizes too."""
    contract = Contract(Space(size_px=16), (LowResolution(size_px=8),))
    process = NoiseProcess(NoiseSchedule(train_steps=100), prediction="x0")
    return DiffusionStage(Tinted(), process, contract)


@pytest.fixture
def image() -> Tensor:
    """(1, 3, 26, 35), smooth, well inside the range."""
    noise = torch.randn(1, 3, 5, 6, generator=torch.Generator().manual_seed(3))
    return F.interpolate(noise, (26, 35), mode="bicubic").tanh() * 0.5


def draw(stage, image, run=None, **settings):
    values = {"steps": 2, **settings}
    run = Run(settings=stage.sampling.changed(**values), **(run or {}))
    return stage.run([3], Inputs({"image": image}), run=run)


def cast(images, image) -> Tensor:
    """The mean error of each channel."""
    return (F.avg_pool2d(images, 2) - image).mean((0, 2, 3))


@pytest.mark.parametrize("tiles", [None, TILES])
def test_a_cast_of_the_network_is_removed(tinting, image, tiles):
    tinted = draw(tinting, image, {"tiles": tiles})
    assert torch.allclose(cast(tinted, image), CAST.flatten(), atol=0.02)
    kept = draw(tinting, image, {"tiles": tiles}, keep_colours=True)
    assert kept.shape == tinted.shape
    assert cast(kept, image).abs().max() < 0.01


@pytest.mark.parametrize("size", [(52, 70), (30, 50)])
def test_it_changes_no_known_pixel(tinting, image, size):
    known = Known(torch.full((1, 3, *size), 0.3), torch.zeros(size, dtype=torch.bool))
    known.mask[:20] = True
    result = draw(tinting, image, {"hooks": Hooks(known=known)}, keep_colours=True)
    assert torch.allclose(result[..., :20, : size[1]], torch.tensor(0.3), rtol=0, atol=1e-6)
    assert cast(result[..., 24:, :], image[..., 12:, :]).abs().max() < 0.25 * CAST.max()


def test_what_a_callback_got_does_not_change_later(tinting, image):
    states = []
    hooks = Hooks(callback=lambda index, t, state: states.append((state["x_t"], state["x_t"] + 0)))
    draw(tinting, image, {"hooks": hooks}, keep_colours=True)
    assert all(state.equal(copy) for state, copy in states)


def test_stages_without_such_an_image_refuse_it(base_stage):
    paired = Contract(Space(size_px=16), (LowResolution(size_px=8, paired=True),))
    for contract in (base_stage.contract, paired):
        with pytest.raises(ContractError, match="keep_colours true is for stages that upscale"):
            contract.check_sampling(SamplingSettings(keep_colours=True))


def test_it_is_saved_when_it_is_on_and_is_nothing_but_true_or_false():
    assert "keep_colours" not in SamplingSettings().to_dict()
    values = SamplingSettings(keep_colours=True).to_dict()
    assert SamplingSettings().changed(**values).keep_colours is True
    with pytest.raises(ContractError, match="keep_colours must be"):
        SamplingSettings().changed(keep_colours="yes")
