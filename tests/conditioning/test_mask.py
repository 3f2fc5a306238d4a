"""The known part of an image as a condition: the holes, what the network sees, what counts."""

from __future__ import annotations

import pytest
import torch

from cascade.chain import StageChain
from cascade.conditioning.batch import Batch
from cascade.conditioning.filling import filled
from cascade.conditioning.hole_shapes import KINDS, draw_holes
from cascade.conditioning.inputs import Inputs
from cascade.conditioning.mask import Mask, with_opacity
from cascade.contract import Contract
from cascade.diffusion.noise import SeededNoise
from cascade.diffusion.process import NoiseProcess
from cascade.diffusion.schedule import NoiseSchedule
from cascade.diffusion_stage import DiffusionStage
from cascade.errors import ContractError
from cascade.sampling.tiles import Tiles
from cascade.sampling.walk import Hooks, Known
from cascade.space import Space
from cascade.stage import Run
from cascade.training.objectives.denoising import Denoising

SPACE = Space(size_px=16)


@pytest.fixture
def images(low_res):
    return low_res[:3]


@pytest.fixture
def batch(images) -> Batch:
    labels = torch.full((3, 2), -1)
    return Batch(images=images, seeds=(3, 4, 5), conditions={"labels": labels})


# ---- holes --------------------------------------------------------------------------------------


def test_holes_cover_as_much_as_the_table_of_shapes_says():
    seeds = range(150)
    holes = draw_holes(SeededNoise(seeds, "test"), (48, 64))
    assert holes.shape == (150, 1, 48, 64)
    areas = holes.float().mean(dim=(1, 2, 3))
    place = SeededNoise(seeds, "test").uniform().view(-1)
    first, second = KINDS["strokes"], KINDS["strokes"] + KINDS["rectangle"]
    strokes = areas[place < first]
    rectangles = areas[(place >= first) & (place < second)]
    borders = areas[place >= second]
    assert areas.min() > 0
    assert strokes.max() < 0.4
    assert 0.04 < strokes.mean() < 0.11
    assert 0.035 < rectangles.min() < rectangles.max() < 0.5
    assert 0.15 < rectangles.mean() < 0.25
    assert 0.27 < borders.min() < borders.max() < 0.85
    assert 0.5 < borders.mean() < 0.7


def test_the_hole_of_an_image_depends_on_its_seed_alone():
    together, alone = (draw_holes(SeededNoise(seeds, "x"), (20, 30)) for seeds in ([1, 2, 3], [2]))
    assert together[1:2].equal(alone)
    assert not together[0].equal(together[1])


# ---- the smooth fill ----------------------------------------------------------------------------


def test_unknown_pixels_take_the_colours_around_them():
    image = torch.full((2, 3, 9, 14), 0.25)
    known = torch.ones(2, 1, 9, 14, dtype=torch.bool)
    known[0, :, 2:7, 3:10] = False
    known[1] = False  # an image of which nothing is known
    wrong = torch.where(known, image, torch.tensor(0.9))
    result = filled(wrong, known)
    torch.testing.assert_close(result[0], image[0])
    assert result[1].eq(0).all()
    ramp = torch.linspace(-1, 1, 32).expand(1, 1, 32, 32)
    known = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    known[..., 12:20] = False
    assert (filled(ramp * known, known) - ramp).abs().max() < 0.15


# ---- signals and the loss -----------------------------------------------------------------------


def test_the_network_sees_known_pixels_the_fill_and_the_hole(batch, images):
    mask, noise = Mask(), SeededNoise(batch.seeds, "test")
    signal = mask.of_batch(batch, SPACE, noise).channels["mask"].image
    hole = draw_holes(SeededNoise(batch.seeds, "test"), (16, 16))
    assert signal[:, 3:].equal(torch.where(hole, 1.0, -1.0))
    known = (~hole).expand_as(images)
    assert signal[:, :3][known].equal(images[known])
    assert signal[:, :3].equal(filled(images * ~hole, ~hole))
    assert mask.slots(SPACE).channels == 4


def test_what_is_in_the_hole_never_reaches_the_network(inpainter, record, images):
    calls = record(inpainter)
    hole = torch.zeros(3, 1, 16, 16, dtype=torch.bool)
    hole[..., 3:9, 4:12] = True
    for shown in (images, torch.where(hole, torch.tensor(0.7), images)):
        inpainter.run([0, 1, 2], Inputs({"image": with_opacity(shown, hole)}))
    first, second = calls[0], calls[len(calls) // 2]
    assert first[0].equal(second[0])
    assert first[2].channels["mask"].image.equal(second[2].channels["mask"].image)


def test_the_loss_counts_the_pixels_in_the_hole_only(inpainter, batch, images, monkeypatch):
    hole = draw_holes(SeededNoise(batch.seeds, "train mask"), (16, 16))
    wrong = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def loss(places):
        def predict(self, x_t, t, signals):
            eps = SeededNoise(batch.seeds, "train noise").normal(3, 16, 16)
            return self.process.target(images, eps, t) + wrong * places

        monkeypatch.setattr(DiffusionStage, "predict", predict)
        return Denoising().loss(inpainter, batch)

    assert loss(~hole).allclose(torch.zeros(3), atol=1e-9)
    expected = [(each[:, place[0]] ** 2).mean() for each, place in zip(wrong, hole, strict=True)]
    torch.testing.assert_close(loss(hole), torch.stack(expected))


def test_a_dropped_image_is_one_hole_of_which_all_pixels_count(batch):
    dropped = Mask(drop=1.0)
    signals = dropped.of_batch(batch, SPACE, SeededNoise(batch.seeds, "test"))
    image = signals.channels["mask"].image
    assert image[:, :3].eq(0).all()
    assert image[:, 3].eq(1).all()
    assert dropped.counted_pixels(signals).eq(1).all()


# ---- sampling -----------------------------------------------------------------------------------


def test_known_pixels_are_exact_for_each_image_of_a_batch(inpainter, batch):
    inputs = inpainter.contract.inputs_of(batch)
    results = inpainter.run([7, 8, 9], inputs)
    image = inputs.get("image")
    known = (image[:, 3:] > 0).expand(-1, 3, -1, -1)
    assert results[known].equal(batch.images[known])
    assert not results[~known].allclose(batch.images[~known], atol=0.05)
    one = inpainter.run([8], inputs.part(slice(1, 2)))
    torch.testing.assert_close(one, results[1:2], rtol=0, atol=1e-5)


def test_what_the_caller_knows_replaces_what_the_input_holds(inpainter, batch):
    known = Known(torch.full((1, 3, 16, 16), 0.5), torch.ones(16, 16, dtype=torch.bool))
    inputs = inpainter.contract.inputs_of(batch)
    assert inpainter.run([1, 2, 3], inputs, run=Run(hooks=Hooks(known=known))).eq(0.5).all()


def test_any_size_works_also_in_tiles(inpainter):
    image = torch.rand(1, 3, 39, 51, generator=torch.Generator().manual_seed(1)) * 1.8 - 0.9
    hole = torch.zeros(1, 1, 39, 51, dtype=torch.bool)
    hole[..., 5:30, 18:44] = True
    inputs = Inputs({"image": with_opacity(image, hole)})
    whole = inpainter.run([3], inputs)
    tiled = inpainter.run([3], inputs, run=Run(tiles=Tiles(32, 8)))
    for result in (whole, tiled):
        assert result.shape == image.shape
        assert result[..., ~hole[0, 0]].equal(image[..., ~hole[0, 0]])


def test_residuals_are_added_to_the_smooth_fill(images):
    process = NoiseProcess(
        NoiseSchedule(train_steps=100), prediction="x0", weighting="residual", residual_std=0.3
    )

    class Zeros(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x_t, t, signals):
            return self.weight * x_t

    stage = DiffusionStage(Zeros(), process, Contract(SPACE, (Mask(),)))
    hole = torch.ones(3, 1, 16, 16, dtype=torch.bool)
    hole[..., :, :8] = False
    signals = Mask()._signals(with_opacity(images, hole))
    x0 = stage.predict(torch.randn(3, 3, 16, 16), torch.full((3,), 99), signals)
    torch.testing.assert_close(x0, filled(images * ~hole, ~hole), atol=0.05, rtol=0)


# ---- what does not fit --------------------------------------------------------------------------


def test_images_without_opacity_are_refused(inpainter, images):
    with pytest.raises(ContractError, match=r"must be \(B, 4, H, W\), .* Call edit with an image"):
        inpainter.run([0, 1, 2], Inputs({"image": images}))
    with pytest.raises(ContractError, match="needs an image to start from: 16 px with a hole"):
        inpainter.run([0])


def test_it_follows_no_stage_that_gives_images_without_holes(base_stage, inpainter):
    with pytest.raises(ContractError, match="'base' gives channels 3, 'fill' takes 4"):
        StageChain({"base": base_stage, "fill": inpainter})
