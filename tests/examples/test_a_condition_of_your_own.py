"""The example of a condition: edges of a picture as an image, beside a low-resolution image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import pytest
import torch

from cascade.conditioning.batch import Batch
from cascade.conditioning.condition import Condition
from cascade.conditioning.inputs import Request
from cascade.conditioning.kinds import CONDITIONS
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.noised_image import dropped, fit_to_canvas, without_image
from cascade.conditioning.signals import ChannelSignal, Signals
from cascade.conditioning.slots import Slots
from cascade.contract import Contract
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.pipeline import CascadePipeline
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.tiles import Tiles
from cascade.space import Space
from cascade.stage import Run
from cascade.training.objectives.denoising import Denoising

# ---- the condition ----


@dataclass(frozen=True, kw_only=True)
class EdgeOptions:
    """What a recipe states about edges."""

    drop: float = 0.1


@final
@dataclass(frozen=True, kw_only=True)
class Edges(Condition):
    """The vertical edges of a picture, one channel at the size of the result."""

    name = "edges"
    input_name = "edges"
    recipe = EdgeOptions

    def slots(self, space):
        return Slots(channels=1)

    def of_batch(self, batch, space, noise):
        signals = self._signals(self.input_of(batch, space))
        return dropped(signals, self.absent(signals), self.drop, noise)

    def of_request(self, request: Request):
        edges = request.inputs.get("edges")
        if edges is None:
            edges = torch.zeros(request.count, 1, *request.result_px)
        return self._signals(fit_to_canvas(edges.to(request.device), request))

    def absent(self, signals):
        return without_image(signals)

    def input_of(self, batch, space, *, degraded=False):
        grey = batch.images.mean(dim=1, keepdim=True)
        return torch.diff(grey, dim=-1, append=grey[..., -1:])

    def _signals(self, edges):
        return Signals(channels={self.name: ChannelSignal(edges)})


# ---- what it can do then ----

SPACE = Space(size_px=32)
LOW = LowResolution(size_px=16, drop=0.0)


@pytest.fixture(autouse=True)
def _in_the_table(monkeypatch):
    monkeypatch.setitem(CONDITIONS, Edges.name, Edges)


@pytest.fixture
def stage(fill_zeros) -> DiffusionStage:
    torch.manual_seed(0)
    stage = DiffusionStage.build(
        Contract(SPACE, (LOW, Edges(drop=0.5))),
        NoiseProcess(NoiseSchedule(train_steps=100)),
        network_options={"channels": (8, 16), "blocks": 1, "patch_size": 2},
        embedding_dim=32,
        sampling=SamplingSettings(steps=3, guidance=1.5),
    )
    return fill_zeros(stage).eval()


def pictures(count: int, height: int = 32, width: int = 32) -> torch.Tensor:
    noise = torch.Generator().manual_seed(0)
    small = torch.rand(count, 3, 4, 4, generator=noise) * 1.8 - 0.9
    return torch.nn.functional.interpolate(small, size=(height, width), mode="bilinear")


def inputs_of(stage, images):
    return stage.contract.inputs_of(Batch(images=images, seeds=tuple(range(len(images)))))


def test_it_trains(stage):
    optimiser = torch.optim.Adam(stage.parameters(), lr=3e-3)
    batch = Batch(images=pictures(8), seeds=tuple(range(8)))
    losses = []
    for _ in range(30):
        loss = Denoising().loss(stage, batch).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 72)])
def test_it_decides_what_is_drawn_at_any_size(stage, height, width):
    inputs = inputs_of(stage, pictures(2, height, width))
    images = stage.run([0, 1], inputs)
    assert images.shape == (2, 3, height, width)
    other = stage.run([0, 1], inputs.with_value("edges", -inputs.get("edges")))
    assert not torch.allclose(images, other, atol=1e-2)


class Pointwise(torch.nn.Module):
    """Sees one pixel at a time, so that tiles cannot change what it says."""

    size_multiple_px = 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.4))

    def forward(self, x_t, t, signals):
        small, edges = (signals.channels[name].image for name in ("low_resolution", "edges"))
        return torch.tanh(self.weight * x_t + small - 3 * edges)


def test_tiles_draw_what_the_whole_image_is(stage):
    inputs = inputs_of(stage, pictures(2, 64, 96))
    stage = DiffusionStage(Pointwise(), stage.process, stage.contract, sampling=stage.sampling)
    whole = stage.run([5, 6], inputs)
    in_tiles = stage.run([5, 6], inputs, run=Run(tiles=Tiles(32, 8)))
    assert torch.allclose(whole, in_tiles, atol=2e-5)


def test_edges_of_another_size_are_refused(stage):
    inputs = inputs_of(stage, pictures(1)).with_value("edges", torch.zeros(1, 1, 64, 64))
    with pytest.raises(ContractError, match=r"must be \(B, C, 32, 32\) .*, got \(1, 1, 64, 64\)"):
        stage.run([0], inputs)


def test_it_is_guided(stage):
    inputs = inputs_of(stage, pictures(1))
    settings = [stage.sampling.changed(guidance=scale) for scale in (0.0, 1.0, 3.0)]
    without, plain, strong = (stage.run([0], inputs, run=Run(settings=each)) for each in settings)
    no_edges = inputs.with_value("edges", torch.zeros_like(inputs.get("edges")))
    assert torch.allclose(
        without, stage.run([0], no_edges, run=Run(settings=settings[1])), atol=1e-5
    )
    assert not torch.allclose(plain, strong, atol=1e-3)


def test_it_is_saved_loaded_and_chained(stage, tmp_path, fill_zeros):
    base = DiffusionStage.build(
        Contract(Space(size_px=16)),
        stage.process,
        network_options={"channels": (8, 16), "blocks": 1},
        sampling=SamplingSettings(steps=2),
    )
    pipeline = CascadePipeline.from_stages({"base": fill_zeros(base).eval(), "edgy": stage})
    pipeline.save_pretrained(tmp_path / "edgy")
    loaded = CascadePipeline.from_pretrained(tmp_path / "edgy")
    edges = inputs_of(stage, pictures(2)).get("edges")
    call = {"seed": 3, "output_type": "pt", "inputs": {"edges": edges}, "precision": "fp32"}
    images = pipeline(num_images=2, **call).images
    assert torch.equal(images, loaded(num_images=2, **call).images)
    assert loaded.stages["edgy"].contract == stage.contract
    assert not torch.allclose(
        images, pipeline(num_images=2, **{**call, "inputs": {}}).images, atol=1e-2
    )
