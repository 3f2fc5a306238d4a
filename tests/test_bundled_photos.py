"""The bundled models for photographs, on the pictures of their own cards, which they never saw."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cascade.conditioning.luminance import luminance
from cascade.imaging.reading import read_image
from cascade.pipeline import CascadePipeline
from cascade.recipe.finding import find_recipe, recipes_root
from cascade.recipe.reading import load_stage_recipe
from cascade.resizing import quantise, resize
from cascade.sampling.spans import spans
from cascade.tasks.enlarging import low_res_error
from cascade.tasks.image_metrics import colourfulness, psnr

PIPELINES = recipes_root() / "pipelines"
MODELS = {"photo-x4": "upsampler", "photo-x4-restore": "upsampler", "photo-colour": "colours"}
CONDITIONS = {
    "photo-x4": ["low_resolution"],
    "photo-x4-restore": ["low_resolution", "defects"],
    "photo-colour": ["luminance"],
}
CELL_PX = 258  # of the cards' sheets


def cell(sheet: str, row: int, column: int) -> Tensor:
    """(1, 3, 256, 256) of a card's sheet."""
    top, left = row * CELL_PX, column * CELL_PX
    return read_image(PIPELINES / sheet)[None, :, top : top + 256, left : left + 256]


@pytest.fixture(scope="module")
def upscaler() -> CascadePipeline:
    return CascadePipeline.from_pretrained("photo-x4")


@pytest.fixture(scope="module")
def truth() -> Tensor:
    return cell("photo-x4/enlarged.png", row=1, column=3)


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_small_and_of_the_recipe(name):
    weights = sum(file.stat().st_size for file in (PIPELINES / name).rglob("*.safetensors"))
    assert weights <= 8_000_000
    stage = CascadePipeline.from_pretrained(name).stages[MODELS[name]]
    recipe = load_stage_recipe(find_recipe(name, "stages"))
    names = [condition.name for condition in stage.conditions]
    assert names == CONDITIONS[name]
    assert stage.process.residual is not None
    assert stage.process.residual.std == recipe.diffusion.residual_std
    assert stage.contract.restores == (name == "photo-x4-restore")


def test_an_upscaled_photograph_has_detail_that_bicubic_lacks(upscaler, truth):
    small = quantise(resize(truth, (64, 64), "bicubic"))
    result = upscaler.upscale(small, seed=0)
    smooth = resize(small, (256, 256), "bicubic")
    detail = {
        name: float(image.diff(dim=-1).abs().mean())
        for name, image in (("result", result), ("smooth", smooth), ("truth", truth))
    }
    assert 1.2 * detail["smooth"] < detail["result"] < detail["truth"]
    assert float(psnr(result, truth)) > float(psnr(smooth, truth)) + 1
    assert float(low_res_error(quantise(result), small)) < 1
    assert (result.mean((2, 3)) - truth.mean((2, 3))).abs().max() * 127.5 < 1


def test_borders_of_tiles_do_not_show_in_a_photograph(upscaler, truth):
    small = quantise(resize(truth, (64, 64), "bicubic"))
    options = {"seed": 0, "steps": 3, "consistent": False, "precision": "fp32"}
    whole = upscaler.upscale(small, **options)
    tiled = upscaler.upscale(small, tile_px=96, **options)
    edges = {e for span in spans(256, 96, 24, 8) for e in (span.start, span.stop)} - {0, 256}
    at = torch.tensor(sorted(edges)) - 1
    step = tiled.diff(dim=-1).abs()
    ratio = float(step[..., at].mean() / whole.diff(dim=-1).abs()[..., at].mean())
    assert 0.8 < ratio < 1.1
    assert ((tiled - whole) * 127.5).pow(2).mean().sqrt() < 8  # of 255


def test_the_restoring_model_removes_noise_that_the_other_keeps(upscaler):
    truth = cell("photo-x4/enlarged.png", row=0, column=3)[..., :128, :128]  # a smooth sky
    small = resize(truth, (32, 32), "bicubic")
    noise = torch.randn(small.shape, generator=torch.Generator().manual_seed(0))
    noisy = quantise(small + 0.08 * noise)
    restorer = CascadePipeline.from_pretrained("photo-x4-restore").upscale(noisy, seed=0)
    assert float(psnr(restorer, truth)) > float(psnr(upscaler.upscale(noisy, seed=0), truth)) + 1


def test_a_coloured_photograph_is_in_colour_and_keeps_its_luminance():
    grey = luminance(cell("photo-colour/coloured.png", row=0, column=0))
    result = CascadePipeline.from_pretrained("photo-colour").colourise(grey, seed=0)
    assert ((luminance(result) - grey) * 127.5).abs().max() <= 1
    assert float(colourfulness(quantise(result))) > 5
