"""One walk: whole images and tiles draw the same with every sampler, threshold and hook."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from cascade import mapped_arrays
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.low_resolution import LowResolution
from cascade.conditioning.signals import Signals
from cascade.contract import Contract
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.sampling.samplers import scheduler_trial
from cascade.sampling.samplers.diffusers_sampler import BY_PIXEL, DiffusersSampler
from cascade.sampling.samplers.table import SAMPLERS as OWN
from cascade.sampling.samplers.table import sampler_names
from cascade.sampling.settings import SamplingSettings
from cascade.sampling.spans import spans
from cascade.sampling.tiles import Tiles
from cascade.sampling.walk import Hooks, Known, StartFrom
from cascade.space import Space
from cascade.stage import Run

SEEDS = (3, 8)
SIZE = (50, 76)
TILES = Tiles(24, 8)
SAMPLERS = [*sampler_names(), "DPMSolverSinglestepScheduler"]


class PointwiseNetwork(nn.Module):
    """Looks at one pixel at a time, so that tiles cannot change its answers."""

    size_multiple_px = 4

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.calls: list[tuple[Tensor, Tensor]] = []

    def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
        self.calls.append((x_t, t))
        image = signals.channels[LowResolution.name].image
        level = signals.vectors[LowResolution.name].view(-1, 1, 1, 1)
        label = signals.vectors["labels"][:, :1, None, None]
        time = 0.001 * t.view(-1, 1, 1, 1)
        return torch.tanh(0.4 * x_t + image) * (0.5 + level) + time + 0.05 * label


@pytest.fixture
def stage(upsampler) -> DiffusionStage:
    return DiffusionStage(
        PointwiseNetwork(), upsampler.process, upsampler.contract, sampling=upsampler.sampling
    )


@pytest.fixture
def inputs() -> Inputs:
    """Two small images of 38x25 px, and their labels."""
    image = torch.rand(2, 3, 25, 38, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return Inputs({"image": image, "labels": torch.tensor([[0, 1], [1, -1]])})


def canvas_noise(shape: tuple[int, ...], inputs: Inputs) -> Tensor:
    """The noise from which the walk starts; conditions draw from streams of their own."""
    return SeededNoise(SEEDS, "sample").normal(*shape)


def sample(stage, inputs, tiles=None, *, hooks=None, **values) -> Tensor:
    run = Run(settings=stage.sampling.changed(**values), tiles=tiles, hooks=hooks or Hooks())
    return stage.run(SEEDS, inputs, run=run)


def assert_same(tiled: Tensor, whole: Tensor) -> None:
    """Equal but for rounding, which large first steps enlarge at single pixels."""
    difference = (tiled - whole).abs()
    assert difference.mean() < 1e-5
    assert difference.max() < 1 / 255


# ---- every sampler and threshold ----------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("threshold", ["static", "dynamic", "none"])
def test_tiles_draw_the_same_as_the_whole_image(stage, inputs, sampler, threshold):
    values = {"sampler": sampler, "threshold": threshold, "percentile": 0.9, "guidance": 1.5}
    whole = sample(stage, inputs, **values)
    assert whole.shape == (2, 3, *SIZE)
    assert_same(sample(stage, inputs, TILES, **values), whole)
    assert (whole[0] - whole[1]).abs().max() > 0.05


def test_the_dynamic_threshold_is_that_of_the_whole_image(stage, inputs):
    """One tile of two has its values multiplied; its own threshold would be another one."""
    values = {"threshold": "dynamic", "percentile": 0.9, "steps": 1}
    image = inputs.get("image") * torch.tensor([0.1, 1.0]).repeat_interleave(19).view(1, 1, 1, 38)
    inputs = inputs.with_value("image", image)
    whole = sample(stage, inputs, **values)
    assert_same(sample(stage, inputs, TILES, **values), whole)
    left = sample(stage, inputs.with_value("image", image[..., :19]), **values)
    assert (left[..., :30] - whole[..., :30]).abs().mean() > 0.05


@pytest.mark.parametrize(("tile_px", "overlap_px"), [(16, 4), (16, 12), (24, None), (40, 0)])
def test_the_size_and_overlap_of_tiles_change_nothing(stage, inputs, tile_px, overlap_px):
    values = {"sampler": "unipc", "threshold": "dynamic", "percentile": 0.9}
    tiles = Tiles(tile_px, overlap_px)
    assert_same(sample(stage, inputs, tiles, **values), sample(stage, inputs, **values))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_tile_that_covers_everything_is_the_whole_image(stage, inputs, sampler):
    values = {"sampler": sampler, "eta": 0.5} if sampler == "ddim" else {"sampler": sampler}
    whole = sample(stage, inputs, **values)
    assert sample(stage, inputs, Tiles(200), **values).equal(whole)


@pytest.mark.parametrize("sampler", BY_PIXEL)
def test_steps_by_strips_are_those_of_the_whole_canvas(stage, inputs, sampler, monkeypatch):
    """The same tiles, and the same earlier predictions, whether in memory or in files."""
    values = {"sampler": sampler, "steps": 6, "guidance": 1.5}
    monkeypatch.setattr(scheduler_trial, "MOST_CONTRAST", math.inf)  # else Heun's is refused
    by_strips = sample(stage, inputs, TILES, **values)
    monkeypatch.setattr(mapped_arrays, "MOST_IN_MEMORY_BYTES", 1000)
    in_files = sample(stage, inputs, TILES, **values)
    assert by_strips.equal(in_files)
    monkeypatch.setattr(DiffusersSampler, "by_strips", False)
    at_once = sample(stage, inputs, TILES, **values)
    torch.testing.assert_close(by_strips, at_once, rtol=0, atol=1e-6)


# ---- known pixels -------------------------------------------------------------------------------


@pytest.fixture
def known() -> Known:
    """A frame of one picture for both images."""
    image = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(5)) * 1.6 - 0.8
    mask = torch.ones(SIZE, dtype=torch.bool)
    mask[10:40, 10:60] = False
    return Known(image, mask)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_known_pixels_stand_in_the_result_and_the_rest_is_drawn(stage, inputs, known, sampler):
    hooks = Hooks(known=known)
    whole = sample(stage, inputs, hooks=hooks, sampler=sampler)
    tiled = sample(stage, inputs, TILES, hooks=hooks, sampler=sampler)
    for images in (whole, tiled):
        assert images[..., known.mask].equal(known.image.expand(2, -1, -1, -1)[..., known.mask])
    assert_same(tiled, whole)
    free = sample(stage, inputs, sampler=sampler)
    assert (whole - free)[..., ~known.mask].abs().max() < 1 / 255  # a pointwise network cannot see
    assert (whole - free)[..., known.mask].abs().mean() > 0.1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_known_pixels_are_as_noisy_as_the_canvas_at_every_call(stage, inputs, known, sampler):
    sample(stage, inputs, hooks=Hooks(known=known), sampler=sampler)
    calls = stage.network.module.calls
    assert len(calls) >= 4
    x0 = nn.functional.pad(known.image, (0, 0, 0, 2))  # the canvas is 52x76 px
    mask = nn.functional.pad(known.mask, (0, 0, 0, 2))
    eps = canvas_noise((3, 52, 76), inputs)
    for x_t, t in calls:
        expected = stage.process.schedule.add_noise(x0.expand(2, -1, -1, -1), eps, t)
        torch.testing.assert_close(x_t[..., mask], expected[..., mask], rtol=0, atol=2e-3)


@pytest.mark.parametrize("tiles", [None, TILES], ids=["whole", "tiles"])
@pytest.mark.parametrize(
    ("image", "mask"),
    [((1, 3, 56, 76), (56, 76)), ((1, 1, 50, 76), (50, 76)), ((1, 3, 5, 5), (6, 6))],
)
def test_known_pixels_that_do_not_fit_are_refused(stage, inputs, tiles, image, mask):
    known = Known(torch.zeros(image), torch.ones(mask, dtype=torch.bool))
    with pytest.raises(ContractError, match=r"known pixels must be .*\(52, 76\), got"):
        sample(stage, inputs, tiles, hooks=Hooks(known=known))


# ---- starting from images -----------------------------------------------------------------------


@pytest.fixture
def base(base_stage) -> DiffusionStage:
    """A pointwise stage that draws from noise alone, of 50x76 px."""

    class Wavy(nn.Module):
        size_multiple_px = 2

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x_t: Tensor, t: Tensor, signals: Signals) -> Tensor:
            return torch.tanh(0.7 * x_t) + 0.2 * torch.sin(3 * x_t + t.view(-1, 1, 1, 1) / 20)

    contract = Contract(Space(size_px=SIZE))
    return DiffusionStage(Wavy(), base_stage.process, contract, sampling=SamplingSettings(steps=4))


@pytest.mark.parametrize("sampler", OWN)
@pytest.mark.parametrize("strength", [0.25, 0.75])
def test_starting_from_images_is_the_same_in_tiles(base, sampler, strength):
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(5)) * 1.6 - 0.8
    hooks = Hooks(start_from=StartFrom(images, strength))
    whole = sample(base, None, hooks=hooks, sampler=sampler)
    assert_same(sample(base, None, TILES, hooks=hooks, sampler=sampler), whole)
    near = (whole - images).abs().mean()
    assert 0.01 < near < (sample(base, None, sampler=sampler) - images).abs().mean()


@pytest.mark.parametrize("tiles", [None, TILES], ids=["whole", "tiles"])
@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in OWN])
def test_samplers_that_cannot_start_from_images_are_refused(base, tiles, sampler):
    hooks = Hooks(start_from=StartFrom(torch.zeros(2, 3, *SIZE)))
    with pytest.raises(ContractError, match="samplers of diffusers cannot start from an image"):
        sample(base, None, tiles, hooks=hooks, sampler=sampler)


# ---- callbacks and progress ---------------------------------------------------------------------


class Steps:
    """A callback that keeps what it gets."""

    def __init__(self) -> None:
        self.places: list[tuple[int, int]] = []
        self.tensors: list[dict[str, Tensor]] = []

    def __call__(self, step: int, timestep: int, tensors: dict[str, Tensor]) -> None:
        self.places.append((step, timestep))
        self.tensors.append({name: tensor.clone() for name, tensor in tensors.items()})


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("threshold", ["static", "dynamic"])
def test_callbacks_get_the_same_steps_in_tiles(stage, inputs, sampler, threshold):
    whole, tiled = Steps(), Steps()
    values = {"sampler": sampler, "threshold": threshold}
    images = sample(stage, inputs, hooks=Hooks(callback=whole), **values)
    sample(stage, inputs, TILES, hooks=Hooks(callback=tiled), **values)
    assert whole.places == tiled.places
    assert len(whole.places) >= 4
    for mine, theirs in zip(whole.tensors, tiled.tensors, strict=True):
        assert set(mine) == {"x_t", "x0"}
        assert_same(theirs["x0"], mine["x0"])
    assert whole.tensors[-1]["x0"][..., :50, :].clamp(-1, 1).equal(images)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("tiles", [None, TILES], ids=["whole", "tiles"])
def test_what_a_callback_returns_goes_on(stage, inputs, sampler, tiles):
    def grey(step, timestep, tensors):
        return {"x_t": torch.full_like(tensors["x_t"], 0.25)}

    images = sample(stage, inputs, tiles, hooks=Hooks(callback=grey), sampler=sampler)
    assert images.eq(0.25).all()


def test_a_callback_that_changes_a_step_changes_the_rest_alike_in_tiles(stage, inputs):
    def darken(step, timestep, tensors):
        return {"x_t": tensors["x_t"] - 0.2} if step == 1 else None

    hooks = Hooks(callback=darken)
    whole = sample(stage, inputs, hooks=hooks)
    assert_same(sample(stage, inputs, TILES, hooks=hooks), whole)
    assert (whole - sample(stage, inputs)).abs().mean() > 0.01


@pytest.mark.parametrize("sampler", ["ddim", "unipc"])
@pytest.mark.parametrize("tiles", [None, TILES], ids=["whole", "tiles"])
def test_progress_counts_every_strip_of_every_step(stage, inputs, sampler, tiles):
    moments = []
    hooks = Hooks(progress=lambda *moment: moments.append(moment))
    sample(stage, inputs, tiles, hooks=hooks, sampler=sampler)
    strips = 1 if tiles is None else len(spans(52, 24, 8, 4))
    assert moments == [(number + 1, 4 * strips) for number in range(4 * strips)]


@pytest.mark.parametrize("tile_px", [0, -16])
def test_tiles_without_a_size_are_refused(stage, inputs, tile_px):
    with pytest.raises(ContractError, match=f"tile_px must be at least 1, got {tile_px}"):
        sample(stage, inputs, Tiles(tile_px))


@pytest.mark.parametrize("overlap_px", [-1, 24])
def test_overlaps_that_are_no_part_of_a_tile_are_refused(stage, inputs, overlap_px):
    with pytest.raises(ContractError, match=f"overlap_px must be from 0 to 23, got {overlap_px}"):
        sample(stage, inputs, Tiles(24, overlap_px))
